"""Real clients, unmodified, against shardd and real Pushgateways."""

import gzip
import os
import pathlib
import subprocess
import urllib.error

import prometheus_client
import pytest

from harness.http import ask
from harness.net import Address, wait_until
from harness.pushgateway import NEWEST

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def shards(lab):
    return lab.pushgateways(3)


@pytest.fixture
def replica(lab, shards):
    return lab.shardd(shards)


def holders(shards, **labels):
    """The shards that have exactly this group."""
    return [shard for shard in shards if labels in shard.groups()]


GROUPING_KEYS = {
    "plain": {"instance": "i1"},
    "slashes": {"path": "/var/tmp", "instance": "a/b"},
    "empty value": {"instance": "i1", "shard": ""},
    "utf-8": {"city": "Zürich", "sign": "☃"},
    # No spaces: this client writes them as `+`, which is a plus sign in a path.
    "escapes": {"text": "100%of_a+b&c?d#e;f=g", "instance": "i1"},
    "dots": {"text": "../..", "instance": "..."},
}


@pytest.mark.parametrize("name", GROUPING_KEYS)
@pytest.mark.parametrize("job", ["batch", "/a/job with slashes", "ünïcode"])
def test_python_client(shards, replica, name, job):
    key = GROUPING_KEYS[name]
    group = {"job": job, **{label: value for label, value in key.items() if value}}
    registry = prometheus_client.CollectorRegistry()
    gauge = prometheus_client.Gauge("client_value", "pushed by the Python client", registry=registry)

    gauge.set(1)
    prometheus_client.push_to_gateway(replica.address.text, job, registry, key)
    (holder,) = holders_of(shards, group)
    assert value_of(holder, "client_value", group) == 1

    other = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("added_value", "pushed later", registry=other).set(2)
    prometheus_client.pushadd_to_gateway(replica.address.text, job, other, key)
    assert holders_of(shards, group) == [holder]
    assert value_of(holder, "client_value", group) == 1
    assert value_of(holder, "added_value", group) == 2

    prometheus_client.delete_from_gateway(replica.address.text, job, key)
    # A Pushgateway answers a DELETE before it has deleted.
    wait_until(lambda: holders_of(shards, group) == [], "the group is gone")


def holders_of(shards, group):
    """The shards with this group; a Pushgateway lists labels with empty values or leaves them out."""
    return [
        shard
        for shard in shards
        if any({name: value for name, value in have.items() if value} == group for have in shard.groups())
    ]


def value_of(shard, metric, group):
    return next(
        value for (name, labels), value in shard.samples().items() if name == metric and set(group.items()) <= labels
    )


