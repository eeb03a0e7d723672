"""Several event loops on one port: everything that one does, and their figures add up."""

import os
import pathlib
import signal
import threading

import pytest

from harness.http import Connection
from harness.net import wait_until

PATH = "/metrics/job/workers"


def thread_count(replica):
    with open(f"/proc/{replica.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


@pytest.mark.core
def test_pushes_are_spread_and_counted_together(lab):
    replica = lab.shardd(lab.pushgateways(3), workers=3)
    assert thread_count(replica) >= 3
    before = replica.metric("shardd_requests_total", method="PUT", code="200")
    connections = [Connection(replica.address) for _ in range(60)]
    for number, connection in enumerate(connections):
        assert connection.ask("PUT", f"{PATH}/n/{number}", b"x 1\n").status == 200
    # The kernel spreads connections over the sockets: each worker has some, and every scrape sees all.
    for connection in connections:
        text = connection.ask("GET", "/metrics").text
        assert 'shardd_requests_total{method="PUT",code="200"} %d' % (before + 60) in text
        assert "shardd_connections 6" in text
    for connection in connections:
        connection.close()


def watched_descriptors(replica):
    """How many descriptors each of the process's loops watches (proc_pid_fdinfo(5))."""
    folder = pathlib.Path(f"/proc/{replica.pid}")
    loops = [fd.name for fd in (folder / "fd").iterdir() if "eventpoll" in os.readlink(fd)]
    return {loop: (folder / "fdinfo" / loop).read_text().count("tfd:") for loop in loops}


def test_one_socket_listens_and_each_worker_gets_as_many_connections(lab):
    replica = lab.shardd(lab.pushgateways(1), workers=3, limits={"connections": 60})
    with open("/proc/net/tcp") as file:
        ends = [line.split()[1:4:2] for line in file]
    octets = "".join(f"{int(octet):02X}" for octet in reversed(replica.address.host.split(".")))
    listening = [local for local, state in ends if state == "0A" and local == f"{octets}:{replica.address.port:04X}"]
    assert len(listening) == 1, ends
    before = watched_descriptors(replica)
    connections = [Connection(replica.address) for _ in range(30)]
    wait_until(lambda: replica.metric("shardd_connections") == 31, "all are accepted")

    def shares():
        return [count - before.get(loop, 0) for loop, count in watched_descriptors(replica).items()]

    wait_until(lambda: sorted(shares())[-3:] == [10, 10, 10], f"each worker has ten: {shares()}")
    for connection in connections:
        connection.close()


@pytest.mark.core
def test_workers_that_are_full_leave_connections_to_others(lab):
    replica = lab.shardd(lab.pushgateways(1), workers=3, limits={"connections": 30})
    connections = []
    # Beyond the limit, each newcomer takes the place of one that rests.
    for number in range(90):
        connections.append(Connection(replica.address))
        assert connections[-1].ask("PUT", f"{PATH}/n/{number}", b"x 1\n").status == 200
    for connection in connections:
        connection.close()


@pytest.mark.core
def test_rings_reloads_and_faults_reach_every_worker(lab):
    gateways = lab.pushgateways(3)
    replica = lab.shardd(gateways, workers=2, arguments=["--web.enable-lifecycle"])
    with lab.load(replica, gateways) as load:
        load.pushes_more()
        gateways[0].send(signal.SIGKILL)
        wait_until(lambda: len(replica.shards()) == 2, "the killed shard leaves the ring")
        load.pushes_more()
        gateways[0].wait()
        gateways[0].start().wait_ready()
        wait_until(lambda: len(replica.shards()) == 3, "it comes back")
        load.pushes_more()
        for _ in range(10):
            # Whichever worker has the connection.
            assert replica.ask("POST", "/-/reload").status == 200
        load.pushes_more()
        load.check()


@pytest.mark.core
def test_every_worker_answers_for_the_server_under_load(lab):
    gateways = lab.pushgateways(2)
    replica = lab.shardd(gateways, workers=3, arguments=["--web.enable-lifecycle"])
    # As one socket hands connections out in turn, each worker has some of these.
    connections = [Connection(replica.address) for _ in range(6)]
    with lab.load(replica, gateways) as load:
        for connection in connections:
            for target in ("/metrics", "/-/ready", "/api/v1/ring", "/api/v1/sd", f"/api/v1/locate?path={PATH}"):
                answer = connection.ask("GET", target)
                assert answer.status == 200, answer
            assert connection.ask("POST", "/-/reload").status == 200
        load.pushes_more()
        load.check()
    # One of two in a row is not on the server's own loop; asked again, shardd ends at once.
    for connection in connections[:2]:
        assert connection.ask("POST", "/-/quit").status == 200
    for connection in connections:
        connection.close()
    assert replica.wait() == 0


@pytest.mark.core
def test_shutdown_answers_on_every_worker(lab):
    replica = lab.shardd(lab.pushgateways(2), workers=2)
    connections = [Connection(replica.address) for _ in range(20)]
    for connection in connections:
        assert connection.ask("PUT", PATH, b"x 1\n").status == 200
    answers = []

    def push(connection):
        answers.append(connection.ask("PUT", PATH, b"x 2\n").status)

    threads = [threading.Thread(target=push, args=[connection]) for connection in connections]
    replica.send(signal.SIGTERM)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20
    assert replica.wait() == 0
