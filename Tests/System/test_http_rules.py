"""What RFC 9110 and 9112 ask of a server, beyond what clients of Pushgateways usually do; with real Pushgateways where their
judgement counts.
"""

import gzip
import http.client
import random
import socket
import subprocess
import threading
import time

import pytest
import requests

from harness.http import Closed, Connection
from harness.net import wait_until
from harness.pushgateway import NEWEST
from harness.stub import OK

PATH = "/metrics/job/a"


def head(*lines, first=f"PUT {PATH} HTTP/1.1", host="a"):
    return "\r\n".join([first, f"Host: {host}", *lines, "", ""]).encode("latin-1")


@pytest.fixture
def stub(lab):
    return lab.stub()


@pytest.fixture
def replica(lab, stub):
    return lab.shardd([stub])


def is_one_line_of_text(answer):
    assert answer.header("Content-Type").startswith("text/plain"), answer
    assert answer.text.strip() and answer.text.rstrip("\n").count("\n") == 0, answer
    return True


# Chunks

EXTENDED = (
    b'3;a\r\nx 1\r\n1 ; b = c\r\n\n\r\n004;d="e;\\"\r\t"\r\ny 2\n\r\n'.replace(b"\r\t", b"\t")
    + b"0000;last=1\r\nX-Trailer: 1\r\nX-Empty:\r\n\r\n"
)


def test_chunk_extensions_are_ignored_however_they_are_split(lab):
    gateway = lab.pushgateway()
    replica = lab.shardd([gateway])
    message = head("Transfer-Encoding:\tchunked\t") + EXTENDED
    numbers = random.Random(7)
    for _ in range(12):
        places = sorted(numbers.sample(range(1, len(message)), numbers.randrange(1, 6)))
        with Connection(replica.address) as connection:
            for start, end in zip([0, *places], [*places, len(message)]):
                connection.send(message[start:end])
                time.sleep(0.002)
            assert connection.read().status == 200
    stored = gateway.metrics_text()
    assert '\nx{instance="",job="a"} 1\n' in stored and '\ny{instance="",job="a"} 2\n' in stored


@pytest.mark.parametrize(
    "body",
    [
        b'4;a="b\r\nx 1\n\r\n0\r\n\r\n',
        b"4;\r\nx 1\n\r\n0\r\n\r\n",
        b"4;a\nx 1\n\r\n0\r\n\r\n",
        b"4;a=\0\r\nx 1\n\r\n0\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\nno colon\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\n: no name\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\nX : 1\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\nX: \x01\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\nX: 1\r\n folded\r\n\r\n",
        b"4\r\nx 1\n\r\n0\r\nContent-Length: 4\r\n\r\n",
    ],
)
def test_malformed_extensions_and_trailers_are_400(replica, stub, body):
    with Connection(replica.address) as connection:
        connection.send(head("Transfer-Encoding: chunked") + body + head("Content-Length: 0"))
        answer = connection.read()
        assert answer.status == 400 and is_one_line_of_text(answer)
        assert connection.is_closed()
    assert stub.requests == []
    assert replica.metric("shardd_rejected_total", reason="bad_request") == 1


# Lines and space

def test_empty_lines_before_a_request_are_ignored(replica, stub):
    with Connection(replica.address) as connection:
        for before in (b"\r\n", b"\r\n\r\n", b""):
            connection.send(before + head("Content-Length: 4") + b"x 1\n\r\n")
            assert connection.read().status == 200
        connection.send(b"\r")
        time.sleep(0.02)
        connection.send(b"\n")
        time.sleep(0.02)
        connection.send(head("Content-Length: 0"))
        assert connection.read().status == 200
    assert [request.body for request in stub.requests] == [b"x 1\n"] * 3 + [b""]


def test_a_client_that_has_sent_an_empty_line_is_idle(lab, stub):
    replica = lab.shardd([stub], limits={"header_timeout": "300ms", "idle_timeout": "1s"})
    with Connection(replica.address) as connection:
        connection.send(b"\r\n")
        time.sleep(0.7)
        assert connection.ask("PUT", PATH, b"x 1\n").status == 200


def test_empty_lines_without_end_are_400(replica):
    with Connection(replica.address) as connection:
        connection.send(b"\r\n" * 100)
        assert connection.read().status == 400


def test_tabs_around_values_are_space(replica, stub):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length:\t4\t ", "X-Tab:\tb\t", host="\ta\t") + b"x 1\n")
        assert connection.read().status == 200
    assert stub.requests[0].body == b"x 1\n"
    assert stub.requests[0].all("Host")[0].strip() == "a"


