"""`shardd drain`: when it says that a shard is empty, nothing is lost and nobody gives it anything any more."""

import re
import signal
import subprocess
import time

import pytest

from harness import scrape
from harness.cluster import Cluster
from harness.moving import BODY, MANY
from harness.net import wait_until
from harness.reconcile import drain, reconcile
from harness.shardd import BINARY


def test_an_interrupted_drain_goes_on_where_it_was(lab):
    cluster = Cluster(lab, consul=True, replicas=2, reconcile={"groups_per_second": 100})
    leaving, *others = cluster.shards
    for path in MANY:
        cluster.request("PUT", path, BODY)
    before = sum(len(scrape.listed(shard)) for shard in others)
    log = open(lab.directory / "drain.log", "w+")
    command = [BINARY, "drain", f"--config.file={cluster.idle.config_path}", leaving.address.text]
    child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: sum(map(len, map(scrape.listed, others))) > before, "groups are moving", 30, every=0.005)
        child.send_signal(signal.SIGINT)
        assert child.wait(15) != 0
    finally:
        child.kill()
        child.wait()
        log.close()
    assert 0 < len(scrape.listed(leaving)), "it was done before it was interrupted; the test needs more groups"
    assert cluster.has_lost_nothing()

    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert any(re.fullmatch(r"[1-9]\d* of \d+ groups to move(, about \d+ s left)?", line) for line in lines), lines
    assert lines[-1] == f"{leaving.address.text} is empty and can be stopped"
    assert scrape.listed(leaving) == []
    assert leaving.address.text not in cluster.consul.passing()
    assert f"{leaving.address.host}_{leaving.address.port}" not in cluster.consul.services()
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


@pytest.mark.core
def test_a_drained_shard_gets_no_more_copies(lab):
    """One that was empty before, too: replicas copy to it until they hear that nothing is left to be moved."""
    cluster = Cluster(lab, 3, consul=True, replicas=2, reconcile={"settle": "6s"})
    leaving = cluster.shards[0]
    paths = cluster.owned_by(leaving, "/metrics/job/late", 40)
    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    for path in paths:
        cluster.request("PUT", path, BODY)
    assert scrape.held(leaving) == {}
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


def test_a_drain_waits_for_a_replica_that_has_started_in_its_midst(lab):
    """It does not know the run, and so copies by the ring of before until it has seen another."""
    cluster = Cluster(lab, 3, consul=True, replicas=1, reconcile={"settle": "30s", "groups_per_second": 100})
    leaving = cluster.shards[0]
    paths = cluster.owned_by(leaving, "/metrics/job/left", 300)
    for path in paths:
        cluster.request("PUT", path, BODY)
    command = [BINARY, "drain", f"--config.file={cluster.idle.config_path}", leaving.address.text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            wait_until(lambda: len(scrape.listed(leaving)) < len(paths), "copies are deleted", 30, every=0.005)
            cluster.start_replicas(1)
            assert child.poll() is None
            output = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0 and "is empty and can be stopped" in output[0], output
    for path in paths:
        cluster.request("PUT", path, BODY, by=cluster.replicas[1])
    assert scrape.held(leaving) == {}
    scrape.assert_same(cluster.oracle, cluster.shards)


def test_a_drain_without_consul_waits_until_replicas_have_the_new_ring(lab):
    cluster = Cluster(lab, 3, replicas=1)
    leaving, *others = cluster.shards
    paths = cluster.owned_by(leaving, "/metrics/job/left", 40)
    for path in paths:
        cluster.request("PUT", path, BODY)
    for replica in (cluster.idle, *cluster.replicas):
        replica.change_config(pushgateway={"port": 9091, "servers": [shard.address.text for shard in others]})
    cluster.replicas[0].send(signal.SIGHUP)
    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    for path in paths:
        cluster.request("POST", path, "third 3\n")
    leaving.stop()
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


def test_a_drain_forgets_no_shard_that_is_away(lab):
    """One that has joined since the last run, and died: neither Consul names it, nor the file, nor what was settled."""
    cluster = Cluster(lab, 3, spare=1, consul=True, replicas=2, reconcile={"settle": "8s"})
    gone, leaving = cluster.spare[0], cluster.shards[0]
    cluster.keep_files(gone)
    cluster.scale_out()
    paths = cluster.owned_by(gone, "/metrics/job/away", 40)
    for path in paths:
        cluster.request("PUT", path, BODY)
    gone.wait_persisted()
    gone.kill()
    for replica in cluster.replicas:
        wait_until(lambda: len(replica.shards()) == 3, "the killed shard has left the ring")
    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    cluster.shards.remove(leaving)
    # By then every replica has seen that what the drain knew of is settled.
    time.sleep(1)
    for number, path in enumerate(paths):
        cluster.request(*(("DELETE", path) if number % 2 else ("PUT", path, "# TYPE second gauge\nsecond 7\n")))
    gone.start().wait_ready()
    cluster.check_reconciled(timeout=60)


def test_drain_and_reconcile_say_what_they_cannot_do(lab):
    cluster = Cluster(lab, 2, consul=True, replicas=1)
    cluster.request("PUT", MANY[0], BODY)
    unknown = drain(cluster.idle, lab.pushgateway(start=False))
    assert unknown.returncode == 1 and unknown.stderr.strip(), unknown
    first, second = cluster.shards
    assert drain(cluster.idle, first).returncode == 0
    last = drain(cluster.idle, second)
    assert last.returncode == 1 and last.stderr.strip(), last
    assert len(scrape.held(second)) == 1
    cluster.consul.stop()
    alone = reconcile(cluster.idle)
    assert alone.code == 1 and alone.errors.strip(), alone
