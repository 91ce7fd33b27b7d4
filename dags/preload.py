"""What every DAG file imports, imported once in the process that forks the tasks (see `tasks/deploy/preload.py`)."""

import importlib

for module in (
    "airflow.sdk",
    "airflow.providers.standard.operators.trigger_dagrun",
    "dags.wiring",
):
    importlib.import_module(module)
