"""Static discovery: shardd's own probes, failover, and what happens when every shard is gone. Real Pushgateways."""

import pytest

from harness.net import holds, new_address, wait_until


def is_out(replica, shard):
    return shard.address.text not in replica.shards()


def owned_by(replica, shard):
    """A path that the shard owns."""
    return next(
        path
        for path in (f"/metrics/job/owned/instance/{number}" for number in range(1000))
        if replica.locate(path)["shard"] == shard.address.text
    )


def test_the_ring_is_the_files_servers_from_the_start(lab):
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards)
    ring = replica.ring()
    assert sorted(replica.shards()) == sorted(shard.address.text for shard in shards)
    assert ring["source"] == "static"
    assert ring["generation"] == 1
    holds(lambda: replica.generation() == 1, "the generation", 1.5)


@pytest.mark.core
def test_a_killed_shard_leaves_and_a_restarted_one_returns_under_load(lab):
    shards = lab.pushgateways(3)
    victim = shards[1]
    replica = lab.shardd(shards)
    path = owned_by(replica, victim)
    with lab.load(replica, shards) as load:
        victim.kill()
        assert replica.push(path).status == 200
        assert replica.metric("shardd_failovers_total", shard=victim.address.text) > 0
        wait_until(lambda: is_out(replica, victim), "the killed shard is out of the ring")
        load.pushes_more()
        victim.start().wait_ready()
        wait_until(lambda: not is_out(replica, victim), "the restarted shard is in the ring")
        load.pushes_more()
        load.check()
    load.check_readable()
    assert replica.metric("shardd_shard_up", shard=victim.address.text) == 1


@pytest.mark.parametrize("moves_groups", [False, True])
def test_failover_takes_the_next_shard_that_locate_names(lab, moves_groups):
    shards = lab.pushgateways(3)
    victim = shards[0]
    # Probes too slow to notice: only the refused connection tells.
    check = {"interval": "60s", "timeout": "1s", "fall": 2, "rise": 1}
    replica = lab.shardd(shards, check=check, reconcile={"enabled": moves_groups})
    path = owned_by(replica, victim)
    if moves_groups:
        wait_until(lambda: "every group is on its owner alone" in replica.log(), "the shards have been searched")
    located = replica.locate(path)
    assert located["next"] not in (None, located["shard"])
    victim.kill()
    assert replica.push(path, "failed_over 7\n").status == 200
    assert replica.shards() == sorted(shard.address.text for shard in shards)
    target = next(shard for shard in shards if shard.address.text == located["next"])
    assert {name for name, _ in target.samples()} >= {"failed_over"}
    assert replica.placement(path) == located["next"]
    assert replica.states()[victim.address.text] == "suspect"
    assert replica.metric("shardd_failovers_total", shard=victim.address.text) == 1
    assert replica.metric("shardd_shard_up", shard=victim.address.text) == 0

    victim.start().wait_ready()
    wait_until(lambda: replica.states()[victim.address.text] == "up", "the suspect is trusted again")
    assert replica.push(path, "back 1\n").status == 200
    wait_until(lambda: "back" in {name for name, _ in victim.samples()}, "it has its groups again")


def test_without_failover_a_dead_owner_is_a_502_that_names_it(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, check={"interval": "60s"}, forward={"failover": False})
    path = owned_by(replica, shards[0])
    shards[0].kill()
    answer = replica.push(path)
    assert answer.status == 502
    assert shards[0].address.text in answer.text
    assert replica.push(owned_by(replica, shards[1])).status == 200


def test_when_every_shard_is_gone_the_last_ring_stays_and_recovers(lab):
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards)
    for shard in shards:
        shard.kill()
    answer = replica.push("/metrics/job/a")
    assert answer.status == 502, answer
    wait_until(lambda: replica.push("/metrics/job/a").status == 502, "still an error of shardd's own")
    holds(lambda: replica.shards(), "the last ring", 1.5)
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.wait_ready()
    wait_until(lambda: set(replica.states().values()) == {"up"} and len(replica.shards()) == 3, "all shards are back")
    with lab.load(replica, shards) as load:
        load.check()
    load.check_readable()


def test_a_paused_shard_leaves_by_its_probes_and_comes_back(lab):
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards)
    shards[2].pause()
    wait_until(lambda: is_out(replica, shards[2]), "the paused shard is out of the ring")
    shards[2].resume()
    wait_until(lambda: not is_out(replica, shards[2]), "the resumed shard is in the ring")


def test_two_replicas_agree_on_every_placement(lab):
    shards = lab.pushgateways(4)
    replicas = [lab.shardd(shards), lab.shardd(list(reversed(shards)))]
    paths = [f"/metrics/job/j{number}/instance/i{number}" for number in range(50)]
    first, second = ([replica.placement(path) for path in paths] for replica in replicas)
    assert first == second == replicas[0].locate_offline(*paths)
    assert len(set(first)) == 4


def test_shards_and_shardd_on_ipv6(lab):
    shards = [lab.pushgateway(host="::1"), lab.pushgateway(host="::1")]
    replica = lab.shardd(shards, address=new_address("::1"))
    assert replica.shards() == sorted(shard.address.text for shard in shards)
    path = owned_by(replica, shards[0])
    assert replica.push(path).status == 200
    assert replica.placement(path) == shards[0].address.text
    assert len(shards[0].groups()) == 1
