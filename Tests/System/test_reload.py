"""Reload: the whole file or nothing, and no connection lost."""

import signal

import pytest

from harness.http import Connection
from harness.net import wait_until

PATH = "/metrics/job/a"


def texts(shards):
    return sorted(shard.address.text for shard in shards)


def servers(shards):
    return {"port": 9091, "servers": [shard.address.text for shard in shards]}


def by_signal(replica):
    replica.send(signal.SIGHUP)


def by_request(replica):
    assert replica.ask("POST", "/-/reload").status == 200


@pytest.mark.core
@pytest.mark.parametrize("reload", [by_signal, by_request])
def test_servers_change_under_load_without_a_lost_connection(lab, reload):
    shards = lab.pushgateways(4)
    replica = lab.shardd(shards[:3], arguments=["--web.enable-lifecycle"])
    idle = Connection(replica.address)
    assert idle.ask("PUT", PATH, b"x 1\n").status == 200
    with lab.load(replica, shards) as load:
        for members in (shards, shards[1:], shards[:2], shards):
            replica.change_config(pushgateway=servers(members))
            reload(replica)
            wait_until(lambda: replica.shards() == texts(members), "the ring has the file's servers")
            load.pushes_more()
        load.check()
    load.check_readable()
    assert idle.ask("PUT", PATH, b"x 1\n").status == 200
    idle.close()
    assert replica.metric("shardd_config_last_reload_successful") == 1
    assert replica.metric("shardd_ring_generation") == 5


def test_limits_and_log_level_change(lab):
    replica = lab.shardd(lab.pushgateways(1), arguments=["--web.enable-lifecycle"])
    with Connection(replica.address) as connection:
        assert connection.ask("PUT", PATH, b"# " + b"x" * 2000 + b"\n").status == 200
        replica.change_config(limits={"body_bytes": "1KiB"})
        by_request(replica)
        # The connection that was there before stays; the limit holds for its next request.
        assert connection.ask("PUT", PATH, b"x 1\n").status == 200
        assert connection.ask("PUT", PATH, b"# " + b"x" * 2000 + b"\n").status == 413


@pytest.mark.parametrize(
    "text,word",
    [
        ("pushgateway: {port: 9091, servers: [}\n", ""),
        ("pushgateway: {port: 9091, servers: [127.0.0.1]}\nshards: 3\n", "shards"),
        ("pushgateway: {port: many, servers: [127.0.0.1]}\n", "pushgateway.port"),
        ("", ""),
    ],
    ids=["no YAML", "unknown key", "wrong type", "empty"],
)
def test_a_bad_file_changes_nothing_and_is_told(lab, text, word):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, arguments=["--web.enable-lifecycle"])
    replica.write_config(text)
    answer = replica.ask("POST", "/-/reload")
    assert answer.status >= 400, answer
    assert word in answer.text
    assert replica.metric("shardd_config_last_reload_successful") == 0
    assert replica.shards() == texts(shards)
    assert replica.generation() == 1
    assert replica.push(PATH).status == 200
    assert word in replica.log()

    replica.write_config(replica.settings)
    replica.send(signal.SIGHUP)
    wait_until(lambda: replica.metric("shardd_config_last_reload_successful") == 1, "the good file is accepted")


def test_what_needs_a_restart_is_refused_whole(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, arguments=["--web.enable-lifecycle"])
    for key, value in (("http_listen_addr", '"127.0.0.1:1"'), ("workers", 2), ("web", {"reuse_port": True})):
        replica.write_config({**replica.settings, key: value, "pushgateway": servers(shards[:1])})
        answer = replica.ask("POST", "/-/reload")
        assert answer.status >= 400, answer
        assert key in answer.text
        assert replica.shards() == texts(shards)
        assert replica.metric("shardd_config_last_reload_successful") == 0


def test_a_file_that_is_gone_is_told(lab):
    replica = lab.shardd(lab.pushgateways(1), arguments=["--web.enable-lifecycle"])
    replica.config_path.unlink()
    assert replica.ask("POST", "/-/reload").status >= 400
    assert replica.push(PATH).status == 200


def test_vnodes_and_key_change_placement_as_a_fresh_start_would(lab):
    shards = lab.pushgateways(3)
    replica = lab.shardd(shards, arguments=["--web.enable-lifecycle"])
    replica.change_config(hash={"vnodes": 50, "key": "path"})
    by_request(replica)
    wait_until(lambda: replica.ring()["vnodes"] == 50, "the ring is built anew")
    paths = [f"/metrics/job/a/z/{number}/b/{number}" for number in range(40)]
    fresh = lab.shardd(shards, hash={"vnodes": 50, "key": "path"})
    assert [replica.placement(path) for path in paths] == [fresh.placement(path) for path in paths]
    assert replica.ring()["key"] == "path"


def test_consul_settings_change(lab):
    consul = lab.consul()
    shards = lab.pushgateways(3)
    for shard in shards[:2]:
        consul.register(shard.address, name="one")
    consul.register(shards[2].address, name="two")
    settings = {"addr": consul.address.text, "register": False, "poll_interval": "200ms"}
    replica = lab.shardd(shards[:1], arguments=["--web.enable-lifecycle"])
    wait_until(lambda: replica.ring()["source"] == "static", "its own probe has answered")
    assert replica.shards() == texts(shards[:1])
    replica.change_config(consul_server={**settings, "register_service_name": "one"})
    by_request(replica)
    wait_until(lambda: replica.shards() == texts(shards[:2]), "the ring is the instances of one")
    assert replica.ring()["source"] == "consul"
    replica.change_config(consul_server={**settings, "register_service_name": "two"})
    refused = replica.ask("POST", "/-/reload")
    assert refused.status >= 400 and "register_service_name: cannot change without a restart" in refused.text
    assert replica.shards() == texts(shards[:2])
