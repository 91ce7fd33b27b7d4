"""DAG files: wiring only. The logic is in `tasks/`."""
