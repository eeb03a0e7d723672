"""What must not happen while groups move: a copy deleted too early, two runs at once, a run that is never finished."""

import functools
import json
import re
import signal
import subprocess
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.net import wait_until
from harness.reconcile import drain, misplacements, owners, reconcile
from harness.shardd import BINARY

BODY = "# HELP first First.\n# TYPE first counter\nfirst 1\n# TYPE second gauge\nsecond 2\n"
# Enough for a run to take a while with the Pushgateways' consistency check on.
MANY = [f"/metrics/job/many/number/{number}" for number in range(400)]
# The lock's session has to expire, and then Consul delays the lock: 10 s at the least, up to twice that, and 15 s.
TAKEOVER_SECONDS = 70


def answers(status, body=b""):
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def refusing(gateway, fault):
    """A stub's way of being a real shard that does not take pushes, which a Pushgateway cannot be told to do."""

    def answer(request):
        if request.method == "GET":
            real = ask(gateway.address, "GET", request.target)
            return answers(real.status, real.body)
        if fault == "close":
            raise OSError("closes instead of answering")
        if fault == "hang":
            time.sleep(15)
        return answers(503 if fault == "hang" else fault)

    return answer


def relaying(gateway, after_listings):
    """A stub's way of being a real shard of which requests come in between a run's looks: after each listing is read, and
    before the run has it, the next function is called."""
    rest = iter(after_listings)

    def answer(request):
        kind = dict(request.headers).get("Content-Type")
        headers = [("Content-Type", kind)] if kind else []
        real = ask(gateway.address, request.method, request.target, request.body, headers)
        if request.target == "/api/v1/metrics":
            next(rest, lambda: None)()
        return answers(real.status, real.body)

    return answer


@pytest.mark.parametrize("fault", [400, 404, 500, 503, "hang", "close"])
def test_no_copy_is_deleted_before_the_owner_has_taken_it(lab, fault):
    *shards, behind = lab.pushgateways(3)
    stub = lab.stub(refusing(behind, fault))
    replica = lab.shardd([*shards, stub], start=False, forward={"response_timeout": "1s"})
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

    done = reconcile(replica, timeout=60)
    assert done.code == 1, done
    places = scrape.places(shards)
    assert {path: places[path] for path in on_stub} == before
    for path in set(paths) - on_stub:
        assert places[path] == [found[path][1].address.text]
    assert not [request for request in stub.requests if request.method == "DELETE"]
    assert "POST" in {request.method for request in stub.requests}
    assert scrape.held(behind) == {}


def push(gateway, path, body=BODY):
    return ask(gateway.address, "POST", path, body.encode())


class MovingGroup:
    """A group on a shard that does not own it, and requests that come in after certain looks of a run at that shard, or at
    the owner. The first look is that of the plan."""

    def __init__(self, lab):
        self.shards = lab.pushgateways(3)
        self.after_listings = {shard: [lambda: None] for shard in self.shards}
        stubs = [lab.stub(relaying(shard, self.after_listings[shard])) for shard in self.shards]
        self.replica = lab.shardd(stubs, start=False)
        found = owners(self.replica, stubs, MANY)
        self.wrong, self.owner = self.shards[:2]
        # The second one is on its owner too, so that nothing but its own push is at stake.
        self.path, self.other = [path for path in MANY if found[path] == stubs[1].address.text][:2]
        assert push(self.wrong, self.path).status == 200

    def request(self, method, path, body="", visits=True):
        """As replicas do it during a handover: the copy is written before its owner."""
        for shard in (self.wrong, self.owner) if visits else (self.owner,):
            assert ask(shard.address, method, path, body.encode()).status in (200, 202)

    def then(self, method, body="", visits=True, after=None):
        call = functools.partial(self.request, method, self.path, body, visits)
        self.after_listings[after or self.wrong].append(call)

    def values(self, path=None):
        held = scrape.held(self.owner)[path or self.path]
        return {name: list(family.metrics.values()) for name, family in held.items()}


def test_a_group_that_is_deleted_and_made_anew_while_it_moves_has_nothing_of_before(lab):
    """The DELETE comes between a look and the push that follows it, the POST after the look that finds the copy gone."""
    group = MovingGroup(lab)
    group.then("DELETE")
    group.then("POST", "# TYPE second gauge\nsecond 3\n")
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values() == {"second": ['{"value": "3"}']}
    assert scrape.held(group.wrong) == {}


