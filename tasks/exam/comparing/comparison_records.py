"""What a comparison of two runs says, for reports, alerts and `pharmafed exam compare`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.exam.bank.records import Language, ResponseVerdict
from tasks.exam.scoring.score_records import Bounds, Dimension
from tasks.store.records.record import Digest, Record

ComparisonKind = Literal["rerun", "models", "arms"]
ComparisonOutcome = Literal["drift", "no drift", "difference", "no difference"]


class ChangedSetting(Record):
    """A setting that is not the same in both runs."""

    name: str
    a: str
    b: str


class Side(Record):
    """One of the two runs, on the paired items."""

    run: str
    model: str
    language: Language
    prompt: str
    finished_at: datetime
    answered_by: tuple[str, ...]
    correct: int
    unparsed: int
    cut_off: int = 0
    accuracy: float
    interval: Bounds = Field(description="Wilson 95%")
    passed: bool | None
    epochs: int
    epoch_mean: float | None
    epoch_variance: float | None
    epoch_agreement: float | None


class PairedTest(Record):
    """Exact McNemar. `lost`: right in a, not in b; `gained`: the other way; `net` is gained - lost."""

    both_right: int
    both_wrong: int
    lost: int
    gained: int
    net: int
    p: float


class UnpairedTest(Record):
    """The paper's chi-square (statistic, p), as if the runs were of different items; null where it has no meaning."""

    yates: tuple[float, float] | None
    plain: tuple[float, float] | None


class PairedSlice(Record):
    """The paired test of one slice; `p_holm` is adjusted over all slices."""

    dimension: Dimension
    value: str
    pairs: int
    test: PairedTest
    p_holm: float


class Flip(Record):
    """An item that is right in one run only."""

    item: str
    number: int
    before: ResponseVerdict
    after: ResponseVerdict
    answer_before: tuple[str, ...] | None
    answer_after: tuple[str, ...] | None


class Detected(Record):
    """The smallest net change that the test can call significant when `discordance` of the items flip."""

    discordance: float
    items: int
    share: float


class Decision(Record):
    """The verdict with its threshold: net change >= `threshold` items at the number of flips that was seen."""

    verdict: ComparisonOutcome
    direction: Literal["better", "worse"] | None = Field(description="of b; null without a verdict of change")
    alpha: float
    min_net: int = Field(description="items: smaller net changes raise no alarm whatever their p")
    threshold: int | None = Field(description="items; null where no net change of so few flips is significant")
    false_alarm: float = Field(description="chance of the alarm, given so many flips, when nothing has changed")


class RunComparison(Record):
    """Run b against run a of the same exam.

    `compared` names what the comparison is about (nothing for a rerun), `confounders` the settings that differ besides:
    with any of them a change has more than one possible cause.
    """

    exam: str
    exam_digest: Digest
    kind: ComparisonKind
    compared: tuple[str, ...]
    differences: tuple[ChangedSetting, ...]
    confounders: tuple[str, ...]
    notes: tuple[str, ...]
    a: Side
    b: Side
    pairs: int
    overall: PairedTest
    unpaired: UnpairedTest
    slices: tuple[PairedSlice, ...]
    lost: tuple[Flip, ...]
    gained: tuple[Flip, ...]
    changed_answers: int = Field(description="paired items with another answer, right or wrong")
    detectable: Detected | None = Field(description="at the typical discordance of 10%")
    detectable_here: Detected | None = Field(description="at the discordance of this pair")
    decision: Decision

    @property
    def lost_unreadable(self) -> int:
        """Of the lost items, those whose new reply names no answer: cut off, or not readable. No loss of knowledge."""
        return sum(flip.after in ("unparsed", "cut off") for flip in self.lost)

    @property
    def lost_words(self) -> str:
        """`20 items lost (of 3 the new reply is unreadable)`."""
        unread = f" (of {self.lost_unreadable} the new reply is unreadable)" if self.lost_unreadable else ""
        return f"{self.overall.lost} items lost{unread}"


def most_telling(previous: RunComparison | None, anchor: RunComparison | None) -> RunComparison | None:
    """Of a run's two comparisons the one that raised an alarm; that with the run before, where both or neither did."""
    drifted = [one for one in (previous, anchor) if one is not None and one.decision.verdict == "drift"]
    return drifted[0] if drifted else previous
