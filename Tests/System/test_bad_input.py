"""Requests that are wrong: each gets its answer, nothing of it reaches a shard, and the server goes on serving.

The shard is a recording stub, since what matters is that it hears nothing.
"""

import socket
import time

import pytest

from harness.http import Closed, Connection
from harness.net import wait_until

PATH = "/metrics/job/a"
LIMITS = {
    "body_bytes": "10KiB",
    "header_bytes": "4KiB",
    "header_timeout": "700ms",
    "body_timeout": "700ms",
    "idle_timeout": "1500ms",
}


@pytest.fixture
def stub(lab):
    return lab.stub()


@pytest.fixture
def replica(lab, stub):
    return lab.shardd([stub], limits=LIMITS)


def head(*lines, first=f"PUT {PATH} HTTP/1.1"):
    return "\r\n".join([first, "Host: a", *lines, "", ""]).encode("latin-1")


def is_one_line_of_text(answer):
    assert answer.header("Content-Type").startswith("text/plain"), answer
    assert answer.text.strip() and answer.text.rstrip("\n").count("\n") == 0, answer
    return True


def still_serves(replica, stub):
    """Whether a push goes through, and is all that the shard has heard of since."""
    before = len(stub.requests)
    assert replica.push("/metrics/job/good", "good 1\n").status == 200
    assert [request.target for request in stub.requests[before:]] == ["/metrics/job/good"]
    return True


