"""A waiver that does not say who, what, why and until when is no waiver."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from tasks.data.checks.parameters import input_references
from tasks.data.checks.runner import known_expectations
from tasks.data.checks.waivers import find_waiver, load_waivers
from tasks.errors import ConfigError
from tasks.study.file import load_studies

KNOWN = {"adsl/AGE/expect_column_values_to_be_between", "mh/expect_compound_columns_to_be_unique"}
GOOD = """\
# a comment
- site: "703"
  expectation: adsl/AGE/expect_column_values_to_be_between
  who: site 703 data manager
  why: The protocol amendment allows it.
  granted: 2026-01-15
  until: 2027-12-31
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "waivers.yaml"
    path.write_text(text)
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (waiver,) = load_waivers(write(tmp_path, GOOD), KNOWN)
    assert (waiver.site, waiver.until) == ("703", date(2027, 12, 31))
    assert find_waiver([waiver], waiver.expectation) is waiver
    assert find_waiver([waiver], "adsl/other") is None


@pytest.mark.parametrize("text", ["", "[]\n", "# nothing\n"])
def test_no_waivers(text: str, tmp_path: Path) -> None:
    assert load_waivers(write(tmp_path, text), KNOWN) == ()
    assert load_waivers(tmp_path / "none.yaml", KNOWN) == ()


REFUSED = {
    "unknown key": (GOOD + "  forever: true\n", "waivers.yaml:2: unknown key forever; allowed: site"),
    "no until": (GOOD.replace("  until: 2027-12-31\n", ""), "waivers.yaml:2: until: Field required"),
    "no date": (GOOD.replace("2027-12-31", "never"), "waivers.yaml:2: until:"),
    "ends first": (GOOD.replace("2027-12-31", "2020-01-01"), "until lies before granted"),
    "no reason": (GOOD.replace("The protocol amendment allows it.", "ok"), "waivers.yaml:2: why:"),
    "number for a site": (GOOD.replace('"703"', "703"), "waivers.yaml:2: site:"),
    "unknown expectation": (
        GOOD.replace("AGE", "AGEE"),
        r"waivers.yaml:2: no expectation adsl/AGEE/.*; did you mean adsl/AGE/",
    ),
    "nothing like it": (re.sub("adsl/.*", "zz/z", GOOD), r"no expectation zz/z; see the suites in"),
    "second entry": (GOOD + "- site: x\n", "waivers.yaml:8:"),
    "twice": (GOOD + GOOD, "two waivers for adsl/AGE/.* at site 703"),
    "no list": ("site: x\n", "waivers are a list"),
    "no YAML": ("- [\n", "waivers.yaml:.*not readable as YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_file_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason):
        load_waivers(write(tmp_path, text), KNOWN)


def test_the_projects_own_waivers_name_real_expectations_and_sites(suites_dir: Path) -> None:
    studies = load_studies(suites_dir.parent / "studies").values()
    known = frozenset().union(*(known_expectations(suites_dir, input_references(study)) for study in studies))
    waivers = load_waivers(suites_dir / "waivers.yaml", known)
    assert {waiver.site for waiver in waivers} <= {site for study in studies for site in study.sites}
    assert {waiver.site for waiver in waivers} == {"703"}
    assert len(waivers) == 4
