"""What reaches a shard, and what comes back, byte for byte.

The shard is a recording stub where the bytes that it received matter: a real Pushgateway does not show them.
"""

import gzip
import time

import pytest

from harness.http import Connection, ask
from harness.net import wait_until
from harness.stub import OK

PATH = "/metrics/job/a/instance/b"


@pytest.fixture
def stub(lab):
    return lab.stub()


@pytest.fixture
def replica(lab, stub):
    return lab.shardd([stub])


@pytest.mark.parametrize(
    "target",
    [
        "/metrics/job/a",
        "/metrics/job/a?",
        "/metrics/job/a?x=1&y=%20&z",
        "/metrics/job/%61%2Fb/x/%e4%BD%a0",
        "/metrics/job/a/x/1+2%2B3",
        "/metrics/job@base64/YQ/x@base64/=",
        "/metrics/job/a/x/;,:@!$'()*~_-.",
        "/metrics/job/" + "long" * 2000,
    ],
)
def test_path_and_query_are_kept(replica, stub, target):
    assert replica.push(target).status == 200
    assert [request.line for request in stub.requests] == [f"PUT {target} HTTP/1.1"]


@pytest.mark.parametrize(
    "body",
    [b"", b"x 1\n", bytes(range(256)) * 5, gzip.compress(b"x 1\n" * 999), b"\r\n\r\n" * 9, b"PUT / HTTP/1.1\r\n\r\n"],
    ids=["empty", "text", "binary", "gzip", "line ends", "looks like a request"],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_body_is_kept(replica, stub, method, body):
    assert replica.push(PATH, body, method).status == 200
    (request,) = stub.requests
    assert (request.method, request.body) == (method, body)
    assert request.all("Content-Length") == [str(len(body))]


@pytest.mark.core
@pytest.mark.parametrize("size", [4095, 4096, 4097, 65536, 1_000_000, 16 * 1024 * 1024])
def test_large_bodies_are_kept(replica, stub, size):
    body = bytes(number * 7 % 256 for number in range(997)) * (size // 997 + 1)
    assert replica.push(PATH, body[:size]).status == 200
    assert stub.requests[0].body == body[:size]


def test_delete_has_no_body_and_no_length_of_the_clients(replica, stub):
    assert replica.ask("DELETE", PATH).status == 200
    (request,) = stub.requests
    assert request.line == f"DELETE {PATH} HTTP/1.1"
    assert request.body == b""
    assert request.all("Content-Length") in ([], ["0"])


def test_end_to_end_headers_are_kept_in_their_order(replica, stub):
    headers = [
        ("User-Agent", "client/1.0"),
        ("Content-Type", "text/plain; version=0.0.4"),
        ("X-Twice", "1"),
        ("x-TWICE", "2"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("Content-Encoding", "identity"),
        ("X-Empty", ""),
        ("Accept", "*/*"),
        ("X-Spaces", "a  b\tc"),
        ("X-Latin", "Z\xfcrich"),
        ("Cookie", "a=b; c=d"),
    ]
    assert replica.push(PATH, headers=headers).status == 200
    (request,) = stub.requests
    kept = [(name, value) for name, value in request.headers if name not in ("Host", "Content-Length")]
    assert kept == headers


def test_hop_by_hop_headers_are_dropped(replica, stub):
    headers = [
        ("Connection", "keep-alive, X-Private, x-other"),
        ("X-Private", "1"),
        ("X-Other", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "secret"),
        ("TE", "trailers"),
        ("Trailer", "X-End"),
        ("Upgrade", "websocket"),
        ("X-Kept", "yes"),
    ]
    assert replica.push(PATH, headers=headers).status == 200
    names = {name.lower() for name, _ in stub.requests[0].headers}
    assert "x-kept" in names
    assert names & {name.lower() for name, _ in headers} <= {"x-kept", "connection"}
    # A Connection header of shardd's own may ask for persistence, never for what the client named.
    assert stub.requests[0].all("Connection") in ([], ["keep-alive"])


def test_host_is_sent_once(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(b"PUT /metrics/job/a HTTP/1.1\r\nHost: ingress.example\r\nContent-Length: 0\r\n\r\n")
        assert connection.read().status == 200
    assert len(stub.requests[0].all("Host")) == 1


@pytest.mark.core
def test_chunked_requests_leave_with_a_content_length(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(
            f"PUT {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Kept: 1\r\n\r\n"
            "3\r\nx 1\r\n1\r\n\n\r\nA\r\n0123456789\r\n0\r\n\r\n".encode()
        )
        assert connection.read().status == 200
        # The connection is as good as new.
        assert connection.ask("PUT", PATH, b"y 2\n").status == 200
    first, second = stub.requests
    assert (first.body, first.all("Content-Length"), first.all("X-Kept")) == (b"x 1\n0123456789", ["14"], ["1"])
    assert second.body == b"y 2\n"


@pytest.mark.parametrize(
    "status,reason,headers,body",
    [
        (200, "OK", [], b""),
        (202, "Accepted", [("X-Shard", "1"), ("x-shard", "2"), ("Set-Cookie", "a=b")], b"done"),
        (400, "Bad Request", [("Content-Type", "text/plain; charset=utf-8")], b"text format parsing error in line 1\n"),
        (500, "Internal Server Error", [("Content-Type", "application/json")], b'{"a": "\xff\x00"}'),
        (404, "Not Found", [("Retry-After", "7")], b"x" * 100_000),
        (299, "Odd but Legal", [], bytes(range(256)) * 300),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_the_answer_is_kept(lab, status, reason, headers, body):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    raw = f"HTTP/1.1 {status} {reason}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
    replica = lab.shardd([lab.stub(lambda request: raw)])
    answer = replica.push(PATH)
    assert (answer.status, answer.reason, answer.body) == (status, reason, body)
    own = ("content-length", "date", "connection")
    assert [(name, value) for name, value in answer.headers if name.lower() not in own] == headers


@pytest.mark.parametrize(
    "raw,body",
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-End: 1\r\n\r\n",
            b"abcdefg",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
    ids=["chunked", "no content", "after 100"],
)
def test_other_framings_of_an_answer(lab, raw, body):
    replica = lab.shardd([lab.stub(lambda request: raw)])
    with Connection(replica.address) as connection:
        for _ in range(2):
            answer = connection.ask("PUT", PATH, b"x 1\n")
            assert answer.status == (204 if b" 204 " in raw else 200)
            assert answer.body == body


def test_an_answer_framed_by_the_end_of_the_connection(lab):
    stub = lab.stub(lambda request: b"HTTP/1.0 200 OK\r\n\r\nto the end", closes=True)
    replica = lab.shardd([stub])
    assert replica.push(PATH).body == b"to the end"


def test_real_answers_are_the_pushgateways_own(lab):
    shard = lab.pushgateway()
    replica = lab.shardd([shard])
    for method, path, body, headers in [
        ("PUT", PATH, b"x 1\n", ()),
        ("POST", PATH, b"not a metric", ()),
        ("PUT", PATH, b"x{a=", ()),
        ("PUT", "/metrics/job/a/odd", b"x 1\n", ()),
        ("PUT", "/metrics/job@base64/???", b"x 1\n", ()),
        ("POST", PATH, b"# TYPE x counter\nx 1\n", ()),
        (
            "PUT",
            PATH,
            b"\x00\x01\x02",
            [
                (
                    "Content-Type",
                    "application/vnd.google.protobuf; " "proto=io.prometheus.client.MetricFamily; encoding=delimited",
                )
            ],
        ),
        ("PUT", PATH, b"not gzip", [("Content-Encoding", "gzip")]),
        ("DELETE", PATH, b"", ()),
    ]:
        ours = replica.ask(method, path, body, headers)
        theirs = ask(shard.address, method, path, body, headers)
        assert (ours.status, ours.reason, ours.body) == (theirs.status, theirs.reason, theirs.body)

        def without_date(answer):
            return [(name, value) for name, value in answer.headers if name.lower() not in ("date", "connection")]

        assert without_date(ours) == without_date(theirs), path


@pytest.mark.core
def test_pipelined_clients_are_answered_in_order(replica, stub):
    count = 100
    stub.answer = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
        len(request.target),
        request.target.encode(),
    )
    with Connection(replica.address) as connection:
        connection.send(
            b"".join(
                f"PUT /metrics/job/a/n/{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nx 1\n".encode()
                for number in range(count)
            )
        )
        answers = [connection.read() for _ in range(count)]
    assert [answer.text for answer in answers] == [f"/metrics/job/a/n/{number}" for number in range(count)]
    assert {answer.status for answer in answers} == {200}


def test_an_http_1_0_client_may_keep_its_connection(replica, stub):
    with Connection(replica.address) as connection:
        for number in range(3):
            connection.send(
                f"PUT /metrics/job/a/n/{number} HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nx 1\n".encode()
            )
            answer = connection.read()
            assert (answer.status, answer.header("Connection")) == (200, "keep-alive")
    assert len(stub.requests) == 3


def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(lab):
    body = bytes(number * 11 % 256 for number in range(1009)) * 15000
    replica = lab.shardd(
        [lab.stub(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)]
    )
    with Connection(replica.address) as slow:
        slow.request("PUT", PATH, b"x 1\n")
        # Longer than what the sockets hold.
        time.sleep(0.5)
        # Others do not wait for it.
        assert replica.push(PATH).body == body
        assert slow.read().body == body
        assert slow.ask("PUT", PATH, b"y 2\n").body == body


def test_a_large_body_holds_up_no_small_one(lab):
    """A stub that takes its time with large bodies: on one connection the small pushes would wait behind them."""
    stub = lab.stub(lambda request: (time.sleep(1) if len(request.body) > 100_000 else None) or OK)
    replica = lab.shardd([stub])
    with Connection(replica.address) as large:
        large.request("PUT", PATH, bytes(5_000_000))
        wait_until(lambda: any(len(request.body) > 100_000 for request in stub.requests), "the large one has arrived")
        began = time.monotonic()
        assert [replica.push(PATH).status for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 0.5
        assert large.read().status == 200
