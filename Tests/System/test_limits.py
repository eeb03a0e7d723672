"""Too many connections, and no descriptors left: no spinning, no crash, and service again afterwards."""

import time

from harness.http import Closed, Connection
from harness.net import wait_until

PATH = "/metrics/job/a"


def answers(connection):
    try:
        return connection.ask("PUT", PATH, b"x 1\n").status
    except (OSError, Closed) as error:
        return type(error).__name__


def test_connections_over_the_limit_are_turned_away(lab):
    replica = lab.shardd(lab.pushgateways(1), limits={"connections": 10})
    kept = [Connection(replica.address) for _ in range(10)]
    assert [connection.ask("PUT", PATH, b"x 1\n").status for connection in kept] == [200] * 10
    for _ in range(30):
        with Connection(replica.address) as extra:
            # Turned away: told so, or just closed; never served, and never left hanging.
            assert answers(extra) in (503, "Closed", "ConnectionResetError", "BrokenPipeError")
    assert [connection.ask("PUT", PATH, b"x 1\n").status for connection in kept] == [200] * 10
    for connection in kept:
        connection.close()
    wait_until(lambda: try_push(replica) == 200, "there is room again")
    assert replica.metric("shardd_rejected_total") >= 30


def try_push(replica):
    try:
        return replica.push(PATH).status
    except (OSError, Closed):
        return None


def test_running_out_of_descriptors_neither_spins_nor_stops_the_server(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard], limit_descriptors=64)
    assert replica.push(PATH).status == 200
    kept = []
    for _ in range(200):
        connection = Connection(replica.address, timeout=3)
        kept.append(connection)
    wait_until(lambda: replica.descriptors() >= 55, "it has taken what it can")
    time.sleep(0.5)
    share = replica.cpu_share(2)
    assert share < 0.2, f"{share:.0%} of a core while it can accept nothing"
    # Those that were accepted are served, or told that there is no room.
    first = [answers(connection) for connection in kept[:20]]
    assert set(first) <= {200, 503}, first
    assert 200 in first, first
    for connection in kept:
        connection.close()
    wait_until(lambda: try_push(replica) == 200, "it accepts again")
    assert [replica.push(PATH).status for _ in range(100)] == [200] * 100


def test_a_thousand_idle_connections_cost_no_cpu(lab):
    replica = lab.shardd(lab.pushgateways(1))
    kept = [Connection(replica.address) for _ in range(1000)]
    wait_until(lambda: replica.metric("shardd_connections") >= 1000, "all are counted")
    assert replica.cpu_share(2) < 0.1
    assert {connection.ask("PUT", PATH, b"x 1\n").status for connection in kept[::50]} == {200}
    for connection in kept:
        connection.close()
    wait_until(lambda: replica.metric("shardd_connections") <= 1, "all are gone")
