"""Requests that come in between the looks and pushes of a run: the later one wins, as on one Pushgateway."""

import signal
import time

from harness import scrape
from harness.http import ask
from harness.moving import MovingGroup, as_runs_write, push
from harness.net import wait_until
from harness.reconcile import OFTEN, reconcile


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


def test_without_consul_a_copy_that_another_run_has_deleted_was_not_deleted_by_a_client(lab):
    """Another replica, or the command line, moves the same group at the same time, of which a slow run does not know."""
    group = MovingGroup(lab)

    def another_run():
        assert push(group.owner, group.path).status == 200
        time.sleep(1)
        assert ask(group.wrong.address, "DELETE", group.path).status == 202

    group.before[group.owner]["POST", as_runs_write(group.path)] = another_run
    reconcile(group.replica)
    assert group.values() == {"first": ['{"value": "1"}'], "second": ['{"value": "2"}']}


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


def test_a_put_that_the_copy_refuses_while_others_are_pushed_stays(lab):
    """The group is removed from the copy then, as it is void, and not from its owner, which was given it before."""
    group = MovingGroup(lab)
    assert push(group.wrong, group.other).status == 200

    def is_slow():
        time.sleep(1)
        group.request("PUT", group.path, "# TYPE second gauge\nsecond 6\n", visits=False)
        assert ask(group.wrong.address, "DELETE", group.path).status == 202

    group.before[group.owner]["POST", as_runs_write(group.other)] = is_slow
    done = reconcile(group.replica)
    assert done.code == 0, done
    assert group.values() == {"second": ['{"value": "6"}']}
    assert group.values(group.other) == {"first": ['{"value": "1"}'], "second": ['{"value": "2"}']}
    assert scrape.held(group.wrong) == {}


def test_a_push_wins_that_the_copys_shard_takes_as_its_owner_has_died(lab):
    """Just when the copy was about to be deleted, as its owner had it."""
    group = MovingGroup(lab)

    def fail_over():
        group.owner.kill()
        assert push(group.wrong, group.path, "# TYPE second gauge\nsecond 6\n").status == 200

    # The plan, two looks beside the push, another plan.
    group.after_listings[group.wrong] += [lambda: None] * 3 + [fail_over]
    assert reconcile(group.replica).code == 1
    assert sorted(scrape.held(group.wrong)) == [group.path]
    group.owner.start().wait_ready()
    assert reconcile(group.replica).code == 0
    assert group.values() == {"first": ['{"value": "1"}'], "second": ['{"value": "6"}']}


def test_a_push_wins_that_the_copys_shard_takes_while_its_owner_hangs(lab):
    """Between the look at the copy and the question whether its owner is still there, which is answered late."""
    group = MovingGroup(lab)

    def hang():
        assert push(group.wrong, group.path, "# TYPE second gauge\nsecond 6\n").status == 200
        time.sleep(1.5)

    def owner_will_hang():
        group.before[group.owner]["GET", "/api/v1/status"] = hang

    group.after_listings[group.wrong] += [lambda: None] * 3 + [owner_will_hang]
    assert reconcile(group.replica).code == 1
    assert sorted(scrape.held(group.wrong)) == [group.path]
    assert reconcile(group.replica).code == 0
    assert group.values() == {"first": ['{"value": "1"}'], "second": ['{"value": "6"}']}


def test_a_run_deletes_nothing_once_another_ring_is_in_force(lab):
    """The owner goes off the ring as the copy is about to be deleted, which then has the place of the owner."""
    group = MovingGroup(lab, reconcile=OFTEN)
    replica, owner = group.replica, group.stubs[group.owner].address.text

    def leave():
        servers = [stub.address.text for stub in group.stubs.values() if stub.address.text != owner]
        replica.change_config(pushgateway={"port": 9091, "servers": servers})
        replica.send(signal.SIGHUP)
        wait_until(lambda: owner not in replica.shards(), "the owner is off the ring")

    group.after_listings[group.wrong] += [lambda: None] * 2 + [leave]
    replica.start().wait_ready()
    wait_until(lambda: owner not in replica.shards(), "the owner is off the ring")
    wait_until(lambda: scrape.held(group.owner) == {}, "what was moved has come back")
    assert scrape.held(group.wrong).keys() == {group.path}
    assert not deletions(group.stubs[group.wrong])


def test_a_run_deletes_nothing_once_replicas_go_by_another_ring(lab):
    """The same with Consul, through which a run of one process hears of the ring of another."""
    consul = lab.consul()
    group = MovingGroup(lab, consul, reconcile={**OFTEN, "interval": "1h"}, consul_server={"register": False})
    replica, owner = group.replica.start().wait_ready(), group.stubs[group.owner].address
    wait_until(lambda: replica.metric("shardd_reconcile_last_success_timestamp_seconds") > 0, "nothing is left")

    def leave():
        consul.deregister(owner)
        wait_until(lambda: owner.text not in replica.shards(), "the owner is off the ring")

    assert push(group.wrong, group.path).status == 200
    group.stubs[group.wrong].requests.clear()
    # Two plans, as groups have moved unexpectedly; two looks beside the push, and another plan.
    group.after_listings[group.wrong][:] = [lambda: None] * 4 + [leave]
    assert reconcile(replica).code == 1
    assert not deletions(group.stubs[group.wrong])


def test_a_group_made_anew_on_its_owner_alone_loses_no_push(lab):
    """Where pushes do not visit the copy, none would be seen that came in while something is taken from the owner."""
    group = MovingGroup(lab)
    group.then("DELETE")
    group.then("POST", "third 3\n", visits=False)
    done = reconcile(group.replica)
    assert done.code == 1 and f"{group.path.removeprefix('/metrics')} changes too often" in done.errors, done
    assert group.values()["third"] == ['{"value": "3"}']
    assert reconcile(group.replica).code == 0


def deletions(stub):
    return [request.target for request in stub.requests if request.method == "DELETE"]
