"""Which modules a study's `model.path` may import here. To import a module is to run it, so this is asked before.

A study comes from whoever proposes it; what runs on a site's machine is the site's own word. Allowed are `tasks`,
`torch`, the modules that lie in the project's folder, and the packages that the site names in PHARMAFED_MODEL_PACKAGES.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from tasks.errors import ConfigError
from tasks.store import settings

#: Top-level packages by name, separated by commas.
VARIABLE = "PHARMAFED_MODEL_PACKAGES"
_ALWAYS = frozenset({"tasks", "torch"})
#: Where installed packages lie: often inside the project's folder, which does not make them the project's.
_INSTALLED = {Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith("lib")}


def allowed_packages() -> frozenset[str]:
    """Top-level packages that may be imported wherever they lie.

    Raises:
        ConfigError: PHARMAFED_MODEL_PACKAGES holds something that is no package's name.
    """
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in named:
        if not name.isidentifier():
            raise ConfigError(f"{VARIABLE}: {name!r} is no top-level package: give names such as hospital_models")
    return _ALWAYS | frozenset(named)


def require_allowed(module: str) -> None:
    """Return where this site allows `module`; neither it nor a package above it is imported to find out.

    Raises:
        ConfigError: it does not, or there is no such module.
    """
    top = module.split(".")[0]
    if top in allowed_packages() or all(_are_ours(places) for places in _origins(module)):
        return
    raise ConfigError(
        f"model.path names module {module!r}, which this site does not allow: it is neither in the project's folder "
        f"nor in {', '.join(sorted(allowed_packages()))}; the site may add a package to {VARIABLE}"
    )


def _origins(module: str) -> Iterator[list[str]]:
    """For each package on the way and for the module itself its file, or the folders of a package without a file.

    Nothing is imported to find out. What is built in has none.
    """
    names, folders = module.split("."), None
    for depth in range(1, len(names) + 1):
        name = ".".join(names[:depth])
        spec = _find(name, folders)
        if spec is None:
            raise ConfigError(f"model.path: no module {name!r}")
        if spec.has_location and spec.origin:
            yield [spec.origin]
            folders = list(spec.submodule_search_locations or ())
        else:
            folders = _namespace(spec, names[depth - 1], folders)
            yield folders


def _namespace(spec: ModuleSpec, tail: str, folders: list[str] | None) -> list[str]:
    """The folders of a package without a file. Below the top its spec tells them only once its parent is imported."""
    if folders is None:
        return list(spec.submodule_search_locations or ())
    return [place for folder in folders if os.path.isdir(place := os.path.join(folder, tail))]


def _find(name: str, folders: list[str] | None) -> ModuleSpec | None:
    """The spec of what is loaded already, as an import would take it, or of what would be."""
    if name in sys.modules:
        spec: ModuleSpec | None = getattr(sys.modules[name], "__spec__", None)
        return spec
    if folders is None:
        return find_spec(name)
    try:
        return PathFinder.find_spec(name, folders)
    except KeyError:  # a package without a file looks for its parent among what is imported
        return ModuleSpec(name, None)


def _are_ours(places: list[str]) -> bool:
    return bool(places) and all(_in_project(Path(place).resolve()) for place in places)


def _in_project(place: Path) -> bool:
    """In the project's folder, and neither its data nor installed there."""
    project = settings.project_dir()
    installed = {"site-packages", "dist-packages"} & set(place.parts) or any(map(place.is_relative_to, _INSTALLED))
    return place.is_relative_to(project) and not place.is_relative_to(project / "data") and not installed
