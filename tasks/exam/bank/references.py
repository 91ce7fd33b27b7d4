"""What a stem refers to and does not hold itself: an earlier question, its patient, or a picture.

Read from Japanese wording by a few rules, each of which errs on the side of naming an item: an import tells a person
what it could not place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

#: Items that share a patient; four have been seen.
_LONGEST_CASE = 6
_NOUN = r"[一-龥々ァ-ヶーA-Za-z0-9α-ωΑ-Ω]+"
#: この患者, 当該医薬品, 上記処方せん, 本症例; "日本薬局方" and "基本薬" have no demonstrative in them.
_DEMONSTRATIVE = re.compile(
    rf"(?:この|当該|(?:上記|前述|前記|上述|先述)の?)(?P<noun>(?!図|表|中|時|際|他|度){_NOUN})"
    r"|(?<![一-龥])[本同](?P<short>症例|患者|剤|処方|例|疾患|化学療法|男性|女性)"
)
_BEFORE = re.compile(r"(?<![以事目術])(?:前問(?!題)|(?:前|先)の(?:問題(?!点)|設問|問(?=[のでにとを、])))")
_NUMBERED = re.compile(r"(?<![質訪学疑])問\s*(\d{1,3})(?=\s*(?:[のでにと、,~〜–-]|から|及び|において))")
_RANGE = re.compile(r"問\s*(\d{1,3})\s*(?:から|[~〜–-])\s*(?:問\s*)?(\d{1,3})")
#: Where the question of this item begins after a text that it shares with the next one.
_OWN_NUMBER = re.compile(r"問\s*\d{1,3}\s*[（(][^）)]{1,20}[）)]")
_PERSON = re.compile(r"\d\s*(?:歳|[かヶケヵ]月|週)|患者|患児|男性|女性|男児|女児|妊婦|小児|乳児|高齢者|症例|[男女]の子")
_PEOPLE = re.compile(r"(?:患者|患児|男性|女性|男児|女児|妊婦|小児|乳児|症例|例|家族)\w*|男性|女性")
#: What a patient has: the case's text need not name it in so many words.
_OF_A_PATIENT = re.compile(r"疾患|病態|症状|治療|療法|処方|状態|状況|副作用|検査")

_PICTURE = re.compile(
    r"(?<![心電脳波意企指地構縮版系合略])図(?:は|に|の|を|で|が|と|、|中|から|[0-9])|[下右左上]図|模式図"
    r"|(?:[次右左]の|以下の|下の|この)(?:図|グラフ|写真|チャート|スペクトル|構造式|表(?![現記示面題]))"
    r"|(?:グラフ|チャート)は|(?<![代発公別年裏地])表(?:は|[0-9])|下表|構造式(?:は|を)(?:以下|次)"
)
#: A list that the stem announces: it is in the picture where nothing of it follows.
_ANNOUNCED = re.compile(
    r"(?:(?:以下|次|下記)の(?:内容の)?(?:処方|投与量|化学療法|レジメン|反応式?)"
    r"|(?:以下|下記)の(?:薬剤|成分)(?!のうち|の中))(?P<then>.{0,60})",
    re.DOTALL,
)
_LISTED = re.compile(
    r"[（(【〔]?処方\s*[0-9]?\s*[）)】〕:]|[0-9]\s*(?:mg|g|mL|錠|カプセル|包)(?:[/／ 　]|を?[1１]?日|×)|→"
)
_NUMBERED_PRESCRIPTION = re.compile(r"処方\s*[0-9]")


@dataclass(frozen=True)
class Reference:
    """To a `noun` of an earlier question, or to questions by number, whose options are needed too."""

    noun: str | None = None
    questions: frozenset[int] = frozenset()


def refers_back(stem: str, number: int) -> Reference | None:
    """The first reference of item `number` that its stem cannot resolve in itself, or None."""
    text = as_ascii(stem)
    questions = {int(found) for found in _NUMBERED.findall(text)} & {*range(number - _LONGEST_CASE, number)}
    questions |= {number - 1} if _BEFORE.search(text) else set()
    if questions:
        return Reference(questions=frozenset(questions))
    for match in _DEMONSTRATIVE.finditer(text):
        noun = match["noun"] or match["short"]
        if not _told(noun, text[: match.start()]):
            return Reference(noun)
    return None


def announced_case(stem: str, number: int) -> int:
    """The last item of the case that its first item announces (問204〜207); `number` if it announces none."""
    ranges = [(int(first), int(last)) for first, last in _RANGE.findall(as_ascii(stem))]
    return max([number, *(last for first, last in ranges if first == number and last - first < _LONGEST_CASE)])


def resolves(reference: Reference, told: str) -> bool:
    """Whether the text of the questions before tells what the reference is to."""
    text = as_ascii(told)
    if reference.noun is None or reference.noun in text:
        return bool(text)
    return bool((_PEOPLE.match(reference.noun) or _OF_A_PATIENT.search(reference.noun)) and _PERSON.search(text))


def shows_a_picture(stem: str, choices: Sequence[str] = ()) -> bool:
    """Whether the item speaks of a picture, or its stem announces a list that it does not hold."""
    text = as_ascii(stem)
    if any(_PICTURE.search(one) for one in (text, *map(as_ascii, choices))):
        return True
    if any(not _LISTED.search(match["then"]) for match in _ANNOUNCED.finditer(text)):
        return True
    return bool(_NUMBERED_PRESCRIPTION.search(text)) and not _LISTED.search(text)


def as_ascii(text: str) -> str:
    """Full-width letters and digits as the ASCII ones, on one line."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _told(noun: str, before: str) -> bool:
    """Whether the text before a demonstrative tells what it is to: by name, as a patient, or in a whole sentence."""
    if _PEOPLE.match(noun):
        return bool(_PERSON.search(before))
    return noun in before or "。" in _OWN_NUMBER.sub("", before) or _names_a_part(noun, before)


def _names_a_part(noun: str, before: str) -> bool:
    """この薬物 after ある弱酸性薬物; この緩衝液 after リン酸緩衝液: the last two letters are the thing."""
    return len(noun) >= 2 and noun[-2:] in before
