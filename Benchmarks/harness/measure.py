"""One scenario: every proxy started afresh, then rounds in turn (A B C D A B C D …), so that all meet the same noise."""

import contextlib
import http.client
import statistics
import time

from . import places
from .native import compile_program
from .load import run_wrk
from .processes import BenchmarkError, Process, machine_cpu_seconds
from .proxies import Proxy

# The proxy alone on one core; wrk and the stub shard on the other.
PROXY_CORES = "0"
LOAD_CORES = "1"


@contextlib.contextmanager
def stopping(things):
    """Stops what the block started, whatever happens in it."""
    try:
        yield things
    finally:
        for thing in reversed(things):
            thing.stop()


def start_stub(shards, cores=LOAD_CORES):
    hosts = places.shard_hosts(shards)
    command = [compile_program("stub_shard"), places.SHARD_PORT, hosts[0], shards]
    stub = Process("stub_shard", command, cores, places.WORK / "stub_shard.log")
    stub.wait_until_listening(hosts[-1], places.SHARD_PORT)
    return stub


def stub_counts():
    """Pushes and bytes of bodies that arrived at the shards so far."""
    connection = http.client.HTTPConnection(places.shard_hosts(1)[0], places.SHARD_PORT, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/counts")
        return tuple(map(int, connection.getresponse().read().split()))


def check_answer(proxy, scenario):
    """One push by hand: the figures of a proxy that answers something else would mean nothing."""
    connection = http.client.HTTPConnection(places.PROXY_HOST, proxy.port, timeout=10)
    with contextlib.closing(connection):
        deadline = time.monotonic() + 10
        while True:
            connection.request("POST", "/metrics/job/check", body=b"checks 1\n")
            response = connection.getresponse()
            response.read()
            if response.status == scenario.status:
                return
            # Until its first health checks are done, a proxy may have no shard.
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{proxy.name} answers {response.status}, not {scenario.status}")
            time.sleep(0.1)


def run_round(proxy, scenario, seconds):
    pushes_before, _ = stub_counts()
    machine_before, steal_before = machine_cpu_seconds()
    cpu_before = proxy.process.cpu_seconds()
    started = time.monotonic()
    wrk = run_wrk(proxy.url, scenario.load, seconds, LOAD_CORES)
    elapsed = time.monotonic() - started
    cpu = proxy.process.cpu_seconds() - cpu_before
    _, steal = machine_cpu_seconds()
    proxy.process.check_alive()
    pushes, _ = stub_counts()
    if scenario.status == 200 and pushes - pushes_before < wrk["requests"]:
        raise BenchmarkError(
            f"{proxy.name}: wrk counted {wrk['requests']} pushes, the shards only {pushes - pushes_before}"
        )
    return {
        "pushes": wrk["requests"],
        "pushes_per_second": wrk["requests"] / (wrk["microseconds"] / 1e6),
        "cpu_us_per_push": cpu * 1e6 / max(wrk["requests"], 1),
        "cpu_share": cpu / elapsed,
        "p50_us": wrk["p50"],
        "p99_us": wrk["p99"],
        "p999_us": wrk["p999"],
        "resident_bytes": proxy.process.resident_bytes(),
        "errors": sum(wrk["errors"].values()),
        "stolen_share": (steal - steal_before) / elapsed,
    }


def summarize(rounds):
    """The medians, but for errors: all of them."""
    summary = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    summary["errors"] = sum(one["errors"] for one in rounds)
    summary["resident_bytes"] = max(one["resident_bytes"] for one in rounds)
    return summary


def run_scenario(scenario, names, seconds, rounds, warm_up_seconds=1):
    with stopping([]) as running:
        running.append(start_stub(scenario.setting.shards))
        proxies = []
        for name in names:
            proxy = Proxy(name, scenario.setting, PROXY_CORES)
            running.append(proxy.process)
            proxies.append(proxy)
        for proxy in proxies:
            check_answer(proxy, scenario)
            run_wrk(proxy.url, scenario.load, warm_up_seconds, LOAD_CORES)
        results = {name: [] for name in names}
        for _ in range(rounds):
            for proxy in proxies:
                results[proxy.name].append(run_round(proxy, scenario, seconds))
    return {name: {"median": summarize(all_rounds), "rounds": all_rounds} for name, all_rounds in results.items()}
