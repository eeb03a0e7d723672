#!/usr/bin/env python3
"""How long shardd's loop is held up when the membership changes; make bench-stalls.

strace tells when the loop has begun to wait and when it was woken: what lies between a waking and the next waiting is a
turn, in which no push gets on. No other system call is traced, so that a turn is hardly slowed down. shardd stands idle:
each turn is that of a change, or of a probe of a shard, not of pushes.
"""

import argparse
import re
import sys
import time

from harness import places
from harness.companions import Churn, start_stub
from harness.measure import stopping
from harness.processes import BenchmarkError
from harness.proxies import Proxy, Setting
from harness.report import table
from harness.scenarios import LOAD_CORES, PROXY_CORES

PORT = places.FIRST_PROXY_PORT + 40
# A line as "4711 1764000000.123456 epoll_wait(3, …) = 1 <0.000012>".
WAIT = re.compile(r"^(\d+) (\d+\.\d+) epoll_p?wait.* = -?\d+.*<(\d+\.\d+)>$")
# The tracer is a process of its own, and lets all other system calls pass without a stop.
STRACE = "exec strace -D -f --seccomp-bpf -qq -ttt -T -e trace=epoll_wait,epoll_pwait -o {log} {shardd} \"$@\"\n"


def traced(work):
    """A program that is shardd under strace, and where the trace goes."""
    log, program = work / "epoll.log", work / "traced-shardd"
    program.write_text("#!/bin/sh\n" + STRACE.format(log=log, shardd=places.SHARDD))
    program.chmod(0o755)
    return program, log


def turns(log, pid, since):
    """How long each turn of the loop, which is the process's first thread, took since a moment, in seconds."""
    found = [match.groups() for match in map(WAIT.match, log.read_text().splitlines()) if match]
    waits = [(float(at), float(lasted)) for thread, at, lasted in found if int(thread) == pid and float(at) >= since]
    if len(waits) < 2:
        raise BenchmarkError("strace saw no turn")
    return [after[0] - (before[0] + before[1]) for before, after in zip(waits, waits[1:])]


def row(count, seconds):
    with stopping() as running:
        running.append(start_stub(count, LOAD_CORES))
        program, log = traced(places.WORK)
        proxy = Proxy("shardd", Setting(shards=count), PROXY_CORES, PORT, program)
        running.append(proxy.process)
        time.sleep(2)
        since = time.time()
        time.sleep(seconds)
        at_rest = turns(log, proxy.process.pid, since)
        churn = Churn(proxy)
        running.append(churn)
        since = time.time()
        time.sleep(seconds)
        churn.check()
        longest = sorted(turns(log, proxy.process.pid, since), reverse=True)
    cells = [max(at_rest), longest[0], longest[churn.changes // 2]]
    return [str(count), str(churn.changes), *(f"{1000 * cell:.2f}" for cell in cells)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default="3,30,300,1000")
    parser.add_argument("--seconds", type=int, default=10, help="with changes, one each second; and as many without")
    options = parser.parse_args()
    places.WORK.mkdir(parents=True, exist_ok=True)
    headings = ["shards", "changes", "longest turn at rest, ms", "longest with changes, ms", "median of the longest, ms"]
    print(table([headings, *(row(int(count), options.seconds) for count in options.shards.split(","))]))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-stalls: {error}")
