"""What must not happen while groups move: a copy deleted too early, two runs at once, a group that comes back."""

import json
import subprocess
import threading
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.net import wait_until
from harness.reconcile import drain, misplacements, reconcile
from harness.shardd import BINARY
from harness.stub import OK

BODY = "# HELP first First.\n# TYPE first counter\nfirst 1\n# TYPE second gauge\nsecond 2\n"
# Enough for a run to take a while with the Pushgateways' consistency check on.
MANY = [f"/metrics/job/many/number/{number}" for number in range(600)]
# The lock's session has to expire, and then Consul delays the lock: 10 s at the least, up to twice that, and 15 s.
TAKEOVER_SECONDS = 70


def answers(status, body=b""):
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


EMPTY_LIST = answers(200, json.dumps({"status": "success", "data": []}).encode())


def refusing(fault):
    """A stub's way of taking a group: a real Pushgateway cannot be told to fail just there."""

    def answer(request):
        if request.target.startswith("/api/v1/metrics"):
            return EMPTY_LIST
        if request.method == "GET":
            return OK
        if fault == "hang":
            time.sleep(20)
        return answers(fault) if isinstance(fault, int) else b""

    return answer


@pytest.mark.parametrize("fault", [400, 404, 500, 503, "hang", "close"])
def test_no_copy_is_deleted_before_the_owner_has_taken_it(lab, fault):
    shards = lab.pushgateways(2)
    stub = lab.stub(refusing(fault), closes=fault == "close")
    replica = lab.shardd([*shards, stub], start=False, forward={"response_timeout": "1s"})
    paths = [f"/metrics/job/kept/number/{number}" for number in range(12)]
    found = misplacements(replica, [*shards, stub], paths)
    for path, (wrong, owner) in found.items():
        # Where chance would have put it on the stub, a real shard takes it.
        gateway = next(shard for shard in shards if shard is not owner) if wrong is stub else wrong
        assert lab_push(gateway, path).status == 200
    on_stub = {path for path, (_, owner) in found.items() if owner is stub}
    assert 0 < len(on_stub) < len(paths)
    before = {path: scrape.places(shards)[path] for path in on_stub}

    done = reconcile(replica, timeout=60)
    assert done.code == 1, done
    places = scrape.places(shards)
    assert {path: places[path] for path in on_stub} == before
    for path in set(paths) - on_stub:
        assert places[path] == [found[path][1].address.text]
    assert not [request for request in stub.requests if request.method == "DELETE"]
    assert {request.method for request in stub.requests} >= {"GET", "POST"} or fault == "close"


def lab_push(gateway, path, body=BODY):
    return scrape.ask(gateway.address, "POST", path, body.encode())


def test_a_group_that_its_owner_finds_inconsistent_stays(lab):
    """Which only shards of their own could hold: a name with one type here and another there."""
    cluster = Cluster(lab, replicas=0)
    paths = [f"/metrics/job/typed/number/{number}" for number in range(8)]
    found = misplacements(cluster.idle, cluster.shards, paths)
    wrong, owner = found[paths[0]]
    assert lab_push(wrong, paths[0], "# TYPE clash counter\nclash 1\nother 2\n").status == 200
    assert lab_push(owner, "/metrics/job/resident", "# TYPE clash gauge\nclash 1\n").status == 200
    for path in paths[1:]:
        assert lab_push(found[path][0], path).status == 200
    before = scrape.held(wrong)[paths[0]]
    for _ in range(2):
        done = reconcile(cluster.idle)
        assert done.code == 1, done
        assert scrape.held(wrong)[paths[0]] == before
    places = scrape.places(cluster.shards)
    for path in paths[1:]:
        assert places[path] == [found[path][1].address.text]


def test_only_one_replica_moves(lab):
    cluster = Cluster(lab, consul=True, replicas=0)
    cluster.misplace(MANY[:200], BODY)
    cluster.start_replicas(2)
    cluster.check_reconciled()
    moved = [replica.metric("shardd_reconcile_groups_moved_total") for replica in cluster.replicas]
    deleted = [replica.metric("shardd_reconcile_copies_deleted_total") for replica in cluster.replicas]
    assert sorted(moved) == sorted(deleted) == [0, 200]
    wait_until(
        lambda: all(
            (replica.metric("shardd_reconcile_runs_total", result="skipped") > 0) == (count == 0)
            for replica, count in zip(cluster.replicas, moved)
        ),
        "the other one leaves its runs out, and says so",
    )


