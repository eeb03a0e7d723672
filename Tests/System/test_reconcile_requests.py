"""Pushes and deletes while groups are to be moved, or are moving, and what a shard that was away has missed."""

import itertools
import signal
import subprocess
import threading
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.net import wait_until
from harness.reconcile import OFTEN, drain, owners, ranges, wait_at_rest
from harness.shardd import BINARY

BODY = "# HELP first First.\n# TYPE first counter\nfirst 1\n# TYPE second gauge\nsecond 2\n"
PATHS = [f"/metrics/job/many/number/{number}" for number in range(400)]


class Waiting(Cluster):
    """Groups of two shards when two more have come, with a long time until the reconcile."""

    def __init__(self, lab, paths, body, settle, overlap="1s", **settings):
        reconcile = {"settle": settle, "interval": "1s", "overlap": overlap}
        super().__init__(lab, 2, spare=2, consul=True, replicas=2, reconcile=reconcile, **settings)
        for path in paths:
            self.request("PUT", path, body)
        at = scrape.places(self.shards)
        self.scale_out()
        owned = owners(self.idle, self.shards, paths)
        self.moving = [path for path in paths if at[path] != [owned[path]]]
        assert len(self.moving) > len(paths) / 4


def test_a_delete_reaches_every_copy_while_a_reconcile_is_due(lab):
    waiting = Waiting(lab, PATHS[:60], BODY, settle="6s")
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
    waiting = Waiting(lab, PATHS[:400], BODY, settle="2s")
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
    waiting = Waiting(lab, PATHS[:60], BODY, settle="6s")
    for number, path in enumerate(waiting.moving):
        if number % 3 == 0:
            waiting.request("PUT", path, "# TYPE second gauge\nsecond 5\n")
        elif number % 3 == 1:
            waiting.request("POST", path, "# TYPE second gauge\nsecond 6\n")
    waiting.check_reconciled()


def test_requests_win_though_another_group_cannot_be_moved(lab):
    """What stays where it is must not let replicas forget the copies of others before these are gone."""
    waiting = Waiting(lab, PATHS, BODY, settle="1500ms")
    stays = waiting.moving[0]
    (at,) = scrape.places(waiting.shards)[stays]
    old = next(shard for shard in waiting.shards if shard.address.text == at)
    waiting.place(old, stays, "# TYPE bare histogram\nbare_sum 3\nbare_count 4\n")
    for number, path in enumerate(waiting.moving[1:]):
        waiting.request(*(("DELETE", path) if number % 3 == 0 else ("PUT", path, "third 3\n")))
        time.sleep(0.02)
    wait_until(lambda: waiting.metric("shardd_reconcile_stuck_groups", reason="untold") == 1, "it is told to be stuck", 20)
    owned = owners(waiting.idle, waiting.shards, PATHS)

    found = ranges(waiting.idle, PATHS)

    def all_else_is_moved():
        left = [path for path, at in scrape.places(waiting.shards).items() if at != [owned[path]]]
        return stays in left and all(found[path] == found[stays] for path in left)

    wait_until(all_else_is_moved, "all other groups are on their owners", 30, every=0.2)
    assert waiting.metric("shardd_reconcile_runs_total", result="partial") > 0
    assert scrape.places(waiting.shards)[stays] == [at]
    scrape.assert_same(waiting.oracle, waiting.shards)


