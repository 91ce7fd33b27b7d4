"""What the engine is handed: questions ready to send, and how to send them. Items and prompts stay on this side."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.errors import ConfigError, DataError
from tasks.exam.asking.prompts import Prompt, load_prompt, user_text
from tasks.exam.bank.records import Exam, ExamItem, Language, RunSettings
from tasks.store.records.record import Digest, Record

#: The provider of the model that comes with the project: it sees no pictures and answers one question at a time.
BUNDLED = "pharmafed/"
#: What providers take, by the first bytes of the file.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
#: In the run's folder while the engine runs.
WAITING = "waiting.jsonl"


class Question(Record):
    """One item as it is sent, the same in every epoch."""

    item: str
    item_digest: Digest
    text: str
    images: tuple[str, ...] = Field(description="absolute paths")
    case_images: tuple[str, ...] = Field(default=(), description="of what was told before, placed after its text")
    case_end: int = Field(default=0, ge=0, description="characters of `text` that tell what was told before")


class Patience(Record):
    """How long a call is tried. Waits between retries double from 3 s on; answers so far are kept in any case."""

    max_retries: int = Field(default=6, ge=0, description="of one call, after 429, 5xx, time-outs, lost connections")
    attempt_timeout_s: int = Field(default=180, gt=0, description="of one attempt")
    failures: int = Field(default=3, ge=1, description="so many failed calls end the run; a refusal ends it at once")


class EngineJob(Record):
    """All that the engine's process needs to know."""

    settings: RunSettings
    system: str
    questions: tuple[Question, ...]
    max_connections: int = Field(ge=1)
    patience: Patience


class Waiting(Record):
    """A line of `waiting.jsonl`: a call that failed and is tried again."""

    address: str | None = Field(description="of the model's host, where inspect knows it")
    message: str


class Failure(Record):
    """A call that gave no answer. No response is made of it.

    `refused`: not before a setting is changed; `unavailable`: perhaps later; `broken`: anything else.
    """

    kind: Literal["refused", "unavailable", "broken"]
    item: str | None = Field(description="null where the model could not even be set up")
    status: int | None = Field(default=None, description="HTTP status, where there was one")
    message: str
    address: str | None = Field(default=None, description="of the model's host, where inspect knows it")


class Failures(Record):
    """What went wrong in one process of the engine."""

    failures: tuple[Failure, ...]


def make_job(
    exam: Exam,
    images: Path,
    settings: RunSettings,
    max_connections: int,
    patience: Patience,
    leave: Collection[str] = (),
) -> EngineJob:
    """Everything to be asked, but for the items in `leave`, checked before the first call is paid for.

    Raises:
        ConfigError: exam or prompt are not those that `settings` pin, an item lacks the language, or no item is left.
        DataError: a picture is missing or not one.
    """
    prompt, digest = load_prompt(settings.prompt)
    if exam.digest != settings.exam_digest:
        raise ConfigError(f"exam {exam.id} has digest {exam.digest}, the settings pin {settings.exam_digest}: new run")
    if digest != settings.prompt_digest:
        raise ConfigError(f"prompt {settings.prompt} has digest {digest}, the settings pin {settings.prompt_digest}")
    questions = tuple(
        _question(exam, item, images, settings, prompt) for item in items_to_ask(exam, settings) if item.id not in leave
    )
    if not questions:
        raise ConfigError(
            f"exam {exam.id} with limit {settings.limit}, pictures {'sent' if settings.images else 'not sent'}, has "
            "nothing to ask: raise the limit"
        )
    return EngineJob(
        settings=settings,
        system=prompt.system,
        questions=questions,
        max_connections=max_connections,
        patience=patience,
    )


def _question(exam: Exam, item: ExamItem, images: Path, settings: RunSettings, prompt: Prompt) -> Question:
    language = settings.language
    text = user_text(
        prompt,
        item,
        language,
        picture=not item.lacks_a_picture(sent=settings.images),
        previous=repeats_previous(exam, item, language),
    )
    scenario = item.text[language].scenario or ""
    own, of_case = (item.images, item.case_images) if settings.images else ((), ())
    return Question(
        item=item.id,
        item_digest=item.digest,
        text=text,
        images=tuple(_picture(images, item, name) for name in own),
        case_images=tuple(_picture(images, item, name) for name in of_case),
        case_end=text.index(scenario) + len(scenario) if of_case else 0,
    )


def items_to_ask(exam: Exam, settings: RunSettings) -> tuple[ExamItem, ...]:
    """The first `limit` items by number, without those that have no solution, and without diagrams in a text-only run.

    Where pictures are sent but the exam has none of a diagram, its item is asked all the same, and the prompt says so;
    and so it does where only the item's case has a picture that is not sent.
    """
    ordered = sorted(exam.items, key=lambda item: item.number)[: settings.limit]
    return tuple(item for item in ordered if not item.no_solution and not settings.leaves_out(item))


def repeats_previous(exam: Exam, item: ExamItem, language: Language) -> bool:
    """Whether the item's scenario is the stems of its case's earlier items, with questions that are not asked again.

    So it is in an imported exam, where only the first item tells the case; our own exam keeps scenario and stem apart,
    and tells the scenario with the first item too.
    """
    if item.case is None or language not in item.text:
        return False
    first = min((one for one in exam.items if one.case == item.case), key=lambda one: one.number)
    return first.id != item.id and first.text[language].scenario is None


def _picture(folder: Path, item: ExamItem, name: str) -> str:
    path = (folder / name).resolve()
    if path.parent != folder.resolve():
        raise DataError(f"picture {name!r} of item {item.id} is not in {folder}: import the exam again")
    if not path.is_file():
        raise DataError(f"picture {path} of item {item.id} is missing: import the exam again")
    with path.open("rb") as file:
        if not file.read(8).startswith(_SIGNATURES):
            raise DataError(f"{path} of item {item.id} is not a PNG, JPEG, GIF or WebP picture: import the exam again")
    return str(path)
