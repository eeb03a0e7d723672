#!/usr/bin/env python3
"""How fast groups move between real Pushgateways, and what pushes notice of it; make bench-moving.

Three Pushgateways hold twice as many groups as are to be moved, then there are six: shardd moves every second group.
Under a constant load of pushes, latencies are compared before, while groups move, and afterwards. The Pushgateways'
consistency check, which holds every push against all of its shard's metrics, is off in one run and on in another, the
groups a tenth as many by default, since they alone then set the pace.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import statistics
import sys
import threading
import time
from datetime import datetime

from harness import places
from harness.companions import get
from harness.measure import stopping
from harness.processes import BenchmarkError, Process, require_free
from harness.report import table
from harness.scenarios import BOTH_CORES

PORT = places.FIRST_PROXY_PORT + 30
FIRST, ALL = 3, 6
SETTLE_SECONDS = 10
PATIENCE_SECONDS = 120
BODY = b"""# HELP batch_duration_seconds How long it took.
# TYPE batch_duration_seconds gauge
batch_duration_seconds{step="load"} 12.5
batch_duration_seconds{step="store"} 3.25
# TYPE batch_records_total counter
batch_records_total 4096
"""
CONFIGURATION = """\
http_listen_addr: {host}:{port}
pushgateway: {{port: {shard_port}, servers: [{servers}]}}
reconcile: {{enabled: true, settle: {settle}s, interval: 1s, groups_per_second: {pace}}}
"""


def path_of(group):
    return f"/metrics/job/batch_{group}/instance/host-{group}"


class Deployment:
    def __init__(self, name, arguments, pace, running):
        self.name = name
        self.pace = pace
        self.running = running
        self.hosts = [f"127.76.30.{index + 1}" for index in range(ALL)]
        self.gateways = {}
        for host in self.hosts:
            require_free(host, places.SHARD_PORT, "a Pushgateway")
            self.start_gateway(host, ["--push.disable-consistency-check"])
        self.configuration = places.WORK / f"moving-{name}.yml"
        self.configure(self.hosts[:FIRST])
        require_free(places.PROXY_HOST, PORT, "shardd")
        self.log = places.WORK / f"moving-{name}.log"
        command = [places.SHARDD, f"--config.file={self.configuration}"]
        self.shardd = Process("shardd", command, BOTH_CORES, self.log)
        running.append(self.shardd)
        self.shardd.wait_until_listening(places.PROXY_HOST, PORT)
        self.arguments = arguments

    def start_gateway(self, host, arguments):
        file = places.WORK / f"moving-{self.name}-{host}.data"
        command = ["prometheus-pushgateway", f"--web.listen-address={host}:{places.SHARD_PORT}", "--log.level=error"]
        command += [f"--persistence.file={file}", "--persistence.interval=1h", *arguments]
        if host not in self.gateways:
            file.unlink(missing_ok=True)
        gateway = Process(f"Pushgateway {host}", command, BOTH_CORES, places.WORK / f"moving-{host}.log")
        self.running.append(gateway)
        self.gateways[host] = gateway
        gateway.wait_until_listening(host, places.SHARD_PORT)

    def configure(self, hosts):
        values = {"host": places.PROXY_HOST, "port": PORT, "shard_port": places.SHARD_PORT, "pace": self.pace}
        self.configuration.write_text(CONFIGURATION.format(servers=", ".join(hosts), settle=SETTLE_SECONDS, **values))

    def fill(self, count):
        """Without the check, which would make this the longest part; then the Pushgateways start as they are to be."""

        def push(groups):
            connection = http.client.HTTPConnection(places.PROXY_HOST, PORT, timeout=30)
            with contextlib.closing(connection):
                for group in groups:
                    connection.request("PUT", path_of(group), body=BODY)
                    response = connection.getresponse()
                    if response.status not in (200, 202):
                        raise BenchmarkError(f"a push was answered {response.status}: {response.read()!r}")
                    response.read()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(push, [range(number, count, 4) for number in range(4)]))
        for host in self.hosts:
            self.gateways[host].stop(seconds=30)
            self.start_gateway(host, self.arguments)
        time.sleep(8)
        held = self.counts()
        if sum(held) != count or any(held[FIRST:]):
            raise BenchmarkError(f"the shards hold {held} groups, not {count}")

    def counts(self):
        """How many groups each shard holds: every one holds push_time_seconds once."""
        texts = [get(host, places.SHARD_PORT, "/metrics") for host in self.hosts]
        return [sum(line.startswith("push_time_seconds{") for line in text.splitlines()) for text in texts]

    def scale_out(self):
        self.configure(self.hosts)
        self.shardd.signal(signal.SIGHUP)

    def metric(self, name):
        text = get(places.PROXY_HOST, PORT, "/metrics")
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def is_settled(self):
        """Whether a run has settled the groups of all shards; others may have moved a few before."""
        return f'msg="groups are settled" shards={ALL}' in self.log.read_text(errors="replace")

    def logged_at(self, message):
        """When shardd logged something, in seconds since 1970."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if f'msg="{message}"' in line]
        if not lines:
            raise BenchmarkError(f"shardd did not log {message!r}")
        stamp = re.match(r"time=(\S+)Z ", lines[-1])[1]
        return datetime.fromisoformat(stamp + "+00:00").timestamp()


