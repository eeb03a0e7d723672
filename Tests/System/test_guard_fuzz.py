"""Random bodies through the guard to real Pushgateways with their check on: what it lets through breaks no scrape.

SEED repeats a run.
"""

import gzip
import os
import random
import struct

import pytest
from harness.bodies import Row, post, rows, scrape_problem
from harness.http import ask
from harness.protobuf import CONTENT_TYPE, message, varint
from harness.pushgateway import NEWEST

ROWS = [row for row in rows() if row.name != "pb: huge length"]
PUSHES = 600
WORDS = [b"x", b"y_total", b"gauge_histogram", b"gauge", b"histogram", b"TYPE", b"HELP", b"#", b" ", b"\t", b"\n", b"1", b"\\",
         b"{", b"}", b'"', b"=", b",", b"le", b"\xff", b"\xc3\xa9", b"shardd_store_", b"a.b", b"\0", b"_sum", b"_bucket", b"1e3"]  # fmt: skip


@pytest.fixture
def chance():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    return random.Random(seed)


def mutated(chance, body):
    """The body with some bytes, words or lines changed."""
    body = bytearray(body)
    for _ in range(chance.randint(0, 4)):
        place = chance.randint(0, len(body))
        kind = chance.randrange(5)
        if kind == 0:
            body[place:place] = chance.choice(WORDS)
        elif kind == 1:
            del body[place : place + chance.randint(1, 3)]
        elif kind == 2 and body:
            body[min(place, len(body) - 1)] = chance.randrange(256)
        elif kind == 3:
            body[place:place] = chance.choice(ROWS).body[: chance.randint(1, 60)]
        else:
            lines = bytes(body).split(b"\n")
            chance.shuffle(lines)
            body = bytearray(b"\n".join(lines))
    return bytes(body)


def random_text(chance):
    lines = []
    for _ in range(chance.randint(1, 4)):
        name = chance.choice([b"x", b"y", b"h", b"shardd_void_a", b'{"x"}', b'{"shardd_store_b",a="b"}'])
        kind = chance.choice([b"gauge", b"GAUGE_histogram", b"gauge_\\histogram", b"counter", b"untyped", b"histogram", b""])
        text = chance.choice([b"", b"good", b"\xff", "ü".encode(), b"a\\n"])
        gap = chance.choice([b" ", b"  ", b"\t", b""])
        lines.append(chance.choice([
            b"#" + gap + b"TYPE" + (gap or b" ") + name + b" " + kind,
            b"#" + gap + b"HELP " + name + b" " + text,
            b"# " + text,
            gap + name + b" 1",
        ]))  # fmt: skip
    return b"\n".join(lines) + b"\n"


def random_families(chance):
    """Families of any fields in any order."""
    body = b""
    for _ in range(chance.randint(1, 3)):
        name = chance.choice([b"x", b"y", b"z_total", b"x.y", b"", b"9", b"a b", b"\xff", b"shardd_store_1", b":"])
        fields = [message(1, name)] * (chance.random() < 0.95)
        if chance.random() < 0.3:
            fields.append(message(2, chance.choice([b"help", b"\xff", "ü".encode()])))
        fields += [varint(24) + varint(chance.choice([0, 1, 2, 3, 4, 4, 1, 1, 5, 9, 2**63]))] * (chance.random() < 0.9)
        for _ in range(chance.choice([0, 1, 1, 1, 2])):
            label = message(1, message(1, chance.choice([b"a", b"le", b"\xff", b"b"])) + message(2, chance.choice([b"1", b"\xff"])))
            value = varint(1 << 3 | 1) + struct.pack("<d", 1.5)
            kinds = [message(chance.choice([2, 3, 4, 5, 7, 2]), chance.choice([value, b""])) for _ in range(chance.choice([1, 1, 1, 0, 2]))]
            fields.append(message(4, label * chance.choice([0, 0, 1]) + b"".join(kinds)))
        if chance.random() < 0.1:
            fields.append(varint(99 << 3 | chance.choice([0, 1, 2, 5])) + chance.choice([b"\1", b"\x08abcdefgh", b"12345678"]))
        chance.shuffle(fields)
        encoded = b"".join(fields)
        body += varint(len(encoded)) + encoded
    return body


def random_row(chance):
    if chance.random() < 0.4:
        row = chance.choice(ROWS)
        return row._replace(body=mutated(chance, row.body))
    is_text = chance.random() < 0.5
    body = random_text(chance) if is_text else random_families(chance)
    headers = [] if is_text else [("Content-Type", CONTENT_TYPE)]
    if chance.random() < 0.15:
        body = gzip.compress(body)
        headers.append(("Content-Encoding", chance.choice(["gzip", "GZIP"])))
    return Row("", "random", tuple(headers), body)


@pytest.mark.parametrize("program", ["prometheus-pushgateway", NEWEST], ids=["installed", "newest"])
def test_what_is_let_through_breaks_no_scrape(lab, chance, program):
    shard = lab.pushgateway("--web.enable-admin-api", program=program)
    replica = lab.shardd([shard])
    answers = {}
    for number in range(PUSHES):
        if number % 50 == 0:
            assert scrape_problem(shard.address) is None or number == 0
            # Otherwise what disagrees with an earlier push is refused, and more and more does.
            assert ask(shard.address, "PUT", "/api/v1/admin/wipe").status == 202
            assert ask(shard.address, "PUT", "/metrics/job/zz", b"zz_canary 1\n").status == 200
        row = random_row(chance)
        status = post(replica.address, f"/metrics/job/t{number % 5}", row, "PUT")
        answers[status] = answers.get(status, 0) + 1
        if status == 200:
            problem = scrape_problem(shard.address, is_linted=False)
            assert problem is None, (problem, row)
        if number % 10 == 0:
            assert ask(shard.address, "PUT", "/metrics/job/zz", b"zz_canary 1\n").status == 200, row
    refused = replica.metric("shardd_pushes_refused_total")
    print(answers, f"{refused} refused by the guard")
    assert answers[200] > PUSHES / 10 and refused > PUSHES / 10