def test_a_group_that_is_deleted_and_made_anew_twice_while_it_moves_has_nothing_of_before(lab):
    group = MovingGroup(lab)
    group.then("DELETE")
    group.then("POST", "third 3\n")
    group.then("DELETE")
    group.then("POST", "# TYPE first counter\nfirst 4\n")
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values() == {"first": ['{"value": "4"}']}
    assert scrape.held(group.wrong) == {}


def test_nothing_moves_while_a_shard_of_the_ring_cannot_be_listed(lab):
    """What it holds may be newer, and would be older than what is given to the owner now."""
    group = MovingGroup(lab)
    newer = group.shards[2]
    assert push(newer, group.path, "# TYPE second gauge\nsecond 7\n").status == 200

    def close():
        raise OSError("closes instead of answering")

    group.after_listings[newer][0] = close
    assert reconcile(group.replica).code == 1
    assert scrape.held(group.owner) == {}
    assert reconcile(group.replica).code == 0
    assert group.values() == {"first": ['{"value": "1"}'], "second": ['{"value": "7"}']}
    assert scrape.places(group.shards) == {group.path: [group.owner.address.text]}


def test_a_push_wins_though_another_group_of_its_owner_is_deleted(lab):
    """What the owner was given of one group must not be taken for what it had, as it is listed again for the other one."""
    group = MovingGroup(lab)
    assert push(group.wrong, group.other).status == 200

    def requests():
        group.request("DELETE", group.path)
        group.request("POST", group.other, "# TYPE second gauge\nsecond 5\n")

    group.after_listings[group.wrong].append(requests)
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values(group.other) == {"first": ['{"value": "1"}'], "second": ['{"value": "5"}']}
    assert scrape.places(group.shards).keys() == {group.other} and not scrape.held(group.wrong)


def test_a_push_wins_that_comes_as_the_owner_is_given_the_whole(lab):
    """A PUT comes between a look and the push, so that the owner must be given the group anew, and a POST just before."""
    group = MovingGroup(lab)
    group.then("PUT", "# TYPE second gauge\nsecond 4\n")
    group.then("POST", "third 3\n", after=group.owner)
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values() == {"second": ['{"value": "4"}'], "third": ['{"value": "3"}']}
    assert not scrape.held(group.wrong)


def test_a_push_wins_that_has_passed_the_copy_by_as_its_shard_was_slow(lab):
    group = MovingGroup(lab)

    def is_slow():
        group.request("POST", group.path, "# TYPE second gauge\nsecond 6\n", visits=False)
        time.sleep(0.6)

    group.after_listings[group.wrong].append(is_slow)
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values() == {"first": ['{"value": "1"}'], "second": ['{"value": "6"}']}
    assert scrape.places(group.shards) == {group.path: [group.owner.address.text]}


def test_a_group_made_anew_on_its_owner_alone_loses_no_push(lab):
    """Where pushes do not visit the copy, none would be seen that came in while something is taken from the owner."""
    group = MovingGroup(lab)
    group.then("DELETE")
    group.then("POST", "third 3\n", visits=False)
    done = reconcile(group.replica)
    assert done.code == 1 and f"{group.path.removeprefix('/metrics')} changes too often" in done.errors, done
    assert group.values()["third"] == ['{"value": "3"}']
    assert reconcile(group.replica).code == 0


def test_a_group_that_its_owner_finds_inconsistent_stays(lab):
    """Which only shards of their own could hold: a name with one type here and another there.

    Pushgateway 1.5.1 takes one now and then, as the order in which it goes through its groups has it.
    """
    cluster = Cluster(lab, replicas=0)
    paths = [f"/metrics/job/typed/number/{number}" for number in range(8)]
    found = misplacements(cluster.idle, cluster.shards, paths)
    wrong, owner = found[paths[0]]
    assert push(wrong, paths[0], "# TYPE clash counter\nclash 1\nother 2\n").status == 200
    assert push(owner, "/metrics/job/resident", "# TYPE clash gauge\nclash 1\n").status == 200
    for path in paths[1:]:
        assert push(found[path][0], path).status == 200
    before = scrape.held(wrong)[paths[0]]
    for _ in range(2):
        done = reconcile(cluster.idle)
        if done.code == 0:
            assert {"clash", "other"} <= set(scrape.held(owner)[paths[0]]), done
            break
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
    idle = next(replica for replica, count in zip(cluster.replicas, moved) if count == 0)
    wait_until(
        lambda: idle.metric("shardd_reconcile_runs_total", result="skipped") > 0,
        "the other one leaves its runs out, and says so",
        timeout=15,
    )


