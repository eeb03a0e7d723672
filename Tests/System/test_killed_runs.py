"""What a run that was killed has left at owners, and how the next one sees to it by what was written down in Consul."""

import json
import time

from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.moving import MANY, BODY, push
from harness.net import wait_until
from harness.reconcile import owners, reconcile


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
    assert proxy.refused > 0 and cluster.has_lost_nothing()
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


def test_a_killed_run_whose_owner_is_gone_for_good_holds_nothing_up(lab):
    cluster = Cluster(lab, 3, spare=1, consul=True, replicas=1, reconcile={"settle": "120s", "interval": "120s"})
    gone = cluster.spare[0]
    cluster.scale_out()
    wrong = cluster.shards[0]
    path = cluster.owned_by(gone, "/metrics/job/many", 1)[0]
    assert push(wrong, path).status == 200
    write_down(cluster, journal_of(wrong, time.time_ns(), {path: gone}))
    gone.kill()
    cluster.shards.remove(gone)
    cluster.wait_for_ring()
    # The replica may have to store its ring first.
    wait_until(lambda: reconcile(cluster.idle).code == 0, "all is moved", 60)
    assert nothing_is_written_down(cluster)
    owner = owners(cluster.idle, cluster.shards, [path])[path]
    assert scrape.places(cluster.shards) == {path: [owner]}


def test_a_put_soon_after_a_run_was_broken_off_stays(lab):
    """As the shard of the copy hung: it has missed the PUT, and has been told since. The run knew when the owner had taken
    its push, which came before."""
    cluster = Cluster(lab, consul=True, replicas=0)
    wrong = cluster.shards[0]
    found = owners(cluster.idle, cluster.shards, MANY)
    path = next(path for path in MANY if found[path] != wrong.address.text)
    owner = next(shard for shard in cluster.shards if shard.address.text == found[path])
    started_at = time.time_ns()
    assert push(owner, path).status == 200
    journal = journal_of(wrong, started_at, {path: owner})
    journal["groups"][0]["takenBy"] = time.time_ns()
    assert ask(owner.address, "PUT", path, b"first 7\n").status == 200
    journal["writtenAt"] = time.time_ns()
    write_down(cluster, journal)
    assert reconcile(cluster.idle).code == 0
    assert nothing_is_written_down(cluster)
    assert [list(copy["first"].metrics.values()) for copy in copies_of(cluster, [path])[path]] == [['{"value": "7"}']]


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
            "labels": labels_of(path),
            "to": owner.address.text,
            "families": ["first", "second"],
        }
        for path, owner in given.items()
    ]
    status = json.loads(ask(shard.address, "GET", "/api/v1/status").body)
    start_time = status["data"]["start_time"]
    times = {"startTime": start_time, "startedAt": started_at, "writtenAt": started_at + 10**8}
    return {"from": shard.address.text, **times, "groups": groups}


def labels_of(path):
    parts = path.split("/")[2:]
    return sorted(map(list, zip(parts[::2], parts[1::2], strict=True)))


def write_down(cluster, journal):
    cluster.consul.call("PUT", f"/v1/kv/shardd/pushgateway/copying/{journal['from']}", journal)


def nothing_is_written_down(cluster):
    return ask(cluster.consul.address, "GET", "/v1/kv/shardd/pushgateway/copying/?recurse=1").status == 404


def copies_of(cluster, paths):
    """What shards hold of each group, each shard's copy on its own."""
    held = [scrape.held(shard) for shard in cluster.shards]
    return {path: [copies[path] for copies in held if path in copies] for path in paths}
