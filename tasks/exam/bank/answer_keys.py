"""How many options an item asks for and which sets of them its key accepts, read from the layout's free text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

_COUNT = {"一": 1, "二": 2, "三": 3, "四": 4, "五": 5}
_HOW_MANY = r"([1-5一二三四五])\s*つ"
_SELECT = re.compile(rf"{_HOW_MANY}\s*(?:を)?\s*選")
_ANY_OF = re.compile(rf"いずれか\s*(?:の)?\s*(?:{_HOW_MANY})?")
_PART = re.compile(r"(\d{1,2})(?!\d)\s*(.*)", re.DOTALL)
_OPTION = r"(?:選択肢\s*)?(?<!\d)\d{1,2}(?!\d)"
_OR = r"\s*(?:又は|または|もしくは|若しくは)\s*"
_LIST = re.compile(rf"{_OPTION}(?:\s*(?:、|,|・|及び|および|と|又は|または)\s*{_OPTION})+")
_ONE_OR_OTHER = re.compile(rf"{_OPTION}(?:{_OR}{_OPTION})+\s*(?:を|のいずれも|のいずれか(?:一方)?を)?\s*正解")
_NO_SOLUTION = re.compile(r"(?:正解|正答|解)は?(?:なし|無し)")
#: 「1又は2を正解としない」, 「…を選んだものは不正解とする」: it names options and does not accept them.
_DENIED = re.compile(
    r"不正[解答]|正[解答](?:と|に|で|として)は?(?:な[いく]|[^、,。]{1,8}?(?:ない|なかった|なく|ません|ぬ|ず))"
)
#: How a note ends that takes the item out: 「…ため、解なし。」, 「解なしとし、全員に加点する。」
_ENDS_WITHOUT = re.compile(
    rf"{_NO_SOLUTION.pattern}(?:と(?:する|した|なる|なった|し[、,][^。]*)|です)?(?:[（(][^（()）]*[）)])?[\s。.）)]*$"
)


class KeyProblem(ValueError):
    """A key, note or stem that cannot be read, or that contradicts another one. Says what; the reader says where."""


@dataclass(frozen=True)
class AnyOf:
    """Any `count` of `options` are right. No options: those that the key lists."""

    count: int
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerKey:
    """What the answer field says. `any_of` counts where it says in words that any so many are right."""

    options: tuple[str, ...]
    any_of: AnyOf | None = None
    no_solution: bool = False
    words: bool = False


def read_n_select(stem: str) -> int | None:
    """How many options the stem asks for (「1つ選べ」, 「２つ選べ」, 「二つ選べ」), or None where it does not say.

    Raises:
        KeyProblem: it says two different numbers.
    """
    found = {_number(match) for match in _SELECT.findall(_plain(stem))}
    if len(found) > 1:
        raise KeyProblem(f"the stem asks for {' and for '.join(str(count) for count in sorted(found))} options")
    return found.pop() if found else None


def read_key(answer: Sequence[str]) -> AnswerKey:
    """Read the answer field: ["2"], ["1", "３"], ["解なし（...）"], ["1", "3", "5（いずれか2つ）"].

    Raises:
        KeyProblem: it is empty, or has words that mean neither of these.
    """
    parts = [_plain(part).strip() for part in answer]
    if any(_NO_SOLUTION.match(part) for part in parts):
        if len(parts) != 1:
            raise KeyProblem("the key has both options and no solution")
        return AnswerKey((), no_solution=True, words=parts[0] != "解なし")
    matches = [_PART.fullmatch(part) for part in parts]
    if not parts or not all(matches):
        raise KeyProblem("the key is not a list of option numbers")
    words = " ".join(match[2] for match in matches if match and match[2])
    any_of = _read_any_of(words) if words else None
    if words and any_of is None:
        raise KeyProblem("the key has words that are neither 解なし nor いずれか")
    return AnswerKey(_sorted({match[1] for match in matches if match}), any_of, words=bool(words))


def says_no_solution(answer: Sequence[str]) -> bool:
    """Whether the answer field itself says that there is none, and nothing else: a remark that says so is no key."""
    return bool(answer) and all(_NO_SOLUTION.match(_plain(part).strip()) for part in answer)


def note_takes_out(note: str) -> bool:
    """Whether a note says that the item has no solution, whatever the key says.

    Raises:
        KeyProblem: it speaks of no solution and ends otherwise.
    """
    text = _plain(note).strip()
    if _ENDS_WITHOUT.search(text):
        return True
    if _NO_SOLUTION.search(text):
        raise KeyProblem("the note speaks of 解なし and ends otherwise")
    return False


def read_note(note: str) -> AnyOf | None:
    """Read an any-of rule in a note: 「1、3、5のうちいずれか2つ」 or 「2又は4を正解とする」. None where there is none.

    Only a sentence that speaks of right answers counts.

    Raises:
        KeyProblem: it speaks of options that are not accepted.
    """
    text = _plain(note)
    for sentence in re.split(r"[。\n]", text):
        if "正解" not in sentence and "正答" not in sentence:
            continue
        if match := _ONE_OR_OTHER.search(sentence):
            _refuse_denied(sentence[match.start() :])
            return AnyOf(1, _sorted(set(re.findall(r"\d+", match[0]))))
        if rule := _read_any_of(sentence):
            return rule
    return None


def accepted_sets(key: AnswerKey, rule: AnyOf | None, n_select: int, num_choices: int) -> tuple[tuple[str, ...], ...]:
    """Every set of options that is right, each sorted by option number.

    Raises:
        KeyProblem: an option that the item does not have, or a key that does not agree with the rule or the stem.
    """
    if key.no_solution:
        return ()
    options = (rule.options if rule else ()) or key.options
    if any(not 1 <= int(option) <= num_choices for option in {*options, *key.options}):
        raise KeyProblem(f"an answer outside its {num_choices} options")
    if not set(options) >= set(key.options):
        raise KeyProblem("the key has options that the any-of rule does not have")
    count = rule.count if rule else len(options)
    if count != n_select or len(options) < count:
        raise KeyProblem(f"the stem asks for {n_select} options and the key accepts {count} of {len(options)}")
    return tuple(combinations(options, n_select))


def _read_any_of(text: str) -> AnyOf | None:
    match = _ANY_OF.search(text)
    if match is None:
        return None
    _refuse_denied(text[match.start() :])
    listed = _LIST.findall(text[: match.start()])
    options = _sorted(set(re.findall(r"\d+", listed[-1]))) if listed else ()
    return AnyOf(_number(match[1]) if match[1] else 1, options)


def _refuse_denied(text: str) -> None:
    if _DENIED.search(text):
        raise KeyProblem("the key or note names options that it does not accept")


def _plain(text: str) -> str:
    """Full-width digits and brackets as the ASCII ones."""
    return unicodedata.normalize("NFKC", text)


def _number(digit: str) -> int:
    return _COUNT.get(digit) or int(digit)


def _sorted(options: set[str]) -> tuple[str, ...]:
    return tuple(sorted({str(int(option)) for option in options}, key=int))
