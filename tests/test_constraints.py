"""Every pinned package can be had by every Python that the project says it runs on."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata

from packaging.specifiers import SpecifierSet

from tasks.store.settings import PROJECT

PINS = re.findall(r"^([\w.-]+)==", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_lower_bound_is_true() -> None:
    """Debian 12 has 3.11.2: a package of 3.11.5 and later would end `make demo` there in pip's conflicts."""
    wanted = SpecifierSet(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"])
    pythons = [f"3.{minor}.{patch}" for minor in range(20) for patch in range(10) if f"3.{minor}.{patch}" in wanted]
    assert pythons[0] == "3.11.0"
    looked, refused = 0, []
    for name in PINS:
        try:
            needs = metadata(name).get("Requires-Python")
        except PackageNotFoundError:  # one of another platform
            continue
        looked += 1
        refused += [f"{name} on {python}" for python in pythons if needs and python not in SpecifierSet(needs)]
    assert looked > 200
    assert refused == []
