"""A shard is a store, not an address: two names of one Pushgateway, names that change, and addresses that another one takes."""

import itertools
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.moving import BODY
from harness.net import Address, holds, new_address, new_host, wait_until
from harness.reconcile import OFTEN, drain, misplacements, reconcile, wait_at_rest
from harness.stub import answers

PATHS = [f"/metrics/job/named/number/{number}" for number in range(40)]


def groups(*shards):
    return sum(len(shard.groups()) for shard in shards)


def everywhere(lab, count, **options):
    """Pushgateways that can be reached by every address of loopback."""
    return [lab.pushgateway(host="0.0.0.0", **options) for _ in range(count)]


def name(gateway, host=None):
    return Address(host or new_host(), gateway.address.port).text


NAMES = {
    "host name and address": ("localhost:{port}", "127.0.0.1:{port}"),
    "two addresses": ("127.0.0.3:{port}", "127.0.0.4:{port}"),
    "IPv4-mapped": ("127.0.0.1:{port}", "[::ffff:127.0.0.1]:{port}"),
    "capital letters": ("localhost:{port}", "LOCALHOST:{port}"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_one_pushgateway_under_two_names_keeps_every_group(lab, names):
    gateways = everywhere(lab, 2)
    servers = [text.format(port=gateways[0].address.port) for text in names] + [name(gateways[1])]
    replica = lab.shardd(servers, reconcile=OFTEN)
    assert len(replica.shards()) == 2 and replica.metric("shardd_shards_same_store") == 1
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    wait_at_rest(replica)
    assert groups(*gateways) == len(PATHS)
    assert replica.metric("shardd_reconcile_copies_deleted_total") == 0
    first = min(servers[:2], key=str.encode)
    assert first in replica.shards()
    (line,) = [line for line in replica.log().splitlines() if "lead to one Pushgateway" in line]
    assert all(server in line for server in servers[:2]), line
    # The commands go by stores, too.
    assert reconcile(replica).code == 0 and groups(*gateways) == len(PATHS)


def test_a_name_that_is_found_later_to_be_another_ones_keeps_every_group(lab):
    """Nobody listens at one of the names at first."""
    gateway, other = everywhere(lab, 2)
    port = new_address("127.0.0.1").port
    replica = lab.shardd([name(gateway), f"127.0.0.1:{port}", name(other)], reconcile=OFTEN)
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    lab.balancer([gateway], Address("127.0.0.1", port))
    wait_until(lambda: replica.metric("shardd_shards_same_store") == 1, "it is known to be one store")
    wait_at_rest(replica)
    held = {path for shard in (gateway, other) for path in scrape.held(shard)}
    assert held == set(PATHS)


def test_a_registration_by_address_beside_a_name_in_the_file_keeps_every_group(lab):
    consul = lab.consul()
    gateways = everywhere(lab, 2)
    for gateway in gateways:
        consul.register(Address("127.0.0.1", gateway.address.port))
    replica = lab.shardd([f"localhost:{gateway.address.port}" for gateway in gateways], consul=consul, reconcile=OFTEN)
    wait_until(lambda: replica.metric("shardd_shards_same_store") == 2, "both are known by two names")
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    wait_at_rest(replica)
    assert groups(*gateways) == len(PATHS) and len(replica.shards()) == 2


@pytest.mark.parametrize("is_restarted", [False, True])
def test_servers_that_are_renamed_keep_every_group(lab, is_restarted):
    gateways = everywhere(lab, 3)
    replica = lab.shardd([name(gateway, "127.0.0.1") for gateway in gateways], reconcile=OFTEN)
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    names = [f"localhost:{gateway.address.port}" for gateway in gateways]
    replica.change_config(pushgateway={"servers": names})
    if is_restarted:
        replica.stop()
        replica.start().wait_ready()
    else:
        replica.send(1)
    wait_until(lambda: replica.shards() == sorted(names), "the names are on the ring", 30)
    for path in PATHS[::4]:
        assert replica.push(path, "# TYPE third gauge\nthird 3\n", method="POST").status == 200
    wait_at_rest(replica)
    wait_until(lambda: groups(*gateways) == len(PATHS), "each group is there once", 30)
    holders = scrape.places(gateways)
    assert set(holders) == set(PATHS)
    for path, (holder,) in holders.items():
        assert holder.rpartition(":")[2] == replica.placement(path).rpartition(":")[2], path


def test_servers_that_are_renamed_while_consul_has_their_old_registrations_keep_every_group(lab):
    consul = lab.consul()
    gateways = everywhere(lab, 3)
    replica = lab.shardd([name(gateway, "127.0.0.1") for gateway in gateways], consul=consul, reconcile=OFTEN)
    wait_until(lambda: len(consul.passing()) == 3, "the shards are registered")
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    replica.change_config(
        pushgateway={"servers": [f"localhost:{gateway.address.port}" for gateway in gateways]}
    )
    replica.stop()
    replica.start().wait_ready()
    wait_until(lambda: replica.metric("shardd_shards_same_store") == 3, "all are known by two names")
    wait_at_rest(replica)
    assert groups(*gateways) == len(PATHS) and len(replica.shards()) == 3


def test_drain_refuses_one_of_two_names(lab):
    gateways = everywhere(lab, 2)
    first, second, other = name(gateways[0], "127.0.0.5"), name(gateways[0], "127.0.0.6"), name(gateways[1])
    replica = lab.shardd([first, second, other], reconcile=OFTEN)
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    # As an operator does who takes one of them for a shard of its own.
    replica.change_config(pushgateway={"servers": [first, other]})
    replica.send(1)

    class Named:
        address = Address("127.0.0.6", gateways[0].address.port)

    done = drain(replica, Named)
    assert done.returncode == 1 and first in done.stderr and "one Pushgateway" in done.stderr, done
    wait_at_rest(replica)
    assert groups(*gateways) == len(PATHS)


@pytest.mark.parametrize("is_consul", [False, True])
def test_an_address_that_another_store_takes_over_keeps_its_groups(lab, is_consul):
    """What the first store missed is not for the second, which has stood in for it."""
    cluster = Cluster(lab, 2, consul=is_consul, replicas=2 if is_consul else 1, files=True)
    first, second = cluster.shards
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    cluster.check_reconciled()
    first.kill()
    for path in PATHS:
        cluster.request("PUT", path, "# TYPE second gauge\nsecond 3\n")
    wait_until(lambda: groups(second) == len(PATHS), "the second stands in")
    second.wait_persisted()
    second.stop()
    held = second.file
    taken = lab.pushgateway(host=first.address.host, start=False)
    taken.argv[1] = f"--web.listen-address={first.address.text}"
    taken.address = first.address
    taken.keep_in(held)
    taken.start().wait_ready()
    if is_consul:
        cluster.consul.deregister(second.address)
    replica = cluster.replicas[0]
    wait_until(lambda: replica.states().get(first.address.text) == "up", "the address is in use again", 30)
    holds(lambda: groups(taken) == len(PATHS), "no group goes", 6, every=0.2)
    assert all(set(families) == {"second"} for families in scrape.held(taken).values())


@pytest.mark.parametrize("is_consul", [False, True])
def test_the_last_shard_that_comes_back_without_what_it_held_gets_pushes(lab, is_consul):
    """Nothing could take its place, as the others are away; then they are back, without their files too."""
    cluster = Cluster(lab, 3, consul=is_consul, replicas=2 if is_consul else 1)
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    last, *others = cluster.shards
    for shard in others:
        shard.kill()
    for replica in cluster.replicas:
        wait_until(lambda: all(replica.states().get(shard.address.text) != "up" for shard in others), "they are away")
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    last.kill()
    last.start().wait_ready()
    for replica in cluster.replicas:
        wait_until(lambda: replica.push(PATHS[0], BODY).status == 200, "the last one gets pushes", 10)
    for shard in others:
        shard.start().wait_ready()
    for replica in cluster.replicas:
        wait_until(lambda: set(replica.states().values()) == {"up"}, "all are used again")
    # Consul may tell for a moment yet that they are away; of a group that two hold already, the third is then waited for.
    for path, replica in zip(PATHS, itertools.cycle(cluster.replicas)):
        wait_until(lambda: replica.push(path, BODY).status == 200, "the push is taken", 10)
    wait_at_rest(*cluster.replicas)
    assert groups(*cluster.shards) == len(PATHS)


def test_a_store_that_cannot_be_told_gets_pushes_and_no_delete_of_shardds_own(lab):
    real = lab.pushgateways(2)
    deletes = []

    def relay(gateway):
        def answer(request):
            if request.target == "/api/v1/status":
                return answers(403)
            if request.method == "DELETE":
                deletes.append(request.target)
            kind = dict(request.headers).get("Content-Type")
            told = ask(gateway.address, request.method, request.target, request.body, [("Content-Type", kind)] if kind else [])
            return answers(told.status, told.body)

        answer.relays = True
        return answer

    blocked, other = lab.stub(relay(real[0])), lab.stub(relay(real[1]))
    other.answer = relay_all(real[1])
    replica = lab.shardd([blocked, other], reconcile=OFTEN)
    assert "cannot be told" in replica.log() and blocked.address.text in replica.log()
    wrong = misplacements(replica, [blocked, other], PATHS)
    for path, (place, _) in wrong.items():
        assert ask(place.address, "POST", path, BODY.encode()).status == 200
    for path in PATHS[:20]:
        assert replica.push(path, BODY).status == 200
    wait_at_rest(replica)
    assert reconcile(replica).code != 0
    assert deletes == [] and {path for shard in real for path in scrape.held(shard)} == set(PATHS)
    # A client's own is forwarded.
    path = next(path for path in PATHS[:20] if replica.placement(path) == blocked.address.text)
    assert replica.ask("DELETE", path).status == 202
    assert deletes == [path]
    assert replica.metric("shardd_reconcile_blocked", reason="marks") == 1


def test_a_shard_that_closes_after_each_answer_gets_marks(lab):
    """What goes with a push then goes by a connection of its own."""
    real = lab.pushgateways(2)
    relays = [lab.stub(relay_all(gateway), closes=True) for gateway in real]
    replica = lab.shardd(relays, reconcile=OFTEN)
    wait_at_rest(replica)
    path = next(path for path in PATHS if replica.placement(path) == relays[0].address.text)
    relays[0].stop()
    for method, body in (("PUT", BODY), ("DELETE", "")):
        before = len(relays[1].requests)
        answer = replica.ask(method, path, body.encode())
        assert answer.status in (200, 202), answer
        assert sum(request.method == method and request.target == path for request in relays[1].requests[before:]) <= 2
    assert real[1].void_marks()


def relay_all(gateway):
    def answer(request):
        kind = dict(request.headers).get("Content-Type")
        told = ask(gateway.address, request.method, request.target, request.body, [("Content-Type", kind)] if kind else [])
        return answers(told.status, told.body)

    answer.relays = True
    return answer


def test_addresses_that_are_no_pushgateways_are_errors(lab):
    """Those of a load balancer, of shardd itself and of another replica."""
    gateways = lab.pushgateways(3)
    balancer = lab.balancer(gateways[:2])
    own = new_address()
    other = lab.shardd(gateways)
    replica = lab.shardd(
        [gateways[2].address.text, balancer.address.text, own.text, other.address.text], address=own, reconcile=OFTEN
    )
    wait_until(lambda: replica.shards() == [gateways[2].address.text], "only one is a shard")
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    assert groups(gateways[2]) == len(PATHS)
    for address, reason in ((balancer.address, "several Pushgateways"), (own, "shardd itself"), (other.address, "shardd itself")):
        wait_until(
            lambda: any(
                "level=error" in line and address.text in line and reason in line for line in replica.log().splitlines()
            ),
            f"{address} is told to be wrong",
        )


def test_a_shard_that_restarts_empty_between_two_probes_is_told(lab):
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards, reconcile=OFTEN)
    for path in PATHS:
        assert replica.push(path, BODY).status == 200
    wait_at_rest(replica)
    lost = max(shards, key=groups)
    lost.kill()
    lost.start().wait_ready()
    assert replica.generation() == 1
    text = lost.address.text
    wait_until(lambda: replica.metric("shardd_shard_restarts_total", shard=text) == 1, "the restart is counted")
    wait_until(lambda: "has lost groups" in replica.log(), "the loss is told")
    (line,) = [line for line in replica.log().splitlines() if "has lost groups" in line]
    assert "level=warn" in line and text in line, line
    assert replica.metric("shardd_shard_restarts_total") == 1


def test_a_restart_with_a_file_is_told_and_is_no_loss(lab):
    cluster = Cluster(lab, 2, files=True)
    shard, replica = cluster.shards[0], cluster.replicas[0]
    for path in PATHS:
        cluster.request("PUT", path, BODY)
    shard.wait_persisted()
    before = replica.metric("shardd_shard_restarts_total", shard=shard.address.text)
    shard.stop()
    shard.start().wait_ready()
    wait_until(lambda: replica.metric("shardd_shard_restarts_total", shard=shard.address.text) == before + 1, "it is counted")
    cluster.check_reconciled()
    assert "shard was restarted" in replica.log() and "has lost groups" not in replica.log()


def test_a_shard_that_leaves_and_returns_before_that_is_in_force_wins_later(lab):
    """Two changes overlap: what the shard gets afterwards is no older than it is."""
    cluster = Cluster(lab, 3, spare=1, consul=True)
    shard, replica = cluster.shards[0], cluster.replicas[0]
    paths = cluster.owned_by(shard, "/metrics/job/absent", 8)
    for path in paths:
        cluster.request("PUT", path, BODY)
    cluster.consul.set_maintenance(shard.address, True)
    # Longer than replicas take to see it, and shorter than a ring is announced (0.65 s).
    time.sleep(0.45)
    cluster.consul.set_maintenance(shard.address, False)
    time.sleep(4)
    cluster.check_reconciled()
    for path in paths:
        cluster.request("POST", path, "# TYPE second gauge\nsecond 8\n")
    cluster.scale_out()
    cluster.check_reconciled()
