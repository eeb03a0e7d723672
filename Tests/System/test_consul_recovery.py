"""What a Consul that lost its state, or half of it, does to the ring: nothing. A real agent and real Pushgateways."""

import signal
import threading
import time

import pytest

from harness.http import ask
from harness.net import holds, wait_until
from harness.reconcile import OFTEN, wait_at_rest


def texts(shards):
    return sorted(shard.address.text for shard in shards)


def start(lab, count=3, **settings):
    """A Consul agent, Pushgateways, and a replica that has registered them."""
    consul = lab.consul()
    shards = lab.pushgateways(count)
    replica = lab.shardd(shards, consul=consul, consul_server=settings)
    wait_until(lambda: consul.passing() == texts(shards), "all are registered and passing")
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    return consul, shards, replica


def restart_empty(consul):
    """In memory only: it comes back knowing no service at all."""
    consul.send(signal.SIGTERM)
    consul.wait()
    consul.start().wait_ready()


@pytest.mark.parametrize("wait", ["0s", "2s"])
def test_a_catalogue_that_fills_up_again_does_not_shrink_the_ring(lab, wait):
    consul = lab.consul()
    shards = lab.pushgateways(4)
    for shard in shards:
        consul.register(shard.address)
    # It only follows: what it sees is what others have registered by then.
    replica = lab.shardd(shards, consul=consul, consul_server={"register": False, "wait": wait})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    generation = replica.generation()
    restart_empty(consul)

    def fill():
        for shard in shards:
            consul.register(shard.address)
            time.sleep(1)

    filling = threading.Thread(target=fill)
    filling.start()
    holds(lambda: replica.generation() == generation, "the ring while the catalogue fills up", 6)
    filling.join()
    assert replica.shards() == texts(shards)


def test_a_registration_that_takes_its_time_does_not_shrink_the_ring(lab):
    consul, shards, replica = start(lab, 4)
    # A probe of this one takes as long as it may, so that polls come in the midst of the registration.
    shards[1].pause()
    wait_until(lambda: len(replica.shards()) == 3, "the paused shard has left the ring")
    generation = replica.generation()
    restart_empty(consul)
    holds(lambda: replica.generation() == generation, "the ring while all are registered again", 8)
    shards[1].resume()
    wait_until(lambda: replica.shards() == texts(shards), "the resumed shard is back", timeout=20)


def test_two_replicas_and_an_empty_catalogue_under_load(lab):
    consul, shards, first = start(lab, 4)
    replicas = [first, lab.shardd(shards, consul=consul)]
    wait_until(lambda: replicas[1].ring()["source"] == "consul", "both follow Consul")
    generations = [replica.generation() for replica in replicas]

    def unchanged():
        return [replica.generation() for replica in replicas] == generations

    with lab.load(replicas, shards) as load:
        for _ in range(3):
            restart_empty(consul)
            holds(unchanged, "the rings of both", 2, every=0.02)
        wait_until(lambda: consul.passing() == texts(shards), "all are registered again", timeout=30)
        holds(unchanged, "the rings of both", 2)
        load.check()
    load.check_readable()


def test_replicas_that_start_before_consul_do_not_flap(lab):
    consul = lab.consul()
    consul.stop()
    shards = lab.pushgateways(4)
    replicas = [lab.shardd(shards, consul=consul) for _ in range(2)]
    consul.start().wait_ready()

    def unchanged():
        return all(replica.generation() == 1 and replica.shards() == texts(shards) for replica in replicas)

    wait_until(
        lambda: unchanged() and all(replica.ring()["source"] == "consul" for replica in replicas),
        "both follow Consul, with the ring they had",
        timeout=30,
        every=0.02,
    )
    holds(unchanged, "the rings of both", 2)


def test_a_deregistered_shard_stays_out_though_consul_hung(lab):
    consul, shards, replica = start(lab)
    consul.deregister(shards[0].address)
    wait_until(lambda: replica.shards() == texts(shards[1:]), "the deregistered shard has left")
    consul.pause()
    wait_until(lambda: "Consul does not name" in replica.log(), "the outage is noticed", timeout=30)
    consul.resume()
    wait_until(lambda: "Consul names healthy shards again" in replica.log(), "the end of it too", timeout=30)
    holds(lambda: replica.shards() == texts(shards[1:]), "the ring without it", 2)
    assert len(consul.services()) == 2


