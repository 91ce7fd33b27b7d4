"""Copies of a run's files and of its reports in the object store."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import DataError
from tasks.exam.comparing.archive import ANCHOR, BASELINE, COMPARISON, model_folder
from tasks.exam.page.store import HISTORY_TYPES, REPORT_TYPES
from tasks.exam.runs.run_files import MAX_BYTES, RESPONSES, RUN, SCORES, load_run
from tasks.foreign.files import read_ordinary
from tasks.store import layout
from tasks.store.objects import ObjectStore

_TYPES = {
    RUN: "application/json",
    RESPONSES: "application/jsonl",
    SCORES: "application/json",
    COMPARISON: "application/json",
    ANCHOR: "application/json",
    BASELINE: "application/json",
    **REPORT_TYPES,
}


def publish(folder: Path, store: ObjectStore) -> list[str]:
    """Put a run's files and its model's history into the store; returns the keys. Raises DataError, StoreError."""
    run, _ = load_run(folder)
    asked, above = run.settings, model_folder(folder, run)
    files = [
        (folder / name, layout.exam_run(asked.exam, asked.model, asked.language, run.id, name), content_type)
        for name, content_type in _TYPES.items()
    ]
    if above is not None:
        files += [
            (above / name, layout.exam_history(asked.exam, asked.model, name), content_type)
            for name, content_type in HISTORY_TYPES.items()
        ]
    there = [(path, key, content_type) for path, key, content_type in files if path.exists()]
    for path, key, content_type in there:
        store.put(key, read_ordinary(path, MAX_BYTES, DataError), content_type=content_type)
    return [key for _, key, _ in there]