def test_a_delete_that_asks_to_keep_the_connection_needs_no_length(replica, stub):
    with Connection(replica.address) as connection:
        for _ in range(2):
            connection.send(head("Connection: keep-alive", first=f"DELETE {PATH} HTTP/1.1"))
            assert connection.read().status == 200
    assert [request.method for request in stub.requests] == ["DELETE"] * 2


# Ends

def test_a_client_that_has_closed_its_half_is_answered(lab):
    slow = lab.stub(lambda request: time.sleep(0.4) or OK)
    replica = lab.shardd([slow], check={"interval": "60s"})
    for version, delay in (("1.1", 0), ("1.1", 0.1), ("1.0", 0)):
        with Connection(replica.address) as connection:
            connection.send(head("Content-Length: 4", first=f"PUT {PATH} HTTP/{version}") + b"x 1\n")
            time.sleep(delay)
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.read().status == 200
            assert connection.is_closed()
    with Connection(replica.address) as connection:
        connection.send((head("Content-Length: 4") + b"x 1\n") * 3 + head(first="GET /test/v1 HTTP/1.1"))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.read().status for _ in range(4)] == [200] * 4
        assert connection.is_closed()


def test_a_half_closed_client_of_a_queued_push_is_answered_and_costs_nothing(lab):
    slow = lab.stub(lambda request: time.sleep(0.5) or OK)
    replica = lab.shardd(
        [slow], check={"interval": "60s"}, forward={"connections_per_shard": 1, "pipeline_depth": 1}
    )
    connections = [Connection(replica.address) for _ in range(3)]
    for connection in connections:
        connection.send(head("Content-Length: 4") + b"x 1\n")
        connection.socket.shutdown(socket.SHUT_WR)
    assert replica.cpu_share(0.6) < 0.2
    assert [connection.read().status for connection in connections] == [200] * 3
    for connection in connections:
        connection.close()


def test_what_a_client_has_not_finished_before_its_end_is_no_request(replica, stub):
    for data in (head("Content-Length: 4")[:-2], head("Content-Length: 4") + b"x", head("Transfer-Encoding: chunked")):
        with Connection(replica.address) as connection:
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(Closed):
                connection.read()
    assert stub.requests == []


def keep_sending(connection, data, stopped):
    try:
        while not stopped.is_set():
            connection.socket.send(data)
    except OSError:
        pass


@pytest.mark.parametrize(
    "first",
    [
        head("Connection: close", "Content-Length: 4") + b"x 1\n",
        head("Content-Length: +4"),
        head("Content-Length: 99999999999"),
        head("x: " + "y" * 70000),
        head("Transfer-Encoding: chunked") + b"ffffffff\r\n",
        head("Content-Length: 0", first="BREW / HTTP/1.1"),
    ],
    ids=["close", "400", "413", "431", "413 chunked", "405"],
)
def test_the_last_answer_comes_although_the_client_still_sends(replica, first):
    lost = 0
    for _ in range(30):
        with Connection(replica.address) as connection:
            stopped = threading.Event()
            connection.send(first)
            thread = threading.Thread(target=keep_sending, args=(connection, b"x" * 3000, stopped))
            thread.start()
            try:
                connection.read()
                time.sleep(0.005)
            except Closed:
                lost += 1
            stopped.set()
            thread.join()
    assert lost == 0
    wait_until(lambda: replica.metric("shardd_connections") <= 1, "the connections end")


def test_the_last_answer_waits_for_a_client_that_sends_very_much(replica):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 99999999999"))
        connection.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 300 << 20:
                sent += connection.socket.send(b"x" * (1 << 20))
        except TimeoutError:
            pass
        # So much is thrown away, and the rest is left where it is: nothing has been closed that has unread bytes.
        assert 64 << 20 <= sent < 100 << 20
        connection.socket.settimeout(5)
        assert connection.read().status == 413
    wait_until(lambda: replica.metric("shardd_connections") <= 1, "the connection ends")


def test_408_comes_although_the_client_still_sends(lab, stub):
    replica = lab.shardd([stub], limits={"body_timeout": "300ms"})
    with Connection(replica.address) as connection:
        stopped = threading.Event()
        connection.send(head("Content-Length: 1000000"))
        thread = threading.Thread(target=lambda: [connection.send(b"x") or time.sleep(0.02) for _ in range(30)])
        thread.start()
        assert connection.read().status == 408
        stopped.set()
        thread.join()


