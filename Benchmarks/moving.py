#!/usr/bin/env python3
"""How fast groups move between real Pushgateways, and what pushes notice of it: make bench-moving BASE=rev.

Three Pushgateways hold twice as many groups as are to be moved, then there are six: shardd moves every second group. Under
a constant load of pushes, latencies are compared before, while groups move, while their old copies are deleted, and
afterwards. shardd of this tree and that of another revision take turns. Only what both show outside is measured: shardd's
counters, and what the Pushgateways hold and were asked. The Pushgateways' consistency check, which holds every push against
all of its shard's metrics, is off in one run and on in another, the groups a tenth as many by default, since they alone
then set the pace.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

from compare import binary_of
from harness import places
from harness.companions import get
from harness.measure import stopping
from harness.processes import BenchmarkError, Process, require_free
from harness.report import table
from harness.scenarios import BOTH_CORES

PORT = places.FIRST_PROXY_PORT + 30
HOSTS = [f"127.76.30.{index}" for index in range(1, 7)]
FIRST = 3
SETTLE_SECONDS = 5
PATIENCE_SECONDS = 180
# Telling its metrics takes shardd some milliseconds while groups move.
SAMPLE_SECONDS = 0.5
# For so long nothing may have moved, nor been deleted, before what the shards hold is looked at.
STILL_SECONDS = 3
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
reconcile: {{{reconcile}}}
"""
COUNTERS = ("shardd_reconcile_groups_moved_total", "shardd_reconcile_copies_deleted_total")
HELD = "shardd_handover_wait_seconds_count"
LISTED = 'pushgateway_http_requests_total{code="200",handler="api/v1/metrics",method="get"}'


def path_of(group):
    return f"/metrics/job/batch_{group}/instance/host-{group}"


