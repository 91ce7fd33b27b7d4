"""Local training: gradient descent from a global model on a site's patients, and each patient's own gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from tasks.learning.flat import flatten
from tasks.learning.tasks.task import Task
from tasks.store.weights import Weights, fixed_in_float64, parameters, trainable
from tasks.study.sections import Training

#: What is added to the loss, of the weights as they are, by name.
Penalty = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class RawUpdate:
    """What training leaves behind at the site, before the sanitiser. It never leaves the site as it is.

    `tensors` is the difference of weights; or for patient-level mechanisms, under "sum", the summed clipped gradients
    as int64 grid steps, followed by counts of held-out patients where the study asks for them. `control` is what the
    strategy keeps at the site.
    """

    tensors: Weights
    num_examples: int
    local_iterations: int
    optimizer_state: dict[str, torch.Tensor] | None = None
    control: Weights | None = None


def gradient_rows(
    task: Task, model: nn.Module, weights: Weights, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Each patient's gradient of the task's loss at `weights`, (patients, parameters) by name, all in float64."""
    unchanged = fixed_in_float64(model)

    def loss(weights: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return task.loss(functional_call(model, (weights, unchanged), (x.unsqueeze(0),)), y.unsqueeze(0))

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, labels)
    return flatten(gradients, batch_dims=1)


def descend(
    task: Task,
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    training: Training,
    seed: int,
    state: dict[str, torch.Tensor] | None,
    penalty: Penalty | None = None,
) -> RawUpdate:
    """Train on (patients, inputs) and labels from the weights in `model`; `state`: the optimizer's, where kept."""
    start, weights = parameters(model), trainable(model)
    optimizer = build_optimizer(model, training)
    if state is not None and training.optimizer_state == "keep":
        _restore(optimizer, state)
    batches = _batches(len(inputs), training, np.random.default_rng(seed))
    for rows in batches:
        optimizer.zero_grad()
        loss = task.loss(model(inputs[rows]), labels[rows])
        torch.autograd.backward(loss if penalty is None else loss + penalty(weights))
        optimizer.step()
    delta = {name: after - start[name] for name, after in parameters(model).items()}
    kept = _saved(optimizer) if training.optimizer_state == "keep" else None
    return RawUpdate(delta, len(inputs), local_iterations=len(batches), optimizer_state=kept)


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """A fresh optimizer: restarted each round unless the study keeps its state."""
    optimizer_class = torch.optim.Adam if training.optimizer == "adam" else torch.optim.SGD
    # Fused: one call for all parameters; for models as small as these, Python's part of a step is most of it.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return optimizer_class(trained, lr=training.lr, weight_decay=training.l2, fused=True)


def _batches(num_examples: int, training: Training, rng: np.random.Generator) -> list[torch.Tensor]:
    """Row indices of each local iteration: whole shuffled epochs, or as many batches as the study asks for."""
    size = num_examples if training.batch_size == "full" else min(training.batch_size, num_examples)
    wanted = num_iterations(training, num_examples)
    batches: list[torch.Tensor] = []
    while len(batches) < wanted:
        order = torch.from_numpy(rng.permutation(num_examples))
        batches += list(torch.split(order, size))
    return batches[:wanted]


def num_iterations(training: Training, num_examples: int) -> int:
    """Optimizer steps that the study asks of a site with so many patients; the hub holds each site to it."""
    if training.local_iterations is not None:
        return training.local_iterations
    size = num_examples if training.batch_size == "full" else min(training.batch_size, num_examples)
    return (training.local_epochs or 1) * -(-num_examples // size)


def _saved(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors, for safetensors: never pickled."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value).clone() for i, kept in state.items() for name, value in kept.items()}


def _restore(optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in saved.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