@pytest.mark.parametrize("change", ["out", "in"])
def test_replicas_that_go_by_different_rings_for_long_lose_nothing(lab, change):
    """One hears late of a change, as after a loss of Consul's state: a proxy tells it what it has known for some time."""
    cluster = Cluster(lab, 3, spare=1, consul=True, replicas=1)
    proxy = lab.consul_proxy(cluster.consul)
    cluster.replicas.append(
        lab.shardd(cluster.shards, consul=proxy, consul_server={"register": False}, reconcile=OFTEN)
    )
    for path in PATHS[:151]:
        cluster.request("PUT", path, BODY)
    wait_at_rest(*cluster.replicas)
    proxy.fault = "late"
    moved = cluster.spare[0] if change == "out" else cluster.shards[0]
    if change == "out":
        cluster.consul.register(moved.address)
        cluster.shards.append(moved)
    else:
        leaving = subprocess.Popen(
            [BINARY, "drain", f"--config.file={cluster.idle.config_path}", moved.address.text], stdout=subprocess.DEVNULL
        )
        cluster.shards.remove(moved)
    ends_at = time.monotonic() + 8
    for number in itertools.count():
        if time.monotonic() > ends_at:
            break
        path = PATHS[number % 151]
        # Families that are not pushed again soon, so that a loss shows in the end.
        family = f"family_{number // 151} {number}\n"
        if number % 97 == 0:
            cluster.request("DELETE", path)
        cluster.request("PUT" if number % 89 == 0 else "POST", path, family)
    proxy.fault = None
    if change == "in":
        assert leaving.wait(60) == 0
        assert scrape.held(moved) == {}, "it was not empty"
    cluster.check_reconciled()


def test_a_group_that_is_pushed_all_the_time_moves_too(lab):
    """Faster than a run can look: it must neither stay behind nor hold up the others."""
    cluster = Cluster(lab, 3, consul=True, replicas=2)
    leaving = cluster.shards[0]
    hot, *others = cluster.owned_by(leaving, "/metrics/job/hot", 20)
    for path in [hot, *others]:
        cluster.request("PUT", path, BODY)
    ended = threading.Event()
    failures = []

    def push(replica, family):
        try:
            for number in itertools.count():
                if ended.is_set():
                    return
                body = f"{family} {number}\n".encode()
                for address in (replica.address, cluster.oracle.address):
                    assert ask(address, "POST", hot, body).status in (200, 202)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(replica, f"hot_{number}")) for number, replica in enumerate(cluster.replicas)]
    for thread in threads:
        thread.start()
    try:
        done = drain(cluster.idle, leaving)
        assert done.returncode == 0, done
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    cluster.shards.remove(leaving)
    cluster.check_reconciled()


def test_a_shard_that_hangs_while_it_keeps_copies_costs_no_push(lab):
    """What it has is void from then on: requests go to the owners, which have everything."""
    waiting = Waiting(lab, PATHS[:60], BODY, settle="1s", overlap="8s", forward={"response_timeout": "5s"})
    owned = owners(waiting.idle, waiting.shards, waiting.moving)
    wait_until(
        lambda: all(owned[path] in at for path, at in scrape.places(waiting.shards).items() if path in owned),
        "all are handed over",
        20,
    )
    slow = waiting.shards[0]
    slow.pause()
    for number, path in enumerate(waiting.moving):
        waiting.request(*(("DELETE", path) if number % 2 else ("PUT", path, "# TYPE second gauge\nsecond 5\n")))
    slow.resume()
    waiting.check_reconciled(60)


def test_what_a_shard_misses_is_stored_again_once_consul_is_back(lab):
    """Consul had been away with a shard, and the shard was back first."""
    cluster = Cluster(lab, 3, consul=True, replicas=2, files=True)
    gone, (replica, _) = cluster.shards[0], cluster.replicas
    paths = cluster.owned_by(gone, "/metrics/job/missed", 12)
    for path in paths:
        cluster.request("PUT", path, BODY)
    cluster.check_reconciled()
    cluster.consul.kill()
    gone.stop()
    cluster.request("PUT", paths[0], "third 3\n", by=replica)
    gone.start().wait_ready()
    cluster.consul.start().wait_ready()
    for shard in cluster.shards:
        cluster.consul.register(shard.address)
    cluster.check_reconciled()
    gone.stop()
    for number, path in enumerate(paths):
        cluster.request(*(("DELETE", path) if number % 2 else ("PUT", path, "fourth 4\n")), by=replica)
    replica.kill()
    gone.start().wait_ready()
    cluster.check_reconciled()


