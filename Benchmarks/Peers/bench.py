#!/usr/bin/env python3
"""shardd beside nginx and HAProxy at the same job, in one run: CPU per push, pushes a second, latency, memory.

The proxy has one core, wrk and the stub shards have the other. Rounds are interleaved, so that a machine whose speed
drifts slows all alike; medians are shown, and CPU per push as the ratio to the best peer, which is what to quote.

bench.py [--quick] [--seconds N] [--rounds N] [--scenario NAME ...] [--shardd BINARY]
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
WORK = ROOT / ".build/bench"
SHARD_PORT = 19091
SHARDS = 3
TICK = os.sysconf("SC_CLK_TCK")

# Connections, environment of push.lua, and the target: CPU per push over the best peer's.
SCENARIOS = {
    "64 connections": (64, {}, 0.70),
    "512 connections": (512, {}, 0.70),
    "8 connections": (8, {}, 0.90),
    "1 connection": (1, {}, 0.95),
    "a connection per push": (64, {"CLOSE": "1"}, 0.85),
    "16 kB bodies": (64, {"BODY": "16000"}, 0.90),
    "200 kB bodies": (16, {"BODY": "200000"}, 1.00),
}
QUICK = ["64 connections", "8 connections", "a connection per push"]


class Proxy:
    """A proxy under test, pinned to one core."""

    def __init__(self, name, port, argv):
        self.name, self.port = name, port
        log = open(WORK / f"{name}.out", "wb")
        self.child = subprocess.Popen(["taskset", "-c", "0", *argv], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def pids(self):
        children = subprocess.run(["pgrep", "-P", str(self.child.pid)], capture_output=True, text=True).stdout.split()
        return [str(self.child.pid), *children]

    def cpu(self):
        """Seconds of user and system time so far."""
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def resident(self):
        """Kilobytes."""
        text = "".join(pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return sum(int(size) for size in re.findall(r"VmRSS:\s+(\d+)", text))

    def check(self):
        if self.child.poll() is not None:
            sys.exit(f"bench: {self.name} has ended; its output is in {WORK / self.name}.out")


def fill(name, port, shard_line):
    """Writes a peer's configuration; returns its path."""
    lines = "\n".join(shard_line.format(number=n, address=f"127.0.0.{n}:{SHARD_PORT}") for n in range(1, SHARDS + 1))
    text = (HERE / name).read_text().replace("@DIR@", str(WORK)).replace("@PORT@", str(port)).replace("@SHARDS@", lines)
    path = WORK / name
    path.write_text(text)
    return str(path)


def start(binary):
    servers = ", ".join(f"127.0.0.{n}" for n in range(1, SHARDS + 1))
    settings = WORK / "shardd.yml"
    settings.write_text(
        f"http_listen_addr: 127.0.0.1:18010\npushgateway: {{port: {SHARD_PORT}, servers: [{servers}]}}\n"
        "check: {interval: 1h}\nreconcile: {enabled: false}\n"
    )
    nginx = fill("nginx.conf", 18020, "server {address};")
    haproxy = fill("haproxy.cfg", 18030, "server s{number} {address}")
    return [
        Proxy("shardd", 18010, [binary, f"--config.file={settings}"]),
        Proxy("nginx", 18020, ["nginx", "-c", nginx, "-p", str(WORK)]),
        Proxy("haproxy", 18030, ["haproxy", "-f", haproxy, "-db"]),
    ]


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def measure(proxy, connections, environment, seconds):
    before = proxy.cpu()
    run = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", HERE / "push.lua"]
        + [f"http://127.0.0.1:{proxy.port}/"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=seconds + 60,
    ).stdout
    cpu = proxy.cpu() - before
    proxy.check()
    requests = int(re.search(r"(\d+) requests in", run)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", run)
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", run)
    errors = int(bad[1]) if bad else 0
    if socket_errors:
        # wrk counts the end of a connection that was to end as a read error.
        counts = [int(count) for count in socket_errors.groups()]
        errors += counts[0] + counts[2] + counts[3] + (0 if environment.get("CLOSE") else counts[1])
    return {
        "cpu_us": cpu / max(requests, 1) * 1e6,
        "pushes_per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", run)[1]),
        "p50_us": microseconds(re.search(r"50%\s+(\S+)", run)[1]),
        "p99_us": microseconds(re.search(r"99%\s+(\S+)", run)[1]),
        "resident_kb": proxy.resident(),
        "errors": errors,
    }


def run_scenario(proxies, name, seconds, rounds):
    connections, environment, target = SCENARIOS[name]
    runs = {proxy.name: [] for proxy in proxies}
    for _ in range(rounds):
        for proxy in proxies:
            runs[proxy.name].append(measure(proxy, connections, environment, seconds))
    result = {
        proxy: {key: statistics.median(run[key] for run in rows) for key in rows[0]} | {"errors": sum(r["errors"] for r in rows)}
        for proxy, rows in runs.items()
    }
    best = min(figures["cpu_us"] for proxy, figures in result.items() if proxy != "shardd")
    print(f"\n{name} (target {target:.2f})")
    print(f"  {'':8} {'CPU us':>8} {'ratio':>6} {'pushes/s':>9} {'p50 us':>8} {'p99 us':>8} {'RSS MB':>7} {'errors':>7}")
    for proxy, figures in result.items():
        figures["ratio"] = figures["cpu_us"] / best
        print(
            f"  {proxy:8} {figures['cpu_us']:8.2f} {figures['ratio']:6.2f} {figures['pushes_per_second']:9.0f} "
            f"{figures['p50_us']:8.0f} {figures['p99_us']:8.0f} {figures['resident_kb'] / 1024:7.1f} {figures['errors']:7.0f}",
            flush=True,
        )
    return {"target": target, **result}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the core scenarios, in about a minute")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--shardd", default=str(ROOT / ".build/release/shardd"))
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.scenario = 2, 3, options.scenario or QUICK
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-o", WORK / "stub_shard", HERE / "stub_shard.c"], check=True)
    stub = subprocess.Popen(["taskset", "-c", "1", WORK / "stub_shard", str(SHARD_PORT), str(SHARDS)])
    proxies = []
    try:
        proxies = start(options.shardd)
        time.sleep(1)
        for proxy in proxies:
            proxy.check()
        results = {
            name: run_scenario(proxies, name, options.seconds, options.rounds)
            for name in options.scenario or SCENARIOS
        }
    finally:
        for child in [proxy.child for proxy in proxies] + [stub]:
            child.terminate()
            child.wait()
    (WORK / "peers.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {WORK / 'peers.json'}")


main()
