"""What of a reply is meant for the reader: without the model's own reasoning, in whatever form it marks it."""

from __future__ import annotations

import re

#: Tags of reasoning: of most models, of Mistral, of Kimi, of OpenThinker and Command, of MedGemma, and of Open WebUI.
_NAMES = r"[\w:-]{0,20}(?:think|thought|reason|reflect|scratch|rationale|monologue|analys|思考|推論|考察)[\w:-]{0,20}"
_LEFT, _RIGHT = r"(?:<\|?|&lt;)", r"(?:\|?>|&gt;)"
_OPEN = re.compile(
    rf"{_LEFT}(?:{_NAMES})(?: [^<>\n]{{0,80}})?{_RIGHT}|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING)\|>"
    r"|<unused94>|<details [^<>\n]{0,80}reasoning[^<>\n]{0,80}>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"{_LEFT}/(?:{_NAMES}){_RIGHT}|[\[【]/(?:{_NAMES})[\]】]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>|<unused95>",
    re.IGNORECASE,
)
_CLOSE_DETAILS = re.compile(rf"{_CLOSE.pattern}|</details>", re.IGNORECASE)
#: OpenAI's Harmony: channels, of which only `final` is for the reader; or what is left of them without its tokens.
_CHANNEL = re.compile(r"<\|channel\|>|\Aanalysis(?=[A-Z\d\u3041-\u9fff])")
_FINAL = re.compile(r"<\|channel\|>final(?:[^<\n]|<\|constrain\|>){0,40}<\|message\|>|assistant ?final")
#: What a model writes after the end of its turn is not its answer.
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end|return|end_of_text)\|>|<end_of_turn>|<eos>|</s>|\[INST\]"
    r"|<｜end▁of▁sentence｜>"
)
#: A reply between the marks of a sequence, which elsewhere strike out; and the prompt that it repeats.
_SEQUENCE = re.compile(r"\s*<s>(?=(?:(?!</?s>).)*(?:</s>\s*(?:<s>|\Z)|\Z))", re.DOTALL)
_PROMPT = re.compile(r"\s*(?:<s>\s*)?\[INST\](?:(?!\[/?INST\]).)*\[/INST\]", re.DOTALL)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(s|del|strike)>[^<\n]{1,200}</\1>", re.IGNORECASE)


def strip_reasoning(raw: str) -> str:
    """What follows the model's own reasoning; what stands before it where nothing follows. Without what is struck out.

    Nothing where the reasoning never ends: the model had not come to its answer.
    """
    if prompt := _PROMPT.match(raw):
        raw = raw[prompt.end() :]
    elif sequence := _SEQUENCE.match(raw):
        raw = _END_OF_TURN.split(raw[sequence.end() :], maxsplit=1)[0]
    text = _STRUCK.sub("", raw)
    if _CHANNEL.search(text):
        text = _after_last(_FINAL, text) or ""
    close = _CLOSE_DETAILS if (first := _OPEN.search(text)) and first[0].startswith("<details") else _CLOSE
    rest = _after_last(close, text)
    if rest is None:
        rest = text
    elif not rest.strip() and first:
        rest = text[: first.start()]
    return "" if _OPEN.search(rest) else _END_OF_TURN.split(rest, maxsplit=1)[0]


def _after_last(mark: re.Pattern[str], text: str) -> str | None:
    ends = [found.end() for found in mark.finditer(text)]
    return text[ends[-1] :] if ends else None
