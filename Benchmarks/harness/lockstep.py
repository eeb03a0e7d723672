"""Clients and shards of one shardd in one process, in step with it: the same pushes cost the same every time.

While shardd is stopped (SIGSTOP) a whole batch is written to it; let go, it finds all of it in one turn of its loop, as
under load. The same for the shards' answers. So neither the clock nor the scheduler decides what shardd does.
"""

import contextlib
import functools
import os
import pathlib
import selectors
import signal
import socket
import time

from .processes import BenchmarkError

SHARD_HOSTS = ("127.79.0.1", "127.79.0.2", "127.79.0.3")
SHARD_PORT = 19091
CLIENT_ADDRESS = ("127.78.1.1", 18010)
SECONDS_PER_STEP = 30

CONFIGURATION = f"""\
http_listen_addr: {CLIENT_ADDRESS[0]}:{CLIENT_ADDRESS[1]}
pushgateway: {{port: {SHARD_PORT}, servers: [{', '.join(SHARD_HOSTS)}]}}
# What comes by the clock would be counted as well.
check: {{interval: 1h}}
reconcile: {{enabled: false}}
"""
ANSWER = b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
# What `pushes.check: full` asks for: the shards hold nothing, so what was pushed once is known, and clashes with nothing.
LISTING = b'{"status":"success","data":[]}'
LISTING_ANSWER = ANSWER.replace(b"Length: 0", b"Length: %d" % len(LISTING)) + LISTING


@functools.cache
def body_of(body_bytes):
    """What load/push.lua pushes as well: three families, and for a large body many series of one, to the exact length."""
    body = b"# TYPE backup_duration_seconds gauge\nbackup_duration_seconds 14.25\n"
    body += b"# TYPE backup_last_success_timestamp_seconds gauge\nbackup_last_success_timestamp_seconds 1.7636e+09\n"
    index = 0
    while len(line := b'backup_files{volume="%d",state="done"} %d\n' % (index, index * 7 + 3)) < body_bytes - len(body):
        body += line
        index += 1
    return body + b"#" * (body_bytes - len(body) - 1) + b"\n"


def push(number, body_bytes, keep_alive=True):
    """One of 97 groups' pushes: a prime, so that batches differ."""
    body = body_of(body_bytes)
    group = number % 97
    head = f"POST /metrics/job/batch_{group}/instance/host-{group} HTTP/1.1\r\nHost: shardd:9292\r\n"
    head += f"User-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nAccept-Encoding: gzip\r\n"
    return (head + ("\r\n" if keep_alive else "Connection: close\r\n\r\n")).encode() + body


def messages(data):
    """How many whole HTTP messages, framed by Content-Length, `data` holds, and what is left of it."""
    count = 0
    while (end := data.find(b"\r\n\r\n")) >= 0:
        length = 0
        for line in data[:end].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(data) < end + 4 + length:
            break
        data = data[end + 4 + length :]
        count += 1
    return count, data


class Shards:
    """Listening sockets and shardd's connections to them; pushes are gathered and answered on command, shardd's own
    questions (health, status) at once."""

    def __init__(self):
        self.questions = 0
        self._selector = selectors.DefaultSelector()
        self._received = {}
        self._unanswered = {}
        for host in SHARD_HOSTS:
            listener = socket.create_server((host, SHARD_PORT), backlog=64)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, "listener")

    def gather(self, timeout):
        """Reads what has arrived; how many requests became whole."""
        whole = 0
        for key, _ in self._selector.select(timeout):
            if key.data == "listener":
                connection, _ = key.fileobj.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(connection, selectors.EVENT_READ, "connection")
                self._received[connection] = b""
                continue
            data = b""
            # shardd gives up its own questions where it is slow, as it is under callgrind.
            with contextlib.suppress(ConnectionResetError):
                data = key.fileobj.recv(1 << 20)
            if not data:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()
                self._unanswered.pop(key.fileobj, None)
                continue
            if data.startswith(b"GET "):
                self.questions += 1
                key.fileobj.sendall(LISTING_ANSWER if data.startswith(b"GET /api/v1/metrics ") else ANSWER)
                continue
            count, rest = messages(self._received[key.fileobj] + data)
            self._received[key.fileobj] = rest
            self._unanswered[key.fileobj] = self._unanswered.get(key.fileobj, 0) + count
            whole += count
        return whole

    def answer(self):
        for connection, count in self._unanswered.items():
            if count:
                connection.sendall(ANSWER * count)
        self._unanswered.clear()

    def close(self):
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()


class Lockstep:
    def __init__(self, process, shards):
        self._process, self._shards = process, shards
        self._clients = []
        self._pushed = 0

    def wait_until_ready(self):
        """Answers the first health checks meanwhile."""
        deadline = time.monotonic() + SECONDS_PER_STEP
        while self._shards.questions < 2 * len(SHARD_HOSTS) or not self._listens():
            self._process.check_alive()
            self._shards.gather(0.05)
            if time.monotonic() > deadline:
                raise BenchmarkError(f"shardd is not ready after {SECONDS_PER_STEP} s")

    def run_batch(self, count, body_bytes, keep_alive):
        """`count` pushes at once, each on a connection of its own, kept from batch to batch or not."""
        with self._stopped():
            while len(self._clients) < count:
                client = socket.create_connection(CLIENT_ADDRESS, timeout=SECONDS_PER_STEP)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients.append(client)
            for client in self._clients:
                client.sendall(push(self._pushed, body_bytes, keep_alive))
                self._pushed += 1
        arrived, deadline = 0, time.monotonic() + SECONDS_PER_STEP
        while arrived < count:
            arrived += self._shards.gather(1)
            self._process.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"only {arrived} of a batch of {count} pushes arrived")
        with self._stopped():
            self._shards.answer()
        for client in self._clients:
            self._read_answer(client, keep_alive)
        if not keep_alive:
            self._clients.clear()

    def _read_answer(self, client, keep_alive):
        data = b""
        while messages(data)[0] == 0:
            more = client.recv(65536)
            if not more:
                raise BenchmarkError("shardd closed a connection before its answer")
            data += more
        if not data.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"shardd answered {data[:200]!r}")
        if not keep_alive:
            if client.recv(1):
                raise BenchmarkError("shardd did not close a connection that asked for it")
            client.close()

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(CLIENT_ADDRESS, timeout=1):
            return True
        return False

    @contextlib.contextmanager
    def _stopped(self):
        """shardd, once it waits for events, does not run within the block."""
        self._wait_for_state("S")
        os.kill(self._process.pid, signal.SIGSTOP)
        self._wait_for_state("T")
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def _wait_for_state(self, wanted):
        stat = pathlib.Path(f"/proc/{self._process.pid}/stat")
        deadline = time.monotonic() + SECONDS_PER_STEP
        while stat.read_text().rpartition(")")[2].split()[0] != wanted:
            self._process.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"shardd is not in state {wanted} after {SECONDS_PER_STEP} s")
