#!/usr/bin/env python3
"""Compares shardd with nginx, HAProxy and Envoy at the same job: see docs/PERFORMANCE.md; make bench, make bench-quick."""

import argparse
import json
import sys


from harness import places
from harness.measure import run_scenario
from harness.processes import BenchmarkError
from harness.report import scenario_table
from harness.scenarios import ALL, QUICK, SCENARIOS


def names(text):
    return text.replace(",", " ").split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core scenarios, about a minute")
    parser.add_argument("--scenarios", type=names, help=f"of {', '.join(s.name for s in SCENARIOS)}")
    parser.add_argument("--proxies", type=names, default=list(ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument("--seconds", type=int, help="of each round")
    parser.add_argument("--rounds", type=int)
    return parser.parse_args()


def main():
    options = arguments()
    wanted = options.scenarios or (QUICK if options.quick else [scenario.name for scenario in SCENARIOS])
    seconds = options.seconds or (1 if options.quick else 4)
    rounds = options.rounds or (3 if options.quick else 5)
    places.WORK.mkdir(parents=True, exist_ok=True)
    results = {}
    for scenario in SCENARIOS:
        if scenario.name in wanted:
            who = [name for name in scenario.proxies if name in options.proxies]
            results[scenario.name] = run_scenario(scenario, who, seconds, rounds)
            print(f"\n## {scenario.title}\n\n{scenario_table(results[scenario.name])}", flush=True)
    (places.WORK / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
