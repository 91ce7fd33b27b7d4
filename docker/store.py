"""Becomes the object store: `weed` with the command line of `pharmafed up`, its S3 port open to the other containers.

Master, volume and filer stay on the container's own 127.0.0.1.
"""

from __future__ import annotations

import os

from tasks import settings
from tasks.deploy import seaweedfs
from tasks.deploy.ports import Ports


def main() -> None:
    """Replace this process by `weed`."""
    os.chdir(seaweedfs.folder(settings.home()))
    (seaweedfs.folder(settings.home()) / "data").mkdir(exist_ok=True)
    command = [*seaweedfs.command(settings.home(), Ports()), "-s3.ip.bind=0.0.0.0"]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
