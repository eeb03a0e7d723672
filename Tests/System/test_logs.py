"""Logs: both formats parse, and they tell of changes of state and never of single pushes."""

import datetime
import json
import re

import pytest

from harness.net import wait_until

LOGFMT = re.compile(r'(?:^| )([a-zA-Z_.-]+)=("(?:[^"\\]|\\.)*"|[^ "]*)')


def parse_logfmt(line):
    pairs = LOGFMT.findall(line)
    # Nothing may be left over between the pairs.
    assert " ".join(f"{key}={value}" for key, value in pairs) == line, line
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


PARSERS = {"json": json.loads, "logfmt": parse_logfmt}


@pytest.mark.parametrize("name", PARSERS)
def test_every_line_parses(lab, name):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards, arguments=[f"--log.format={name}", "--web.enable-lifecycle", "--log.level=debug"])
    for path in ("/metrics/job/a", "/metrics/job/%22quoted%22/x/a=b%20c%0Ad", "/metrics/job/ünï"):
        replica.ask("PUT", path.encode().decode("latin-1"), b"x 1\n")
    shards[0].kill()
    wait_until(lambda: len(replica.shards()) == 1, "the killed shard is out")
    replica.write_config("a: [\n")
    assert replica.ask("POST", "/-/reload").status >= 400
    assert replica.stop() == 0
    entries = [PARSERS[name](line) for line in replica.log().splitlines()]
    assert len(entries) > 5
    for entry in entries:
        assert entry["level"] in ("debug", "info", "warn", "error")
        assert entry["msg"]
        assert (
            abs(
                datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp()
                - datetime.datetime.now().timestamp()
            )
            < 120
        )


def test_pushes_are_not_logged_at_info(lab):
    replica = lab.shardd(lab.pushgateways(1))
    before = len(replica.log().splitlines())
    for number in range(50):
        assert replica.push(f"/metrics/job/secretive/n/{number}").status == 200
    assert "secretive" not in replica.log()
    assert len(replica.log().splitlines()) == before


def test_changes_are_logged_once_each(lab):
    shards = lab.pushgateways(2)
    replica = lab.shardd(shards)
    shards[1].kill()
    wait_until(lambda: len(replica.shards()) == 1, "the killed shard is out")
    lines = [line for line in replica.log().splitlines() if shards[1].address.text in line]
    shards[1].start().wait_ready()
    wait_until(lambda: len(replica.shards()) == 2, "it is back")
    assert 1 <= len(lines) <= 4, lines