class Deployment:
    def __init__(self, name, binary, overlap, pace, running):
        self.name, self.binary, self.running = name, binary, running
        self.configuration = places.WORK / f"moving-{name}.yml"
        self.log = places.WORK / f"moving-{name}.log"
        self.settings = f"settle: {SETTLE_SECONDS}s, groups_per_second: {pace}"
        self.interval = overlap - 10
        self.configure(HOSTS[:FIRST], f"overlap: {overlap}s")
        # Revisions before the register have no overlap, nor the key.
        self.overlap = overlap if self.is_valid() else None
        self.configure(HOSTS[:FIRST])
        require_free(places.PROXY_HOST, PORT, "shardd")
        self.gateways, self.shardd = {}, None

    def is_valid(self):
        command = [self.binary, "check-config", f"--config.file={self.configuration}"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def start_shardd(self):
        self.shardd = Process("shardd", [self.binary, f"--config.file={self.configuration}"], BOTH_CORES, self.log)
        self.running.append(self.shardd)
        self.shardd.wait_until_listening(places.PROXY_HOST, PORT)

    def start_gateways(self, arguments):
        for host in HOSTS:
            require_free(host, places.SHARD_PORT, "a Pushgateway")
            command = ["prometheus-pushgateway", f"--web.listen-address={host}:{places.SHARD_PORT}", "--log.level=error"]
            command += [f"--persistence.file={places.WORK}/moving-{host}.data", *arguments]
            # Copies stay for ten seconds longer than that.
            command.append(f"--persistence.interval={self.interval}s")
            gateway = Process(f"Pushgateway {host}", command, BOTH_CORES, places.WORK / f"moving-{host}.log")
            self.running.append(gateway)
            self.gateways[host] = gateway
            gateway.wait_until_listening(host, places.SHARD_PORT)

    def configure(self, hosts, further="interval: 30s"):
        values = {"host": places.PROXY_HOST, "port": PORT, "shard_port": places.SHARD_PORT}
        values |= {"servers": ", ".join(hosts), "reconcile": f"{self.settings}, {further}"}
        self.configuration.write_text(CONFIGURATION.format(**values))

    def fill(self, count, arguments):
        """Without the check, which would make this the longest part; then everything starts as it is to be."""

        def push(groups):
            connection = http.client.HTTPConnection(places.PROXY_HOST, PORT, timeout=30)
            with contextlib.closing(connection):
                for group in groups:
                    connection.request("PUT", path_of(group), body=BODY)
                    response = connection.getresponse()
                    if response.status not in (200, 202):
                        raise BenchmarkError(f"a push was answered {response.status}: {response.read()!r}")
                    response.read()

        for host in HOSTS:
            pathlib.Path(f"{places.WORK}/moving-{host}.data").unlink(missing_ok=True)
        self.start_gateways(["--push.disable-consistency-check"])
        self.start_shardd()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(push, [range(number, count, 4) for number in range(4)]))
        for process in (self.shardd, *self.gateways.values()):
            process.stop(seconds=30)
        self.start_gateways(arguments)
        self.start_shardd()
        # Without Consul shardd lists all shards once when it starts.
        time.sleep(8)
        held, _ = self.shards()
        if sum(map(len, held)) != count or any(held[FIRST:]):
            raise BenchmarkError(f"the shards hold {[*map(len, held)]} groups, not {count}")

    def shards(self):
        """Each shard's groups (every one has push_time_seconds once, and some are shardd's own), and how often it was listed."""
        groups, listings = [], []
        for host in HOSTS:
            lines = get(host, places.SHARD_PORT, "/metrics").splitlines()
            times = [line.rpartition(" ")[0] for line in lines if line.startswith("push_time_seconds{")]
            groups.append([one for one in times if 'job="shardd"' not in one])
            listings.append(sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(LISTED)))
        return groups, listings

    def sample(self):
        """(when, groups moved, copies deleted, pushes held by a fence so far)"""
        text = get(places.PROXY_HOST, PORT, "/metrics")
        found = [re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in (*COUNTERS, HELD)]
        return time.time(), *(int(float(one[1])) if one else 0 for one in found)

    def scale_out(self):
        # Revisions without an overlap look each interval what there is to do.
        self.configure(HOSTS, "interval: 1s" if self.overlap is None else f"overlap: {self.overlap}s")
        self.shardd.signal(signal.SIGHUP)

    def follow(self, count):
        """Samples until each group is on one shard, and nothing changes any more."""
        samples = [self.sample()]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.shardd.check_alive()
            time.sleep(SAMPLE_SECONDS)
            samples.append(self.sample())
            latest, deleted = samples[-1], samples[-1][2]
            changed = next((one[0] for one in reversed(samples) if one[1:3] != latest[1:3]), samples[0][0])
            if deleted and latest[0] - changed >= STILL_SECONDS:
                held = [group for groups in self.shards()[0] for group in groups]
                if len(held) == len(set(held)) == count:
                    return samples
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"not settled after {PATIENCE_SECONDS} s, {latest[1]} groups moved, {deleted} copies deleted: see {self.log}"
                )


class ConstantLoad:
    """So many pushes a second over so many of the groups, by clients that keep their connections: enough of them that what
    holds up one push does not hold up others."""

    CLIENTS = 64

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


def changes(samples, index):
    """When a counter rose first, from the sample before on, and last."""
    first = next(number for number, one in enumerate(samples) if one[index] > samples[0][index]) - 1
    last = next(one for one in samples if one[index] == samples[-1][index])
    return samples[first][0], last[0]


