"""A study without a scheduler: its rounds in one process, by the functions that the scheduled steps call."""
