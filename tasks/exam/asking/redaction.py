"""What a provider or a library says, without keys: a server may echo the key that it was sent, whole or in part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_NAMES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
#: A shorter value is no key, and would hide every word that it is part of.
_SHORTEST = 4
#: Servers show a long key by its ends: `sk-pro****cdef`.
_LONG, _HEAD, _TAIL = 12, 5, 4
_MASK = r"[\w*.•…-]"
#: Up to the last @ of a word: a password may hold @ and / itself.
_USER = re.compile(r"(?<=://)[^\s'\"]+@")
_QUERY = re.compile(r"(?i)(?<=[?&])([\w.-]*(?:key|token|secret|password|signature|sig|auth))=[^&\s'\"#]+")
_MASKED = re.compile(r"[\w-]*(?:\*{3,}|•{3,})[\w*•-]*")


def redact(text: str) -> str:
    """`text` without the keys of the environment, ends of them beside a mask, users and keys in addresses."""
    for name, value in _secrets():
        text = text.replace(value, f"<{name}>")
        if len(value) >= _LONG:
            text = re.sub(rf"{re.escape(value[:_HEAD])}{_MASK}*", f"<{name}>", text)
            text = re.sub(rf"{_MASK}*[*.•…]{{2,}}{re.escape(value[-_TAIL:])}", f"<{name}>", text)
    return _MASKED.sub("<masked>", _QUERY.sub(r"\1=<masked>", _USER.sub("<user>@", text)))


def server_words(error: BaseException) -> str | None:
    """The server's own words, where the provider's library keeps its reply: `str(error)` may begin with the request."""
    for one in (error, error.__cause__, error.__context__):
        body = getattr(one, "body", None)
        inner = body.get("error", body) if isinstance(body, dict) else None
        said = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(said, str) and said.strip():
            return said
    return None


def holds_a_key(text: str) -> bool:
    """Whether a key of the environment stands in `text`, whole."""
    return any(value in text for _, value in _secrets())


def _secrets() -> Iterator[tuple[str, str]]:
    """Longest first: one key may be the beginning of another."""
    found = [(name, value) for name, value in os.environ.items() if name.endswith(_NAMES) and len(value) >= _SHORTEST]
    yield from sorted(found, key=lambda one: len(one[1]), reverse=True)
