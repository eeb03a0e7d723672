"""`pushes.check: full`, and somebody pushes past shardd what does not go together: the scrape of that shard fails until
the replica that moves groups has healed it, ten seconds later at most."""

import itertools
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import protobuf
from harness.checked import NO_CHECK
from harness.http import ask
from harness.net import wait_until
from harness.pushgateway import NEWEST
from harness.scrape import listed

HEALED_WITHIN = 10
# The defaults of what moves groups, whose overlaps are long.
HEALS = {"pushes": {"check": "full"}, "reconcile": {"enabled": True}}
PROTOBUF = [("Content-Type", protobuf.CONTENT_TYPE)]
GAUGE, COUNTER = "# TYPE f gauge\nf 1\n", '# TYPE f counter\nf{a="1"} 2\n'
HISTOGRAM = '# TYPE f histogram\nf_bucket{le="1e+06"} 1\nf_bucket{le="+Inf"} 2\nf_sum 3\nf_count 2\n'
SUMMARY = '# TYPE f summary\nf{quantile="0.5"} 4\nf_sum 3\nf_count 2\n'
NATIVE = protobuf.family("f", "HISTOGRAM", [({}, protobuf.native_histogram(3, 1.5, (1, 1)))])


def wrong(kind, metric):
    """A family of one metric as it must not be."""
    family = protobuf.message(1, "f") + protobuf.integer(3, protobuf.TYPES.index(kind)) + protobuf.message(4, metric)
    return protobuf.varint(len(family)) + family


OF_ANOTHER_KIND = wrong("COUNTER", protobuf.message(2, protobuf.simple(4)))
A_LABEL_TWICE = wrong(
    "GAUGE",
    b"".join(protobuf.message(1, protobuf.message(1, "x") + protobuf.message(2, text)) for text in "12")
    + protobuf.message(2, protobuf.simple(4)),
)

# What one group holds, what is pushed to another one after it, the series of both from then on, and how many families
# of it are set aside. Each series is told by its name, its group and its other labels, as Python's client reads it:
# counters end in `_total` there.
CASES = {
    "two scalars": (GAUGE, COUNTER, {"f w": 1, "f l a=1": 2}, 0),
    "a histogram after a scalar": (
        GAUGE, HISTOGRAM,
        {"f w": 1, "f_bucket l le=1e+06": 1, "f_bucket l le=+Inf": 2, "f_sum l": 3, "f_count l": 2}, 0,
    ),
    "a summary after a scalar": (GAUGE, SUMMARY, {"f w": 1, "f l quantile=0.5": 4, "f_sum l": 3, "f_count l": 2}, 0),
    "a scalar after a histogram": (
        HISTOGRAM, GAUGE, {"f_bucket w le=1e+06": 1, "f_bucket w le=+Inf": 2, "f_sum w": 3, "f_count w": 2}, 1,
    ),
    "a native histogram after a scalar": (GAUGE, NATIVE, {"f w": 1}, 1),
    "a suffix after its summary": (
        SUMMARY, "# TYPE f_count gauge\nf_count 9\n", {"f w quantile=0.5": 4, "f_sum w": 3, "f_count w": 2}, 1,
    ),
    "a summary after its suffix": ("# TYPE f_count gauge\nf_count 9\n", SUMMARY, {"f_count w": 9}, 1),
    "the same series": ('f{x="1"} 1\n', "f 2\nf{y=\"1\"} 3\n", {"f w x=1": 1, "f l x=1 y=1": 3}, 1),
    "a value of another kind": ("n 1\n", OF_ANOTHER_KIND, {"n w": 1, "f_total l": 4}, 0),
    "a label twice": ("n 1\n", A_LABEL_TWICE, {"n w": 1, "f l x=2": 4}, 0),
    "a name of a label that the text format has not": (
        "n 1\n", protobuf.family("f", "GAUGE", [({"a b": "1"}, protobuf.simple(1))]), {"n w": 1}, 1,
    ),
    "a family of the Pushgateway's own": (
        "f 1\n", "# TYPE go_goroutines counter\ngo_goroutines 1\n", {"f w": 1, "go_goroutines l": 1}, 0,
    ),
}  # fmt: skip


def status(shard):
    return ask(shard.address, "GET", "/metrics").status


def push(shard, method, path, body):
    """Past shardd."""
    body, headers = (body, PROTOBUF) if isinstance(body, bytes) else (body.encode(), [])
    assert ask(shard.address, method, path, body, headers).status == 202


def breaks(shard, *pushes):
    for one in pushes:
        push(shard, *one)
        # A Pushgateway answers first.
        time.sleep(0.05)
    wait_until(lambda: status(shard) == 500, "the scrape fails", 2)


def wait_healed(shards, since):
    for shard in shards:
        wait_until(lambda: status(shard) == 200, f"{shard.name} is healed", HEALED_WITHIN - (time.monotonic() - since))