@pytest.fixture(scope="module")
def pusher(tmp_path_factory):
    """The official Go client, as a program."""
    binary = tmp_path_factory.mktemp("go") / "pusher"
    environment = {
        **os.environ,
        "GOPATH": "/usr/share/gocode",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GOCACHE": str(pathlib.Path(HERE).parents[1] / ".build/go-cache"),
    }
    subprocess.run(["go", "build", "-o", binary, HERE / "clients/pusher.go"], env=environment, check=True, timeout=140)

    def push(replica, count, *arguments):
        argv = [binary, replica.address.url, str(count), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    return push


def test_go_client_pushes_one_group_to_one_shard(shards, replica, pusher):
    """It orders the labels at random, which scatters a group over the shards of a path hash; and it pushes protobuf."""
    result = pusher(replica, 100)
    assert result.returncode == 0, result
    group = {"job": "go", "alpha": "1", "beta": "two/2", "gamma": "three", "delta": "four"}
    (holder,) = holders(shards, **group)
    assert [len(shard.groups()) for shard in shards if shard is not holder] == [0, 0]
    assert value_of(holder, "go_pushes", group) == 100
    assert replica.metric("shardd_shard_requests_total", shard=holder.address.text) == 100


# Jobs and grouping keys that a client writes into a path that a Pushgateway redirects, or not, by its version.
ODD_GROUPS = [
    ("..", {}), (".", {}), ("...", {}), ("a//b", {}), ("/a", {}), ("a/", {}), ("/", {}), ("a/../b", {}),
    ("odd", {"x": ".."}), ("odd", {"x": "."}), ("odd", {"x": "a//b"}), ("odd", {"x": ""}), ("odd", {"x": "", "y": ""}),
    ("odd", {"instance": ""}), ("odd", {"instance": "", "x": "1"}), ("odd", {"instance": "", "x": ".."}),
]  # fmt: skip


@pytest.mark.parametrize("client", ["go", "python"])
@pytest.mark.parametrize("version", ["installed", "newest"])
def test_a_client_is_told_the_truth(lab, pusher, client, version):
    """What it reports as pushed is stored; what is not stored it reports as failed."""
    program = {"installed": "prometheus-pushgateway", "newest": NEWEST}[version]
    shards = [lab.pushgateway(program=program) for _ in range(2)]
    replica = lab.shardd(shards)
    outcomes = {True: 0, False: 0}
    for job, key in ODD_GROUPS:
        if client == "go":
            is_pushed = pusher(replica, 1, job, *(f"{name}={value}" for name, value in key.items())).returncode == 0
        else:
            is_pushed = python_push(replica, job, key)
        group = {"job": job, **{name: value for name, value in key.items() if value}}
        assert len(holders_of(shards, group)) == (1 if is_pushed else 0), (job, key)
        outcomes[is_pushed] += 1
        for shard in shards:
            assert ask(shard.address, "GET", "/metrics").status == 200, (job, key)
    assert min(outcomes.values()) >= 2, outcomes


def python_push(replica, job, key):
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("odd", "From an odd group.", registry=registry).set(1)
    try:
        prometheus_client.push_to_gateway(replica.address.text, job, registry, key)
    except urllib.error.HTTPError:
        return False
    return True


def curl(*arguments, stdin=b""):
    """Runs curl; returns its output with the status appended on a line of its own."""
    result = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result
    output, _, status = result.stdout.decode().rpartition("\n")
    return int(status), output


PATH = "/metrics/job/curl/instance/i1"
GROUP = {"job": "curl", "instance": "i1"}


def test_curl_put_post_delete(shards, replica):
    url = replica.address.url + PATH
    assert curl("-T", "-", url, "-H", "Transfer-Encoding:", "-H", "Content-Length: 4", stdin=b"a 1\n")[0] == 200
    assert curl("--data-binary", "@-", url, stdin=b"b 2\n")[0] == 200
    (holder,) = holders(shards, **GROUP)
    assert {name for name, _ in holder.samples()} >= {"a", "b"}
    assert curl("-X", "DELETE", url)[0] == 202
    wait_until(lambda: holders(shards, **GROUP) == [], "the group is gone")


def test_curl_chunked(shards, replica):
    # More than one chunk, so that joining them matters.
    body = b"".join(b'chunked{number="%d"} %d\n' % (number, number) for number in range(5000))
    status, text = curl(
        "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", replica.address.url + PATH, stdin=body
    )
    assert (status, text) == (200, "")
    (holder,) = holders(shards, **GROUP)
    assert sum(1 for name, _ in holder.samples() if name == "chunked") == 5000


def test_curl_gzip(shards, replica):
    body = gzip.compress(b"zipped 5\n")
    status, _ = curl("-H", "Content-Encoding: gzip", "--data-binary", "@-", replica.address.url + PATH, stdin=body)
    assert status == 200
    (holder,) = holders(shards, **GROUP)
    assert value_of(holder, "zipped", GROUP) == 5


def test_curl_expect_100_continue(shards, replica):
    status, trace = curl(
        "-v",
        "--stderr",
        "-",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "15",
        "--data-binary",
        "@-",
        replica.address.url + PATH,
        stdin=b"expected 1\n",
    )
    assert status == 200
    assert "HTTP/1.1 100 Continue" in trace
    assert len(holders(shards, **GROUP)) == 1


def test_curl_http_1_0(shards, replica):
    status, trace = curl(
        "-v", "--stderr", "-", "--http1.0", "--data-binary", "@-", replica.address.url + PATH, stdin=b"old 1\n"
    )
    assert status == 200
    assert len(holders(shards, **GROUP)) == 1
    assert "Connection #0 to host" not in trace or "left intact" not in trace


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/test/v1", "/api/v1/ring", "/api/v1/sd", PATH])
def test_curl_head(replica, path):
    status, head = curl("-I", replica.address.url + path)
    assert status == 200
    got = replica.ask("GET", path)
    lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    assert lines["Content-Type"] == got.header("Content-Type")
    if path != "/metrics":
        assert lines["Content-Length"] == got.header("Content-Length")


def test_a_bad_push_gets_the_pushgateways_own_400(shards, replica):
    status, text = curl("--data-binary", "@-", replica.address.url + PATH, stdin=b"this is not a metric\n")
    assert status == 400
    direct = Address(*replica.placement(PATH).split(":"))
    assert (status, text) == curl("--data-binary", "@-", direct.url + PATH, stdin=b"this is not a metric\n")


@pytest.mark.parametrize(
    "path", ["/metrics/job/a/odd", "/metrics/job/a/b@base64/!!", "/metrics/job@base64/", "/metrics/job/a/0bad/x"]
)
def test_a_bad_path_gets_the_pushgateways_own_answer(shards, replica, path):
    ours = replica.push(path)
    # Another one than ours: a Pushgateway 1.5 that was sent a job in bad base64 answers no such path a second time.
    other = next(shard for shard in shards if shard.address.text != replica.placement(path))
    direct = ask(other.address, "PUT", path, b"x 1\n")
    assert (ours.status, ours.body, ours.header("Content-Type")) == (
        direct.status,
        direct.body,
        direct.header("Content-Type"),
    )
    assert ours.status in (400, 404)
