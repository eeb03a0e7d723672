"""A replica that is stopped for seconds and goes on (a paused machine, SIGSTOP): meanwhile its clients have gone, and others
have pushed to their groups by way of another replica."""

import threading
import time

import pytest

from harness.http import Connection, ask
from harness.net import wait_until

NO_PROBES = {"interval": "60s", "timeout": "1s"}


def values(gateway):
    """What the groups with a label `n` have of `x`, by that label."""
    samples = [(name, dict(labels), value) for (name, labels), value in gateway.samples().items()]
    return {labels["n"]: value for name, labels, value in samples if name == "x" and "n" in labels}


@pytest.mark.parametrize("connected", ["before", "while stopped"])
@pytest.mark.parametrize("body", ["x 1\n", "x 1\n" + "# long\n" * 10_000], ids=["small", "large"])
def test_requests_of_clients_that_have_gone_are_not_forwarded(lab, connected, body):
    gateway = lab.pushgateway("--push.disable-consistency-check")
    stopped, other = (lab.shardd([gateway], check=NO_PROBES) for _ in range(2))
    paths = [f"/metrics/job/a/n/{number}" for number in range(100)]
    assert stopped.push("/metrics/job/first").status == 202

    def connect():
        return [Connection(stopped.address) for _ in paths]

    clients = connect() if connected == "before" else []
    if clients:
        # Each has had an answer, so that its connection is one that shardd watches.
        for connection in clients:
            assert connection.ask("PUT", "/metrics/job/first", b"y 1\n").status == 202
    stopped.pause()
    clients = clients or connect()

    def push_and_leave(connection, path):
        try:
            connection.request("PUT", path, body.encode())
        except OSError:
            pass
        connection.close()

    threads = [threading.Thread(target=push_and_leave, args=pair) for pair in zip(clients, paths)]
    # Some are still there: they are served.
    staying = [Connection(stopped.address) for _ in range(5)]
    for number, connection in enumerate(staying):
        connection.request("PUT", f"/metrics/job/a/n/stays{number}", b"x 3\n")
    for thread in threads:
        thread.start()
    time.sleep(1)
    for path in paths:
        assert other.push(path, "x 2\n").status == 202
    stopped.resume()
    assert [connection.read().status for connection in staying] == [202] * 5
    for thread in threads:
        thread.join()
    wait_until(lambda: stopped.metric("shardd_connections") <= 6, "the disconnects are noticed")
    assert stopped.push("/metrics/job/last").status == 202
    expected = {str(number): 2.0 for number in range(100)} | {f"stays{number}": 3.0 for number in range(5)}
    wait_until(lambda: len(values(gateway)) == len(expected), "all are there")
    assert values(gateway) == expected


def test_what_was_queued_before_the_stop_is_dropped_too(lab):
    """The shard is a stub: it answers the first push when it is told to, so that others wait behind it."""
    release = threading.Event()

    def answer(request):
        release.wait(20)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    stub = lab.stub(answer)
    replica = lab.shardd([stub], check=NO_PROBES, forward={"connections_per_shard": 1, "pipeline_depth": 1})
    connections = [Connection(replica.address) for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.request("PUT", f"/metrics/job/a/n/{number}", b"x 1\n")
        if number == 0:
            wait_until(lambda: stub.requests, "the first is sent")
    wait_until(lambda: replica.metric("shardd_shard_in_flight") == 20, "the others wait")
    replica.pause()
    for connection in connections[1:-1]:
        connection.close()
    release.set()
    time.sleep(1)
    replica.resume()
    assert connections[0].read().status == connections[-1].read().status == 200
    assert [request.target for request in stub.requests] == ["/metrics/job/a/n/0", "/metrics/job/a/n/19"]


def test_a_stop_costs_nothing_else(lab):
    """Answers that have come meanwhile are passed on, and the connections to the shard stay."""
    gateway = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([gateway], check=NO_PROBES, forward={"response_timeout": "1s"})
    connections = [Connection(replica.address) for _ in range(60)]
    for connection in connections:
        assert connection.ask("PUT", "/metrics/job/a", b"x 1\n").status == 202
    for _ in range(3):
        for number, connection in enumerate(connections):
            connection.request("PUT", f"/metrics/job/a/n/{number}", b"x 1\n")
        replica.pause()
        time.sleep(1.5)
        replica.resume()
        assert {connection.read().status for connection in connections} == {202}
    assert replica.metric("shardd_shard_retries_total") == 0
    assert ask(replica.address, "PUT", "/metrics/job/a", b"x 1\n").status == 202
