"""Tells the deployment's notifiers of a DAG file that cannot be imported, such as that of a broken study.

Airflow loads this file in every process; only its DAG processor calls it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

_OURS = "ConfigError: "


class ImportErrors:
    """Airflow's hook for import errors."""

    @hookimpl
    def on_new_dag_import_error(self, filename: str, stacktrace: str) -> None:
        """Our own words where the error is ours; else where to read it."""
        from tasks.report.notices import Notice, notify

        _, ours, words = stacktrace.rpartition(_OURS)
        text = words.strip() if ours else "it cannot be imported: see the import errors in Airflow's web UI"
        notify(Notice("failure", Path(filename).name, text))


class ImportErrorsPlugin(AirflowPlugin):
    """Registers the hook."""

    name = "pharmafed_import_errors"
    listeners: list[Any] = [ImportErrors()]  # noqa: RUF012
