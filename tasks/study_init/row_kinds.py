"""The names of columns that say what a row measures, as CDISC, OMOP and hospital exports have them."""

from __future__ import annotations

import re

CODE = r"(_?(cd|code|id|concept_id|name|text|label|type|source_value))"
_TEST = re.compile(
    r"(^|_)(test|param|parameter|analyte|assay|item|component|loinc|measure|measurement|marker|biomarker|question|variable|"
    rf"vital_sign){CODE}?$|^concept{CODE}$|^[a-z]{{2}}test(cd)?$|^qnam$"
)


def words(name: str) -> str:
    """`studyDay` and `Study day` as study_day."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def is_named_like_a_test(name: str) -> bool:
    """Whether a column's name says that it holds the names or codes of what was measured: `LBTESTCD`, `marker`."""
    return bool(_TEST.search(words(name)))
