"""An item's options as a reply may name them: by label, or by their whole text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.exam.bank.numeric import is_quantity
from tasks.exam.reading.reply_text import normalise

KANJI = "一二三四五六七八九十"
#: A numeral of kanji is a word only where no other word goes on with it: 「三番」, not 「三環系」.
WORD = re.compile(
    rf"\d+(?:\.\d+)?|[A-Za-z]+|[{KANJI}](?=番|で|だ|[がを、。,.) \n]|[と・](?:[{KANJI}]|\d)|および|及び|\Z)"
)
_COPULA = re.compile(r"(?:です|である|だ|になります|でございます)\Z")
_NUMBER = re.compile(r"[\d.,]*\d")
_EDGE = " .。、,;:!'"


@dataclass(frozen=True)
class ItemOptions:
    """An item's options as a reply may name them."""

    by_label: dict[str, str]
    texts: tuple[str, ...]
    n_select: int

    @classmethod
    def of(cls, labels: tuple[str, ...], n_select: int, choices: tuple[str, ...]) -> ItemOptions:
        """From the item. Raises ValueError when labels repeat or `n_select` does not fit."""
        by_label = {normalise(label): str(index) for index, label in enumerate(labels, 1)}
        if len(by_label) != len(labels) or not 1 <= n_select <= len(labels):
            raise ValueError(f"labels {labels} do not fit a choice of {n_select}")
        texts = tuple(normalise(choice).strip(_EDGE) for choice in choices)
        letters = {text.upper(): str(index) for index, text in enumerate(texts, 1) if re.fullmatch("[A-Za-z]", text)}
        if len(letters) == len(texts) and not letters.keys() & by_label.keys():
            by_label |= letters  # options that are but names of what a figure shows are their own labels
        return cls(by_label, texts, n_select)

    def number(self, token: str) -> str | None:
        """The option that a whole word names."""
        if token in KANJI:
            token = str(KANJI.index(token) + 1)
        return self.by_label.get(token) or (self.by_label.get(token.upper()) if len(token) == 1 else None)

    def joined(self, token: str) -> list[str]:
        """The options of a word such as BD, where two letters are asked for: nothing else can be meant."""
        if self.n_select < 2 or len(token) != self.n_select or not token.isupper():
            return []
        numbers = [self.by_label.get(letter) for letter in token]
        return [number for number in numbers if number] if None not in numbers else []

    def quoted(self, line: str) -> list[str] | None:
        """The options whose whole texts the line is: one, or several between separators."""
        line = line.strip(_EDGE)
        for text in (line, _COPULA.sub("", line), self._figure(line)):
            if text and text in self.texts:
                return [] if self.texts.count(text) > 1 else [str(self.texts.index(text) + 1)]
        parts = [part.strip(_EDGE) for part in re.split(r"[,、;\n]| and |と", line)] if self.n_select > 1 else []
        if len(parts) == self.n_select and all(self.texts.count(part) == 1 and part for part in parts):
            return [str(self.texts.index(part) + 1) for part in parts]
        return None

    def _figure(self, line: str) -> str:
        """The number of a quantity such as "3.6 mL/h", where options are numbers and labels are not."""
        quantity = _COPULA.sub("", line)
        number = _NUMBER.match(quantity)
        return number[0] if number and number[0] not in self.by_label and is_quantity(quantity) else ""

    def text_at(self, text: str, position: int) -> str | None:
        """The option whose text stands at `position`; the longest, where one starts with another."""
        word = WORD.match(text, position)
        fits = [
            index
            for index, one in enumerate(self.texts)
            if (
                word is not None and word[0] == one
                if one.isdecimal()
                else len(one) > 1 and text.startswith(one, position)
            )
        ]
        return str(max(fits, key=lambda index: len(self.texts[index])) + 1) if fits else None

    def chosen(self, numbers: Iterable[str]) -> tuple[str, ...] | None:
        """The answer, ascending, when it is exactly as many different options as asked for."""
        found = list(numbers)
        if (
            len(found) != self.n_select
            or len(set(found)) != len(found)
            or not set(found) <= set(self.by_label.values())
        ):
            return None
        return tuple(sorted(found, key=int))
