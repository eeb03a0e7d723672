"""A constant load of pushes whose values only grow, and what is wrong with the samples that a Prometheus took of them.

Every push and its answer have a time, so each sample can be judged: one that is older than what had been answered when
the scrape began is stale.
"""

import threading
import time
from bisect import bisect_left
from typing import NamedTuple

from .http import Closed, Connection
from .net import wait_until

THREADS = 4
# From one push of a group to its next.
PERIOD = 1.0
# Prometheus moves the times of scrapes by up to 2 ms, so that they compress better.
CLOCK_SLACK = 0.005


class Growing:
    """Half of the groups are pushed by PUT, half by POST, each with a counter and a gauge of the same value.

    Those in `resting` are not pushed while they are in it.
    """

    def __init__(self, replicas, count, resting=()):
        self.replicas = replicas
        self.count = count
        self.resting = set(resting)
        # By group: values 1, 2, ... were answered at these times.
        self.answered = [[] for _ in range(count)]
        self.failures = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._push, args=(number,)) for number in range(THREADS)]

    def __enter__(self):
        self.began = time.time()
        for thread in self.threads:
            thread.start()
        self.wait_for(set(range(self.count)) - self.resting)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def wake(self, groups):
        """They are pushed from now on, for the first time or again."""
        self.resting -= groups
        self.wait_for(groups)

    def wait_for(self, groups):
        wait_until(lambda: self.failures or all(self.answered[group] for group in groups), "these groups are pushed")

    def path(self, group):
        return f"/metrics/job/growing/group/{group}"

    def _push(self, number):
        connection = None
        address = self.replicas[number % len(self.replicas)].address
        groups = range(number, self.count, THREADS)
        began = time.monotonic()
        for turn in range(1 << 30):
            # Evenly over the period, whatever the pushes take.
            delay = began + turn * PERIOD / len(groups) - time.monotonic()
            if self.stopping.wait(max(delay, 0)):
                break
            group = groups[turn % len(groups)]
            if group in self.resting:
                continue
            value = len(self.answered[group]) + 1
            body = f"# TYPE grow_total counter\ngrow_total {value}\n# TYPE grow_gauge gauge\ngrow_gauge {value}\n"
            try:
                connection = connection or Connection(address)
                answer = connection.ask("PUT" if group % 2 else "POST", self.path(group), body.encode())
                if answer.status not in (200, 202):
                    self.failures.append((self.path(group), repr(answer)))
                    continue
            except (OSError, Closed) as error:
                self.failures.append((self.path(group), repr(error)))
                connection = None
                continue
            self.answered[group].append(time.time())
        if connection:
            connection.close()

    def answered_at(self, group, moment):
        """The last value that had been answered by then."""
        return bisect_left(self.answered[group], moment)


class Stale(NamedTuple):
    """A sample that is older than what had been answered when its scrape began, by so many seconds."""

    name: str
    group: int
    moment: float
    value: float
    answered: int
    age: float


class Verdict(NamedTuple):
    samples: int
    # By name and group.
    moments: dict
    stale: list
    # Samples lower than the one before, stale or not.
    backward: list
    # Series with a last sample that is not the last value, or too old.
    frozen: list
    missing: list
    longest_gap: float

    def text(self):
        return (
            f"{self.samples} samples: {len(self.stale)} stale, {len(self.backward)} lower than the one before;"
            f" {len(self.frozen)} series frozen, {len(self.missing)} missing; longest gap {self.longest_gap:.1f} s"
        )


def no_value_goes_back(verdict, growing):
    """A sample may be lower than the one before only where the higher one was not yet answered when it was taken."""
    for _, group, _, first, moment, _ in verdict.backward:
        assert growing.answered[group][int(first) - 1] > moment - CLOCK_SLACK, verdict.backward[:5]


def judge(prometheus, growing, end):
    """After the load: what a Prometheus has stored of it. `end` is a moment after the last push and before now."""
    stale, backward, frozen, missing, longest_gap, count, moments = [], [], [], [], 0, 0, {}
    for name in ("grow_total", "grow_gauge"):
        stored = {}
        for labels, samples in prometheus.samples(f'{name}{{job="growing"}}').items():
            stored.setdefault(int(dict(labels)["group"]), []).append(samples)
        for group in range(growing.count):
            if group not in stored:
                missing.append((name, group))
                continue
            (samples,) = stored[group]
            count += len(samples)
            moments[name, group] = [moment for moment, _ in samples]
            for moment, value in samples:
                answered = growing.answered_at(group, moment - CLOCK_SLACK)
                if value < answered:
                    age = moment - growing.answered[group][int(value)]
                    stale.append(Stale(name, group, moment, value, answered, round(age, 3)))
            for (before, first), (moment, second) in zip(samples, samples[1:]):
                longest_gap = max(longest_gap, moment - before)
                if second < first:
                    backward.append((name, group, before, first, moment, second))
            if samples[-1][1] != len(growing.answered[group]) or samples[-1][0] < end:
                frozen.append((name, group, *samples[-1], len(growing.answered[group])))
    return Verdict(count, moments, stale, backward, frozen, missing, longest_gap)
