"""Membership by a real Consul agent: every way in and out of the ring, each under a constant load of pushes."""

import signal
import subprocess

import pytest

from harness.net import holds, wait_until


def texts(shards):
    return sorted(shard.address.text for shard in shards)


def consul_settings(**settings):
    return {"consul_server": {"register_service_name": "pushgateway", **settings}}


def start(lab, count=3, **settings):
    """A Consul agent, Pushgateways, and a replica that has registered them."""
    consul = lab.consul()
    shards = lab.pushgateways(count)
    replica = lab.shardd(shards, consul=consul, **consul_settings(**settings))
    wait_until(lambda: consul.passing() == texts(shards), "all are registered and passing")
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    return consul, shards, replica


def becomes(replica, shards):
    wait_until(lambda: replica.shards() == texts(shards), f"the ring is {texts(shards)}", timeout=20)


def test_registration_happens_once_and_the_ring_does_not_flap_at_start(lab):
    consul = lab.consul()
    shards = lab.pushgateways(3)
    replicas = [lab.shardd(shards, consul=consul, wait=False) for _ in range(2)]
    seen = [set(), set()]

    def look():
        for replica, rings in zip(replicas, seen):
            try:
                ring = replica.ring()
            except OSError:
                continue
            rings.add((ring["generation"], tuple(shard["address"] for shard in ring["shards"])))
        return consul.passing() == texts(shards) and all(replica.is_ready() for replica in replicas)

    wait_until(look, "all are registered and passing", every=0.01)
    holds(look, "all stay passing", 3, every=0.02)
    for rings in seen:
        assert {members for _, members in rings} == {tuple(texts(shards))}
        assert {generation for generation, _ in rings} == {1}

    services = consul.services()
    assert sorted(services) == sorted(f"{shard.address.host}_{shard.address.port}" for shard in shards)
    for shard in shards:
        service = services[f"{shard.address.host}_{shard.address.port}"]
        assert (service["Service"], service["Address"], service["Port"]) == ("pushgateway", *shard.address)
    # A registration that is written again gets a new ModifyIndex: a restart and another replica write nothing.
    before = indices(consul)
    replicas[0].stop()
    replicas[0].start().wait_ready()
    third = lab.shardd(shards, consul=consul)
    wait_until(lambda: third.ring()["source"] == "consul", "the third replica follows Consul")
    holds(lambda: indices(consul) == before, "the registrations", 1.5)


def indices(consul):
    entries = consul.call("GET", "/v1/health/service/pushgateway")
    return sorted((entry["Service"]["ID"], entry["Service"]["ModifyIndex"]) for entry in entries)


def test_a_registration_of_somebody_elses_is_left_alone(lab):
    consul = lab.consul()
    shards = lab.pushgateways(2)
    for shard in shards:
        consul.register(shard.address)
    replica = lab.shardd(shards, consul=consul, consul_server={"register": False})
    becomes(replica, shards)
    before = indices(consul)
    holds(lambda: indices(consul) == before, "the registrations", 1)


@pytest.mark.core
def test_deregistered_and_registered_under_load(lab):
    consul, shards, replica = start(lab)
    newcomer = lab.pushgateway()
    with lab.load(replica, [*shards, newcomer]) as load:
        consul.deregister(shards[0].address)
        becomes(replica, shards[1:])
        load.pushes_more()
        consul.register(newcomer.address)
        becomes(replica, [*shards[1:], newcomer])
        load.pushes_more()
        consul.register(shards[0].address)
        becomes(replica, [*shards, newcomer])
        load.pushes_more()
        load.check()
    load.check_readable()


def test_maintenance_under_load(lab):
    consul, shards, replica = start(lab)
    with lab.load(replica, shards) as load:
        consul.set_maintenance(shards[1].address, True)
        becomes(replica, [shards[0], shards[2]])
        load.pushes_more()
        consul.set_maintenance(shards[1].address, False)
        becomes(replica, shards)
        load.pushes_more()
        load.check()
    load.check_readable()


def test_a_killed_process_leaves_and_rejoins_under_load(lab):
    consul, shards, replica = start(lab)
    with lab.load(replica, shards) as load:
        shards[2].kill()
        becomes(replica, shards[:2])
        load.pushes_more()
        shards[2].start().wait_ready()
        becomes(replica, shards)
        load.pushes_more()
        load.check()
    load.check_readable()


@pytest.mark.parametrize("wait", ["0s", "2s"])
def test_a_consul_that_hangs_or_stops_changes_nothing(lab, wait):
    consul, shards, replica = start(lab, wait=wait)
    generation = replica.generation()

    def unchanged():
        return replica.generation() == generation and replica.shards() == texts(shards)

    def polls(result_is_success):
        found = replica.metrics().get("shardd_discovery_polls_total", {})
        return sum(
            value for labels, value in found.items() if (dict(labels)["result"] == "success") == result_is_success
        )

    with lab.load(replica, shards) as load:
        consul.pause()
        holds(unchanged, "the ring while Consul hangs", 4)
        consul.resume()
        wait_until(consul.has_leader, "Consul is back")
        good = polls(True)
        wait_until(lambda: polls(True) > good, "polls succeed again", timeout=30)
        assert unchanged()

        bad = polls(False)
        consul.send(signal.SIGTERM)
        consul.wait()
        wait_until(lambda: polls(False) > bad, "a failed poll is counted")
        holds(unchanged, "the ring while Consul is down", 2)

        # In memory only: it comes back knowing no service at all.
        consul.start().wait_ready()
        good = polls(True)
        holds(unchanged, "the ring with an empty catalogue", 4)
        load.check()
    load.check_readable()
    assert unchanged()


