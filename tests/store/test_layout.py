"""Every key is spelled and read in one place: what one function spells, `parse` reads back, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import TypeGuard

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.store import keys, layout
from tasks.store.settings import PROJECT

#: Kind -> a key of it, by the function that spells it.
SPELLED: dict[str, str] = {
    "plan": layout.plan("derm", 7),
    "roster": layout.roster("derm", 7),
    "survivors": layout.survivors("derm", 7),
    "selected": layout.selected("derm", 7),
    "encrypted_sum": layout.encrypted_sum("derm", 7),
    "encrypted_sum_body": layout.encrypted_sum_body("derm", 7),
    "closed": layout.closed("derm", 7),
    "model": layout.model("derm", 7),
    "averaged_model": layout.averaged_model("derm", 7),
    "strategy_state": layout.strategy_state("derm", 7),
    "card": layout.card("derm", 7),
    "selection": layout.selection("derm", 7),
    "round_metrics": layout.round_metrics("derm", 7),
    "update_tensors": layout.update_tensors("derm", 7, "701"),
    "update_manifest": layout.update_manifest("derm", 7, "701"),
    "unmask_answer": layout.unmask_answer("derm", 7, "701"),
    "decrypted_sum": layout.decrypted_sum("derm", 7, "701"),
    "refusal": layout.refusal("derm", 7, "701"),
    "data_validation": layout.data_validation("derm", 7, "701"),
    "site_metrics": layout.site_metrics("derm", 7, "701"),
    "key_message": layout.key_message("derm", 7, "701"),
    "ledger_entry": layout.ledger_entry("derm", "701", 12),
    "run": layout.run("derm", "scheduled__2026-11-29T02:00"),
    "latest": layout.latest("derm"),
    "report": layout.report("derm", 7, "report.html"),
    "audit": layout.audit("derm", "20261122T141500Z", "audit.html"),
    "exam_run": layout.exam_run("107", "openai/gpt-4o", "ja", "20261122T141500Z", "run.json"),
    "exam_history": layout.exam_history("107", "openai/gpt-4o", "history.html"),
    "enrolment": layout.enrolment("701"),
    "sealing_key": layout.sealing_key("701"),
    "daily_validation": layout.daily_validation("701"),
    "layout_version": layout.layout_version(),
    "health": layout.health(),
    "probe": layout.probe(3),
}


def test_every_kind_has_a_function_of_its_name() -> None:
    assert SPELLED.keys() == keys.KEYS.keys()
    assert all(callable(getattr(layout, kind)) for kind in keys.KEYS)
    assert len(set(SPELLED.values())) == len(SPELLED) == 34


@pytest.mark.parametrize("kind", SPELLED)
def test_what_is_spelled_is_read_back(kind: str) -> None:
    place = layout.parse(SPELLED[kind])
    assert place is not None
    assert place.kind == kind
    assert layout.parse(SPELLED[kind], kind) == place
    parts = set(re.findall(r"{(\w+)}", keys.KEYS[kind]))
    assert place.study == ("derm" if "study" in parts else "")
    assert place.site == ("701" if "site" in parts else "")
    assert place.server_round == (7 if "server_round" in parts else -1)
    assert place.sequence == (12 if "sequence" in parts else -1)
    assert (place.name != "") == ("name" in parts)


@pytest.mark.parametrize("kind", SPELLED)
def test_no_key_is_of_two_kinds(kind: str) -> None:
    assert [other for other in keys.KEYS if layout.parse(SPELLED[kind], other)] == [kind]


#: Keys that this project would not spell so, beside one that it would.
STRAYS: dict[str, Callable[[str], str]] = {
    "a number without its zeros": lambda key: key.replace("/0007/", "/7/"),
    "a number with one zero more": lambda key: key.replace("/0007/", "/00007/"),
    "a sign": lambda key: key.replace("/0007/", "/+007/"),
    "digits of another script": lambda key: key.replace("/0007/", "/000٧/"),
    "a folder more": lambda key: key.replace("/0007/", "/0007/x/"),
    "a slash twice": lambda key: key.replace("/0007/", "/0007//"),
    "no study": lambda key: key.replace("/derm/", "//"),
    "something before": lambda key: f"x/{key}",
    "something behind": lambda key: f"{key}.bak",
    "another line": lambda key: f"{key}\n",
    "upper case": lambda key: key.upper(),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_what_lies_beside_a_key_is_none(stray: str) -> None:
    for kind in ("plan", "card", "selection", "refusal"):
        key = STRAYS[stray](SPELLED[kind])
        assert key != SPELLED[kind]
        assert layout.parse(key) is None, key


@given(st.text(max_size=80) | st.text("studies/derm701.0ajno{}-_", max_size=60).map(lambda text: f"studies/{text}"))
@settings(max_examples=300)
def test_any_text_is_a_place_or_none(key: str) -> None:
    """A site writes what it likes below its prefix, and the hub lists it."""
    place = layout.parse(key)
    if place is not None:
        assert key.startswith(layout.above(place.kind, study=place.study))


def test_rounds_beyond_four_digits_and_beyond_six() -> None:
    assert layout.parse(layout.plan("derm", 10_000)) == keys.Place("plan", "derm", "", "", 10_000, -1)
    assert layout.parse(layout.plan("derm", 1_000_000)) is None


@pytest.mark.parametrize("kind", SPELLED)
def test_what_is_above_a_kind_begins_each_of_its_keys(kind: str) -> None:
    known: dict[str, str | int] = {}
    given = {"study": "derm", "site": "701", "server_round": 7, "sequence": 12}
    for part in ("", *re.findall(r"{(\w+)}", keys.KEYS[kind])):
        known |= {part: given[part]} if part in given else {}
        assert SPELLED[kind].startswith(layout.above(kind, **known)), known
    assert layout.above("plan", study="derm") == "studies/derm/rounds/"
    assert layout.above("ledger_entry", study="derm", site="701") == "studies/derm/ledger/701/"


def test_rounds_of_leaves_out_strays_and_other_studies() -> None:
    plans = {number: layout.plan("derm", number) for number in (1, 2, 12)}
    others = [
        layout.plan("nocomp", 3),
        layout.card("derm", 4),
        *(make(layout.plan("derm", 7)) for make in STRAYS.values()),
    ]
    found = layout.rounds_of([*others, *reversed(plans.values())], "plan", "derm")
    assert found == plans
    assert list(found) == [1, 2, 12]


def test_the_remedy_of_an_object_follows_from_who_writes_it() -> None:
    assert layout.remedy(SPELLED["latest"]) == "run `pharmafed repair derm`"
    theirs = [kind for kind in SPELLED if layout.remedy(SPELLED[kind]).startswith("only site 701 and the hub")]
    assert len(theirs) == 9
    assert all("{study}" in keys.KEYS[kind] and "{site}" in keys.KEYS[kind] for kind in theirs)


def test_no_other_module_spells_a_key() -> None:
    """Neither whole nor put together from a prefix; folders on disk are named as they like."""
    own = {"tasks/store/layout.py", "tasks/store/keys.py"}
    found, seen = [], 0
    for path in sorted((PROJECT / "tasks").rglob("*.py")):
        place = path.relative_to(PROJECT).as_posix()
        if place in own:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            seen += isinstance(node, ast.JoinedStr)
            if _spells(node):
                found.append(f"{place}:{node.lineno}")
    assert seen > 500
    assert found == []


def _spells(node: ast.AST) -> TypeGuard[ast.expr]:
    match node:
        case ast.JoinedStr(values=pieces):
            form = "".join(str(piece.value) if isinstance(piece, ast.Constant) else "{}" for piece in pieces)
        case ast.Constant(value=str(form)):
            pass
        case _:
            return False
    prefixed = re.search(r"{layout\.\w+_prefix\(", ast.unparse(node)) is not None
    return prefixed or re.match(r"(studies/({}|\w+)/|federation/\w)\S*$", form) is not None


@pytest.mark.parametrize(
    "line",
    [
        'f"studies/{study}/rounds/{number}/plan.json"',
        'f"{layout.ledger_prefix(study)}/{site}/"',
        '"federation/layout.json"',
        'f"federation/enrolments/{site}.json"',
    ],
)
def test_it_would_be_seen(line: str) -> None:
    assert _spells(ast.parse(line, mode="eval").body)
    assert not _spells(ast.parse('f"studies/{name}.yaml"', mode="eval").body)
