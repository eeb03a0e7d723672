"""Paths of pushes: what a Pushgateway redirects, what harms it, and the empty instance, with real Pushgateways."""

import json
import re
import urllib.parse

import pytest
from harness.http import Closed, ask
from harness.net import wait_until
from harness.pushgateway import NEWEST
from test_grouping_key_oracle import (  # noqa: F401
    HANGS_1_5,
    NAMES,
    ONLY_PLAIN_NAMES,
    chance,
    decoded,
    malformed,
    random_group,
    spelling,
)

PATHS = 700


@pytest.fixture(params=["installed", "newest"])
def program(request):
    return {"installed": "prometheus-pushgateway", "newest": NEWEST}[request.param]


@pytest.fixture
def gateways(lab, program):
    """Three, without their check, which would cost each push more and answer nothing about paths."""
    flags = ("--web.enable-admin-api", "--push.disable-consistency-check")
    return [lab.pushgateway(*flags, program=program) for _ in range(3)]


def put(address, path, body=b"m 1\n", method="PUT"):
    """The answer; None where the Pushgateway closes without one."""
    try:
        return ask(address, method, path.decode("latin-1"), body)
    except Closed:
        return None


def wipe(gateway):
    assert ask(gateway.address, "PUT", "/api/v1/admin/wipe").status == 202


def canonical(labels):
    return {name: value for name, value in labels.items() if value}


# Each is redirected by at least one version. What the answer names is where Go's server redirects to.
REDIRECTED = {
    "/metrics/job/b//": "/metrics/job/b/",
    "/metrics/job/b/x//": "/metrics/job/b/x/",
    "/metrics/job/b//x": "/metrics/job/b/x",
    "/metrics//job/b": "/metrics/job/b",
    "/metrics/./job/b": "/metrics/job/b",
    "/metrics/job/..": "/metrics",
    "/metrics/job/.": "/metrics/job",
    "/metrics/job/../..": "/",
    "/metrics/job/a/../x": "/metrics/job/x",
    "/metrics/job/a/x/..": "/metrics/job/a",
    "/metrics/job/a/x/../": "/metrics/job/a/",
    "/metrics/job/a/x/./": "/metrics/job/a/x/",
    "/metrics/job/%2e%2e": "/metrics",
    "/metrics/job/%2E/x": "/metrics/job/x",
    "/metrics/job/a%2F%2Fb/x/y": "/metrics/job/a/b/x/y",
    "/metrics/job/%2Fa/x": "/metrics/job/a/x",
    "/metrics/job/a/x/%2F": "/metrics/job/a/x/",
    "/metrics/job/a%2F..%2Fb/y": "/metrics/job/b/y",
    "/metrics/job@base64/YQ//": "/metrics/job@base64/YQ/",
    "/metrics/jobs/..": "/metrics",
    "/metrics/jobs/../job/a": "/metrics/job/a",
    "/metrics/job//": "/metrics/job/",
    "/metrics/job/a/instance//x/y": "/metrics/job/a/instance/x/y",
    "/metrics/job/a/instance@base64//": "/metrics/job/a/instance@base64/",
    "/metrics/job/a\"/../b": "/metrics/job/b",
    "/metrics/job/%2fa\"/x": "/metrics/job/a%22/x",
    "/metrics/job/a%20b//c%0Ad": "/metrics/job/a%20b/c%0Ad",
    "/metrics/job/%C3%A9/x/../y": "/metrics/job/%C3%A9/y",
    "/metrics/job/a//?x=//": "/metrics/job/a/",
    "/../metrics/job/a": "/metrics/job/a",
    "/x/../metrics/job/a": "/metrics/job/a",
    "/metrics/job/": "/metrics/job",
    "/metrics/job%2F": "/metrics/job",
}


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_path_that_a_pushgateway_redirects_is_refused(lab, gateways, method):
    replica = lab.shardd(gateways[:2])
    for path, clean in REDIRECTED.items():
        direct = put(gateways[2].address, path.encode(), method=method)
        assert direct.status in (301, 307), (path, direct)
        assert urllib.parse.urlsplit(direct.header("Location")).path == clean, (path, direct)
        answer = replica.push(path, method=method)
        assert answer.status == 400, (path, answer)
        assert clean in answer.text and answer.body.count(b"\n") == 1, (path, answer)
        assert answer.header("Location") is None
        assert ask(replica.address, "GET", path).status in (400, 404), path
    assert replica.metric("shardd_pushes_refused_total", reason="path") == len(REDIRECTED)
    assert replica.metric("shardd_rejected_total") == 0
    assert [gateway.groups() for gateway in gateways] == [[], [], []]


