"""Random pushes and deletes of a few hundred groups, through replicas and to one Pushgateway directly, the oracle.

Each client has groups of its own and makes one request at a time, so the order of the requests on a group is defined.
A request that gets no answer, or an error of shardd's own, is made again until it is answered: all three methods are
idempotent. Then the oracle gets it, once.
"""

import base64
import contextlib
import random
import re
import threading
import time
import urllib.parse

from . import scrape
from .http import Closed, ask

CLIENTS = 4
PAUSE = 0.008
# How long a request is repeated before that counts as a failure.
PATIENCE = 40
# What a request without an answer may still do when its replica was killed.
AFTERMATH = 0.3

JOBS = ["backup", "report", "a/b", "50% é"]
LABELS = {
    "instance": ["i1", "i2", "10.0.0.1:9100"],
    "zone": ["eu", "us", 'quoted "x"\\', "new\nline"],
    "shift": ["1", "2", "3", "日本"],
    "empty": ["", "full"],
}
VALUES = ["NaN", "+Inf", "-Inf", "-0", "5e-324", "1e300"]
HELPS = [None, "", "Plain.", r"A \\ backslash and\na new line."]
KEYS = ["", "x", r"q\"uote", r"back\\slash", r"new\nline", "é"]
# One type for each name: one Pushgateway takes no name with two.
FAMILIES = {
    f"o_{kind}_{number}": kind
    for kind in ("counter", "gauge", "untyped", "histogram", "summary")
    for number in range(3)
}
# Taken by the text parser and then refused, so that the group remembers a failure.
REFUSED = b"o_stamped 1 1000\n"


def random_groups(chance, count):
    """Grouping labels, all different; never one group with an empty instance, which another without one contradicts."""
    groups = set()
    while len(groups) < count:
        labels = {"job": chance.choice(JOBS), "n": str(chance.randrange(count))}
        for name in chance.sample(sorted(LABELS), chance.randint(0, 3)):
            labels[name] = chance.choice(LABELS[name])
        groups.add(frozenset(labels.items()))
    return sorted(groups, key=lambda labels: sorted(labels))


def spelled(chance, labels):
    """One of the paths of a group."""
    labels = dict(labels)
    pairs = [("job", labels.pop("job"))]
    pairs += chance.sample(sorted(labels.items()), len(labels))
    path = "/metrics"
    for name, value in pairs:
        if value == "" or "/" in value or chance.random() < 0.1:
            path += f"/{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"
        else:
            path += f"/{name}/{urllib.parse.quote(value, safe='')}"
    return path


def random_family(chance, name, number):
    """Its text, with the request's number in it, so that an old one shows."""
    kind = FAMILIES[name]
    text = ""
    help = chance.choice(HELPS)
    if help is not None:
        text += f"# HELP {name} {help}\n"
    if kind != "untyped" or chance.random() < 0.5:
        text += f"# TYPE {name} {kind}\n"
    for key in chance.sample(KEYS, chance.randint(1, 3)):
        value = chance.choice(VALUES) if chance.random() < 0.1 else f"{number}.{chance.randrange(1000)}"
        if kind == "histogram":
            text += f'{name}_bucket{{k="{key}",le="0.1"}} {number}\n{name}_bucket{{k="{key}",le="+Inf"}} {number + 1}\n'
            text += f'{name}_sum{{k="{key}"}} {value}\n{name}_count{{k="{key}"}} {number + 1}\n'
        elif kind == "summary":
            text += f'{name}{{k="{key}",quantile="0.5"}} {value}\n'
            text += f'{name}_sum{{k="{key}"}} {value}\n{name}_count{{k="{key}"}} {number}\n'
        else:
            text += f'{name}{{k="{key}"}} {value}\n'
    return text


def random_request(chance, number):
    """(method, body)"""
    dice = chance.random()
    if dice < 0.12:
        return "DELETE", b""
    if dice < 0.14:
        return chance.choice(["PUT", "POST"]), REFUSED
    if dice < 0.15:
        return "PUT", b""
    method = chance.choice(["PUT", "POST", "POST"])
    names = chance.sample(sorted(FAMILIES), chance.randint(1, 4))
    return method, "".join(random_family(chance, name, number) for name in names).encode()


class Traffic:
    """`replicas` is asked for the addresses of those that run before every request."""

    def __init__(self, seed, replicas, oracle, group_count):
        self.replicas = replicas
        self.oracle = oracle
        groups = random_groups(random.Random(seed), group_count)
        self.began = time.monotonic()
        self.requests = 0
        self.repeated = 0
        self.failures = []
        # {group's name: what was done to it, as lines}
        self.history = {scrape.group_name(labels): [] for labels in groups}
        self.labels = {scrape.group_name(labels): labels for labels in groups}
        self.stopping = threading.Event()
        self.locks = [threading.Lock() for _ in range(CLIENTS)]
        self.threads = [
            threading.Thread(target=self._run, args=(f"{seed}/{number}", groups[number::CLIENTS], self.locks[number]))
            for number in range(CLIENTS)
        ]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def now(self):
        return f"{time.monotonic() - self.began:7.3f}"

    @contextlib.contextmanager
    def paused(self):
        """Every request that was begun is answered, by both, and none begins."""
        with contextlib.ExitStack() as stack:
            for lock in self.locks:
                stack.enter_context(lock)
            yield

    def forget(self, groups):
        """Takes groups from the oracle that are lost; while paused."""
        for group in groups:
            path = spelled(random.Random(0), self.labels[group])
            assert ask(self.oracle.address, "DELETE", path).status == 202
            self.history[group].append(f"{self.now()} lost with its shard")

    def _run(self, seed, groups, lock):
        chance = random.Random(seed)
        number = 0
        while not self.stopping.is_set():
            number += 1
            labels = chance.choice(groups)
            method, body = random_request(chance, number)
            path = spelled(chance, labels)
            with lock:
                try:
                    self._request(chance, scrape.group_name(labels), number, method, path, body)
                except Exception as error:
                    self.failures.append(f"{self.now()} {method} {path}: {error!r}")
                    return
            time.sleep(PAUSE)

    def _request(self, chance, group, number, method, path, body):
        expected = [400] if body == REFUSED else [200, 202]
        names = sorted(set(re.findall(rb"^o_[a-z]+_\d", body, re.MULTILINE)))
        what = "refused" if expected == [400] else b" ".join(names).decode()
        began = self.now()
        replica, status = self._through_a_replica(chance, method, path, body)
        self.history[group].append(f"{began} {method:6} #{number} by {replica}: {status} {what}")
        assert status in expected, f"answered {status}"
        answer = ask(self.oracle.address, method, path, body)
        assert answer.status in expected, f"the oracle answered {answer}"
        self.requests += 1

    def _through_a_replica(self, chance, method, path, body):
        """(index of the replica that answered, status)"""
        deadline = time.monotonic() + PATIENCE
        while True:
            index, address = chance.choice(self.replicas())
            try:
                answer = ask(address, method, path, body)
                if answer.status < 500:
                    return index, answer.status
                problem = f"{answer.status} {answer.text}"
                time.sleep(0.1)
            except (OSError, Closed) as error:
                problem = repr(error)
                time.sleep(AFTERMATH)
            self.repeated += 1
            assert time.monotonic() < deadline, f"not taken within {PATIENCE} s; last: {problem}"
