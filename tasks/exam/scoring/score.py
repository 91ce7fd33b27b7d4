"""Scoring as the paper does it (Sato & Ogasawara 2024, JEEHP 21:4), on saved records alone.

An item is right when the answer is one of its accepted sets, whole: of two answers both must be right. An item without
a solution is never asked and is scored as correct. Each right item is worth 2 points. Accuracy 1 is correct / entered,
accuracy 2 is correct / all. Replies are read here, from their text. One that cannot be read earns nothing and is
counted apart from wrong ones, and so is one that the limit of tokens has cut off. With several epochs the majority's
answer is the item's answer; an unreadable reply has a vote like any other, and among equals the answer that came first
counts.

A sitting passes when (1) its points reach the bound of its year, 434 of 690 in the 107th, or the same share of our own
exam's points; (2) it has 70% of the essential items and 30% of them in each subject, physics, chemistry and biology
taken as one; (3) at most two options that harm a patient were chosen, which can be judged only where the exam lists
such options. A national examination brings its year's bounds (`exams/national`). All shares are of all items and
compared as whole numbers. A diagram that the model was not shown earns nothing, like a blank; a response that is
missing for any other reason leaves the verdict open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.errors import DataError
from tasks.exam.bank.records import Exam, ExamItem, ExamRun, Response, ResponseVerdict
from tasks.exam.reading.read import ReadReply, read_response
from tasks.exam.runs.run_files import responses_sha256
from tasks.exam.scoring.exam_index import index_of
from tasks.exam.scoring.pass_criteria import POINTS_PER_ITEM, criteria, sitting_passes, still_open
from tasks.exam.scoring.score_records import (
    Coverage,
    Epochs,
    EpochScore,
    ItemScore,
    ScoredRun,
    Scores,
    Slice,
    TableRow,
    Usage,
)
from tasks.exam.scoring.slices import tally
from tasks.exam.scoring.statistics import epoch_spread

#: Item -> the answers of its epochs, in order.
Replies = Mapping[str, Sequence[ReadReply]]


def score(exam: Exam, run: ExamRun, responses: Sequence[Response]) -> Scores:
    """Score a run.

    Raises:
        DataError: the exam, an item or the responses are not those that the run was made with, or a response is double,
            or to an item that is never asked.
    """
    _check_seals(exam, run, responses)
    replies = _replies(exam, run, responses)
    last = _last_number(exam, run)
    asked = [item for item in exam.items if item.id in replies or (item.no_solution and item.number <= last)]
    votes = {item.id: _majority(replies[item.id]) for item in asked if not item.no_solution}
    verdicts = {item.id: judge(item, votes.get(item.id)) for item in asked}
    answers = {item: None if vote == "cut off" else vote for item, vote in votes.items()}
    overall, coverage = tally(index_of(exam).all, verdicts), _coverage(exam, run, replies, verdicts)
    judged = criteria(exam, verdicts, answers)
    if coverage.missing:
        judged = tuple(still_open(one, len(coverage.missing)) for one in judged)
    return Scores(
        exam=exam.id,
        exam_digest=run.settings.exam_digest,
        run=run.id,
        responses_sha256=run.responses_sha256,
        coverage=coverage,
        overall=overall,
        points=POINTS_PER_ITEM * overall.correct,
        points_possible=POINTS_PER_ITEM * overall.items,
        criteria=judged,
        passed=None if coverage.missing else sitting_passes(judged),
        human_mean=exam.human_mean,
        table=_table(exam, verdicts),
        slices=tuple(
            Slice(dimension=dimension, value=value, tally=tally(group, verdicts))
            for dimension, value, group in index_of(exam).slices
        ),
        epochs=_epochs(exam, run, replies, verdicts),
        answered_by=dict(sorted(Counter(response.model for response in responses).items())),
        usage=_usage(responses),
        unparsed=tuple(item.number for item in asked if verdicts[item.id] == "unparsed"),
        cut_off=tuple(item.number for item in asked if verdicts[item.id] == "cut off"),
        items=tuple(
            ItemScore(item=item.id, number=item.number, verdict=verdicts[item.id], answer=answers.get(item.id))
            for item in asked
        ),
    )


def scored_run(exam: Exam, run: ExamRun, responses: Sequence[Response]) -> ScoredRun:
    """The run with its scores, as comparisons take it. Raises as `score`."""
    return ScoredRun(run, score(exam, run, responses))


def judge(item: ExamItem, answer: ReadReply) -> ResponseVerdict:
    """The verdict on one answer: every option of one accepted set, and no other."""
    if item.no_solution:
        return "unasked"
    if answer is None or answer == "cut off":
        return answer or "unparsed"
    return "correct" if any(set(answer) == set(accepted) for accepted in item.answers) else "wrong"


def _check_seals(exam: Exam, run: ExamRun, responses: Sequence[Response]) -> None:
    digest = index_of(exam).digest
    if digest != run.settings.exam_digest:
        raise DataError(
            f"run {run.id} asked exam {run.settings.exam} with digest {run.settings.exam_digest}, but exam {exam.id} "
            f"has {digest}: score it with the exam.json that it was made with"
        )
    found = responses_sha256(responses)
    if found != run.responses_sha256:
        raise DataError(
            f"the responses of run {run.id} have sha256 {found}, but run.json says {run.responses_sha256}: they were "
            "changed after the run; restore responses.jsonl or ask again"
        )


def _replies(exam: Exam, run: ExamRun, responses: Sequence[Response]) -> dict[str, list[ReadReply]]:
    """The answers by item, each checked against the item that it claims to answer."""
    index = index_of(exam)
    by_epoch: dict[str, dict[int, ReadReply]] = {}
    for response in responses:
        item = index.items.get(response.item)
        where = f"response to item {response.item} in epoch {response.epoch} of {run.id}"
        if item is None or item.no_solution or run.settings.leaves_out(item):
            raise DataError(f"{where}: this run asks no such item; the responses are of another exam or arm")
        if response.item_digest != index.item_digests[item.id]:
            raise DataError(
                f"{where} is to an item with digest {response.item_digest}, but the exam's has "
                f"{index.item_digests[item.id]}: score it with the exam.json that it was made with"
            )
        epochs = by_epoch.setdefault(item.id, {})
        if response.epoch in epochs or response.epoch > run.settings.epochs:
            raise DataError(f"{where}: one response each in {run.settings.epochs} epochs is expected; ask again")
        epochs[response.epoch] = read_response(item, run.settings.language, response)
    return {item: [answers[epoch] for epoch in sorted(answers)] for item, answers in by_epoch.items()}


def _majority(answers: Sequence[ReadReply]) -> ReadReply:
    """The most frequent answer; Counter keeps the order of coming, so among equals the first."""
    return answers[0] if len(answers) == 1 else Counter(answers).most_common(1)[0][0]


def _last_number(exam: Exam, run: ExamRun) -> int:
    """The number of the last item that the run's limit leaves in."""
    return sorted(item.number for item in exam.items)[: run.settings.limit][-1]


