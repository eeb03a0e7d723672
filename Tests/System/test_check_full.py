"""`pushes.check: full`: over shards without a check of their own, the tier decides as one Pushgateway with its check on.

SEED repeats the requests of the random test, and STEPS says how many of them are made. When they fail, parts of them are run by
themselves until none can be left out or SHRINK_SECONDS are over.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.checked import NO_CHECK, Checked, kind_of, own_families, standing, time_of
from harness.colliding import PATHS, random_push
from harness.http import ask
from harness.lab import Lab
from harness.net import holds, wait_until
from harness.pushgateway import NEWEST
from harness.reconcile import OFTEN, drain
from harness.rules import CASES, Apart
from harness.scrape import differences, group_name, held, listed
from harness.shrinking import shrunk

STEPS = int(os.environ.get("STEPS") or 150)
SHRINK_SECONDS = int(os.environ.get("SHRINK_SECONDS") or 60)
LAST_REQUESTS = 20
# Until replicas have heard of each other again.
AFTER_CONSUL = 2


@pytest.fixture(params=[1, 3], ids=["1 shard", "3 shards"])
def checked(lab, request):
    return Checked(lab, request.param)


def decided_otherwise(checked, pushes, counts):
    """None, or where the tier and one Pushgateway part, as text. Counts what that one says."""
    for number, push in enumerate(pushes, 1):
        answer, expected = checked.both(*push.sent())
        counts[kind_of(expected)] = counts.get(kind_of(expected), 0) + 1
        if kind_of(answer) != kind_of(expected):
            return (
                f"Request {number} of {len(pushes)}: {push}\n  the tier:        {answer.status} {answer.body!r}"
                f"\n  one Pushgateway: {expected.status} {expected.body!r}{last_requests(checked, pushes[:number])}"
            )
    problems = checked.lasting_problems()
    return "\n".join(["At the end:", *problems]) + last_requests(checked, pushes) if problems else None


def last_requests(checked, pushes):
    first = max(len(pushes) - LAST_REQUESTS, 0)
    lines = [f"  {number}: on {checked.place(push.path)}: {push}" for number, push in enumerate(pushes, 1)][first:]
    return "\n".join(["\nThe last requests, and the shards of their groups:", *lines])


def run(directory, setting, pushes, counts):
    """None, or what was wrong, as text."""
    directory.mkdir()
    lab = Lab(directory)
    try:
        problem = decided_otherwise(Checked(lab, **setting), pushes, counts)
        logs = [log for name, log in lab.logs() if "shardd" in name]
        return problem and "\n".join([problem, "shardd's log:", *logs])
    finally:
        lab.close()


@pytest.mark.seconds(300)
@pytest.mark.parametrize("setting", [
    {"count": 1}, {"count": 3}, {"count": 3, "program": NEWEST}, {"count": 3, "replicas": 2},
], ids=["1 shard", "3 shards", "1.11", "2 replicas"])  # fmt: skip
def test_any_pushes_are_decided_as_by_one_pushgateway(tmp_path, setting):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed} STEPS={STEPS}")
    chance = random.Random(seed)
    pushes, counts = [random_push(chance, number) for number in range(1, STEPS + 1)], {}
    problem = run(tmp_path / "whole", setting, pushes, counts)
    print(counts)
    if problem is None:
        return
    problems = [problem]

    def fails(shorter):
        found = run(tmp_path / f"part-{len(problems)}", setting, shorter, {})
        problems.append(found)
        return found is not None

    print(f"{problem}\n\nNow with fewer requests:")
    # What comes behind the first request that was decided otherwise was not made.
    least = shrunk(pushes[: sum(counts.values())], fails, time.monotonic() + SHRINK_SECONDS)
    last = [found for found in problems if found][-1]
    pytest.fail(f"SEED={seed} STEPS={STEPS}, where {len(least)} of the requests do:\n{last}", pytrace=False)


@pytest.mark.parametrize("replicas", [1, 2])
def test_pushes_at_the_same_time_leave_nothing_that_fails_a_scrape(lab, replicas):
    """Of many clients, by two workers each: whichever of two that do not go together is taken, the other is not."""
    checked = Checked(lab, 3, replicas, workers=2)
    shards = checked.shards
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")

    def client(number):
        chance = random.Random(seed + number)
        replica = checked.replicas[number % replicas]
        pushes = [random_push(chance, count) for count in range(60)]
        return [ask(replica.address, *push.sent()).status for push in pushes]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for answers in pool.map(client, range(8)) for status in answers]
    assert set(statuses) <= {200, 202, 400} and 400 in statuses and 202 in statuses, set(statuses)
    wait_until(lambda: all(ask(shard.address, "GET", "/metrics").status == 200 for shard in shards), "scrapes succeed", 5)
    types = {}
    for shard in shards:
        for line in ask(shard.address, "GET", "/metrics").text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert types.setdefault(name, kind) == kind, f"{name} has two types"


def test_pushes_are_decided_as_by_one_pushgateway_while_shards_come_and_go(lab):
    """Through two replicas: one shard joins, then another is drained, while the requests are made."""
    checked = Checked(lab, 2, replicas=2, reconcile=OFTEN)
    for replica in checked.replicas:
        wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    leaving, joining = checked.shards[0], lab.pushgateway(NO_CHECK)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")

    def change():
        checked.shards.append(joining)
        checked.consul.register(joining.address)
        wait_until(lambda: all(len(replica.shards()) == 3 for replica in checked.replicas), "the shard is on the ring")
        done = drain(checked.replica, leaving)
        assert done.returncode == 0, done
        checked.shards.remove(leaving)

    chance, made, counts = random.Random(seed), [], {}
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while not changing.done() or len(made) < 60:
            made.append(random_push(chance, len(made)))
            answer, expected = checked.both(*made[-1].sent())
            counts[kind_of(expected)] = counts.get(kind_of(expected), 0) + 1
            told = f"{made[-1]}\n  the tier: {answer}\n  one Pushgateway: {expected}{last_requests(checked, made)}"
            assert kind_of(answer) == kind_of(expected), told
        changing.result()
    print(counts)
    # Groups are not marked while they move, so their standings are not the same.
    wait_until(lambda: not differences(checked.reference, checked.shards), "the shards have all and nothing else", 10)
    assert all(ask(shard.address, "GET", "/metrics").status == 200 for shard in checked.shards)


def test_pushes_are_decided_as_by_one_pushgateway_while_consul_is_away(lab):
    """By the replica that gets them all then; what it took the other one knows as soon as Consul is back."""
    checked = Checked(lab, 3, replicas=2)
    for replica in checked.replicas:
        wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    chance, made, both = random.Random(seed), [], list(checked.replicas)

    def push(count):
        for _ in range(count):
            made.append(random_push(chance, len(made)))
            answer, expected = checked.both(*made[-1].sent())
            told = f"{made[-1]}\n  the tier: {answer}\n  one Pushgateway: {expected}{last_requests(checked, made)}"
            assert kind_of(answer) == kind_of(expected), told

    push(20)
    checked.consul.stop()
    checked.replicas = both[:1]
    push(40)
    checked.consul.start().wait_ready()
    checked.replicas = both
    time.sleep(AFTER_CONSUL)
    push(40)
    assert checked.lasting_problems() == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_every_rule_of_the_check_is_decided_by_the_tier(checked, case):
    apart = Apart(checked)
    for step in case.steps:
        answer, expected = checked.both(step.method, apart.path(step), step.body, step.headers)
        # First what a Pushgateway does, so that it is the table that is wrong should it do otherwise.
        told = f"{step.method} {apart.path(step)} {step.body!r}"
        assert kind_of(expected) == step.answer, f"one Pushgateway: {told}: {expected}"
        assert kind_of(answer) == step.answer, f"the tier: {told}: {answer}"
        missing = [part for part in apart.parts_told(step) if part not in answer.text]
        assert not missing, f"{told}: {missing} not in {answer.text!r}"
    assert checked.lasting_problems() == []


def test_families_of_pushgateways_own_are_known_with_their_types(checked):
    """Each one that it exposes about itself, pushed with every type; some of them it does not mind."""
    # What it counts by method or handler is exposed from its first request on.
    for path in PATHS:
        checked.both("PUT", path, "n 1\n")
    different = []
    for name, own in own_families(checked.reference).items():
        for kind in ("counter", "gauge", "untyped", "summary", "histogram"):
            answer, expected = checked.both("PUT", "/metrics/job/own", f"# TYPE {name} {kind}\n{name} 1\n")
            if kind_of(answer) != kind_of(expected):
                different.append(f"{name}, a {own}, as {kind}: {answer}, should be {expected}")
            elif kind_of(answer) == 400:
                assert name in answer.text, answer
    assert not different, "\n".join(different)
    assert checked.lasting_problems() == []


def test_a_refused_push_marks_its_group(checked):
    """The group is made where there was none; what it held stays, and so does the time of its last good push."""
    apart = Apart(checked)
    other, path = f"/metrics/job/{apart.a}", f"/metrics/job/{apart.b}"
    assert all(answer.status < 300 for answer in checked.both("PUT", path, "old 7\n"))
    assert all(answer.status < 300 for answer in checked.both("PUT", other, "# TYPE m gauge\nm 1\n"))
    wait_until(lambda: not checked.problems(), "the pushes are stored")
    before = stored(checked, path)
    for refused in (path, path + "/fresh/1"):
        for method in ("PUT", "POST"):
            answers = checked.both(method, refused, "# TYPE m counter\nm 2\nold 8\n")
            assert [answer.status for answer in answers] == [400, 400], answers
    wait_until(lambda: not checked.problems(), "the shards are as the Pushgateway is, with both groups marked")
    after = stored(checked, path)
    assert time_of(before, "push_failure_time_seconds") == 0 < time_of(after, "push_failure_time_seconds")
    assert (after["old"], after["push_time_seconds"]) == (before["old"], before["push_time_seconds"])
    assert "m" not in after
    fresh = group_name({"job": apart.b, "fresh": "1"})
    assert standing(checked.shards)[fresh][:2] == (False, True)
    assert [groups[fresh] for groups in map(held, checked.shards) if fresh in groups] == [{}]
    # A push that is taken leaves the mark, and counts as the last one.
    assert all(answer.status < 300 for answer in checked.both("PUT", path, "old 9\n"))
    assert checked.lasting_problems() == []


def stored(checked, path):
    """What the shards' API tells of the group of a path without other labels than the job."""
    labels = {"job": path.removeprefix("/metrics/job/"), "instance": ""}
    groups = [group for shard in checked.shards for group in listed(shard)]
    return next(group for group in groups if {"instance": "", **group["labels"]} == labels)


