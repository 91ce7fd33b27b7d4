"""What a key of the S3 port may do in a running store: a site's, and that of a site that has left its studies."""

import fnmatch
import json
import time

import pytest
from botocore.exceptions import ClientError

from tasks.data import remote
from tasks.deploy import seaweedfs
from tasks.store import layout
from tests.deploy.planted_store import OTHER, PLAN, STUDIES, harm, running

FOREIGN = layout.update_tensors("derm", 1, "702")
SECONDS = 5.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with running(tmp_path_factory.mktemp("keys")) as store:
        seaweedfs.create_bucket(store.endpoint, seaweedfs.credential(store.home, "hub"), remote.BUCKET)
        yield store


def filled(patterns):
    """A key for each pattern."""
    return [pattern.replace("*", "0007") for pattern in patterns]


def matches(key, patterns):
    return any(fnmatch.fnmatchcase(key, pattern if "*" in pattern else f"{pattern}*") for pattern in patterns)


def refusal(call, *arguments, **named):
    """The error code of an S3 call, or None when it is granted."""
    try:
        call(*arguments, **named)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def put(store, identity, key, body=b"x"):
    return refusal(store.s3(identity).put_object, Bucket=layout.BUCKET, Key=key, Body=body)


def get(store, identity, key):
    return refusal(store.s3(identity).get_object, Bucket=layout.BUCKET, Key=key)


def test_a_site_writes_and_reads_what_the_layout_grants_it(store):
    writable, readable = (filled(f("derm", "701")) for f in (layout.site_writable, layout.site_readable))
    assert len(writable) == 4
    assert {key: put(store, "site-701", key) for key in writable} == dict.fromkeys(writable)
    granted = [key for key in readable if put(store, "hub", key) is None]
    assert granted == readable
    assert {key: get(store, "site-701", key) for key in readable} == dict.fromkeys(readable)


def test_a_site_writes_and_reads_nothing_else(store):
    """Another site's keys, another study's, and what only the hub writes; the hub may do all of it, the control."""
    others = filled([*layout.site_writable("derm", "702"), *layout.site_writable("cardio", "701")])
    hubs = [layout.selection("derm", 7), layout.round_metrics("derm", 7), layout.report("derm", 7, "r.html")]
    hubs += [*filled(layout.site_readable("derm", "701")), layout.enrolment("702"), "federation/health", "elsewhere"]
    refused = {"write": set(), "read": set()}
    for key in {*others, *hubs}:
        assert put(store, "hub", key) is None, key
        assert get(store, "hub", key) is None, key
        if not matches(key, layout.site_writable("derm", "701")):
            assert put(store, "site-701", key, b"forged") == "AccessDenied", key
            refused["write"].add(key)
        if not matches(key, layout.site_readable("derm", "701")):
            assert get(store, "site-701", key) == "AccessDenied", key
            refused["read"].add(key)
    assert len(refused["write"]) >= 15
    assert len(refused["read"]) >= 10


