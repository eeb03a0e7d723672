"""Shards that hang (SIGSTOP), and go on with what their sockets have kept once they are back."""

import concurrent.futures
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.moving import BODY
from harness.net import wait_until
from harness.reconcile import owners


def test_a_shard_that_hangs_in_the_midst_of_a_run_gives_nothing_that_is_void(lab):
    """Others stand in for it meanwhile: what it has of their groups is older than what these have, and they have it alone."""
    cluster = Cluster(lab, 2, spare=2, consul=True, replicas=2, reconcile={"groups_per_second": 30})
    paths = [f"/metrics/job/midst/number/{number}" for number in range(1200)]
    before = owners(cluster.idle, cluster.shards, paths)
    new = {shard.address.text for shard in cluster.spare}
    after = owners(cluster.idle, cluster.shards + cluster.spare, paths)
    moving = {shard: [path for path in paths if before[path] == shard.address.text and after[path] in new] for shard in cluster.shards}
    for path in paths:
        cluster.request("PUT", path, BODY)
    cluster.scale_out()

    def moved():
        there = {path for shard in cluster.shards if shard.address.text in new for path in scrape.held(shard)}
        return {shard: there.intersection(paths) for shard, paths in moving.items()}

    wait_until(lambda: any(len(paths) > 150 for paths in moved().values()), "a run has moved some", 30)
    slow, done = max(moved().items(), key=lambda entry: len(entry[1]))
    left = [path for path in moving[slow] if path not in done]
    assert len(left) > 30, "the test needs more groups"
    slow.pause()
    for replica in cluster.replicas:
        wait_until(lambda: replica.states().get(slow.address.text) != "up", "others stand in for it", 30)
    for number, path in enumerate(left[:60]):
        cluster.request(*[("DELETE", path), ("PUT", path, "third 3\n"), ("POST", path, "# TYPE second gauge\nsecond 5\n")][number % 3])
    slow.resume()
    cluster.check_reconciled(timeout=90)


def test_a_shard_that_hangs_costs_no_push_once_it_is_out(lab):
    """Of the groups that it held, which others own now, and while it cannot be asked for them."""
    cluster = Cluster(lab, 3, replicas=1)
    hanging, replica = cluster.shards[1], cluster.replicas[0]
    paths = [f"/metrics/job/hang/number/{number}" for number in range(12)]
    for path in paths:
        cluster.request("POST", path, BODY)
    hanging.pause()
    wait_until(lambda: len(replica.shards()) == 2, "the hanging shard is out")
    began = time.monotonic()
    for path in paths:
        cluster.request("POST", path, "# TYPE first counter\nfirst 5\n")
        cluster.request("PUT", path, "# TYPE second gauge\nsecond 6\n")
    assert time.monotonic() - began < 5
    hanging.resume()
    wait_until(lambda: len(replica.shards()) == 3, "it is back")
    cluster.check_reconciled()


def test_a_flapping_shard_does_not_lose_groups(lab):
    """Static discovery: out and back several times under pushes, each time with what it had."""
    cluster = Cluster(lab, 3, replicas=1)
    paths = [f"/metrics/job/flap/number/{number}" for number in range(40)]
    for turn in range(3):
        for path in paths:
            cluster.request("POST", path, f"turn_{turn} {turn}\n")
        cluster.shards[1].pause()
        wait_until(lambda: len(cluster.replicas[0].shards()) == 2, "the paused shard is out")
        for path in paths[::3]:
            cluster.request("POST", path, f"out_{turn} {turn}\n")
        for path in paths[1::9]:
            cluster.request("DELETE", path)
        cluster.shards[1].resume()
        wait_until(lambda: len(cluster.replicas[0].shards()) == 3, "it is back")
    cluster.check_reconciled()


@pytest.mark.parametrize("consul", [False, True], ids=["static", "consul"])
def test_what_a_shard_does_late_is_not_newer_than_what_others_have_got_meanwhile(lab, consul):
    """Pushes that it was given before it was out, and that clients, who were told 504, have made again since."""
    cluster = Cluster(lab, 3, replicas=1, consul=consul, forward={"response_timeout": "2s"})
    hanging, replica = cluster.shards[1], cluster.replicas[0]
    paths = cluster.owned_by(hanging, "/metrics/job/late", 20)
    hanging.pause()
    # By then all of its threads have stopped.
    time.sleep(0.2)
    with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
        answers = list(pool.map(lambda path: replica.push(path, "# TYPE x counter\nx 1\n", "POST"), paths))
    assert {answer.status for answer in answers} == {504}
    wait_until(lambda: len(replica.shards()) == 2, "the hanging shard is out")
    # No replica gives it anything any more as to an owner.
    time.sleep(1)
    for path in paths:
        cluster.request("POST", path, "# TYPE x counter\nx 2\n")
    hanging.resume()
    cluster.check_reconciled()
