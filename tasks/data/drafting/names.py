"""What a column's name says of it: that it names something, what a row measures, or when it was measured.

As CDISC, OMOP and hospital exports have them.
"""

from __future__ import annotations

import re

#: Names of numbers that measure nothing: `house_no`, `postCode`, `phone2`; not `no_of_falls`.
_CODE = re.compile(
    r"(^|_)(id|code|zip|zip_?code|post_?code|postal(_code)?|phone|phone_?number|mobile|telephone|tel|fax|ssn|mrn)\d*(_|$)"
    r"|(^|_)(no|nr|num|number|post)\d*$|(subj|patient|person|site|record|sample|case)id$",
    re.ASCII,
)
#: What ends the name of a column of codes or names.
CODE = r"(_?(cd|code|id|concept_id|name|text|label|type|source_value))"
_TEST = re.compile(
    r"(^|_)(test|param|parameter|analyte|assay|item|component|loinc|measure|measurement|marker|biomarker|question|variable|"
    rf"vital_sign){CODE}?$|^concept{CODE}$|^[a-z]{{2}}test(cd)?$|^qnam$"
)
#: Words of time; of what was done then; and, with a word such as `since`, in days of what is counted from there.
_TIMES = re.compile(
    r"day|dy|week|wk|month|visit|(study|rel|visit|trial)(day|dy)|(?!body$|lady$)(a|[a-z]{2})?(st|en)?dy"
    r"|a?visitn(um)?|visit(no|nr)|(day|week|month|visit)\d+"
)
_DONE = re.compile(
    r"a|n|no|nr|num|number|name|id|label|code|start|end|st|en|rel|relative|study|trial|actual|planned|nominal|scheduled|"
    r"target|assessment|sample|sampling|specimen|collection|measure|measurement|measured|test|labs?|exam|examination|"
    r"observation|obs|record|form|hospital|hosp|icu|treatment|trt|dose|dosing|follow|up|fu|followup|\d+"
)
_SINCE = re.compile(r"since|from|after|post|pre|before|to")
_COUNTED = re.compile(
    r"days|weeks|months|the|of|first|last|baseline|base|screening|rand|randomi[sz]ation|enrol|enrol+ment|inclusion|"
    r"index|date|event|admission|discharge|op|operation|surgery|transplant|diagnosis|infection|onset|therapy|visit"
)


def words(name: str) -> str:
    """`studyDay` and `Study day` as study_day."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def is_named_like_a_code(name: str) -> bool:
    """Whether a column's name says that it names something: `house_no`, `postCode`."""
    return bool(_CODE.search(words(name)))


def is_named_like_a_test(name: str) -> bool:
    """Whether a column's name says that it holds the names or codes of what was measured: `LBTESTCD`, `marker`."""
    return bool(_TEST.search(words(name)))


def has_a_word_of_time(name: str) -> bool:
    """Whether a name has to do with time: `visit_day`, and `drinks_day` too."""
    return any(_TIMES.fullmatch(word) for word in words(name).split("_"))


def is_named_like_a_time(name: str) -> bool:
    """Whether a name says nothing but when: `study_day`, `LBDY`, `days_since_surgery`; not `drinks_day`."""
    parts = words(name).split("_")
    since = any(_SINCE.fullmatch(word) for word in parts)
    known = (_TIMES, _DONE, *((_SINCE, _COUNTED) if since else ()))
    tells = any(_TIMES.fullmatch(word) or (since and word in ("days", "weeks", "months")) for word in parts)
    return tells and all(any(form.fullmatch(word) for form in known) for word in parts)
