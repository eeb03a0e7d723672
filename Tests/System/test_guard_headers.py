"""The guard judges a body by the headers that reach the shard, however the client has written them."""

import gzip
import threading
import time

import pytest
from harness.bodies import CANARY, scrape_problem
from harness.net import wait_until
from harness.http import Connection
from harness.protobuf import CONTENT_TYPE
from harness.pushgateway import NEWEST

PROGRAMS = {"1.5": "prometheus-pushgateway", "1.11": NEWEST}
BAD = b"# HELP x \xff\xfe\nx 1\n"
HIDDEN = {
    "Connection names Content-Encoding": ([b"Connection: content-encoding", b"Content-Encoding: gzip"], BAD),
    "Connection names it beside others": ([b"Connection: keep-alive,\tContent-Encoding", b"Content-Encoding: gzip"], BAD),
    "a second Connection header": (
        [b"Connection: keep-alive", b"Content-Encoding: gzip", b"connection: CONTENT-ENCODING"],
        BAD,
    ),
    "Connection names Content-Type": ([b"Connection: content-type", b"Content-Type: " + CONTENT_TYPE.encode()], BAD),
    "a tab before the coding": ([b"Content-Encoding:\tgzip"], gzip.compress(BAD)),
    "blanks and tabs before the coding": ([b"Content-Encoding: \t gzip"], gzip.compress(BAD)),
    "blanks behind the coding": ([b"Content-Encoding: gzip \t "], gzip.compress(BAD)),
    "a tab before the type": ([b"Content-Type:\ttext/plain"], BAD),
}


def request(path, headers, body):
    lines = [b"PUT " + path + b" HTTP/1.1", b"Host: a", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize("program", PROGRAMS)
def test_headers_that_do_not_reach_the_shard_hide_nothing(lab, program):
    shard = lab.pushgateway(program=PROGRAMS[program])
    replica = lab.shardd([shard])
    assert replica.push("/metrics/job/zz", CANARY).status == 200
    for name, (headers, body) in HIDDEN.items():
        with Connection(replica.address) as connection:
            connection.send(request(b"/metrics/job/t", headers, body))
            assert connection.read().status == 400, name
        assert scrape_problem(shard.address) is None, name


def test_a_body_that_takes_long_to_judge_holds_up_no_other_push(lab):
    """64 kB that inflate to 63 MB, of the kinds that take longest."""
    shard = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([shard])
    bodies = [
        (gzip.compress(b"\0" * 60_000_000, 9), CONTENT_TYPE),
        (gzip.compress(b"\n" * 60_000_000, 9), "text/plain"),
        (gzip.compress((b"# TYPE a " + b"x" * 30 + b"m\n") * 1_500_000, 9), "text/plain"),
    ]
    statuses = []

    def attack(body, kind):
        with Connection(replica.address, timeout=60) as connection:
            head = [b"Content-Encoding: gzip", b"Content-Type: " + kind.encode()]
            connection.send(request(b"/metrics/job/slow", head, body))
            statuses.append(connection.read().status)

    attackers = [threading.Thread(target=attack, args=bodies[number % 3]) for number in range(6)]
    for attacker in attackers:
        attacker.start()
    slowest, count = 0, 0
    while any(attacker.is_alive() for attacker in attackers):
        began = time.monotonic()
        assert replica.push(f"/metrics/job/good/n/{count % 50}").status == 202
        slowest, count = max(slowest, time.monotonic() - began), count + 1
    for attacker in attackers:
        attacker.join()
    assert len(statuses) == 6 and set(statuses) <= {200, 202, 400, 413}, statuses
    assert slowest < 0.5 and count > 10, (slowest, count)


def test_a_client_that_goes_while_its_body_is_judged_costs_nothing(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard])
    body = gzip.compress(b"\n" * 30_000_000, 9)
    for _ in range(5):
        with Connection(replica.address) as connection:
            connection.send(request(b"/metrics/job/gone", [b"Content-Encoding: gzip"], body))
            time.sleep(0.02)
    assert replica.push("/metrics/job/good", "x 1\n").status == 200
    wait_until(lambda: replica.metric("shardd_requests_in_flight") == 0, "the last body is judged")


def test_one_pipelined_request_of_a_connection_is_answered_in_a_turn(lab):
    """However many a client sends at once, others' come between."""
    shard = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([shard])
    many = b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000
    clients = [Connection(replica.address, timeout=60) for _ in range(20)]

    def flood(client):
        try:
            client.send(many)
        except OSError:
            pass

    def drain(client):
        try:
            while client.socket.recv(1 << 16):
                pass
        except OSError:
            pass

    threads = [threading.Thread(target=work, args=(client,)) for client in clients for work in (flood, drain)]
    for thread in threads:
        thread.start()
    slowest = 0
    for number in range(60):
        began = time.monotonic()
        assert replica.push(f"/metrics/job/good/n/{number}").status == 202
        slowest = max(slowest, time.monotonic() - began)
    for client in clients:
        client.socket.close()
    for thread in threads:
        thread.join(10)
    assert slowest < 0.3, slowest