def test_a_client_that_never_stops_sending_is_closed_at_last(replica):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: +4"))
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < began + 20:
                connection.send(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 10
        assert connection.read().status == 400


def test_clients_that_pipeline_get_all_answers_at_shutdown(lab):
    """Each answer says whether it is the last; none that a shard has given gets lost."""
    stub = lab.stub()
    replica = lab.shardd([stub])
    push = head("Content-Length: 4") + b"x 1\n"
    counts = []
    stopped = threading.Event()

    def run():
        with Connection(replica.address) as connection:
            sender = threading.Thread(target=keep_sending, args=(connection, push, stopped))
            sender.start()
            answered, last = 0, False
            try:
                while not last:
                    answer = connection.read()
                    assert answer.status == 200
                    answered += 1
                    last = answer.header("Connection") == "close"
            except Closed:
                pass
            counts.append((answered, last))
            connection.socket.shutdown(socket.SHUT_RDWR)
            sender.join()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    replica.send(15)
    time.sleep(0.3)
    stopped.set()
    for thread in threads:
        thread.join()
    assert replica.wait() == 0
    assert sum(answered for answered, _ in counts) == len(stub.requests)


# Targets and hosts

NO_PUSHES = [
    "a:bc/metrics/job/t",
    "http:xx/metrics/job/t",
    "http:/metrics/job/t",
    "http:///metrics/job/t",
    "http://h?q=/metrics/job/t",
    "http://h#/metrics/job/t",
    "http://u:p@h/metrics/job/t",
    "http://h:99999/metrics/job/t",
    "http://h:x/metrics/job/t",
    "http://[::1/metrics/job/t",
    "ftp://h/metrics/job/t",
    "//h/metrics/job/t",
    "metrics/job/t",
    "?q=/metrics/job/t",
    "*",
    "h:80",
    "%zz:",
    "http://",
]


@pytest.mark.parametrize("target", NO_PUSHES)
def test_targets_that_are_no_pushes(replica, stub, target):
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 4", first=f"PUT {target} HTTP/1.1") + b"x 1\n")
        answer = connection.read()
        assert answer.status in (400, 404, 405), answer
        assert is_one_line_of_text(answer)
        # A path that is not clean is refused as a push's path: nothing is wrong with the connection.
        if target.startswith("/"):
            assert replica.metric("shardd_pushes_refused_total", reason="path") == 1
        elif answer.status == 400:
            assert connection.is_closed()
            assert replica.metric("shardd_rejected_total", reason="bad_request") == 1
    assert stub.requests == []


def test_an_absolute_target_is_a_push_to_its_host(replica, stub):
    for first, host in (("http://h.example:81" + PATH + "?x", "h.example:81"), ("HTTPS://[::1]" + PATH, "[::1]")):
        with Connection(replica.address) as connection:
            connection.send(head("Content-Length: 4", first=f"PUT {first} HTTP/1.1", host="other") + b"x 1\n")
            assert connection.read().status == 200
        assert stub.requests[-1].all("Host") == [host]
    assert [request.target for request in stub.requests] == [PATH + "?x", PATH]
    with Connection(replica.address) as connection:
        connection.send(f"PUT http://h{PATH} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        assert connection.read().status == 200
    assert stub.requests[-1].all("Host") == ["h"]
    with Connection(replica.address) as connection:
        connection.send(head("Content-Length: 0", first=f"PUT http://h{PATH} HTTP/1.1", host="a b"))
        assert connection.read().status == 400


def test_an_absolute_target_without_a_path_is_the_root(replica):
    with Connection(replica.address) as connection:
        connection.send(head(first="GET / HTTP/1.1"))
        root = connection.read()
        connection.send(head(first="GET http://h HTTP/1.1"))
        answer = connection.read()
        assert (answer.status, answer.body) == (root.status, root.body)
        connection.send(head(first="GET http://h/test/v1?x HTTP/1.1"))
        assert connection.read().status == 200


GOOD_HOSTS = ["", "a", "a:", "a:80", "a-b_c.d~", "1.2.3.4:65535", "[::1]:1", "[::ffff:1.2.3.4]", "a,b", "a%41", "!$&'()*+;="]
GOOD_HOSTS += ["[v1.a]", "[fe80::1%25eth0]", "a" * 1000]
BAD_HOSTS = ["a b", "a/b", "a@b", "u:p@a", "[::1", "::1", "[]", "[::1]x", "\xe9", '"x"', "<a>", "a:b", "a:65536", "a:-1", "a\tb"]
BAD_HOSTS += ["a%", "a%zz", "a?b", "a#b", "a\\b", "a:80:80", "a^b", "a|b", "{a}", "a`b"]


@pytest.mark.parametrize("program", ["prometheus-pushgateway", NEWEST], ids=["1.5", "1.11"])
def test_no_host_that_passes_makes_a_pushgateway_close(lab, program):
    """Good and bad ones in one connection's worth of pushes, each followed by one that must not suffer."""
    gateway = lab.pushgateway(program=program)
    replica = lab.shardd([gateway], check={"interval": "60s"})
    for number, host in enumerate(GOOD_HOSTS):
        with Connection(replica.address) as connection:
            connection.send(head("Content-Length: 4", host=host) + b"x 1\n")
            answer = connection.read()
            assert answer.status == 200, (number, host, answer)
    for host in BAD_HOSTS:
        with Connection(replica.address) as connection:
            connection.send(head("Content-Length: 4", host=host) + b"x 1\n")
            answer = connection.read()
            assert answer.status == 400 and is_one_line_of_text(answer), (host, answer)
            assert connection.is_closed()
    assert replica.push(PATH).status == 200
    assert replica.metric("shardd_shard_requests_total", code="200") == len(GOOD_HOSTS) + 1
    assert replica.metric("shardd_shard_requests_total") == len(GOOD_HOSTS) + 1
    assert replica.metric("shardd_rejected_total", reason="bad_request") == len(BAD_HOSTS)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "BREW", "get", "PROPFIND", "X" * 60])
