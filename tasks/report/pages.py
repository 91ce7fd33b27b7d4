"""HTML from the templates in this folder. Everything that is shown is escaped; nothing here draws."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.report import words

if TYPE_CHECKING:
    pass

TEMPLATES = Path(__file__).with_name("templates")


@cache
def _environment() -> Environment:
    """Autoescape on; a name that the caller forgot is an error, not an empty string."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    shown = (words.number, words.duration, words.size, words.moment, words.step, words.spend)
    made.filters.update({function.__name__: function for function in shown})
    return made


def render(template: str, **values: Any) -> bytes:
    """One page, as UTF-8."""
    return _environment().get_template(template).render(**values).encode()


def notice_page(title: str, text: str, *, refresh_seconds: int | None = None) -> bytes:
    """A page with one message; it reloads itself where the message will change by itself."""
    return render("notice.html", title=title, text=text, refresh_seconds=refresh_seconds)
