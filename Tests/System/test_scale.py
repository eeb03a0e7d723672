"""Scale-out from 3 to 6 shards and scale-in back to 3, under a constant load, as a real Prometheus sees it.

One Prometheus finds the shards by Consul, another by /api/v1/sd. All pushed values grow, so a copy of a group that stays
behind shows as samples that are stale, and lower than the one before.
"""

import time

import pytest
from harness import picture, scrape
from harness.growing import Growing, judge, no_value_goes_back
from harness.net import wait_until
from harness.prometheus import WITH_CONSUL, by_consul, by_http
from harness.reconcile import drain, wait_reconciled

GROUPS = 300
# With an overlap long enough for a Prometheus to have found a new shard before a group's old copy goes.
RECONCILE = {"enabled": True, "settle": "4s", "interval": "2s", "overlap": "5s"}
# A Pushgateway answers a DELETE before it has applied it, and may be scraped in between: so old a sample may be.
APPLIED_WITHIN = 0.25
LONGEST_GAP = 3.5


def texts(shards):
    return sorted(shard.address.text for shard in shards)


class Setup:
    def __init__(self, lab, settings):
        self.consul = lab.consul()
        self.shards = lab.pushgateways(6)
        for shard in self.shards[:3]:
            self.consul.register(shard.address)
        register = {"register": False}
        self.replicas = [
            lab.shardd(self.shards[:3], consul=self.consul, consul_server=register, reconcile=settings)
            for _ in range(2)
        ]
        for replica in self.replicas:
            wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
        self.prometheuses = [
            lab.prometheus("by-consul", by_consul(self.consul), program=WITH_CONSUL),
            lab.prometheus("by-http", by_http(self.replicas[0])),
        ]
        for prometheus in self.prometheuses:
            wait_until(lambda: prometheus.targets() == texts(self.shards[:3]), "three shards are scraped", 20)

    def scale_out(self):
        for shard in self.shards[3:]:
            self.consul.register(shard.address)
        for replica in self.replicas:
            wait_until(lambda: replica.shards() == texts(self.shards), "the ring has six shards")


def measured(what, action, *arguments, **options):
    began = time.monotonic()
    action(*arguments, **options)
    print(f"{what}: {time.monotonic() - began:.1f} s")


def verdicts(setup, growing):
    """After two more scrapes of what is there in the end."""
    end = time.time()
    time.sleep(3)
    return [judge(prometheus, growing, end) for prometheus in setup.prometheuses]


def check(verdict, growing):
    assert not verdict.missing, verdict.missing[:5]
    assert not verdict.frozen, verdict.frozen[:5]
    assert not [sample for sample in verdict.stale if sample.age > APPLIED_WITHIN], verdict.stale[:5]
    no_value_goes_back(verdict, growing)
    assert verdict.longest_gap < LONGEST_GAP, verdict.longest_gap


def resting_at_first():
    """Groups whose first push comes when there are six shards."""
    return {group for group in range(GROUPS) if group % 6 == 4}


def resting_from_now(growing, remainder):
    """Groups of jobs that have ended: nothing but a run can move them."""
    growing.resting |= {group for group in range(GROUPS) if group % 3 == remainder}


def check_and_keep(name, setup, growing, steps):
    """What both Prometheuses have of it; the second one's is for the picture."""
    ended = time.time()
    began = growing.began
    found = verdicts(setup, growing)
    for prometheus, verdict in zip(setup.prometheuses, found):
        print(f"{prometheus.name}: {verdict.text()}")
    wrong = picture.wrong_by_second(
        found[0], began, ended, applied_within=APPLIED_WITHIN, longest_gap=LONGEST_GAP
    )
    picture.keep(name, 2 * GROUPS, [(what, moment - began) for what, moment in steps], wrong)
    return found


def test_scale_out_and_in_under_load(lab):
    setup = Setup(lab, RECONCILE)
    shards, replicas = setup.shards, setup.replicas
    with Growing(replicas, GROUPS, resting_at_first()) as growing:
        time.sleep(3)
        resting_from_now(growing, 0)
        steps = [("3 to 6 shards", time.time())]
        setup.scale_out()
        measured("scale-out, until settled", wait_reconciled, replicas, shards, timeout=40)
        assert all(scrape.held(shard) for shard in shards), "a new shard has got no group"
        growing.wake(resting_at_first())
        time.sleep(2)
        resting_from_now(growing, 1)
        steps.append(("6 to 3", time.time()))
        for shard in reversed(shards[3:]):
            began = time.monotonic()
            result = drain(replicas[0], shard)
            assert result.returncode == 0, result
            assert scrape.held(shard) == {}
            shard.stop()
            print(f"drain of one shard: {time.monotonic() - began:.1f} s")
        measured("scale-in, until settled", wait_reconciled, replicas, shards[:3], timeout=40)
        time.sleep(2)
    assert not growing.failures, growing.failures[:5]
    assert setup.consul.passing() == texts(shards[:3])
    at = scrape.places(shards[:3])
    assert len(at) == GROUPS and all(len(places) == 1 for places in at.values())
    print(f"{sum(map(len, growing.answered))} pushes")
    for prometheus, verdict in zip(setup.prometheuses, check_and_keep("on", setup, growing, steps)):
        check(verdict, growing)
        assert prometheus.targets() == texts(shards[:3])
        (count,) = prometheus.query('count({__name__=~"grow_.*"})')
        assert count["value"][1] == str(2 * GROUPS)


def test_without_reconciling_wrong_series_are_seen(lab):
    """What the test above is about, measured: it is also what shows that it would notice."""
    setup = Setup(lab, {**RECONCILE, "enabled": False})
    shards = setup.shards
    with Growing(setup.replicas, GROUPS, resting_at_first()) as growing:
        time.sleep(3)
        resting_from_now(growing, 0)
        steps = [("3 to 6 shards", time.time())]
        setup.scale_out()
        time.sleep(8)
        doubled = sum(len(places) > 1 for places in scrape.places(shards).values())
        growing.wake(resting_at_first())
        time.sleep(2)
        resting_from_now(growing, 1)
        steps.append(("6 to 3", time.time()))
        for shard in shards[3:]:
            setup.consul.deregister(shard.address)
        for replica in setup.replicas:
            wait_until(lambda: replica.shards() == texts(shards[:3]), "the ring has three shards again")
        for shard in shards[3:]:
            shard.stop()
        time.sleep(14)
    assert not growing.failures, growing.failures[:5]
    print(f"{doubled} groups on two shards")
    # About a half of the groups move, and a half of them is pushed at their new shards.
    assert doubled > GROUPS / 8
    for verdict in check_and_keep("off", setup, growing, steps):
        assert verdict.stale and verdict.backward and verdict.frozen
        assert min(sample.moment for sample in verdict.stale) > steps[0][1]
        with pytest.raises(AssertionError):
            check(verdict, growing)
