"""What a site keeps of a round in its own folder: private until the round's release has left, and then removed."""

from __future__ import annotations

from pathlib import Path

import torch

from tasks.errors import DataError
from tasks.learning.training import RawUpdate
from tasks.privacy.sanitizer import Release
from tasks.store.files import write_private
from tasks.store.weights import Weights, from_bytes, to_bytes


def forget_rounds_before(folder: Path, keep: str, keep_control: str) -> None:
    """Remove what earlier rounds have left: raw updates and masks of failed ones, and state of those before `keep`.

    What the strategy keeps goes where it is of a round before `keep_control`.
    """
    for earlier in folder.parent.iterdir():
        if earlier.name < folder.name:
            (earlier / "raw.safetensors").unlink(missing_ok=True)
            (earlier / "round_keys.json").unlink(missing_ok=True)
            if earlier.name < keep:
                (earlier / "optimizer.safetensors").unlink(missing_ok=True)
                (earlier / "residual.safetensors").unlink(missing_ok=True)
            if earlier.name < keep_control:
                (earlier / "control.safetensors").unlink(missing_ok=True)


class RoundFiles:
    """One site's scratch folder of one round.

    raw.safetensors: the raw update; removed once its release is in the store.
    release.safetensors: the bytes to upload, drawn once: a retry uploads these and draws no second noise.
    optimizer.safetensors, residual.safetensors: what the next round starts from, where the study keeps it.
    control.safetensors: what the strategy keeps at the site, from the last round whose model has this site's update.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_raw(self, raw: RawUpdate, seconds: float) -> None:
        """Keep the raw update for `privatize_and_upload`."""
        tensors = {f"raw.{name}": tensor for name, tensor in raw.tensors.items()}
        meta = [raw.num_examples, raw.local_iterations, round(seconds * 1e6)]
        write_private(self.folder / "meta.safetensors", to_bytes({"meta": torch.tensor(meta, dtype=torch.int64)}))
        write_private(self.folder / "raw.safetensors", to_bytes(tensors))
        if raw.optimizer_state is not None:
            write_private(self.folder / "optimizer.safetensors", to_bytes(raw.optimizer_state))
        if raw.control is not None:
            write_private(self.folder / "control.safetensors", to_bytes(raw.control))

    def load_raw(self) -> RawUpdate:
        """The raw update. Raises DataError when it was never made, or has been removed after its release."""
        saved = self._load("raw.safetensors")
        if saved is None:
            raise DataError(f"there is no trained update in {self.folder}: run train_local first")
        num_examples, iterations, _ = self.facts()
        return RawUpdate({n.removeprefix("raw."): t for n, t in saved.items()}, num_examples, iterations)

    def facts(self) -> tuple[int, int, float]:
        """Patients trained on, local iterations, and seconds that training took."""
        saved = self._load("meta.safetensors")
        if saved is None:
            raise DataError(f"there is no trained update in {self.folder}: run train_local first")
        num_examples, iterations, micros = (int(v) for v in saved["meta"])
        return num_examples, iterations, micros / 1e6

    def save_release(self, release: Release) -> bytes:
        """Keep the bytes to upload, and what error feedback keeps back; gives the bytes."""
        if release.residual is not None:
            write_private(self.folder / "residual.safetensors", to_bytes(release.residual))
        body = release.body
        write_private(self.folder / "release.safetensors", body)
        return body

    def load_release(self) -> bytes | None:
        """The bytes to upload, if an earlier run of the step has drawn them."""
        try:
            return (self.folder / "release.safetensors").read_bytes()
        except FileNotFoundError:
            return None

    def kept(self, name: str) -> Weights | None:
        """`optimizer`, `residual` or `control`, if this round left one."""
        return self._load(f"{name}.safetensors")

    def forget_raw(self) -> None:
        """Remove the raw update: its release is in the store, so nothing needs it any more."""
        (self.folder / "raw.safetensors").unlink(missing_ok=True)

    def _load(self, name: str) -> Weights | None:
        try:
            return from_bytes((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None
