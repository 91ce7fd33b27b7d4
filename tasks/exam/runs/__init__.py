"""A model's replies on disk.

run_files  `responses.jsonl` and `run.json` with its seal
journal    answers, a line each, written the moment that they arrive
"""
