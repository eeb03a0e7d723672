"""Ready, and up: not while every shard refuses its checks, whatever the cause, which the one line of the answer tells."""

import subprocess
import time

import pytest

from harness.net import new_address, wait_until
from harness.pushgateway import NEWEST

PATH = "/metrics/job/a"
QUICK = {"interval": "200ms", "timeout": "1s", "fall": 2, "rise": 1}


def behind_basic_auth(lab):
    # The password is "secret".
    file = lab.directory / "users.yml"
    file.write_text("basic_auth_users: {me: $2b$05$kGKVUTGXUPGe3q1NLkhsE.RGWOqoTjVEC98f82MuRznN9IuvvSDL6}\n")
    return lab.pushgateway(f"--web.config.file={file}", program=NEWEST, start=False).start()


def behind_tls(lab):
    key, certificate, file = (lab.directory / name for name in ("key.pem", "cert.pem", "tls.yml"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=shard"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    file.write_text(f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n")
    return lab.pushgateway(f"--web.config.file={file}", program=NEWEST, start=False).start()


def hanging(lab):
    gateway = lab.pushgateway()
    gateway.pause()
    return gateway


def tell(replica):
    answer = replica.ask("GET", "/-/ready")
    assert answer.text.endswith("\n") and answer.text.count("\n") == 1, answer
    return answer.status, answer.text


def is_told_up(replica, shards):
    states = {replica.states()[shard.text] for shard in shards}
    ups = {replica.metric("shardd_shard_up", shard=shard.text) for shard in shards}
    assert (states, ups) in (({"up"}, {1}), ({"suspect"}, {0})), (states, ups)
    return states == {"up"}


@pytest.mark.parametrize(
    "make,check,reason",
    [
        (lambda lab: lab.pushgateway(), {"path": "/-/nowhere"}, "it answered 404"),
        (behind_basic_auth, {}, "it answered 401"),
        (behind_tls, {}, "it answered 400"),
        (lambda lab: lab.pushgateway(start=False), {}, "it refuses connections"),
        (hanging, {"timeout": "300ms"}, "no response in time"),
    ],
    ids=["wrong path", "basic auth", "TLS", "refuses", "hangs"],
)
def test_not_ready_while_every_shard_fails_its_checks(lab, make, check, reason):
    shards = [make(lab) for _ in range(2)]
    replica = lab.shardd(shards, wait=False, check={**QUICK, **check})
    wait_until(lambda: "is listening" in replica.log(), "it listens")
    wait_until(lambda: tell(replica)[0] == 503, "it is not ready")
    # What stands before a shard may yet have to begin.
    wait_until(lambda: reason in tell(replica)[1], "the reason is told")
    text = tell(replica)[1]
    assert all(shard.address.text in text for shard in shards), text
    assert not is_told_up(replica, [shard.address for shard in shards])
    # Pushes go there all the same.
    assert len(replica.shards()) == 2


def test_one_shard_that_passes_is_enough(lab):
    good, bad = lab.pushgateway(), new_address()
    replica = lab.shardd([good, bad], check=QUICK)
    wait_until(lambda: replica.shards() == [good.address.text], "the bad one has left the ring")
    assert tell(replica) == (200, "shardd is ready\n")
    assert is_told_up(replica, [good.address])


def test_shards_that_take_pushes_are_up_whatever_their_checks_say(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, wait=False, check={**QUICK, "interval": "1s", "path": "/-/nowhere"})
    wait_until(lambda: "is listening" in replica.log(), "it listens")
    wait_until(lambda: tell(replica)[0] == 503, "it is not ready")
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        for number in range(20):
            assert replica.push(f"{PATH}/n/{number}").status == 200
        time.sleep(0.1)
        # The figures that tell of a push are a tenth of a second old at most.
        assert tell(replica)[0] == 200
        assert is_told_up(replica, [shard.address for shard in shards])
    wait_until(lambda: tell(replica)[0] == 503, "no push has been taken for a check's interval")
    assert not is_told_up(replica, [shard.address for shard in shards])


def test_not_ready_while_consul_calls_every_shard_critical(lab):
    consul = lab.consul()
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, consul=consul, check={**QUICK, "interval": "1s"})
    wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    for shard in shards:
        consul.set_maintenance(shard.address, True)
    wait_until(lambda: tell(replica)[0] == 503, "it is not ready")
    assert "is in maintenance in Consul" in tell(replica)[1]
    # Consul may call both critical at once, or one after the other.
    (*_, last) = replica.shards()
    assert replica.states()[last] == "suspect" and replica.metric("shardd_shard_up", shard=last) == 0
    consul.set_maintenance(shards[0].address, False)
    wait_until(lambda: tell(replica)[0] == 200, "it is ready again")
    consul.stop()
    wait_until(lambda: "Consul does not name" in replica.log(), "the outage is noticed", timeout=30)
    assert tell(replica)[0] == 200


def test_an_empty_ring_is_not_ready(lab):
    consul = lab.consul()
    replica = lab.shardd([], consul=consul, wait=False)
    wait_until(lambda: "is listening" in replica.log(), "it listens")
    assert tell(replica) == (503, "shardd is not ready: no shard is healthy\n")
