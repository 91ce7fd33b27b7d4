"""Which bytes a site trains on and a model is examined with: DVC's digests, and what differs from them, by file.

`data.dvc` pins the whole folder with one digest: the md5 of DVC's listing of its files. A fresh clone has `data.dvc`
but not that listing, so `write_pin` keeps it under the file's free-form `meta:`, which DVC preserves, and `read_pin`
proves that it is the very listing that DVC's digest stands for. A site can so check its own folder without the others'.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from pathspec import PathSpec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import ConfigError, DataPinMismatch
from tasks.foreign.files import STRAYS, is_stray, listed, md5_of, ordinary_files, read_ordinary
from tasks.foreign.yaml_file import parse_yaml

SITES, STUDIES, EXAMS = "sites", "studies", "exams"
RESTORE = "restore the pinned bytes with `dvc pull`, `dvc checkout` or `pharmafed data prepare`"
REPIN = "if the change is wanted, pin it with `pharmafed data pin`"
Ignore = Callable[[str], bool]
#: The listing of a large consortium's files.
_MAX_PIN_BYTES = 64 << 20


class _Meta(BaseModel):
    model_config = ConfigDict(extra="allow")

    files: dict[str, str | int | float] | None = None  # a digest of digits alone reads as a number


class _Out(BaseModel):
    model_config = ConfigDict(extra="allow")

    md5: str


class _Document(BaseModel):
    """What must be in a `.dvc` file."""

    model_config = ConfigDict(extra="allow")

    outs: list[_Out] = Field(min_length=1)
    meta: _Meta | None = None


@dataclass(frozen=True)
class Pin:
    """What `data.dvc` pins: DVC's digest of the folder, and the md5 of each file by its path in it."""

    digest: str
    files: Mapping[str, str]

    def folder_files(self, folder: str) -> dict[str, str]:
        """Path in `folder`, such as sites/701, -> md5."""
        prefix = f"{folder}/"
        return {path.removeprefix(prefix): md5 for path, md5 in self.files.items() if path.startswith(prefix)}

    @property
    def folders(self) -> list[str]:
        """Each site's and each exam's folder: sites/701, studies/asthma/cork, exams/practice."""
        return sorted({_folder(PurePosixPath(path)) for path in self.files})

    @property
    def sites(self) -> list[str]:
        """The folders of sites, of studies too."""
        return [folder for folder in self.folders if not folder.startswith(f"{EXAMS}/")]


@dataclass(frozen=True, order=True)
class Difference:
    """One file that is not as pinned. `folder` is below data/: sites/701, exams/practice, or sites."""

    folder: str
    file: str
    kind: Literal["missing", "changed", "extra"]

    @property
    def pinned(self) -> bool:
        """Whether the file's name stands in the pin."""
        return self.kind != "extra"

    def __str__(self) -> str:
        return f"{self.folder}/{self.file} {self.kind}"


def folder_version(folder: Path) -> str:
    """The digest that `dvc add <folder>` would write: "<md5>.dir". Strays do not count."""
    return listing_digest(file_digests(folder, lambda name: is_stray(PurePosixPath(name))))


def verify(data_dir: Path, pin_file: Path) -> list[Difference]:
    """Every file of every site and exam that is missing, changed or extra; empty if the folder is as pinned.

    What desktops leave behind (`tasks.foreign.files.STRAYS`) is no file more, here and in `verify_site`.

    Raises:
        ConfigError: see `read_pin`.
    """
    pin = read_pin(pin_file)
    ignore = _dvc_ignore(pin_file)
    differences = []
    for parent in _parents(data_dir):
        loose = [path.name for path in listed(parent) if path.is_file()]
        where = parent.relative_to(data_dir).as_posix()
        differences += [Difference(where, name, "extra") for name in loose if not ignore(name)]
    for folder in {*pin.folders, *folders_in(data_dir)}:
        differences += _compare(folder, pin.folder_files(folder), data_dir / folder, ignore)
    return sorted(differences)


def folders_in(data_dir: Path) -> list[str]:
    """The sites' and exams' folders on disk: sites/701, studies/asthma/cork, exams/practice."""
    parents = [parent for parent in _parents(data_dir) if parent.name != STUDIES]
    found = [path for parent in parents for path in listed(parent) if path.is_dir()]
    return sorted(path.relative_to(data_dir).as_posix() for path in found)


def _parents(data_dir: Path) -> list[Path]:
    """What holds the folders of sites and exams; a study that was drafted has sites of its own."""
    studies = data_dir / STUDIES
    return [data_dir / SITES, data_dir / EXAMS, studies, *(path for path in listed(studies) if path.is_dir())]


def _folder(path: PurePosixPath) -> str:
    return "/".join(path.parts[: 3 if path.parts[0] == STUDIES else 2])


def _pinned_folder(site_dir: Path, pin_file: Path, site: str) -> str:
    """Where the pin has a site's folder: in sites/, or under a study that has sites of its own."""
    data_dir = pin_file.with_suffix("")
    if site_dir.is_relative_to(data_dir / STUDIES):
        return site_dir.relative_to(data_dir).as_posix()
    return f"{SITES}/{site}"


def verify_site(site_dir: Path, pin_file: Path, site: str) -> str:
    """Check one site's folder and return its digest.

    Raises:
        DataPinMismatch: naming each pinned file that is missing or changed, and the remedy. Other files are counted:
            the name of one may be a patient's, and this message leaves the site.
        ConfigError: see `read_pin`, or the pin has no such site.
    """
    folder = _pinned_folder(site_dir, pin_file, site)
    files = read_pin(pin_file).folder_files(folder)
    if not files:
        raise ConfigError(f"{pin_file} pins no site {site}: add its folder, then run `pharmafed data pin`")
    differences = _compare(folder, files, site_dir, _dvc_ignore(pin_file))
    if differences:
        named = ", ".join(f"{difference.file} {difference.kind}" for difference in differences if difference.pinned)
        extra = sum(not difference.pinned for difference in differences)
        named += f"{', ' * bool(named)}{extra} file(s) that are not pinned" if extra else ""
        raise DataPinMismatch(f"site {site}: {site_dir} is not what {pin_file.name} pins: {named}; {RESTORE}; {REPIN}")
    return listing_digest(files)


def differs_from_pin(path: Path, pin_file: Path) -> bool:
    """Whether a file in a site's folder is pinned with other bytes than it has, or is missing."""
    folder = _pinned_folder(path.parent, pin_file, path.parent.name)
    try:
        pinned = read_pin(pin_file).folder_files(folder).get(path.name)
    except ConfigError:
        return False
    return pinned is not None and not (path.is_file() and md5_of(path) == pinned)


def read_pin(pin_file: Path) -> Pin:
    """Read `data.dvc`.

    Raises:
        ConfigError: no such file, or its `meta: files` is missing or older than DVC's digest.
    """
    if not pin_file.is_file():
        raise ConfigError(f"no pin {pin_file}: run `pharmafed data prepare`, then `pharmafed data pin`")
    return _pin(pin_file, read_ordinary(pin_file, _MAX_PIN_BYTES, ConfigError))


@lru_cache(maxsize=2)
def _pin(pin_file: Path, raw: bytes) -> Pin:
    """Each step of a round asks for it, and YAML is slow to read."""
    document = _document(pin_file, raw)
    files = (document.get("meta") or {}).get("files") or {}
    digest = str(document["outs"][0]["md5"])
    if listing_digest(files) != digest:
        raise ConfigError(f"{pin_file}: meta.files is not the listing of {digest}: run `pharmafed data pin`")
    return Pin(digest=digest, files=files)


def _read_document(pin_file: Path) -> dict[str, Any]:
    return _document(pin_file, read_ordinary(pin_file, _MAX_PIN_BYTES, ConfigError))


