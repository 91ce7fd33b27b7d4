"""The object store on a disk that was full: what it refuses after that, and that a new start is what helps."""

import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
from botocore.exceptions import ClientError

from tasks.deploy import seaweedfs, sockets
from tasks.deploy.ports import choose_ports
from tasks.store import layout

PARTS = range(8)


def index_sizes(home):
    """Bytes in the journals of the filer's index, part by part."""
    index = home / "seaweedfs" / "data" / "filerldb2"
    return [sum(path.stat().st_size for path in (index / f"{part:02}").glob("*.log")) for part in PARTS]


def hub(home):
    return seaweedfs.credential(home, seaweedfs.HUB)


@contextmanager
def running(home, ports):
    """The store alone; it takes writes when this begins."""
    with (home / "store.log").open("ab") as log:
        server = subprocess.Popen(
            seaweedfs.command(home, ports), cwd=seaweedfs.folder(home), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while not seaweedfs.accepts_writes(ports.s3_endpoint, hub(home)):
            assert (server.poll(), time.monotonic() < deadline) == (None, True), (home / "store.log").read_text()[
                -2000:
            ]
            time.sleep(0.2)
        yield seaweedfs.client(ports.s3_endpoint, hub(home))
    finally:
        server.kill()
        server.wait()
        sockets.remove_abandoned(ports.model_dump())


def test_probes_reach_every_part_of_the_index(object_store):
    before = index_sizes(object_store.home)
    assert seaweedfs.accepts_writes(object_store.endpoint, hub(object_store.home))
    after = index_sizes(object_store.home)
    assert [now != then for now, then in zip(after, before, strict=True)] == [True] * len(PARTS)
    assert len(seaweedfs.probes()) == len(PARTS)


def refused(s3, key):
    try:
        s3.put_object(Bucket=layout.BUCKET, Key=key, Body=b"")
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


@pytest.mark.parametrize("small_disk", ["size=600m"], indirect=True)
def test_after_a_full_disk_the_store_is_seen_to_refuse_until_it_is_started_again(small_disk):
    home, ports = small_disk / "home", choose_ports(auto=True)
    seaweedfs.prepare(home, {})
    folder = seaweedfs.probes()[3].rpartition("/")[0]
    with running(home, ports) as s3:
        s3.put_object(Bucket=layout.BUCKET, Key="kept", Body=b"before")
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 20, 512):
                with suppress(OSError):
                    while filler.write(b"x" * size) == size:
                        pass
        assert 500 in [refused(s3, f"{folder}/{number:0200}") for number in range(60)]
        (small_disk / "filler").unlink()
        time.sleep(2)
        assert refused(s3, f"{folder}/again") == 500, "a store that recovers by itself needs no new start"
        assert s3.get_object(Bucket=layout.BUCKET, Key="kept")["Body"].read() == b"before"
        assert not seaweedfs.accepts_writes(ports.s3_endpoint, hub(home))
    with running(home, ports) as s3:
        assert refused(s3, f"{folder}/again") is None
        assert s3.get_object(Bucket=layout.BUCKET, Key="kept")["Body"].read() == b"before"
