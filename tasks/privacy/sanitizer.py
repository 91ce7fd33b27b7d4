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
from tasks.learning.flat import Shape
from tasks.learning.training import RawUpdate
from tasks.privacy.codecs import codec_of
from tasks.privacy.codecs.codec import DTYPES
from tasks.privacy.mechanisms import mechanism_of
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import to_float32
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan, TensorSpec
from tasks.store.weights import Weights, sha256, to_bytes

MAX_PARAMETERS = 1_000_000_000
#: What an update would have to do to travel so, by what the hub learns the sum of.
_TRAVEL = {
    None: "leave by itself",
    "integers": "be summed behind masks",
    "reals": "be summed under encryption",
}
Mask = Callable[[Maskable], npt.NDArray[np.uint64]]
Encrypt = Callable[[npt.NDArray[np.float64]], bytes]


@dataclass(frozen=True)
class Release:
    """What may leave the site, and what stays there: `residual`, under the name of what it is left of."""

    tensors: Weights
    spend: Spend
    residual: Weights | None = None

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
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise PrivacyError(f"tensor {name} is {tensor.dtype}: no update leaves with such values")
    return tuple(
        TensorSpec.model_validate({"name": name, "shape": tuple(tensor.shape), "dtype": DTYPES[tensor.dtype]})
        for name, tensor in sorted(tensors.items())
    )


def plan_spend(plan: Plan, releases: int) -> Spend:
    """What the site will have spent with its `releases`-th release. Raises BudgetExhausted."""
    return mechanism_of(plan).spend(releases, plan.channel)


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
    carried: Weights | None = None,
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
        carried: the `residual` of the site's last release; one of another mechanism or codec counts as none.

    Raises:
        PrivacyError: the update cannot be privatised or masked; nothing may leave. BudgetExhausted: it cannot be paid.
    """
    spend = plan_spend(plan, releases)
    if plan.channel.sums == "integers":
        if mask is None:
            raise PrivacyError("this plan's updates leave behind masks only, and there are none: it stays at the site")
        masked = mask(contribution(raw, base, plan, sites=num_masked, noise=noise))
        return Release({"masked": torch.from_numpy(masked)}, spend)
    if mask is not None:
        raise PrivacyError("this plan has no masks: the update stays at the site")
    if plan.channel.sums == "reals":
        if encrypt is None:
            raise PrivacyError("this plan's updates leave encrypted only, and there is no key: it stays at the site")
        return Release({"encrypted": _encrypted(_part(raw, base, plan), noise, encrypt)}, spend)
    sent = to_float32(mechanism_of(plan).release(_part(raw, base, plan), noise))
    name = _kept_under(plan)
    tensors, kept = codec_of(plan, Shape.of(base)).encode(sent, (carried or {}).get(name), noise)
    return Release(tensors, spend, None if kept is None else {name: torch.from_numpy(kept)})


def contribution(raw: RawUpdate, base: Weights, plan: Plan, *, sites: int, noise: NoiseSource) -> Maskable:
    """A site's part of a masked sum, noise share included. It is not yet fit to leave: masks go on it.

    Raises:
        PrivacyError: the update cannot be summed behind masks.
    """
    return mechanism_of(plan).share(_part(raw, base, plan), sites, noise)


def _part(raw: RawUpdate, base: Weights, plan: Plan) -> Part:
    """What the plan's mechanism is given, once it is known that its updates may travel as the plan says."""
    if plan.channel.name not in (allowed := plan.privacy.needs.channels):
        raise PrivacyError(
            f"an update of mechanism {plan.privacy.mechanism} cannot {_TRAVEL[plan.channel.sums]} under "
            f"{plan.channel.name}: set channel: {' or '.join(sorted(allowed))}"
        )
    raw = _total_function(raw, plan)
    _check(raw)
    return Part(raw, base, plan)


def _encrypted(part: Part, noise: NoiseSource, encrypt: Encrypt) -> torch.Tensor:
    """The weighted update under the sites' key. With a mechanism it is private by itself before it is encrypted."""
    update = mechanism_of(part.plan).release(part, noise)
    body = encrypt(update.astype(np.float64) * part.weight)
    return torch.from_numpy(np.frombuffer(body, dtype=np.uint8).copy())


def _kept_under(plan: Plan) -> str:
    """The name of a residual: that of a raw update must never go into a release that promises something."""
    said = plan.privacy.model_dump_json() + plan.codec.model_dump_json()
    return f"residual {sha256(said.encode())}"


def _total_function(raw: RawUpdate, plan: Plan) -> RawUpdate:
    """Where a whole update is protected: with zero for what is not finite in float32. Others are left as they are.

    A refusal would say, without noise, that the site's data make such a value.
    """
    if plan.privacy.unit != "site":
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
