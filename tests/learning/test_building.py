"""`model.path` names code of whoever wrote the study: what this site does not allow is not even imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from tasks.errors import ConfigError
from tasks.learning.building import build_model
from tasks.study.sections import Model

HOSPITAL = "class Net(__import__('torch').nn.Linear):\n    def __init__(self, n, **o): super().__init__(n, 1)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's folder on the path, beside a folder of installed packages; each module leaves a mark when it runs."""
    installed = tmp_path / "project/.venv/lib/python3.11/site-packages"
    for folder in (installed, tmp_path / "elsewhere", tmp_path / "project/own/nets", tmp_path / "project/data"):
        folder.mkdir(parents=True)
    root = tmp_path / "project"
    files = [
        root / "own/nets/good.py",
        root / "data/brought.py",
        installed / "bought.py",
        tmp_path / "elsewhere/stray.py",
    ]
    for path in files:
        path.write_text(f"open({str(tmp_path / path.stem)!r}, 'w').close()\n{HOSPITAL}")
    (root / "linked.py").symlink_to(tmp_path / "elsewhere/stray.py")
    for folder in (root, root / "data", installed, tmp_path / "elsewhere"):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PHARMAFED_PROJECT", str(root))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_model_of_the_project_is_built_and_its_module_run(project: Path) -> None:
    """The control for all that follows: the mark shows that a module has run."""
    assert isinstance(build_model("own.nets.good:Net", 3, {}, seed=0), nn.Linear)
    assert (project / "good").exists()


@pytest.mark.parametrize("module", ["bought", "stray", "linked", "brought"])
def test_a_module_that_the_site_does_not_allow_is_not_run(
    module: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = project / ("stray" if module == "linked" else module)
    with pytest.raises(ConfigError, match=f"module '{module}', which this site does not allow.*PHARMAFED_MODEL_PACK"):
        build_model(f"{module}:Net", 3, {}, seed=0)
    assert not mark.exists()
    assert module not in sys.modules
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", f"other, {module}")
    build_model(f"{module}:Net", 3, {}, seed=0)
    assert mark.exists(), "the site's own word lets it run"


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("os:system", {}),
        ("os:popen", {}),
        ("subprocess:run", {"shell": True}),
        ("subprocess:Popen", {"args": "id"}),
        ("builtins:exec", {}),
        ("shutil:rmtree", {}),
        ("posix:system", {}),
        ("antigravity:fly", {}),
        ("yaml:unsafe_load", {}),
        ("__main__:exec", {}),
        ("own.nets:Net", {}),
    ],
)
def test_what_harms_is_neither_imported_nor_called(path: str, options: dict[str, object], project: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path"):
        build_model(path, 3, options, seed=0)
    assert "antigravity" not in sys.modules


CALLED: list[object] = []


def harm(*arguments: object, **options: object) -> None:
    CALLED.append(arguments)


class NoModel:
    def __init__(self, *arguments: object, **options: object) -> None:
        CALLED.append(arguments)


@pytest.mark.parametrize("name", ["harm", "NoModel", "CALLED", "nn"])
def test_what_is_no_class_of_models_is_not_called_in_an_allowed_package(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", __name__.split(".")[0])
    with pytest.raises(ConfigError, match=r"is no torch\.nn\.Module"):
        build_model(f"{__name__}:{name}", 3, {}, seed=0)
    assert CALLED == []
    harm()
    assert CALLED.pop() == ()


@pytest.mark.parametrize("path", ["torch.hub:load", "torch:load", "torch.nn:init", "torch.optim:SGD", "tasks.cli:main"])
def test_torch_and_tasks_give_models_only(path: str) -> None:
    with pytest.raises(ConfigError, match=r"is no torch\.nn\.Module"):
        build_model(path, 3, {}, seed=0)


def test_a_class_of_torch_is_built() -> None:
    assert isinstance(build_model("torch.nn:Linear", 3, {"out_features": 1}, seed=0), nn.Linear)


@pytest.mark.parametrize("options", [{"hidden": 10**13}, {"hidden": -1}, {"hidden": "x"}, {"wrong": 1}])
def test_options_that_cannot_be_are_told(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"model\.path 'tasks\.models:MLP' with options"):
        build_model("tasks.models:MLP", 3, options, seed=0)


@pytest.mark.parametrize("named", ["a.b", "a b", "/etc", "a;b"])
def test_a_policy_that_names_no_package_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", named)
    with pytest.raises(ConfigError, match=r"PHARMAFED_MODEL_PACKAGES: .* is no top-level package"):
        build_model("tasks.models:MLP", 3, {}, seed=0)


@pytest.mark.parametrize("path", ["os:system.x", "os", ":system", "a..b:C", ".a:C", "a:C:D", "a b:C", "a/b:C", "1a:C"])
def test_a_path_is_one_module_and_one_name(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Model(path=path)


@pytest.mark.parametrize("value", [b"x", {1}, float("nan"), float("inf"), {1: 2}, [[[[[[[1]]]]]]], ("a",)], ids=repr)
def test_options_are_plain_values(value: object) -> None:
    with pytest.raises(ValueError, match="odd must be a finite number, a text"):
        Model(path="tasks.models:MLP", options={"odd": value})
    plain = {"a": 1, "b": [1.5, "x", True, None, {"c": [2]}]}
    assert Model(path="tasks.models:MLP", options=plain).options == plain
