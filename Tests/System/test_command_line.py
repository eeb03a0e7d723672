"""The command line: exit codes, messages, check-config and locate."""

import datetime
import re

import pytest

from harness.shardd import run

GOOD = "http_listen_addr: :9292\npushgateway:\n  port: 9091\n  servers: [127.0.0.1, 127.0.0.2, '127.0.0.3:9191']\n"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "shardd.yml"
    file.write_text(GOOD)
    return file


def test_version_and_help():
    version = run("--version")
    assert version.returncode == 0
    told = re.fullmatch(r"shardd 0\.2\.0 \(([0-9a-f]{12}(?:-dirty)?|unknown), built (\S+Z), Swift (\S+)\)\n", version.stdout)
    assert told, version.stdout
    datetime.datetime.fromisoformat(told[2].replace("Z", "+00:00"))
    for flag in ("-h", "--help"):
        text = run(flag)
        assert text.returncode == 0
        assert all(word in text.stdout for word in ("check-config", "cleanup", "drain", "locate", "reconcile", "serve"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["no-such-command"],
        ["--log.level=loud"],
        ["--log.format=xml"],
        ["drain"],
        ["drain", "no shard"],
        ["reconcile", "--dry-walk"],
        ["cleanup", "--force"],
        ["cleanup", "127.0.0.1:9091"],
    ],
)
def test_usage_errors_are_64_and_said_on_standard_error(arguments):
    result = run(*arguments)
    assert result.returncode == 64
    assert result.stderr.strip() and not result.stdout


def test_a_missing_or_bad_file_is_78(tmp_path):
    result = run("serve", f"--config.file={tmp_path}/none.yml")
    assert result.returncode == 78
    assert "none.yml" in result.stderr
    bad = tmp_path / "bad.yml"
    bad.write_text("shards: 1\n")
    for command in ([], ["reconcile"], ["drain", "127.0.0.1:9091"], ["cleanup"]):
        assert run(*command, f"--config.file={bad}").returncode == 78


def test_check_config(config):
    assert run("check-config", f"--config.file={config}").returncode == 0
    config.write_text(
        "pushgateway:\n  port: 99999\n  servers: [a b]\n"
        "mode: sideways\nmode: forward\ncheck: {interval: soon}\nextra: 1\n"
    )
    result = run("check-config", f"--config.file={config}")
    assert result.returncode == 78
    lines = (result.stdout + result.stderr).strip().splitlines()
    for number, key in (
        (2, "pushgateway.port"),
        (3, "pushgateway.servers"),
        (4, "mode"),
        (6, "check.interval"),
        (7, "extra"),
    ):
        assert any(line.startswith(f"{config}:{number}: ") and key in line for line in lines), (number, key, lines)


def test_locate(config):
    result = run("locate", f"--config.file={config}", "/metrics/job/a/z/1/b/2", "/metrics/job/a/b/2/z/1")
    assert result.returncode == 0, result
    first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert first[0] == "/metrics/job/a/z/1/b/2"
    assert first[1:] == second[1:]
    assert first[1] == "/metrics/job/a/b/2/z/1"
    assert len(first[2]) == 8 and int(first[2], 16) >= 0
    assert first[3] in ("127.0.0.1:9091", "127.0.0.2:9091", "127.0.0.3:9191")


def test_locate_reads_standard_input(config):
    paths = [f"/metrics/job/a/n/{number}" for number in range(2000)]
    result = run("locate", f"--config.file={config}", stdin="\n".join(paths) + "\n")
    assert result.returncode == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == paths
    assert (
        run("locate", f"--config.file={config}", *paths[:100]).stdout.splitlines() == result.stdout.splitlines()[:100]
    )
