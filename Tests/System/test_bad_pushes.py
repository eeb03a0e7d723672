"""Pushes that a Pushgateway answers by closing the connection, or never: what they cost the pushes of others, which is nothing
but a moment."""

import threading
import time

import pytest

from harness.beside import push_beside
from harness.http import Connection, ask
from harness.net import wait_until
from harness.pushgateway import NEWEST

# So that nothing but pushes makes the shard suspect, or takes it out.
NO_PROBES = {"interval": "60s", "timeout": "1s"}
# So that pushes that the check would refuse reach the shards: others of their kind, which no check knows, do as well.
UNCHECKED = {"check": "off"}
PROGRAMS = {"1.5": "prometheus-pushgateway", "1.11": NEWEST}
# Pushgateway up to 1.6 never unlocks the route of a job in bad base64: of that without further labels, and of that with some.
LOCKING = "/metrics/job@base64/!!!"


def lock(shard):
    for path in (LOCKING, LOCKING + "/n/0"):
        assert ask(shard.address, "PUT", path, b"x 1\n").status == 400


def never_suspect(replica):
    return replica.metric("shardd_shard_up") == 1 and "suspect" not in replica.log()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("path", ["/metrics/job/100%", "/metrics/job/a/b/%zz"])
def test_a_push_that_its_shard_answers_by_closing_gets_its_400_and_costs_others_nothing(lab, program, path):
    shard = lab.pushgateway("--push.disable-consistency-check", program=PROGRAMS[program])
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED)
    direct = ask(shard.address, "PUT", path, b"x 1\n")
    good, bad = push_beside(replica, path, per_second=40, seconds=3)
    assert good.are_good and sum(good.values()) > 200, good
    assert set(bad) == {direct.status} == {400}, bad
    answer = replica.push(path)
    assert (answer.status, answer.body) == (direct.status, direct.body)
    assert never_suspect(replica)
    assert replica.metric("shardd_shard_retries_total") > 0


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("size", [10_000, 2_000_000])
def test_the_400_arrives_though_the_shard_has_not_read_the_body(lab, program, size):
    """Go closes with what it has not read: the reset follows the answer."""
    shard = lab.pushgateway(program=PROGRAMS[program])
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED)
    for _ in range(5):
        assert replica.push("/metrics/job/100%", "# " + "x" * size + "\n").status == 400
    assert never_suspect(replica)


def test_a_killed_shard_is_noticed_at_once_beside_bad_pushes(lab):
    """Its pushes go to the other one, and none is lost: also those that were on their way when it died."""
    shards = lab.pushgateways(2, "--push.disable-consistency-check")
    replica = lab.shardd(shards, check=NO_PROBES, pushes=UNCHECKED)
    killer = threading.Timer(1, shards[0].kill)
    killer.start()
    good, bad = push_beside(replica, "/metrics/job/100%", per_second=40, seconds=3)
    killer.join()
    assert good.are_good and good.slowest < 2, good
    assert set(bad) == {400}, bad


@pytest.mark.parametrize("good_count,stuck_count", [(18, 1), (18, 6), (18, 12)])
def test_pushes_behind_stuck_ones_are_answered(lab, good_count, stuck_count):
    """With the real lock of a Pushgateway 1.5, all at once on one connection."""
    shard = lab.pushgateway()
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED, forward={"response_timeout": "5s"})
    lock(shard)
    assert replica.push("/metrics/job/first").status == 200
    stuck = [Connection(replica.address) for _ in range(stuck_count)]
    good = [Connection(replica.address) for _ in range(good_count)]
    shard.pause()
    # So that all of them are on their way before the first is answered.
    for number in range(max(good_count, stuck_count)):
        if number < stuck_count:
            stuck[number].request("PUT", f"{LOCKING}/n/{number}", b"x 1\n")
        if number < good_count:
            good[number].request("PUT", f"/metrics/job/good/n/{number}", b"x 1\n")
    time.sleep(0.05)
    shard.resume()
    began = time.monotonic()
    assert [connection.read().status for connection in good] == [200] * good_count
    assert time.monotonic() - began < 4
    assert {connection.read().status for connection in stuck} == {504}
    assert len(shard.groups()) == good_count + 1
    assert never_suspect(replica)


