"""What must not happen while groups move: a copy deleted too early, two runs at once, a run that is never finished."""

import signal
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.moving import BODY, MANY, push
from harness.net import wait_until
from harness.reconcile import OFTEN, misplacements, owners, reconcile
from harness.stub import answers

# The agent tells after three seconds that a replica does not answer, and the lock is free at once.
TAKEOVER_SECONDS = 10


def refusing(gateway, fault):
    """A stub's way of being a real shard that takes no pushes but shardd's own marks, which a Pushgateway cannot be told to
    do."""

    def answer(request):
        if request.method == "GET" or "/job/shardd/" in request.target:
            kind = dict(request.headers).get("Content-Type")
            real = ask(gateway.address, request.method, request.target, request.body, [("Content-Type", kind)] if kind else [])
            return answers(real.status, real.body)
        if fault == "close":
            raise OSError("closes instead of answering")
        if fault == "hang":
            time.sleep(15)
        return answers(503 if fault == "hang" else fault)

    answer.relays = True
    return answer


@pytest.mark.parametrize("fault", [400, 404, 500, 503, "hang", "close"])
def test_no_copy_is_deleted_before_the_owner_has_taken_it(lab, fault):
    *shards, behind = lab.pushgateways(3)
    stub = lab.stub(refusing(behind, fault))
    replica = lab.shardd([*shards, stub], start=False, forward={"response_timeout": "1s"}, reconcile=OFTEN)
    # So many that some belong to the stub, wherever the addresses of this run put it.
    paths = [f"/metrics/job/kept/number/{number}" for number in range(40)]
    found = misplacements(replica, [*shards, stub], paths)
    for path, (wrong, owner) in found.items():
        # Where chance would have put it on the stub, a real shard takes it.
        gateway = next(shard for shard in shards if shard is not owner) if wrong is stub else wrong
        assert push(gateway, path).status == 200
    on_stub = {path for path, (_, owner) in found.items() if owner is stub}
    assert 0 < len(on_stub) < len(paths)
    before = {path: scrape.places(shards)[path] for path in on_stub}

    done = reconcile(replica, timeout=90)
    assert done.code == 1, done
    places = scrape.places(shards)
    if isinstance(fault, int) and fault < 500:
        assert {path: places[path] for path in on_stub} == before
        assert any(path.removeprefix("/metrics") in done.errors for path in on_stub), done
    # A shard that does not answer has failed: another one has them.
    assert set(places) == set(paths)
    for path in set(paths) - on_stub:
        assert places[path] == [found[path][1].address.text]
    deleted = [request.target for request in stub.requests if request.method == "DELETE"]
    assert not [target for target in deleted if "/job/shardd/" not in target]
    assert "POST" in {request.method for request in stub.requests}
    assert scrape.held(behind) == {}


def test_a_group_that_its_owner_finds_inconsistent_stays(lab):
    """Which only shards of their own could hold: a name with one type here and another there."""
    cluster = Cluster(lab, replicas=0)
    paths = [f"/metrics/job/typed/number/{number}" for number in range(8)]
    found = misplacements(cluster.idle, cluster.shards, paths)
    wrong, owner = found[paths[0]]
    assert push(wrong, paths[0], "# TYPE clash counter\nclash 1\nother 2\n").status == 200
    # One that stays where it is: the run would move another one away, and then there would be no clash.
    residents = owners(cluster.idle, cluster.shards, [f"/metrics/job/resident/n/{number}" for number in range(40)])
    resident = next(path for path, shard in residents.items() if shard == owner.address.text)
    assert push(owner, resident, "# TYPE clash gauge\nclash 1\n").status == 200
    for path in paths[1:]:
        assert push(found[path][0], path).status == 200
    before = scrape.held(wrong)[paths[0]]
    for _ in range(2):
        done = reconcile(cluster.idle)
        assert done.code == 1 and paths[0] in done.errors, done
        assert scrape.held(wrong)[paths[0]] == before
        assert "clash" not in scrape.held(owner).get(paths[0], {})
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
    assert sorted(moved) == [0, 200]
    assert min(deleted) == 0 and max(deleted) >= 200
    idle = next(replica for replica, count in zip(cluster.replicas, moved) if count == 0)
    wait_until(
        lambda: idle.metric("shardd_reconcile_runs_total", result="skipped") > 0,
        "the other one leaves its runs out, and says so",
        timeout=15,
    )


def test_two_static_replicas_that_would_both_move_move_nothing(lab):
    """Without Consul there is no lock, and neither hears what the other one's clients push while a group moves."""
    cluster = Cluster(lab, replicas=1)
    cluster.start_replicas(1)
    first, second = cluster.replicas
    wait_until(lambda: second.metric("shardd_reconcile_blocked", reason="movers") == 1, "the second one sees the first")
    assert "reconcile.enabled" in second.log()
    # The first one looks when it has something to move.
    for path in MANY[:20]:
        cluster.request("PUT", path, BODY)
    cluster.shards[0].restart()
    wait_until(lambda: first.metric("shardd_reconcile_blocked", reason="movers") == 1, "the first one sees the second", 30)
    second.change_config(reconcile={**OFTEN, "enabled": False})
    second.send(signal.SIGHUP)
    wait_until(lambda: first.metric("shardd_reconcile_blocked") == 0, "the first one is alone again", 90)


def start_one_in_the_midst(lab):
    """A cluster whose one replica, for sure the leader, has moved some of the groups, and now there is another."""
    cluster = Cluster(lab, consul=True, replicas=0, reconcile={"groups_per_second": 100})
    owned = {path: owner for path, (_, owner) in cluster.misplace(MANY, BODY).items()}
    cluster.start_replicas(1)

    wait_until(lambda: count_on_owners(cluster, owned) > 20, "groups are moving", 30, every=0.02)
    cluster.start_replicas(1)
    assert count_on_owners(cluster, owned) < len(MANY) - 100, "too many had moved at once; the test needs more groups"
    return cluster


def count_on_owners(cluster, owned):
    held = {shard: scrape.held(shard) for shard in cluster.shards}
    return sum(path in held[owner] for path, owner in owned.items())


@pytest.mark.seconds(240)
def test_a_killed_leader_leaves_duplicates_at_worst(lab):
    cluster = start_one_in_the_midst(lab)
    leader, other = cluster.replicas
    leader.kill()
    began = time.monotonic()
    assert cluster.has_lost_nothing()
    wait_until(lambda: other.metric("shardd_reconcile_groups_moved_total") > 0, "the other one goes on", TAKEOVER_SECONDS)
    print(f"another replica moved groups {time.monotonic() - began:.1f} s after the kill")
    cluster.check_reconciled()
    assert other.metric("shardd_reconcile_copies_deleted_total") > 0


@pytest.mark.seconds(240)
@pytest.mark.parametrize("outage", ["killed", "paused"])
def test_consul_lost_in_the_midst_of_a_run(lab, outage):
    cluster = start_one_in_the_midst(lab)
    if outage == "killed":
        cluster.consul.kill()
    else:
        cluster.consul.pause()
    time.sleep(3)
    assert cluster.has_lost_nothing()
    if outage == "killed":
        # All it knew is gone, the lock too.
        cluster.consul.start().wait_ready()
        for shard in cluster.shards:
            cluster.consul.register(shard.address)
    else:
        cluster.consul.resume()
    cluster.check_reconciled(60)
