"""The loop: seeded, so that an input can be made again from its parser, seed and number."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from fuzz.parsers import Parser
from tasks.errors import PharmafedError

#: An input that takes longer than this is a finding, too: seconds, with room for a busy machine.
TOO_SLOW = 5.0
_SHOWN = 20


@dataclass
class Tally:
    """What became of the inputs of one parser."""

    inputs: int = 0
    values: int = 0
    refusals: int = 0
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


def throw(name: str, parser: Parser, inputs: int, *, seed: int = 0) -> Iterator[Tally]:
    """Throw so many inputs at a parser; yields the running tally now and then, and at the end."""
    tally = Tally()
    for body in parser.valid:
        parser.parse(body)  # a valid input must be one
    for number in range(inputs):
        rng = Random(f"{name}/{seed}/{number}")
        body = parser.spoil(rng, rng.choice(parser.valid))
        _one(tally, parser, body, f"{name}, seed {seed}, input {number}")
        if number % 10_000 == 9_999:
            yield tally
    yield tally


def _one(tally: Tally, parser: Parser, body: bytes, place: str) -> None:
    started = time.perf_counter()
    try:
        parser.parse(body)
        tally.values += 1
    except PharmafedError:
        tally.refusals += 1
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what OpenSSL's bindings raise when they panic is no Exception
        _find(tally, f"{place}: {type(error).__name__}: {error}"[:300])
    took = time.perf_counter() - started
    tally.inputs += 1
    tally.slowest = max(tally.slowest, took)
    if took > TOO_SLOW:
        _find(tally, f"{place}: {took:.1f} s")


def _find(tally: Tally, text: str) -> None:
    if len(tally.findings) < _SHOWN:
        tally.findings.append(text)


def last(tallies: Iterable[Tally]) -> Tally:
    """The final tally."""
    *_, final = tallies
    return final
