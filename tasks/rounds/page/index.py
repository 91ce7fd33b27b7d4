"""The lists of rounds: one line for each closed round, and the pages made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from tasks.report.pages import render
from tasks.study.privacy import promises


def _moment(text: str) -> str:
    """One entry that no date can be read from must not take down the whole index."""
    datetime.fromisoformat(text)
    return text


class RunEntry(BaseModel):
    """`run.json`: one line of an index, and the answer to "which round did this run close"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    title: str
    server_round: int
    total_rounds: int
    run_id: str
    status: str
    num_contributors: int
    num_sites: int
    mechanism: str
    closed_at: Annotated[str, AfterValidator(_moment)]
    seconds: float
    epsilon: float | None
    epsilon_budget: float | None
    metric: str = Field(default="AUC", description="what `figure` is called")
    figure: float | None = Field(default=None, validation_alias=AliasChoices("figure", "auc"))

    @property
    def promises(self) -> bool:
        """Whether the round's mechanism protects anybody."""
        return promises(self.mechanism)


def rounds_index_page(study: str, entries: Sequence[RunEntry]) -> bytes:
    """The rounds of one study, newest first."""
    newest = _newest_first(entries)
    return render(
        "index.html", heading=newest[0].title if newest else study, studies={study: newest}, base="", exams=False
    )


def overview_page(studies: Mapping[str, Sequence[RunEntry]], *, exams: bool = False) -> bytes:
    """All studies and their rounds, and where `exams` the way to those of language models; links are relative."""
    newest = {name: _newest_first(entries) for name, entries in sorted(studies.items())}
    return render("index.html", heading="Reports", studies=newest, base="reports/", exams=exams)


def _newest_first(entries: Sequence[RunEntry]) -> list[RunEntry]:
    return sorted(entries, key=lambda entry: entry.server_round, reverse=True)
