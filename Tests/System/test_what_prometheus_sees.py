"""What a Prometheus that finds shards as slowly as one may see of groups that nobody pushes: through scale-out and drain, each
series is there.

SEEN_WITH=defaults takes Prometheus's default intervals and shardd's default overlap, and ten minutes.
"""

import os
import subprocess
import threading
import time
from collections import Counter

import pytest
from harness import scrape
from harness.growing import Growing, judge, no_value_goes_back
from harness.net import wait_until
from harness.prometheus import WITH_CONSUL, by_consul, by_http
from harness.shardd import BINARY

WITH_DEFAULTS = os.environ.get("SEEN_WITH") == "defaults"
# Seconds between scrapes; how often Prometheus asks who the shards are; how long copies stay.
SCRAPE, REFRESH, OVERLAP = (60, None, None) if WITH_DEFAULTS else (5, "15s", "25s")
LASTING = 150 if WITH_DEFAULTS else 25
RESTING, PUSHED = 60, 20
SERIES = 'grow_gauge{job="growing"}'
# last_over_time, which the older Prometheus does not have: values only grow, so the last one is the greatest.
LATEST = f"max_over_time({SERIES}[{2 * SCRAPE}s])"
ALERTS = (("Plain", f"{SERIES} > 0"), ("Latest", f"{LATEST} > 0"))


class Setup:
    def __init__(self, lab):
        self.consul = lab.consul()
        self.shards = lab.pushgateways(4)
        for shard in self.shards[:3]:
            self.consul.register(shard.address)
        settings = {"enabled": True, "settle": "1s", "interval": "2s", **({"overlap": OVERLAP} if OVERLAP else {})}
        self.replicas = [
            lab.shardd(self.shards[:3], consul=self.consul, consul_server={"register": False}, reconcile=settings)
            for _ in range(2)
        ]
        interval = f"{SCRAPE}s" if REFRESH else None
        self.prometheuses = [
            lab.prometheus(
                "by-consul", by_consul(self.consul, refresh=REFRESH), interval=interval, program=WITH_CONSUL, alerts=ALERTS
            ),
            lab.prometheus("by-http", by_http(self.replicas[0], REFRESH), interval=interval, alerts=ALERTS),
        ]

    def is_at_rest(self):
        return all(replica.metric("shardd_handover_step") == 0 for replica in self.replicas)

    def is_named(self, shard):
        """Whether a Prometheus that asks now is told of the shard, by either way."""
        by_sd = any(shard.address.text in group["targets"] for group in self.replicas[1].json("/api/v1/sd"))
        return by_sd or any(address == shard.address.text for _, address, _ in self.consul.registrations())


class Watch(threading.Thread):
    """What becomes of a shard that is drained: (time, whether discovery names it, groups that it holds)."""

    def __init__(self, setup, shard):
        super().__init__()
        self.setup, self.shard, self.seen, self.stopping = setup, shard, [], threading.Event()
        self.look()

    def look(self):
        is_named = self.setup.is_named(self.shard)
        self.seen.append((time.monotonic(), is_named, len(scrape.listed(self.shard))))

    def run(self):
        while not self.stopping.wait(0.25):
            self.look()


def drained(setup, shard):
    """Its lines, each with its time; and what a watch has seen meanwhile."""
    watch = Watch(setup, shard)
    watch.start()
    command = [BINARY, "drain", f"--config.file={setup.replicas[0].config_path}", shard.address.text]
    lines = [(time.monotonic(), "")]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            lines += [(time.monotonic(), line.rstrip()) for line in child.stdout]
            assert child.wait() == 0, child.stderr.read()
    finally:
        watch.stopping.set()
        watch.join()
    watch.look()
    return lines, watch.seen


def missing(prometheus, expression, start, end):
    """For each series that is missing at any second, when, in seconds after the start."""
    start, end = int(start), int(end)
    found = prometheus.query_range(expression, start, end)
    assert len(found) == RESTING + PUSHED, f"{len(found)} series at any time"
    seconds = [[second - start for second in range(start, end + 1) if second not in had] for had in found.values()]
    return [at for at in seconds if at]