def series(shard, names):
    """The series of some groups, by the names that the tests have for the jobs."""
    found = {}
    for (name, labels), value in shard.samples().items():
        labels = dict(labels)
        group = names.get(labels.pop("job"))
        if group and not name.startswith("push_"):
            del labels["instance"]
            found[" ".join([name, group, *(f"{key}={value}" for key, value in sorted(labels.items()))])] = value
    return found


def set_aside(replica):
    return sum(replica.metrics()["shardd_families_set_aside"].values())


def own_jobs(replica, shard, suffix=""):
    """Jobs of which two paths, the second with the suffix, lead to the shard."""
    for number in itertools.count():
        paths = f"/metrics/job/job{number}", f"/metrics/job/job{number}{suffix}"
        if all(replica.placement(path) == shard.address.text for path in paths):
            yield f"job{number}"


@pytest.mark.parametrize("program", ["prometheus-pushgateway", NEWEST], ids=["1.5", "1.11"])
def test_whatever_fails_a_scrape_is_healed_and_nothing_else_is_touched(lab, program):
    """Each case on a shard of its own."""
    shards = dict(zip(CASES, lab.pushgateways(len(CASES), NO_CHECK, program=program)))
    replica = lab.shardd(shards.values(), **HEALS)
    places, others = {}, {}
    for what, shard in shards.items():
        is_twice = what == "the same series"
        jobs = own_jobs(replica, shard, "/x/1" if is_twice else "")
        first, second, other = (f"/metrics/job/{next(jobs)}" for _ in range(3))
        places[what] = first, f"{first}/x/1" if is_twice else second
        push(shard, "PUT", other, GAUGE.replace("f", "g") + HISTOGRAM.replace("f_", "h_").replace("f ", "h "))
        others[what] = other
    time.sleep(0.1)
    untouched = {what: [group for group in listed(shard)] for what, shard in shards.items()}
    since = time.monotonic()
    for what, (older, later, _, _) in CASES.items():
        first, second = places[what]
        breaks(shards[what], ("PUT", first, older), ("PUT", second, later), ("POST", second, "k 7\n"))
    wait_healed(shards.values(), since)
    for what, (_, _, expected, _) in CASES.items():
        (first, second), shard = places[what], shards[what]
        if what == "the same series":
            # The group's label is in the series.
            expected = {key.replace(" l ", " w "): value for key, value in expected.items()} | {"k w x=1": 7}
            names = {first.split("/")[3]: "w"}
        else:
            expected = expected | {"k l": 7}
            names = {first.split("/")[3]: "w", second.split("/")[3]: "l"}
        assert series(shard, names) == expected, what
        assert all(group in listed(shard) for group in untouched[what]), what
    assert set_aside(replica) == sum(aside for *_, aside in CASES.values())
    # Whatever is pushed through shardd goes with what is there now.
    for what, shard in shards.items():
        assert ask(replica.address, "POST", places[what][1], b"k 8\n").status == 202
    wait_until(lambda: {status(shard) for shard in shards.values()} == {200}, "no scrape fails")


def healings(replica):
    return replica.log().count("a family failed the scrape of its shard")


def test_a_shard_that_comes_back_with_a_file_that_does_not_go_together_is_healed(lab):
    """Its slots are handed back to it meanwhile, with what others were pushed in its stead."""
    shards = [lab.pushgateway(NO_CHECK, start=False).keep_in(lab.directory / f"{number}.data") for number in range(2)]
    for shard in shards:
        shard.start().wait_ready()
    replica = lab.shardd(shards, **HEALS)
    victim = shards[0]
    jobs = own_jobs(replica, victim)
    first, second = (f"/metrics/job/{next(jobs)}" for _ in range(2))
    assert replica.push(first, HISTOGRAM).status == 202 and replica.push(second, "k 7\n").status == 202
    wait_until(victim.is_member, "the shard is one of the tier's")
    victim.wait_persisted()
    victim.kill()
    editor = lab.pushgateway(NO_CHECK, start=False).keep_in(lab.directory / "edited.data")
    shutil.copy(victim.file, editor.file)
    editor.start().wait_ready()
    breaks(editor, ("POST", second, GAUGE))
    editor.wait_persisted()
    editor.kill()
    shutil.copy(editor.file, victim.file)
    wait_until(lambda: replica.push(second, "m 1\n", "POST").status == 202, "another shard stands in")
    since = time.monotonic()
    victim.start().wait_ready()
    assert status(victim) == 500
    wait_healed([victim], since)
    expected = {"f_bucket w le=1e+06": 1, "f_bucket w le=+Inf": 2, "f_sum w": 3, "f_count w": 2, "k l": 7, "m l": 1}
    names = {first.split("/")[3]: "w", second.split("/")[3]: "l"}
    wait_until(lambda: status(victim) == 200 and series(victim, names) == expected, "all is back where it belongs")


