#!/usr/bin/env python3
"""Compares shardd with nginx, HAProxy and Envoy at the same job: see docs/PERFORMANCE.md; make bench, make bench-quick."""

import argparse
import json
import os
import shutil
import sys

from harness import places
from harness.chart import chart
from harness.machine import machine, versions
from harness.measure import run_scenario
from harness.processes import BenchmarkError
from harness.report import all_targets, scenario_table, targets_table
from harness.scenarios import ALL, QUICK, SCENARIOS


def names(text):
    return text.replace(",", " ").split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core scenarios, about a minute")
    parser.add_argument("--scenarios", type=names, help=f"of {', '.join(scenario.name for scenario in SCENARIOS)}")
    parser.add_argument("--proxies", type=names, default=list(ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument("--seconds", type=int, help="of each round")
    parser.add_argument("--rounds", type=int, help="of each scenario")
    options = parser.parse_args()
    options.scenarios = options.scenarios or (QUICK if options.quick else [scenario.name for scenario in SCENARIOS])
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.rounds = options.rounds or (3 if options.quick else 5)
    unknown = set(options.scenarios) - {scenario.name for scenario in SCENARIOS} | set(options.proxies) - set(ALL)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def record():
    """What is checked in is what a whole run found, and changes only when asked for."""
    places.RECORDED.mkdir(exist_ok=True)
    for file in ("results.json", "chart.svg"):
        shutil.copyfile(places.WORK / file, places.RECORDED / file)
    print(f"recorded in {places.RECORDED.relative_to(places.ROOT)}")


def main():
    options = arguments()
    places.WORK.mkdir(parents=True, exist_ok=True)
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenarios]
    results = {}
    for scenario in scenarios:
        contestants = [(name, None) for name in scenario.proxies if name in options.proxies]
        if not contestants:
            continue
        results[scenario.name] = run_scenario(scenario, contestants, options.seconds, options.rounds)
        print(f"\n### {scenario.title}\n\n{scenario_table(results[scenario.name])}", flush=True)
    targets = all_targets(scenarios, results)
    document = {
        "machine": machine(),
        "versions": versions(options.proxies),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "targets": targets,
        "scenarios": {s.name: {"title": s.title, "proxies": results[s.name]} for s in scenarios if s.name in results},
    }
    (places.WORK / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (places.WORK / "chart.svg").write_text(chart(document))
    print(f"\n### Targets\n\n{targets_table(targets)}")
    print(f"\nresults.json and chart.svg are in {places.WORK.relative_to(places.ROOT)}")
    if os.environ.get("RECORD") == "1":
        record()


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
