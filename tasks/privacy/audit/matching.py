"""Records from a gradient, by search: the batch that would have given what was seen.

Minimises |g(X, y) - seen|^2 / 2v + |X|^2 / 2 over X by Adam, from several starts at once, within the public ranges
(Zhu, Liu & Han 2019, with a prior as in Balunovic et al. 2022): v is the variance of what hides the gradient, and the
last term says that scaled inputs are about standard normal. With noise it gives the most likely batch; without, one
that fits exactly. The numbers of positive labels are shared out among the starts.
"""

from __future__ import annotations

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.privacy.audit.adversary import Adversary
from tasks.store.weights import Weights


def by_matching(
    adversary: Adversary,
    weights: Weights,
    seen: Floats,
    variance: float,
    batch: int,
    *,
    starts: int,
    iterations: int,
    seed: int,
) -> Floats:
    """Guesses (targets, batch, inputs) for each of `seen`, (targets, parameters): the best of `starts` each."""
    study = adversary.study
    limits = torch.tensor([spec.clip * spec.gain for spec in study.inputs], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(seen), starts, batch, len(limits))
    guess = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    labels = (torch.arange(batch) < (torch.arange(starts) % (batch + 1))[:, None]).double().expand(shape[:3])
    target = torch.from_numpy(seen)[:, None]
    optimizer = torch.optim.Adam([guess], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, eta_min=1e-3)

    def losses() -> torch.Tensor:
        inputs = torch.minimum(torch.maximum(guess, -limits), limits)
        rows = adversary.contributions(weights, inputs.flatten(0, 2), labels.flatten())
        if adversary.clip_norm is None:
            rows = rows * (len(rows) / batch)  # each guess is a site of its own
        off = rows.reshape(*shape[:3], -1).sum(dim=2) - target
        return off.square().sum(dim=2) / (2 * variance) + guess.square().sum(dim=(2, 3)) / 2

    for _ in range(iterations):
        optimizer.zero_grad()
        torch.autograd.backward(losses().sum())
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        best = losses().argmin(dim=1)
        kept = torch.minimum(torch.maximum(guess, -limits), limits)[torch.arange(len(seen)), best]
    found: Floats = kept.numpy().astype(np.float64)
    return found
