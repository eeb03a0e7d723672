"""Shards, replicas that reconcile, Consul where it is wanted, and an oracle: one Pushgateway that gets what they get."""

import itertools

from . import scrape
from .http import ask
from .net import wait_until
from .reconcile import OFTEN, misplacements, wait_reconciled


class Cluster:
    """`spare` shards run but are not in discovery. With `replicas=0` there is one that only has a file. With `files` shards come
    back with what they held."""

    def __init__(
        self, lab, count=3, *, spare=0, consul=False, replicas=1, files=False, reconcile=(), arguments=(), **settings
    ):
        self.directory = lab.directory
        self.consul = lab.consul() if consul else None
        self.oracle = lab.pushgateway()
        gateways = [lab.pushgateway(*arguments, start=False) for _ in range(count + spare)]
        for gateway in gateways:
            if files:
                gateway.keep_in(self.directory / f"{gateway.address.host}.data")
            gateway.start()
        for gateway in gateways:
            gateway.wait_ready()
        self.shards, self.spare = gateways[:count], gateways[count:]
        for shard in self.shards if consul else ():
            self.consul.register(shard.address)
        settings = {"reconcile": {**OFTEN, **dict(reconcile)}, **settings}
        if consul:
            settings["consul_server"] = {"register": False}
        self.start = lambda start=True: lab.shardd(self.shards, consul=self.consul, start=start, **settings)
        self.idle = self.start(start=False)
        self.replicas = [self.start() for _ in range(replicas)]
        self._turns = itertools.count()
        for replica in self.replicas if consul else ():
            wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
        if files:
            wait_until(lambda: all(shard.is_member() for shard in self.shards), "the stores are members")

    def start_replicas(self, count):
        self.replicas += [self.start() for _ in range(count)]

    def wait_for_ring(self):
        """Waits until all replicas have just these shards on their rings."""
        texts = sorted(shard.address.text for shard in self.shards)
        for replica in self.replicas:
            wait_until(lambda: replica.shards() == texts, f"the ring is {texts}")

    def request(self, method, path, body=b"", by=None):
        """Through a replica, in turn where none is named, and to the oracle."""
        body = body.encode() if isinstance(body, str) else body
        replica = by or self.replicas[next(self._turns) % len(self.replicas)]
        for address in (replica.address, self.oracle.address):
            answer = ask(address, method, path, body)
            assert answer.status in (200, 202), (method, path, answer)

    def place(self, shard, path, body):
        """Straight on a shard, and on the oracle."""
        for address in (shard.address, self.oracle.address):
            answer = ask(address, "POST", path, body.encode())
            assert answer.status in (200, 202), (path, answer)

    def misplace(self, paths, body):
        """Straight on shards that do not own them; returns {path: (wrong shard, owner)}."""
        found = misplacements(self.idle, self.shards, paths)
        for path, (wrong, _) in found.items():
            self.place(wrong, path, body)
        return found

    def scale_out(self):
        """The spare shards enter discovery."""
        self.shards += self.spare
        for shard in self.spare:
            self.consul.register(shard.address)
        self.spare = []
        self.wait_for_ring()

    def owned_by(self, shard, prefix, count):
        """Paths that a shard owns, on the ring as it is now."""
        replica = self.replicas[0]
        paths = (f"{prefix}/owned/{number}" for number in range(1000 * count))
        return list(itertools.islice((path for path in paths if replica.placement(path) == shard.address.text), count))

    def metric(self, name, **labels):
        return sum(replica.metric(name, **labels) for replica in self.replicas if replica.is_running)

    def check_reconciled(self, timeout=60):
        wait_reconciled([replica for replica in self.replicas if replica.is_running], self.shards, timeout)
        scrape.assert_same(self.oracle, self.shards)

    def has_lost_nothing(self):
        """Every group of the oracle is whole on some shard, perhaps on two."""
        copies = [scrape.held(shard) for shard in self.shards]
        whole = scrape.held(self.oracle).items()
        return all(any(held.get(group) == families for held in copies) for group, families in whole)
