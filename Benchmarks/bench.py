#!/usr/bin/env python3
"""Compares shardd with nginx, HAProxy and Envoy at the same job: see docs/PERFORMANCE.md; make bench, make bench-quick."""

import argparse
import json
import os
import sys

from harness import places
from harness.chart import chart
from harness.machine import machine, versions
from harness.measure import run_scenario
from harness.processes import BenchmarkError
from harness.proxies import CHECKS
from harness.report import all_targets, scenario_table, targets_table
from harness.scenarios import ALL, QUICK, SCENARIOS

EVERY = [*ALL, *CHECKS]


def names(text):
    return text.replace(",", " ").split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core scenarios, about a minute")
    parser.add_argument("--scenarios", type=names, help=f"of {', '.join(scenario.name for scenario in SCENARIOS)}")
    parser.add_argument("--proxies", type=names, default=EVERY, help=f"of {', '.join(EVERY)}")
    parser.add_argument("--seconds", type=int, help="of each round")
    parser.add_argument("--rounds", type=int, help="of each scenario")
    options = parser.parse_args()
    options.scenarios = options.scenarios or (QUICK if options.quick else [scenario.name for scenario in SCENARIOS])
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.rounds = options.rounds or (3 if options.quick else 5)
    unknown = set(options.scenarios) - {scenario.name for scenario in SCENARIOS} | set(options.proxies) - set(EVERY)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    is_whole = len(options.scenarios) == len(SCENARIOS) and len(options.proxies) == len(EVERY) and not options.quick
    if is_recording() and not is_whole:
        parser.error("RECORD=1 keeps whole runs only")
    return options


def is_recording():
    return os.environ.get("RECORD") == "1"


def report(document):
    """The tables of a run, in Markdown."""
    machine, versions = document["machine"], document["versions"]
    heading = f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}; "
    heading += ", ".join(f"{name} {version}" for name, version in versions.items())
    heading += f"; medians of {document['rounds']} rounds of {document['seconds']} s."
    parts = ["# What make bench found", heading, "## Targets", targets_table(document["targets"])]
    for scenario in document["scenarios"].values():
        more = f" ({scenario['rounds']} rounds)" if scenario["rounds"] != document["rounds"] else ""
        parts += [f"## {scenario['title']}{more}", scenario_table(scenario["proxies"])]
    return "\n\n".join(parts) + "\n"


def write(document, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(report(document))
    (folder / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (folder / "chart.svg").write_text(chart(document))
    print(f"\nreport.md, results.json and chart.svg are in {folder.relative_to(places.ROOT)}")


def without_rounds(results):
    return {name: {"median": result["median"]} for name, result in results.items()}


def main():
    options = arguments()
    places.WORK.mkdir(parents=True, exist_ok=True)
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenarios]
    results, all_rounds = {}, {}
    for scenario in scenarios:
        contestants = [(name, None) for name in scenario.proxies if name in options.proxies]
        if not contestants:
            continue
        rounds = options.rounds * (1 if options.quick else scenario.more_rounds)
        all_rounds[scenario.name] = rounds
        results[scenario.name] = run_scenario(scenario, contestants, options.seconds, rounds)
        print(f"\n## {scenario.title}\n\n{scenario_table(results[scenario.name])}", flush=True)
    document = {
        "machine": machine(),
        "versions": versions([name for name in options.proxies if name in ALL]),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "targets": all_targets(scenarios, results),
        "scenarios": {
            s.name: {"title": s.title, "rounds": all_rounds[s.name], "proxies": results[s.name]}
            for s in scenarios
            if s.name in results
        },
    }
    print(f"\n## Targets\n\n{targets_table(document['targets'])}")
    write(document, places.WORK)
    if is_recording():
        # What is checked in is what a whole run found, without its rounds, and changes only when asked for.
        for scenario in document["scenarios"].values():
            scenario["proxies"] = without_rounds(scenario["proxies"])
        write(document, places.RECORDED)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