CHUNKED = "Transfer-Encoding: chunked"
MALFORMED = {
    "both framings": head("Content-Length: 4", CHUNKED) + b"4\r\nx 1\n\r\n0\r\n\r\n",
    "both framings, the other way round": head(CHUNKED, "Content-Length: 4") + b"4\r\nx 1\n\r\n0\r\n\r\n",
    "two equal lengths": head("Content-Length: 4", "Content-Length: 4") + b"x 1\n",
    "two different lengths": head("Content-Length: 4", "content-length: 40") + b"x 1\n",
    "a list of lengths": head("Content-Length: 4, 4") + b"x 1\n",
    "a length with a sign": head("Content-Length: +4") + b"x 1\n",
    "a negative length": head("Content-Length: -0"),
    "a length and junk": head("Content-Length: 4x") + b"x 1\n",
    "a length in hexadecimal": head("Content-Length: 0x4") + b"x 1\n",
    "an empty length": head("Content-Length:"),
    "a length beyond all": head("Content-Length: 99999999999999999999"),
    "gzip as transfer encoding": head("Transfer-Encoding: gzip") + b"x 1\n",
    "an unknown transfer encoding": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "identity": head("Transfer-Encoding: identity"),
    "a tab in the coding": head("Transfer-Encoding: chun\tked") + b"0\r\n\r\n",
    "an absolute target without a host": head(first="PUT http:///metrics/job/a HTTP/1.1"),
    "a host with a space": b"PUT /metrics/job/a HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n",
    "a chunk size and a space": head(CHUNKED) + b"4 \r\nx 1\n\r\n0\r\n\r\n",
    "two codings": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "chunked not last": head("Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n",
    "chunked twice": head(CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "chunked in HTTP/1.0": head(CHUNKED, first=f"PUT {PATH} HTTP/1.0") + b"0\r\n\r\n",
    "a space before the colon": head("Content-Length : 4") + b"x 1\n",
    "a space before the name": head(" Content-Length: 4") + b"x 1\n",
    "a folded header": head("X-Folded: a", " b", "Content-Length: 0"),
    "no colon": head("Content-Length 4"),
    "an empty name": head(": a"),
    "a NUL in a value": head("X-Nul: a\0b", "Content-Length: 4") + b"x 1\n",
    "a NUL in a name": head("X-N\0l: a"),
    "a bare CR in a value": head("X-Cr: a\rb"),
    "a bare LF": b"PUT /metrics/job/a HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "a bare LF in the headers": f"PUT {PATH} HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n".encode(),
    "a chunk size with 0x": head(CHUNKED) + b"0x4\r\nx 1\n\r\n0\r\n\r\n",
    "a chunk size with a sign": head(CHUNKED) + b"+4\r\nx 1\n\r\n0\r\n\r\n",
    "a chunk size and junk": head(CHUNKED) + b"4 junk\r\nx 1\n\r\n0\r\n\r\n",
    "an empty chunk size": head(CHUNKED) + b"\r\nx 1\n\r\n0\r\n\r\n",
    "a chunk longer than its size": head(CHUNKED) + b"2\r\nx 1\n\r\n0\r\n\r\n",
    "a chunk size that overflows": head(CHUNKED) + b"fffffffffffffffff\r\nx",
    "a chunk with a bare LF": head(CHUNKED) + b"4\nx 1\n\r\n0\r\n\r\n",
    "a version of the future": head(first=f"PUT {PATH} HTTP/1.7"),
    "no version": b"PUT /metrics/job/a\r\n\r\n",
    "two spaces": head(first=f"PUT  {PATH} HTTP/1.1"),
    "a space in the path": head(first="PUT /metrics/job/a b HTTP/1.1"),
    "a control character in the path": head(first="PUT /metrics/job/\x01 HTTP/1.1"),
    "no host": b"PUT /metrics/job/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": head("Host: b"),
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "a body for GET": head("Content-Length: 4", first="GET /metrics HTTP/1.1") + b"x 1\n",
    "a body for HEAD": head("Content-Length: 4", first="HEAD /metrics HTTP/1.1") + b"x 1\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_400_and_closed(lab, replica, stub, name):
    """A second request follows each: who reads the framing otherwise takes it for one of its own."""
    with Connection(replica.address) as connection:
        connection.send(MALFORMED[name] + head("Content-Length: 0", first="PUT /metrics/job/smuggled HTTP/1.1"))
        answer = connection.read()
        assert answer.status == 400, answer
        assert is_one_line_of_text(answer)
        assert answer.header("Connection") == "close"
        assert connection.is_closed()
    assert stub.requests == []
    assert still_serves(replica, stub)
    assert replica.metric("shardd_rejected_total") == 1


def test_http_2_without_asking_is_turned_away(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert connection.read().status in (400, 405)
        assert connection.is_closed()
    assert still_serves(replica, stub)


def test_what_came_before_a_malformed_request_is_answered_first(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 4") + b"x 1\n" + head("Content-Length: +4"))
        assert connection.read().status == 200
        assert connection.read().status == 400
        assert connection.is_closed()
    assert len(stub.requests) == 1


def test_malformed_bytes_one_at_a_time(replica, stub):
    with Connection(replica.address) as connection:
        for byte in head("Content-Length: 1", "Content-Length: 2"):
            try:
                connection.send(bytes([byte]))
            except ConnectionError:
                break
        assert connection.read().status == 400
    assert stub.requests == []


def test_good_bytes_one_at_a_time(lab, stub):
    replica = lab.shardd([stub])
    with Connection(replica.address) as connection:
        for request in (head("Content-Length: 4") + b"x 1\n", head(CHUNKED) + b"4\r\nx 1\n\r\n0\r\n\r\n"):
            for byte in request:
                connection.send(bytes([byte]))
                time.sleep(0.001)
            assert connection.read().status == 200
    assert [request.body for request in stub.requests] == [b"x 1\n", b"x 1\n"]


def test_a_body_over_the_limit_is_413_by_its_length(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 10241"))
        answer = connection.read()
        assert answer.status == 413
        assert is_one_line_of_text(answer)
        assert connection.is_closed()
    assert replica.push(PATH, b"x" * 10240).status == 200
    assert len(stub.requests) == 1


def test_a_body_over_the_limit_is_413_by_its_chunks(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head(CHUNKED))
        answer = None
        try:
            for _ in range(11):
                connection.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
                time.sleep(0.01)
        except ConnectionError:
            pass
        answer = connection.read()
        assert answer.status == 413
        assert is_one_line_of_text(answer)
    assert stub.requests == []
    assert still_serves(replica, stub)


def test_a_body_over_the_limit_that_asks_first_is_413(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 99999", "Expect: 100-continue"))
        assert connection.read().status == 413
    assert stub.requests == []


def test_an_unknown_expectation_is_417(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 4", "Expect: miracles") + b"x 1\n")
        assert connection.read().status == 417
    assert stub.requests == []


@pytest.mark.parametrize("lines", [["X-Long: " + "x" * 5000], [f"X-{number}: 1" for number in range(500)]])
def test_headers_over_the_limit_are_431(replica, stub, lines):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 0", *lines))
        answer = connection.read()
        assert answer.status == 431
        assert is_one_line_of_text(answer)
        assert connection.is_closed()
    assert stub.requests == []
    assert still_serves(replica, stub)


def test_an_endless_request_line_is_431(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(b"PUT /metrics/job/" + b"x" * 5000)
        assert connection.read().status == 431
    assert still_serves(replica, stub)


@pytest.mark.parametrize(
    "start,drip",
    [
        (f"PUT {PATH} HTTP/1.1\r\nHost: a\r\n".encode(), b"X: y\r\n"),
        (head("Content-Length: 100"), b"x"),
        (head(CHUNKED), b"1\r\nx\r\n"),
    ],
    ids=["headers", "body", "chunks"],
)
def test_a_slow_request_is_408_however_it_drips(replica, stub, start, drip):
    """Each byte that comes must not begin the time anew."""
    with Connection(replica.address) as connection:
        began = time.monotonic()
        connection.send(start)
        connection.socket.settimeout(0.1)
        answer = None
        while answer is None and time.monotonic() < began + 5:
            try:
                connection.send(drip)
                answer = connection.read()
            except socket.timeout:
                continue
        assert answer and answer.status == 408, answer
        assert 0.5 < time.monotonic() - began < 3
        assert is_one_line_of_text(answer)
        assert connection.is_closed()
    assert stub.requests == []
    assert still_serves(replica, stub)


def test_idle_connections_are_closed_without_a_word(replica):
    with Connection(replica.address) as fresh, Connection(replica.address) as used:
        assert used.ask("PUT", PATH, b"x 1\n").status == 200
        began = time.monotonic()
        assert used.is_closed()
        assert 1 < time.monotonic() - began < 4
        assert fresh.is_closed()


def test_a_client_that_leaves_in_the_middle_costs_nothing(replica, stub):
    for data in (
        b"PUT",
        head("Content-Length: 100")[:-2],
        head("Content-Length: 100") + b"x",
        head(CHUNKED) + b"4\r\nx",
    ):
        with Connection(replica.address) as connection:
            connection.send(data)
    wait_until(lambda: replica.metric("shardd_connections") <= 1, "their connections are gone")
    assert stub.requests == []
    assert still_serves(replica, stub)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "BREW", "put", "CONNECT"])
def test_other_methods_are_405_with_allow(replica, stub, method):
    answer = replica.ask(method, PATH)
    assert answer.status == 405, answer
    assert is_one_line_of_text(answer)
    assert {"GET", "HEAD", "PUT", "POST", "DELETE"} <= set(answer.header("Allow").replace(" ", "").split(","))
    assert stub.requests == []
    assert still_serves(replica, stub)


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("PUT", "/metrics", {"GET", "HEAD"}),
        ("DELETE", "/-/healthy", {"GET", "HEAD"}),
        ("PUT", "/", {"GET", "HEAD"}),
        ("POST", "/api/v1/ring", {"GET", "HEAD"}),
        ("PUT", "/test/v1", {"GET", "HEAD"}),
        ("GET", "/-/reload", {"POST", "PUT"}),
        ("GET", "/-/quit", {"POST", "PUT"}),
    ],
)
def test_known_paths_with_another_method_are_405(replica, method, path, allowed):
    answer = replica.ask(method, path)
    assert answer.status == 405
    assert set(answer.header("Allow").replace(" ", "").split(",")) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/",
        "/metrics/jobs/a",
        "/Metrics/job/a",
        "/metrics/job",
        "/api/v1/nothing",
        "/-/",
        "/api/v1/metrics",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_other_paths_are_404(replica, stub, method, path):
    answer = replica.ask(method, path)
    assert answer.status == 404
    assert is_one_line_of_text(answer)
    assert stub.requests == []


def test_a_hundred_bad_requests_leave_no_descriptor_behind(replica, stub):
    assert replica.push(PATH).status == 200
    before = replica.descriptors()
    for data in list(MALFORMED.values()) * 2:
        with Connection(replica.address) as connection:
            connection.send(data)
            try:
                connection.read()
            except (Closed, AssertionError):
                pass
    wait_until(lambda: replica.descriptors() <= before, "the descriptors are closed")
    assert still_serves(replica, stub)
