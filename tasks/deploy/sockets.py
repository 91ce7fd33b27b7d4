"""The Unix sockets that `weed server` makes for its gRPC ports: in /tmp whatever TMPDIR says, and no option moves them.

A file that is left over there costs a start: `weed` connects to it rather than to its own port. It removes its own
ones itself, but cannot remove another user's.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/tmp")
_GRPC = "_grpc"
_PARTS = ("master", "volume", "filer", "s3")


def socket_file(part: str, port: int) -> Path:
    """The socket of one part's gRPC port."""
    return FOLDER / f"seaweedfs-{part}-grpc-{port}.sock"


def left_over(ports: Mapping[str, int]) -> dict[str, Path]:
    """The files that lie where sockets would be, by the name of the port; `ports` has one entry per listener."""
    files = {name: socket_file(name.removesuffix(_GRPC), port) for name, port in ports.items() if name.endswith(_GRPC)}
    return {name: path for name, path in files.items() if os.path.lexists(path)}


def is_clear(port: int) -> bool:
    """Whether no file lies where a socket would be, whichever part gets this port."""
    return not any(os.path.lexists(socket_file(part, port)) for part in _PARTS)


def remove_abandoned(ports: Mapping[str, int]) -> None:
    """Remove what is left over, has no listener behind it and may be removed by this user."""
    for path in left_over(ports).values():
        if _is_abandoned(path):
            with suppress(OSError):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Whether nothing listens there. Another user's socket does not say, so it counts as in use."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
    return False


def user_of(path: Path) -> str:
    """The name of the user whose file it is, or the number where the user has no name."""
    uid = path.lstat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
