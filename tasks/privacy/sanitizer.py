"""The one door through which an update leaves a site: every mechanism, `none` included, goes through `sanitize`."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import torch

from tasks.errors import PrivacyError
from tasks.privacy.local_dp import LocalDPMechanism
from tasks.records import Plan, Spend
from tasks.study import NoPrivacy
from tasks.tensors import Weights
from tasks.training import RawUpdate

MAX_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class Release:
    """What may leave the site: float32 tensors named and shaped as the model's parameters."""

    tensors: Weights
    spend: Spend
    commitment: str


def plan_spend(plan: Plan, releases: int) -> Spend:
    """What the site will have spent with its `releases`-th release. Raises BudgetExhausted."""
    if isinstance(plan.privacy, NoPrivacy):
        return Spend(mechanism="none", unit="nothing", neighbours="none: raw updates are shared", releases=releases)
    return LocalDPMechanism(plan.privacy, plan.total_rounds).spend(releases)


def sanitize(raw: RawUpdate, base: Weights, plan: Plan, *, site: str, releases: int, secret: bytes) -> Release:
    """Turn a raw update into one that may be uploaded, as the plan says.

    Args:
        raw: what training left behind.
        base: the weights that the round started from, by parameter name.
        releases: which release of this site it is, for the running total.
        secret: the site's noise key.

    Raises:
        PrivacyError: the update cannot be privatised; nothing may leave. BudgetExhausted: it cannot be paid for.
    """
    _check(raw)
    spend = plan_spend(plan, releases)
    terms = f"{plan.privacy.model_dump_json()}/{plan.total_rounds}"
    context = (plan.study, str(plan.server_round), site, plan.base_model.sha256, terms, _digest(raw.tensors))
    commitment = hmac.new(secret, "|".join(context).encode(), hashlib.sha256).hexdigest()
    if isinstance(plan.privacy, NoPrivacy):
        tensors = raw.tensors
    else:
        mechanism = LocalDPMechanism(plan.privacy, plan.total_rounds)
        noisy = mechanism.privatize(_summed_gradient(raw, base), secret, context)
        tensors = _gradient_step(noisy, base, plan)
    return Release(_as_released(tensors, base), spend, commitment)


def _summed_gradient(raw: RawUpdate, base: Weights) -> torch.Tensor:
    size = sum(weights.numel() for weights in base.values())
    if set(raw.tensors) != {"sum"} or raw.tensors["sum"].numel() != size:
        raise PrivacyError(f"local_dp needs one summed gradient of {size} values: the update stays at the site")
    return raw.tensors["sum"]


def _gradient_step(gradient: torch.Tensor, base: Weights, plan: Plan) -> Weights:
    """The site's share of one global step: the plain mean of the shares is -lr * (sum of gradients / N + l2 * w)."""
    assert not isinstance(plan.privacy, NoPrivacy)
    share = len(plan.sites) / plan.privacy.public_num_examples
    pieces = torch.split(gradient, [weights.numel() for weights in base.values()])
    return {
        name: -plan.training.lr * (share * piece.reshape(weights.shape) + plan.training.l2 * weights.double())
        for (name, weights), piece in zip(base.items(), pieces, strict=True)
    }


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


def _digest(tensors: Weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
