"""Requests that cost more than they look: what they take of the loop and of memory stays bounded, and a healthy client meanwhile
hardly notices. The bounds leave room for a slow and busy machine.
"""

import socket
import threading
import time

import pytest

from harness.http import Closed, Connection
from harness.net import wait_until
from harness.stub import OK

PATH = "/metrics/job/a"
HOST = "Host: a\r\n"


def head(*lines, path=PATH):
    return "\r\n".join([f"PUT {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def resident_mebibytes(replica):
    for line in open(f"/proc/{replica.pid}/status", encoding="utf-8"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def seconds_of_push(replica, body=b"x 1\n", path="/metrics/job/healthy"):
    began = time.monotonic()
    with Connection(replica.address) as connection:
        assert connection.ask("PUT", path, body).status == 200
    return time.monotonic() - began


class Clients:
    """Many connections, and a thread that has each of them send something now and then."""

    def __init__(self, replica, count, start, drip=None, every=0.2):
        self.connections = []
        self.stopped = threading.Event()
        for number in range(count):
            connection = Connection(replica.address)
            connection.socket.setblocking(False)
            self.connections.append(connection)
            self.rest = start
            self._send(connection, start(number) if callable(start) else start)
        self.thread = threading.Thread(target=self._drip, args=(drip, every), daemon=True)
        self.thread.start()

    @staticmethod
    def _send(connection, data):
        view = memoryview(data)
        until = time.monotonic() + 0.5
        while view:
            try:
                view = view[connection.socket.send(view) :]
            except BlockingIOError:
                if time.monotonic() > until:
                    return
                time.sleep(0.001)
            except OSError:
                return

    def _drip(self, drip, every):
        while drip and not self.stopped.wait(every):
            for connection in self.connections:
                self._send(connection, drip)

    def statuses(self):
        """Of those that have been answered by now."""
        found = []
        for connection in self.connections:
            try:
                found.append(int(connection.socket.recv(65536).split(b" ")[1]))
            except (OSError, IndexError, ValueError):
                pass
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def replica(lab):
    return lab.shardd([lab.stub()])


def test_many_connection_options_and_headers_hold_the_loop_up_for_no_time(replica):
    data = head("Connection: " + "a," * 16000, *(f"h{number}:" for number in range(3900)), "Content-Length: 0")
    assert len(data) < 65536
    before = replica.cpu_seconds()
    for _ in range(10):
        with Connection(replica.address) as connection:
            connection.send(data)
            assert connection.read().status == 431
    assert replica.cpu_seconds() - before < 0.3


def test_as_many_options_and_headers_as_are_allowed_cost_little(replica):
    options = [f"option-number-{number}" for number in range(99)]
    headers = [f"{options[number % 99][:-1]}-{number}: 1" for number in range(1900)]
    data = head("Connection: " + ", ".join(options), *headers, f"{options[7].upper()}: secret", "Content-Length: 0")
    stub_before = replica.cpu_seconds()
    for _ in range(20):
        with Connection(replica.address) as connection:
            connection.send(data)
            assert connection.read().status == 200
    assert replica.cpu_seconds() - stub_before < 0.6


def test_options_of_connection_are_not_passed_on(lab):
    stub = lab.stub()
    replica = lab.shardd([stub])
    with Connection(replica.address) as connection:
        connection.send(head("Connection: X-One, keep-alive", "x-one: 1", "X-Two: 2", "Connection: x-TWO", "X-Three: 3", "Content-Length: 0"))
        assert connection.read().status == 200
    names = {name.lower() for name, _ in stub.requests[0].headers}
    assert "x-three" in names and not names & {"x-one", "x-two", "connection"}


def test_more_headers_than_the_limit_are_431(lab):
    replica = lab.shardd([lab.stub()], limits={"header_count": 10})
    with Connection(replica.address) as connection:
        connection.send(head(*(f"h{number}: 1" for number in range(8)), "Content-Length: 0"))
        assert connection.read().status == 200
        connection.send(head(*(f"h{number}: 1" for number in range(9)), "Content-Length: 0"))
        assert connection.read().status == 431
    with Connection(replica.address) as connection:
        trailers = "".join(f"h{number}: 1\r\n" for number in range(11)).encode()
        connection.send(head("Transfer-Encoding: chunked") + b"0\r\n" + trailers + b"\r\n")
        assert connection.read().status == 431


def test_unfinished_heads_of_many_headers_take_little_memory(replica):
    before = resident_mebibytes(replica)
    data = head(*(f"{number:x}:" for number in range(1900)))[:-2] + b"x: " + b"y" * 40000
    with Clients(replica, 200, data):
        wait_until(lambda: replica.metric("shardd_connections") > 200, "all have come")
        assert seconds_of_push(replica) < 1
        assert resident_mebibytes(replica) - before < 60


def test_the_oldest_unfinished_heads_end_when_they_take_too_much(lab):
    replica = lab.shardd([lab.stub()], limits={"bodies_bytes": "8MiB"})
    before = resident_mebibytes(replica)
    with Clients(replica, 200, head("x: " + "y" * 60000)[:-2]) as clients:
        wait_until(lambda: len(statuses := clients.statuses()) and set(statuses) == {408}, "the oldest are ended")
        assert seconds_of_push(replica) < 1
        assert resident_mebibytes(replica) - before < 30


def test_heads_that_drip_hold_nobody_up(lab):
    """Half as many as there may be connections."""
    replica = lab.shardd([lab.stub()], limits={"connections": 600}, limit_descriptors=1000)
    with Clients(replica, 300, b"PUT /metrics/job/a HTTP/1.1\r\n", drip=b"x: y\r\n"):
        assert max(seconds_of_push(replica) for _ in range(5)) < 1


def test_heads_that_drip_on_all_connections_make_way(lab):
    replica = lab.shardd([lab.stub()], limits={"connections": 50})
    with Clients(replica, 60, b"PUT /metrics/job/a HTTP/1.1\r\n", drip=b"x: y\r\n"):
        assert seconds_of_push(replica) < 5


def test_bodies_that_lack_a_byte_take_no_more_than_the_limit(lab):
    """The stalled ones are ended, so that those that wait get their turn; a healthy one does not wait for that."""
    replica = lab.shardd([lab.stub()], limits={"bodies_bytes": "64MiB"})
    before = resident_mebibytes(replica)
    size = 8 << 20
    data = head(f"Content-Length: {size}") + bytes(size - 1)
    with Clients(replica, 30, data) as clients:
        assert seconds_of_push(replica) < 1
        assert seconds_of_push(replica, b"x" * 100_000) < 2
        assert resident_mebibytes(replica) - before < 110
        wait_until(lambda: 408 in clients.statuses(), "a stalled one is ended")
        assert resident_mebibytes(replica) - before < 110


def test_small_bodies_that_drip_take_no_more_than_the_limit(lab):
    replica = lab.shardd([lab.stub()], limits={"bodies_bytes": "4MiB"})
    before = resident_mebibytes(replica)
    data = head("Content-Length: 60000") + bytes(50_000)
    with Clients(replica, 400, data, drip=b"x"):
        assert seconds_of_push(replica) < 1
        assert seconds_of_push(replica, b"x" * 20_000) < 3
        assert resident_mebibytes(replica) - before < 30


def test_chunked_bodies_count_too(lab):
    replica = lab.shardd([lab.stub()], limits={"bodies_bytes": "16MiB"})
    before = resident_mebibytes(replica)
    data = head("Transfer-Encoding: chunked") + b"400000\r\n" + bytes(0x400000 - 1)
    with Clients(replica, 20, data) as clients:
        assert seconds_of_push(replica) < 1
        assert resident_mebibytes(replica) - before < 50
        wait_until(lambda: 408 in clients.statuses(), "a stalled one is ended")


def test_bodies_that_wait_for_a_shard_count_too(lab):
    """All are answered in the end: those beyond the limit wait in their sockets."""
    release = threading.Event()

    def answer(request):
        release.wait(20)
        return OK

    slow = lab.stub(answer)
    replica = lab.shardd(
        [slow],
        check={"interval": "60s"},
        forward={"connections_per_shard": 4, "response_timeout": "30s"},
        limits={"bodies_bytes": "16MiB"},
    )
    before = resident_mebibytes(replica)
    body = bytes(2 << 20)
    answered = []

    def push(number):
        answered.append(replica.push(f"/metrics/job/a{number}", body).status)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    assert replica.ask("GET", "/-/healthy").status == 200
    grown = resident_mebibytes(replica) - before
    release.set()
    for thread in threads:
        thread.join()
    assert grown < 35
    assert answered == [200] * 30


def test_what_comes_behind_a_request_counts_too(lab):
    hung, shard = lab.stub(lambda request: time.sleep(20) or OK), lab.stub()
    replica = lab.shardd([hung, shard], check={"interval": "60s"}, limits={"bodies_bytes": "4MiB"})
    paths = [f"/metrics/job/a{number}" for number in range(50)]
    slow = next(path for path in paths if replica.placement(path) == hung.address.text)
    healthy = next(path for path in paths if replica.placement(path) == shard.address.text)
    before = resident_mebibytes(replica)
    with Clients(replica, 400, head("Content-Length: 4", path=slow) + b"x 1\n", drip=b"y" * 60_000, every=0.1):
        time.sleep(1)
        assert seconds_of_push(replica, path=healthy) < 1
        assert seconds_of_push(replica, b"x" * 100_000, path=healthy) < 2
        assert resident_mebibytes(replica) - before < 25


def test_healthy_large_bodies_beyond_the_limit_all_pass(lab):
    replica = lab.shardd([lab.stub()], limits={"bodies_bytes": "3MiB"})
    body = bytes(2 << 20)
    answered = []
    threads = [
        threading.Thread(target=lambda: answered.append(replica.push(PATH, body).status)) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered == [200] * 24


def test_large_bodies_that_drip_hold_no_large_body_up(replica):
    data = head("Content-Length: 4000000") + bytes(34_000)
    with Clients(replica, 500, data, drip=b"x"):
        assert max(seconds_of_push(replica, b"x" * 100_000) for _ in range(3)) < 2


def test_a_chunk_extension_without_end_is_refused(replica):
    with Connection(replica.address) as connection:
        connection.send(head("Transfer-Encoding: chunked") + b"4;")
        before = replica.cpu_seconds()
        with pytest.raises((ConnectionError, Closed, socket.timeout)):
            connection.socket.settimeout(5)
            for _ in range(2000):
                connection.send(b"x" * 65536)
        assert replica.cpu_seconds() - before < 1


def test_pipelined_requests_for_a_large_page_cost_little(lab):
    """Of a client that does not read. 600 shards make a megabyte of metrics."""
    replica = lab.shardd([f"127.0.0.1:{20000 + number}" for number in range(600)], check={"interval": "60s"})
    assert len(replica.ask("GET", "/metrics", timeout=60).body) > 900_000
    for page in ("/metrics", "/api/v1/ring", "/api/v1/sd"):
        before, cpu = resident_mebibytes(replica), replica.cpu_seconds()
        with Connection(replica.address) as connection:
            connection.send(f"GET {page} HTTP/1.1\r\n{HOST}\r\n".encode() * 300)
            worst = 0
            for _ in range(20):
                began = time.monotonic()
                assert replica.ask("GET", "/-/healthy").status == 200
                worst = max(worst, time.monotonic() - began)
            assert worst < 1, page
            assert resident_mebibytes(replica) - before < 30
            # All of them are answered once it reads.
            first = connection.read()
            assert all(len(connection.read().body) > 0.9 * len(first.body) for _ in range(299))
        assert replica.cpu_seconds() - cpu < (0.4 if page == "/metrics" else 1.2), page


def test_one_page_serves_many_who_do_not_read(lab):
    replica = lab.shardd([f"127.0.0.1:{20000 + number}" for number in range(600)], check={"interval": "60s"})
    replica.ask("GET", "/metrics", timeout=60)
    before = resident_mebibytes(replica)
    with Clients(replica, 100, f"GET /metrics HTTP/1.1\r\n{HOST}\r\n".encode() * 20):
        time.sleep(1)
        assert replica.ask("GET", "/-/healthy").status == 200
        assert resident_mebibytes(replica) - before < 40
