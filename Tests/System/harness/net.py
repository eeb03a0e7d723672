"""Addresses of one's own on loopback, and waiting with a deadline."""

import itertools
import os
import socket
import time
from typing import NamedTuple

_hosts = itertools.count(1)


class Address(NamedTuple):
    host: str
    port: int

    @property
    def text(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self):
        return f"http://{self.text}"


def new_host():
    """A loopback address that nobody else in this run has; the second byte keeps two runs apart."""
    number = next(_hosts)
    return f"127.{16 + os.getpid() % 200}.{number // 250}.{1 + number % 250}"


def new_address(host=None):
    """An address with a free port, on a host of its own unless one is given."""
    host = host or new_host()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return Address(host, probe.getsockname()[1])


def wait_until(condition, what, timeout=15, every=0.05):
    """Calls `condition` until it is true and returns what it returned; after the timeout the test fails."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}; last seen: {value!r}")
        time.sleep(every)


def holds(condition, what, seconds, every=0.05):
    """Fails the test when `condition` is false at any look within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        assert value, f"did not stay so for {seconds} s: {what}; saw {value!r}"
        time.sleep(every)
