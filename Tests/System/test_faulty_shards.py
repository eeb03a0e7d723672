"""Shards that are slow, silent, or talk nonsense. A stub where a real Pushgateway cannot be made to misbehave so."""

import socket
import threading
import time

import pytest

from harness.http import Connection
from harness.net import wait_until
from harness.stub import OK

PATH = "/metrics/job/a"
# Probes would take the silent shard out of the ring before its timeout shows.
NO_PROBES = {"interval": "60s", "timeout": "1s"}


def is_error(answer, status, *words):
    assert answer.status == status, answer
    assert answer.header("Content-Type").startswith("text/plain")
    assert answer.text.strip() and answer.text.rstrip("\n").count("\n") == 0
    assert all(word in answer.text for word in words), answer
    return True


def test_a_shard_that_never_answers_is_504(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard], check=NO_PROBES, forward={"response_timeout": "800ms"})
    assert replica.push(PATH).status == 200
    shard.pause()
    began = time.monotonic()
    assert is_error(replica.push(PATH), 504, shard.address.text)
    assert 0.6 < time.monotonic() - began < 3
    # Several at once, behind each other on one connection.
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(replica.push(PATH))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [504] * 8
    shard.resume()
    wait_until(lambda: replica.push(PATH).status == 200, "the resumed shard is used again")
    assert replica.metric("shardd_shard_requests_total", code="504") == 9
    assert replica.metric("shardd_requests_total", method="PUT", code="504") == 9


def test_other_shards_do_not_wait_for_a_silent_one(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, check=NO_PROBES, forward={"response_timeout": "3s"})
    paths = {replica.placement(path): path for path in (f"/metrics/job/a/n/{number}" for number in range(50))}
    silent, good = shards
    silent.pause()
    waiting = threading.Thread(target=replica.push, args=(paths[silent.address.text],))
    waiting.start()
    for _ in range(20):
        began = time.monotonic()
        assert replica.push(paths[good.address.text]).status == 200
        assert time.monotonic() - began < 1
    waiting.join()
    silent.resume()


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "binary": bytes(range(256)) * 4,
    "a bad status": b"HTTP/1.1 9000 Over\r\nContent-Length: 0\r\n\r\n",
    "a bad version": b"HTTP/3.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nok\r\n0\r\n\r\n",
    "a header without colon": b"HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 2_000_000,
    "endless information": b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000,
    "a NUL in the status line": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 OK\nX: y\r\nContent-Length: 0\r\n\r\n",
    "a bad version after 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "a bad trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nnone\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "several choices": b"HTTP/1.1 300 Multiple Choices\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_shard_that_answers_garbage_is_502(lab, name):
    stub = lab.stub(lambda request: GARBAGE[name])
    replica = lab.shardd([stub], check=NO_PROBES, forward={"failover": False})
    assert is_error(replica.push(PATH), 502, stub.address.text)
    stub.answer = lambda request: OK
    assert replica.push(PATH).status == 200


