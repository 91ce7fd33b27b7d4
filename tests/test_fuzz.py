"""The short run of the fuzzer: every parser gives a value or a refusal, whatever comes; and it finds what does not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from safetensors.torch import load

from fuzz.parsers import Parser, parsers
from fuzz.run import last, throw
from fuzz.world import make
from tasks.store.records.round import Refusal

INPUTS = 1000
NAMES = (
    "tensors",
    "dense update",
    "sparse update",
    "float16 update",
    "int8 update",
    "top update",
    "masked update",
    "encrypted update",
    "decrypted values",
    "manifest",
    "ledger",
    "ledger's tables",
    "closed round",
    "key message",
    "sealing key",
    "unmask answer",
    "certificate",
    "refusal",
    "metrics",
    "data validation",
    "daily validation",
    "decrypted sum",
    "plan",
    "roster",
    "survivors",
    "pointer",
    "model card",
    "exam's item",
    "exam's corrections",
)


@pytest.fixture(scope="module")
def all_parsers() -> dict[str, Parser]:
    return parsers(make())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of certificates that it will refuse one day
        yield


def test_every_parser_is_thrown_at(all_parsers: dict[str, Parser]) -> None:
    assert tuple(all_parsers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_whatever_comes_is_a_value_or_a_refusal(name: str, all_parsers: dict[str, Parser]) -> None:
    tally = last(throw(name, all_parsers[name], INPUTS))
    assert tally.findings == []
    assert (tally.inputs, tally.values + tally.refusals) == (INPUTS, INPUTS)
    if name not in ("ledger", "ledger's tables", "closed round"):  # what is wrong is a part of their value
        assert tally.refusals > INPUTS / 10, "hardly anything was spoilt"


def test_the_reader_of_before_is_found_wanting(all_parsers: dict[str, Parser]) -> None:
    """The control: the library alone raises KeyError, TypeError and more on headers of an odd shape or type."""
    tally = last(throw("tensors", all_parsers["tensors"]._replace(parse=load), 2000))
    kinds = {finding.split(": ")[1] for finding in tally.findings}
    assert kinds & {"KeyError", "TypeError", "ValueError", "OverflowError", "RuntimeError"}


def test_a_record_that_raises_something_else_is_found(all_parsers: dict[str, Parser]) -> None:
    """The control: pydantic's own error is no refusal."""
    tally = last(throw("refusal", all_parsers["refusal"]._replace(parse=Refusal.model_validate_json), 200))
    assert any("ValidationError" in finding for finding in tally.findings)