@pytest.mark.parametrize("per_second", [1, 5, 40])
@pytest.mark.parametrize("path", [LOCKING, lambda number: f"{LOCKING}/n/{number}"], ids=["one group", "many groups"])
def test_pushes_pass_while_stuck_ones_keep_coming(lab, per_second, path):
    shard = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED, forward={"response_timeout": "4s"})
    lock(shard)
    good, bad = push_beside(replica, path, per_second, seconds=4)
    assert good.are_good and sum(good.values()) > 100, good
    assert set(bad) == {504}, bad
    assert never_suspect(replica)


def test_a_slow_shard_is_not_taken_for_a_stuck_one(lab):
    """The consistency check of a Pushgateway looks at all series for every push: with many it does a few pushes a second."""
    shard = lab.pushgateway()
    body = "".join(f'x{{n="{number}"}} 1\n' for number in range(90_000)).encode()
    assert ask(shard.address, "PUT", "/metrics/job/large", body).status == 200
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED)
    answers = []

    def push(number):
        for value in range(2):
            answers.append(replica.push(f"/metrics/job/slow/n/{number}", f"y {value}\n").status)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(24)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 1, "the shard is not slow, the test needs more series"
    assert answers == [200] * 48
    assert replica.metric("shardd_shard_retries_total") == 0


def test_a_stopped_shard_is_sent_nothing_again(lab):
    shard = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED, forward={"response_timeout": "4s"})
    assert replica.push("/metrics/job/first").status == 202
    shard.pause()
    connections = [Connection(replica.address) for _ in range(60)]
    for number, connection in enumerate(connections):
        connection.request("PUT", f"/metrics/job/a/n/{number}", b"x 1\n")
        time.sleep(0.02)
    # What comes once it is known that it says nothing is not sent at all before it answers.
    assert replica.metric("shardd_shard_queue") > 0
    time.sleep(1)
    assert replica.metric("shardd_shard_retries_total") == 0
    shard.resume()
    assert [connection.read().status for connection in connections] == [202] * 60
    assert replica.metric("shardd_shard_retries_total") == 0
    assert never_suspect(replica)


def test_what_is_not_sent_to_a_stopped_shard_is_not_done_once_it_goes_on(lab):
    """Its client has been told 504, and may have pushed again elsewhere."""
    shard = lab.pushgateway("--push.disable-consistency-check")
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED, forward={"response_timeout": "2s"})
    assert replica.push("/metrics/job/first").status == 202
    shard.pause()
    first = Connection(replica.address)
    first.request("PUT", "/metrics/job/sent", b"x 1\n")
    time.sleep(0.7)
    assert replica.push("/metrics/job/late").status == 504
    assert first.read().status == 504
    shard.resume()
    wait_until(lambda: replica.push("/metrics/job/last").status == 202, "it is used again")
    jobs = {group["job"] for group in shard.groups()}
    assert {"first", "last"} <= jobs and "late" not in jobs


def test_metrics_tell_of_retries_errors_bytes_and_the_queue(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard], check=NO_PROBES, pushes=UNCHECKED)
    assert replica.push("/metrics/job/a", "".join(f"x{number} 1\n" for number in range(100))).status == 200
    sent = replica.metric("shardd_shard_bytes_total", shard=shard.address.text, direction="out")
    received = replica.metric("shardd_shard_bytes_total", shard=shard.address.text, direction="in")
    assert 400 < sent < 1000 and 30 < received < 1000
    assert replica.metric("shardd_shard_connect_errors_total") == replica.metric("shardd_shard_retries_total") == 0
    assert replica.push("/metrics/job/100%").status == 400
    shard.kill()
    assert replica.push("/metrics/job/a").status == 502
    assert replica.metric("shardd_shard_connect_errors_total", shard=shard.address.text) > 0
