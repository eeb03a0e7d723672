#!/usr/bin/env python3
"""Fails where a push costs more than it did: instructions, allocations and system calls, counted, not timed; make bench-gate.

The figures are the difference between runs of N and of 2N pushes, so that starting and stopping cancel out; the limits
are in gate.json, which RECORD=1 writes anew, with some room.
"""

import json
import mmap
import os
import re
import struct
import subprocess
import sys

from harness import lockstep, places
from harness.native import compile_program
from harness.processes import BenchmarkError, Process, require_free
from harness.report import table

LIMITS = places.BENCHMARKS / "gate.json"
# Pushes at once, bytes of a body, whether connections are kept, pushes (N) under callgrind, pushes.check.
CASES = {
    "16 connections": (16, 200, True, 640, "guard"),
    "1 connection": (1, 200, True, 640, "guard"),
    "a new connection per push": (16, 200, False, 320, "guard"),
    "bodies of 16 kB": (8, 16_000, True, 320, "guard"),
    "pushes.check: off": (16, 200, True, 640, "off"),
    "pushes.check: full": (16, 200, True, 640, "full"),
    "pushes.check: full, bodies of 16 kB": (8, 16_000, True, 320, "full"),
}
# What the limits leave to chance and to small changes: the compiler's for instructions, the reconciler's thread's, which
# wakes up now and then, for system calls.
ROOM = {"instructions": 1.03, "allocations": 1.01, "system calls": 1.05, "blocks kept": 1.0}
# Of allocations and of a growth of memory, what comes from timers that fire in one run and not in the other.
SLACK = {"allocations": 0.05, "blocks kept": 0.03}
# Calls are counted at full speed, so over more pushes: what timers add weighs less.
COUNTED_RUNS = 30


def run(command, environment, case, pushes, at_end=lambda: None):
    """Runs shardd through `pushes` pushes of a case and stops it; what at_end tells just before."""
    batch, body_bytes, keep_alive, _, check = case
    work = places.WORK / "gate"
    (work / "shardd.yml").write_text(lockstep.CONFIGURATION + f"pushes: {{check: {check}}}\n")
    require_free(*lockstep.CLIENT_ADDRESS, "shardd")
    shards = lockstep.Shards()
    full = [*command, f"--config.file={work / 'shardd.yml'}"]
    process = Process("shardd", full, "0-1", work / "output.log", environment)
    try:
        step = lockstep.Lockstep(process, shards)
        step.wait_until_ready()
        # With `pushes.check: full` names that are new wait for a listing of the shards: from here on they are known.
        step.run_batch(1, body_bytes, keep_alive)
        for _ in range(pushes // batch):
            step.run_batch(batch, body_bytes, keep_alive)
        told = at_end()
        process.check_alive()
        return told
    finally:
        process.stop(seconds=30)
        shards.close()


def instructions(binary, case, pushes):
    output = places.WORK / "gate/callgrind.out"
    output.unlink(missing_ok=True)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", binary]
    run(command, {}, case, pushes)
    match = re.search(r"^(?:totals|summary): (\d+)", output.read_text(), re.MULTILINE)
    if not match:
        raise BenchmarkError(f"callgrind wrote no totals:\n{(places.WORK / 'gate/output.log').read_text()}")
    return int(match.group(1))


def calls(case, pushes):
    """Allocations, frees and system calls of a whole run."""
    library = compile_program("count_calls", "-shared", "-fPIC")
    file = places.WORK / "gate/counts"
    file.write_bytes(bytes(24))
    environment = {"LD_PRELOAD": str(library), "COUNT_CALLS_FILE": str(file)}
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 24) as mapped:
        return run([places.SHARDD], environment, case, pushes, lambda: struct.unpack("3Q", mapped[:24]))


def stripped_binary():
    """valgrind 3.19 cannot read the debug information that Swift 6.3 writes."""
    binary = places.WORK / "gate/shardd-stripped"
    subprocess.run(["objcopy", "--strip-debug", places.SHARDD, binary], check=True)
    return binary


def figures(binary, case):
    pushes = case[3]
    once, twice = instructions(binary, case, pushes), instructions(binary, case, 2 * pushes)
    counted = COUNTED_RUNS * pushes
    before, after = calls(case, counted), calls(case, 2 * counted)
    allocations, frees, system_calls = [(late - early) / counted for early, late in zip(before, after)]
    return {
        "instructions": round((twice - once) / pushes),
        "allocations": round(allocations, 2),
        "system calls": round(system_calls, 2),
        "blocks kept": round(max(allocations - frees, 0), 2),
    }


def limits_for(found):
    limits = {}
    for name, figure in found.items():
        limit = max(figure, 0) * ROOM[name] + SLACK.get(name, 0)
        limits[name] = round(limit) if name == "instructions" else round(limit, 2)
    return limits


def verdict(found, allowed):
    over = [name for name, figure in found.items() if figure > allowed[name]]
    if over:
        return f"more {', '.join(over)}"
    is_under = found["instructions"] < allowed["instructions"] * 0.9
    return "within; RECORD=1 lowers the limit" if is_under else "within"


def main():
    (places.WORK / "gate").mkdir(parents=True, exist_ok=True)
    binary = stripped_binary()
    is_recording = os.environ.get("RECORD") == "1"
    limits = {} if is_recording else json.loads(LIMITS.read_text())
    rows, is_over, recorded = [["a push", *ROOM, ""]], False, {}
    for name, case in CASES.items():
        found = figures(binary, case)
        recorded[name] = limits_for(found)
        allowed = recorded[name] if is_recording else limits[name]
        is_over = is_over or verdict(found, allowed).startswith("more")
        cells = [f"{figure:,} of {allowed[what]:,}" for what, figure in found.items()]
        rows.append([name, *cells, verdict(found, allowed)])
    print(table(rows))
    if is_recording:
        LIMITS.write_text(json.dumps(recorded, indent=2) + "\n")
    if is_over:
        sys.exit("bench-gate: a push costs more than Benchmarks/gate.json allows")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-gate: {error}")
