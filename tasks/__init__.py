"""The logic of pharmafed. Nothing in here imports Airflow; `dags/` wires these functions into a schedule."""

__version__ = "0.1.0"
