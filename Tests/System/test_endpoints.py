"""What shardd answers by itself, and its metrics and targets as the real promtool and Prometheus read them."""

import subprocess
import time

import pytest

from harness.http import Connection
from harness.net import wait_until
from harness.prometheus import by_http

PATH = "/metrics/job/a/instance/b"
METRICS = """
shardd_build_info shardd_log_dropped_total shardd_ring_fingerprint shardd_shard_queue shardd_shard_bytes_total
shardd_shard_retries_total shardd_shard_connect_errors_total shardd_shard_check_failures_total
shardd_config_last_reload_success_timestamp_seconds shardd_requests_total shardd_request_duration_seconds_bucket shardd_request_duration_seconds_sum
shardd_request_duration_seconds_count shardd_requests_in_flight shardd_connections shardd_shard_requests_total
shardd_shard_response_seconds_bucket shardd_shard_response_seconds_sum shardd_shard_response_seconds_count
shardd_shard_up shardd_shard_in_flight shardd_shard_connections shardd_failovers_total shardd_rejected_total
shardd_ring_generation shardd_ring_shards shardd_ring_share_ratio shardd_ring_last_change_timestamp_seconds
shardd_reconcile_runs_total shardd_reconcile_groups_moved_total shardd_reconcile_copies_deleted_total
shardd_reconcile_duplicate_groups shardd_reconcile_last_success_timestamp_seconds
shardd_discovery_polls_total shardd_discovery_last_success_timestamp_seconds shardd_config_last_reload_successful
process_cpu_seconds_total process_resident_memory_bytes process_open_fds process_max_fds process_start_time_seconds
""".split()


@pytest.fixture
def shards(lab):
    return lab.pushgateways(3)


@pytest.fixture
def replica(lab, shards):
    return lab.shardd(shards)


def test_placement(shards, replica):
    answer = replica.ask("GET", PATH)
    assert answer.status == 200
    assert answer.header("Content-Type").startswith("text/plain")
    assert replica.push(PATH).status == 200
    (holder,) = [shard for shard in shards if shard.groups()]
    assert answer.text.rstrip("\n") == f"nextUrl:http://{holder.address.text}{PATH}"


