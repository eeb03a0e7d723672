"""Nothing is moved while replicas of different versions, or with different hashing, are there; and it is when they have gone."""

import signal
import time

import pytest

from harness import scrape
from harness.cluster import Cluster
from harness.moving import BODY, MANY
from harness.net import wait_until
from harness.old_replica import FOLDER, OldReplica

PATHS = MANY[:100]


def is_blocked(cluster, reason):
    return [replica.metric("shardd_reconcile_blocked", reason=reason) for replica in cluster.replicas]


def wait_blocked(cluster, reason, expected=1, timeout=10):
    wait_until(lambda: set(is_blocked(cluster, reason)) == {expected}, f"blocked by {reason}: {expected}", timeout)


def told(cluster, text):
    return [len([line for line in replica.log().splitlines() if text in line]) for replica in cluster.replicas]


def old_keys(cluster):
    keys = cluster.consul.call("GET", "/v1/kv/shardd/?keys")
    return [key for key in keys if not key.startswith((f"{FOLDER}register", f"{FOLDER}reconcile"))]


def join_and_wait(cluster):
    """A shard enters discovery; by the time this returns groups would have moved there."""
    (new,) = cluster.spare
    places = scrape.places(cluster.shards)
    cluster.shards += cluster.spare
    cluster.consul.register(new.address)
    time.sleep(4)
    assert scrape.held(new) == {} and scrape.places(cluster.shards) == places
    cluster.spare = []
    return new


@pytest.mark.core
def test_nothing_is_moved_beside_a_replica_of_version_0_1(lab):
    cluster = Cluster(lab, 2, spare=1, consul=True, replicas=2)
    cluster.check_reconciled()
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    old = OldReplica(cluster.consul, cluster.shards)
    try:
        cluster.consul.call("PUT", f"/v1/kv/{FOLDER}missed/127.0.0.1:1/0-1", {})
        wait_blocked(cluster, "version", timeout=2)
        new = join_and_wait(cluster)
        for path in PATHS[::2]:
            cluster.request("POST", path, "third 3\n")
        for path in PATHS[::5]:
            cluster.request("DELETE", path)
        # As version 0.1 does when it takes a shard for absent.
        cluster.misplace(MANY[200:210], BODY)
        # Longer than one that does not answer is waited for.
        time.sleep(14)
        assert is_blocked(cluster, "version") == [1, 1] and not set(PATHS) & set(scrape.held(new))
    finally:
        old.stop()
    wait_blocked(cluster, "version", 0, timeout=20)
    assert old_keys(cluster) == []
    cluster.check_reconciled()
    assert scrape.held(new)
    assert told(cluster, "groups are not moved while replicas differ") == [1, 1]
    assert told(cluster, 'reason=version replicas="of version 0.1"') == [1, 1]
    assert told(cluster, "groups are moved again") == [1, 1]

    # At rest nothing is written any more; one that starts later is seen at once.
    index = cluster.consul.call("GET", f"/v1/kv/{FOLDER}reconcile")[0]["ModifyIndex"]
    time.sleep(3)
    assert cluster.consul.call("GET", f"/v1/kv/{FOLDER}reconcile")[0]["ModifyIndex"] == index
    OldReplica(cluster.consul, cluster.shards).stop()
    wait_blocked(cluster, "version", timeout=1)
    wait_blocked(cluster, "version", 0, timeout=20)


def test_what_version_0_1_has_left_is_removed_by_the_first_start_after_it(lab):
    cluster = Cluster(lab, 2, consul=True, replicas=0)
    OldReplica(cluster.consul, cluster.shards).stop()
    for key in ("missed/127.0.0.1:1/0-1", "versions/127.0.0.1:1-0", "copying/127.0.0.1:1", "drain/10.0.0.1_9091"):
        cluster.consul.call("PUT", f"/v1/kv/{FOLDER}{key}", {})
    cluster.start_replicas(1)
    wait_blocked(cluster, "version", 1, timeout=2)
    wait_blocked(cluster, "version", 0, timeout=20)
    wait_until(lambda: old_keys(cluster) == [f"{FOLDER}drain/10.0.0.1_9091"], "the drain's key alone is left")
    cluster.check_reconciled()


def test_nothing_is_moved_while_replicas_hash_differently(lab):
    cluster = Cluster(lab, 2, spare=1, consul=True, replicas=2)
    cluster.check_reconciled()
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    for replica in cluster.replicas:
        replica.change_config(hash={"vnodes": 37})
    first, second = cluster.replicas
    first.send(signal.SIGHUP)
    wait_blocked(cluster, "config")
    assert is_blocked(cluster, "version") == [0, 0]
    join_and_wait(cluster)
    second.send(signal.SIGHUP)
    wait_blocked(cluster, "config", 0)
    cluster.check_reconciled()
    assert [replica.ring()["vnodes"] for replica in cluster.replicas] == [37, 37]
    assert told(cluster, "groups are not moved while replicas differ") == [1, 1]
    assert told(cluster, "groups are moved again") == [1, 1]


def test_nothing_is_moved_beside_a_replica_of_a_later_version(lab):
    cluster = Cluster(lab, 2, consul=True, replicas=1)
    cluster.check_reconciled()
    session = cluster.consul.call("PUT", "/v1/session/create", {"Name": "shardd-replica"})["ID"]
    cluster.consul.call("PUT", f"/v1/kv/{FOLDER}register/00000000000000ab?acquire={session}", "shardd-note 2")
    wait_blocked(cluster, "version")
    assert told(cluster, "reason=version replicas=00000000000000ab") == [1]
    cluster.consul.call("DELETE", f"/v1/kv/{FOLDER}register/00000000000000ab")
    wait_blocked(cluster, "version", 0)
