"""What the guard refuses of bodies: each kind is shown to harm a real Pushgateway, and to reach none through shardd."""

import itertools
import json
import os
import random

import pytest
from harness.bodies import harm, post, rows, scrape_problem
from harness.http import Closed, ask
from harness.net import wait_until
from harness.prometheus import by_http
from harness.pushgateway import NEWEST

ROWS = rows()
REFUSED = [row for row in ROWS if row.verdict != "forward"]
# Pushgateway refuses these itself: that they are refused here is what the guard's own rules say of them.
HARMLESS = {
    "text: label non-UTF8 value", "text: label surrogate", "UTF-8: name bad",
    "pb: label non-UTF8 value", "pb: label value bad", "pb: label name not UTF-8",
    "pb: no type with gauge", "pb: type untyped metric gauge", "pb: no kind", "pb: mixed kinds in family",
    "pb: histogram as gauge", "pb: empty x summary + x_count",
    # The later one of two families of a name counts, and what is cut behind a bad one is refused as a whole.
    "pb: same family twice, first is bad", "pb: cut behind a bad one",
    # Nothing follows the damage here, but something could that Go inflates and shardd does not.
    "gzip: bad block behind a line",
    # Not to be tried: 1.5 takes 4 GiB of memory for it.
    "pb: huge length",
    # What differs is in the second metric, and no push of one metric shows it.
    "pb: two kinds, second metric",
    # Without samples, or with a family that Pushgateway itself replaces.
    "gauge_histogram: bucket", "pb: push_failure empty family", "pb: empty message len0",
}  # fmt: skip


@pytest.fixture
def chance():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def gateways(lab):
    """Both versions, to be pushed to directly."""
    return {
        "1.5": lab.pushgateway("--web.enable-admin-api"),
        "1.11": lab.pushgateway("--web.enable-admin-api", program=NEWEST),
    }


def test_what_is_refused_harms_a_pushgateway(gateways):
    missing = []
    for row in REFUSED:
        if row.verdict == "reserved" or row.name in HARMLESS:
            continue
        found = {version: harm(gateway, row) for version, gateway in gateways.items()}
        print(f"{row.name}: {found}")
        if not any(found.values()):
            missing.append(row.name)
    assert not missing


def test_what_is_forwarded_harms_none(gateways):
    for row, (version, gateway) in itertools.product(ROWS, gateways.items()):
        if row.verdict == "forward" and not row.name.startswith("text: push_"):
            assert harm(gateway, row) is None, (version, row)


@pytest.fixture(params=["installed", "newest"])
def shards(lab, request):
    program = {"installed": "prometheus-pushgateway", "newest": NEWEST}[request.param]
    return [lab.pushgateway("--web.enable-admin-api", program=program) for _ in range(2)]


def test_what_is_refused_reaches_no_shard(lab, shards):
    replica = lab.shardd(shards)
    for count, row in enumerate(REFUSED, 1):
        answer = replica.ask("POST", f"/metrics/job/t{count % 7}", row.body, row.headers)
        assert answer.status == 400, (row, answer)
        assert answer.header("Content-Type").startswith("text/plain") and answer.body.count(b"\n") == 1, answer
        assert replica.metric("shardd_pushes_refused_total") == count, row
        assert replica.metric("shardd_pushes_refused_total", reason=row.verdict) > 0, row
    assert [shard.groups() for shard in shards] == [[], []]
    assert replica.metric("shardd_rejected_total") == 0
    assert replica.metric("shardd_requests_total", method="POST", code="400") == len(REFUSED)
    assert replica.metric("shardd_shard_requests_total") == 0


@pytest.mark.core
def test_what_is_forwarded_gets_the_shards_own_answer(lab, shards):
    replica, alone = lab.shardd(shards[:1]), shards[1]
    for row in ROWS:
        if row.verdict == "forward":
            for gateway in shards:
                assert ask(gateway.address, "PUT", "/api/v1/admin/wipe").status == 202
            direct = post(alone.address, "/metrics/job/t", row)
            assert post(replica.address, "/metrics/job/t", row) == (direct or 502), row


def test_off_reads_no_body(lab, shards):
    replica = lab.shardd(shards, pushes={"check": '"off"'})
    bad = next(row for row in REFUSED if row.name == "text: TYPE gauge_histogram")
    assert post(replica.address, "/metrics/job/t", bad) == 200
    replica.change_config(pushes={"check": "guard"})
    replica.send(1)
    wait_until(lambda: post(replica.address, "/metrics/job/t", bad) == 400, "the guard is on")


