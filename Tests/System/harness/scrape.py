"""What a set of shards holds, exactly, and how it differs from what one Pushgateway holds.

Exact is what the Pushgateway's API tells, group by group: its numbers are texts that name one float each. What
Prometheus would scrape is the text format, in which a series that two shards expose is there twice. When something was
pushed is left out of both: the times of the pushes, and so whether the last one was taken.
"""

import json
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from .http import ask

TIMES = ("push_time_seconds", "push_failure_time_seconds")
NOT_FAMILIES = ("labels", "last_push_successful", *TIMES)
MOST_LINES = 60
# Of the groups that shardd keeps for itself in shards.
OWN_JOB = "shardd"


class Family(NamedTuple):
    type: str
    help: str
    # {labels as a frozenset of pairs: what else the API tells of the metric, as sorted text}
    metrics: dict


class Difference(NamedTuple):
    group: str
    text: str


def group_name(labels):
    """The text of a group's grouping key, where also those labels are told that have an empty value."""
    labels = dict(labels)
    rest = [f"/{name}/{labels[name]}" for name in sorted(labels, key=str.encode) if name != "job"]
    return f"/metrics/job/{labels['job']}" + "".join(rest)


def listed(gateway):
    """The API's list of groups, in an order of ours, without those that are shardd's own."""
    groups = json.loads(ask(gateway.address, "GET", "/api/v1/metrics", headers=gateway.headers).body)["data"]
    groups = [group for group in groups if group["labels"].get("job") != OWN_JOB]
    return sorted(groups, key=lambda group: json.dumps(group["labels"], sort_keys=True))


def held(gateway):
    """{group's name: {family's name: Family}} of one Pushgateway; without those whose labels a family hides."""
    groups = {}
    for group in listed(gateway):
        if "job" not in group["labels"]:
            continue
        name = group_name(group["labels"])
        assert name not in groups, f"{gateway.name} lists {name} twice"
        groups[name] = {family: _family(told) for family, told in group.items() if family not in NOT_FAMILIES}
    return groups


def _family(told):
    metrics = {}
    for metric in told["metrics"]:
        labels = frozenset(metric.pop("labels", {}).items())
        assert labels not in metrics, f"a metric is there twice: {labels}"
        metrics[labels] = json.dumps(metric, sort_keys=True)
    return Family(told["type"], told.get("help", ""), metrics)


def places(shards):
    """{group's name: the shards' addresses that hold it}"""
    found = {}
    for shard in shards:
        for group in held(shard):
            found.setdefault(group, []).append(shard.address.text)
    return found


def differences(oracle, shards):
    """How the union of the shards differs from the oracle: none, when each of its groups is on one shard exactly."""
    expected = oracle if isinstance(oracle, dict) else held(oracle)
    on_shards = {shard.address.text: held(shard) for shard in shards}
    found = []
    for group in sorted({*expected, *(group for groups in on_shards.values() for group in groups)}):
        copies = {shard: groups[group] for shard, groups in on_shards.items() if group in groups}
        if not copies:
            found.append(Difference(group, f"missing, with {describe(expected[group])}"))
            continue
        if group not in expected:
            found.append(Difference(group, f"should be gone, and is on {where(copies)}"))
            continue
        if len(copies) > 1:
            found.append(Difference(group, f"is there {len(copies)} times: {where(copies)}"))
        for shard, families in copies.items():
            found += [
                Difference(group, f"on {shard}: {text}") for text in _family_differences(expected[group], families)
            ]
    return found


def where(copies):
    return "; ".join(f"{shard} with {describe(families)}" for shard, families in copies.items())


def describe(families):
    return ", ".join(sorted(families)) or "no family"


def _family_differences(expected, families):
    for name in sorted({*expected, *families}):
        if name not in families:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} should be gone: {_told(families[name].metrics.items())}"
        else:
            yield from (f"{name}: {text}" for text in _differences_within(expected[name], families[name]))


def _differences_within(expected, family):
    if family[:2] != expected[:2]:
        yield f"{family.type} {family.help!r}, should be {expected.type} {expected.help!r}"
    more = family.metrics.items() - expected.metrics.items()
    fewer = expected.metrics.items() - family.metrics.items()
    if more or fewer:
        yield f"{_told(more)}, should be {_told(fewer)}"


def _told(metrics):
    return " ".join(sorted(f"{dict(sorted(labels))} {value}" for labels, value in metrics)) or "nothing"


def scraped(shards):
    """What Prometheus would scrape, as a list: {(name, labels as a frozenset of pairs): [value for each exposing shard]}."""
    found = {}
    for shard in shards:
        text = ask(shard.address, "GET", "/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "job" in sample.labels and sample.name not in TIMES:
                    # As text, so that NaN equals NaN.
                    key = sample.name, frozenset(sample.labels.items())
                    found.setdefault(key, []).append(repr(sample.value))
    return found


def scrape_differences(oracle, shards):
    expected, found = scraped([oracle]), scraped(shards)
    lines = []
    for key in sorted({*expected, *found}, key=str):
        if expected.get(key) != found.get(key):
            name, labels = key
            lines.append(f"{name}{dict(sorted(labels))}: {found.get(key)}, should be {expected.get(key)}")
    return lines


def assert_same(oracle, shards):
    """The shards' union is what the oracle has, each group once; as their API tells it and as Prometheus sees it."""
    found = [f"{group}: {text}" for group, text in differences(oracle, shards)]
    found = found or scrape_differences(oracle, shards)
    more = [f"... {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else []
    assert not found, "\n".join([f"{len(found)} differences:", *found[:MOST_LINES], *more])
