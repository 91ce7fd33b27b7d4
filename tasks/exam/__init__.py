"""The licensing exam: items, asking, scoring, comparing, reporting. Only `asking` knows the engine."""