def test_redirect_mode_keeps_path_and_query(lab, shards):
    replica = lab.shardd(shards, mode="redirect")
    for method in ("PUT", "POST", "DELETE"):
        answer = replica.ask(method, PATH + "?a=%20b&c", b"x 1\n" if method != "DELETE" else b"")
        assert answer.status == 307, answer
        assert answer.header("Location") == f"http://{replica.placement(PATH)}{PATH}?a=%20b&c"
    assert [shard.groups() for shard in shards] == [[], [], []]
    # curl follows it with the same method and body.
    result = subprocess.run(
        ["curl", "-sS", "-L", "--max-time", "10", "--data-binary", "@-", replica.address.url + PATH],
        input=b"x 1\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 0, result
    assert sum(len(shard.groups()) for shard in shards) == 1


def test_health_and_greeting(replica):
    for path in ("/-/healthy", "/-/ready"):
        assert replica.ask("GET", path).status == 200
    answer = replica.ask("GET", "/test/v1")
    assert answer.status == 200
    assert answer.text.strip() and answer.text.rstrip("\n").count("\n") == 0


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD"])
def test_the_root_tells_what_this_is(replica, method):
    answer = replica.ask(method, "/")
    assert answer.status == 200
    if method != "HEAD":
        assert "shardd 0.2.0" in answer.text and "/metrics" in answer.text and "/-/ready" in answer.text


def test_the_default_check_of_haproxy_passes(replica):
    """Byte for byte what `option httpchk` sends."""
    with Connection(replica.address) as connection:
        connection.send(b"OPTIONS / HTTP/1.0\r\n\r\n")
        assert connection.read().status == 200
        assert connection.is_closed()


def test_replicas_that_agree_have_one_fingerprint(lab, shards, replica):
    def fingerprint(**options):
        other = lab.shardd(options.pop("shards", shards), **options)
        value = other.ring()["fingerprint"]
        assert value == other.metric("shardd_ring_fingerprint")
        assert 0 < value < 2**48
        return value

    own = replica.ring()["fingerprint"]
    assert fingerprint() == fingerprint(shards=shards[::-1]) == own
    others = [fingerprint(shards=shards[:2]), fingerprint(hash={"vnodes": 499}), fingerprint(hash={"key": "path"})]
    assert len({own, *others}) == 4


def test_ring(shards, replica):
    ring = replica.ring()
    assert (ring["vnodes"], ring["key"], ring["source"], ring["generation"]) == (500, "group", "static", 1)
    assert [shard["address"] for shard in ring["shards"]] == sorted(shard.address.text for shard in shards)
    assert {shard["state"] for shard in ring["shards"]} == {"up"}
    assert 1490 <= sum(shard["points"] for shard in ring["shards"]) <= 1500
    assert sum(shard["share"] for shard in ring["shards"]) == pytest.approx(1)
    assert all(0.2 < shard["share"] < 0.5 for shard in ring["shards"])


@pytest.mark.core
def test_locate_tells_what_a_push_then_does(shards, replica):
    for path, key in [
        (PATH, PATH),
        ("/metrics/job/a/z/1/b/2", "/metrics/job/a/b/2/z/1"),
        ("/metrics/job@base64/L3Zhci90bXA/x@base64/w7w", "/metrics/job//var/tmp/x/ü"),
        ("/metrics/job/%61/empty@base64/=", "/metrics/job/a"),
    ]:
        located = replica.locate(path)
        assert located["grouping_key"] == key
        assert len(located["hash"]) == 8 and int(located["hash"], 16) >= 0
        assert located["shard"] == replica.placement(path) == replica.locate_offline(path)[0]
        assert located["next"] in {shard.address.text for shard in shards} - {located["shard"]}
        assert replica.push(path).status == 200
        (holder,) = [shard for shard in shards if shard.groups()]
        assert holder.address.text == located["shard"]
        assert replica.ask("DELETE", path).status == 202
        wait_until(lambda: not holder.groups(), "the group is gone")


def test_locate_without_a_path_is_400(replica):
    for target in ("/api/v1/locate", "/api/v1/locate?path=", "/api/v1/locate?path=/elsewhere"):
        answer = replica.ask("GET", target)
        assert answer.status == 400, answer
        assert answer.text.rstrip("\n").count("\n") == 0


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/test/v1", "/api/v1/ring", "/api/v1/sd", PATH])
def test_head_is_get_without_the_body(replica, path):
    with Connection(replica.address) as connection:
        whole = connection.ask("GET", path)
        head = connection.ask("HEAD", path)
        again = connection.ask("GET", path)
    assert (head.status, head.body, again.status) == (200, b"", 200)
    assert head.header("Content-Type") == whole.header("Content-Type")
    assert int(head.header("Content-Length")) > 0


@pytest.mark.parametrize("path", ["/-/reload", "/-/quit"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_lifecycle_is_403_without_its_flag(replica, path, method):
    answer = replica.ask(method, path)
    assert answer.status == 403
    assert answer.text.strip() and answer.text.rstrip("\n").count("\n") == 0
    assert replica.push(PATH).status == 200


def test_metrics_have_their_names_and_promtool_has_nothing_to_say(lab, shards, replica):
    assert replica.push(PATH).status == 200
    assert replica.push("/metrics/job/a/odd").status == 400
    assert replica.ask("GET", "/nothing").status == 404
    assert replica.ask("PATCH", PATH).status == 405
    answer = replica.ask("GET", "/metrics")
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=answer.body, capture_output=True, timeout=20, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b""), result
    found = replica.metrics()
    # Counters that have counted nothing of a label's yet may be absent; these have.
    assert [name for name in METRICS if name not in found] == []
    assert all(name in answer.text for name in METRICS)
    assert not [name for name in found if not name.startswith(("shardd_", "process_"))]


@pytest.mark.core
def test_metrics_count_what_happened(shards, replica):
    for number in range(20):
        assert replica.push(f"/metrics/job/a/n/{number}").status == 200
    assert replica.ask("DELETE", "/metrics/job/a/n/1").status == 202
    assert replica.push("/metrics/job/a/odd").status == 400
    found = replica.metrics()
    assert replica.metric("shardd_requests_total", method="PUT", code="200") == 20
    assert replica.metric("shardd_requests_total", method="DELETE", code="202") == 1
    assert replica.metric("shardd_requests_total", method="PUT", code="400") == 1
    assert replica.metric("shardd_shard_requests_total", code="200") == 20
    assert replica.metric("shardd_shard_response_seconds_count") == 22
    # Pushes alone: not this test's scrapes, nor the probes of its balancer.
    replica.ask("GET", "/-/healthy")
    replica.ask("GET", "/nothing")
    assert replica.metric("shardd_request_duration_seconds_count") == 22
    assert replica.metric("shardd_request_duration_seconds_sum") > 0
    assert replica.metric("shardd_log_dropped_total") == 0
    assert replica.metric("shardd_ring_shards") == 3
    assert replica.metric("shardd_ring_generation") == 1
    assert sum(found["shardd_ring_share_ratio"].values()) == pytest.approx(1)
    assert list(found["shardd_shard_up"].values()) == [1, 1, 1]
    assert abs(found["shardd_ring_last_change_timestamp_seconds"][frozenset()] - time.time()) < 60
    assert found["shardd_config_last_reload_successful"][frozenset()] == 1
    assert abs(found["shardd_config_last_reload_success_timestamp_seconds"][frozenset()] - time.time()) < 60
    assert found["process_open_fds"][frozenset()] == pytest.approx(replica.descriptors(), abs=3)
    labels = {name for samples in found.values() for sample in samples for name, _ in sample}
    assert labels <= {
        "method",
        "code",
        "le",
        "shard",
        "reason",
        "result",
        "version",
        "swiftversion",
        "builddate",
        "revision",
        "direction",
    }


def test_a_real_prometheus_reads_the_targets(lab, shards, replica):
    targets = replica.json("/api/v1/sd")
    assert sorted(target for group in targets for target in group["targets"]) == sorted(replica.shards())
    assert replica.push("/metrics/job/scraped", "scraped_value 42\n").status == 200
    prometheus = lab.prometheus("targets", by_http(replica))
    wait_until(lambda: prometheus.targets() == replica.shards(), "Prometheus scrapes all shards", timeout=30)
    found = wait_until(lambda: prometheus.query('scraped_value{job="scraped"}'), "the value is scraped", timeout=30)
    assert [sample["value"][1] for sample in found] == ["42"]