@pytest.mark.parametrize("target", [PATH, "/metrics", "h:80"])
def test_methods_that_nobody_has_are_405(replica, stub, method, target):
    with Connection(replica.address) as connection:
        connection.send(head(first=f"{method} {target} HTTP/1.1"))
        answer = connection.read()
        if (method, target) == ("TRACE", "h:80"):
            assert answer.status == 400
        else:
            assert answer.status == 405
            assert "GET" in answer.header("Allow")
        assert is_one_line_of_text(answer)
    assert stub.requests == []


# Real clients

def test_python_clients_that_send_the_head_first(lab):
    gateway = lab.pushgateway()
    replica = lab.shardd([gateway])
    client = http.client.HTTPConnection(*replica.address, timeout=10)
    for size in (4, 3000, 40_000, 300_000):
        body = b"x 1\n" + b"#\n" * ((size - 4) // 2)
        client.request("PUT", PATH, body=body)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    client.request("DELETE", PATH)
    assert client.getresponse().status == 202
    session = requests.Session()
    url = replica.address.url + PATH
    assert session.put(url, data=(b"x %d\n" % number for number in (1,)), timeout=10).status_code == 200
    assert session.delete(url, timeout=10).status_code == 202
    assert session.get(replica.address.url + "/metrics", timeout=10).headers["Content-Encoding"] == "gzip"


def test_curl_waits_for_a_continue(lab):
    replica = lab.shardd([lab.pushgateway()], limits={"body_bytes": "1MiB"})

    def curl(body):
        arguments = ["curl", "-sS", "-v", "--max-time", "20", "--expect100-timeout", "15", "-H", "Expect: 100-continue"]
        arguments += ["-T", "-", "-H", "Transfer-Encoding:", "-H", f"Content-Length: {len(body)}"]
        began = time.monotonic()
        result = subprocess.run([*arguments, replica.address.url + PATH], input=body, capture_output=True, check=False)
        assert time.monotonic() - began < 5
        return result.stderr.decode()

    trace = curl(b"x 1\n" + b"#\n" * 250_000)
    assert "HTTP/1.1 100 Continue" in trace and "HTTP/1.1 200 OK" in trace
    trace = curl(b"#" * 2_000_000)
    assert "HTTP/1.1 413 " in trace and "100 Continue" not in trace


def test_requests_reads_the_413_of_a_large_body(lab, stub):
    """requests sends the whole body before it reads."""
    replica = lab.shardd([stub], limits={"body_bytes": "1MiB"})
    answer = requests.put(replica.address.url + PATH, data=bytes(20 << 20), timeout=20)
    assert answer.status_code == 413


# Pages

@pytest.mark.parametrize(
    "accepted,is_packed",
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False), ("gzip; q=0.000, *", False), ("br", False)],
)
def test_metrics_are_gzip_on_request(replica, accepted, is_packed):
    answer = replica.ask("GET", "/metrics", headers=[("Accept-Encoding", accepted)])
    assert answer.header("Content-Encoding") == ("gzip" if is_packed else None)
    text = gzip.decompress(answer.body) if is_packed else answer.body
    assert b"\nshardd_ring_shards 1\n" in text
    assert answer.header("Vary") == "Accept-Encoding"
    assert int(answer.header("Content-Length")) == len(answer.body)


def test_metrics_of_a_head_request_have_the_length_alone(replica):
    with Connection(replica.address) as connection:
        answer = connection.ask("HEAD", "/metrics")
        assert answer.status == 200 and int(answer.header("Content-Length")) > 1000
        assert connection.ask("GET", "/test/v1").status == 200
