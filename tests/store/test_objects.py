"""The store's client against a real SeaweedFS, and against servers that do not answer or break off."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import boto3
import pytest
from botocore.config import Config

from tasks.deploy.ports import choose_ports
from tasks.errors import AccessDenied, ClockSkewed, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from tasks.store import layout
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.model import ModelRef
from tasks.store.records.site import Enrolment
from tasks.store.settings import S3Credential
from tests.one_answer import one_answer

SITE = "701"
NOBODY = S3Credential(access_key="nobody", secret_key="secret")


@pytest.fixture
def hub(object_store) -> ObjectStore:
    return object_store.store("hub")


@pytest.fixture
def site(object_store) -> ObjectStore:
    return object_store.store(f"site-{SITE}")


@pytest.fixture
def key(study_name: str) -> str:
    return layout.update_tensors(study_name, 1, SITE)


# create-once


def test_create_writes_once_and_an_equal_object_is_fine(site: ObjectStore, key: str) -> None:
    assert not site.exists(key)
    site.create(key, b"one")
    site.create(key, b"one")
    assert site.exists(key)
    assert (site.get(key), site.size(key)) == (b"one", 3)


def test_create_refuses_another_object_under_the_key(site: ObjectStore, key: str) -> None:
    site.create(key, b"one")
    with pytest.raises(ObjectExists, match=f"{key} exists with other content; objects are never changed"):
        site.create(key, b"two")
    assert site.get(key) == b"one"


def test_of_many_writers_one_wins(hub: ObjectStore, study_name: str) -> None:
    key, lost, barrier = layout.selection(study_name, 1), [], threading.Barrier(6)

    def write(number: int) -> None:
        barrier.wait()
        try:
            hub.create(key, b"%d" % number)
        except ObjectExists:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 5
    assert int(hub.get(key)) in set(range(6)) - set(lost)


# compare-and-swap


def test_replace_moves_only_what_it_has_seen(hub: ObjectStore, study_name: str) -> None:
    key = layout.latest(study_name)
    hub.replace(key, b"1", etag=None)
    body, first = hub.get_with_etag(key)
    assert body == b"1"
    hub.replace(key, b"2", etag=first)
    with pytest.raises(ObjectExists):
        hub.replace(key, b"3", etag=first)
    with pytest.raises(ObjectExists):
        hub.replace(key, b"3", etag=None)
    body, second = hub.get_with_etag(key)
    assert body == b"2"
    hub.replace(key, b"3", etag=second)
    assert hub.get(key) == b"3"


def test_put_writes_again(hub: ObjectStore, study_name: str) -> None:
    key = layout.report(study_name, 1, "index.html")
    hub.put(key, b"1", content_type="text/html")
    hub.put(key, b"2", content_type="text/html")
    assert hub.get(key) == b"2"


# reading


@pytest.mark.parametrize("read", ["get", "size", "get_with_etag"])
def test_a_missing_object_is_named(hub: ObjectStore, read: str, study_name: str) -> None:
    with pytest.raises(ObjectMissing, match=f"pharmafed/{layout.plan(study_name, 7)} as hub"):
        getattr(hub, read)(layout.plan(study_name, 7))


def test_a_site_learns_that_its_own_object_is_missing(site: ObjectStore, key: str) -> None:
    with pytest.raises(ObjectMissing):
        site.get(key)


def test_a_missing_bucket_is_missing(hub: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        dataclasses.replace(hub, bucket="nowhere").get("key")


def test_get_into_fills_the_buffer(site: ObjectStore, key: str) -> None:
    body = bytes(range(256)) * 4096
    site.create(key, body)
    buffer = bytearray(len(body))
    assert site.get_into(key, buffer) is buffer
    assert buffer == body


def test_get_into_refuses_an_object_that_is_too_short(site: ObjectStore, key: str) -> None:
    site.create(key, b"12345")
    with pytest.raises(StoreError, match=f"{key} ended after 5 of 6 bytes"):
        site.get_into(key, bytearray(6))


def test_get_into_of_a_missing_object(site: ObjectStore, key: str) -> None:
    with pytest.raises(ObjectMissing):
        site.get_into(key, bytearray(1))


def test_records_go_round(hub: ObjectStore, study_name: str) -> None:
    ref, key = ModelRef(server_round=1, key="k", sha256="a" * 64), layout.card(study_name, 1)
    hub.create_record(key, ref)
    hub.create_record(key, ref)
    assert hub.get_record(key, ModelRef) == ref
    assert hub.get(key) == to_json(ref)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"server_round": "CANARY-17"}', b"[]"])
def test_what_is_no_record_is_refused_without_quoting_it(hub: ObjectStore, study_name: str, body: bytes) -> None:
    key = layout.card(study_name, 1)
    hub.create(key, body)
    with pytest.raises(StoreError, match=f"{key} is not a valid ModelRef") as caught:
        hub.get_record(key, ModelRef)
    assert "CANARY" not in str(caught.value)


# listing


def test_keys_come_sorted_from_all_pages(hub: ObjectStore, study_name: str) -> None:
    """Three keys to a page; a page of 1000 is the same code."""
    expected = [layout.plan(study_name, number) for number in range(1, 9)]
    for key in reversed(expected):
        hub.create(key, b"{}")
    pages: list[str] = []

    def small_page(params: dict[str, object], **_: object) -> dict[str, object]:
        pages.append(str(params["Prefix"]))
        return params | {"MaxKeys": 3}

    events = hub.client.meta.events
    events.register("provide-client-params.s3.ListObjectsV2", small_page)
    assert list(hub.keys(layout.study_prefix(study_name) + "/")) == expected
    assert len(pages) == 3
    assert list(hub.keys(layout.study_prefix(study_name) + "/models/")) == []


# rights


def test_a_site_may_not_write_what_is_not_its_own(site: ObjectStore, study_name: str) -> None:
    for key in (
        layout.plan(study_name, 1),
        layout.model(study_name, 1),
        layout.latest(study_name),
        layout.update_manifest(study_name, 1, "702"),
        layout.ledger_entry(study_name, "702", 1),
        layout.key_message(study_name, 1, "702"),
        layout.unmask_answer(study_name, 1, "702"),
        layout.roster(study_name, 1),
        layout.survivors(study_name, 1),
        layout.enrolment(SITE),
        layout.sealing_key(SITE),
    ):
        with pytest.raises(AccessDenied, match=f"put_object pharmafed/{key} as site-701"):
            site.create(key, b"mine")


def test_a_site_may_not_read_or_list_others(site: ObjectStore, hub: ObjectStore, study_name: str) -> None:
    for place in (layout.update_tensors, layout.unmask_answer):
        key = place(study_name, 1, "702")
        hub.create(key, b"theirs")
        with pytest.raises(AccessDenied):
            site.get(key)
    with pytest.raises(AccessDenied):
        list(site.keys(layout.study_prefix(study_name)))


def test_a_site_reads_what_the_masks_need_of_others(site: ObjectStore, hub: ObjectStore, study_name: str) -> None:
    masks = [layout.key_message(study_name, 1, "702"), layout.roster(study_name, 1), layout.survivors(study_name, 1)]
    for key in (*masks, layout.sealing_key(f"{study_name}_702")):
        hub.create(key, b"public")
        assert site.get(key) == b"public"
    for place in (layout.key_message, layout.unmask_answer):
        site.create(place(study_name, 1, SITE), b"mine")
        assert site.get(place(study_name, 1, SITE)) == b"mine"


def test_an_unknown_or_wrong_credential_is_denied(object_store, hub: ObjectStore, study_name: str) -> None:
    key = layout.plan(study_name, 1)
    hub.create(key, b"{}")
    stranger = ObjectStore.connect(object_store.endpoint, layout.BUCKET, NOBODY, "nobody")
    with pytest.raises(AccessDenied, match="as nobody"):
        stranger.get(key)


def test_credentials_do_not_show_their_secret() -> None:
    assert "secret" not in repr(NOBODY).replace("secret_key", "")
    assert "nobody" in repr(NOBODY)


# a store that is not there


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("k"),
        lambda store: store.create("k", b""),
        lambda store: store.replace("k", b"", etag=None),
        lambda store: store.exists("k"),
        lambda store: list(store.keys("k")),
        lambda store: store.get_record("k", Enrolment),
    ],
    ids=["get", "create", "replace", "exists", "keys", "get_record"],
)
def test_an_unreachable_store_names_its_endpoint_and_the_remedy(call) -> None:
    port = choose_ports(auto=True).s3
    store = ObjectStore.connect(f"http://127.0.0.1:{port}", layout.BUCKET, NOBODY, "nobody")
    with pytest.raises(StoreUnavailable, match=rf"http://127.0.0.1:{port} does not answer .*: see `pharmafed status`"):
        call(store)


@pytest.fixture
def breaks_off() -> Iterator[str]:
    with one_answer(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 1000\r\n\r\nonly this') as (endpoint, _):
        yield endpoint


@pytest.fixture
def server_error() -> Iterator[str]:
    with one_answer(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as (endpoint, _):
        yield endpoint


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("k"),
        lambda store: store.get_with_etag("k"),
        lambda store: store.get_into("k", bytearray(1000)),
    ],
    ids=["get", "get_with_etag", "get_into"],
)
def test_an_answer_that_breaks_off_is_worth_a_retry(breaks_off: str, call) -> None:
    store = ObjectStore.connect(breaks_off, layout.BUCKET, NOBODY, "nobody")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        call(store)


def test_a_server_error_is_worth_a_retry(server_error: str) -> None:
    store = ObjectStore.connect(server_error, layout.BUCKET, NOBODY, "nobody")
    with pytest.raises(StoreUnavailable, match=r"put_object pharmafed/k as nobody: 503 \(HTTP 503\)"):
        store.create("k", b"")


def test_the_store_is_as_strict_without_our_client(object_store, site: ObjectStore, key: str) -> None:
    """Create-once is the store's, not only the client's: a plain S3 client is refused too."""
    site.create(key, b"one")
    credential = object_store.store("hub").client._request_signer._credentials
    plain = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint,
        aws_access_key_id=credential.access_key,
        aws_secret_access_key=credential.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    with pytest.raises(plain.exceptions.ClientError, match="PreconditionFailed"):
        plain.put_object(Bucket=layout.BUCKET, Key=key, Body=b"two", IfNoneMatch="*")


# a store that is there and has no time, or another one


def refusal(status: str, code: str, date: str = "") -> bytes:
    body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else b""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return (head + (f"Date: {date}\r\n" if date else "") + "Connection: close\r\n\r\n").encode() + body


READ = {"get": lambda store: store.get("k"), "exists": lambda store: store.exists("k")}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("429 Too Many Requests", "TooManyRequests"),
        ("429 Too Many Requests", "SomethingOfItsOwn"),
        ("429 Too Many Requests", ""),
        ("503 Slow Down", "SlowDown"),
        ("400 Bad Request", "RequestTimeout"),
        ("408 Request Timeout", ""),
        ("400 Bad Request", "ThrottlingException"),
        ("403 Forbidden", "RequestLimitExceeded"),
        ("200 OK", "InternalError"),
        ("502 Bad Gateway", ""),
    ],
)
def test_a_busy_store_is_worth_a_retry(status: str, code: str) -> None:
    with one_answer(refusal(status, code)) as (endpoint, _):
        store = ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody")
        with pytest.raises(StoreUnavailable):
            list(store.keys("k")) if status.startswith("200") else store.get("k")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "MalformedXML", "EntityTooLarge"])
def test_what_no_retry_helps_is_not_tried_again(code: str) -> None:
    with one_answer(refusal("403 Forbidden", code)) as (endpoint, _):
        with pytest.raises(StoreError) as caught:
            ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody").get("k")
        assert not isinstance(caught.value, StoreUnavailable | ClockSkewed)


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("hours", [-3, 2, 24 * 365])
def test_a_skewed_clock_is_called_that(read: str, hours: int) -> None:
    """Also of a HEAD, whose answer has no words: only the store's own clock tells."""
    theirs = format_datetime(datetime.now(UTC) - timedelta(hours=hours), usegmt=True)
    code = "RequestTimeTooSkewed" if read == "get" else ""
    with one_answer(refusal("403 Forbidden", code, theirs)) as (endpoint, _):
        store = ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody")
        with pytest.raises(ClockSkewed, match=r"clock differs by \S+ s from the object store's: set both") as caught:
            READ[read](store)
        seconds = int(str(caught.value).partition("differs by ")[2].split()[0])
        assert abs(seconds - hours * 3600) <= 2
        assert not isinstance(caught.value, AccessDenied)


