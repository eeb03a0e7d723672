"""Processes that the benchmark starts: pinned to cores, watched, and stopped by their ids."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20


class BenchmarkError(Exception):
    """What makes a run worthless: it ends with this line."""


def require_free(host, port, name):
    """With SO_REUSEPORT, which all proxies set, a process left over from elsewhere would take part of the load."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        raise BenchmarkError(f"{host}:{port} is taken, which is for {name}: does another benchmark run?")


class Process:
    """A program and its children. The kernel ends it when the harness dies, however that happens (setpriv)."""

    def __init__(self, name, command, cores, log, environment=None):
        self.name = name
        self.log = pathlib.Path(log)
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", cores, *map(str, command)]
        with open(self.log, "wb") as output:
            self._popen = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self):
        return self._popen.pid

    def pids(self):
        """Its own id, then its children's: nginx serves by a worker process."""
        with contextlib.suppress(OSError):
            children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [self.pid, *map(int, children.split())]
        return [self.pid]

    def check_alive(self):
        if self._popen.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"{self.name} ended with {self._popen.returncode}:\n{tail}")

    def wait_until_listening(self, host, port):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                return
            time.sleep(0.02)
        raise BenchmarkError(f"{self.name} does not listen on {host}:{port} after {START_SECONDS} s")

    def cpu_seconds(self):
        """User and system time, of all threads and children."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICKS_PER_SECOND

    def resident_bytes(self):
        """Of the processes that serve: a parent that only watches its workers is left out."""
        pids = self.pids()
        return sum(_resident_bytes(pid) for pid in (pids[1:] or pids))

    def signal(self, number):
        self.check_alive()
        self._popen.send_signal(number)

    def stop(self, seconds=3):
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


def _cpu_ticks(pid):
    # After the name, which may hold spaces and brackets: fields 14 and 15 of proc(5).
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def machine_cpu_seconds():
    """What the whole machine has worked so far, and what the hypervisor took from it."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND
