"""Logs: both formats parse, and they tell of changes of state and never of single pushes."""

import datetime
import json
import re
import signal

import pytest

from harness.cluster import Cluster
from harness.http import Connection
from harness.net import wait_until

LOGFMT = re.compile(r'(?:^| )([a-zA-Z_.-]+)=("(?:[^"\\]|\\.)*"|[^ "]*)')


def parse_logfmt(line):
    pairs = LOGFMT.findall(line)
    # Nothing may be left over between the pairs.
    assert " ".join(f"{key}={value}" for key, value in pairs) == line, line
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


PARSERS = {"json": json.loads, "logfmt": parse_logfmt}


@pytest.mark.parametrize("name", PARSERS)
def test_every_line_parses(lab, name):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, arguments=[f"--log.format={name}", "--web.enable-lifecycle", "--log.level=debug"])
    for path in ("/metrics/job/a", "/metrics/job/%22quoted%22/x/a=b%20c%0Ad", "/metrics/job/ünï"):
        replica.ask("PUT", path.encode().decode("latin-1"), b"x 1\n")
    shards[0].kill()
    wait_until(lambda: len(replica.shards()) == 1, "the killed shard is out")
    replica.write_config("a: [\n")
    assert replica.ask("POST", "/-/reload").status >= 400
    assert replica.stop() == 0
    entries = [PARSERS[name](line) for line in replica.log().splitlines()]
    assert len(entries) > 5
    for entry in entries:
        assert entry["level"] in ("debug", "info", "warn", "error")
        assert entry["msg"]
        assert (
            abs(
                datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp()
                - datetime.datetime.now().timestamp()
            )
            < 120
        )


def test_pushes_are_not_logged_at_info(lab):
    replica = lab.shardd(lab.pushgateways(1))
    before = len(replica.log().splitlines())
    for number in range(50):
        assert replica.push(f"/metrics/job/secretive/n/{number}").status == 200
    assert "secretive" not in replica.log()
    assert len(replica.log().splitlines()) == before


def entries(replica, message):
    return [entry for entry in map(parse_logfmt, replica.log().splitlines()) if entry["msg"] == message]


def test_each_request_is_logged_at_debug(lab):
    (shard,) = shards = lab.pushgateways(1)
    replica = lab.shardd(shards, arguments=["--log.level=debug"])
    requests = [
        ("PUT", "/metrics/job/a", "200", shard.address.text),
        ("PUT", "/metrics/job/a/odd", "400", shard.address.text),
        ("DELETE", "/metrics/job/a", "202", shard.address.text),
        ("GET", "/metrics/job/a", "200", None),
        ("GET", "/nothing", "404", None),
        ("PATCH", "/metrics/job/a", "405", None),
        ("GET", "/api/v1/ring", "200", None),
    ]
    for method, path, status, _ in requests:
        answer = replica.ask(method, path + "?secret=query", b"x 1\n" if method == "PUT" else b"")
        assert str(answer.status) == status
    told = [entry for entry in entries(replica, "request") if entry["path"] != "/-/ready"]
    assert [(entry["method"], entry["path"], entry["status"], entry.get("shard")) for entry in told] == requests
    assert all(0 <= float(entry["duration"].removesuffix("s")) < 5 for entry in told)
    assert float(told[0]["duration"].removesuffix("s")) > 0
    with Connection(replica.address) as connection:
        connection.send(b"GET  / HTTP/1.1\r\n\r\n")
        assert connection.read().status == 400
    (refused,) = entries(replica, "request refused")
    assert refused["status"] == "400" and refused["reason"]


def test_the_level_of_a_reload_holds_for_requests(lab):
    replica = lab.shardd(lab.pushgateways(1), arguments=["--web.enable-lifecycle"], workers=2)
    assert replica.push("/metrics/job/quiet").status == 200
    replica.change_config(log={"level": "debug"})
    assert replica.ask("POST", "/-/reload").status == 200
    for number in range(4):
        assert replica.push(f"/metrics/job/loud/n/{number}").status == 200
    replica.change_config(log={"level": "info"})
    assert replica.ask("POST", "/-/reload").status == 200
    for _ in range(4):
        assert replica.push("/metrics/job/quiet").status == 200
    assert len([entry for entry in entries(replica, "request") if "/loud" in entry["path"]]) == 4
    assert "quiet" not in replica.log()