def _coverage(exam: Exam, run: ExamRun, replies: Replies, verdicts: Mapping[str, ResponseVerdict]) -> Coverage:
    without_picture, missing = [], []
    for item in exam.items:
        if item.id not in verdicts and run.settings.leaves_out(item):
            without_picture.append(item.number)
        elif item.id not in verdicts or len(replies.get(item.id, ())) < run.settings.epochs * (not item.no_solution):
            missing.append(item.number)
    return Coverage(
        items=len(exam.items),
        entered=len(verdicts),
        without_picture=tuple(without_picture),
        missing=tuple(missing),
    )


def _table(exam: Exam, verdicts: Mapping[str, ResponseVerdict]) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(
            subject=subject,
            essential=tally(essential, verdicts),
            general=tally(general, verdicts),
            total=tally(total, verdicts),
        )
        for subject, essential, general, total in index_of(exam).table
    )


def _epochs(exam: Exam, run: ExamRun, replies: Replies, verdicts: Mapping[str, ResponseVerdict]) -> Epochs:
    """Each epoch by itself: the items answered in it, and the unasked ones, which are correct in each."""
    unasked = sum(found == "unasked" for found in verdicts.values())
    complete = {item: answers for item, answers in replies.items() if len(answers) == run.settings.epochs}
    scores = []
    for epoch in range(run.settings.epochs):
        found = [judge(item, complete[item.id][epoch]) for item in exam.items if item.id in complete]
        scores.append(_epoch_score(epoch + 1, found, unasked))
    accuracies = [one.accuracy_1 for one in scores if one.accuracy_1 is not None]
    spread = epoch_spread(accuracies) if accuracies else None
    same = [len(set(answers)) == 1 for answers in complete.values()]
    return Epochs(
        scores=tuple(scores),
        mean=spread.mean if spread else None,
        variance=spread.variance if spread else None,
        sd=spread.sd if spread else None,
        agreement=sum(same) / len(same) if same else None,
    )


def _epoch_score(epoch: int, found: Sequence[ResponseVerdict], unasked: int) -> EpochScore:
    entered, correct = len(found) + unasked, found.count("correct") + unasked
    return EpochScore(
        epoch=epoch,
        entered=entered,
        correct=correct,
        unparsed=found.count("unparsed"),
        cut_off=found.count("cut off"),
        accuracy_1=correct / entered if entered else None,
    )


def _usage(responses: Sequence[Response]) -> Usage:
    costs = [response.cost for response in responses]
    return Usage(
        responses=len(responses),
        input_tokens=sum(response.input_tokens for response in responses),
        output_tokens=sum(response.output_tokens for response in responses),
        cost=None if None in costs or not costs else sum(cost for cost in costs if cost is not None),
        seconds=sum(response.seconds for response in responses),
    )
