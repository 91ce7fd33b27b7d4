"""The experiments' numbers on disk: NAME.json for each experiment, and cohort.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.simulation.experiments.plan import EXPERIMENTS
from tasks.simulation.experiments.records import Cohort, Measured
from tasks.store.records.record import Record

COHORT = "cohort.json"


def write(path: Path, content: Record | Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON for a pipeline: the same content gives the same bytes."""
    plain = content.model_dump(mode="json") if isinstance(content, Record) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Measured], Cohort]:
    """Every experiment of the plan, and who takes part.

    Raises:
        ConfigError: an experiment was not run, or its file is of another version.
    """
    missing = [name for name in (*EXPERIMENTS, "cohort") if not (folder / f"{name}.json").exists()]
    if missing:
        raise ConfigError(f"{folder} has no numbers of {', '.join(missing)}: pharmafed experiments run")
    try:
        numbers = {name: Measured.model_validate_json((folder / f"{name}.json").read_bytes()) for name in EXPERIMENTS}
        return numbers, Cohort.model_validate_json((folder / COHORT).read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"the numbers in {folder} are of another version ({error.title}): pharmafed experiments run"
        ) from None
