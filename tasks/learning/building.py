"""From `model.path` to a model: imported where the site allows it, looked at once, built with seeded weights."""

from __future__ import annotations

import importlib
import json
from functools import cache

from pydantic import TypeAdapter
from torch import nn

from tasks.errors import ConfigError
from tasks.learning.own_models.check import require_fitting_model
from tasks.learning.own_models.policy import require_allowed
from tasks.learning.seeding import seeded
from tasks.learning.strategies import strategy_of
from tasks.learning.tasks import task_of
from tasks.store.weights import lay_out, parameters
from tasks.study.label import Label
from tasks.study.sections import Study

#: The module of models that the tests have looked at.
OURS = "tasks.models"


def checked_model(study: Study) -> nn.Module:
    """The study's model with its seeded first weights, once its class is known to be fit for the study's rounds.

    A process looks at a class once: the same options, inputs and mechanism are not looked at again.

    Raises:
        ConfigError: as `build_model`; or `strategy.layers` names layers that the model has not; or no round can be made
            of the model; names the layer: see `own_models.check`.
    """
    spec, limits = study.model, tuple(each.clip * each.gain for each in study.inputs)
    mechanism = study.privacy.mechanism if study.privacy.needs.per_patient else None
    if spec.path.partition(":")[0] != OURS:
        _look_at(
            spec.path,
            json.dumps(spec.options),
            limits,
            study.label.model_dump_json(by_alias=True, exclude_unset=True),
            mechanism,
        )
    model = study_model(study)
    strategy_of(study.strategy).sent(parameters(model))
    return model


def study_model(study: Study) -> nn.Module:
    """The same where the class has been looked at already, in another step or for another mechanism."""
    spec, task = study.model, task_of(study.label)
    return build_model(
        spec.path, len(study.inputs), spec.options, seed=study.training.seed, num_outputs=task.num_outputs
    )


def build_model(
    path: str, num_inputs: int, options: dict[str, object], *, seed: int, num_outputs: int | None = None
) -> nn.Module:
    """Import `module:Class` and build it with seeded initial weights; the global generator is left as it was.

    `num_outputs`: values that the model gives for one patient; the class is asked for them only where it is not None.

    Raises:
        ConfigError: this site does not allow the module (see `own_models.policy`), the path does not lead to a class
            of `torch.nn.Module`, or the class does not take the options.
    """
    return lay_out(_construct(path, num_inputs, options, seed, num_outputs))


@cache
def _look_at(path: str, options: str, limits: tuple[float, ...], label: str, clipped_by: str | None) -> None:
    task = task_of(TypeAdapter(Label).validate_json(label))

    def build() -> nn.Module:
        return _construct(path, len(limits), json.loads(options), 0, task.num_outputs)

    require_fitting_model(build, task, limits, path, clipped_by)


def _construct(path: str, num_inputs: int, options: dict[str, object], seed: int, num_outputs: int | None) -> nn.Module:
    model_class = _model_class(path)
    if num_outputs is not None:
        options = {"num_outputs": num_outputs, **options}
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
