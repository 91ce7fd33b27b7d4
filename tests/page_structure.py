"""What a hostile text could change on a page: its structure. Harmless texts give the same one, or a text got out.

`HOSTILE` and `HARMLESS` are of one length, and go to the same places of the same record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from html.parser import HTMLParser
from typing import Any, TypeVar

from pydantic import BaseModel

HOSTILE = (
    '"><script>document.title="pwned"</script>'
    "' onmouseover='document.title=1' x='"
    "</title></style></svg></pre></bdi><script>document.title=2</script>"
    '<img src=x onerror=document.title=3><svg/onload="document.title=4"><iframe srcdoc="&lt;b>">'
    '<base href="//evil.invalid/"><meta http-equiv="refresh" content="0;url=//evil.invalid">'
    "<object data=//evil.invalid><link rel=stylesheet href=//evil.invalid><form action=//evil.invalid>"
    "&#60;script&#62; javascript:document.title=5 ]]><!-- --!> {{ 7 * 7 }} {% raw %} $x^2$ `${1}` \\u003cscript\\u003e"
)
HARMLESS = re.sub(r"[^\w\s]", "x", HOSTILE)
_FORBIDDEN = frozenset({"script", "iframe", "object", "embed", "base", "form", "link", "applet", "frame"})
_ADDRESS = frozenset({"href", "src", "xlink:href", "action", "formaction", "data", "srcdoc", "poster", "background"})
_AWAY = re.compile(r"\s*(//|\\|[a-zA-Z][a-zA-Z0-9+.-]*:)")
_Record = TypeVar("_Record", bound=BaseModel)


class Structure(HTMLParser):
    """Elements with their attributes, styles, and all text of a page."""

    def __init__(self, page: bytes | str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.styles: list[str | None] = []
        self.addresses: list[str] = []
        self.refreshes = 0
        self.text = ""
        self.feed(page.decode() if isinstance(page, bytes) else page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.styles += [value for name, value in attrs if name == "style"]
        self.addresses += [value or "" for name, value in attrs if name in _ADDRESS]
        self.refreshes += tag == "meta" and "http-equiv" in dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("<!--", ()))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def dangers(self) -> list[str]:
        """What can run or load something."""
        found = [tag for tag, _ in self.elements if tag in _FORBIDDEN]
        found += [name for _, names in self.elements for name in names if name.startswith("on")]
        return found + [
            url for url in self.addresses if _AWAY.match(url) and not url.startswith("data:image/png;base64,")
        ]


def with_texts(record: _Record, text: str, keep: Collection[str] = ()) -> _Record:
    """The record with `text` in every field of text, in keys of mappings too, but for those fields named in `keep`."""
    changed = {
        name: _changed(getattr(record, name), text, keep) for name in type(record).model_fields if name not in keep
    }
    return record.model_copy(update=changed)


def _changed(value: Any, text: str, keep: Collection[str]) -> Any:
    if isinstance(value, BaseModel):
        return with_texts(value, text, keep)
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(_changed(one, text, keep) for one in value)
    if isinstance(value, dict):
        return {text if isinstance(key, str) else key: _changed(one, text, keep) for key, one in value.items()}
    return value


def require_same_structure(build: Callable[[str], bytes], *, places: int) -> bytes:
    """The page that `build` makes of a text has the same structure for both; the hostile one is given back.

    The hostile text must stand on the page `places` times, as text: else nothing has been tested.
    """
    page = build(HOSTILE)
    hostile, harmless = Structure(page), Structure(build(HARMLESS))
    assert hostile.elements == harmless.elements
    assert hostile.styles == harmless.styles
    assert len(hostile.addresses) == len(harmless.addresses)
    assert hostile.refreshes == harmless.refreshes
    assert hostile.dangers == []
    assert hostile.text.count(HOSTILE) == harmless.text.count(HARMLESS) >= places
    return page