class ConstantLoad:
    """So many pushes a second over so many of the groups, by a few clients that keep their connections."""

    CLIENTS = 4

    def __init__(self, rate, groups):
        self.rate, self.groups = rate, groups
        # (when it was due, seconds from then to its answer): a push that waits for its turn is late, and counts so.
        self.latencies = []
        self.errors = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        connection = http.client.HTTPConnection(places.PROXY_HOST, PORT, timeout=30)
        began = time.time() + number / self.rate
        turn = 0
        while not self._ended.is_set():
            due = began + turn * self.CLIENTS / self.rate
            time.sleep(max(0, due - time.time()))
            group = (number + turn * self.CLIENTS) % self.groups
            turn += 1
            try:
                connection.request("POST", path_of(group), body=BODY)
                response = connection.getresponse()
                response.read()
                self.errors += response.status not in (200, 202)
            except (OSError, http.client.HTTPException):
                self.errors += 1
                connection.close()
            self.latencies.append((due, time.time() - due))
        connection.close()

    def stop(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def between(self, start, end):
        """(pushes, p50, p99) in milliseconds."""
        found = sorted(latency for moment, latency in self.latencies if start <= moment < end)
        if len(found) < 20:
            return len(found), float("nan"), float("nan")
        return len(found), 1000 * statistics.median(found), 1000 * found[int(len(found) * 0.99)]


def measure(name, arguments, groups, rate, pace):
    with stopping() as running:
        deployment = Deployment(name, arguments, pace, running)
        deployment.fill(2 * groups)
        load = ConstantLoad(rate, groups // 10)
        running.append(load)
        time.sleep(10)
        before = time.time()
        deployment.scale_out()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not deployment.is_settled():
            deployment.shardd.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"not settled after {PATIENCE_SECONDS} s: see {deployment.log}")
            time.sleep(0.2)
        settled = time.time()
        time.sleep(5)
        load.stop()
        time.sleep(0.5)
        moved = int(deployment.metric("shardd_reconcile_groups_moved_total"))
        start = deployment.logged_at("ring changed") + SETTLE_SECONDS
        end = deployment.logged_at("groups have been moved to their owners")
        counts = deployment.counts()
        if sum(counts) != 2 * groups:
            raise BenchmarkError(f"the shards hold {counts} groups, not {2 * groups}")
        return {
            "moved": moved,
            "seconds": end - start,
            "groups_per_second": moved / (end - start),
            "shardd_resident_bytes": deployment.shardd.resident_bytes(),
            "before": load.between(before - 10, before),
            "due": load.between(deployment.logged_at("ring changed"), start),
            "moving": load.between(start, end),
            "after": load.between(settled + 1, settled + 5),
            "errors": load.errors,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10_000, help="to be moved, with the consistency check off")
    parser.add_argument("--checked-groups", type=int, default=1_000, help="to be moved, with the consistency check on")
    parser.add_argument("--rate", type=int, default=200, help="pushes a second, with the check off")
    parser.add_argument("--checked-rate", type=int, default=20, help="pushes a second, with the check on")
    parser.add_argument("--pace", type=int, default=100_000, help="reconcile.groups_per_second")
    options = parser.parse_args()
    places.WORK.mkdir(parents=True, exist_ok=True)
    off = ["--push.disable-consistency-check"]
    runs = {
        "check off": measure("off", off, options.groups, options.rate, options.pace),
        "check off, 1,000 groups/s at most": measure("paced", off, options.groups, options.rate, 1000),
        "check on": measure("on", [], options.checked_groups, options.checked_rate, options.pace),
    }
    rows = [["Pushgateways", "groups moved", "s", "groups/s", "shardd MB", "", "pushes", "p50 ms", "p99 ms", "errors"]]
    for name, run in runs.items():
        first = [name, f"{run['moved']:,}", f"{run['seconds']:.1f}", f"{run['groups_per_second']:,.0f}"]
        first += [f"{run['shardd_resident_bytes'] / 1e6:.0f}"]
        for when in ("before", "due", "moving", "after"):
            count, p50, p99 = run[when]
            errors = str(run["errors"]) if when == "before" else ""
            rows.append([*first, when, str(count), f"{p50:.2f}", f"{p99:.2f}", errors])
            first = [""] * 5
    print(table(rows))
    (places.WORK / "moving.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-moving: {error}")
