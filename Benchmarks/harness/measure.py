"""One scenario: every proxy started afresh, then rounds in turn (A B C D A B C D …), so that all meet the same noise."""

import contextlib
import http.client
import resource
import statistics
import time

from . import places
from .companions import Churn, IdleClients, start_stub, stub_counts
from .load import run_wrk
from .processes import BenchmarkError, machine_cpu_seconds
from .proxies import Proxy

WARM_UP_SECONDS = 1


@contextlib.contextmanager
def stopping():
    """A list of what the block started: stopped, the latest first, whatever happens."""
    things = []
    try:
        yield things
    finally:
        for thing in reversed(things):
            thing.stop()


def check_answer(proxy, scenario):
    """One push by hand: the figures of a proxy that answers something else would mean nothing."""
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection(places.PROXY_HOST, proxy.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/metrics/job/check", body=b"checks 1\n")
            response = connection.getresponse()
            response.read()
        if response.status == scenario.status:
            break
        # Until its first health checks are done, a proxy may have no shard.
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{proxy.name} answers {response.status}, not {scenario.status}")
        time.sleep(0.1)
    if scenario.status == 307:
        location = response.headers["Location"]
        shards = [f"http://{host}:{places.SHARD_PORT}" for host in places.shard_hosts(scenario.setting.shards)]
        if location not in [f"{shard}/metrics/job/check" for shard in shards]:
            raise BenchmarkError(f"{proxy.name} sends clients to {location}")


class Meter:
    """What the proxy, wrk and everything else on the machine worked between two moments."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.started = time.monotonic()
        self.proxy_cpu = proxy.process.cpu_seconds()
        self.machine_cpu, self.stolen = machine_cpu_seconds()
        self.wrk_cpu = self._children()
        self.pushes, self.body_bytes = stub_counts()

    @staticmethod
    def _children():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def read(self, stub):
        """The change since it was made, given the stub's processor time before and after."""
        now = Meter(self.proxy)
        elapsed = now.started - self.started
        proxy_cpu = now.proxy_cpu - self.proxy_cpu
        others = now.machine_cpu - self.machine_cpu - proxy_cpu - (now.wrk_cpu - self.wrk_cpu) - stub
        return {
            "proxy_cpu_seconds": proxy_cpu,
            "core_busy": proxy_cpu / elapsed,
            # What the machine did beside this benchmark, and what the hypervisor took: in cores.
            "others_busy": max(others, 0) / elapsed,
            "stolen": (now.stolen - self.stolen) / elapsed,
            "arrived": now.pushes - self.pushes,
        }


def run_round(proxy, scenario, stub, seconds):
    with stopping() as running:
        if scenario.idle_connections:
            running.append(IdleClients(proxy, scenario.idle_connections, scenario.load_cores))
        if scenario.churn:
            running.append(Churn(proxy))
        stub_cpu = stub.cpu_seconds()
        meter = Meter(proxy)
        wrk = run_wrk(proxy.url, scenario.load, seconds, scenario.load_cores)
        figures = meter.read(stub.cpu_seconds() - stub_cpu)
        proxy.process.check_alive()
        resident = proxy.process.resident_bytes()
        for companion in running:
            companion.check()
    arrived = figures.pop("arrived")
    if scenario.status == 200 and arrived < wrk["requests"]:
        raise BenchmarkError(f"{proxy.name}: wrk counted {wrk['requests']} pushes, but only {arrived} arrived")
    proxy_cpu = figures.pop("proxy_cpu_seconds")
    return {
        "pushes": wrk["requests"],
        "pushes_per_second": wrk["requests"] / (wrk["microseconds"] / 1e6),
        "cpu_us_per_push": proxy_cpu * 1e6 / max(wrk["requests"], 1),
        "p50_us": wrk["p50"],
        "p99_us": wrk["p99"],
        "p999_us": wrk["p999"],
        "resident_bytes": resident,
        "errors": sum(wrk["errors"].values()),
        **figures,
    }


def summarize(rounds):
    """The medians; but all errors, and the most memory. The least and the most CPU show how far to trust it."""
    summary = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    summary["errors"] = sum(one["errors"] for one in rounds)
    summary["resident_bytes"] = max(one["resident_bytes"] for one in rounds)
    cpu = [one["cpu_us_per_push"] for one in rounds]
    summary["cpu_us_per_push_range"] = [min(cpu), max(cpu)]
    return summary


def run_scenario(scenario, contestants, seconds, rounds):
    """contestants: name and binary (None: the usual one) of each, in the order of their rounds."""
    with stopping() as running:
        stub = start_stub(scenario.setting.shards, scenario.load_cores)
        running.append(stub)
        proxies = []
        for port, (name, binary) in enumerate(contestants, places.FIRST_PROXY_PORT):
            proxy = Proxy(name, scenario.setting, scenario.proxy_cores, port, binary)
            running.append(proxy.process)
            proxies.append(proxy)
            check_answer(proxy, scenario)
            run_wrk(proxy.url, scenario.load, WARM_UP_SECONDS, scenario.load_cores)
        results = {proxy.name: [] for proxy in proxies}
        for _ in range(rounds):
            for proxy in proxies:
                results[proxy.name].append(run_round(proxy, scenario, stub, seconds))
    return {name: {"median": summarize(all_rounds), "rounds": all_rounds} for name, all_rounds in results.items()}