def test_two_static_replicas_move_safely(lab):
    """Without Consul there is no lock: both may move the same group, and it must be there once all the same."""
    cluster = Cluster(lab, replicas=0)
    cluster.misplace(MANY[:300], BODY)
    cluster.start_replicas(2)
    cluster.check_reconciled()


def in_the_midst(cluster, count):
    """Waits until a run has moved some of the groups, and returns the replica that moves them."""

    def mover():
        for replica in cluster.replicas:
            if replica.metric("shardd_reconcile_groups_moved_total") > 0:
                return replica
        return None

    replica = wait_until(mover, "groups are moving", 30, every=0.005)
    moved = replica.metric("shardd_reconcile_groups_moved_total")
    assert moved < count, "all had moved at once; the test needs more groups"
    return replica


@pytest.mark.seconds(240)
def test_a_killed_leader_leaves_duplicates_at_worst(lab):
    cluster = Cluster(lab, consul=True, replicas=0)
    cluster.misplace(MANY, BODY)
    cluster.start_replicas(2)
    in_the_midst(cluster, len(MANY)).kill()
    assert nothing_lost(cluster)
    cluster.check_reconciled(TAKEOVER_SECONDS)


def nothing_lost(cluster):
    """Every group of the oracle is whole on some shard, perhaps on two."""
    copies = [scrape.held(shard) for shard in cluster.shards]
    return all(
        any(held.get(group) == families for held in copies) for group, families in scrape.held(cluster.oracle).items()
    )


@pytest.mark.seconds(240)
@pytest.mark.parametrize("outage", ["killed", "paused"])
def test_consul_lost_in_the_midst_of_a_run(lab, outage):
    cluster = Cluster(lab, consul=True, replicas=0)
    cluster.misplace(MANY, BODY)
    cluster.start_replicas(2)
    in_the_midst(cluster, len(MANY))
    if outage == "killed":
        cluster.consul.kill()
    else:
        cluster.consul.pause()
    time.sleep(3)
    assert nothing_lost(cluster)
    if outage == "killed":
        # All it knew is gone, the lock too.
        cluster.consul.start().wait_ready()
        for shard in cluster.shards:
            cluster.consul.register(shard.address)
    else:
        cluster.consul.resume()
    cluster.check_reconciled(TAKEOVER_SECONDS)


def test_an_interrupted_drain_goes_on_where_it_was(lab):
    cluster = Cluster(lab, consul=True, replicas=2)
    leaving = cluster.shards[0]
    for path in MANY:
        cluster.request("PUT", path, BODY)
    whole = len(scrape.held(leaving))
    log = open(lab.directory / "drain.log", "w+")
    command = [BINARY, "drain", f"--config.file={cluster.idle.config_path}", leaving.address.text]
    child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: len(scrape.listed(leaving)) < whole, "the shard empties", 30, every=0.005)
        child.send_signal(2)
        assert child.wait(15) != 0
    finally:
        child.kill()
        child.wait()
    assert 0 < len(scrape.listed(leaving)), "it was done before it was interrupted; the test needs more groups"
    assert nothing_lost(cluster)

    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    assert done.stdout.strip(), "it shows no progress"
    assert scrape.listed(leaving) == []
    assert leaving.address.text not in cluster.consul.passing()
    assert f"{leaving.address.host}_{leaving.address.port}" not in cluster.consul.services()
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


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


class Waiting(Cluster):
    """Groups of two shards when two more have come, with a long time until the reconcile."""

    def __init__(self, lab, paths, body, settle):
        super().__init__(lab, 2, spare=2, consul=True, replicas=2, reconcile={"settle": settle, "interval": "1s"})
        for path in paths:
            self.request("PUT", path, body)
        self.scale_out()
        self.moving = [path for path in paths if self.is_moving(path)]
        assert len(self.moving) > len(paths) / 4

    def is_moving(self, path):
        (at,) = scrape.places(self.shards)[path]
        return self.replicas[0].placement(path) != at


