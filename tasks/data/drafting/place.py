"""Writes a draft into the project: all of it or, if a file there says something else, none."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from tasks.data.drafting.content import own_root
from tasks.data.drafting.draft import Draft
from tasks.errors import ConfigError
from tasks.study.file import load_study


def refuse_taken(root: Path, name: str, project: Path) -> None:
    """Before the tables are read: is the study's name free, or a draft of these very files?

    Raises:
        ConfigError: a study of this name has tables elsewhere, or its folder holds other files.
    """
    own, study_file = project / own_root(name), project / "studies" / f"{name}.yaml"
    if study_file.exists() and load_study(study_file).data.root != own_root(name):
        raise ConfigError(f"{study_file} is another study: give another --name")
    placed = [path for path in own.rglob("*.csv") if path.is_file()] if own.is_dir() else []
    _refuse_differing(
        [p.relative_to(project).as_posix() for p in placed if _is_other_file(p, root / p.relative_to(own))]
    )


def place(draft: Draft, project: Path) -> list[str]:
    """Write what is not there yet; returns the paths written, relative to the project.

    Run again after an interruption it writes the rest: what is there already, byte for byte, is left alone.

    Raises:
        ConfigError: a file there differs; it is named, and nothing is written.
    """
    differing = [path for path, text in draft.texts.items() if _differs(project / path, text)]
    differing += [path for path, source in draft.copies.items() if _is_other_file(project / path, source)]
    _refuse_differing(differing)
    copied = [path for path, source in draft.copies.items() if _copy(source, project / path)]
    return copied + [path for path, text in draft.texts.items() if _write(project / path, text)]


def _refuse_differing(differing: list[str]) -> None:
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ConfigError(
            f"already there with other content: {', '.join(differing[:5])}{more}; nothing was written: "
            "give another --name, or move those files away"
        )


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() != text.encode()


def _is_other_file(path: Path, source: Path) -> bool:
    return path.exists() and not (source.exists() and filecmp.cmp(path, source, shallow=False))


def _copy(source: Path, path: Path) -> bool:
    if path.exists():
        return False
    scratch = _scratch(path)
    shutil.copyfile(source, scratch)
    scratch.replace(path)
    return True


def _write(path: Path, text: str) -> bool:
    if path.exists():
        return False
    scratch = _scratch(path)
    scratch.write_bytes(text.encode())
    scratch.replace(path)
    return True


def _scratch(path: Path) -> Path:
    """Beside the file, with an end that neither suites, studies nor DVC read (`.dvcignore`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.swp")
