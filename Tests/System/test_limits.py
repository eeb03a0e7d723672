"""Too many connections, and no descriptors left: no spinning, no crash, and service again afterwards."""

import threading
import time

from harness.http import Closed, Connection
from harness.net import wait_until
from harness.stub import OK

PATH = "/metrics/job/a"


def status_on(connection):
    """The status of a push, or None where the connection is closed instead."""
    try:
        return connection.ask("PUT", PATH, b"x 1\n").status
    except (ConnectionError, Closed):
        return None


def test_at_the_limit_idle_connections_make_way(lab):
    replica = lab.shardd(lab.pushgateways(1), limits={"connections": 10})
    kept = []
    for _ in range(40):
        kept.append(Connection(replica.address))
        assert status_on(kept[-1]) == 200
    assert replica.metric("shardd_connections") <= 10
    # The latest stayed; the longest idle went.
    assert [status_on(connection) for connection in kept[-5:]] == [200] * 5
    assert [status_on(connection) for connection in kept[:5]] == [None] * 5
    for connection in kept:
        connection.close()


def test_at_the_limit_of_busy_connections_new_ones_wait_their_turn(lab):
    release = threading.Event()

    def answer(request):
        release.wait(20)
        return OK

    replica = lab.shardd([lab.stub(answer)], check={"interval": "60s"}, limits={"connections": 10})
    connections = [Connection(replica.address) for _ in range(30)]
    for connection in connections:
        connection.request("PUT", PATH, b"x 1\n")
    time.sleep(0.5)
    # Ten clients and their parsers, eight connections to the shard and a question to it, and what there is without any.
    assert replica.descriptors() < 48
    assert replica.cpu_share(1) < 0.1
    release.set()
    assert [connection.read().status for connection in connections] == [200] * 30
    for connection in connections:
        connection.close()
    wait_until(lambda: replica.push(PATH).status == 200, "there is room again")


def test_few_descriptors_are_shared_out_before_they_run_out(lab):
    """The limit on connections gives way to the limit on open files, so that shards can still be connected to."""
    replica = lab.shardd(lab.pushgateways(1), limit_descriptors=64)
    kept = []
    for _ in range(100):
        kept.append(Connection(replica.address))
        assert status_on(kept[-1]) == 200
    assert replica.descriptors() < 64
    assert "open_files" in replica.log()
    for connection in kept:
        connection.close()


def test_running_out_of_descriptors_neither_spins_nor_stops_the_server(lab):
    """The limit is lowered while it runs: as it starts it would arrange itself with any."""
    replica = lab.shardd(lab.pushgateways(1))
    with Connection(replica.address) as served:
        assert status_on(served) == 200
        replica.limit_descriptors_to(replica.next_descriptor() + 2)
        waiting = [Connection(replica.address, timeout=30) for _ in range(50)]
        time.sleep(0.5)
        share = replica.cpu_share(2)
        assert share < 0.2, f"{share:.0%} of a core while it can accept nothing"
        assert status_on(served) == 200
        for connection in waiting[10:]:
            connection.close()
        replica.limit_descriptors_to(4096)
        assert [status_on(connection) for connection in waiting[:10]] == [200] * 10
        for connection in waiting:
            connection.close()
    assert [replica.push(PATH).status for _ in range(100)] == [200] * 100


def test_no_descriptor_for_a_shard_is_503_and_passes(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard], check={"interval": "60s"})
    with Connection(replica.address) as served:
        assert served.ask("GET", "/-/ready").status == 200
        # What the start took (a probe, say) has been given back.
        time.sleep(0.3)
        replica.limit_descriptors_to(replica.next_descriptor())
        answer = served.ask("PUT", PATH, b"x 1\n")
        assert answer.status == 503, answer
        assert answer.header("Retry-After")
        replica.limit_descriptors_to(4096)
        assert served.ask("PUT", PATH, b"x 1\n").status == 200


def test_a_thousand_idle_connections_cost_no_cpu(lab):
    replica = lab.shardd(lab.pushgateways(1))
    kept = [Connection(replica.address) for _ in range(1000)]
    wait_until(lambda: replica.metric("shardd_connections") >= 1000, "all are counted")
    assert replica.cpu_share(2) < 0.1
    assert {connection.ask("PUT", PATH, b"x 1\n").status for connection in kept[::50]} == {200}
    for connection in kept:
        connection.close()
    wait_until(lambda: replica.metric("shardd_connections") <= 1, "all are gone")
