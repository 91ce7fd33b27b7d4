"""The one door through which an update leaves a site: every mechanism, `none` included, goes through `sanitize`.

What comes out are the bytes to upload. Behind masks they are the masked integers; the integers themselves never leave
this module on the way to the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError
from tasks.learning.averaging import weight_of
from tasks.learning.flat import Shape, flatten, unflatten
from tasks.learning.training import RawUpdate
from tasks.privacy.codecs.sparse import Sparse
from tasks.privacy.mechanisms import compression
from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
from tasks.privacy.mechanisms.gaussian_update import GaussianUpdateMechanism
from tasks.privacy.mechanisms.local_dp import LocalDPMechanism
from tasks.privacy.mechanisms.svt import SparseVectorMechanism
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.privacy.secure_sum.masks import encode_fixed_point
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan, TensorSpec
from tasks.store.weights import Weights, to_bytes
from tasks.study.privacy import Compression, DistributedDP, GaussianUpdate, LocalDP, NoPrivacy, SparseVector

MAX_PARAMETERS = 1_000_000_000
#: Step of the fixed-point grid of a masked sum without noise: a billionth of a weight.
FIXED_POINT_STEP = 2.0**-30
Mask = Callable[[Maskable], npt.NDArray[np.uint64]]
Encrypt = Callable[[npt.NDArray[np.float64]], bytes]


@dataclass(frozen=True)
class Release:
    """What may leave the site, and what stays there."""

    tensors: Weights
    spend: Spend
    residual: torch.Tensor | None = None

    @property
    def body(self) -> bytes:
        """The safetensors bytes to upload."""
        return to_bytes(self.tensors)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and types, for the manifest."""
        return specs_of(self.tensors)


def specs_of(tensors: Weights) -> tuple[TensorSpec, ...]:
    """Names, shapes and types of tensors in the order of the names. Raises PrivacyError for a type we never upload."""
    types = {torch.float32: "F32", torch.int32: "I32", torch.uint64: "U64", torch.uint8: "U8"}
    for name, tensor in tensors.items():
        if tensor.dtype not in types:
            raise PrivacyError(f"tensor {name} is {tensor.dtype}: no update leaves with such values")
    return tuple(
        TensorSpec.model_validate({"name": name, "shape": tuple(tensor.shape), "dtype": types[tensor.dtype]})
        for name, tensor in sorted(tensors.items())
    )


def plan_spend(plan: Plan, releases: int) -> Spend:
    """What the site will have spent with its `releases`-th release. Raises BudgetExhausted."""
    privacy, total = plan.privacy, plan.total_rounds
    match privacy:
        case NoPrivacy() | Compression():
            what = "raw updates are shared" if plan.aggregation == "plain" else "the sum of raw updates is told"
            return Spend(mechanism=privacy.mechanism, unit="nothing", neighbours=f"none: {what}", releases=releases)
        case LocalDP():
            return LocalDPMechanism(privacy, total).spend(releases)
        case DistributedDP():
            return DistributedDPMechanism(privacy, total).spend(releases)
        case GaussianUpdate():
            return GaussianUpdateMechanism(privacy, total).spend(releases, masked=plan.aggregation == "masks")
        case SparseVector():
            return SparseVectorMechanism(privacy, total).spend(releases)


def sanitize(
    raw: RawUpdate,
    base: Weights,
    plan: Plan,
    *,
    releases: int,
    noise: NoiseSource,
    mask: Mask | None = None,
    num_masked: int = 0,
    encrypt: Encrypt | None = None,
    carried: torch.Tensor | None = None,
) -> Release:
    """Turn a raw update into one that may be uploaded, as the plan says.

    Args:
        raw: what training left behind.
        base: the weights that the round started from, by parameter name.
        releases: which release of this site it is, for the running total.
        noise: where the noise comes from: `SystemNoise()` at a site.
        mask: puts the round's masks on a contribution; needed where the plan aggregates behind masks.
        num_masked: sites on the round's roster, among which the noise is shared.
        encrypt: encrypts for the sites; needed where the plan aggregates under encryption.
        carried: what error feedback kept back in the site's last round, (parameters,).

    Raises:
        PrivacyError: the update cannot be privatised or masked; nothing may leave. BudgetExhausted: it cannot be paid.
    """
    spend, raw = plan_spend(plan, releases), _total_function(raw, plan)
    if plan.aggregation == "masks":
        if mask is None:
            raise PrivacyError("this plan's updates leave behind masks only, and there are none: it stays at the site")
        masked = mask(contribution(raw, base, plan, sites=num_masked, noise=noise))
        return Release({"masked": torch.from_numpy(masked)}, spend)
    if mask is not None:
        raise PrivacyError("this plan has no masks: the update stays at the site")
    if plan.aggregation == "ckks":
        if encrypt is None:
            raise PrivacyError("this plan's updates leave encrypted only, and there is no key: it stays at the site")
        return Release({"encrypted": _encrypted(raw, base, plan, noise, encrypt)}, spend)
    return _plain(raw, base, plan, spend, noise, carried)


def contribution(raw: RawUpdate, base: Weights, plan: Plan, *, sites: int, noise: NoiseSource) -> Maskable:
    """A site's part of a masked sum, noise share included. It is not yet fit to leave: masks go on it.

    Raises:
        PrivacyError: the update cannot be summed behind masks.
    """
    raw = _total_function(raw, plan)
    _check(raw)
    match plan.privacy:
        case DistributedDP() as privacy:
            total = _summed(raw, base, extra=2 * (plan.evaluation.score_bins or 0))
            return DistributedDPMechanism(privacy, plan.total_rounds).privatize(total, sites, noise)
        case GaussianUpdate() as privacy:
            mechanism = GaussianUpdateMechanism(privacy, plan.total_rounds)
            return mechanism.privatize_share(_flat(raw, base), sites, noise)
        case NoPrivacy():
            weight = weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations)
            values = encode_fixed_point(_flat(raw, base).astype(np.float64) * weight, FIXED_POINT_STEP, sites)
            return Maskable(values, FIXED_POINT_STEP, sites)
        case other:
            raise PrivacyError(f"an update of mechanism {other.mechanism} cannot be summed behind masks")


