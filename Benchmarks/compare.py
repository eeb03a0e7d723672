#!/usr/bin/env python3
"""Compares two revisions of shardd, the working tree's with another, their rounds in turn: make bench-compare BASE=rev.

Each revision is built in a git worktree of its own under .build/bench, once; the binaries are kept by commit.
"""

import argparse
import json
import statistics
import subprocess
import sys

from harness import places
from harness.measure import run_scenario
from harness.processes import BenchmarkError
from harness.report import table
from harness.scenarios import SCENARIOS

CORE = ["keepalive-1", "keepalive-8", "keepalive-64", "keepalive-512", "new-connections", "body-16k", "body-200k"]
BUILD = ["swift", "build", "-c", "release", "--product", "shardd", "--static-swift-stdlib"]


def git(*arguments):
    result = subprocess.run(["git", *map(str, arguments)], cwd=places.ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchmarkError(f"git {arguments[0]}: {result.stderr.strip()}")
    return result.stdout.strip()


def binary_of(revision):
    """shardd of a revision, built as the Makefile does; the worktree goes when it is built, the compiler's files stay."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    kept = places.WORK / f"revisions/shardd-{commit[:12]}"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    tree, scratch = places.WORK / "revisions/tree", places.WORK / "revisions/build"
    if tree.exists():
        git("worktree", "remove", "--force", tree)
    git("worktree", "add", "--detach", "--quiet", tree, commit)
    try:
        print(f"building {commit[:12]}", flush=True)
        if subprocess.run([*BUILD, "--scratch-path", scratch], cwd=tree).returncode != 0:
            raise BenchmarkError(f"{revision} does not build")
        (scratch / "release/shardd").replace(kept)
    finally:
        git("worktree", "remove", "--force", tree)
    return kept


def paired(results, figure):
    """head's figure over base's in each round; the median, the least and the most."""
    pairs = zip(results["head"]["rounds"], results["base"]["rounds"])
    ratios = [head[figure] / base[figure] for head, base in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def row(scenario, results):
    base, head = results["base"]["median"], results["head"]["median"]
    ratio, least, most = paired(results, "cpu_us_per_push")
    rate, _, _ = paired(results, "pushes_per_second")
    return [
        scenario.title,
        f"{base['cpu_us_per_push']:.2f}",
        f"{head['cpu_us_per_push']:.2f}",
        f"{ratio:.3f}",
        f"{least:.2f}–{most:.2f}",
        f"{rate:.3f}",
        f"{base['p99_us'] / 1000:.2f}",
        f"{head['p99_us'] / 1000:.2f}",
        f"{base['resident_bytes'] / 1e6:.1f}",
        f"{head['resident_bytes'] / 1e6:.1f}",
        f"{base['errors']}, {head['errors']}",
    ]


HEADINGS = ["scenario", "base: CPU µs/push", "head", "head/base", "in a round", "pushes/s", "base: p99 ms", "head"]
HEADINGS += ["base: MB", "head", "errors"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the revision to compare with")
    parser.add_argument("--scenarios", default=",".join(CORE))
    parser.add_argument("--seconds", type=int, default=2, help="of each round")
    parser.add_argument("--rounds", type=int, default=7, help="of each scenario")
    options = parser.parse_args()
    wanted = options.scenarios.replace(",", " ").split()
    unknown = set(wanted) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    contestants = [("base", binary_of(options.base)), ("head", places.SHARDD)]
    rows, kept = [HEADINGS], {}
    for scenario in SCENARIOS:
        if scenario.name in wanted:
            results = run_scenario(scenario, contestants, options.seconds, options.rounds)
            rows.append(row(scenario, results))
            kept[scenario.name] = results
            print(f"{scenario.title}: head/base {rows[-1][3]}", flush=True)
    (places.WORK / "compare.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-compare: {error}")