def measure(name, binary, arguments, groups, rate, options):
    with stopping() as running:
        deployment = Deployment(name, binary, options.overlap, options.pace, running)
        deployment.fill(2 * groups, arguments)
        load = ConstantLoad(rate, max(1, groups // 10))
        running.append(load)
        _, before = deployment.shards()
        rest = time.time(), time.time() + (options.rest or 10)
        time.sleep(rest[1] - time.time())
        _, at_rest = deployment.shards()
        due = time.time() + SETTLE_SECONDS
        deployment.scale_out()
        samples = deployment.follow(2 * groups)
        _, afterwards = deployment.shards()
        settled = time.time()
        time.sleep(10)
        load.stop()
        (first, last), (_, gone) = changes(samples, 1), changes(samples, 2)
        moved = samples[-1][1] - samples[0][1]
        phases = {"before": rest, "moving": (due, last), "deleting": (last, gone), "after": (settled, settled + 10)}

        def held(start, end):
            return sum(b[3] - a[3] for a, b in zip(samples, samples[1:]) if start < b[0] <= end)

        return {
            "moved": moved,
            # From when the groups were due, with their first listings.
            "seconds": last - due,
            "groups_per_second": moved / (last - due),
            # From the first increase of the counter to the last: revisions that count when a run has ended have but one.
            "counted_seconds": last - first,
            "settled_seconds": gone - due,
            "overlap_seconds": deployment.overlap or 0,
            "listings": [after - before for before, after in zip(at_rest, afterwards)],
            "listings_at_rest": sum(at_rest) - sum(before),
            "resident_bytes": deployment.shardd.resident_bytes(),
            "errors": load.errors,
            "phases": {phase: (*load.between(*times), held(*times)) for phase, times in phases.items()},
            "load_average": os.getloadavg()[0],
        }


HEADINGS = ["shards' check, shardd", "groups", "s", "groups/s", "counted in s", "settled s", "without overlap"]
HEADINGS += ["listings", "at rest", "MB", "errors", "load", "", "pushes", "p50 ms", "p99 ms", "held"]


def rows_of(name, run):
    listings = f"{min(run['listings'])}–{max(run['listings'])}"
    cells = [name, f"{run['moved']:,}", f"{run['seconds']:.1f}", f"{run['groups_per_second']:,.0f}"]
    cells += [f"{run['counted_seconds']:.1f}", f"{run['settled_seconds']:.1f}"]
    cells += [f"{run['settled_seconds'] - run['overlap_seconds']:.1f}", listings]
    cells += [str(run["listings_at_rest"]), f"{run['resident_bytes'] / 1e6:.0f}", str(run["errors"])]
    cells += [f"{run['load_average']:.1f}"]
    for phase, (count, p50, p99, held) in run["phases"].items():
        yield [*cells, phase, str(count), f"{p50:.2f}", f"{p99:.2f}", str(held)]
        cells = [""] * len(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="the revision to compare with; none: this tree alone")
    parser.add_argument("--base-binary", help="shardd of that revision, if it is built already")
    parser.add_argument("--groups", type=int, default=10_000, help="to be moved, with the consistency check off")
    parser.add_argument("--checked-groups", type=int, default=1_000, help="with the consistency check on; 0: not at all")
    parser.add_argument("--rate", type=int, default=200, help="pushes a second, with the check off")
    parser.add_argument("--checked-rate", type=int, default=20, help="pushes a second, with the check on")
    parser.add_argument("--pace", type=int, default=100_000, help="reconcile.groups_per_second")
    parser.add_argument("--overlap", type=int, default=30, help="reconcile.overlap in seconds, more than 10")
    parser.add_argument("--rest", type=int, default=60, help="seconds at rest in which nothing may be listed; 0: 10, unjudged")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    places.WORK.mkdir(parents=True, exist_ok=True)
    contestants = {"head": places.SHARDD}
    if options.base_binary or options.base:
        contestants = {"base": options.base_binary or binary_of(options.base), **contestants}
    off = ["--push.disable-consistency-check"]
    settings = {"off": (off, options.groups, options.rate), "on": ([], options.checked_groups, options.checked_rate)}
    rows, kept = [HEADINGS], {}
    for check, setting in settings.items():
        for number in range(options.rounds if setting[1] else 0):
            for name, binary in contestants.items():
                run = measure(f"{check}-{name}", binary, *setting, options)
                rows += rows_of(f"{check}, {name}", run)
                kept.setdefault(f"{check}, {name}", []).append(run)
                print(f"{check}, {name}, round {number + 1}: {run['groups_per_second']:,.0f} groups/s", flush=True)
    (places.WORK / "moving.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\n{table(rows)}")
    listed = sum(run["listings_at_rest"] for name, runs in kept.items() if name.endswith("head") for run in runs)
    if options.rest and listed:
        raise BenchmarkError(f"this tree's shardd has listed shards {listed} times at rest")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"bench-moving: {error}")
