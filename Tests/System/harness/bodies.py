"""Bodies of pushes with what shardd's guard says of them, and whether a Pushgateway takes harm from one.

The list is the unit tests' too: Tests/ShardEngineTests/Fixtures/push-bodies.tsv.
"""

import json
import pathlib
import re
import subprocess
from typing import NamedTuple

from .http import Closed, ask
from .protobuf import CONTENT_TYPE, family, simple

FILE = pathlib.Path(__file__).parents[2] / "ShardEngineTests/Fixtures/push-bodies.tsv"
ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\"}


class Row(NamedTuple):
    verdict: str
    name: str
    headers: tuple
    body: bytes


def unescaped(text):
    def plain(match):
        code = match.group(1)
        return bytes([int(code[1:], 16)]) if code[:1] == b"x" else ESCAPES[code]

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", plain, text.encode())


def rows():
    found = []
    for line in FILE.read_text().split("\n"):
        if line and not line.startswith("#"):
            verdict, name, kind, coding, body = line.split("\t")
            headers = [("Content-Type", kind)] * bool(kind) + [("Content-Encoding", coding)] * bool(coding)
            found.append(Row(verdict, name, tuple(headers), unescaped(body)))
    return found


def post(address, path, row, method="POST"):
    """The status; None where the Pushgateway closes instead, as Debian's 1.11 does for what its check refuses."""
    try:
        return ask(address, method, path, row.body, row.headers).status
    except Closed:
        return None


CANARY = "zz_canary 1\n"


def scrape_problem(address, is_linted=True):
    """What is wrong with a scrape; None when Prometheus would take it whole.

    promtool takes a while; what has come as text needs no look by it.
    """
    page = ask(address, "GET", "/metrics")
    if page.status != 200:
        return f"the scrape is {page.status}"
    if b"zz_canary" not in page.body:
        return "the scrape is cut"
    # Prometheus itself refuses what is no UTF-8, or has a label twice in a series; promtool 2.42 takes both.
    try:
        page.body.decode()
    except UnicodeDecodeError:
        return "the scrape is not UTF-8"
    if re.search(rb'[{,](\w+)="[^"\n]*",(?:[^\n]*,)?\1="', page.body):
        return "a series has a label twice"
    if not is_linted:
        return None
    check = subprocess.run(["promtool", "check", "metrics"], input=page.body, capture_output=True, check=False)
    return f"promtool: {check.stderr.decode()}" if check.returncode == 1 else None


def harm(gateway, row):
    """Pushes the row to a Pushgateway with its check on, and nothing else before; what harm that does, or None."""
    address = gateway.address
    assert ask(address, "PUT", "/api/v1/admin/wipe").status == 202
    assert ask(address, "PUT", "/metrics/job/zz", CANARY.encode()).status == 200
    post(address, "/metrics/job/t", row)
    is_protobuf = "Content-Type" in dict(row.headers)
    problem = scrape_problem(address, is_linted=is_protobuf)
    if problem:
        return problem
    try:
        if ask(address, "GET", "/api/v1/metrics").status != 200:
            return "the listing fails"
    except Closed:
        return "the listing ends in a panic"
    if ask(address, "PUT", "/metrics/job/zz", CANARY.encode()).status != 200:
        return "an unrelated push is refused"
    return by_chance(address, 8 if row.verdict == "forward" else 60) if is_protobuf else None


def by_chance(address, tries):
    """Whether pushes of the family's name with another type are taken at one time and refused at another: of a good
    family they are always refused, but what Go's maps, which have no order, make the first one may decide.
    """
    for name, kind in declared(address):
        for other in {"COUNTER", "GAUGE", "UNTYPED"} - {kind}:
            push = Row("", "", (("Content-Type", CONTENT_TYPE),), family(name, other, [({}, simple(1))]))
            answers = set()
            for number in range(tries):
                path = f"/metrics/job/o{number}"
                answers.add(post(address, path, push, "PUT") == 200)
                ask(address, "DELETE", path)
                if len(answers) == 2:
                    return f"pushes of {name} are refused by chance"
    return None


def declared(address):
    """(name, type) of the families of simple types that are stored in job t."""
    data = json.loads(ask(address, "GET", "/api/v1/metrics").body)["data"]
    groups = [group for group in data if group["labels"].get("job") == "t"]
    for group in groups:
        for name, found in group.items():
            if isinstance(found, dict) and not name.startswith(("push_", "go_", "pushgateway_")) and "type" in found:
                yield name, found["type"]
