"""Results for people: a table for each scenario, and shardd's targets with what was reached."""

COLUMNS = [
    ("proxy", lambda name, m, best: name),
    ("pushes/s", lambda name, m, best: f"{m['pushes_per_second']:,.0f}"),
    ("CPU µs/push", lambda name, m, best: f"{m['cpu_us_per_push']:.2f}"),
    ("to best peer", lambda name, m, best: f"{m['cpu_us_per_push'] / best:.2f}" if best else "–"),
    ("p50 ms", lambda name, m, best: f"{m['p50_us'] / 1000:.2f}"),
    ("p99 ms", lambda name, m, best: f"{m['p99_us'] / 1000:.2f}"),
    ("p99.9 ms", lambda name, m, best: f"{m['p999_us'] / 1000:.2f}"),
    ("resident MB", lambda name, m, best: f"{m['resident_bytes'] / 1e6:.1f}"),
    ("errors", lambda name, m, best: str(m["errors"])),
    ("busy cores", lambda name, m, best: f"{m['core_busy']:.2f}"),
    ("others' cores", lambda name, m, best: f"{m['others_busy'] + m['stolen']:.2f}"),
]


def table(rows, left=1):
    """Rows of cells as Markdown; all but the first `left` columns to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths))
        padded = [cell.rjust(width) if column >= left else cell.ljust(width) for column, (cell, width) in pairs]
        lines.append(f"| {' | '.join(padded)} |")
    rule = "|".join("-" * (width + 1) + (":" if column >= left else "-") for column, width in enumerate(widths))
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def best_peer(results, figure, better=min):
    """The best median of a figure among shardd's peers, None where there are none."""
    peers = [result["median"][figure] for name, result in results.items() if not name.startswith("shardd")]
    return better(peers, default=None)


def scenario_table(results):
    best = best_peer(results, "cpu_us_per_push")
    rows = [[title for title, _ in COLUMNS]]
    for name, result in results.items():
        rows.append([cell(name, result["median"], best) for _, cell in COLUMNS])
    return table(rows)


def targets_of(scenario, results):
    """(what, figure, limit, whether it was reached) for each target of the scenario, of those that can be told."""
    ours = results["shardd"]["median"]
    best_cpu = best_peer(results, "cpu_us_per_push")
    if scenario.cpu_target and best_cpu:
        ratio = ours["cpu_us_per_push"] / best_cpu
        yield "CPU per push to the best peer's", f"{ratio:.2f}", f"≤ {scenario.cpu_target:.2f}", ratio <= scenario.cpu_target
    cpu = {name: result["median"]["cpu_us_per_push"] for name, result in results.items()}
    if scenario.full_target and best_cpu and "shardd-full" in cpu:
        ratio = cpu["shardd-full"] / best_cpu
        yield "the same with check: full", f"{ratio:.2f}", f"≤ {scenario.full_target:.2f}", ratio <= scenario.full_target
    if "shardd-off" in cpu:
        ratio = cpu["shardd"] / cpu["shardd-off"]
        yield "check: guard to check: off", f"{ratio:.2f}", "≤ 1.05", ratio <= 1.05
    best_rate = best_peer(results, "pushes_per_second", max)
    if scenario.has_rate_target and best_rate:
        rate = ours["pushes_per_second"]
        yield "pushes/s", f"{rate:,.0f}", f"≥ {best_rate:,.0f}", rate >= best_rate
    best_p99 = best_peer(results, "p99_us")
    if scenario.has_equal_load and best_p99:
        yield "p99 ms", f"{ours['p99_us'] / 1000:.2f}", f"≤ {best_p99 / 1000:.2f}", ours["p99_us"] <= best_p99
    if "haproxy" in results:
        haproxy = results["haproxy"]["median"]["resident_bytes"]
        figure, limit = f"{ours['resident_bytes'] / 1e6:.1f}", f"< {haproxy / 1e6:.1f}"
        yield "resident MB, to HAProxy's", figure, limit, ours["resident_bytes"] < haproxy
    yield "errors", str(ours["errors"]), "0", ours["errors"] == 0


def all_targets(scenarios, results):
    found = []
    for scenario in scenarios:
        if "shardd" in results.get(scenario.name, {}):
            for what, figure, limit, reached in targets_of(scenario, results[scenario.name]):
                found.append(
                    {"scenario": scenario.title, "what": what, "figure": figure, "limit": limit, "reached": reached}
                )
    return found


def targets_table(targets):
    rows = [["scenario", "target", "shardd", "wanted", ""]]
    for target in targets:
        verdict = "reached" if target["reached"] else "missed"
        rows.append([target["scenario"], target["what"], target["figure"], target["limit"], verdict])
    return table(rows, left=5)