def test_refused_also_without_the_guard_and_when_redirecting(lab, gateways):
    for settings in ({"pushes": {"check": '"off"'}}, {"mode": "redirect"}):
        replica = lab.shardd(gateways[:2], **settings)
        for path in REDIRECTED:
            assert replica.push(path).status == 400, (settings, path)


@pytest.mark.parametrize("path", ["/Metrics/job/x", "/METRICS/job/x", "/metrics/Job/x", "/metrics/jobs/x", "//h/metrics/job/x"])
def test_other_cases_of_letters_are_no_pushs_paths(lab, gateways, path):
    answer = lab.shardd(gateways[:2]).push(path)
    assert answer.status in (400, 404), answer


def test_a_path_that_ends_in_a_slash_is_forwarded(lab, gateways):
    replica = lab.shardd(gateways[:2])
    for path, labels in {"/metrics/job/b/": {"job": "b"}, "/metrics/job/b/x/": {"job": "b", "x": ""}}.items():
        assert replica.push(path).status == 202
        (owner,) = [gateway for gateway in gateways if gateway.address.text == replica.placement(path)]
        wait_until(lambda: labels in owner.groups(), f"{path} is stored")
        assert replica.push(path, method="DELETE").status == 202
        wait_until(lambda: owner.groups() == [], f"{path} is deleted")


def test_every_path_is_answered_as_a_pushgateway_does_or_refused(lab, gateways, chance):  # noqa: F811
    """After a 2xx the group is where `locate` says; where a Pushgateway redirects or takes harm, it is a 400."""
    oracle, shards = gateways[0], gateways[1:]
    replica = lab.shardd(shards)
    names = NAMES + ONLY_PLAIN_NAMES
    counts = {}
    for number in range(PATHS):
        path = spelling(chance, *random_group(chance, names))
        if chance.random() < 0.6:
            path = malformed(chance, path)
        if not path.startswith(b"/") or re.search(rb"\s", path):
            continue
        if HANGS_1_5.match(decoded(path)):
            # Not to be tried: it could make all later ones with a job in base64 hang.
            assert put(replica.address, path).status in (200, 202, 400, 404), path
            continue
        direct = put(oracle.address, path, b"m%d 1\n" % number)
        assert direct, path
        kept = stored_labels(oracle, number) if direct.status == 202 else None
        is_harmed = kept is not None and ask(oracle.address, "GET", "/metrics").status != 200
        wipe(oracle)
        answer = put(replica.address, path, b"m%d 1\n" % number)
        counts[direct.status, answer.status] = counts.get((direct.status, answer.status), 0) + 1
        if 300 <= direct.status < 400:
            assert answer.status in (400, 404), (path, answer)
        elif is_harmed:
            assert answer.status == 400, (path, answer)
        elif direct.status in (400, 404):
            assert answer.status in (400, 404), (path, direct, answer)
        elif kept and kept["job"] == "shardd":
            assert answer.status == 400
        else:
            assert answer.status == direct.status, (path, direct, answer)
        if answer.status == 202:
            check_stored(replica, shards, path, number, kept)
    print(counts)
    assert sum(count for (_, ours), count in counts.items() if ours == 202) > PATHS / 5
    assert sum(count for (theirs, _), count in counts.items() if theirs == 301) > PATHS / 50
    for shard in shards:
        assert ask(shard.address, "GET", "/metrics").status == 200


def stored_labels(gateway, number):
    """The labels of the group that a push ended in; without its check a Pushgateway answers before it has stored it."""

    def found():
        groups = json.loads(ask(gateway.address, "GET", "/api/v1/metrics").body)["data"]
        return [group["labels"] for group in groups if f"m{number}" in group]

    return wait_until(found, f"push {number} is stored", every=0.005)[0]


def check_stored(replica, shards, path, number, labels):
    place = replica.locate(path.partition(b"?")[0].decode("utf-8", "surrogateescape")) if is_utf8(path) else None

    def found():
        return [
            (shard.address.text, canonical(group["labels"]))
            for shard in shards
            for group in json.loads(ask(shard.address, "GET", "/api/v1/metrics").body)["data"]
            if f"m{number}" in group
        ]

    ((address, group),) = wait_until(found, f"{path} is stored", every=0.005)
    assert group == canonical(labels), (path, group)
    if place:
        assert address == place["shard"], (path, place)


def is_utf8(path):
    try:
        return bool(path.decode())
    except UnicodeDecodeError:
        return False


NOT_UTF8 = ["/metrics/job/t/a/%ff", "/metrics/job/%ff", "/metrics/job@base64/_w", "/metrics/job/t/a@base64/_w==",
            "/metrics/job/t/a/%ed%a0%80", "/metrics/job/t/a/x%C3", "/metrics/job/t/a/ok/b/%c0%80", "/metrics/job/\xff",
            "/metrics/job/t/a/%f4%90%80%80"]  # fmt: skip


