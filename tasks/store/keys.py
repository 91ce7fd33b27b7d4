"""The form of every key of the object store: one table, by which keys are spelled and read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

#: Above every study's objects, and above those of examinations.
STUDIES, EXAMS = "studies/", "exams/"
STUDY = STUDIES + "{study}"
ROUND, _RECORD = STUDY + "/rounds/{server_round}", STUDY + "/records/{server_round}"
_MODELS, SITE_ROUND = STUDY + "/models/{server_round}", STUDY + "/sites/{site}/rounds/{server_round}"

#: Kind of object -> its key. The function of the same name spells it; `parse` reads it.
KEYS = {
    "plan": f"{ROUND}/plan.json",
    "roster": f"{ROUND}/roster.json",
    "survivors": f"{ROUND}/survivors.json",
    "selected": f"{ROUND}/selected.json",
    "encrypted_sum": f"{ROUND}/encrypted/sum.json",
    "encrypted_sum_body": f"{ROUND}/encrypted/sum.ckks",
    "closed": f"{ROUND}/closed.json",
    "model": f"{_MODELS}/model.safetensors",
    "averaged_model": f"{_MODELS}/averaged.safetensors",
    "strategy_state": f"{_MODELS}/strategy.safetensors",
    "card": f"{_MODELS}/card.json",
    "selection": f"{_RECORD}/selection.json",
    "round_metrics": f"{_RECORD}/metrics.json",
    "update_tensors": f"{SITE_ROUND}/update.safetensors",
    "update_manifest": f"{SITE_ROUND}/manifest.json",
    "unmask_answer": f"{SITE_ROUND}/unmask.json",
    "decrypted_sum": f"{SITE_ROUND}/decrypted.safetensors",
    "refusal": f"{SITE_ROUND}/refusal.json",
    "data_validation": f"{SITE_ROUND}/data_validation.json",
    "site_metrics": f"{SITE_ROUND}/metrics.json",
    "key_message": STUDY + "/keys/{site}/{server_round}.json",
    "ledger_entry": STUDY + "/ledger/{site}/{sequence}.json",
    "run": STUDY + "/runs/{digest}.json",
    "latest": STUDY + "/latest.json",
    "report": STUDY + "/reports/{server_round}/{name}",
    "audit": STUDY + "/audits/{started}/{name}",
    "exam_run": EXAMS + "{exam}/{model}/{language}/{run}/{name}",
    "exam_history": EXAMS + "{exam}/{model}/{name}",
    "enrolment": "federation/enrolments/{site}.json",
    "sealing_key": "federation/sealing_keys/{site}.json",
    "daily_validation": "federation/data_validation/{site}.json",
    "layout_version": "federation/layout.json",
    "health": "federation/health",
    "probe": "federation/health-{part}/health",
}
#: How many digits a number has at least, and what it may look like.
_DIGITS = {"server_round": 4, "sequence": 6}
_FORMS = {"server_round": "[0-9]{4,6}", "sequence": "[0-9]{6}", "digest": "[0-9a-f]{32}", "part": "[0-9]{1,6}"}


class Place(NamedTuple):
    """What a key is of. Where its kind has none of a part, the text is empty and the number is -1."""

    kind: str
    study: str
    site: str
    name: str
    server_round: int
    sequence: int


def parse(key: str, *kinds: str) -> Place | None:
    """The place that a key spells, among these kinds or all; None for a key that this module would not spell so."""
    for kind in kinds or KEYS:
        if found := _pattern(kind).fullmatch(key):
            parts = found.groupdict()
            numbers = {name: int(parts[name]) for name in _DIGITS if name in parts}
            if spell(kind, **parts | numbers) == key:
                study, site, name = (parts.get(part, "") for part in ("study", "site", "name"))
                return Place(kind, study, site, name, numbers.get("server_round", -1), numbers.get("sequence", -1))
    return None


def above(kind: str, **known: str | int) -> str:
    """What all keys of a kind begin with, as far as the parts are known that come first: a prefix to list."""
    parts = {name: _text(name, value) for name, value in known.items()}
    template = re.sub(r"{(\w+)}", lambda part: parts.get(part[1], part[0]), KEYS[kind])
    return template.partition("{")[0]


def rounds_of(keys: Iterable[str], kind: str, study: str) -> dict[int, str]:
    """Round -> key of its object of this kind, in order. What somebody has put beside them is not among them."""
    places = [(parse(key, kind), key) for key in keys]
    return dict(sorted((place.server_round, key) for place, key in places if place and place.study == study))


def spell(kind: str, **parts: str | int) -> str:
    """The key of a kind with these parts. `layout` has a function for each kind."""
    return fill(KEYS[kind], **parts)


def fill(template: str, **parts: str | int) -> str:
    """A form of a key, or of its beginning, with these parts."""
    return template.format_map({name: _text(name, value) for name, value in parts.items()})


def _text(name: str, value: str | int) -> str:
    return f"{value:0{_DIGITS[name]}d}" if name in _DIGITS else str(value)


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """The form of a kind's keys, a group for each part; a part that comes twice is the same both times."""
    pieces = re.split(r"{(\w+)}", KEYS[kind])
    forms = [f"(?P<{name}>{_FORMS.get(name, '[^/]+')})" for name in pieces[1::2]]
    return re.compile("".join(re.escape(text) + form for text, form in zip(pieces[::2], [*forms, ""], strict=True)))
