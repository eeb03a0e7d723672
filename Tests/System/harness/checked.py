"""A tier that checks pushes itself (`pushes.check: full`), and the one Pushgateway that it has to decide like."""

import itertools
import time
from typing import NamedTuple

from . import scrape
from .http import Closed, Response, ask

NO_CHECK = "--push.disable-consistency-check"
INSTALLED = "prometheus-pushgateway"
BROKEN = Response("HTTP/1.1", 400, "", [], b"")
# How long a push that was acknowledged may take until shards show it, and a refused one until its group is marked.
SETTLES_WITHIN = 3


class Standing(NamedTuple):
    """What a Pushgateway remembers of the pushes of a group."""

    was_taken: bool
    was_refused: bool
    is_last_good: bool


class Checked:
    """The shards run without a check of their own; the reference has its check on. Several replicas have a Consul agent."""

    def __init__(self, lab, count, replicas=1, files=False, program=INSTALLED, **settings):
        self.reference = lab.pushgateway(program=program)
        self.shards = [lab.pushgateway(NO_CHECK, start=False, program=program) for _ in range(count)]
        for shard in self.shards:
            if files:
                shard.keep_in(lab.directory / f"{shard.address.host}.data")
            shard.start()
        for shard in self.shards:
            shard.wait_ready()
        self.consul = lab.consul(is_lasting=True) if replicas > 1 else None
        for shard in self.shards if self.consul else ():
            self.consul.register(shard.address)
        settings |= {"pushes": {"check": "full"}} | ({"consul_server": {"register": False}} if self.consul else {})
        self.start = lambda: lab.shardd(self.shards, consul=self.consul, arguments=["--web.enable-lifecycle"], **settings)
        self.replicas = [self.start() for _ in range(replicas)]
        self.replica = self.replicas[0]
        self._turns = itertools.count()

    def both(self, method, path, body=b"", headers=()):
        """The answer of the tier, whose replicas are asked in turn, and the reference's."""
        body = body.encode() if isinstance(body, str) else body
        replica = self.replicas[next(self._turns) % len(self.replicas)]
        answer = ask(replica.address, method, path, body, headers)
        try:
            return answer, ask(self.reference.address, method, path, body, headers)
        except Closed:
            # In writing its log of a push that it refuses, 1.11 fails, and breaks the connection.
            return answer, BROKEN

    def restart(self):
        """The first replica, which has held nothing then."""
        assert self.replicas[0].stop() == 0
        self.replicas[0] = self.replica = self.start()

    def place(self, path):
        """The shard, as HOST:PORT, to which pushes of a group go."""
        return self.replica.placement(path)

    def problems(self):
        """How the shards together differ from the reference now."""
        pages = {shard.address.text: ask(shard.address, "GET", "/metrics") for shard in self.shards}
        found = [f"{shard}: its /metrics is {page.status}: {page.text}" for shard, page in pages.items() if page.status != 200]
        found += [f"{group}: {text}" for group, text in scrape.differences(self.reference, self.shards)]
        expected, standings = standing([self.reference]), standing(self.shards)
        for group in sorted({*expected, *standings}):
            if expected.get(group) != standings.get(group):
                found.append(f"{group}: {standings.get(group)}, should be {expected.get(group)}")
        return found

    def lasting_problems(self):
        """Those that are still there when everything that was acknowledged must have been stored."""
        deadline = time.monotonic() + SETTLES_WITHIN
        while True:
            found = self.problems()
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


def kind_of(answer):
    """What matters of an answer: a Pushgateway without a check says 202 where one with a check says 200."""
    return "taken" if 200 <= answer.status < 300 else answer.status


def standing(gateways):
    """{group's name: Standing} of some Pushgateways together."""
    found = {}
    for gateway in gateways:
        for group in scrape.listed(gateway):
            found[scrape.group_name(group["labels"])] = Standing(
                time_of(group, "push_time_seconds") != 0,
                time_of(group, "push_failure_time_seconds") != 0,
                group["last_push_successful"],
            )
    return found


def time_of(group, name):
    return float(group[name]["metrics"][0]["value"])


def own_families(gateway):
    """{name: type, as a TYPE line has it} of those that a Pushgateway exposes about itself."""
    lines = (line.split() for line in gateway.metrics_text().splitlines() if line.startswith("# TYPE "))
    return {name: kind for _, _, name, kind in lines if name.startswith(("go_", "process_", "pushgateway_"))}
