"""Responses out of answers, their costs, and errors that say what to do."""

from __future__ import annotations

import pytest

from tasks.errors import ConfigError, ModelRefused, ModelUnavailable, RunIncomplete
from tasks.exam.asking import collect, prices
from tasks.exam.asking.questions import Failure
from tasks.exam.bank.records import ExamItem, ItemText, RunSettings
from tasks.exam.runs.journal import RawReply
from tasks.report.notices import reason_of
from tests.exam.exam_samples import exam, item, settings

ITEMS = (item(2), item(1))


def _asked(epochs: int = 1, **changes: object) -> RunSettings:
    return settings(exam(ITEMS), model="openai/gpt-4o", epochs=epochs, **changes)


def _answers(items: tuple[ExamItem, ...], epochs: int) -> dict[tuple[str, int], RawReply]:
    found = [
        RawReply.model_validate(
            {
                "item": it.id,
                "item_digest": it.digest,
                "epoch": epoch,
                "model": "gpt-4o-2024-08-06",
                "raw": f"答え: {epoch}",
                "input_tokens": 1_000,
                "output_tokens": 100,
                "seconds": 0.5,
                "asked_at": "2026-01-01T00:00:00Z",
            }
        )
        for it in items
        for epoch in range(epochs, 0, -1)
    ]
    return {answer.key: answer for answer in found}


def test_responses_are_ordered_parsed_and_priced():
    responses = collect.responses(ITEMS, _asked(2), _answers(ITEMS, 2))

    assert [(r.item, r.epoch, r.parsed) for r in responses] == [
        ("t001", 1, ("1",)),
        ("t001", 2, ("2",)),
        ("t002", 1, ("1",)),
        ("t002", 2, ("2",)),
    ]
    assert responses[0].cost == pytest.approx(1_000 * 2.5e-6 + 100 * 10e-6)


@pytest.mark.parametrize(("language", "parsed"), [("ja", ("2",)), ("en", None)])
def test_an_option_may_be_named_by_its_text_in_the_runs_language(language, parsed):
    drugs = ("アスピリン", "ワルファリン", "ヘパリン", "リバーロキサバン", "チクロピジン")
    of = item(1, text={"ja": ItemText(stem="問", choices=drugs), "en": item(1).text["en"]})
    answer = _answers((of,), 1)["t001", 1].model_copy(update={"raw": "答え: ワルファリン"})

    asked = _asked(language=language, prompt=f"{language}/v1")

    assert collect.responses((of,), asked, {answer.key: answer})[0].parsed == parsed


def test_one_missing_answer_blocks_the_run():
    answers = _answers(ITEMS, 2)
    del answers["t002", 2]

    with pytest.raises(RunIncomplete, match="no response to 1 of 4 questions, the first is item t002"):
        collect.responses(ITEMS, _asked(2), answers)


def test_an_answer_to_an_item_that_has_changed_is_none():
    changed = (ITEMS[0], item(1, answers=(("2",),)))

    with pytest.raises(RunIncomplete, match="item t001 is not the item that openai/gpt-4o was asked"):
        collect.responses(changed, _asked(), _answers(ITEMS, 1))


@pytest.mark.parametrize(
    ("model", "answered_by", "dollars"),
    [
        ("openai/gpt-4o", "gpt-4o", 1.0),
        ("openai/gpt-4o", "gpt-4o-2024-08-06", 1.0),
        ("openai/gpt-4o", "gpt-4o-2024-05-13", None),
        ("openai/gpt-3.5-turbo", "gpt-3.5-turbo-1106", None),
        ("openai/gpt-4o", "gpt-4o-mini", 0.06),
        ("openai/gpt-4o", "gpt-4o-mini-2024-07-18", 0.06),
        ("openai/gpt-3.5-turbo", "gpt-3.5-turbo-0125", 0.155),
        ("openai/gpt-4o", "gpt-4o-audio", None),
        ("openai-api/proxy/gpt-4o", "gpt-4o", None),
        ("pharmafed/smollm2", "pharmafed/smollm2", 0.0),
        ("ollama/llama3", "llama3", 0.0),
    ],
)
def test_a_price_is_known_or_none(model, answered_by, dollars):
    found = prices.cost(model, answered_by, 40_000, 90_000)

    assert found == (None if dollars is None else pytest.approx(dollars))


def test_a_damaged_price_list_is_named(tmp_path, monkeypatch):
    (tmp_path / "exams").mkdir()
    (tmp_path / "exams/prices.yaml").write_text("models: {openai/x: {input: -1, output: 1}}")
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))

    with pytest.raises(ConfigError, match=r"prices\.yaml is not a price list"):
        prices.cost("openai/x", "x", 1, 1)


def _failure(kind: str, status: int | None, name: str | None = "t007") -> Failure:
    return Failure.model_validate({"kind": kind, "item": name, "status": status, "message": "said the server"})


@pytest.mark.parametrize(
    ("failures", "error", "parts"),
    [
        ([_failure("refused", 401)], ModelRefused, ["item t007 with status 401", "API key"]),
        ([_failure("refused", 402)], ModelRefused, ["status 402", "credit"]),
        ([_failure("refused", 404)], ModelRefused, ["status 404", "model's name"]),
        ([_failure("refused", None, None)], ModelRefused, ["before the first item", "installed"]),
        ([_failure("unavailable", 429)], ModelUnavailable, ["item t007 with status 429", "later"]),
        ([_failure("unavailable", None)], ModelUnavailable, ["at item t007:", "later"]),
        ([_failure("broken", 400)], RunIncomplete, ["status 400", "Mend the cause"]),
        ([_failure("unavailable", 500), _failure("refused", 401)], ModelRefused, ["401 (2 calls failed)"]),
        ([_failure("unavailable", 500), _failure("broken", 400)], RunIncomplete, ["400 (2 calls failed)"]),
    ],
)
def test_the_gravest_failure_says_what_to_do(failures, error, parts):
    found = collect.error_of(failures, "openai/gpt-4o", 3, 345)

    assert type(found) is error
    for part in ("openai/gpt-4o", "said the server", "3 of 345 answers are kept", *parts):
        assert part in str(found)


def test_a_notice_has_kind_status_and_remedy_and_no_word_of_the_provider():
    """Notices leave the machine; what a provider says may quote addresses, accounts and parts of keys."""
    said = reason_of(collect.error_of([_failure("refused", 401)], "openai/gpt-4o", 3, 345))

    assert said == (
        "openai/gpt-4o failed at item t007 with status 401 (refused). 3 of 345 answers are kept. Check the API key in "
        "the environment and what it may use"
    )
    assert reason_of(RunIncomplete("the engine ended")) == "the engine ended"
    assert reason_of(ValueError("secret")) == "ValueError"


def test_a_reply_that_was_cut_off_is_kept_and_not_read():
    answers = _answers(ITEMS, 1)
    cut = answers["t001", 1].model_copy(update={"stop_reason": "max_tokens"})

    first, second = collect.responses(ITEMS, _asked(), {**answers, cut.key: cut})

    assert (first.raw, first.parsed, first.stop_reason) == ("答え: 1", None, "max_tokens")
    assert (second.parsed, second.stop_reason) == (("1",), "stop")
