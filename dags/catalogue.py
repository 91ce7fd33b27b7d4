"""Writes docs/dags.md from the DAG files themselves: `python -m dags.catalogue`, or with `--check` to compare only."""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

from tasks.store.settings import PROJECT

TARGET = PROJECT / "docs" / "dags.md"
HEADER = """# The DAGs

Generated from the DAG files by `python -m dags.catalogue`; `make check` fails when it is out of date.
"""


def catalogue() -> str:
    """One section a DAG: schedule, tags, owners, parameters, tasks by group, and the page that the UI shows.

    Raises:
        SystemExit: a DAG file cannot be imported.
    """
    bag = DagBag(str(PROJECT / "dags"))
    if bag.import_errors:
        raise SystemExit("\n".join(f"{path}: {error}" for path, error in bag.import_errors.items()))
    return HEADER + "".join(_section(bag.dags[dag_id]) for dag_id in sorted(bag.dags))


def _section(dag) -> str:
    params = "".join(f"| `{name}` | {_kind(param)} | `{param.value}` |\n" for name, param in dag.params.items())
    return f"""
## `{dag.dag_id}`

{dag.description}

| | |
|---|---|
| schedule | `{dag.timetable.expression}` UTC |
| tags | {", ".join(sorted(dag.tags))} |
| active runs at once | {dag.max_active_runs} |
| tasks | {len(dag.tasks)} |

| parameter | type | default |
|---|---|---|
{params}
| task | where | what it does |
|---|---|---|
{_task_rows(dag)}
"""


def _task_rows(dag) -> str:
    """One row for each kind of task; a site's tasks stand once, for `site_*`."""
    rows: dict[str, str] = {}
    for task in dag.topological_sort():
        name = ".".join("site_*" if part.startswith("site_") else part for part in task.task_id.split("."))
        where = "site" if "site_" in task.task_id else "hub"
        doc = (task.doc_md or "").strip().splitlines()
        rows.setdefault(name, f"| `{name}` | {where} | {doc[0] if doc else ''} |")
    return "\n".join(rows.values())


def _kind(param) -> str:
    kind = param.schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else kind


def main() -> None:
    """Write the catalogue, or compare it with `--check` and exit with 1 when it differs."""
    text = catalogue()
    if "--check" not in sys.argv:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        raise SystemExit(f"{Path(TARGET).relative_to(PROJECT)} is out of date: run `python -m dags.catalogue`")


if __name__ == "__main__":
    main()
