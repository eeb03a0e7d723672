"""A shard that comes back with its file, and a tier at rest: how long old values are seen, and what shardd asks of shards."""

import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.net import wait_until
from harness.reconcile import wait_at_rest

SERIES = 100
GROUPS = 60


def body(value):
    return "# TYPE many gauge\n" + "".join(f'many{{series="{number}"}} {value}\n' for number in range(SERIES))


def values(gateway):
    """Of clients' series, as Prometheus would scrape them."""
    found = set()
    for line in gateway.metrics_text().splitlines():
        if line.startswith("many{"):
            found.add(float(line.rpartition(" ")[2]))
    return found


@pytest.mark.parametrize("consul", [False, True], ids=["static", "consul"])
def test_old_values_stand_beside_newer_ones_for_three_seconds_at_most(lab, consul):
    """Some 6,000 series; what the shard held has been replaced elsewhere while it was away."""
    cluster = Cluster(lab, 3, consul=consul, replicas=1, files=True)
    shard, (replica,) = cluster.shards[0], cluster.replicas
    paths = cluster.owned_by(shard, "/metrics/job/old", GROUPS)
    for path in paths:
        cluster.request("PUT", path, body(1))
    shard.wait_persisted()
    shard.kill()
    for number, path in enumerate(paths):
        if number % 3 == 0:
            cluster.request("DELETE", path)
        else:
            cluster.request("PUT" if number % 3 == 1 else "POST", path, body(2))
    wait_until(lambda: replica.states().get(shard.address.text) != "up", "it is known to be away")
    assert any(other.void_marks() for other in cluster.shards[1:]), "nothing tells what was replaced"
    shard.start().wait_ready()
    began = time.monotonic()
    assert values(shard) == {1.0}, "it has come back without its file"
    wait_until(lambda: values(shard) == {2.0}, "nothing old is left", 10, every=0.02)
    took = time.monotonic() - began
    print(f"old values were seen for {took:.2f} s after the shard was ready")
    assert took < 3 + (1 if consul else 0), took
    cluster.check_reconciled()
    wait_until(lambda: not any(other.void_marks() for other in cluster.shards), "no mark is left, as each costs every push")


def test_a_push_that_is_refused_while_its_shard_is_away_replaces_nothing(lab):
    """The stand-in refuses a PUT for the type of a name in another group; what the absent shard has stays."""
    cluster = Cluster(lab, 2, replicas=1, files=True)
    (shard, other), (replica,) = cluster.shards, cluster.replicas
    kept, replaced, removed = cluster.owned_by(shard, "/metrics/job/old", 3)
    (neighbour,) = cluster.owned_by(other, "/metrics/job/new", 1)
    for path in (kept, replaced, removed):
        cluster.request("PUT", path, "# TYPE old gauge\nold 1\n")
    cluster.request("PUT", neighbour, "# TYPE typed counter\ntyped 1\n")
    shard.wait_persisted()
    shard.kill()
    for path in (kept, replaced):
        answer = replica.push(path, "# TYPE typed gauge\ntyped 2\n")
        assert answer.status == 400 and "typed" in answer.text, answer
    cluster.request("PUT", replaced, "# TYPE new gauge\nnew 3\n")
    cluster.request("DELETE", removed)
    wait_until(lambda: replica.states().get(shard.address.text) != "up", "it is known to be away")
    shard.start().wait_ready()
    wait_until(lambda: set(replica.states().values()) == {"up"}, "it is back")
    wait_at_rest(replica)
    held = {path: set(families) for path, families in scrape.held(shard).items()}
    assert held == {kept: {"old"}, replaced: {"new"}}, held


def listings(gateway):
    """How often all that a shard holds was asked for, and how often it was scraped is not among it."""
    asked = 0
    for line in ask(gateway.address, "GET", "/metrics").text.splitlines():
        if line.startswith("pushgateway_http_requests_total{") and 'handler="api/v1/metrics"' in line:
            asked += int(float(line.rpartition(" ")[2]))
    return asked


@pytest.mark.parametrize("consul", [False, True], ids=["static", "consul"])
def test_nothing_is_listed_at_rest_and_little_for_a_move(lab, consul):
    cluster = Cluster(lab, 3, spare=1 if consul else 0, consul=consul, replicas=2 if consul else 1)
    for number in range(300):
        cluster.request("PUT", f"/metrics/job/rest/number/{number}", "first 1\n")
    wait_at_rest(*cluster.replicas)
    before = [listings(shard) for shard in cluster.shards]
    time.sleep(5)
    assert [listings(shard) for shard in cluster.shards] == before
    if not consul:
        return
    known = cluster.shards[:]
    cluster.scale_out()
    wait_at_rest(*cluster.replicas)
    asked = [listings(shard) - count for shard, count in zip(known, before)]
    print(f"listings of each shard for a move: {asked}")
    assert max(asked) <= 10, asked
    assert len(scrape.places(cluster.shards)) == 300
