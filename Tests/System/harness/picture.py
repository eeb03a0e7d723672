"""The picture of docs/RECONCILING.md, of what test_scale.py has seen: how many series were wrong in each second.

    make picture

No background, and greys that read on white as on black: the page behind may be either.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[3]
SEEN = ROOT / ".build/scale"
PICTURE = ROOT / "docs/scaling.svg"
PANELS = (("off", "Groups stay where they are (reconcile.enabled: false)"), ("on", "shardd moves them"))
COLOURS = {"stale": "#d1242f", "missing": "#8250df"}
MEANINGS = {"stale": "an older value than had been pushed", "missing": "no value any more"}
TEXT, LINE = "#6e7781", "#8b949e"
WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 760, 56, 24, 74, 150, 64


def wrong_by_second(verdict, began, ended, *, applied_within, longest_gap):
    """How many series were stale, or missing, in each second of a Prometheus's time."""
    seconds = range(int(ended - began))
    stale = [set() for _ in seconds]
    for sample in verdict.stale:
        if sample.age > applied_within and 0 <= sample.moment - began < len(seconds):
            stale[int(sample.moment - began)].add((sample.name, sample.group))
    missing = [
        sum(
            moments[0] < began + second and not any(0 <= began + second - moment < longest_gap for moment in moments)
            for moments in verdict.moments.values()
        )
        for second in seconds
    ]
    return {"stale": [len(series) for series in stale], "missing": missing}


def keep(name, series, steps, wrong):
    """What one test has seen: of how many series, what was done when, in seconds, and what was wrong."""
    SEEN.mkdir(parents=True, exist_ok=True)
    (SEEN / f"{name}.json").write_text(json.dumps({"series": series, "steps": steps, "wrong": wrong}))


def _text(x, y, text, size=11, anchor="start", weight="normal"):
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{TEXT}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


def _line(x1, y1, x2, y2, dashes=""):
    dashes = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LINE}"{dashes}/>'


def _panel(title, seen, top, seconds, most):
    across, up, bottom = (WIDTH - LEFT - RIGHT) / seconds, HEIGHT / most, top + HEIGHT
    parts = [_text(LEFT, top - 24, title, 13, weight="bold")]
    parts += [_line(LEFT, bottom, WIDTH - RIGHT, bottom), _line(LEFT, top, LEFT, bottom)]
    parts += [_text(LEFT - 6, top + 9, most, anchor="end"), _text(LEFT - 6, bottom, 0, anchor="end")]
    for kind, counts in seen["wrong"].items():
        for second, count in enumerate(counts):
            below = seen["wrong"]["stale"][second] if kind == "missing" else 0
            x, y, height = LEFT + second * across, bottom - (below + count) * up, count * up
            if count:
                size = f'width="{across - 1:.1f}" height="{height:.1f}"'
                parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{COLOURS[kind]}"/>')
    for what, second in seen["steps"]:
        x = LEFT + second * across
        parts += [_line(x, top - 8, x, bottom, "3 3"), _text(x + 4, top - 2, what)]
    worst = f"worst second: {_worst(seen)} of {seen['series']} series wrong"
    return [*parts, _text(WIDTH - RIGHT, top - 24, worst, anchor="end")]


def _worst(seen):
    return max(map(sum, zip(*seen["wrong"].values())))


def picture(panels):
    """The SVG of what the tests have seen, one panel below the other."""
    seconds = max(len(seen["wrong"]["stale"]) for _, seen in panels)
    most = -(-max(_worst(seen) for _, seen in panels) // 50) * 50
    parts = [_text(LEFT, 18, "Series that a Prometheus has wrong, in each second", 14, weight="bold")]
    x = LEFT
    for kind, meaning in MEANINGS.items():
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLOURS[kind]}"/>')
        parts.append(_text(x + 15, 37, meaning))
        x += 240
    top = TOP + 10
    for title, seen in panels:
        parts += _panel(title, seen, top, seconds, most)
        top += HEIGHT + GAP
    height = top - GAP + 30
    for second in range(0, seconds, 10):
        x = LEFT + second * (WIDTH - LEFT - RIGHT) / seconds
        parts.append(_text(x, height - 12, f"{second} s", anchor="middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif">\n<title>Series wrong while shards come and go</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main():
    files = [(title, SEEN / f"{name}.json") for name, title in PANELS]
    missing = [str(file) for _, file in files if not file.exists()]
    if missing:
        sys.exit(f"picture: the tests have not left {', '.join(missing)}")
    PICTURE.write_text(picture([(title, json.loads(file.read_text())) for title, file in files]))


if __name__ == "__main__":
    main()