def test_what_cannot_be_read_leaves_no_mark(checked):
    for body in ("m abc\n", "# TYPE m gauge\n# TYPE m gauge\nm 1\n", 'm{x="1",x="2"} 1\n', "m"):
        answers = checked.both("PUT", "/metrics/job/a", body)
        assert [answer.status for answer in answers] == [400, 400], (body, answers)
    holds(lambda: standing(checked.shards) == {}, "no group is made", 0.5)
    assert standing([checked.reference]) == {}


# What is stored, what then disagrees with it, and what is taken beside it.
DISAGREE = {
    "type": ("# TYPE m gauge\nm 1\n", "# TYPE m counter\nm 1\n", "# TYPE m gauge\nm 2\n"),
    "suffix of a stored summary": ("# TYPE m summary\nm_sum 1\n", "m_count 1\n", "m_bucket 1\n"),
    "summary over a stored suffix": ("m_count 1\n", "# TYPE m summary\nm_sum 1\n", "# TYPE m gauge\nm 1\n"),
    "series": ('m{x="1"} 1\n', "m 1\n", "n 1\n"),
}


@pytest.mark.parametrize("what", DISAGREE)
def test_full_refuses_what_disagrees_with_stored_groups_as_soon_as_it_is_ready(checked, what):
    held_body, bad, good = DISAGREE[what]
    apart = Apart(checked)
    holder = f"/metrics/job/{apart.a}"
    other = f"{holder}/x/1"
    checked.both("PUT", holder, held_body)
    for _ in range(2):
        checked.restart()
        answer, expected = checked.both("POST", other, bad)
        assert (answer.status, expected.status) == (400, 400), (answer, expected)
        assert f'job="{apart.a}"' in answer.text and checked.place(holder) in answer.text, answer
        assert [kind_of(found) for found in checked.both("POST", other, good)] == ["taken", "taken"]
    assert checked.lasting_problems() == []