IN_BUCKET = {"Bucket": layout.BUCKET}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})
EVERYTHING_ELSE = {
    "list_objects_v2": IN_BUCKET,
    "list_multipart_uploads": IN_BUCKET,
    "list_object_versions": IN_BUCKET,
    "get_bucket_policy": IN_BUCKET,
    "put_bucket_policy": IN_BUCKET | {"Policy": POLICY},
    "put_bucket_acl": IN_BUCKET | {"ACL": "public-read-write"},
    "put_bucket_versioning": IN_BUCKET | {"VersioningConfiguration": {"Status": "Suspended"}},
    "put_object_acl": IN_BUCKET | {"Key": PLAN, "ACL": "public-read-write"},
    "put_object_tagging": IN_BUCKET | {"Key": PLAN, "Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}},
    "create_multipart_upload": IN_BUCKET | {"Key": PLAN},
    "delete_object": IN_BUCKET | {"Key": OTHER},
    "create_bucket": {"Bucket": "mine"},
    "delete_bucket": IN_BUCKET,
}


@pytest.mark.parametrize("operation", EVERYTHING_ELSE)
def test_a_site_may_do_nothing_else_with_the_bucket(store, operation):
    arguments = EVERYTHING_ELSE[operation]
    assert refusal(getattr(store.s3("site-701"), operation), **arguments) == "AccessDenied"
    if not operation.startswith("delete_bucket"):
        answer = refusal(getattr(store.s3("hub"), operation), **arguments)
        assert answer != "AccessDenied"  # the control: it is the key that was refused, not the request
    store.plant()


def test_a_site_gets_at_nothing_by_copying_or_in_bulk(store):
    site, own = store.s3("site-701"), layout.update_tensors("derm", 8, "701")
    source = {"Bucket": layout.BUCKET, "Key": FOREIGN}
    assert refusal(site.copy_object, Bucket=layout.BUCKET, Key=own, CopySource=source) == "AccessDenied"
    bulk = {"Objects": [{"Key": PLAN}, {"Key": FOREIGN}, {"Key": OTHER}]}
    refusal(site.delete_objects, Bucket=layout.BUCKET, Delete=bulk)
    assert get(store, "hub", PLAN) is get(store, "hub", FOREIGN) is get(store, "hub", OTHER) is None
    assert refusal(site.list_objects_v2, Bucket=remote.BUCKET) == "AccessDenied"
    assert refusal(site.put_object, Bucket=remote.BUCKET, Key="files/md5/00/0", Body=b"x") == "AccessDenied"
    assert refusal(store.s3("hub").copy_object, Bucket=layout.BUCKET, Key=own, CopySource=source) is None


CLIMBING = (
    "../../../../rounds/0001/plan.json",
    "../../../702/rounds/0001/update.safetensors",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/rounds/0001/plan.json",
    "x/../../../../702/rounds/0001/update.safetensors",
)


@pytest.mark.parametrize("climb", CLIMBING)
def test_a_site_does_not_climb_out_of_what_is_its_own(store, climb):
    key = f"{layout.site_round_prefix('derm', 1, '701')}/{climb}"
    put(store, "site-701", key, b"forged")
    assert get(store, "site-701", key) in ("InvalidRequest", None)
    for name, body in store.objects.items():
        assert store.s3().get_object(Bucket=layout.BUCKET, Key=name)["Body"].read() == body


def inner_wildcards():
    """Patterns in which a `*`, which also stands for slashes, is followed by more."""
    return [pattern for pattern in layout.site_writable("derm", "701") if "*" in pattern[:-1]]


@pytest.mark.xfail(
    bool(inner_wildcards()), strict=True, reason="the layout's patterns have a `*` before the site's name"
)
def test_a_site_cannot_take_the_place_of_an_object_that_is_not_written_yet(store):
    """An object below `plan.json` makes a folder of that name, and then no plan can be created there any more."""
    taken = layout.plan("derm", 5)
    for pattern in inner_wildcards():
        put(store, "site-701", pattern.replace("*", taken.removeprefix(pattern.partition("*")[0]), 1).replace("*", "x"))
    assert put(store, "site-701", f"{taken}/x") == "AccessDenied"
    created = refusal(store.s3().put_object, Bucket=layout.BUCKET, Key=taken, Body=b"plan", IfNoneMatch="*")
    assert created is None
    assert get(store, "hub", taken) is None


# a site that leaves

OWN = layout.update_tensors("derm", 9, "702")
WITHOUT_702 = {"derm": ["701"]}


def reloaded(store, studies):
    """Have the running store take over the list for `studies`."""
    seaweedfs.write_identities(store.home, studies)
    store.reload()


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


def test_a_site_that_leaves_loses_its_key_at_once_and_one_that_comes_back_has_it_again(store):
    assert put(store, "site-702", OWN) is None
    reloaded(store, WITHOUT_702)
    assert within(SECONDS, lambda: put(store, "site-702", OWN) in ("InvalidAccessKeyId", "AccessDenied"))
    assert get(store, "site-702", layout.model("derm", 0)) in ("InvalidAccessKeyId", "AccessDenied")
    assert put(store, "site-701", layout.update_tensors("derm", 9, "701")) is None
    reloaded(store, STUDIES)
    assert within(SECONDS, lambda: put(store, "site-702", OWN) is None)


def test_to_leave_it_out_of_the_list_would_not_take_its_key_away(store):
    """The control, and the reason for entries that say `disabled`."""
    path = seaweedfs.identities_file(store.home)
    content = json.loads(path.read_text())
    left = [entry for entry in content["identities"] if entry["name"] != "site-702"]
    assert len(left) == len(content["identities"]) - 1
    path.write_text(json.dumps({"identities": left}))
    store.reload()
    time.sleep(SECONDS)
    assert put(store, "site-702", OWN) is None


def test_a_removed_site_stays_out_after_a_restart(store):
    seaweedfs.write_identities(store.home, WITHOUT_702)
    store.stop()
    store.start()
    assert put(store, "site-702", OWN) in ("InvalidAccessKeyId", "AccessDenied")
    assert set(harm(store).values()) <= {"not planted"}
    reloaded(store, STUDIES)
    assert within(SECONDS, lambda: put(store, "site-702", OWN) is None)