def with_a_shard_that_has_gone(lab, **options):
    """Consul, shards, one more that is deregistered, and a replica that has settled on the ring without that one."""
    consul = lab.consul(**options)
    *shards, gone = gateways = lab.pushgateways(4)
    for gateway in gateways:
        consul.register(gateway.address)
    proxy = lab.consul_proxy(consul)
    first = lab.shardd(shards, consul=consul, consul_server={"register": False}, reconcile=OFTEN)
    wait_until(lambda: first.shards() == texts(gateways), "the ring is of four")
    paths = [f"/metrics/job/{number}" for number in range(40)]
    paths = [path for path in paths if first.placement(path) == gone.address.text]
    assert paths
    # What a server that has yet to read the end of its log would tell.
    ask(proxy.address, "GET", "/v1/health/service/pushgateway")
    consul.deregister(gone.address)
    wait_until(lambda: first.shards() == texts(shards), "the ring is of three")
    wait_at_rest(first)
    return consul, proxy, shards, gone, first, paths


def test_a_consul_that_still_reads_its_log_is_not_believed(lab):
    """A server that has just started tells what was once, until it has read its log, to who does not ask for better; who asks
    for a consistent answer has to wait. How long that takes nobody can say, so a proxy makes the moment."""
    consul, proxy, shards, gone, first, paths = with_a_shard_that_has_gone(lab)
    generation = first.generation()
    proxy.fault = "behind"
    second = lab.shardd(
        shards, consul=proxy, consul_server={"register": False}, reconcile=OFTEN, wait=False, start=False
    )
    second.start()
    wait_until(lambda: proxy.waiting > 0, "the new replica has asked")
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        # By the ring of four, they would go to the shard that has gone, or be given to it as well.
        assert all(first.push(path).status == 200 for path in paths)
        log = second.log()
        assert gone.address.text not in log, log
    assert proxy.waiting > 0
    proxy.fault = None
    second.wait_ready()
    wait_until(lambda: second.ring()["source"] == "consul", "the new replica follows Consul")
    assert second.shards() == texts(shards)
    assert [first.generation(), second.generation()] == [generation, 1]
    assert gone.groups() == []


def test_a_consul_server_that_starts_again_brings_back_no_shard(lab):
    consul, _, shards, gone, first, paths = with_a_shard_that_has_gone(
        lab, configuration="raft_snapshot_threshold = 1000000", is_lasting=True
    )
    consul.lengthen_log(300)
    generation = first.generation()
    consul.stop()
    consul.start()
    second = lab.shardd(shards, consul=consul, consul_server={"register": False}, reconcile=OFTEN, wait=False)
    while not (consul.has_leader() and gone.address.text not in consul.passing()):
        assert all(first.push(path).status == 200 for path in paths)
    second.wait_ready()
    wait_until(lambda: second.ring()["source"] == "consul", "the new replica follows Consul")
    assert [first.generation(), second.generation()] == [generation, 1]
    assert gone.groups() == []


def test_changes_of_state_are_logged_once(lab):
    consul, _, replica = start(lab)

    def polls(result):
        return replica.metric("shardd_discovery_polls_total", result=result)

    consul.stop()
    wait_until(lambda: polls("unreachable") >= 3, "polls fail", timeout=30)
    consul.start().wait_ready()
    good = polls("success")
    wait_until(lambda: polls("success") > good + 3, "polls succeed", timeout=40)
    log = replica.log()
    assert log.count("it refuses connections") == 1
    assert log.count("Consul names healthy shards again") == 1


def test_a_refused_registration_is_logged_once(lab):
    """The proxy stands for a token that may read and not write: so the refusal can be taken back while shardd runs."""
    consul = lab.consul()
    shards = lab.pushgateways(2)
    for shard in shards:
        consul.register(shard.address)
    proxy = lab.consul_proxy(consul)
    proxy.refuses = "/v1/agent/"
    replica = lab.shardd(shards, consul=proxy)
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    wait_until(lambda: proxy.refused >= 4, "the registration is tried again and again", timeout=30)
    assert replica.log().count("shards cannot be registered with Consul") == 1
    proxy.refuses = None
    wait_until(lambda: "shards can be registered with Consul again" in replica.log(), "it succeeds", timeout=30)


