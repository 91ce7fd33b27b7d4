"""What a stranger can send to an object store: every listener, every destructive request of SeaweedFS's documentation.

`walk` sends them all and keeps what comes back; `planted_store.harm` says what the store has lost by it. Both know
nothing of how the store is protected, so that they can be tried on one that is not.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import grpc
from botocore.exceptions import BotoCoreError, ClientError

from tasks.deploy import seaweedfs
from tasks.store import layout
from tasks.store.settings import S3Credential
from tests.deploy.planted_store import BUCKET, OTHER, PLAN, UPDATE, Listener, Store

EVE = S3Credential(access_key="eve", secret_key="eve-secret-0123456789")
_WEED_S, _SHELL_S = 5.0, 10.0
"""How long a program that is refused may go on trying; one that is let in is done by then."""


@dataclass(frozen=True)
class Attacker:
    """Somebody on this machine, with an empty folder; `certificate` and `key` are what they show, if anything."""

    name: str
    folder: Path
    certificate: Path | None = None
    key: Path | None = None


class Answer(NamedTuple):
    """What came back for one request; `accepted` when it was not refused."""

    listener: str
    request: str
    accepted: bool
    content: bytes


MEANS = ("weed", "grpc", "http")


def walk(
    store: Store, attacker: Attacker, means: Iterable[str] = MEANS, listeners: Sequence[Listener] | None = None
) -> list[Answer]:
    """Try everything on every listener, or on those given. Reading comes before destroying."""
    where = store.listeners() if listeners is None else listeners
    by_name = {
        "weed": partial(_with_weed, store, attacker),
        "grpc": partial(_over_grpc, where, attacker),
        "http": partial(_over_http, where, attacker, _chunks(store)),
    }
    answers = [answer for name in means for answer in by_name[name]()]
    return [*answers, *_as_eve(store)]


def read_out(store: Store, answers: Iterable[Answer]) -> list[Answer]:
    """The answers that hold something of the planted objects."""
    return [answer for answer in answers if store.marker in answer.content]


def _at_once(attempts: Sequence[Callable[[], Iterable[Answer]]]) -> list[Answer]:
    with ThreadPoolExecutor(16) as pool:
        return [answer for answers in pool.map(lambda attempt: attempt(), attempts) for answer in answers]


# HTTP

_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_PART = {"Content-Type": "multipart/form-data; boundary=b"}
_UPLOAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nforged\r\n--b--\r\n'


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


def _requests(fids: Sequence[str]) -> list[Request]:
    """Reading first; the volume server's own need the `fids` of chunks, which a stranger would have to guess."""
    pages = (
        "/ /ui/index.html /status /healthz /stats/counter /stats/memory /stats/disk /metrics /debug/pprof/ /favicon.ico"
    )
    master = "/dir/status /vol/status /cluster/status /cluster/healthz /cluster/ps /dir/lookup?volumeId=1 /dir/assign"
    stored = [f"{BUCKET}/{PLAN}", "/", "/buckets/?limit=100", "/etc/iam/identity.json", "/etc/", "/topics/"]
    reading = [*pages.split(), *master.split(), *stored, *(f"/{fid}" for fid in fids), "/?Action=ListUsers"]
    stream = f"/admin/volume/copy?volume=1 /admin/sync/status?volume=1 {BUCKET}/{PLAN}?metadata=true"
    destroying = [
        *(Request(method, path) for path in _MASTER for method in ("GET", "POST")),
        Request("POST", "/submit", _UPLOAD, _PART),
        *(Request("DELETE", f"/{fid}") for fid in fids),
        *(Request("POST", f"/{fid}", _UPLOAD, _PART) for fid in fids),
        *(Request(method, path) for path in _VOLUME for method in ("GET", "POST", "DELETE")),
        Request("POST", "/delete?fid=" + "&fid=".join(fids)),
        *(Request(method, f"{BUCKET}/{PLAN}", _UPLOAD, _PART) for method in ("POST", "PUT")),
        Request("POST", f"{BUCKET}/{PLAN}?mv.from={BUCKET}/{UPDATE}"),
        Request("POST", f"{BUCKET}/{PLAN}?cp.from={BUCKET}/{UPDATE}"),
        Request("PUT", f"{BUCKET}/{PLAN}?op=append", _UPLOAD, _PART),
        Request("PUT", f"{BUCKET}/{PLAN}?tagging", b"", {"Seaweed-forged": "yes"}),
        Request("POST", f"{BUCKET}/.tus/forged", b"x", {"Tus-Resumable": "1.0.0", "Upload-Length": "1"}),
        Request("PUT", f"/{layout.BUCKET}/{PLAN}", b"forged"),
        Request("DELETE", f"/{layout.BUCKET}/{OTHER}"),
        Request("POST", f"/{layout.BUCKET}?delete", b"<Delete><Object><Key>x</Key></Object></Delete>"),
        Request("POST", f"/{layout.BUCKET}", _UPLOAD.replace(b'"file"', b'"key"'), _PART),
        *(Request("PUT", f"/{layout.BUCKET}?{part}", b"{}", _JSON) for part in ("policy", "acl", "versioning")),
        *(Request("POST", "/", f"Action={action}&Version={version}".encode(), _FORM) for action, version in _IAM),
        Request("DELETE", f"/{layout.BUCKET}"),
        Request("DELETE", f"{BUCKET}/{PLAN}"),
        Request("DELETE", f"{BUCKET}?recursive=true&ignoreRecursiveError=true"),
        *(Request(method, f"/col/delete?collection={layout.BUCKET}") for method in ("GET", "POST", "DELETE")),
    ]
    return [*(Request("GET", path) for path in (*reading, *stream.split())), *destroying]


