"""Random traffic through replicas while shards come, go and fail, against one Pushgateway that gets the same.

SEED repeats a run's requests; STEPS="add d; wait 1; kill a" runs those steps, and STEPS=random steps at random, with one
thing down at a time or as many as FAULTS says. A run that fails is made shorter: parts of its steps are run by themselves
until none can be left out or SHRINK_SECONDS are over.

What such runs have found, and what to look for when one fails: a group that was deleted and pushed again while it was moved had
families of before; what one shard held took the place of something newer on a shard that could not be listed yet; what a stand-in
had just got was deleted in its own restart; what a shard had from its file looked newer than its owner's; a drained shard was not
empty, as a replica went by a ring of before; a shard got pushes before it was put right; what a shard that hung did late won.
"""

import os
import random
import subprocess
import time

import pytest
from harness.lab import Lab
from harness.shrinking import shrunk
from harness.world import FIRST, NAMES, PERSISTENT, World

STEPS = 14
# Shards, Consul or replicas that are down at a time. What more than one may cost is in docs/RECONCILING.md.
FAULTS = int(os.environ.get("FAULTS") or 1)
SHRINK_SECONDS = int(os.environ.get("SHRINK_SECONDS") or 200)
MOST_GROUPS_TOLD = 5
LAST_REQUESTS = 12
LOG_SIZE = 60000


# Every kind of step, so that each run has them all; STEPS=random has them in any order, some closer together.
EVERY_KIND = (
    "add d; wait 2; kill c; wait 2; start c; wait 2; drain a; wait 2; stop-consul; wait 1; start-consul; wait 2;"
    " kill-replica 1; wait 1; start-replica 1; wait 2; stop c; wait 0.5; start c; wait 1; restart c; wait 1; restart c;"
    " wait 2; lose b; wait 2; start b; wait 2; hang c; wait 5; start c; wait 2"
)
EVERY_KIND_WITHOUT_CONSUL = (
    "add d; wait 2; kill c; wait 3; start c; wait 2; drain a; wait 2; stop c; wait 0.5; start c; wait 1; restart c; wait 1;"
    " hang c; wait 6; start c; wait 2; lose b; wait 3; start b; wait 2"
)


class Script:
    """Steps at random, all of which make sense where they stand."""

    def __init__(self, chance, has_consul):
        self.chance = chance
        self.has_consul = has_consul
        self.members = set(FIRST)
        self.down = set()
        self.is_consul_up = True
        self.killed_replica = None
        self.used = []
        self.steps = []

    def possible(self):
        running = sorted(self.members - self.down)
        spare = sorted(set(NAMES) - self.members)
        faults = bool(self.down) + (not self.is_consul_up) + (self.killed_replica is not None)
        may_fail = faults < FAULTS
        if self.is_consul_up:
            if may_fail and self.has_consul:
                yield "stop-consul", ""
            if len(self.members) < 6:
                yield "add", self.chance.choice(spare)
            if len(running) > 2:
                yield "drain", self.chance.choice(running)
        else:
            yield "start-consul", ""
        if self.killed_replica is None and may_fail and self.has_consul:
            yield "kill-replica", self.chance.choice("01")
        elif self.killed_replica is not None and self.is_consul_up:
            # Only Consul can tell it by which rings groups may still lie, and which shards are away.
            yield "start-replica", self.killed_replica
        if self.down:
            yield "start", self.chance.choice(sorted(self.down))
        elif len(running) > 2 and may_fail:
            name = self.chance.choice(running)
            yield "hang", name
            yield from [("kill", name), ("stop", name), ("restart", name)] if name in PERSISTENT else [("lose", name)]

    def add(self):
        choices = list(self.possible())
        # Those that came least often so far.
        fewest = min(self.used.count(action) for action, _ in choices)
        action, name = self.chance.choice([choice for choice in choices if self.used.count(choice[0]) == fewest])
        self.used.append(action)
        if action == "lose":
            self.is_consul_up, self.killed_replica = True, None
        self.members |= {name} if action == "add" else set()
        self.members -= {name} if action == "drain" else set()
        self.down |= {name} if action in ("kill", "stop", "lose", "hang") else set()
        self.down -= {name} if action == "start" else set()
        self.is_consul_up = action == "start-consul" or self.is_consul_up and action != "stop-consul"
        self.killed_replica = {"kill-replica": name, "start-replica": None}.get(action, self.killed_replica)
        self.steps += [f"{action} {name}".strip(), f"wait {self.chance.uniform(0.1, 2.5):.1f}"]


def random_script(seed, has_consul):
    script = Script(random.Random(f"{seed}/script"), has_consul)
    for _ in range(STEPS):
        script.add()
    return script.steps


def run(directory, seed, steps, has_consul, figures=None):
    """None, or what was wrong, as text."""
    directory.mkdir()
    lab = Lab(directory)
    world = None
    try:
        world = World(lab, seed, has_consul=has_consul)
        world.run(steps)
        if figures is not None:
            figures.append(f"{world.traffic.requests} requests, {world.traffic.repeated} repeated; {told(world.log)}")
        return None
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return f"{error}\n{history(world, str(error))}\n{endings(lab)}"
    finally:
        lab.close()


def history(world, error):
    """The steps, and the last requests on the groups that the error names."""
    if world is None:
        return ""
    names = {gateway.address.text: name for name, gateway in world.gateways.items()}
    lines = [
        "Shards: " + ", ".join(f"{name} is {address}" for address, name in sorted(names.items(), key=lambda n: n[1]))
    ]
    lines += ["Steps, with the seconds at which each began:", *world.log]
    groups = [group for group in world.traffic.history if f"\n{group}: " in f"\n{error}"]
    for group in groups[:MOST_GROUPS_TOLD]:
        lines += [f"Requests on {group}:", *world.traffic.history[group][-LAST_REQUESTS:]]
    return "\n".join(lines)


def endings(lab):
    return "\n".join(f"--- {name}\n{log}" for name, log in lab.logs(LOG_SIZE) if "shardd" in name)


def told(steps):
    return "; ".join(" ".join(step.split()) for step in steps)


@pytest.mark.seconds(600)
@pytest.mark.parametrize("has_consul", [True, False], ids=["consul", "static"])
def test_any_sequence_ends_as_with_one_pushgateway(tmp_path, has_consul):
    """Without Consul there is one replica: several would not know of each other's hints."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    text = os.environ.get("STEPS") or (EVERY_KIND if has_consul else EVERY_KIND_WITHOUT_CONSUL)
    given = [step.strip() for step in text.split(";") if step.strip()]
    steps = random_script(seed, has_consul) if text == "random" else given
    print(f"SEED={seed}\nSTEPS={told(steps)!r}")
    figures = []
    problem = run(tmp_path / "whole", seed, steps, has_consul, figures)
    if problem is None:
        print(*figures)
        return
    print(f"{problem}\n\nNow with fewer steps:")
    problems = [problem]

    def fails(shorter):
        found = run(tmp_path / f"part-{len(problems)}", seed, shorter, has_consul)
        print(f"{'fails' if found else 'passes'}: {told(shorter)}")
        problems.append(found)
        return found is not None

    least = shrunk(steps, fails, time.monotonic() + SHRINK_SECONDS)
    last = [found for found in problems if found][-1]
    pytest.fail(f"SEED={seed} STEPS={told(least)!r}\n{last}", pytrace=False)