def test_a_consul_that_hides_its_index_is_not_asked_in_a_spin(lab):
    """A proxy may drop headers; without an index each blocking query returns at once."""
    consul = lab.consul()
    proxy = lab.consul_proxy(consul)
    proxy.hides = ("X-Consul-Index",)
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, consul=proxy, consul_server={"wait": "10s", "poll_interval": "500ms"})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    before = proxy.served
    time.sleep(3)
    assert 2 <= proxy.served - before <= 10
    consul.deregister(shards[0].address)
    wait_until(lambda: replica.shards() == texts(shards[1:]), "changes are noticed all the same")


def test_an_instance_without_a_port_does_not_hide_the_others(lab):
    consul, shards, replica = start(lab)
    consul.call("PUT", "/v1/agent/service/register", {"ID": "odd", "Name": "pushgateway", "Address": "127.0.0.1"})
    consul.deregister(shards[0].address)
    wait_until(lambda: replica.shards() == texts(shards[1:]), "the ring follows the others")
    assert replica.log().count("no address and port to push to") == 1


def test_a_shard_that_died_while_consul_was_away_leaves_the_ring(lab):
    consul, shards, replica = start(lab)
    consul.pause()
    time.sleep(6)
    shards[0].kill()
    consul.resume()
    wait_until(lambda: replica.shards() == texts(shards[1:]), "the dead shard has left the ring", timeout=30)


def test_a_changed_check_is_registered_by_a_reload(lab):
    consul, shards, replica = start(lab)
    replica.change_config(check={"path": "/-/nowhere", "interval": "300ms", "timeout": "1s", "fall": 2, "rise": 1})
    replica.send(signal.SIGHUP)
    wait_until(lambda: consul.passing() == [], "Consul checks the new path, which is not there")
    # They became critical one after the other; the last one stays.
    assert set(replica.shards()) <= set(texts(shards))
    replica.change_config(check={"path": "/-/ready", "interval": "300ms", "timeout": "1s", "fall": 2, "rise": 1})
    replica.send(signal.SIGHUP)
    wait_until(lambda: consul.passing() == texts(shards), "Consul checks a path that is there")
    wait_until(lambda: replica.shards() == texts(shards), "the ring has all again", timeout=20)


def test_a_tag_is_added_to_what_is_registered_without_it(lab):
    consul, shards, _ = start(lab)
    replica = lab.shardd(shards, consul=consul, consul_server={"tag": "blue"})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    assert replica.shards() == texts(shards)


def test_a_failing_node_and_a_node_in_maintenance_are_out(lab):
    consul, shards, replica = start(lab)
    generation = replica.generation()
    consul.call("PUT", "/v1/agent/maintenance?enable=true")
    wait_until(lambda: consul.passing() == [], "the node is in maintenance")
    holds(lambda: replica.generation() == generation, "the last ring", 1)
    consul.call("PUT", "/v1/agent/maintenance?enable=false")
    wait_until(lambda: consul.passing() == texts(shards), "the node is back")


def test_servers_of_a_reload_count_before_consul_has_answered(lab):
    consul = lab.consul()
    consul.stop()
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards[:1], consul=consul)
    replica.change_config(pushgateway={"port": 9091, "servers": texts(shards)})
    replica.send(signal.SIGHUP)
    wait_until(lambda: replica.shards() == texts(shards), "the ring has the file's servers")
    assert replica.ring()["source"] == "config"


def test_a_reload_while_consul_is_away_holds_no_push_up(lab):
    """The replica serves by its file, and goes on to ask for the register."""
    consul = lab.consul()
    consul.stop()
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, consul=consul, reconcile=OFTEN)
    wait_until(lambda: replica.push("/metrics/job/a").status == 200, "it serves by its file")
    for interval in ("3s", "4s"):
        replica.change_config(reconcile={**OFTEN, "interval": interval})
        reloads = replica.log().count("the configuration has been reloaded")
        replica.send(signal.SIGHUP)
        wait_until(lambda: replica.log().count("the configuration has been reloaded") > reloads, "it has reloaded")
        began = time.monotonic()
        assert replica.push("/metrics/job/a").status == 200
        assert time.monotonic() - began < 1
    assert replica.metric("shardd_reconcile_blocked", reason="consul") == 1
    consul.start().wait_ready()
    wait_until(lambda: "groups are moved again" in replica.log(), "it has the register", 30)
    wait_at_rest(replica)
    assert replica.placement("/metrics/job/a") in texts(shards)
