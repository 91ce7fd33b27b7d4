"""A table's expectation suite, drafted from its profile, in the form that the project's suites have."""

from __future__ import annotations

import json
from typing import Any

from tasks.data.drafting.columns import Column, Profile
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.subjects import MIN_CELL, Subjects

_ROUND = (
    f"Drafted: a round figure about all but the {MIN_CELL - 1} most extreme patients on each side, so that no single "
    "one is told. The protocol knows better."
)
_OPEN = f"Drafted without a bound {{side}}: fewer than {MIN_CELL} patients lie so far out. {_ROUND}"
_SUBJECTS = {"$PARAMETER": "subjects"}
_COLUMNS = {"column_set": {"$PARAMETER": "columns"}, "exact_match": True}
SuiteLine = dict[str, Any]


def render_suite(profile: Profile, subjects: Subjects) -> str:
    """The JSON text: one expectation a line, to be read and edited."""
    columns = ",\n".join(f"      {_json(name)}: {_json(c.type)}" for name, c in profile.columns.items())
    lines = ",\n".join(f"    {_json(line)}" for line in _expectations(profile, subjects))
    return (
        f'{{\n  "name": {_json(profile.name)},\n  "meta": {{\n'
        f'    "description": {_json(_description(profile, subjects))},\n'
        f'    "columns": {{\n{columns}\n    }},\n    "key": {_json(list(profile.key))}\n  }},\n'
        f'  "expectations": [\n{lines}\n  ]\n}}\n'
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _description(profile: Profile, subjects: Subjects) -> str:
    if profile.key == (subjects.column,):
        return "Drafted by `pharmafed study init`: one row per patient."
    return "Drafted by `pharmafed study init`: any number of rows per patient."


def _expectations(profile: Profile, subjects: Subjects) -> list[SuiteLine]:
    lines = [
        _line("table_columns_to_match_set", "No column more (a leak) and none fewer.", **_COLUMNS),
        _line("table_row_count_to_be_between", min_value=MIN_CELL if profile.name == subjects.main else 1),
        *_key(profile, subjects),
    ]
    for column in profile.columns.values():
        lines += _of_column(column)
        if column.name == subjects.column and profile.name != subjects.main:
            notes = f"Only patients whom {subjects.main} lists."
            lines.append(_line("column_values_to_be_in_set", notes, column=column.name, value_set=_SUBJECTS))
        if column.name == subjects.site_column and profile.has_site_codes:
            own = {"$PARAMETER": "site_ids"}
            notes = "Only this site's own patients."
            lines.append(_line("column_values_to_be_in_set", notes, column=column.name, value_set=own))
    return lines


def _key(profile: Profile, subjects: Subjects) -> list[SuiteLine]:
    if profile.key == (subjects.column,):
        return [_line("column_values_to_be_unique", "Each patient once.", column=subjects.column)]
    if profile.key:
        key = {"$PARAMETER": "key"}
        return [_line("compound_columns_to_be_unique", "Each record once.", column_list=key)]
    return []


def _of_column(column: Column) -> list[SuiteLine]:
    lines = [_line("column_values_to_not_be_null", column=column.name)] if column.required else []
    if column.is_flag:
        return [*lines, _line("column_values_to_be_in_set", column=column.name, value_set=[0, 1])]
    if column.categories:
        return [*lines, _categories(column)]
    if column.bounds != (None, None):
        return [*lines, _between(column)]
    return lines


def _between(column: Column) -> SuiteLine:
    """A side without a bound is left out, and the note says so."""
    sides = dict(zip(("min_value", "max_value"), column.bounds, strict=True))
    bounds: SuiteLine = {
        key: bound if isinstance(bound, str) else plain(bound) for key, bound in sides.items() if bound is not None
    }
    missing = {"min_value": "below", "max_value": "above"}
    notes = [_OPEN.format(side=side) for key, side in missing.items() if key not in bounds]
    return _line("column_values_to_be_between", *(notes or [_ROUND]), column=column.name, **bounds)


def _categories(column: Column) -> SuiteLine:
    kwargs: SuiteLine = {"column": column.name, "value_set": sorted(column.categories)}
    if not column.num_rare:
        return _line("column_values_to_be_in_set", **kwargs)
    notes = (
        f"rare values: {column.num_rare}, each of fewer than {MIN_CELL} patients, so not named here. "
        "Name what the protocol allows, then drop `mostly`."
    )
    return _line("column_values_to_be_in_set", notes, **kwargs, mostly=column.common_share)


def _line(expectation: str, notes: str = "", **kwargs: Any) -> SuiteLine:
    line: SuiteLine = {"type": f"expect_{expectation}", "kwargs": kwargs}
    return line | ({"meta": {"notes": notes}} if notes else {})
