"""The chart of the README: CPU per push of each proxy, as a multiple of the best peer's, in SVG.

No background, and one grey that reads on white as on black: the page behind may be either.
"""

import html

SHOWN = (
    ("keepalive-1", "1 connection"),
    ("keepalive-8", "8 connections"),
    ("keepalive-64", "64 connections"),
    ("keepalive-512", "512 connections"),
    ("new-connections", "new connection per push"),
    ("body-16k", "16 kB bodies"),
    ("body-200k", "200 kB bodies"),
)
COLOURS = {"shardd": "#2f81f7", "nginx": "#3fa34d", "haproxy": "#c77d0a", "envoy": "#b35fc4"}
NAMES = {"shardd": "shardd", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy"}
TEXT = "#6e7781"
WIDTH, LEFT, RIGHT, TOP = 760, 176, 84, 62
BAR, GAP, GROUP_GAP = 11, 2, 14


def _text(x, y, text, anchor="start", size=12, weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{TEXT}">{html.escape(text)}</text>'
    )


def _legend(names, y):
    parts, x = [], LEFT
    for name in names:
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="2" fill="{COLOURS[name]}"/>')
        parts.append(_text(x + 15, y, NAMES[name]))
        x += 30 + 8 * len(NAMES[name])
    return parts


def _group(label, proxies, y, scale):
    """The bars of one scenario, from y down, each as long as its multiple of the best peer's."""
    figures = {name: proxies[name]["median"]["cpu_us_per_push"] for name in COLOURS if name in proxies}
    best = min(figure for name, figure in figures.items() if name != "shardd")
    height = len(figures) * (BAR + GAP)
    parts = [_text(LEFT - 10, y + height / 2 + 3, label, "end")]
    for index, (name, figure) in enumerate(figures.items()):
        top, length = y + index * (BAR + GAP), figure / best * scale
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{COLOURS[name]}"/>')
        weight = "bold" if name == "shardd" else "normal"
        # Right of its bar, and of the dashed line where that would cross it.
        x = LEFT + length + 5
        x = LEFT + scale + 5 if x < LEFT + scale < x + 50 else x
        parts.append(_text(x, top + 9, f"{figure:.1f} µs", size=10, weight=weight))
    return parts, height


def chart(document):
    """The chart of a run's results; scenarios that were not run, or without a peer, are left out."""
    shown = []
    for name, label in SHOWN:
        proxies = document["scenarios"].get(name, {}).get("proxies", {})
        if "shardd" in proxies and len(proxies) > 1:
            shown.append((label, proxies))
    most = 1
    for _, proxies in shown:
        figures = {name: result["median"]["cpu_us_per_push"] for name, result in proxies.items()}
        most = max(most, max(figures.values()) / min(figure for name, figure in figures.items() if name != "shardd"))
    scale = (WIDTH - LEFT - RIGHT) / most
    parts, y = [], TOP
    for label, proxies in shown:
        group, height = _group(label, proxies, y, scale)
        parts += group
        y += height + GROUP_GAP
    line = f'<line x1="{LEFT + scale:.1f}" y1="{TOP - 6}" x2="{LEFT + scale:.1f}" y2="{y - GROUP_GAP + 4}" '
    parts.append(line + f'stroke="{TEXT}" stroke-dasharray="3 3"/>')
    names = [name for name in COLOURS if any(name in proxies for _, proxies in shown)]
    heading = _text(
        LEFT, 18, "CPU per push, user and system, of the proxy; the shorter the better", size=14, weight="bold"
    )
    note = _text(LEFT, y + 8, "The dashed line is the best peer of each scenario; lengths are relative to it.", size=10)
    title = "<title>CPU per push of shardd, nginx, HAProxy and Envoy</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 18}" width="{WIDTH}" height="{y + 18}" '
        f'role="img" font-family="system-ui, sans-serif">\n'
        + "\n".join([title, heading, *_legend(names, 40), *parts, note])
        + "\n</svg>\n"
    )
