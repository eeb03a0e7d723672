"""Several event loops on one port: everything that one does, and their figures add up."""

import signal
import threading

from harness.http import Connection
from harness.net import wait_until

PATH = "/metrics/job/workers"


def thread_count(replica):
    with open(f"/proc/{replica.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


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
