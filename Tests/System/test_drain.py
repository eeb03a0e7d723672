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
from harness.reconcile import OFTEN, drain, ranges, reconcile
from harness.shardd import BINARY, run


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
    told = r"waiting for its groups to move: \d+ of \d+ groups are moved(, about \d+ s left)?"
    assert any(re.fullmatch(told, line) for line in lines), lines
    assert lines[-1] == f"{leaving.address.text} is empty and can be stopped"
    assert scrape.listed(leaving) == []
    assert leaving.address.text not in cluster.consul.passing()
    assert f"{leaving.address.host}_{leaving.address.port}" not in cluster.consul.services()
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


def interrupted_while_prometheus_has_time(cluster, leaving):
    """A drain that is broken off once the shard has left discovery, with all its groups moved and copied there still."""
    held = scrape.held(leaving)
    command = [BINARY, "drain", f"--config.file={cluster.idle.config_path}", leaving.address.text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert any("Prometheus to have dropped" in line for line in child.stdout)
            child.send_signal(signal.SIGINT)
            assert child.wait(15) != 0
        finally:
            child.kill()
    assert f"{leaving.address.host}_{leaving.address.port}" not in cluster.consul.services()
    assert scrape.held(leaving) == held


def test_a_drain_that_is_broken_off_while_copies_are_kept_is_ended_by_another(lab):
    cluster = Cluster(lab, 3, consul=True, replicas=2, reconcile={"overlap": "8s"})
    leaving = cluster.shards[0]
    for path in MANY[:60]:
        cluster.request("PUT", path, BODY)
    interrupted_while_prometheus_has_time(cluster, leaving)
    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == f"{leaving.address.text} is empty and can be stopped"
    assert "maintenance" not in done.stdout, "it begins anew"
    assert scrape.held(leaving) == {}
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


def test_a_drain_is_taken_back_while_copies_are_kept(lab):
    cluster = Cluster(lab, 3, consul=True, replicas=2, reconcile={"overlap": "4s"})
    leaving = cluster.shards[0]
    for path in MANY[:60]:
        cluster.request("PUT", path, BODY)
    interrupted_while_prometheus_has_time(cluster, leaving)
    servers = cluster.idle.settings["consul_server"]
    cluster.idle.change_config(consul_server={**servers, "register": True})
    done = run("drain", f"--config.file={cluster.idle.config_path}", leaving.address.text, "--undo")
    assert done.returncode == 0 and done.stdout == f"{leaving.address.text} is used again\n", done
    for path in MANY[:60:3]:
        cluster.request("DELETE", path)
    wait_until(lambda: leaving.address.text in cluster.consul.passing(), "it is registered again")
    cluster.check_reconciled()
    assert scrape.held(leaving)


def test_copies_stay_until_the_new_owner_has_written_its_file(lab):
    """An interval of 2 s and ten more, though the overlap is one second."""
    consul = lab.consul()
    shards = [lab.pushgateway(start=False).keep_in(lab.directory / f"{number}.data") for number in range(2)]
    for shard in shards:
        shard.argv[-1] = "--persistence.interval=2s"
        shard.start().wait_ready()
        consul.register(shard.address)
    replica = lab.shardd(shards, consul=consul, consul_server={"register": False}, reconcile=OFTEN)
    for path in MANY[:40]:
        assert replica.push(path, BODY).status == 200
    leaving, owner = shards
    began = time.monotonic()
    done = drain(replica, leaving)
    assert done.returncode == 0 and "about 12 s left" in done.stdout, done
    assert 12 < time.monotonic() - began < 25
    owner.kill()
    owner.start().wait_ready()
    assert len(scrape.held(owner)) == 40


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
    cluster = Cluster(lab, 3, spare=1, consul=True, replicas=2, reconcile={"settle": "8s"}, files=True)
    gone, leaving = cluster.spare[0], cluster.shards[0]
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


def test_a_drain_names_what_cannot_be_moved_and_ends(lab):
    """Two shards have one name with two types, as only shards of their own can: one of the groups has no place elsewhere."""
    cluster = Cluster(lab, 3, consul=True, replicas=2)
    leaving, *others = cluster.shards
    (typed,) = cluster.owned_by(leaving, "/metrics/job/typed", 1)
    plain = cluster.owned_by(leaving, "/metrics/job/plain", 10)
    # What is in one range moves together.
    found = ranges(cluster.idle, [typed, *plain])
    plain = [path for path in plain if found[path] != found[typed]]
    for path in plain:
        assert cluster.replicas[0].push(path, "other 1\n").status == 200
    assert cluster.replicas[0].push(typed, "# TYPE clash counter\nclash 1\n").status == 200
    for shard in others:
        (path,) = cluster.owned_by(shard, "/metrics/job/resident", 1)
        assert cluster.replicas[0].push(path, "# TYPE clash gauge\nclash 2\n").status == 200
    began = time.monotonic()
    done = run("drain", f"--config.file={cluster.idle.config_path}", leaving.address.text, timeout=90)
    assert done.returncode == 1 and typed.removeprefix("/metrics") in done.stderr and "clash" in done.stderr, done
    assert time.monotonic() - began < 60
    assert cluster.metric("shardd_reconcile_stuck_groups", reason="type") == 1
    assert typed in scrape.held(leaving)
    assert not set(plain).intersection(scrape.held(leaving)) or cluster.metric("shardd_handover_step") > 0
    for path in plain:
        assert any(path in scrape.held(shard) for shard in others)
    undone = run("drain", f"--config.file={cluster.idle.config_path}", leaving.address.text, "--undo")
    assert undone.returncode == 0, undone
    for replica in cluster.replicas:
        wait_until(lambda: leaving.address.text in replica.shards(), "it is used again", 30)


def test_a_drain_without_consul_of_a_shard_in_the_file_is_a_usage_error(lab):
    cluster = Cluster(lab, 2, replicas=1)
    done = run("drain", f"--config.file={cluster.idle.config_path}", cluster.shards[0].address.text)
    assert done.returncode == 64 and "pushgateway.servers" in done.stderr, done