def resolved(prometheus, alert, start, end):
    """How many alerts of a name were not firing at some time."""
    firing = prometheus.query_range(f'ALERTS{{alertname="{alert}",alertstate="firing"}}', int(start), int(end))
    seconds = set(range(int(start), int(end) + 1))
    return RESTING + PUSHED - sum(seconds <= {int(second) for second in values} for values in firing.values())


def longest(seconds):
    """The longest run of consecutive ones."""
    best = length = 0
    for second in seconds:
        length = length + 1 if second - 1 in seconds else 1
        best = max(best, length)
    return best


@pytest.mark.seconds(1200 if WITH_DEFAULTS else 200)
def test_no_series_is_missed_while_shards_come_and_go(lab):
    setup = Setup(lab)
    with Growing(setup.replicas, RESTING + PUSHED) as growing:
        growing.resting |= set(range(RESTING))
        for prometheus in setup.prometheuses:
            for alert, _ in ALERTS:
                firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
                wait_until(lambda: len(prometheus.query(firing)) == RESTING + PUSHED, f"{alert} fires", 4 * SCRAPE + 60)
        time.sleep(SCRAPE)
        began = time.time()
        setup.consul.register(setup.shards[3].address)
        texts = sorted(shard.address.text for shard in setup.shards)
        for replica in setup.replicas:
            wait_until(lambda: replica.shards() == texts, "the ring has four shards")
        wait_until(setup.is_at_rest, "scale-out has ended", LASTING + 60, every=0.5)
        assert scrape.held(setup.shards[3])
        print(f"scale-out: {time.time() - began:.0f} s")
        # After a scale-out instant queries may miss a series from when its old shard is scraped again until its new one is, and
        # alerts are evaluated after that.
        time.sleep(3 * SCRAPE + 1)
        drain_began = time.time()
        leaving = setup.shards[0]
        lines, seen = drained(setup, leaving)
        print(f"drain: {time.time() - drain_began:.0f} s, {len(lines) - 1} lines", *(line for _, line in lines), sep="\n  ")
        # A Prometheus ends the series of a target that is gone a little more than two scrapes later.
        time.sleep(3 * SCRAPE)
        ended = time.time()
    assert not growing.failures, growing.failures[:5]
    check_watch(seen)
    assert max(later - earlier for (earlier, _), (later, _) in zip(lines, lines[1:])) < 5, lines
    for prometheus in setup.prometheuses:
        check_seen(prometheus, growing, began, drain_began, ended)


def check_watch(seen):
    """It leaves discovery before any copy goes, and the copies stay for the overlap."""
    held = seen[0][2]
    left = min(moment for moment, is_named, _ in seen if not is_named)
    gone = min(moment for moment, _, now_held in seen if now_held < held)
    print(f"copies stayed for {gone - left:.1f} s after the shard had left discovery")
    assert gone - left > LASTING - 2


def check_seen(prometheus, growing, began, drain_began, ended):
    verdict = judge(prometheus, growing, ended)
    scale_out = missing(prometheus, SERIES, began, drain_began)
    by_second = Counter(second for at in scale_out for second in at)
    print(
        f"{prometheus.name}: {verdict.samples} samples, {len(verdict.backward)} lower than the one before, longest gap"
        f" {verdict.longest_gap:.1f} s; through scale-out instant queries miss {len(scale_out)} series,"
        f" each for up to {max(map(longest, scale_out), default=0)} s ({dict(sorted(by_second.items()))}), and"
        f" {resolved(prometheus, 'Plain', began, drain_began)} plain alerts are resolved;"
        f" through the drain {resolved(prometheus, 'Plain', drain_began, ended)};"
        f" with last_over_time {resolved(prometheus, 'Latest', began, ended)}"
    )
    assert not missing(prometheus, LATEST, began, ended)
    assert not missing(prometheus, SERIES, drain_began, ended)
    # A busy machine scrapes a moment late.
    assert all(longest(at) <= SCRAPE + 1 for at in scale_out)
    assert resolved(prometheus, "Latest", began, ended) == 0
    assert resolved(prometheus, "Plain", drain_began, ended) == 0
    assert not verdict.missing and verdict.longest_gap < 2 * SCRAPE, verdict.text()
    no_value_goes_back(verdict, growing)