_MASTER = (
    f"/vol/grow?collection={layout.BUCKET}&count=1",
    "/vol/vacuum?garbageThreshold=0",
    "/dir/assign?count=5",
    "/dir/leave",
    "/cluster/raft/remove?id=1",
    "/raft/leader",
)
_VOLUME = (
    f"/admin/delete_collection?collection={layout.BUCKET}",
    "/admin/assign_volume?volume=99",
    "/admin/volume/delete?volume=1",
    "/admin/volume/unmount?volume=1",
    "/admin/vacuum/compact?volume=1",
    "/admin/leave",
    "/admin/setting?x=1",
)
_IAM = (
    ("AssumeRole&RoleArn=arn:aws:iam::1:role/a&RoleSessionName=eve", "2011-06-15"),
    ("AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::1:role/a&RoleSessionName=eve&WebIdentityToken=x", "2011-06-15"),
    ("GetFederationToken&Name=eve", "2011-06-15"),
    ("CreateUser&UserName=eve", "2010-05-08"),
    ("CreateAccessKey&UserName=hub", "2010-05-08"),
    ("ListAccessKeys&UserName=hub", "2010-05-08"),
    ("DeleteUser&UserName=hub", "2010-05-08"),
)


def _over_http(listeners: Sequence[Listener], attacker: Attacker, fids: Sequence[str]) -> list[Answer]:
    """Plainly and over TLS. An attacker with a certificate has nothing to add to what one without sends plainly."""
    requests = _requests(fids)
    contexts = [_tls(attacker)] if attacker.certificate else [None, _tls(attacker)]
    return _at_once([partial(_ask_all, listener, shown, requests) for listener in listeners for shown in contexts])


def _ask_all(listener: Listener, context: ssl.SSLContext | None, requests: Iterable[Request]) -> list[Answer]:
    return [ask(listener, context, request) for request in requests]


