"""Great Expectations takes half a second a site: what is asked twice of the same suite and rows is answered once."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.data.checks import runner, suite_file
from tasks.data.checks.parameters import SiteParameters
from tasks.data.checks.suite import Suite
from tasks.data.checks.suite_faults import Fault, suite_faults

_FAULTS: dict[tuple[str, tuple[int, ...]], tuple[Fault, ...]] = {}


def _faults(suite: Suite, indices: Iterable[int]) -> tuple[Fault, ...]:
    asked = suite.model_dump_json(), tuple(indices)
    if asked not in _FAULTS:
        _FAULTS[asked] = tuple(suite_faults(suite, asked[1]))
    return _FAULTS[asked]


@contextmanager
def checked_once(folder: Path) -> Iterator[None]:
    """`runner.run_suite` keeps each result in `folder`, by all that it is asked with: suite, rows and parameters.

    What is new, or changed by a single cell, is checked by Great Expectations as ever; and so is a new suite.
    """
    run_suite = runner.run_suite

    def remembered(
        suite: Suite,
        frame: pd.DataFrame,
        values: Mapping[str, Any],
        inputs: Collection[Mapping[str, Any]],
        parameters: SiteParameters,
    ) -> list[runner.CheckResult]:
        asked = (suite.model_dump(), dict(values), [dict(each) for each in inputs], parameters.model_dump())
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode() + pickle.dumps(frame, protocol=5))
        kept = folder / digest.hexdigest()
        try:
            return list(pickle.loads(kept.read_bytes()))
        except FileNotFoundError:
            results = run_suite(suite, frame, values, inputs, parameters)
        own = kept.with_suffix(f".{os.getpid()}")  # workers share the folder
        own.write_bytes(pickle.dumps(results))
        own.replace(kept)
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_suite", remembered)
        patch.setattr(suite_file, "suite_faults", _faults)
        yield