def test_two_static_replicas_move_safely(lab):
    """Without Consul there is no lock: both may move the same group, and it must be there once all the same."""
    cluster = Cluster(lab, replicas=0)
    cluster.misplace(MANY[:300], BODY)
    cluster.start_replicas(2)
    cluster.check_reconciled()


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
    wait_until(lambda: other.metric("shardd_reconcile_runs_total", result="skipped") > 0, "the other one waits")
    leader.kill()
    assert nothing_lost(cluster)
    cluster.check_reconciled(TAKEOVER_SECONDS)
    assert other.metric("shardd_reconcile_copies_deleted_total") > 0


def test_what_a_killed_run_did_not_look_after_is_put_right(lab):
    """The moment between a push and the look after it is too short to be met by a SIGKILL: the journal is written here."""
    cluster = Cluster(lab, consul=True, replicas=0)
    wrong = cluster.shards[0]
    found = owners(cluster.idle, cluster.shards, MANY)
    dropped, deleted, overwritten, unchanged = paths = [path for path in MANY if found[path] != wrong.address.text][:4]
    owner = {path: next(shard for shard in cluster.shards if shard.address.text == found[path]) for path in paths}
    assert push(owner[dropped], dropped, "earlier 1\n").status == 200
    started_at = time.time_ns()
    # What came in after the run had read the copies.
    for path, body in [(dropped, "first 1\n"), (overwritten, "first 9\n"), (unchanged, "first 3\n")]:
        assert push(wrong, path, body).status == 200
    # What the run has pushed.
    for path, body in zip(paths, ["first 1\nsecond 2\n", "first 1\n", "first 1\n", "first 3\n"], strict=True):
        assert push(owner[path], path, body).status == 200
    journal = journal_of(wrong, started_at, {path: owner[path] for path in paths})
    write_down(cluster, journal)
    done = reconcile(cluster.idle)
    assert done.code == 0, done
    assert nothing_is_written_down(cluster)
    # What had to be put right is swept by the next run.
    assert reconcile(cluster.idle).code == 0
    whole = copies_of(cluster, paths)
    assert [len(whole[path]) for path in paths] == [1, 0, 1, 1], whole
    assert sorted(whole[dropped][0]) == ["earlier", "first"]
    assert list(whole[overwritten][0]["first"].metrics.values()) == ['{"value": "9"}']
    assert list(whole[unchanged][0]["first"].metrics.values()) == ['{"value": "3"}']


def test_a_run_that_cannot_forget_what_it_has_looked_after_sweeps_nothing(lab):
    """The next run would take what is gone for deleted by a client."""
    cluster = Cluster(lab, consul=True, replicas=0)
    cluster.misplace(MANY[:60], BODY)
    proxy = lab.consul_proxy(cluster.consul)
    cluster.idle.change_config(consul_server={**cluster.idle.settings["consul_server"], "addr": proxy.address.text})
    proxy.refuses_deletes = True
    assert reconcile(cluster.idle).code == 1
    assert proxy.refused > 0 and nothing_lost(cluster)
    assert {len(at) for at in scrape.places(cluster.shards).values()} == {2}
    proxy.refuses_deletes = False
    for _ in range(2):
        reconcile(cluster.idle)
    assert {len(at) for at in scrape.places(cluster.shards).values()} == {1}
    scrape.assert_same(cluster.oracle, cluster.shards)


def test_a_killed_run_is_looked_after_though_the_ring_has_changed(lab):
    """What the owner of that time was given must not reach the owner of today as if it had always been there."""
    cluster = Cluster(lab, consul=True, replicas=0)
    found = owners(cluster.idle, cluster.shards, MANY)
    wrong, before = cluster.shards[:2]
    today = {wrong.address.text, before.address.text}
    dropped, deleted = paths = [path for path in MANY if found[path] not in today][:2]
    assert push(wrong, dropped, "first 1\n").status == 200
    started_at = time.time_ns()
    for path in paths:
        assert push(before, path, "first 1\nsecond 2\n").status == 200
    journal = journal_of(wrong, started_at, dict.fromkeys(paths, before))
    write_down(cluster, journal)
    assert reconcile(cluster.idle).code == 0
    assert nothing_is_written_down(cluster)
    whole = copies_of(cluster, paths)
    assert [[sorted(copy) for copy in whole[path]] for path in paths] == [[["first"]], []]


