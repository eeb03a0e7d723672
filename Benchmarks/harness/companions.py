"""What runs beside a round: the stub shard, idle clients, and the membership that changes every second."""

import contextlib
import http.client
import json
import signal
import subprocess
import threading

from . import places
from .native import compile_program
from .processes import BenchmarkError, Process, require_free


def start_stub(shards, cores):
    hosts = places.shard_hosts(shards)
    command = [compile_program("stub_shard"), places.SHARD_PORT, hosts[0], shards]
    require_free(hosts[0], places.SHARD_PORT, "the stub shard")
    stub = Process("stub_shard", command, cores, places.WORK / "stub_shard.log")
    stub.wait_until_listening(hosts[-1], places.SHARD_PORT)
    return stub


def get(host, port, path):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def stub_counts():
    """Pushes and bytes of bodies that arrived at the stub's shards so far."""
    return tuple(map(int, get(places.shard_hosts(1)[0], places.SHARD_PORT, "/counts").split()))


class IdleClients:
    """Many connections that have pushed once and stay; another process, for the sake of its limit of open files."""

    def __init__(self, proxy, count, cores):
        self.proxy, self.count = proxy, count
        command = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", cores, compile_program("idle_clients")]
        command = [*map(str, command), places.PROXY_HOST, str(proxy.port), str(count)]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._popen.stdout.readline() != "ready\n":
            raise BenchmarkError(f"{proxy.name} did not take {count} idle clients")

    def check(self):
        self._popen.stdin.write("count\n")
        self._popen.stdin.flush()
        still_open = self._popen.stdout.readline().strip()
        if still_open != str(self.count):
            raise BenchmarkError(f"{self.proxy.name} kept only {still_open} of {self.count} idle clients")

    def stop(self):
        self._popen.stdin.close()
        self._popen.wait(timeout=10)


class Churn:
    """Takes the last shard out of shardd's file and puts it back, in turn, every second, by SIGHUP."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.hosts = places.shard_hosts(proxy.setting.shards)
        self.changes = 0
        self._ended = threading.Event()
        self._generation = self._ring()["generation"]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def check(self):
        """That shardd's ring went through what was asked of it; the last change may still be under way."""
        seen = self._ring()["generation"] - self._generation
        if seen < max(self.changes - 1, 1):
            raise BenchmarkError(f"the ring changed {seen} times, not {self.changes}")

    def stop(self):
        self._ended.set()
        self._thread.join()

    def _run(self):
        while not self._ended.wait(1):
            self.changes += 1
            self.proxy.configure(self.hosts[: len(self.hosts) - self.changes % 2])
            self.proxy.process.signal(signal.SIGHUP)

    def _ring(self):
        return json.loads(get(places.PROXY_HOST, self.proxy.port, "/api/v1/ring"))