@pytest.mark.core
def test_bodies_that_inflate_to_too_much_are_refused(lab):
    replica = lab.shardd(lab.pushgateways(1), limits={"body_bytes": "64KiB"})
    import gzip

    text = b"".join(b"a%d 1\n" % number for number in range(20_000))
    for size, status in ((40_000, 200), (len(text) // 2, 200), (8 * 65536 + 2000, 413)):
        body = (text + b"# filler\n" * 60_000)[:size].rpartition(b"\n")[0] + b"\n"
        answer = replica.ask("PUT", "/metrics/job/t", gzip.compress(body), [("Content-Encoding", "gzip")])
        assert answer.status == status, (size, answer)
    assert replica.metric("shardd_pushes_refused_total", reason="too_large") == 1


# What nobody could object to; each has a family of its own, as Pushgateway's own check refuses what disagrees.
GOOD = [
    ("batch", b"# HELP batch_seconds How long it took.\n# TYPE batch_seconds gauge\nbatch_seconds 1\n"),
    ("umlaut", "# HELP umlaut_total Größe\n# TYPE umlaut_total counter\numlaut_total{ort=\"Zürich\"} 2\n".encode()),
    ("summary", b"# TYPE latency summary\nlatency{quantile=\"0.5\"} 1\nlatency_sum 1\nlatency_count 1\n"),
]


def test_random_pushes_break_no_scrape(lab, shards, chance):
    """Good and harmful pushes in any order, while a real Prometheus scrapes."""
    replica = lab.shardd(shards)
    prometheus = lab.prometheus("guard", by_http(replica))
    addresses = sorted(shard.address.text for shard in shards)
    for shard in shards:
        assert ask(shard.address, "PUT", "/metrics/job/zz", b"zz_canary 1\n").status == 200
    wait_until(lambda: prometheus.targets() == addresses, "both shards are scraped")
    # Rows that are forwarded may disagree with each other, which is for Pushgateway's check; so each has its group to itself.
    for _ in range(400):
        if chance.random() < 0.5:
            row = chance.choice(REFUSED)
            path = chance.choice(["/metrics/job/t", "/metrics/job/t/a/b", "/metrics/job/batch"])
            assert post(replica.address, path, row, chance.choice(["PUT", "POST"])) == 400, row
        else:
            job, body = chance.choice(GOOD)
            suffix = chance.choice(["", "/instance@base64/=", "/instance/", "/x/y/instance@base64/"])
            answer = replica.push(f"/metrics/job/{job}{suffix}", body, chance.choice(["PUT", "POST"]))
            assert answer.status == 200, (job, suffix, answer)
    for shard in shards:
        assert scrape_problem(shard.address) is None
    marks = prometheus.query("time()")
    wait_until(lambda: prometheus.query("min(timestamp(up)) > bool %s" % marks[1])[0]["value"][1] == "1", "a scrape since")
    assert prometheus.query("min(min_over_time(up[10m]))")[0]["value"][1] == "1"
    assert prometheus.targets() == addresses


HISTOGRAM = b'# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n'
FAILURE = b"# TYPE push_failure_time_seconds counter\npush_failure_time_seconds 7\n"


def has_two_of_a_name(gateway):
    return any(line.count(',le="') + line.count('{le="') > 1 for line in gateway.metrics_text().splitlines())


def hides_labels(gateway):
    listed = json.loads(ask(gateway.address, "GET", "/api/v1/metrics").text)["data"]
    return any("job" not in group["labels"] for group in listed)


def fails_others(gateway):
    try:
        other = ask(gateway.address, "POST", "/metrics/job/other", b"n 1\n").status
    except Closed:
        # 1.11 panics where it should answer 400.
        return True
    return other == 400 or ask(gateway.address, "GET", "/metrics").status == 500


@pytest.mark.parametrize("path,bodies,is_harmed", [
    ("/metrics/job/a/le/1", [HISTOGRAM], has_two_of_a_name),
    ("/metrics/job/a", [b"labels 1\n"], hides_labels),
    ("/metrics/job/a", [b"n 1\n", FAILURE], fails_others),
], ids=["key with le", "labels", "failure time"])  # fmt: skip
def test_what_harms_by_its_group_is_refused(lab, gateways, path, bodies, is_harmed):
    for gateway in gateways.values():
        for body in bodies:
            ask(gateway.address, "POST", path, body)
        assert is_harmed(gateway), gateway.name
    shard = lab.pushgateway()
    replica = lab.shardd([shard])
    answers = [replica.ask("POST", path, body).status for body in bodies]
    assert answers == [200] * (len(bodies) - 1) + [400]
    assert not is_harmed(shard)