def test_a_skewed_clock_is_called_that_without_a_date() -> None:
    with (
        one_answer(refusal("403 Forbidden", "RequestTimeTooSkewed", "yesterday")) as (endpoint, _),
        pytest.raises(ClockSkewed, match=r"This machine's clock differs from the object store's: set both with NTP"),
    ):
        ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody").get("k")


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 31 Feb 2026 25:61:61 GMT", "Mon,", "1 Jan 99999 0:0:0 +9999", ","]
)
def test_a_date_that_is_none_makes_no_skew_of_a_refusal(date: str) -> None:
    answer = refusal("403 Forbidden", "AccessDenied", date)
    with one_answer(answer) as (endpoint, _), pytest.raises(StoreError, match="AccessDenied"):
        ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody").get("k")


def test_a_right_clock_and_a_wrong_key_are_no_skew() -> None:
    answer = refusal("403 Forbidden", "", format_datetime(datetime.now(UTC), usegmt=True))
    with one_answer(answer) as (endpoint, _), pytest.raises(AccessDenied):
        ObjectStore.connect(endpoint, layout.BUCKET, NOBODY, "nobody").exists("k")


def test_a_store_on_this_machine_is_not_asked_through_a_proxy(
    hub: ObjectStore, object_store, study_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    credential = object_store.store("hub").client._request_signer._credentials
    key = S3Credential(access_key=credential.access_key, secret_key=credential.secret_key)
    ObjectStore.connect(object_store.endpoint, layout.BUCKET, key, "hub").create(layout.plan(study_name, 1), b"{}")
    assert hub.get(layout.plan(study_name, 1)) == b"{}"
    elsewhere = ObjectStore.connect("http://store.example.org", layout.BUCKET, NOBODY, "nobody")
    with pytest.raises(StoreUnavailable, match="ProxyConnectionError"):
        elsewhere.get("k")
