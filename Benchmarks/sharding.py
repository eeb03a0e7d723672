#!/usr/bin/env python3
"""What sharding itself buys: pushes/s through shardd over 1, 2, 4 and 8 real Pushgateways; make bench-sharding.

Either the Pushgateways' consistency check is on, as it is by default: every push is held against all metrics of its shard, so that
half as many groups on a shard also halve what each push costs. Or shardd checks (pushes.check: full), and they do not. The groups
are the same 1,000 in all; all have both cores.
"""

import argparse
import contextlib
import http.client
import json
import statistics
import sys

from harness import places
from harness.companions import get
from harness.load import Load, run_wrk
from harness.measure import stopping
from harness.processes import BenchmarkError, Process, require_free
from harness.proxies import Proxy, Setting
from harness.report import table
from harness.scenarios import BOTH_CORES

GROUPS = 1000
LOAD = Load(connections=16, groups=GROUPS)


class Deployment:
    """shardd and its Pushgateways, which hold every group already."""

    def __init__(self, count, is_full, port, running):
        self.count = count
        self.is_full = is_full
        hosts = [f"127.76.{count + 100 * is_full}.{index + 1}" for index in range(count)]
        self.hosts = hosts
        self.gateways = []
        for host in hosts:
            require_free(host, places.SHARD_PORT, "a Pushgateway")
            address = f"{host}:{places.SHARD_PORT}"
            # Without a file: what is pushed here is not to be kept.
            command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--persistence.file="]
            command += ["--log.level=error"] + ["--push.disable-consistency-check"] * is_full
            log = places.WORK / f"pushgateway-{host}.log"
            gateway = Process(f"Pushgateway {host}", command, BOTH_CORES, log, {"GOMAXPROCS": "1"})
            running.append(gateway)
            self.gateways.append(gateway)
        for host, gateway in zip(hosts, self.gateways):
            gateway.wait_until_listening(host, places.SHARD_PORT)
        setting = Setting(shards=count, check="full" if is_full else "guard")
        name = f"shardd-{count}-{setting.check}"
        self.proxy = Proxy(name, setting, BOTH_CORES, port, places.SHARDD, hosts)
        running.append(self.proxy.process)

    def fill(self):
        """One push to each of the groups that the load pushes to."""
        connection = http.client.HTTPConnection(places.PROXY_HOST, self.proxy.port, timeout=30)
        with contextlib.closing(connection):
            for group in range(GROUPS):
                path = f"/metrics/job/batch_{group}/instance/host-{group}"
                connection.request("POST", path, body=b"# TYPE filled gauge\nfilled 1\n")
                response = connection.getresponse()
                if response.status != (202 if self.is_full else 200):
                    raise BenchmarkError(f"a push was answered {response.status}: {response.read()!r}")
                response.read()

    def groups(self):
        """How many groups each shard holds: every one holds push_time_seconds once."""
        texts = [get(host, places.SHARD_PORT, "/metrics") for host in self.hosts]
        counts = [sum(line.startswith("push_time_seconds{") for line in text.splitlines()) for text in texts]
        if sum(counts) != GROUPS:
            raise BenchmarkError(f"{self.count} shards hold {sum(counts)} groups, not {GROUPS}")
        return counts

    def run_round(self, seconds):
        before = sum(gateway.cpu_seconds() for gateway in self.gateways)
        wrk = run_wrk(self.proxy.url, LOAD, seconds, BOTH_CORES)
        cpu = sum(gateway.cpu_seconds() for gateway in self.gateways) - before
        return {
            "pushes_per_second": wrk["requests"] / (wrk["microseconds"] / 1e6),
            "shard_cpu_us_per_push": cpu * 1e6 / max(wrk["requests"], 1),
            "p50_us": wrk["p50"],
            "p99_us": wrk["p99"],
            "errors": sum(wrk["errors"].values()),
        }


def median(rounds, figure):
    return statistics.median(one[figure] for one in rounds)


def row(deployment, groups, rounds, first_count, first, checked):
    """`checked` are the rounds of as many shards that check themselves."""
    count = deployment.count
    rate, cpu = median(rounds, "pushes_per_second"), median(rounds, "shard_cpu_us_per_push")
    with_a_core_each = count / first_count * median(first, "shard_cpu_us_per_push") / cpu
    return [
        str(count),
        "shardd" if deployment.is_full else "each shard",
        f"{min(groups)}–{max(groups)}" if count > 1 else str(groups[0]),
        f"{rate:,.0f}",
        f"{rate / median(first, 'pushes_per_second'):.1f}",
        f"{rate / median(checked, 'pushes_per_second'):.1f}",
        f"{cpu / 1000:.2f}",
        f"{with_a_core_each:.1f}",
        f"{median(rounds, 'p50_us') / 1000:.1f}",
        f"{median(rounds, 'p99_us') / 1000:.1f}",
        str(sum(one["errors"] for one in rounds)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default="1,2,4,8")
    parser.add_argument("--seconds", type=int, default=5, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    places.WORK.mkdir(parents=True, exist_ok=True)
    counts = [int(count) for count in options.shards.split(",")]
    with stopping() as running:
        kinds = [(count, is_full) for is_full in (False, True) for count in counts]
        deployments = {
            kind: Deployment(*kind, places.FIRST_PROXY_PORT + index, running) for index, kind in enumerate(kinds, 1)
        }
        for deployment in deployments.values():
            deployment.fill()
        rounds = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind, deployment in deployments.items():
                rounds[kind].append(deployment.run_round(options.seconds))
        groups = {kind: deployment.groups() for kind, deployment in deployments.items()}
    headings = [
        "shards",
        "who checks",
        "groups on one",
        "pushes/s",
        "times the first",
        "times as if each shard checked",
        "shards' CPU ms/push",
        "times, a core each (computed)",
    ]
    rows = [headings + ["p50 ms", "p99 ms", "errors"]]
    for kind, deployment in deployments.items():
        count, is_full = kind
        first = rounds[counts[0], is_full]
        rows.append(row(deployment, groups[kind], rounds[kind], counts[0], first, rounds[count, False]))
    print(table(rows))
    document = {name: {f"{count} {'full' if full else 'guard'}": one for (count, full), one in figures.items()}
                for name, figures in (("groups", groups), ("rounds", rounds))}
    (places.WORK / "sharding.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-sharding: {error}")