def _document(pin_file: Path, raw: bytes) -> dict[str, Any]:
    """What DVC wrote, and `write_pin` beside it. Raises ConfigError: something else."""
    content: dict[str, Any] = parse_yaml(pin_file, raw).content
    try:
        _Document.model_validate(content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
        raise ConfigError(f"{pin_file}: {place} is not as DVC writes it: run `pharmafed data pin`") from None
    return content


def write_pin(data_dir: Path) -> Pin:
    """`dvc add <data_dir>`, then record the listing in its `.dvc` file. First, `.dvcignore` is told of all STRAYS.

    Raises:
        ConfigError: DVC refuses, or the folder holds a file that is in none of sites/<site>/, studies/<study>/<site>/
            and exams/<exam>/.
    """
    pin_file = data_dir.with_name(f"{data_dir.name}.dvc")
    _ignore_strays(pin_file.with_name(".dvcignore"))
    command = [sys.executable, "-m", "dvc", "add", "--quiet", data_dir.name]
    run = subprocess.run(command, cwd=data_dir.parent, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ConfigError(f"dvc add {data_dir.name} failed: {run.stderr.strip().removeprefix('ERROR: ')}")
    files = file_digests(data_dir, _dvc_ignore(pin_file))
    misplaced = [path for path in files if not _in_place(PurePosixPath(path))]
    if misplaced:
        raise ConfigError(
            f"{data_dir}: {len(misplaced)} files are neither {SITES}/<site>/<file>, nor "
            f"{STUDIES}/<study>/<site>/<file>, nor in {EXAMS}/<exam>/, e.g. in {misplaced[0]}"
        )
    _write_listing(pin_file, files)
    return read_pin(pin_file)


def file_digests(folder: Path, ignore: Ignore | None = None) -> dict[str, str]:
    """Path below `folder` -> md5, for every file whose path is not to be ignored, in DVC's order."""
    paths = {path.relative_to(folder).as_posix(): path for path in ordinary_files(folder)}
    return {name: md5_of(paths[name]) for name in sorted(paths) if not (ignore and ignore(name))}


def listing_digest(files: Mapping[str, str]) -> str:
    """DVC's digest of a folder: the md5 of the JSON list of its files, sorted by path."""
    listing = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return f"{_md5(json.dumps(listing, sort_keys=True).encode())}.dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _in_place(path: PurePosixPath) -> bool:
    depth = len(path.parts)
    return (path.parts[0], depth) in ((SITES, 3), (STUDIES, 4)) or (path.parts[0] == EXAMS and depth >= 3)


def _compare(where: str, pinned: Mapping[str, str], folder: Path, ignore: Ignore) -> list[Difference]:
    found = file_digests(folder, ignore) if folder.is_dir() else {}
    differences = [Difference(where, name, "missing") for name in pinned.keys() - found.keys()]
    extra = [name for name in found.keys() - pinned.keys() if not is_stray(PurePosixPath(name))]
    differences += [Difference(where, name, "extra") for name in extra]
    common = pinned.keys() & found.keys()
    differences += [Difference(where, name, "changed") for name in common if pinned[name] != found[name]]
    return sorted(differences)


def _dvc_ignore(pin_file: Path) -> Ignore:
    """Whether the `.dvcignore` beside the pin file keeps a file, by its path below the folder, out of DVC."""
    spec = PathSpec.from_lines("gitignore", _ignored(pin_file.with_name(".dvcignore")))
    return lambda name: bool(spec.match_file(name))


def _ignored(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _ignore_strays(path: Path) -> None:
    """Add what is missing, so that DVC leaves out what we do."""
    lines = _ignored(path)
    missing = [pattern for pattern in STRAYS if pattern not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing, ""]), encoding="utf-8")


def _write_listing(pin_file: Path, files: Mapping[str, str]) -> None:
    document = _read_document(pin_file)
    document["meta"] = {**(document.get("meta") or {}), "files": dict(files)}
    pin_file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
