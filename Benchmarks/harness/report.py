"""Results as a table for people."""

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
    ("core busy", lambda name, m, best: f"{m['cpu_share']:.0%}"),
]


def table(rows):
    """Rows of cells as Markdown; all but the first column to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    rule = ["-" * width + (":" if index else "-") for index, width in enumerate(widths)]
    lines.insert(1, "|" + "|".join(f"-{mark}" if not index else f"-{mark}" for index, mark in enumerate(rule)) + "|")
    return "\n".join(lines)


def scenario_table(results):
    peers = [result["median"]["cpu_us_per_push"] for name, result in results.items() if name != "shardd"]
    best = min(peers, default=None)
    rows = [[title for title, _ in COLUMNS]]
    for name, result in results.items():
        rows.append([cell(name, result["median"], best) for _, cell in COLUMNS])
    return table(rows)