@pytest.mark.parametrize("since", ["PUT", "POST"])
def test_what_one_replica_pushes_to_a_shard_that_was_only_away_for_another_stays(lab, since):
    """A restart that takes so short a time that only the replica with pushes in between hears of it."""
    cluster = Cluster(lab, 3, consul=True, replicas=2, reconcile={"settle": "4s"}, files=True)
    restarted = cluster.shards[0]
    paths = cluster.owned_by(restarted, "/metrics/job/quick", 30)
    for path in paths:
        cluster.request("PUT", path, BODY)
    cluster.check_reconciled()
    notices, does_not = cluster.replicas
    restarted.stop()
    for number, path in enumerate(paths):
        cluster.request(*(("DELETE", path) if number % 2 else ("PUT", path, "third 3\n")), by=notices)
    restarted.start().wait_ready()
    for path in paths:
        cluster.request(since, path, "fourth 4\n", by=does_not)
    cluster.check_reconciled()


def test_what_is_moved_past_a_shard_that_is_away_is_not_newer_than_what_that_has(lab):
    """It has stood in for another one, left before a run was made, and has the latest pushes when it is back."""
    cluster = Cluster(lab, 3, spare=1, consul=True, replicas=2, reconcile={"settle": "4s"}, files=True)
    owner, stand_in, _ = cluster.shards
    owned = cluster.owned_by(owner, "/metrics/job/past", 100)
    by_stand_in = owners(cluster.idle, cluster.shards[1:], owned)
    by_new = owners(cluster.idle, [*cluster.shards, *cluster.spare], owned)
    new = cluster.spare[0].address.text
    paths = [path for path in owned if (by_stand_in[path], by_new[path]) == (stand_in.address.text, new)]
    assert len(paths) > 3, paths
    for path in paths:
        cluster.request("PUT", path, BODY)
    cluster.check_reconciled()

    owner.stop()
    for path in paths:
        cluster.request("POST", path, "# TYPE first counter\nfirst 5\nfourth NaN\n")
    owner.start().wait_ready()
    for replica in cluster.replicas:
        wait_until(lambda: replica.states().get(owner.address.text) == "up", "the owner is back")
    stand_in.stop()
    cluster.shards.remove(stand_in)
    cluster.scale_out()
    cluster.request("POST", paths[0], "fourth 6\n")
    stand_in.start().wait_ready()
    cluster.shards.append(stand_in)
    cluster.check_reconciled()


def test_groups_move_when_the_number_of_points_changes(lab):
    """On one replica after the other, as a rolling change of the file has it."""
    cluster = Cluster(lab, 3, consul=True, replicas=2)
    for path in PATHS[:150]:
        cluster.request("PUT", path, BODY)
    cluster.check_reconciled()
    numbers = itertools.count()
    for replica in (cluster.idle, *cluster.replicas):
        replica.change_config(hash={"vnodes": 37})
        if replica is not cluster.idle:
            replica.send(signal.SIGHUP)
        ends_at = time.monotonic() + 5
        while time.monotonic() < ends_at:
            number = next(numbers)
            path = PATHS[number % 150]
            if number % 97 == 0:
                cluster.request("DELETE", path)
            cluster.request("PUT" if number % 89 == 0 else "POST", path, f"family_{number // 150} {number}\n")
    cluster.check_reconciled()
    owned = owners(cluster.idle, cluster.shards, PATHS[:150])
    assert scrape.places(cluster.shards) == {path: [owner] for path, owner in owned.items()}


@pytest.mark.parametrize("discovery", ["consul", "static"])
def test_a_shard_that_comes_back_with_its_file_has_missed_nothing(lab, discovery):
    cluster = Cluster(lab, 3, consul=discovery == "consul", replicas=2 if discovery == "consul" else 1, files=True)
    gone = cluster.shards[0]
    paths = cluster.owned_by(gone, "/metrics/job/back", 25)
    for path in paths:
        cluster.request("PUT", path, BODY)
    gone.wait_persisted()
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
