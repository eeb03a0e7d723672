"""Addresses of one's own on loopback, and waiting with a deadline."""

import itertools
import os
import socket
import time
from typing import NamedTuple

_hosts = itertools.count(1)


def _claim_network():
    """A number that no other test run on this machine has: 127.NUMBER.0.0/16 is this run's. The claim, a socket with that
    name in the abstract namespace (unix(7)), ends with the process, however it ends."""
    first = os.getpid()
    for offset in range(200):
        number = 16 + (first + offset) % 200
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0shardd-tests-{number}")
        except OSError:
            claim.close()
            continue
        return number, claim
    raise OSError("200 test runs have all networks of loopback that tests use")


_network, _claim = _claim_network()


_blocks = itertools.count()


def new_ports(count=8):
    """The first of some ports in a row that no other run has on any address, for programs that choose their hosts."""
    assert count <= 8
    return 21000 + _network * 48 + next(_blocks) % 6 * 8


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
    """A loopback address that nobody else has, in this run or in another one."""
    number = next(_hosts)
    return f"127.{_network}.{number // 250}.{1 + number % 250}"


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
