"""Groups to be moved, and one during whose move requests come in at given moments."""

import base64
import functools

from . import scrape
from .http import ask
from .reconcile import owners
from .stub import answers

BODY = "# HELP first First.\n# TYPE first counter\nfirst 1\n# TYPE second gauge\nsecond 2\n"
# Enough for a run to take a while with the Pushgateways' consistency check on.
MANY = [f"/metrics/job/many/number/{number}" for number in range(400)]


def push(gateway, path, body=BODY):
    return ask(gateway.address, "POST", path, body.encode())


def as_runs_write(path):
    """The path by which a run pushes a group."""
    parts = path.split("/")
    values = [base64.urlsafe_b64encode(value.encode()).decode().rstrip("=") for value in parts[3::2]]
    return "/metrics" + "".join(f"/{name}@base64/{value}" for name, value in zip(parts[2::2], values, strict=True))


def relaying(gateway, after_listings, before):
    """A stub's way of being a real shard of which requests come in between a run's looks: after each listing is read, and
    before the run has it, the next function is called; and before a request is relayed, once, that of its method and
    path."""

    def answer(request):
        before.pop((request.method, request.target), lambda: None)()
        kind = dict(request.headers).get("Content-Type")
        headers = [("Content-Type", kind)] if kind else []
        real = ask(gateway.address, request.method, request.target, request.body, headers)
        if request.target == "/api/v1/metrics":
            (after_listings.pop(0) if after_listings else lambda: None)()
        return answers(real.status, real.body)

    answer.relays = True
    return answer


class MovingGroup:
    """A group on a shard that does not own it, but would if the owner were gone; and requests that come in after certain
    looks of a run at that shard, or at the owner. The first look is that of the plan."""

    def __init__(self, lab, consul=None, **settings):
        self.shards = lab.pushgateways(3)
        self.after_listings = {shard: [lambda: None] for shard in self.shards}
        self.before = {shard: {} for shard in self.shards}
        stubs = [lab.stub(relaying(shard, self.after_listings[shard], self.before[shard])) for shard in self.shards]
        self.stubs = dict(zip(self.shards, stubs, strict=True))
        for stub in stubs if consul else ():
            consul.register(stub.address)
        self.replica = lab.shardd(stubs, consul=consul, start=False, **settings)
        self.wrong, self.owner = self.shards[:2]
        now = owners(self.replica, stubs, MANY)
        later = owners(self.replica, [stubs[0], stubs[2]], MANY)
        places = stubs[1].address.text, stubs[0].address.text
        # The second one is on its owner too, so that nothing but its own push is at stake.
        self.path, self.other = [path for path in MANY if (now[path], later[path]) == places][:2]
        assert push(self.wrong, self.path).status == 200

    def request(self, method, path, body="", visits=True):
        """As replicas do it during a handover: the copy is written before its owner."""
        for shard in (self.wrong, self.owner) if visits else (self.owner,):
            assert ask(shard.address, method, path, body.encode()).status in (200, 202)

    def then(self, method, body="", visits=True, after=None):
        call = functools.partial(self.request, method, self.path, body, visits)
        self.after_listings[after or self.wrong].append(call)

    def values(self, path=None):
        held = scrape.held(self.owner)[path or self.path]
        return {name: list(family.metrics.values()) for name, family in held.items()}