def test_what_clients_gave_the_owner_since_a_killed_run_stays(lab):
    """The shard of the copies was away meanwhile: it has missed a POST, or a PUT, and has been told of the PUT."""
    cluster = Cluster(lab, consul=True, replicas=0)
    wrong = cluster.shards[0]
    found = owners(cluster.idle, cluster.shards, MANY)
    posted, put = paths = [path for path in MANY if found[path] != wrong.address.text][:2]
    owner = {path: next(shard for shard in cluster.shards if shard.address.text == found[path]) for path in paths}
    for path in paths:
        assert push(wrong, path, "first 1\nsecond 1\n").status == 200
    # The killed run was under way ten seconds ago.
    started_at = time.time_ns() - 10**10
    journal = journal_of(wrong, started_at, owner)
    for path in paths:
        assert push(owner[path], path, "first 9\nsecond 9\n").status == 200
    assert ask(wrong.address, "DELETE", put).status == 202
    for shard in (wrong, owner[put]):
        assert push(shard, put, "third 3\n").status == 200
    write_down(cluster, journal)
    assert reconcile(cluster.idle).code == 0
    assert nothing_is_written_down(cluster)
    whole = copies_of(cluster, paths)
    values = [{name: list(family.metrics.values()) for name, family in whole[path][0].items()} for path in paths]
    assert values[0] == {"first": ['{"value": "9"}'], "second": ['{"value": "9"}']}
    assert values[1] == {"first": ['{"value": "9"}'], "second": ['{"value": "9"}'], "third": ['{"value": "3"}']}
    assert [len(whole[path]) for path in paths] == [1, 1]


def test_what_a_killed_run_gave_stays_when_its_copy_was_lost_with_its_shard(lab):
    cluster = Cluster(lab, consul=True, replicas=0)
    found = owners(cluster.idle, cluster.shards, MANY)
    lost = cluster.shards[0]
    path = next(path for path in MANY if found[path] != lost.address.text)
    owner = next(shard for shard in cluster.shards if shard.address.text == found[path])
    assert push(lost, path, "first 1\n").status == 200
    journal = journal_of(lost, time.time_ns(), {path: owner})
    assert push(owner, path, "first 1\n").status == 200
    write_down(cluster, journal)
    lost.restart()
    assert reconcile(cluster.idle).code == 0
    assert [sorted(copy) for copy in copies_of(cluster, [path])[path]] == [["first"]]


def journal_of(shard, started_at, given):
    """What a run writes down before it gives owners what the shard holds of their groups."""
    groups = [
        {
            "labels": [["job", "many"], ["number", path.rsplit("/", 1)[1]]],
            "to": owner.address.text,
            "families": ["first", "second"],
        }
        for path, owner in given.items()
    ]
    status = json.loads(ask(shard.address, "GET", "/api/v1/status").body)
    start_time = status["data"]["start_time"]
    times = {"startTime": start_time, "startedAt": started_at, "writtenAt": started_at + 10**8}
    return {"from": shard.address.text, **times, "groups": groups}


def write_down(cluster, journal):
    cluster.consul.call("PUT", f"/v1/kv/shardd/pushgateway/copying/{journal['from']}", journal)


def nothing_is_written_down(cluster):
    return ask(cluster.consul.address, "GET", "/v1/kv/shardd/pushgateway/copying/?recurse=1").status == 404


def copies_of(cluster, paths):
    """What shards hold of each group, each shard's copy on its own."""
    held = [scrape.held(shard) for shard in cluster.shards]
    return {path: [copies[path] for copies in held if path in copies] for path in paths}


def nothing_lost(cluster):
    """Every group of the oracle is whole on some shard, perhaps on two."""
    copies = [scrape.held(shard) for shard in cluster.shards]
    return all(
        any(held.get(group) == families for held in copies) for group, families in scrape.held(cluster.oracle).items()
    )


@pytest.mark.seconds(240)
@pytest.mark.parametrize("outage", ["killed", "paused"])
def test_consul_lost_in_the_midst_of_a_run(lab, outage):
    cluster = start_one_in_the_midst(lab)
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
    assert nothing_lost(cluster)

    done = drain(cluster.idle, leaving)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"[1-9]\d* groups to move", lines[2]), lines
    assert lines[-1] == f"{leaving.address.text} is empty and can be stopped"
    assert scrape.listed(leaving) == []
    assert leaving.address.text not in cluster.consul.passing()
    assert f"{leaving.address.host}_{leaving.address.port}" not in cluster.consul.services()
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


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
    time.sleep(0.3)
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
