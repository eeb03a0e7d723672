"""A constant load of pushes that records every answer, while a witness reads each push back from its shard.

Every thread has groups of its own and pushes rising numbers to them, so a group's last acknowledged number is what its
shard must show. Half of the threads keep their connections, half make a new one for every push.
"""

import re
import threading
import time
from typing import NamedTuple

from .http import Closed, Connection, ask
from .net import wait_until

THREADS = 4
GROUPS_PER_THREAD = 6
PAUSE = 0.004


class Failure(NamedTuple):
    after: float
    path: str
    what: str


class Load:
    def __init__(self, replicas, gateways, retry_stale=False):
        """`retry_stale`: what every client does with a kept connection that was closed before the answer began."""
        self.replicas = replicas
        self.gateways = {gateway.address.text: gateway for gateway in gateways}
        self.retry_stale = retry_stale
        self.failures = []
        self.acknowledged = {}
        self.pushes = 0
        self.witnessed = 0
        self.retried = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._push, args=(number,)) for number in range(THREADS)]
        self.threads.append(threading.Thread(target=self._witness))

    def __enter__(self):
        self.began = time.monotonic()
        for thread in self.threads:
            thread.start()
        wait_until(lambda: self.pushes > 100 or self.failures, "the load runs")
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def pushes_more(self, count=200):
        """Waits until so many more pushes were answered: for every group, some began after this call."""
        start = self.pushes
        wait_until(lambda: self.pushes >= start + count or self.failures, f"{count} more pushes")

    def _fail(self, path, what):
        with self.lock:
            self.failures.append(Failure(round(time.monotonic() - self.began, 3), path, what))

    def _push(self, number):
        keeps = number % 2 == 0
        address = self.replicas[number % len(self.replicas)].address
        connection = None
        value = 0
        while not self.stopping.is_set():
            value += 1
            path = f"/metrics/job/load/thread/{number}/group/{value % GROUPS_PER_THREAD}"
            method = "PUT" if value % 3 else "POST"
            try:
                answer, connection = self._send(address, connection, method, path, f"load_value {value}\n".encode())
            except (OSError, Closed) as error:
                self._fail(path, f"no answer: {error!r}")
                connection = None
                continue
            if answer.status not in (200, 202):
                self._fail(path, repr(answer))
            else:
                self.acknowledged[path] = value
            with self.lock:
                self.pushes += 1
            if connection and (not keeps or answer.header("Connection") == "close"):
                connection.close()
                connection = None
            time.sleep(PAUSE)
        if connection:
            connection.close()

    def _send(self, address, connection, method, path, body):
        is_reused = connection is not None
        try:
            connection = connection or Connection(address)
            return connection.ask(method, path, body), connection
        except (Closed, ConnectionError) as error:
            if connection:
                connection.close()
            if not (self.retry_stale and is_reused and not getattr(error, "received", b"")):
                raise
            self.retried += 1
            return self._send(address, None, method, path, body)

    def _witness(self):
        """Pushes to groups of its own, and reads each back from the shard that was named just before or just after."""
        value = 0
        while not self.stopping.is_set():
            value += 1
            path = f"/metrics/job/load/thread/witness/group/{value % GROUPS_PER_THREAD}"
            replica = self.replicas[value % len(self.replicas)]
            try:
                named = {replica.placement(path)}
                answer = replica.push(path, f"load_value {value}\n")
                named.add(replica.placement(path))
            except (OSError, Closed) as error:
                self._fail(path, f"witness: {error!r}")
                continue
            if answer.status not in (200, 202):
                self._fail(path, f"witness: {answer!r}")
            elif not any(self._shows(shard, path, value) for shard in named):
                self._fail(path, f"witness: {value} is not on {named}")
            self.witnessed += 1
            time.sleep(PAUSE)

    def _shows(self, shard, path, value):
        """Whether the shard has the value; a shard that was killed after it answered took its groups with it."""
        try:
            return shown_values(ask(self.gateways[shard].address, "GET", "/metrics").text).get(path) == value
        except (OSError, Closed):
            # While another thread waits for the killed process, its end is not seen at once.
            deadline = time.monotonic() + 2
            while self.gateways[shard].is_running and time.monotonic() < deadline:
                time.sleep(0.005)
            return not self.gateways[shard].is_running

    def check(self):
        """Ends the load; no answer may have been anything but 200 or 202."""
        self.stop()
        assert not self.failures, f"{len(self.failures)} of {self.pushes} pushes failed: {self.failures[:10]}"
        assert self.pushes > 100 and self.witnessed > 10, (self.pushes, self.witnessed)

    def check_readable(self):
        """After `check`: the last push of every group is on the shard that both kinds of locate name."""
        replica = self.replicas[0]
        paths = sorted(self.acknowledged)
        offline = dict(zip(paths, replica.locate_offline(*paths)))
        shown = {
            text: shown_values(gateway.metrics_text()) for text, gateway in self.gateways.items() if gateway.is_running
        }
        for path in paths:
            shard = replica.locate(path)["shard"]
            assert shard == offline[path] == replica.placement(path), path
            assert shown[shard].get(path) == self.acknowledged[path], (path, shard, self.acknowledged[path])


SAMPLE = re.compile(r'^load_value\{group="(\w+)",instance="",job="load",thread="(\w+)"\} (\S+)$', re.MULTILINE)


def shown_values(text):
    """{path: value} of the load's groups on a Pushgateway's /metrics."""
    return {
        f"/metrics/job/load/thread/{thread}/group/{group}": float(value)
        for group, thread, value in SAMPLE.findall(text)
    }