def ask(listener: Listener, context: ssl.SSLContext | None, request: Request) -> Answer:
    """Send one request, over TLS if there is a context for it."""
    said = f"{'https' if context else 'http'} {request.method} {request.path}"
    connection = http.client.HTTPConnection("store", timeout=5)
    try:
        connection.sock = _connect(listener, context)
        connection.request(request.method, request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        return Answer(str(listener), said, answer.status < 400, f"{answer.status} ".encode() + answer.read())
    except (OSError, http.client.HTTPException) as error:
        return Answer(str(listener), said, False, repr(error).encode())
    finally:
        connection.close()


def _connect(listener: Listener, context: ssl.SSLContext | None) -> socket.socket:
    if listener.port is None:
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(5)
        raw.connect(listener.address)
    else:
        raw = socket.create_connection((listener.address, listener.port), timeout=5)
    try:
        return context.wrap_socket(raw) if context else raw
    except OSError:
        raw.close()
        raise


def _tls(attacker: Attacker) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if attacker.certificate and attacker.key:
        context.load_cert_chain(attacker.certificate, attacker.key)
    return context


# gRPC


def _text(number: int, *values: str | bytes) -> bytes:
    """A field of a protocol buffer, once for each value; all of them are shorter than 128 bytes."""
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return b"".join(bytes([number << 3 | 2, len(value)]) + value for value in encoded)


def _yes(number: int) -> bytes:
    return bytes([number << 3, 1])


_PLACE, _NAME = f"{BUCKET}/{PLAN}".rsplit("/", 1)
_IDENTITY = (
    _text(1, "eve") + _text(2, _text(1, EVE.access_key) + _text(2, EVE.secret_key)) + _text(3, "Admin", "Read", "List")
)
_REFUSED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_CALLS = (
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", _text(7, "")),
    ("/master_pb.Seaweed/VolumeList", b""),
    ("/master_pb.Seaweed/ListClusterNodes", _text(1, "filer")),
    ("/master_pb.Seaweed/RaftListClusterServers", b""),
    ("/volume_server_pb.VolumeServer/VolumeServerStatus", b""),
    ("/volume_server_pb.VolumeServer/GetState", b""),
    ("/filer_pb.SeaweedFiler/GetFilerConfiguration", b""),
    ("/filer_pb.SeaweedFiler/LookupDirectoryEntry", _text(1, _PLACE) + _text(2, _NAME)),
    ("/filer_pb.SeaweedFiler/ListEntries", _text(1, _PLACE)),
    ("/iam_pb.SeaweedIdentityAccessManagement/GetConfiguration", b""),
    ("/iam_pb.SeaweedIdentityAccessManagement/CreateUser", _text(1, _IDENTITY)),
    ("/messaging_pb.SeaweedS3IamCache/PutIdentity", _text(1, _IDENTITY)),
    ("/messaging_pb.SeaweedS3/Configure", _text(1, "{}")),
    ("/master_pb.Seaweed/LeaseAdminToken", b""),
    ("/master_pb.Seaweed/Assign", bytes([1 << 3, 1])),
    ("/master_pb.Seaweed/DisableVacuum", b""),
    ("/master_pb.Seaweed/RaftRemoveServer", _text(1, "127.0.0.1:9333") + _yes(2)),
    ("/filer_pb.SeaweedFiler/DeleteEntry", _text(1, BUCKET) + _text(2, "federation") + _yes(4) + _yes(5)),
    ("/filer_pb.SeaweedFiler/DeleteCollection", _text(1, layout.BUCKET)),
    ("/volume_server_pb.VolumeServer/DeleteCollection", _text(1, layout.BUCKET)),
    ("/volume_server_pb.VolumeServer/VolumeServerLeave", b""),
    ("/master_pb.Seaweed/CollectionDelete", _text(1, layout.BUCKET)),
)


def _over_grpc(listeners: Sequence[Listener], attacker: Attacker) -> list[Answer]:
    attempts = [
        partial(_call_all, listener, shown)
        for listener in listeners
        for shown in {None, _grpc_credentials(listener, attacker)}
    ]
    return _at_once(attempts)


def _grpc_credentials(listener: Listener, attacker: Attacker) -> grpc.ChannelCredentials | None:
    """What the attacker shows; to go through with a handshake, gRPC must be told to trust what the server shows."""
    shown = _shown_by(listener)
    if shown is None or not (attacker.certificate and attacker.key):
        return grpc.ssl_channel_credentials(shown) if shown else None
    return grpc.ssl_channel_credentials(shown, attacker.key.read_bytes(), attacker.certificate.read_bytes())


def _shown_by(listener: Listener) -> bytes | None:
    """The certificate with which a server introduces itself to everyone, if it does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connect(listener, context) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            found = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    return ssl.DER_cert_to_PEM_cert(found).encode() if found else None


def _call_all(listener: Listener, credentials: grpc.ChannelCredentials | None) -> list[Answer]:
    target = f"unix:{listener.address}" if listener.port is None else str(listener)
    options = [("grpc.ssl_target_name_override", "127.0.0.1"), ("grpc.enable_http_proxy", 0)]
    options += [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
    )
    with channel:
        return [_call(channel, listener, "grpcs" if credentials else "grpc", *call) for call in _CALLS]


def _call(channel: grpc.Channel, listener: Listener, scheme: str, method: str, message: bytes) -> Answer:
    """Every call as one with a stream of answers: on the wire a single answer is a stream of one."""
    said, content = f"{scheme} {method}", b""
    call = channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)(message, timeout=3)
    try:
        for part in call:
            content += part
    except grpc.RpcError as error:
        return Answer(
            str(listener), said, bool(content) or error.code() not in _REFUSED, content or repr(error).encode()
        )
    return Answer(str(listener), said, True, content)


# SeaweedFS's own programs

_SHELL = f"""lock
volume.list
cluster.ps
cluster.raft.ps
fs.ls -l {BUCKET}
fs.cat {BUCKET}/{PLAN}
fs.meta.cat {BUCKET}/{PLAN}
s3.configure
s3.configure -user=eve -access_key={EVE.access_key} -secret_key={EVE.secret_key} -actions=Admin,Read,List -apply
fs.mv {BUCKET}/{UPDATE} {BUCKET}/{PLAN}
fs.rm -r {BUCKET}/{OTHER}
volume.vacuum -garbageThreshold=0.0001
volume.fsck -reallyDeleteFromVolume -cutoffTimeAgo=0
volume.mark -node=NODE -volumeId=1 -readonly
volume.delete -node=NODE -volumeId=1
s3.bucket.delete -name={layout.BUCKET}
collection.delete -collection={layout.BUCKET} -force
cluster.raft.remove -id=none
unlock
"""
_REPLICATION = '[sink.local]\nenabled = true\ndirectory = "taken"\n'


def _with_weed(store: Store, attacker: Attacker) -> list[Answer]:
    """`weed shell` last: it destroys what the others try to read."""
    ports, folder = store.ports, attacker.folder
    folder.mkdir(exist_ok=True)
    (folder / "forged").write_bytes(b"forged" * 10)
    (folder / "replication.toml").write_text(_REPLICATION)
    master, filer = f"127.0.0.1:{ports.master}.{ports.master_grpc}", f"127.0.0.1:{ports.filer}.{ports.filer_grpc}"
    url = f"http://127.0.0.1:{ports.filer}"  # filer.copy and filer.cat take the gRPC port to be 10000 above
    reading = [
        *(["backup", f"-master={master}", f"-collection={layout.BUCKET}", f"-volumeId={n}"] for n in range(1, 8)),
        ["filer.backup", f"-filer={filer}", f"-filerPath={BUCKET}", "-initialSnapshot"],
        ["filer.meta.tail", f"-filer={filer}", "-timeAgo=1h"],
        ["filer.cat", f"{url}{BUCKET}/{PLAN}"],
        ["filer.copy", "forged", f"{url}{BUCKET}/studies/"],
        ["download", f"-master={master}", *_chunks(store)],
        ["upload", f"-master={master}", f"-collection={layout.BUCKET}", "forged"],
    ]
    attempts = [partial(_weed, store, attacker, number, arguments) for number, arguments in enumerate(reading)]
    shell = ["shell", f"-master={master}", f"-filer={filer}"]
    script = _SHELL.replace("NODE", f"127.0.0.1:{ports.volume}.{ports.volume_grpc}")
    return [*_at_once(attempts), *_weed(store, attacker, len(reading), shell, script)]


def _weed(store: Store, attacker: Attacker, number: int, arguments: Sequence[str], script: str = "") -> list[Answer]:
    """Run it in a folder of its own, in which it finds no setting but the attacker's; what it writes there counts too.

    Its exit code says nothing (a backup that got no volume ends with 0), so it is not counted as accepted.
    """
    folder = attacker.folder / str(number)
    folder.mkdir()
    for name in ("forged", "replication.toml"):
        shutil.copy(attacker.folder / name, folder)
    (folder / "security.toml").write_text(_attackers_security(store, attacker, folder))
    argv = [str(seaweedfs.weed_binary()), "-logtostderr=true", *arguments]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            argv, cwd=folder, env={"HOME": str(folder), "PATH": ""}, stdin=subprocess.PIPE, stdout=said, stderr=said
        )
        with suppress(subprocess.TimeoutExpired):
            process.communicate(script.encode(), timeout=_SHELL_S if script else _WEED_S)
        process.kill()
        process.wait()
    content = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    shutil.rmtree(folder)
    return [Answer("weed", " ".join(arguments), False, content)]


def _attackers_security(store: Store, attacker: Attacker, folder: Path) -> str:
    shown = _shown_by(Listener("127.0.0.1", store.ports.master_grpc))
    if shown is None or not (attacker.certificate and attacker.key):
        return ""
    (folder / "server.pem").write_bytes(shown)
    pair = f'cert = "{attacker.certificate}"\nkey = "{attacker.key}"\n'
    return f'[grpc]\nca = "server.pem"\n[grpc.client]\n{pair}[https.client]\nenabled = true\nca = "server.pem"\n{pair}'


def _chunks(store: Store) -> list[str]:
    """The ids of the planted objects' pieces, which the store's owner can look up and no stranger should need to."""
    ports = store.ports
    where = [
        f"-master=127.0.0.1:{ports.master}.{ports.master_grpc}",
        f"-filer=127.0.0.1:{ports.filer}.{ports.filer_grpc}",
    ]
    argv = [str(seaweedfs.weed_binary()), "shell", *where]
    script = "".join(f"fs.meta.cat {BUCKET}/{key}\n" for key in (PLAN, UPDATE))
    done = subprocess.run(
        argv, cwd=seaweedfs.folder(store.home), input=script, capture_output=True, text=True, timeout=60, check=True
    )
    return [
        line.split('"')[3] for line in done.stdout.splitlines() if line.strip().startswith(('"fileId"', '"file_id"'))
    ]


# S3


def _as_eve(store: Store) -> Iterator[Answer]:
    """With the key that the requests above try to have accepted."""
    try:
        body = seaweedfs.client(store.endpoint, EVE).get_object(Bucket=layout.BUCKET, Key=OTHER)["Body"].read()
        yield Answer("S3", "GetObject as eve", True, body)
    except (ClientError, BotoCoreError) as error:
        yield Answer("S3", "GetObject as eve", False, str(error).encode())