def test_the_check_is_handed_over_and_back_without_a_wrong_decision(lab):
    """By the steps of docs/CHECKING.md: at each of them random pushes are decided as by one Pushgateway."""
    checked = Checked(lab, 1, files=True)
    (shard,), replica = checked.shards, checked.replica
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    chance, made = random.Random(seed), []

    def push():
        for _ in range(20):
            made.append(random_push(chance, len(made)))
            answer, expected = checked.both(*made[-1].sent())
            told = f"{made[-1]}\n  the tier: {answer}\n  one Pushgateway: {expected}{last_requests(checked, made)}"
            assert kind_of(answer) == kind_of(expected), told

    def switch(check):
        replica.change_config(pushes={"check": check})
        assert replica.ask("POST", "/-/reload").status == 200
        push()

    def restart(arguments):
        shard.wait_persisted()
        shard.stop()
        shard.argv = [*(word for word in shard.argv if word != NO_CHECK), *arguments]
        shard.start().wait_ready()
        wait_until(replica.is_ready, "the shard is on the ring")
        push()

    push()
    restart([])
    switch("guard")
    switch("full")
    restart([NO_CHECK])
    wait_until(lambda: set(mismatches(replica).values()) == {0}, "the shard is seen not to check", timeout=30)
    restart([])
    switch("guard")
    assert checked.lasting_problems() == []


def mismatches(replica):
    """{shard: 0 or 1}"""
    samples = replica.metrics().get("shardd_check_mismatch", {})
    return {dict(labels)["shard"]: value for labels, value in samples.items()}


@pytest.mark.parametrize("check,arguments,others", [
    ("full", [NO_CHECK], []), ("guard", [], [NO_CHECK]),
], ids=["full", "guard"])  # fmt: skip
def test_shards_whose_own_check_is_not_as_it_should_be_are_told(lab, check, arguments, others):
    """With `full` they should have none, and with `guard` one."""
    right, wrong = lab.pushgateway(*arguments), lab.pushgateway(*others)
    replica = lab.shardd([right, wrong], pushes={"check": check})
    expected = {right.address.text: 0, wrong.address.text: 1}
    wait_until(lambda: mismatches(replica) == expected, "the metrics tell which shard is not as it should be")
    # Restarted as it should be.
    wrong.stop()
    wrong.argv = [*(word for word in wrong.argv if word != NO_CHECK), *arguments]
    wrong.start().wait_ready()
    wait_until(lambda: mismatches(replica) == dict.fromkeys(expected, 0), "it is as it should be", timeout=30)
