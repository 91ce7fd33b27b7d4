"""What a model is asked, word for word. Prompts are data files: exams/prompts/<language>/<version>.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, ValidationError

from tasks.errors import ConfigError
from tasks.exam.bank.records import ExamItem, ItemText, Language
from tasks.foreign.files import listed, read_ordinary
from tasks.foreign.yaml_file import parse_yaml
from tasks.store.records.record import Digest, Record
from tasks.store.settings import project_dir


def _holds(*names: str) -> AfterValidator:
    """A template has just these placeholders. An unknown one would break in the middle of a run, not before it.

    None has a format, either: `{text:>9999999999}` would ask for ten gigabytes of blanks.
    """

    def check(template: str) -> str:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
        formatted = any(form or conversion for _, _, form, conversion in fields)
        if formatted or {name for _, name, _, _ in fields} != set(names):
            wanted = " ".join(f"{{{name}}}" for name in names) or "none"
            raise ValueError(f"placeholders must be {wanted}")
        return template

    return AfterValidator(check)


class Prompt(Record):
    """The words around an item in one language. `{...}` are placeholders, filled by `user_text`."""

    system: str
    item: Annotated[str, _holds("scenario", "stem", "choices", "request")]
    scenario: Annotated[str, _holds("text")]
    previous: Annotated[str, _holds("text")]
    choice: Annotated[str, _holds("label", "text")]
    choices_in_picture: Annotated[str, _holds("labels")]
    no_picture: str
    request_one: Annotated[str, _holds("labels")]
    request_several: Annotated[str, _holds("labels", "count", "example")]


def load_prompt(name: str) -> tuple[Prompt, Digest]:
    """The prompt `<language>/<version>` and the sha256 of its file.

    Raises:
        ConfigError: there is no such file, or it does not hold a prompt.
    """
    path = project_dir() / "exams" / "prompts" / f"{name}.yaml"
    try:
        content = read_ordinary(path)
        return Prompt.model_validate(parse_yaml(path, content).content), hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        known = [str(p.relative_to(path.parents[1]).with_suffix("")) for p in listed(path.parents[1], "*/*.yaml")]
        raise ConfigError(f"no prompt {name!r} at {path}: choose one of {', '.join(known) or 'none'}") from None
    except ValidationError as error:
        raise ConfigError(f"{path} does not hold a prompt: {error}") from None


def user_text(prompt: Prompt, item: ExamItem, language: Language, *, picture: bool, previous: bool = False) -> str:
    """The user's message for `item`.

    Args:
        picture: every picture that the item and its case have goes with it; if not, it says that one is missing.
        previous: its scenario is the stem of the item before it, and labelled as such.

    Raises:
        ConfigError: the item has no text in `language`.
    """
    text = item.text.get(language)
    if text is None:
        raise ConfigError(f"item {item.id} of exam {item.exam} has no text in {language!r}: choose another language")
    told = prompt.previous if previous else prompt.scenario
    return prompt.item.format(
        scenario=told.format(text=text.scenario) if text.scenario else "",
        stem=text.stem,
        choices="\n".join(_choices(prompt, item, text, picture=picture)),
        request=_request(prompt, item),
    )


def _choices(prompt: Prompt, item: ExamItem, text: ItemText, *, picture: bool) -> list[str]:
    if text.choices:
        pairs = zip(item.labels, text.choices, strict=True)
        lines = [prompt.choice.format(label=label, text=choice) for label, choice in pairs]
    else:
        lines = [prompt.choices_in_picture.format(labels=", ".join(item.labels))]
    if not picture and item.lacks_a_picture(sent=False):
        lines.append(prompt.no_picture)
    return lines


def _request(prompt: Prompt, item: ExamItem) -> str:
    labels = ", ".join(item.labels)
    if item.n_select == 1:
        return prompt.request_one.format(labels=labels)
    example = ", ".join(_example(item.labels, item.n_select))
    return prompt.request_several.format(labels=labels, count=item.n_select, example=example)


def _example(labels: Sequence[str], count: int) -> Sequence[str]:
    """Options that show the form of an answer: "2, 5" of five options. Never taken from the item's key."""
    return labels if count >= len(labels) else [*labels[1:count], labels[-1]]