def test_a_push_whose_client_has_gone_is_logged(lab):
    (shard,) = shards = lab.pushgateways(1)
    replica = lab.shardd(shards, arguments=["--log.level=debug"], check={"interval": "60s"})
    shard.pause()
    with Connection(replica.address) as connection:
        connection.request("PUT", "/metrics/job/left", b"x 1\n")
        wait_until(lambda: replica.metric("shardd_requests_in_flight") == 1, "it is in flight")

    def told():
        return [entry["status"] for entry in entries(replica, "request") if entry["path"] == "/metrics/job/left"]

    wait_until(lambda: told() == ["none: the client has gone"], "it is logged")


LEFT = "shard has left the ring"


def test_a_shard_that_leaves_is_logged_with_its_reason(lab):
    shards = lab.pushgateways(4)
    replica = lab.shardd(shards)
    killed, unhealthy, unnamed, _ = shards

    def leaves(shard, reason, level="info"):
        wait_until(lambda: shard.address.text not in replica.shards(), "it has left the ring")
        (entry,) = [entry for entry in entries(replica, LEFT) if entry["shard"] == shard.address.text]
        assert reason in entry["reason"] and entry["level"] == level, entry

    killed.kill()
    leaves(killed, "its probes fail: it refuses connections")
    unhealthy.pause()
    leaves(unhealthy, "its probes fail: no response in time")
    replica.change_config(pushgateway={"servers": [shard.address.text for shard in shards if shard is not unnamed]})
    replica.send(signal.SIGHUP)
    leaves(unnamed, "pushgateway.servers does not name it any more")
    # What comes back is no reason to wake anybody: one entry each that tells of the ring, none of them at warn.
    size = len(replica.log())
    unhealthy.resume()
    wait_until(lambda: unhealthy.address.text in replica.shards(), "it is back")
    later = [parse_logfmt(line) for line in replica.log()[size:].splitlines()]
    assert {entry["level"] for entry in later} == {"info"}, later
    assert [entry["joined"] for entry in later if entry["msg"] == "ring changed"] == [unhealthy.address.text]


def test_a_shard_that_leaves_in_consul_is_logged_with_its_reason(lab):
    consul = lab.consul()
    shards = lab.pushgateways(4)
    for shard in shards:
        consul.register(shard.address)
    replica = lab.shardd(shards, consul=consul, consul_server={"register": False})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    killed, maintained, unnamed, _ = shards

    def leaves(shard, *words):
        wait_until(lambda: shard.address.text not in replica.shards(), "it has left the ring")
        (entry,) = [entry for entry in entries(replica, LEFT) if entry["shard"] == shard.address.text]
        assert all(word in entry["reason"] for word in words) and entry["level"] == "info", entry

    consul.set_maintenance(maintained.address, True)
    leaves(maintained, "it is in maintenance in Consul")
    consul.deregister(unnamed.address)
    leaves(unnamed, "Consul no longer names it")
    killed.kill()
    leaves(killed, "is critical", "connection refused")


@pytest.mark.parametrize("with_consul", [False, True])
def test_no_value_of_logfmt_is_json(lab, with_consul):
    """Through all that changes: shards that die, return, join and leave, a bad reload, runs that move groups."""
    cluster = Cluster(lab, 3, consul=with_consul)
    (replica,) = cluster.replicas
    for number in range(30):
        cluster.request("PUT", f"/metrics/job/{number}", "x 1\n")
    cluster.shards[0].kill()
    wait_until(lambda: len(replica.shards()) == 2, "it is out")
    for number in range(30):
        cluster.request("PUT", f"/metrics/job/{number}", "x 2\n")
    cluster.shards[0].start().wait_ready()
    cluster.check_reconciled()
    replica.write_config("shards: 3\nalso: 4\n")
    replica.send(signal.SIGHUP)
    wait_until(lambda: "has not been reloaded" in replica.log(), "the bad file is refused")
    for line in replica.log().splitlines():
        for key, value in parse_logfmt(line).items():
            assert not re.search(r'[\[{]"|"[\]}]', value), (key, value)


def test_changes_are_logged_once_each(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards)
    shards[1].kill()
    wait_until(lambda: len(replica.shards()) == 1, "the killed shard is out")
    lines = [line for line in replica.log().splitlines() if shards[1].address.text in line]
    shards[1].start().wait_ready()
    wait_until(lambda: len(replica.shards()) == 2, "it is back")
    assert 1 <= len(lines) <= 4, lines
