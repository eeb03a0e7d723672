"""Ending: every request received is answered, and two replicas on one port restart without a loss."""

import signal
import threading
import time

import pytest

from harness.http import Connection
from harness.net import wait_until
from harness.stub import OK

# Two replicas may have one port only if both say so.
SHARED_PORT = {"reuse_port": True}
PATH = "/metrics/job/a"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_replica_ends_at_once_with_0(lab, number):
    replica = lab.shardd(lab.pushgateways(1))
    with Connection(replica.address) as connection:
        assert connection.ask("PUT", PATH, b"x 1\n").status == 200
        began = time.monotonic()
        replica.send(number)
        assert replica.wait() == 0
        assert time.monotonic() - began < 2
        assert connection.is_closed()


@pytest.mark.core
def test_what_is_in_flight_is_answered(lab):
    release = threading.Event()

    def answer(request):
        release.wait(20)
        return OK

    stub = lab.stub(answer)
    replica = lab.shardd([stub], check={"interval": "60s"}, forward={"connections_per_shard": 1, "pipeline_depth": 2})
    connections = [Connection(replica.address) for _ in range(6)]
    for connection in connections:
        connection.request("PUT", PATH, b"x 1\n")
    half = Connection(replica.address)
    half.send(b"PUT /metrics/job/half HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nx ")
    kept = Connection(replica.address)
    assert kept.ask("GET", "/-/ready").status == 200
    wait_until(lambda: replica.metric("shardd_requests_in_flight") >= 6, "they are in flight")
    replica.send(signal.SIGTERM)
    wait_until(lambda: refuses(replica.address), "it accepts no more")
    half.send(b"1\n")
    time.sleep(0.2)
    release.set()
    for connection in [*connections, half]:
        response = connection.read()
        assert response.status == 200
        assert response.header("Connection") == "close"
        assert connection.is_closed()
    assert replica.wait() == 0
    assert len(stub.requests) == 7


def refuses(address):
    try:
        Connection(address).close()
        return False
    except ConnectionError:
        return True


def test_ready_is_503_while_it_drains(lab):
    release = threading.Event()
    stub = lab.stub(lambda request: OK if release.wait(20) else OK)
    replica = lab.shardd([stub], check={"interval": "60s"})
    with Connection(replica.address) as busy, Connection(replica.address) as second:
        # A pipelined question behind the push is answered after it: by then the replica drains.
        second.send(
            b"PUT /metrics/job/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nx 1\n"
            b"GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        busy.request("PUT", PATH, b"x 1\n")
        wait_until(lambda: replica.metric("shardd_requests_in_flight") >= 2, "they are in flight")
        replica.send(signal.SIGTERM)
        time.sleep(0.3)
        release.set()
        assert busy.read().status == 200
        assert second.read().status == 200
        assert second.read().status == 503
        assert replica.wait() == 0


def test_the_grace_ends_what_does_not(lab):
    shard = lab.pushgateway()
    replica = lab.shardd(
        [shard], check={"interval": "60s"}, forward={"response_timeout": "60s"}, shutdown={"grace": "1s"}
    )
    assert replica.push(PATH).status == 200
    shard.pause()
    with Connection(replica.address) as stuck:
        stuck.request("PUT", PATH, b"x 1\n")
        wait_until(lambda: replica.metric("shardd_requests_in_flight") >= 1, "it is in flight")
        began = time.monotonic()
        replica.send(signal.SIGTERM)
        assert replica.wait() == 0
        assert 0.8 < time.monotonic() - began < 3
    shard.resume()


def test_quit_by_request(lab):
    replica = lab.shardd(lab.pushgateways(1), arguments=["--web.enable-lifecycle"])
    assert replica.ask("POST", "/-/quit").status == 200
    assert replica.wait() == 0


@pytest.mark.core
def test_sigterm_under_load_answers_all(lab):
    """The load goes to two replicas on one port; one of them ends."""
    shards = lab.pushgateways(3)
    first = lab.shardd(shards, web=SHARED_PORT)
    second = lab.shardd(shards, address=first.address, web=SHARED_PORT)
    with lab.load(second, shards, retry_stale=True) as load:
        first.send(signal.SIGTERM)
        assert first.wait() == 0
        load.pushes_more()
        load.check()
    load.check_readable()


def test_a_rolling_restart_of_two_replicas_on_one_port_loses_nothing(lab):
    shards = lab.pushgateways(3)
    replicas = [lab.shardd(shards, web=SHARED_PORT)]
    replicas.append(lab.shardd(shards, address=replicas[0].address, web=SHARED_PORT))
    with lab.load(replicas[0], shards, retry_stale=True) as load:
        for _ in range(3):
            for replica in replicas:
                replica.send(signal.SIGTERM)
                assert replica.wait() == 0
                load.pushes_more(100)
                starts = replica.log().count("is listening")
                replica.start()
                wait_until(lambda: replica.log().count("is listening") > starts, "it listens")
                load.pushes_more(100)
        load.check()
    load.check_readable()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("taken_by", ["pushgateway", "replica", "replica that shares"])
def test_a_taken_port_is_an_error_and_1(lab, taken_by, workers):
    """Whoever has it, and though the newcomer, or the one that is there, would share it."""
    shard = lab.pushgateway()
    sharing = {"web": SHARED_PORT}
    for newcomer in ({}, sharing):
        if taken_by == "pushgateway":
            owner = shard
        elif taken_by == "replica":
            owner = lab.shardd([shard], workers=2)
        elif newcomer:
            # Both share: that is what test_sigterm_under_load_answers_all is about.
            continue
        else:
            owner = lab.shardd([shard], workers=2, **sharing)
        replica = lab.shardd([shard], address=owner.address, wait=False, workers=workers, **newcomer)
        assert replica.wait() == 1
        (line,) = replica.log().strip().splitlines()
        assert owner.address.text in line and "another process has the port" in line, line
        assert owner.is_ready()
