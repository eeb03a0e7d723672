"""A network namespace for one replica, joined to this machine by two links of its own, one of which can lose its packets."""

import subprocess

from . import net
from .net import Address


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Namespace:
    """Needs root. `shard_host` is this machine on the link that `cut` cuts, `client_address` the namespace on the other."""

    def __init__(self):
        self.name = f"shardd-{net._network}"
        self.links = [f"shd{net._network}{letter}" for letter in "ab"]
        # Addresses that are kept for tests of networks (RFC 2544).
        self.hosts = [f"198.18.{net._network}.{number}" for number in (1, 2, 5, 6)]
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        for link, (here, there) in zip(self.links, (self.hosts[:2], self.hosts[2:])):
            _ip("link", "add", link, "type", "veth", "peer", "name", "in" + link, "netns", self.name)
            _ip("address", "add", f"{here}/30", "dev", link)
            _ip("link", "set", link, "up")
            _ip("-n", self.name, "address", "add", f"{there}/30", "dev", "in" + link)
            _ip("-n", self.name, "link", "set", "in" + link, "up")
        self.shard_host = self.hosts[0]
        # Nothing else is in there, so every port is free.
        self.client_address = Address(self.hosts[3], 9292)
        self.prefix = ["ip", "netns", "exec", self.name]

    def _tc(self, action):
        link = "in" + self.links[0]
        # A queue without room drops every packet.
        limit = ["pfifo", "limit", "0"] if action == "add" else []
        subprocess.run(
            [*self.prefix, "tc", "qdisc", action, "dev", link, "root", *limit], check=True, capture_output=True, text=True
        )

    def cut(self):
        """From now on no packet leaves the namespace on the link to the shard."""
        self._tc("add")

    def mend(self):
        self._tc("del")

    def stop(self):
        for link in self.links:
            _ip("link", "del", link)
        _ip("netns", "del", self.name)
