"""The load: wrk with push.lua, and what one round of it tells."""

import dataclasses
import json
import subprocess

from . import places
from .processes import BenchmarkError


@dataclasses.dataclass(frozen=True)
class Load:
    connections: int = 64
    body_bytes: int = 200
    keep_alive: bool = True
    # Milliseconds that a connection rests between its pushes, chosen at random: an equal load for all.
    delay: tuple = (0, 0)
    groups: int = 1000
    threads: int = 1
    # Pushes that a connection sends at a time, without waiting for their answers.
    pipelined: int = 1


def run_wrk(url, load, seconds, cores):
    """One round: wrk's own figures as a dictionary, latencies in microseconds."""
    script = places.BENCHMARKS / "load/push.lua"
    command = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", cores, "wrk", f"-t{load.threads}"]
    command += [f"-c{load.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url, "--"]
    command += [load.groups, load.body_bytes, int(load.keep_alive), *load.delay, load.pipelined]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 60)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode != 0 or len(lines) != 1:
        raise BenchmarkError(f"wrk failed on {url}:\n{result.stdout}{result.stderr}")
    return json.loads(lines[0])
