"""Runs `shardd reconcile` and `shardd drain`, and waits until replicas have reconciled by themselves."""

import time
from typing import NamedTuple

from . import scrape
from .net import wait_until
from .shardd import run

# What shardd's own runs need to be quick in a test; every field of the section, for it is replaced as a whole.
OFTEN = {"enabled": True, "settle": "1s", "interval": "2s", "overlap": "1s"}


class Move(NamedTuple):
    group: str
    origin: str
    target: str
    reason: str


class Reconciled(NamedTuple):
    code: int
    moves: list
    errors: str


def reconcile(replica, *arguments, timeout=60):
    """One run by the command line, with the replica's file."""
    result = run("reconcile", f"--config.file={replica.config_path}", *arguments, timeout=timeout)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert all(len(line) == 4 for line in lines), result
    return Reconciled(result.returncode, [Move(*line) for line in lines], result.stderr)


def drain(replica, shard, timeout=60):
    return run("drain", f"--config.file={replica.config_path}", shard.address.text, timeout=timeout)


def owners(replica, shards, paths):
    """{path: address of the shard that owns it} on the ring of just these shards."""
    addresses = ",".join(shard.address.text for shard in shards)
    result = run("locate", f"--config.file={replica.config_path}", "--shards", addresses, *paths)
    assert result.returncode == 0, result
    found = [line.split("\t")[3] for line in result.stdout.splitlines()]
    return dict(zip(paths, found, strict=True))


def ranges(replica, paths):
    """{path: in which of the 1,024 ranges of the hash it is}; groups of one range move together."""
    result = run("locate", f"--config.file={replica.config_path}", "--shards", "127.0.0.1:1", *paths)
    assert result.returncode == 0, result
    found = [int(line.split("\t")[2], 16) >> 22 for line in result.stdout.splitlines()]
    return dict(zip(paths, found, strict=True))


def misplacements(replica, shards, paths):
    """For each path two shards: one that does not own it, and the owner."""
    found = {}
    for number, (path, owner) in enumerate(owners(replica, shards, paths).items()):
        others = [shard for shard in shards if shard.address.text != owner]
        found[path] = others[number % len(others)], next(shard for shard in shards if shard.address.text == owner)
    return found


def is_reconciled_since(replicas, moment):
    """Whether a run of any replica succeeded that ended after a moment, by the machine's clock."""
    last = max(replica.metric("shardd_reconcile_last_success_timestamp_seconds") for replica in replicas)
    return last > moment


def wait_at_rest(*replicas, timeout=30):
    """Waits until nothing is moving, nor has been for longer than a change takes to be planned."""
    rests_since = time.monotonic()

    def rests():
        nonlocal rests_since
        if any(replica.metric("shardd_handover_step") != 0 for replica in replicas):
            rests_since = time.monotonic()
        return time.monotonic() - rests_since > 2.5

    wait_until(rests, "nothing moves", timeout, every=0.1)


def wait_reconciled(replicas, shards, timeout=30):
    """Waits until the replicas see just these shards, a run has succeeded since, and every group is there once."""
    texts = sorted(shard.address.text for shard in shards)
    wait_until(lambda: all(replica.shards() == texts for replica in replicas), f"the rings are {texts}", timeout)
    # A run that was under way when the last change came need not have seen it.
    for _ in range(2):
        moment = time.time()
        wait_until(lambda: is_reconciled_since(replicas, moment), "a run has succeeded", timeout)
    wait_until(lambda: not doubled(shards), "no group is on two shards", timeout, every=0.2)


def doubled(shards):
    return {group: at for group, at in scrape.places(shards).items() if len(at) > 1}
