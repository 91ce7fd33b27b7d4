"""The models that studies name by import path. Each is called as `Model(num_inputs, **options)` and gives one logit."""

from __future__ import annotations

import importlib
import json
from functools import cache

import torch
from torch import nn

from tasks.errors import ConfigError
from tasks.model_check import require_fit
from tasks.model_policy import require_allowed
from tasks.seeding import seeded
from tasks.study import Study
from tasks.study_privacy import PatientLevel
from tasks.tensors import lay_out


class LogisticRegression(nn.Module):
    """One linear layer; starts at zero, so every site knows the first model without being told."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...) logits."""
        logits: torch.Tensor = self.linear(inputs).squeeze(-1)
        return logits


class MLP(nn.Module):
    """One hidden layer of `hidden` ReLU units."""

    def __init__(self, num_inputs: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...) logits."""
        logits: torch.Tensor = self.layers(inputs).squeeze(-1)
        return logits


def checked_model(study: Study) -> nn.Module:
    """The study's model with its seeded first weights, once its class is known to be fit for the study's rounds.

    A process looks at a class once: the same options, inputs and mechanism are not looked at again.

    Raises:
        ConfigError: as `build_model`, or no round can be made of the model; names the layer (see `tasks.model_check`).
    """
    spec, limits = study.model, tuple(each.clip * each.gain for each in study.inputs)
    mechanism = study.privacy.mechanism if isinstance(study.privacy, PatientLevel) else None
    if spec.path.partition(":")[0] != __name__:  # the tests have looked at ours
        _look_at(spec.path, json.dumps(spec.options), limits, mechanism)
    return build_model(spec.path, len(limits), spec.options, seed=study.training.seed)


def build_model(path: str, num_inputs: int, options: dict[str, object], *, seed: int) -> nn.Module:
    """Import `module:Class` and build it with seeded initial weights; the global generator is left as it was.

    Raises:
        ConfigError: this site does not allow the module (see `tasks.model_policy`), the path does not lead to a class
            of `torch.nn.Module`, or the class does not take the options.
    """
    return lay_out(_construct(path, num_inputs, options, seed))


@cache
def _look_at(path: str, options: str, limits: tuple[float, ...], clipped_by: str | None) -> None:
    require_fit(lambda: _construct(path, len(limits), json.loads(options), 0), limits, path, clipped_by)


def _construct(path: str, num_inputs: int, options: dict[str, object], seed: int) -> nn.Module:
    model_class = _model_class(path)
    try:
        with seeded(seed):
            return model_class(num_inputs, **options)
    except Exception as error:  # a model of the site's own may raise anything; options of a size beyond memory do
        raise ConfigError(f"model.path {path!r} with options {options}: {type(error).__name__}: {error}") from None


def _model_class(path: str) -> type[nn.Module]:
    """What `path` names, once it is known to be a class of models: nothing else is ever called."""
    module, _, name = path.partition(":")
    require_allowed(module)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model.path {path!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"model.path {path!r} is no torch.nn.Module: name a class of models")
    return found
