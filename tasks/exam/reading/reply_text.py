"""A reply's text without what only decorates it: width and markup."""

from __future__ import annotations

import html
import re
import unicodedata

#: Circled and bracketed numbers: NFKC would join ②⑤ to 25, so each becomes a word of its own first.
_ENCLOSED = str.maketrans(
    {chr(start + n): f" {n + 1} " for start in (0x2460, 0x2474, 0x2776, 0x2780, 0x278A, 0x24F5) for n in range(10)}
    | {chr(start + n): f" {chr(65 + n)} " for start in (0x24B6, 0x1F150, 0x1F170) for n in range(26)}
    | {chr(0x249C + n): f" {chr(97 + n)} " for n in range(26)}
    | {chr(0x24D0 + n): f" {chr(97 + n)} " for n in range(26)}
    | {"\ufe0f": None, "\u20e3": None}
)
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|td|h[1-6]|pre)\b[^<>]{0,200}>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
#: `\boxed{3}` and `<answer>3</answer>` say "Answer: 3" on a line of its own.
_BOXED = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{")
_ANSWER_TAG = re.compile(r"<(/?)(?:final[_ -]?)?answer>", re.IGNORECASE)
_TOKEN = re.compile(r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>")
_TEX_FONT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm|quad)\b")
#: Quotes and brackets become blanks, marks of emphasis vanish; round brackets and apostrophes carry meaning and stay.
_DECORATION = str.maketrans(dict.fromkeys('"“”「」『』【】[]{}〈〉《》', " ") | dict.fromkeys("*`_$#\\", ""))
#: "2[1][3]": sources behind an answer that stands in no brackets itself.
_CITED = re.compile(
    r"(?<=[\d\uff10-\uff19番])(?:[ \u3000]?\[\d{1,3}(?:[,-] ?\d{1,3})*\])+|(?<=\b[A-J])(?:[ \u3000]?\[\d{1,3}\])+"
)
_BULLET = re.compile(r"^ ?(?:[-•>■◆●▪▶★☆] ?)+(?=\S)", re.MULTILINE)
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n\s*")


def unwrap(text: str) -> str:
    """Without code fences, tags and HTML escapes; JSON stays JSON."""
    text = _ANSWER_TAG.sub(lambda tag: "\n" if tag[1] else "\nAnswer: ", _TOKEN.sub("\n", _FENCE.sub("", text)))
    return html.unescape(_TAG.sub("", _BLOCK_TAG.sub("\n", text))).strip()


def normalise(text: str) -> str:
    """One width, single blanks, no emphasis, no empty lines. `\\boxed{3}` becomes a line `Answer: 3`."""
    text = unicodedata.normalize("NFKC", _CITED.sub("", text).translate(_ENCLOSED))
    text = _TEX_FONT.sub("", _BOXED.sub("\nAnswer: ", text))
    text = _BLANKS.sub(" ", text.translate(_DECORATION))
    return _BULLET.sub("", _LINES.sub("\n", text)).strip()


def without_numbering(text: str, count: int) -> str:
    """Lines that number `count` answers from 1 on, as the answers alone: "(1) 2" and "(2) 5" as "2" and "5"."""
    if count < 2:
        return text
    lines = [
        rf"\(?{k}(?:[つ番]目)?(?:[).:]{{1,2}} ?| )\(?(\d{{1,2}}|[A-J])\)?[番ですだ。. ]{{0,4}}"
        for k in range(1, count + 1)
    ]
    run = r"\n".join(lines)
    numbered = re.compile(rf"^((?:[^\n:\d]{{1,20}}: ?)?){run}(?=\n|\Z)(?!\n\(?{count + 1}[).: ])", re.MULTILINE)
    return numbered.sub(lambda found: found[1] + ", ".join(found.groups()[1:]), text)