def test_a_delete_reaches_every_copy_while_a_reconcile_is_due(lab):
    waiting = Waiting(lab, MANY[:60], BODY, settle="6s")
    for number, path in enumerate(waiting.moving):
        # A push since then, for some, so that there are two copies.
        if number % 2:
            waiting.request("POST", path, "later 1\n")
        waiting.request("DELETE", path)
    wait_until(lambda: scrape.places(waiting.shards).keys() == scrape.held(waiting.oracle).keys(), "all are gone", 2)
    assert waiting.metric("shardd_reconcile_copies_deleted_total") == 0
    waiting.check_reconciled()


def test_requests_in_the_midst_of_the_moves_win(lab):
    """DELETEs, and PUTs of fewer families, race with the moves of the very groups."""
    waiting = Waiting(lab, MANY[:400], BODY, settle="2s")
    ended = threading.Event()
    failures = []

    def change(paths, way):
        try:
            for number, path in enumerate(paths):
                if ended.wait(0.01):
                    return
                waiting.request(*(way[number % len(way)](path)))
        except AssertionError as error:
            failures.append(error)

    ways = [
        [lambda path: ("DELETE", path), lambda path: ("PUT", path, "# TYPE first counter\nfirst 9\n")],
        [lambda path: ("PUT", path, "third 3\n"), lambda path: ("POST", path, "# TYPE second gauge\nsecond 8\n")],
    ]
    # A replica each, so that the two do not hide a difference between them.
    threads = [threading.Thread(target=change, args=(waiting.moving[number::2], ways[number])) for number in range(2)]
    wait_until(lambda: waiting.metric("shardd_reconcile_groups_moved_total") > 0, "groups are moving", 20, every=0.005)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    waiting.check_reconciled()


def test_a_put_while_a_reconcile_is_due_replaces_the_old_copy_too(lab):
    waiting = Waiting(lab, MANY[:60], BODY, settle="6s")
    for number, path in enumerate(waiting.moving):
        if number % 3 == 0:
            waiting.request("PUT", path, "# TYPE second gauge\nsecond 5\n")
        elif number % 3 == 1:
            waiting.request("POST", path, "# TYPE second gauge\nsecond 6\n")
    waiting.check_reconciled()


@pytest.mark.parametrize("discovery", ["consul", "static"])
def test_a_shard_that_comes_back_with_its_file_has_missed_nothing(lab, discovery):
    cluster = Cluster(lab, 3, consul=discovery == "consul", replicas=2)
    gone = cluster.shards[0]
    gone.stop()
    gone.argv.remove("--persistence.file=")
    gone.argv += [f"--persistence.file={lab.directory / 'gone.data'}", "--persistence.interval=20ms"]
    gone.start().wait_ready()
    wait_until(lambda: all(len(replica.shards()) == 3 for replica in cluster.replicas), "all three are in the ring")
    paths = cluster.owned_by(gone, "/metrics/job/back", 25)
    for path in paths:
        cluster.request("PUT", path, BODY)
    time.sleep(0.3)
    gone.kill()
    others = cluster.shards[1:]

    def requests(number, path):
        if number % 5 == 0:
            cluster.request("DELETE", path)
        elif number % 5 == 1:
            cluster.request("PUT", path, "# TYPE second gauge\nsecond 7\n")
        elif number % 5 == 2:
            cluster.request("POST", path, "# TYPE second gauge\nsecond 8\n")
        elif number % 5 == 3:
            cluster.request("DELETE", path)
            cluster.request("POST", path, "fourth 4\n")

    # At once, while it is only suspect, and when it has left the ring.
    for number, path in enumerate(paths[:12]):
        requests(number, path)
    for replica in cluster.replicas:
        wait_until(lambda: len(replica.shards()) == 2, "the killed shard has left the ring")
    for number, path in enumerate(paths[12:]):
        requests(number, path)
    assert scrape.places(others)
    gone.start().wait_ready()
    cluster.check_reconciled()
    for replica in cluster.replicas:
        replica_sees_all = [replica.placement(path) for path in paths]
        assert set(replica_sees_all) == {gone.address.text}


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