def _encrypted(raw: RawUpdate, base: Weights, plan: Plan, noise: NoiseSource, encrypt: Encrypt) -> torch.Tensor:
    """The weighted update under the sites' key. With a mechanism it is private by itself before it is encrypted."""
    _check(raw)
    match plan.privacy:
        case NoPrivacy():
            update = _flat(raw, base)
        case GaussianUpdate() as privacy:
            update = GaussianUpdateMechanism(privacy, plan.total_rounds).privatize(_flat(raw, base), noise)
        case other:
            raise PrivacyError(f"an update of mechanism {other.mechanism} cannot be summed under encryption")
    weight = weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations)
    body = encrypt(update.astype(np.float64) * weight)
    return torch.from_numpy(np.frombuffer(body, dtype=np.uint8).copy())


def _plain(
    raw: RawUpdate, base: Weights, plan: Plan, spend: Spend, noise: NoiseSource, carried: torch.Tensor | None
) -> Release:
    _check(raw)
    match plan.privacy:
        case NoPrivacy():
            return Release(_as_released(raw.tensors, base), spend)
        case LocalDP() as privacy:
            noisy = LocalDPMechanism(privacy, plan.total_rounds).privatize(_summed(raw, base), noise)
            return Release(_as_released(_gradient_step(noisy, base, plan), base), spend)
        case GaussianUpdate() as privacy:
            noisy_update = GaussianUpdateMechanism(privacy, plan.total_rounds).privatize(_flat(raw, base), noise)
            return Release(_as_released(unflatten(torch.from_numpy(noisy_update), base), base), spend)
        case SparseVector() as privacy:
            mechanism = SparseVectorMechanism(privacy, plan.total_rounds)
            return Release(_sparse(mechanism.privatize(_flat(raw, base), raw.local_iterations, noise)), spend)
        case Compression() as privacy:
            return _compressed(_flat(raw, base), privacy, spend, noise, carried)
        case other:
            raise PrivacyError(f"mechanism {other.mechanism} protects a masked sum only: set aggregation: masks")


def _compressed(
    update: npt.NDArray[np.float32],
    privacy: Compression,
    spend: Spend,
    noise: NoiseSource,
    carried: torch.Tensor | None,
) -> Release:
    if carried is not None:
        if carried.shape != update.shape:
            raise PrivacyError("what error feedback kept is of another model: remove the site's residual and go on")
        update = update + carried.numpy()
    if privacy.mechanism == "top":
        sent = compression.top(update, privacy.fraction)
    else:
        sent = compression.random(update, privacy.fraction, noise)
    kept = torch.from_numpy(compression.residual(update, sent)) if privacy.error_feedback else None
    return Release(_sparse(sent), spend, kept)


def _sparse(sent: Sparse) -> Weights:
    return {"indices": torch.from_numpy(sent.indices), "values": torch.from_numpy(sent.values)}


def _summed(raw: RawUpdate, base: Weights, *, extra: int = 0) -> torch.Tensor:
    size = Shape.of(base).num_values + extra
    if set(raw.tensors) != {"sum"} or raw.tensors["sum"].numel() != size:
        raise PrivacyError(f"the plan needs one summed gradient of {size} values: the update stays at the site")
    return raw.tensors["sum"]


def _flat(raw: RawUpdate, base: Weights) -> npt.NDArray[np.float32]:
    """The weight difference as one float32 vector, (parameters,), in the order of the names."""
    flat: npt.NDArray[np.float32] = flatten(_as_released(raw.tensors, base)).numpy()
    return flat


def _gradient_step(gradient: torch.Tensor, base: Weights, plan: Plan) -> Weights:
    """The site's share of one global step: the plain mean of the shares is -lr * (sum of gradients / N + l2 * w)."""
    assert isinstance(plan.privacy, LocalDP)
    share = len(plan.sites) / plan.privacy.public_num_examples
    return {
        name: -plan.training.lr * (share * piece + plan.training.l2 * base[name].double())
        for name, piece in unflatten(gradient, base).items()
    }


def _total_function(raw: RawUpdate, plan: Plan) -> RawUpdate:
    """Where a whole update is protected: with zero for what is not finite in float32. Others are left as they are.

    A refusal would say, without noise, that the site's data make such a value.
    """
    if not isinstance(plan.privacy, GaussianUpdate | SparseVector):
        return raw
    tensors = {
        name: tensor.to(torch.float32).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in raw.tensors.items()
    }
    return replace(raw, tensors=tensors)


def _check(raw: RawUpdate) -> None:
    size = sum(tensor.numel() for tensor in raw.tensors.values())
    if not 0 < size <= MAX_PARAMETERS:
        raise PrivacyError(f"an update of {size} values cannot be privatised; it must have 1 to {MAX_PARAMETERS}")
    for name, tensor in raw.tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise PrivacyError(f"tensor {name} holds NaN or infinity: the update stays at the site")


def _as_released(tensors: Weights, base: Weights) -> Weights:
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in base.items()}:
        raise PrivacyError("the update's tensors are not the model's parameters: the update stays at the site")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise PrivacyError(f"tensor {name} is {tensor.dtype}, not floating point: the update stays at the site")
    released = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    for name, tensor in released.items():
        if not torch.isfinite(tensor).all():
            raise PrivacyError(f"tensor {name} does not fit float32: the update stays at the site")
    return released