def test_a_key_that_is_not_utf_8_is_refused(lab, gateways):
    replica = lab.shardd(gateways[:2])
    for count, path in enumerate(NOT_UTF8, 1):
        wipe(gateways[2])
        put(gateways[2].address, path.encode("latin-1"))
        harm = f"{path} harms a Pushgateway"
        wait_until(lambda: ask(gateways[2].address, "GET", "/metrics").status == 500, harm, every=0.005)
        answer = put(replica.address, path.encode("latin-1"))
        assert answer.status == 400 and b"not UTF-8" in answer.body, (path, answer)
        assert replica.metric("shardd_pushes_refused_total", reason="key_not_utf8") == count
    for path in ("/metrics/job/t/a/%C3%A9", "/metrics/job/é/a/日本", "/metrics/job@base64/w6k"):
        assert put(replica.address, path.encode()).status == 202
    for gateway in gateways[:2]:
        assert ask(gateway.address, "GET", "/metrics").status == 200


def test_a_shard_that_has_such_a_key_can_be_healed(lab, gateways):
    shard = gateways[0]
    replica = lab.shardd([shard])
    put(shard.address, b"/metrics/job/t/a/%ff")
    wait_until(lambda: ask(shard.address, "GET", "/metrics").status == 500, "the shard is poisoned")
    assert replica.push("/metrics/job/t/a/%ff", method="DELETE").status == 202
    wait_until(lambda: ask(shard.address, "GET", "/metrics").status == 200, "the shard is healed")


def test_a_malformed_base64_job_reaches_no_shard(lab, program):
    shards = [lab.pushgateway(program=program) for _ in range(2)]
    replica = lab.shardd(shards[:1])
    good = "/metrics/job@base64/YQ"
    for path in ("/metrics/job@base64/!", "/metrics/job%40base64/a", "/metrics/job@base64/abcde/x/y",
                 "/metrics/job@base64/YQ=x", "/metrics/job@base64/a+==/odd", "/metrics/%6Aob@base64/%21"):  # fmt: skip
        for method in ("PUT", "POST", "DELETE"):
            answer = replica.push(path, method=method)
            assert answer.status == 400 and "base64" in answer.text, (path, answer)
        assert replica.push(good).status == 200, "the route still works"
    # A label's value in bad base64 locks nothing, and a shard itself refuses it.
    assert replica.push("/metrics/job/t/a@base64/!").status == 400
    assert replica.metric("shardd_shard_requests_total", code="400") == 1
    assert replica.metric("shardd_pushes_refused_total", reason="job_not_base64") == 18
    if program != NEWEST:
        assert ask(shards[1].address, "PUT", "/metrics/job@base64/!", b"x 1\n").status == 400
        with pytest.raises(TimeoutError):
            ask(shards[1].address, "PUT", good, b"x 1\n", timeout=1)


OWN = ["/metrics/job/shardd", "/metrics/job@base64/c2hhcmRk", "/metrics/job@base64/c2hhcmRk==", "/metrics/job/%73hardd",
       "/metrics%2Fjob/shard%64/x/y", "/metrics/job/shardd/", "/metrics/job/shardd/job/a", "/metrics/job%40base64/c2hhcmRk/a/b"]  # fmt: skip


@pytest.mark.parametrize("check", ["guard", "off"])
@pytest.mark.parametrize("key", ["group", "path"])
def test_shardds_own_job_is_refused(lab, gateways, check, key):
    replica = lab.shardd(gateways[:2], pushes={"check": f'"{check}"'}, hash={"key": key})
    for path in OWN:
        for method in ("PUT", "POST", "DELETE"):
            answer = replica.push(path, method=method)
            assert answer.status == 400 and "shardd" in answer.text, (path, answer)
        assert ask(replica.address, "GET", path).status == 200
    assert replica.metric("shardd_pushes_refused_total", reason="reserved") == 3 * len(OWN)
    for path in ("/metrics/job/shardd2", "/metrics/job/Shardd", "/metrics/job/a/job/shardd", "/metrics/job/a/b/shardd"):
        assert replica.push(path).status == 202, path


def test_with_off_only_that(lab, gateways):
    replica = lab.shardd(gateways[:1], pushes={"check": '"off"'})
    assert replica.push("/metrics/job/b/instance@base64/=").status == 202
    wait_until(lambda: gateways[0].groups() == [{"job": "b", "instance": ""}], "it is forwarded as it is")
    assert put(replica.address, b"/metrics/job/t/a/%ff").status == 202
