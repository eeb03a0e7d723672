"""What requests notice of a run: nothing."""

import resource
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import Connection
from harness.net import wait_until
from harness.reconcile import owners, reconcile


@pytest.mark.seconds(240)
def test_no_request_waits_while_a_shard_of_a_hundred_thousand_series_is_listed_and_moved(lab):
    """Were runs made on the loop of the pushes, requests would wait as long as `shardd reconcile --dry-run` takes to read it,
    at each of the four looks at the least that a run takes. One or two may wait because the machine is busy."""
    cluster = Cluster(lab, 2, replicas=0, arguments=["--push.disable-consistency-check"])
    large, other = cluster.shards
    owned = owners(cluster.idle, cluster.shards, [f"/metrics/job/large/number/{number}" for number in range(200)])
    paths = [path for path, owner in owned.items() if owner == other.address.text][:40]
    series = [f'large{{series="{number}",text="a label as long as others"}} {number}.5\n' for number in range(2500)]
    for path in paths:
        cluster.place(large, path, "".join(series))
    wait_until(lambda: not scrape.differences(cluster.oracle, cluster.shards), "all is stored", 30)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert len(reconcile(cluster.idle, "--dry-run").moves) == len(paths)
    reading = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    cluster.start_replicas(1)
    (replica,) = cluster.replicas
    waits = []
    with Connection(replica.address) as connection:
        while cluster.metric("shardd_reconcile_runs_total", result="success") == 0:
            for _ in range(20):
                began = time.monotonic()
                assert connection.ask("GET", "/-/healthy").status == 200
                waits.append(time.monotonic() - began)
                time.sleep(0.002)
    assert replica.metric("shardd_reconcile_groups_moved_total") == len(paths)
    print(f"{len(waits)} requests, the longest {max(waits):.3f} s, the third {sorted(waits)[-3]:.3f} s; {reading:.3f} s of CPU to read all once")
    assert sorted(waits)[-3] < reading / 2
    cluster.check_reconciled(60)
