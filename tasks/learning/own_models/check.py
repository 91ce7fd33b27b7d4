"""Whether rounds can be made of a model: looked at once in a process, on made-up patients, before a round opens.

A round sends trainable parameters, clips gradients and averages. So a logit must be one patient's alone and come out
the same again, what training changes must be a parameter, and where a mechanism clips each patient's gradient, each
patient must have one. Every refusal is one ConfigError that names the model and, where there is one, the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.func import functional_call

from tasks.errors import ConfigError
from tasks.foreign.bounds import shorten
from tasks.learning.evaluation import outputs_alone
from tasks.learning.own_models.layers import calls, failing_layer, first_unlike, instead, layer_named, owner, reshaped
from tasks.learning.own_models.memory import Memory, memory
from tasks.learning.own_models.rows import FEW, MANY, are_rows, is_row, made_up_rows, near, shift
from tasks.learning.own_models.tensors import built_alike, state, unlike
from tasks.learning.seeding import seeded
from tasks.learning.tasks.task import Task
from tasks.learning.threads import one_thread
from tasks.learning.training import gradient_rows
from tasks.store.weights import Weights, in_float64, lay_out, trainable

#: Weights under which outputs of one sign are no chance: each of so many draws has its signs anew.
_DRAWS, _LARGE = 8, 3.0


def require_fitting_model(
    build: Callable[[], nn.Module], task: Task, limits: tuple[float, ...], path: str, clipped_by: str | None = None
) -> None:
    """Return where rounds can be made of the model that `build` makes.

    Args:
        build: makes the model from a fixed seed; called twice.
        task: what it is trained on.
        limits: the largest absolute value of each input.
        path: the study's `model.path`.
        clipped_by: the mechanism that clips each patient's gradient, if one does.

    Raises:
        ConfigError: they cannot; names the layer and what to do.
    """
    what = f"model.path {path!r}"
    twin, model = (lay_out(each) for each in built_alike(build, what))
    crowd = made_up_rows(limits)
    look = _Look(model, task, crowd[:FEW], crowd, what)
    with seeded(0), one_thread():  # among threads, so small a call waits
        for size in (0.0, 0.1):  # also beside weights that start at zero
            shift(model, size)
            shift(twin, size)
            look.require_scores()
            look.require_same(twin)
            look.require_training()
        if clipped_by is not None:
            look.require_patient_gradients(clipped_by)
        look.require_both_signs()


@dataclass(frozen=True)
class _Look:
    """A model to try things on, and made-up patients to try them with."""

    model: nn.Module
    task: Task
    rows: torch.Tensor
    crowd: torch.Tensor
    what: str

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """(patients,) float32, or a refusal."""
        try:
            found = self.model(rows)
        except Exception as error:
            layer = failing_layer(self.model, lambda: self.model(rows))
            told = f"{type(error).__name__}: {shorten(str(error), 200)}"
            raise ConfigError(
                f"{self.what}: {layer_named(self.model, layer)} fails for a batch of {len(rows)} within the study's "
                f"clip and gain: {instead(self.model, layer, told)}"
            ) from None
        if not isinstance(found, torch.Tensor) or found.dtype != torch.float32:
            kind = found.dtype if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(f"{self.what} gives {kind}, and a float32 tensor of logits is needed")
        needed = (len(rows),) if self.task.num_outputs is None else (len(rows), self.task.num_outputs)
        if found.shape != needed:
            raise ConfigError(
                f"{self.what} gives {tuple(found.shape)} for a batch of {len(rows)}, and {needed} is needed: "
                f"{reshaped(found, needed)}"
            )
        return found.clone()  # it may be a view of a parameter

    def require_scores(self) -> None:
        """In eval mode a patient's logit is finite, the same each time, its own alone, and leaves no trace."""
        model, given = self.model.eval(), self.crowd.clone()
        before = self._kept()
        with torch.no_grad():
            self.logits(given[:2])
            for rows in (given[:FEW], given):
                whole = self.logits(rows)
                if not torch.equal(given, self.crowd):
                    raise ConfigError(f"{self.what} writes into its inputs: let it compute with a copy")
                if not bool(torch.isfinite(whole).all()):
                    raise self._not_finite("gives NaN or infinity")
                if not torch.equal(whole, self.logits(rows)):
                    layer = layer_named(model, first_unlike(model, rows, rows, torch.equal))
                    raise ConfigError(
                        f"{self.what}: {layer} gives the same patients other values each time in eval mode: draw "
                        "nothing there (`F.dropout(x, p, self.training)`) and remember nothing"
                    )
            self._require_alone(self.logits(self.rows))
            self._require_unmoved(1, "")
            self._require_any_number("")
        self._require_unchanged(before, "a call in eval mode changes")

    def require_same(self, twin: nn.Module) -> None:
        """Another model of the class gives the same logits: hub and sites each build their own."""
        with torch.no_grad():
            if torch.equal(self.logits(self.rows), twin.eval()(self.rows)):
                return
        raise ConfigError(
            f"{self.what} gives other logits each time it is built: draw what it computes with from torch's global "
            "generator, which the study seeds, and keep it in a buffer, so that hub and sites have the same"
        )

    def _require_alone(self, whole: torch.Tensor) -> None:
        for patient in range(len(self.rows)):
            only = slice(patient, patient + 1)
            if near(whole[only], self.logits(self.rows[only])):
                continue
            layer = first_unlike(self.model, self.rows, self.rows[only], partial(is_row, patient))
            raise self._mixed(layer)

    def _require_unmoved(self, seed: int, when: str) -> None:
        """Half of the patients keep their logits when the other half are others, also where the model draws."""
        for rows in (self.rows, self.crowd):
            half = len(rows) // 2
            for kept, others in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
                among = rows.clone()
                among[others] = self.crowd[1]
                with seeded(seed):
                    before = self.logits(rows)
                with seeded(seed):
                    after = self.logits(among)
                if not near(before[kept], after[kept]):
                    raise self._mixed(first_unlike(self.model, rows, among, partial(are_rows, kept)), when)

    def _require_any_number(self, when: str) -> None:
        """A patient's logit is the same among many, among few and alone."""
        many = self.logits(self.crowd)
        for number in (1, 2, FEW, MANY // 2):
            if not near(many[:number], self.logits(self.crowd[:number])):
                raise self._mixed("", when)

    def require_training(self) -> None:
        """Training draws from the seeded generators only, changes parameters only, and has one to change."""
        names = set(trainable(self.model))
        model = self.model.train()
        before = self._kept()
        for rows in (self.rows, self.crowd):
            with seeded(1):
                logits = self.logits(rows)
            self._require_unchanged(before, "training changes")
            with seeded(1):
                same = torch.equal(self.logits(rows), logits)
            if not same:
                raise ConfigError(
                    f"{self.what} draws from a generator of its own when it trains: use torch's global one"
                )
        with seeded(2):
            draws = not torch.equal(self.logits(self.crowd), logits)
        self._require_unmoved(1, " in training")
        if not draws:
            self._require_any_number(" in training")
        self._require_gradient(logits)
        self.logits(self.rows[:1])  # a last batch of one
        self._require_unchanged(before, "training changes")
        if set(trainable(model)) != names:
            raise ConfigError(f"{self.what} freezes or adds parameters when it is trained: do so when it is built")

    def _require_gradient(self, logits: torch.Tensor) -> None:
        """There is one, and it is finite."""
        loss = self._loss(logits)
        if not loss.requires_grad:
            raise ConfigError(f"{self.what} gives logits without a gradient: is something detached, or in no_grad?")
        for name, gradient in zip(trainable(self.model), self._gradients(loss), strict=True):
            if not bool(torch.isfinite(gradient).all()):
                raise self._not_finite(
                    f"has a gradient of NaN or infinity at {name} of {owner(self.model, name)}",
                    ": a root, norm or logarithm has none at 0, so add a small number within it",
                )

    def require_patient_gradients(self, mechanism: str) -> None:
        """Each patient has a gradient of its own, in float64, and it is the one that training follows."""
        rows, labels = self.rows[:4].double(), self.task.made_up(4).double()
        weights, unchanged = in_float64(self.model)
        before = self._kept()
        try:
            found = gradient_rows(self.task, self.model, weights, rows, labels)
            logits = functional_call(self.model, (weights, unchanged), (rows,))
        except Exception as error:
            name = failing_layer(self.model, lambda: gradient_rows(self.task, self.model, weights, rows, labels))
            otherwise = "take what torch.func can differentiate in float64, patient by patient"
            if "random" in str(error):
                otherwise = "let it draw nothing, with a dropout of 0"
            raise ConfigError(
                f"{self.what}: {layer_named(self.model, name)} has no gradient of one patient, and mechanism "
                f"{mechanism} clips each patient's: {instead(self.model, name, otherwise)}"
            ) from None
        if logits.dtype != torch.float64:
            raise ConfigError(f"{self.what} computes in {logits.dtype} what mechanism {mechanism} needs in float64")
        for patient, row in enumerate(found):
            own = self._gradients(self._loss(self.logits(self.rows[patient : patient + 1]), patient))
            if not near(torch.cat([gradient.flatten() for gradient in own]), row.float()):
                raise ConfigError(
                    f"{self.what} has another gradient in training than mechanism {mechanism} would clip: leave out "
                    "hooks on parameters, and read weights as attributes of their layers"
                )
        self._require_scores_alone(mechanism)
        self._require_unchanged(before, "a call with one patient changes")

    def _require_scores_alone(self, mechanism: str) -> None:
        """Held-out patients, too, are looked at one by one there, and have the logits that they have together."""
        try:
            found = outputs_alone(self.model, self.crowd)
        except Exception as error:
            told = f"{type(error).__name__}: {shorten(str(error), 200)}"
            raise ConfigError(
                f"{self.what} cannot be computed patient by patient in eval mode, as mechanism {mechanism} needs: "
                f"take what torch.func.vmap can compute in float64 ({told})"
            ) from None
        with torch.no_grad():
            if not near(self.logits(self.crowd), found.float()):
                raise self._mixed("")

    def require_both_signs(self) -> None:
        """A logit is of either sign under some weights; a probability, or what ends in a ReLU, is not."""
        found = torch.cat([torch.zeros(0), *self._under_other_weights()])
        found = found[torch.isfinite(found)]
        low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 0.0)
        if low == high or low < 0 < high:
            return
        *layers, whole = calls(self.model, self.rows)
        name = layers[-1].name if layers and torch.equal(layers[-1].made.flatten(), whole.made) else ""
        seen = (
            "from 0 to 1, as probabilities are" if low >= 0 and high <= 1 else f"of one sign, {low:.2g} to {high:.2g}"
        )
        raise ConfigError(
            f"{self.what}: {layer_named(self.model, name)} gives values {seen}, whatever the weights, and a logit may "
            "be below or above 0: leave out the sigmoid or the like at its end"
        )

    def _under_other_weights(self) -> Iterator[torch.Tensor]:
        own, generator = trainable(self.model.eval()), torch.Generator().manual_seed(2)
        drawn = {name: torch.randn(parameter.shape, generator=generator) for name, parameter in own.items()}
        for _ in range(_DRAWS):
            with torch.no_grad():
                for name, parameter in own.items():
                    sign = 1 if torch.rand((), generator=generator) < 0.5 else -1
                    parameter.copy_(drawn[name]).mul_(sign * _LARGE)
            with suppress(Exception):  # weights so large may break what none in a round does
                yield self.model(self.rows).detach().clone()

    def _mixed(self, layer: str, when: str = "") -> ConfigError:
        return ConfigError(
            f"{self.what}: {layer_named(self.model, layer)} lets a patient's logit depend on who is beside it in the "
            f"batch{when}: {instead(self.model, layer, 'compute each row from itself alone')}"
        )

    def _not_finite(self, found: str, remedy: str = "") -> ConfigError:
        return ConfigError(
            f"{self.what} {found} for inputs that the study's clip and gain allow, at its first weights or a small "
            f"step from them{remedy}"
        )

    def _kept(self) -> tuple[Weights, Memory]:
        return state(self.model), memory(self.model)

    def _require_unchanged(self, before: tuple[Weights, Memory], event: str) -> None:
        changed = unlike(before[0], state(self.model)) or before[1].unlike(memory(self.model))
        if changed is not None:
            layer = changed.rpartition(".")[0]
            otherwise = "keep what training learns in parameters, and nothing about patients"
            raise ConfigError(
                f"{self.what}: {event} {changed} of {owner(self.model, changed)}, and only what the optimizer "
                f"changes leaves a site: {instead(self.model, layer, otherwise)}"
            )

    def _loss(self, logits: torch.Tensor, first: int = 0) -> torch.Tensor:
        return self.task.loss(logits, self.task.made_up(first + len(logits))[first:])

    def _gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """By parameter; zero where the loss does not depend on it. Raises RuntimeError: it depends on none."""
        own = list(trainable(self.model).values())
        found = torch.autograd.grad(loss, own, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(own, found, strict=True)]
