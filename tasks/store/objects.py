"""The object store, through boto3: create-once writes, compare-and-swap, and errors that name the remedy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from tasks.errors import AccessDenied, ClockSkewed, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from tasks.store import layout, settings
from tasks.store.record_size import max_bytes as largest

Stored = TypeVar("Stored", bound=BaseModel)

#: boto3's own retries would hide an outage from Airflow's log; the task's retry policy waits instead.
#: With a name of its own, the client builds none of the machine's anew for each request.
_CONFIG = Config(
    user_agent="pharmafed",
    retries={"total_max_attempts": 2, "mode": "standard"},
    connect_timeout=5,
    read_timeout=60,
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_CODES: dict[str, type[StoreError]] = {
    "NoSuchKey": ObjectMissing,
    "NoSuchBucket": ObjectMissing,
    "404": ObjectMissing,
    "PreconditionFailed": ObjectExists,
    "412": ObjectExists,
    "ConditionalRequestConflict": ObjectExists,
    "AccessDenied": AccessDenied,
    "403": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "RequestTimeTooSkewed": ClockSkewed,
}
#: Of a store that is there and has no time for us now; some stores send them with another status than 429 and 503.
_BUSY = frozenset({
    "BandwidthLimitExceeded", "InternalError", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
    "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite",
    "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException",
})  # fmt: skip
_BUSY_STATUS = (408, 429)
#: Beyond this S3 refuses a signature.
_MAX_SKEW_S = 900
_session_lock = threading.Lock()


@cache
def _session() -> boto3.Session:
    """One session per process: botocore parses its service files once, before Airflow forks the tasks."""
    return boto3.Session(region_name="us-east-1")


def warm_up() -> None:
    """Parse botocore's service files, so that the forks of this process need not. Sends nothing."""
    nobody = settings.S3Credential(access_key="none", secret_key="none")
    ObjectStore.connect("http://127.0.0.1:1", "none", nobody, "nobody")