def test_groups_that_do_not_belong_to_a_shard_give_way(lab):
    """Though it is the older one. The same for a group with an empty instance, whose series go to the one without."""
    shards = lab.pushgateways(2, NO_CHECK)
    replica = lab.shardd(shards, **HEALS)
    first, second = (f"/metrics/job/{next(own_jobs(replica, shard))}" for shard in shards)
    breaks(shards[0], ("PUT", second, COUNTER), ("PUT", first, GAUGE))
    since = time.monotonic()
    assert ask(replica.address, "PUT", second, b"k 1\n").status == 202
    breaks(shards[1], ("PUT", f"{second}/instance@base64/=", "n 1\n"))
    wait_healed(shards, since)
    names = {first.split("/")[3]: "w", second.split("/")[3]: "l"}
    assert series(shards[0], names) == {"f w": 1, "f l a=1": 2}
    wait_until(lambda: series(shards[1], names) == {"k l": 1, "n l": 1}, "the empty instance is gone")


def test_groups_that_come_together_by_a_move_are_healed_though_they_overlap(lab):
    shards = lab.pushgateways(2, NO_CHECK)
    replica = lab.shardd(shards, pushes={"check": "full"}, reconcile={"enabled": True, "settle": "1s"})
    first, second = (f"/metrics/job/{next(own_jobs(replica, shard))}" for shard in shards)
    push(shards[0], "PUT", first, GAUGE)
    push(shards[1], "PUT", second, COUNTER)
    replica.change_config(pushgateway={"port": 9091, "servers": [shards[0].address.text]})
    replica.send(signal.SIGHUP)
    wait_until(lambda: status(shards[0]) == 500, "the group has moved")
    wait_healed(shards, time.monotonic())
    names = {first.split("/")[3]: "w", second.split("/")[3]: "l"}
    assert series(shards[0], names) == {"f w": 1, "f l a=1": 2}
    wait_until(lambda: series(shards[1], names) == {}, "the copy that is not equal any more is gone")


def test_the_replica_that_moves_heals_and_another_one_when_it_is_gone(lab):
    consul = lab.consul()
    shards = lab.pushgateways(2, NO_CHECK)
    replicas = [lab.shardd(shards, consul=consul, **HEALS) for _ in range(2)]
    wait_until(lambda: all(shard.is_member() for shard in shards), "the tier is there")
    jobs = own_jobs(replicas[0], shards[0])
    turns = [[f"/metrics/job/{next(jobs)}" for _ in range(2)] for _ in range(2)]
    for turn, paths in enumerate(turns):
        names = {path.split("/")[3]: name for path, name in zip(paths, "wl")}
        since = time.monotonic()
        bodies = (body.replace("f", f"f{turn}") for body in (GAUGE, COUNTER))
        breaks(shards[0], *(("PUT", path, body) for path, body in zip(paths, bodies)))
        wait_healed(shards, since)
        assert series(shards[0], names) == {f"f{turn} w": 1, f"f{turn} l a=1": 2}
        if turn == 0:
            wait_until(lambda: sum(map(healings, replicas)) == 1, "it has been healed once")
            healer, other = sorted(replicas, key=healings, reverse=True)
            healer.kill()
    assert healings(other) == 1


def test_no_push_is_lost_while_its_group_is_healed_again_and_again(lab):
    """Each push is a family of its own, so that no later one covers up that it is gone. The group is written as a whole
    each time."""
    shards = lab.pushgateways(2, NO_CHECK)
    replica = lab.shardd(shards, workers=2, **HEALS)
    jobs = own_jobs(replica, shards[0])
    first, second = (f"/metrics/job/{next(jobs)}" for _ in range(2))
    push(shards[0], "PUT", first, SUMMARY)
    end = time.monotonic() + 12

    def client(number):
        names = []
        for count in itertools.count():
            if time.monotonic() > end:
                return names
            name = f"p{number}_{count}"
            if replica.push(second, f"{name} 1\n", "POST").status == 202:
                names.append(name)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        while time.monotonic() < end - 1:
            push(shards[0], "POST", second, "# TYPE f_count gauge\nf_count 9\n")
            since = time.monotonic()
            time.sleep(0.1)
            wait_healed(shards, since)
        pushed = {name for one in clients for name in one.result()}
    wait_healed(shards, time.monotonic())
    job = second.split("/")[3]
    found = {name for (name, labels) in shards[0].samples() if dict(labels)["job"] == job}
    assert len(pushed) > 50 and healings(replica) > 1
    assert pushed <= found, pushed - found
    assert set_aside(replica) == 1
    # What was set aside is forgotten once it is there again, in a form that goes with the rest.
    assert "f_count" not in found
