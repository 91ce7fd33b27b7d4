"""The study file's text: the content with comments that say what to check and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import yaml

from tasks.data.drafting.inputs import LeftOut
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.settle import SettledInputs
from tasks.study.sections import MAX_MISSING

DRAFTED = "drafted from the data: replace by a protocol or textbook value, or it spends privacy outside the ledger"
#: Mappings that are written over several lines.
_NESTED = ("reading", "columns")
NO_DROPOUTS = (
    "Masks over four sites: three go on where the fourth is away from the start of a round, but a site that is lost\n"
    "after its keys costs the round, and the round its share of epsilon. `mechanism: local_dp` without the last two\n"
    "keys, with `channel: plain` and no score_bins, loses nothing with a site and has 1.7 times the noise."
)
_ORDER = "In order of how well each ranks patients alone, the best first."
_STRONG = "Where it says `# known before the outcome?`, it tells so much that somebody should ask whether it is."
_GAPS = (
    "Where it says `# gaps`, a site lacks it in many patients: they get the centre, and the input named there says\n"
    f"so. max_missing: the share of a site's patients that may lack it; else data.max_missing, {MAX_MISSING:g}."
)
_COMMENTS = {
    "data": "The tables lie in root/<site>/. The first lists each patient once. `pharmafed data pin` pins them.",
    "label": "A patient is positive if any of its rows in the table meets every condition.",
    "training": "One clipped full-batch gradient step a round: what the privacy below accounts for.",
    "privacy": "epsilon is the total over all rounds. public_num_examples: how many patients all sites train on; how\n"
    "many a site has is public here, who they are is not.",
    "rounds": "The budget pays for `total` rounds. A round needs the answers of min_sites before its deadline.",
    "evaluation": "A figure about fewer than min_cell held-out patients does not leave a site.",
}


def render_study(content: dict[str, Any], settled: SettledInputs) -> str:
    """The YAML text. It means the same as `content`."""
    parts = [_top(content)]
    for key in ("data", "sites", "label", "inputs", "model", "training", "privacy", "channel"):
        parts.append(_inputs(content["inputs"], settled) if key == "inputs" else _section(key, content[key]))
    parts += [_section(key, content[key]) for key in ("rounds", "evaluation")]
    return "\n".join(parts)


def _top(content: dict[str, Any]) -> str:
    return "".join(f"{key}: {_flow(content[key])}\n" for key in ("study", "title", "description", "owner"))


def _section(key: str, value: Any) -> str:
    comment = _comment(_COMMENTS[key]) if key in _COMMENTS else ""
    if key == "privacy" and value.get("tolerated_dropouts") == 0:
        comment += _comment(NO_DROPOUTS)
    if not isinstance(value, dict):
        return f"{comment}{key}: {_flow(value)}\n"
    lines = "".join(_pair(name, item) for name, item in value.items())
    return f"{comment}{key}:\n{lines}"


def _pair(name: str, item: Any, indent: str = "  ") -> str:
    head = f"{indent}{_flow(name)}:"
    if isinstance(item, list) and item and isinstance(item[0], dict):
        return f"{head}\n" + "".join(f"{indent}  - {_flow(each)}\n" for each in item)
    if name in _NESTED:
        return f"{head}\n" + "".join(_pair(key, value, f"{indent}  ") for key, value in item.items())
    return f"{head} {_flow(item)}\n"


def _inputs(inputs: list[dict[str, Any]], settled: SettledInputs) -> str:
    comment = _comment(_ORDER) if settled.inputs else ""
    comment += _comment(f"Where it says `# drafted`, centre and scale were\n{DRAFTED}.") if settled.drafted else ""
    comment += _comment(_STRONG) if settled.strong else ""
    comment += _comment(_GAPS) if settled.gaps else ""
    lines = "".join(f"  - {_flow(spec)}{_marks(spec['name'], settled)}\n" for spec in inputs)
    return f"{comment}inputs:\n{lines}{_left_out(settled.left_out)}"


def _marks(name: str, settled: SettledInputs) -> str:
    gap = settled.gaps.get(name)
    marks = ["drafted"] * (name in settled.drafted) + [f"gaps: {gap}"] * (gap is not None)
    marks += ["known before the outcome?"] * (name in settled.strong)
    return "".join(f"  # {mark}" for mark in marks)


def _left_out(columns: Iterable[LeftOut]) -> str:
    """What was left out, by reason."""
    reasons: dict[str, list[str]] = {}
    for each in columns:
        rows = f" ({each.where})" if each.where else ""
        reasons.setdefault(each.why, []).append(f"{each.table}.{each.column}{rows}")
    if not reasons:
        return ""
    lines = ["Left out:"]
    for why, names in reasons.items():
        lines.append(f"  {_printable(why)}")
        lines += [f"    {line}" for line in textwrap.wrap(_printable(", ".join(names)), 100, break_on_hyphens=False)]
    return _comment("\n".join(lines), indent="  ")


def _comment(text: str, indent: str = "") -> str:
    return "".join(f"{indent}# {line}\n" for line in text.split("\n"))


def _printable(text: str) -> str:
    """A category may hold what YAML takes for the end of a line, and so for the end of a comment."""
    return "".join(char if char.isprintable() else " " for char in text)


def _flow(value: Any) -> str:
    """One line of YAML; what would be read as something else is quoted."""
    text = yaml.dump(
        _plain(value), Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    """Tuples as lists, and whole numbers without a point."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return plain(value) if isinstance(value, float) else value


class _Dumper(yaml.SafeDumper):
    """Writes 0.00001 rather than 1.0e-05."""


def _decimal(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", format(Decimal(repr(value)), "f"))


_Dumper.add_representer(float, _decimal)