@dataclass(frozen=True)
class ObjectStore:
    """One bucket seen with one credential.

    Raises (all methods):
        StoreUnavailable: not reachable, or a server error; worth a retry.
        AccessDenied: the credential may not do that.
        ObjectMissing, ObjectExists: as the method says.
    """

    client: Any
    bucket: str
    identity: str

    @classmethod
    def connect(cls, endpoint: str, bucket: str, credential: settings.S3Credential, identity: str) -> ObjectStore:
        """Build a client; nothing is sent yet. A store on this machine is never asked through a proxy."""
        with _session_lock:
            client = _session().client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=credential.access_key,
                aws_secret_access_key=credential.secret_key,
                config=_CONFIG.merge(Config(proxies={})) if _is_here(endpoint) else _CONFIG,
            )
        return cls(client, bucket, identity)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Read a whole object. Raises ObjectMissing; StoreError when it has more than `max_bytes`."""
        answer = self._call("get_object", key)
        if max_bytes is not None and answer["ContentLength"] > max_bytes:
            raise StoreError(
                f"{self.bucket}/{key} has {answer['ContentLength']} bytes, more than {max_bytes}: {layout.remedy(key)}"
            )
        return self._read(key, answer)

    def get_into(self, key: str, buffer: bytearray) -> bytearray:
        """Read a whole object into a buffer of its size, without a second copy. Raises ObjectMissing, StoreError."""
        body = self._call("get_object", key)["Body"]
        view, filled = memoryview(buffer), 0
        try:
            while filled < len(buffer) and (count := body.readinto(view[filled:])):
                filled += count
        except (BotoCoreError, OSError) as error:
            raise self._unavailable(key, error) from None
        if filled != len(buffer):
            raise StoreError(f"{self.bucket}/{key} ended after {filled} of {len(buffer)} bytes: {layout.remedy(key)}")
        return buffer

    def get_record(self, key: str, record: type[Stored]) -> Stored:
        """Read a JSON object into its record. Raises ObjectMissing; StoreError when it is no such record, or too large.

        No more is read than the record's largest valid instance has: a site cannot fill the hub's memory with one.
        """
        try:
            return record.model_validate_json(self.get(key, max_bytes=largest(record)))
        except ValueError as error:
            raise self.damaged(key, record, error) from None

    def damaged(self, key: str, record: type[BaseModel], error: Exception) -> StoreError:
        """What to say of an object that is no such record: which, of what, and the remedy; never what is in it."""
        what = f"{self.bucket}/{key} is not a valid {record.__name__} ({type(error).__name__})"
        return StoreError(f"{what}: {layout.remedy(key)}")

    def get_with_etag(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        """Read an object, of a longer one a part, and the tag that `replace` needs. Raises ObjectMissing."""
        answer = self._call("get_object", key)
        return self._read(key, answer, max_bytes), str(answer["ETag"])

    def size(self, key: str) -> int:
        """Bytes of an object. Raises ObjectMissing."""
        return int(self._call("head_object", key)["ContentLength"])

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        try:
            self._call("head_object", key)
        except ObjectMissing:
            return False
        return True

    def create(self, key: str, body: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write a new object. An equal object that is there already is fine: a retried task is harmless.

        Raises:
            ObjectExists: another object is there under this key.
        """
        try:
            self._call("put_object", key, Body=body, IfNoneMatch="*", ContentType=content_type)
        except ObjectExists:
            if self.size(key) != len(body) or self.get(key) != body:
                raise ObjectExists(
                    f"{self.bucket}/{key} exists with other content; objects are never changed. If it is damaged: "
                    f"{layout.remedy(key)}"
                ) from None

    def create_record(self, key: str, record: BaseModel) -> None:
        """Write a record as JSON, once."""
        self.create(key, to_json(record), content_type="application/json")

    def replace(self, key: str, body: bytes, *, etag: str | None) -> None:
        """Compare-and-swap: write only if the object still has `etag` (None: only if there is no object).

        Raises:
            ObjectExists: somebody else moved it first.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        self._call("put_object", key, Body=body, ContentType="application/json", **condition)

    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        """Write an object that may be written again, such as a report of a resumed round."""
        self._call("put_object", key, Body=body, ContentType=content_type)

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys under `prefix`, sorted."""
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=prefix, **token)
            yield from (item["Key"] for item in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _read(self, key: str, answer: Any, max_bytes: int | None = None) -> bytes:
        try:
            body: bytes = answer["Body"].read(max_bytes)
        except (BotoCoreError, OSError) as error:
            raise self._unavailable(key, error) from None
        return body

    def _call(self, operation: str, key: str | None, **arguments: Any) -> Any:
        target = {} if key is None else {"Key": key}
        try:
            return getattr(self.client, operation)(Bucket=self.bucket, **target, **arguments)
        except ClientError as error:
            raise self._refused(operation, key, error.response) from None
        except BotoCoreError as error:
            raise self._unavailable(key, error) from None

    def _refused(self, operation: str, key: str | None, answer: Any) -> StoreError:
        """The error that an answer of the store stands for."""
        code = answer.get("Error", {}).get("Code", "")
        metadata = answer.get("ResponseMetadata", {})
        status, skew = metadata.get("HTTPStatusCode", 0), _skew(metadata.get("HTTPHeaders", {}).get("date", ""))
        busy = code in _BUSY or status in _BUSY_STATUS or status >= 500
        kind = _CODES.get(code, StoreUnavailable if busy else StoreError)
        text = f"{operation} {self.bucket}/{key or ''} as {self.identity}: {code} (HTTP {status})"
        if kind is ClockSkewed or (kind is AccessDenied and abs(skew) > _MAX_SKEW_S):  # HEAD has no words for it
            by = f" by {skew:+.0f} s" if skew else ""
            return ClockSkewed(f"{text}. This machine's clock differs{by} from the object store's: set both with NTP")
        return kind(text)

    def _unavailable(self, key: str | None, error: Exception) -> StoreUnavailable:
        endpoint = self.client.meta.endpoint_url
        return StoreUnavailable(
            f"object store {endpoint} does not answer for {self.bucket}/{key or ''} ({type(error).__name__}): "
            "see `pharmafed status`"
        )


def _is_here(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _skew(date: str) -> float:
    """How far this machine's clock is ahead of the one that a Date header was written by, in seconds."""
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # it is another's text: no date, or none that can be
        return 0.0


def to_json(record: BaseModel) -> bytes:
    """Readable JSON, the same bytes for the same record, whichever version of the code has written it: see `LATER`."""
    later: frozenset[str] = getattr(record, "LATER", frozenset())
    fields = type(record).model_fields
    unsaid = {name for name in later if getattr(record, name) == fields[name].default}
    return record.model_dump_json(by_alias=True, indent=2, exclude=unsaid or None).encode() + b"\n"


def hub_store() -> ObjectStore:
    """The store with the hub's credential."""
    return _connected(settings.home(), "hub")


def site_store(site: str) -> ObjectStore:
    """The store with one site's credential: reads models and plans, writes only the site's own prefix."""
    return _connected(settings.home(), f"site-{site}")


@cache
def _connected(home: Path, identity: str) -> ObjectStore:
    """A client of the deployment at `home`, which stands here for all that is read there."""
    where, site = settings.addresses(), identity.removeprefix("site-")
    credential = settings.hub_credential() if identity == "hub" else settings.site_credential(site)
    return ObjectStore.connect(where.s3_endpoint, where.bucket, credential, identity)


def connect_identities() -> None:
    """Build the client of every credential that lies on this machine, for the forks of this process to use."""
    if not settings.is_deployed():
        return
    for path in sorted((settings.home() / "secrets" / "s3").glob("*.json")):
        if path.stem == "hub":
            hub_store()
        elif path.stem.startswith("site-"):
            site_store(path.stem.removeprefix("site-"))
