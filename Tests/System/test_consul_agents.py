"""One Consul agent on each host, a replica at each: every shard is registered once, and a drain leaves nothing behind."""

import json

import pytest

from harness import scrape
from harness.http import ask
from harness.net import holds, wait_until
from harness.reconcile import OFTEN, drain

BODY = "# TYPE one gauge\none 1\n"


def texts(shards):
    return sorted(shard.address.text for shard in shards)


def once_each(consul, shards):
    """Whether every shard has one registration, which passes."""
    registered = consul.registrations()
    return [(address, passes) for _, address, passes in sorted(registered, key=lambda entry: entry[1])] == [
        (text, True) for text in texts(shards)
    ]


def follows(replica):
    return replica.ring()["source"] == "consul"


def keys(consul):
    """What drains have left in the store."""
    answer = ask(consul.address, "GET", "/v1/kv/shardd/pushgateway/register/drain/?keys")
    return json.loads(answer.body) if answer.status == 200 else []


def test_a_second_replica_registers_nothing_again(lab):
    pair = lab.consul_pair()
    shards = lab.pushgateways(3)
    for agent in pair:
        replica = lab.shardd(shards, consul=agent)
        wait_until(lambda: follows(replica) and replica.shards() == texts(shards), "the ring comes from Consul")
    wait_until(lambda: once_each(pair[0], shards), f"each is registered once: {pair[0].registrations()}", 5)
    holds(lambda: once_each(pair[0], shards), "each shard has one registration", 1)
    assert pair[1].services() == {}


@pytest.mark.parametrize("turn", range(2))
def test_replicas_that_start_together_end_with_one_registration_each(lab, turn):
    pair = lab.consul_pair()
    shards = lab.pushgateways(4)
    replicas = [lab.shardd(shards, consul=agent, wait=False) for agent in pair[:: 1 - 2 * turn]]
    for replica in replicas:
        replica.wait_ready()
        # By then it has registered the shards: the other one may have seen none of that, and have done the same.
        wait_until(lambda: follows(replica), "the ring comes from Consul")
    wait_until(lambda: once_each(pair[0], shards), f"each is registered once: {pair[0].registrations()}")
    holds(lambda: once_each(pair[0], shards), "each shard has one registration", 2)
    assert [replica.shards() for replica in replicas] == [texts(shards)] * 2
    assert [replica.generation() for replica in replicas] == [1, 1]


def test_registered_twice_the_one_of_the_first_node_stays(lab):
    """As two replicas do that look at the same moment: each has registered all when it sees the other's."""
    pair = lab.consul_pair()
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards, consul=pair[0])
    wait_until(lambda: once_each(pair[0], shards), "the first has registered them")
    meta = next(iter(pair[0].services().values()))["Meta"]
    for shard in shards:
        pair[1].register(shard.address, meta=meta)
    wait_until(lambda: len(pair[0].registrations()) == 6, "each is registered twice")
    lab.shardd(shards, consul=pair[1])
    wait_until(lambda: once_each(pair[0], shards), "each is registered once")
    first = min(agent.node for agent in pair)
    assert {node for node, *_ in pair[0].registrations()} == {first}
    assert replica.generation() == 1


def test_an_operators_registration_stays_wherever_it_is(lab):
    pair = lab.consul_pair()
    shards = lab.pushgateways(2)
    last = max(pair, key=lambda agent: agent.node)
    (first,) = [agent for agent in pair if agent is not last]
    lab.shardd(shards, consul=first)
    wait_until(lambda: once_each(pair[0], shards), "shardd has registered them")
    last.register(shards[0].address)
    wait_until(lambda: once_each(pair[0], shards), "shardd takes its own back")
    assert {address: node for node, address, _ in pair[0].registrations()} == {
        shards[0].address.text: last.node,
        shards[1].address.text: first.node,
    }


def test_a_server_whose_agent_is_gone_is_registered_again(lab):
    pair = lab.consul_pair()
    shards = lab.pushgateways(2)
    at_client = lab.shardd(shards, consul=pair[1])
    wait_until(lambda: once_each(pair[0], shards), "the client agent has them")
    replica = lab.shardd(shards, consul=pair[0])
    wait_until(lambda: follows(replica), "the other replica follows Consul")
    assert pair[0].services() == {}
    at_client.kill()
    pair[1].kill()
    wait_until(lambda: len(pair[0].services()) == 2, "the server's replica has registered them", timeout=40)
    wait_until(lambda: pair[0].passing() == texts(shards), "they pass")
    wait_until(lambda: replica.shards() == texts(shards), "and are on the ring")
    # When the agent is back, with what it had, each is registered once again.
    pair[1].start()
    lab.shardd(shards, consul=pair[1])
    wait_until(lambda: once_each(pair[0], shards), "each is registered once", timeout=40)