def test_a_start_without_consul_uses_the_files_servers(lab):
    consul = lab.consul()
    consul.stop()
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards, consul=consul)
    assert replica.shards() == texts(shards)
    assert replica.ring()["source"] == "config"
    with lab.load(replica, shards) as load:
        consul.start().wait_ready()
        wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul", timeout=30)
        load.pushes_more()
        load.check()
    load.check_readable()


@pytest.mark.core
def test_a_blocking_query_tells_of_a_change_at_once(lab):
    consul, shards, replica = start(lab, wait="30s", poll_interval="10s")
    consul.deregister(shards[0].address)
    wait_until(lambda: replica.shards() == texts(shards[1:]), "the change came by the blocking query", timeout=3)


def test_token_and_acl(lab, tmp_path):
    consul = lab.consul('acl { enabled = true, default_policy = "deny", tokens { master = "secret-token" } }')
    shards = lab.pushgateways(2)
    file = tmp_path / "token"
    file.write_text("secret-token\n")

    replica = lab.shardd(shards, consul=consul, consul_server={"token_file": file})
    wait_until(lambda: replica.ring()["source"] == "consul", "the token opens Consul")
    assert replica.shards() == texts(shards)
    assert "secret-token" not in replica.log()

    # Without the token Consul answers with an empty list: the ring of the file stays.
    blind = lab.shardd(shards, consul=consul, consul_server={"register": False})
    holds(lambda: blind.shards() == texts(shards), "the ring of the file", 1.5)


def test_shards_of_consul_take_the_place_of_the_files(lab):
    consul = lab.consul()
    shards = lab.pushgateways(3)
    for shard in shards:
        consul.register(shard.address, check=False)
    # The file names one only; Consul knows all three, one of them twice.
    consul.call(
        "PUT",
        "/v1/agent/service/register",
        {"ID": "again", "Name": "pushgateway", "Address": shards[0].address.host, "Port": shards[0].address.port},
    )
    replica = lab.shardd(shards[:1], consul=consul, consul_server={"register": False})
    becomes(replica, shards)


def test_an_empty_service_address_means_the_nodes(lab):
    consul = lab.consul()
    shard = lab.pushgateway(host=consul.address.host)
    consul.call("PUT", "/v1/agent/service/register", {"Name": "pushgateway", "Port": shard.address.port})
    replica = lab.shardd(["127.0.0.1:1"], consul=consul, consul_server={"register": False})
    becomes(replica, [shard])
    assert replica.push("/metrics/job/a").status == 200


def test_basic_auth(lab):
    consul = lab.consul()
    proxy = lab.consul_proxy(consul, username="user", password="pass:word")
    shards = lab.pushgateways(2)
    credentials = {"username": "user", "password": '"pass:word"'}
    replica = lab.shardd(shards, consul=proxy, consul_server=credentials)
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    assert proxy.refused == 0
    assert consul.passing() == texts(shards)
    assert "pass:word" not in replica.log()

    stranger = lab.shardd(shards, consul=proxy)
    wait_until(lambda: proxy.refused > 0, "the proxy turns a stranger away")
    assert stranger.ring()["source"] == "config"


def certify(folder, name, host):
    """Makes a certificate for a host that signs itself; returns its file and the key's."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
        + ["-addext", f"subjectAltName=IP:{host},DNS:{name}.test", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls(lab, tmp_path, monkeypatch):
    consul = lab.consul()

    def restart_with(certificate, key):
        consul.stop()
        consul.argv[-1] = f'-hcl=ports {{ https = 8501 }} cert_file = "{certificate}" key_file = "{key}"'
        consul.start().wait_ready()

    certificate, key = certify(tmp_path, "agent", consul.address.host)
    stranger, _ = certify(tmp_path, "stranger", consul.address.host)
    restart_with(certificate, key)
    shards = lab.pushgateways(2)
    url = f"https://{consul.address.host}:8501"

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    replica = lab.shardd(shards, consul=consul, consul_server={"addr": url})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul over TLS")
    assert consul.passing() == texts(shards)

    monkeypatch.setenv("SSL_CERT_FILE", str(stranger))
    wary = lab.shardd(shards, consul=consul, consul_server={"addr": url})
    wait_until(lambda: "certificate is not trusted" in wary.log(), "a stranger's certificate is refused, and said so")
    assert wary.ring()["source"] == "config"

    # Trusted, but for another host.
    other, other_key = certify(tmp_path, "other", "127.9.9.9")
    restart_with(other, other_key)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    misled = lab.shardd(shards, consul=consul, consul_server={"addr": url})
    wait_until(lambda: "certificate is not trusted" in misled.log(), "another host's certificate is refused")
    assert misled.ring()["source"] == "config"


@pytest.mark.parametrize("fault", [500, 429, 403, "garbage", "slow", "close", "filtered"])
def test_a_consul_that_answers_wrongly_changes_nothing(lab, fault):
    """The faults come from a proxy: a real Consul cannot be told when to lose its leader or to limit rates."""
    consul = lab.consul()
    proxy = lab.consul_proxy(consul)
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, consul=proxy)
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    generation = replica.generation()
    proxy.fault = fault
    wait_until(lambda: proxy.faults_served >= 2, "the fault was met, and again after a pause", timeout=30)
    assert (replica.generation(), replica.shards()) == (generation, texts(shards))
    assert replica.push("/metrics/job/a").status == 200
    proxy.fault = None
    consul.deregister(shards[0].address)
    wait_until(lambda: replica.shards() == texts(shards[1:]), "Consul is heard again", timeout=30)
