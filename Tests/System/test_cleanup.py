"""`shardd cleanup`: nothing of shardd's is left in shards and Consul, clients' groups are, and shardd can be started again."""

import json

import pytest

from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.moving import BODY, MANY
from harness.net import wait_until
from harness.reconcile import OFTEN
from harness.shardd import run

PATHS = MANY[:60]


def cleanup(replica):
    return run("cleanup", f"--config.file={replica.config_path}", timeout=60)


def own_groups(shard):
    """The labels of the groups that shardd keeps for itself in a shard."""
    data = json.loads(ask(shard.address, "GET", "/api/v1/metrics").text)["data"]
    return [group["labels"] for group in data if group["labels"]["job"] == scrape.OWN_JOB]


def keys(consul):
    answer = ask(consul.address, "GET", "/v1/kv/?keys")
    return json.loads(answer.body) if answer.status == 200 else []


def is_at_rest(cluster):
    return all(replica.metric("shardd_handover_step") == 0 for replica in cluster.replicas)


def wait_rest(cluster):
    """Every store is marked as a member, too, which is done a moment after."""
    cluster.check_reconciled()
    wait_until(lambda: is_at_rest(cluster), "the tier is at rest")
    wait_until(lambda: all("tier" in own_groups(shard)[0] for shard in cluster.shards), "all stores are members")


def stop_replicas(cluster):
    for replica in cluster.replicas:
        assert replica.stop() == 0
    cluster.replicas = []


def leave_more(cluster):
    """Marks, and what a broken-off listing leaves, as a replica that was killed may leave them; what is not shardd's in Consul."""
    for shard in cluster.shards:
        for path in ("/metrics/job/shardd/void/17", "/metrics/job/shardd/barrier/listing"):
            assert ask(shard.address, "PUT", path, b"").status in (200, 202)
    for key in ("shardd/pushgateway/missed/a:1/0", "shardd/pushgateway/rings/1-2", "shardd/pushgateway2/register"):
        cluster.consul.call("PUT", f"/v1/kv/{key}", {})


@pytest.mark.core
def test_nothing_of_shardd_is_left_and_it_can_be_started_again(lab):
    cluster = Cluster(lab, 3, consul=True, replicas=2)
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    wait_rest(cluster)
    wait_until(lambda: all(len(own_groups(shard)) == 1 for shard in cluster.shards), "each is marked as a member alone")
    held = [scrape.held(shard) for shard in cluster.shards]

    refused = cleanup(cluster.idle)
    assert refused.returncode == 1 and not refused.stdout, refused
    assert refused.stderr == "shardd: 2 replicas and commands of shardd run: stop all of them first\n"
    cluster.replicas.pop().stop()
    assert "1 replica or command of shardd runs" in cleanup(cluster.idle).stderr
    assert all(own_groups(shard) for shard in cluster.shards) and "shardd/pushgateway/register" in keys(cluster.consul)

    stop_replicas(cluster)
    leave_more(cluster)
    done = cleanup(cluster.idle)
    assert done.returncode == 0 and not done.stderr, done
    addresses = sorted(shard.address.text for shard in cluster.shards)
    lines = done.stdout.splitlines()
    assert sorted(lines[:-1]) == [f"{address}: 3 groups of shardd's removed" for address in addresses]
    assert lines[-1] == "Consul: 4 keys of shardd's removed"
    assert keys(cluster.consul) == ["shardd/pushgateway2/register"]
    assert [own_groups(shard) for shard in cluster.shards] == [[], [], []]
    assert [scrape.held(shard) for shard in cluster.shards] == held

    again = cleanup(cluster.idle)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == "Consul: 0 keys of shardd's removed", again

    cluster.start_replicas(2)
    for path in PATHS[::3]:
        cluster.request("DELETE", path)
    for path in PATHS[::2]:
        cluster.request("POST", path, "third 3\n")
    wait_rest(cluster)


def test_a_shard_that_does_not_answer_keeps_everything_as_it_is(lab):
    """So that a start without it, and one after it has come back, lose nothing."""
    cluster = Cluster(lab, 3, consul=True, replicas=2, files=True)
    gone = cluster.shards[0]
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    wait_rest(cluster)
    gone.wait_persisted()
    stop_replicas(cluster)
    own = [own_groups(shard) for shard in cluster.shards]
    before = keys(cluster.consul)
    gone.kill()
    refused = cleanup(cluster.idle)
    assert refused.returncode == 1 and not refused.stdout, refused
    assert refused.stderr.startswith("shardd: nothing is removed") and gone.address.text in refused.stderr
    assert [own_groups(shard) for shard in cluster.shards[1:]] == own[1:] and keys(cluster.consul) == before

    cluster.start_replicas(1)
    paths = [path for path in PATHS if path not in scrape.held(cluster.shards[1])]
    cluster.request("DELETE", paths[0])
    cluster.request("PUT", paths[1], "third 3\n")
    wait_until(lambda: not is_at_rest(cluster), "the shard is absent")
    stop_replicas(cluster)
    refused = cleanup(cluster.idle)
    assert refused.returncode == 1 and not refused.stdout, refused
    assert f"{gone.address.text} is absent" in refused.stderr and f"drain --gone {gone.address.text}" in refused.stderr

    gone.start().wait_ready()
    cluster.start_replicas(1)
    wait_rest(cluster)
    stop_replicas(cluster)
    assert cleanup(cluster.idle).returncode == 0
    assert own_groups(gone) == [] and keys(cluster.consul) == []
    cluster.start_replicas(1)
    wait_rest(cluster)


def test_a_shard_that_consul_alone_names_is_cleaned(lab):
    cluster = Cluster(lab, 2, spare=1, consul=True, replicas=1)
    other = cluster.spare[0]
    cluster.scale_out()
    wait_rest(cluster)
    assert other.address.text not in cluster.idle.config_path.read_text()
    stop_replicas(cluster)
    assert cleanup(cluster.idle).returncode == 0
    assert [own_groups(shard) for shard in cluster.shards] == [[], [], []]


def test_a_drain_is_ended_first(lab):
    cluster = Cluster(lab, 2, consul=True, replicas=0)
    shard = cluster.shards[0].address
    drain = {"shard": shard.text, "phase": "emptying", "registrations": []}
    cluster.consul.call("PUT", f"/v1/kv/shardd/pushgateway/register/drain/{shard.host}_{shard.port}", drain)
    refused = cleanup(cluster.idle)
    assert refused.returncode == 1 and f"shardd drain {shard.text} --undo" in refused.stderr, refused


def test_without_consul(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, reconcile=OFTEN)
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    held = [scrape.held(shard) for shard in shards]
    wait_until(lambda: all(own_groups(shard) for shard in shards), "the stores are marked")
    replica.stop()
    done = cleanup(replica)
    assert done.returncode == 0 and "none may" in done.stderr, done
    assert len(done.stdout.splitlines()) == 2
    assert [own_groups(shard) for shard in shards] == [[], []]
    assert [scrape.held(shard) for shard in shards] == held
    shards[0].stop()
    refused = cleanup(replica)
    assert refused.returncode == 1 and shards[0].address.text in refused.stderr, refused


def test_a_consul_that_does_not_answer(lab):
    cluster = Cluster(lab, 2, consul=True, replicas=0)
    cluster.consul.stop()
    refused = cleanup(cluster.idle)
    assert refused.returncode == 1 and "Consul" in refused.stderr and len(refused.stderr.splitlines()) == 1, refused