def start_pair(lab, is_local=True, replicas=2):
    pair = lab.consul_pair(is_local)
    shards = lab.pushgateways(3)
    found = [lab.shardd(shards, consul=agent, reconcile=OFTEN) for agent in pair[:replicas]]
    for replica in found:
        wait_until(lambda: follows(replica) and replica.shards() == texts(shards), "the ring comes from Consul")
    wait_until(lambda: once_each(pair[0], shards), "each is registered once")
    for number in range(30):
        assert found[0].push(f"/metrics/job/{number}", BODY).status == 200
    return pair, shards, found


def check_drained(pair, leaving, others, replicas):
    assert scrape.held(leaving) == {}
    assert sum(len(scrape.held(shard)) for shard in others) == 30
    for agent in pair:
        assert f"{leaving.address.host}_{leaving.address.port}" not in agent.services()
        assert not [check for check in agent.call("GET", "/v1/agent/checks").values() if check["Status"] != "passing"]
    assert once_each(pair[0], others)
    assert keys(pair[0]) == []
    for replica in replicas:
        # Until the next run it is told of as the one that the last run has emptied.
        wait_until(lambda: replica.shards() == texts(others), "the ring without it")
        assert replica.generation() == 2


@pytest.mark.parametrize("by", [0, 1], ids=["at the agent that has it", "at the other one"])
def test_a_drain_by_either_replicas_agent_leaves_nothing_behind(lab, by):
    pair, shards, replicas = start_pair(lab)
    leaving, *others = shards
    done = drain(replicas[by], leaving)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == f"{leaving.address.text} is empty and can be stopped"
    check_drained(pair, leaving, others, replicas)
    for replica in replicas:
        (line,) = [line for line in replica.log().splitlines() if "shard has left the ring" in line]
        assert "it is being drained" in line or "maintenance" in line, line


def test_a_shard_that_both_agents_have_is_drained_at_both(lab):
    pair, shards, replicas = start_pair(lab)
    leaving, *others = shards
    # As operators register them on every host: nothing takes these back.
    for agent in pair:
        agent.register(leaving.address)
    wait_until(lambda: len(pair[0].registrations()) == 4, "it is registered twice")
    done = drain(replicas[1], leaving)
    assert done.returncode == 0, done
    check_drained(pair, leaving, others, replicas)


def test_an_agent_that_is_reachable_needs_no_replica_beside_it(lab):
    pair, shards, replicas = start_pair(lab, is_local=False, replicas=1)
    leaving, *others = shards
    pair[1].register(leaving.address)
    wait_until(lambda: len(pair[0].registrations()) == 4, "it is registered twice")
    done = drain(replicas[0], leaving)
    assert done.returncode == 0, done
    check_drained(pair, leaving, others, replicas)


def test_an_agent_without_a_replica_that_cannot_be_reached_is_named_with_what_to_do(lab):
    pair, shards, replicas = start_pair(lab, replicas=1)
    leaving, *others = shards
    pair[1].register(leaving.address)
    wait_until(lambda: len(pair[0].registrations()) == 4, "it is registered twice")
    done = drain(replicas[0], leaving)
    assert done.returncode == 1, done
    last = done.stderr.strip().splitlines()[-1]
    command = f"on node {pair[1].node} run: consul services deregister -id={leaving.address.host}_{leaving.address.port}"
    assert command in last and "is empty" in last, last
    assert scrape.held(leaving) == {}
    # No replica gives it anything, although that agent holds it for healthy.
    holds(lambda: replicas[0].shards() == texts(others), "the ring without it", 1)
    pair[1].deregister(leaving.address)
    wait_until(lambda: len(pair[0].registrations()) == 2, "it is gone")
    assert drain(replicas[0], leaving).returncode == 0
    check_drained(pair, leaving, others, replicas)


def test_a_drain_whose_key_is_removed_is_taken_back_at_every_agent(lab):
    pair, shards, replicas = start_pair(lab)
    leaving = shards[0]
    key = f"/v1/kv/shardd/pushgateway/register/drain/{leaving.address.host}_{leaving.address.port}"
    entry = {"shard": leaving.address.text, "phase": "emptying", "registrations": []}
    pair[1].call("PUT", key, entry)
    for replica in replicas:
        wait_until(lambda: leaving.address.text not in replica.shards(), "it has left the ring")
    wait_until(lambda: len(pair[0].passing()) == 2, "its agent has it in maintenance")
    pair[1].call("DELETE", key)
    wait_until(lambda: once_each(pair[0], shards), "it passes again")
    for replica in replicas:
        wait_until(lambda: replica.shards() == texts(shards), "it is on the ring again")


def test_an_unknown_shard_is_an_error_at_once(lab):
    pair, shards, replicas = start_pair(lab)
    done = drain(replicas[0], lab.pushgateway(start=False), timeout=3)
    assert done.returncode == 1 and "is no shard" in done.stderr, done
    assert done.stdout == "" and keys(pair[0]) == [] and once_each(pair[0], shards)
