"""Becomes the object store: `weed` with the command line of `pharmafed up`, its S3 port open to the other containers.

Master, volume server and filer stay on the container's own 127.0.0.1. The S3 gateway's gRPC port goes where its S3 port
goes; like all but that one it takes no one without the store's own certificate.
"""

from __future__ import annotations

import os
from pathlib import Path

from tasks.deploy import seaweedfs, store_security
from tasks.deploy.ports import Ports
from tasks.store import settings

SECURITY = Path("/etc/seaweedfs/security.toml")


def command(home: Path, ports: Ports, security: Path = SECURITY, address: str = "0.0.0.0") -> list[str]:
    """The command line; its S3 ports listen on `address`, and `security` comes before any other file of that name."""
    binary, *arguments = seaweedfs.command(home, ports)
    return [binary, f"-config_dir={security.parent}", *arguments, f"-s3.ip.bind={address}"]


def main() -> None:
    """Replace this process by `weed`. Raises ConfigError where its interfaces would be open."""
    home = settings.home()
    store_security.require_closed(SECURITY, store_security.certificate_file(home))
    os.umask(0o077)
    os.chdir(seaweedfs.folder(home))
    (seaweedfs.folder(home) / "data").mkdir(exist_ok=True)
    argv = command(home, Ports())
    os.execve(argv[0], argv, seaweedfs.environment(os.environ))


if __name__ == "__main__":
    main()