def test_endless_information_takes_no_memory(lab):
    """From eight connections at a time."""
    stub = lab.stub(lambda request: b"HTTP/1.1 102 Processing\r\n\r\n" * 1_000_000)
    replica = lab.shardd([stub], check=NO_PROBES, forward={"failover": False})
    assert replica.push(PATH).status == 502
    before = replica.metric("process_resident_memory_bytes")
    threads = [threading.Thread(target=replica.push, args=(f"{PATH}/n/{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replica.metric("process_resident_memory_bytes") < before + 4_000_000


def test_extensions_of_chunks_are_passed_over_however_they_are_split(lab):
    body = b'3;a\r\nabc\r\n4 ; b="c;\\"d" ; e\r\ndefg\r\n000;last\r\nX-End: 1\r\n\r\n'
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\tchunked\r\n\r\n" + body
    stub = lab.stub(lambda request: answer)
    replica = lab.shardd([stub], check=NO_PROBES)
    for stub.pieces in (1, 7, len(answer)):
        assert replica.push(PATH).body == b"abcdefg"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_passed_on(lab, status):
    """Clients follow it by GET, and would take the 200 of that for success."""
    answer = b"HTTP/1.1 %d Moved\r\nLocation: http://shard:9091/metrics/job/b\r\nContent-Length: 0\r\n\r\n" % status
    stub = lab.stub(lambda request: answer)
    replica = lab.shardd([stub], check=NO_PROBES)
    for method in ("PUT", "POST", "DELETE"):
        got = replica.ask(method, PATH)
        assert is_error(got, 400, stub.address.text, "/metrics/job/b")
        assert got.all("Location") == []
    assert stub.connections == 1


def test_a_redirect_of_a_real_pushgateway_is_never_passed_on(lab):
    replica = lab.shardd([lab.pushgateway()], check=NO_PROBES)
    for path in ("/metrics/job//x", "/metrics/job/./x", "/metrics/job/a/../x"):
        assert is_error(replica.push(path), 400, "/metrics/job/x")


@pytest.mark.parametrize("way", ["at rest", "with the push", "behind an answer"])
def test_what_a_shard_says_unasked_is_no_answer(lab, way):
    odd = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nodd!"
    stub = lab.stub(lambda request: OK + (odd if way == "behind an answer" else b""))
    replica = lab.shardd([stub], check=NO_PROBES)
    with Connection(replica.address) as connection:
        for number in range(20):
            answer = connection.ask("PUT", f"{PATH}/n/{number}", b"x 1\n")
            assert (answer.status, answer.body) == (200, b""), answer
            if way == "at rest":
                stub.say(odd)
                time.sleep(0.02)
            if way == "with the push":
                # It finds both when it goes on.
                replica.pause()
                stub.say(odd)
                connection.request("PUT", PATH, b"x 1\n")
                time.sleep(0.02)
                replica.resume()
                answer = connection.read()
                assert (answer.status, answer.body) == (200, b""), answer
    assert replica.metric("shardd_shard_retries_total") == 0


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha",
    ],
    ids=["in the head", "in the body", "in a chunk"],
)
def test_a_shard_that_closes_in_the_middle_of_its_answer_is_502(lab, part):
    stub = lab.stub(lambda request: part, closes=True)
    replica = lab.shardd([stub], check=NO_PROBES, forward={"failover": False})
    assert is_error(replica.push(PATH), 502, stub.address.text)


def test_a_push_is_sent_once_more_when_the_connection_breaks_without_an_answer(lab):
    seen = []

    def answer(request):
        seen.append(request.body)
        return b"" if len(seen) == 1 else OK

    stub = lab.stub(answer, closes=True)
    replica = lab.shardd([stub], check=NO_PROBES)
    assert replica.push(PATH, "x 5\n").status == 200
    assert seen == [b"x 5\n", b"x 5\n"]


def test_a_push_is_not_sent_for_ever(lab):
    stub = lab.stub(lambda request: b"", closes=True)
    replica = lab.shardd([stub], check=NO_PROBES, forward={"failover": False})
    assert is_error(replica.push(PATH), 502, stub.address.text)
    assert len(stub.requests) == 2


def test_a_shard_that_closes_after_each_answer(lab):
    stub = lab.stub(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", closes=True)
    replica = lab.shardd([stub], check=NO_PROBES)
    with Connection(replica.address) as connection:
        for _ in range(50):
            assert connection.ask("PUT", PATH, b"x 1\n").text == "ok"
    assert len(stub.requests) == 50


def test_an_address_that_swallows_connections_is_a_timeout(lab):
    """A listener whose backlog is full never completes a connection, as a host that drops packets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        good = lab.pushgateway()
        replica = lab.shardd([address, good], check=NO_PROBES, forward={"connect_timeout": "400ms"})
        path = next(
            path
            for path in (f"/metrics/job/a/n/{number}" for number in range(100))
            if replica.locate(path)["shard"] == address
        )
        began = time.monotonic()
        assert replica.push(path).status == 200
        assert time.monotonic() - began < 2
        assert len(good.groups()) == 1
        for filler in fillers:
            filler.close()


def test_an_empty_ring_is_503_with_retry_after(lab):
    """Only with Consul: a file with neither Consul nor servers is refused."""
    replica = lab.shardd([], consul=lab.consul(), wait=False)
    answer = wait_until(lambda: try_push(replica), "it listens")
    assert is_error(answer, 503)
    assert int(answer.header("Retry-After")) > 0
    assert replica.ask("GET", "/-/ready").status == 503
    assert replica.ask("GET", "/-/healthy").status == 200
    assert replica.ask("GET", PATH).status == 503
    assert replica.metric("shardd_ring_shards") == 0


def try_push(replica):
    try:
        return replica.push(PATH)
    except OSError:
        return None


def test_a_full_queue_is_503_with_retry_after(lab):
    shard = lab.pushgateway()
    replica = lab.shardd(
        [shard],
        check=NO_PROBES,
        forward={"connections_per_shard": 1, "pipeline_depth": 2, "queue_per_shard": 3, "response_timeout": "20s"},
    )
    assert replica.push(PATH).status == 200
    shard.pause()
    connections = [Connection(replica.address) for _ in range(10)]
    for number, connection in enumerate(connections):
        connection.request("PUT", f"/metrics/job/a/n/{number}", b"x 1\n")
    # Two on the connection and three in the queue; the rest is refused while the shard is still silent.
    wait_until(lambda: replica.metric("shardd_rejected_total") == 5, "what does not fit is refused")
    shard.resume()
    answers = sorted((connection.read() for connection in connections), key=lambda answer: answer.status)
    assert [answer.status for answer in answers] == [200] * 5 + [503] * 5
    for answer in answers[5:]:
        assert is_error(answer, 503, shard.address.text)
        assert int(answer.header("Retry-After")) > 0
    assert len(shard.groups()) == 6
    for connection in connections:
        connection.close()


def test_a_queued_push_of_a_client_that_left_is_dropped_and_a_sent_one_completes(lab):
    release = threading.Event()

    def answer(request):
        release.wait(20)
        return OK

    stub = lab.stub(answer)
    replica = lab.shardd(
        [stub],
        check=NO_PROBES,
        forward={"connections_per_shard": 1, "pipeline_depth": 1, "queue_per_shard": 100, "response_timeout": "20s"},
    )
    sent, stays = Connection(replica.address), Connection(replica.address)
    sent.request("PUT", "/metrics/job/sent", b"x 1\n")
    wait_until(lambda: stub.requests, "the first is sent")
    left = [Connection(replica.address) for _ in range(20)]
    for number, connection in enumerate(left):
        connection.request("PUT", f"/metrics/job/left/n/{number}", b"x 1\n")
    stays.request("PUT", "/metrics/job/stays", b"x 1\n")
    wait_until(lambda: replica.metric("shardd_requests_in_flight") >= 22, "all are queued")
    for connection in [sent, *left]:
        connection.close()
    wait_until(lambda: replica.metric("shardd_connections") <= 2, "the disconnects are noticed")
    release.set()
    assert stays.read().status == 200
    assert [request.target for request in stub.requests] == ["/metrics/job/sent", "/metrics/job/stays"]
    assert replica.push(PATH).status == 200
    wait_until(lambda: replica.metric("shardd_shard_in_flight") == 0, "nothing is in flight")
    stays.close()
