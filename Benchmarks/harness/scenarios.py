"""What is measured: each scenario's load and setting, who takes part, and the targets that shardd is held to."""

import dataclasses

from .load import Load
from .proxies import CHECKS, PEERS, Setting

ALL = ("shardd", *PEERS)
# The proxy alone on one core; wrk and the stub shard on the other.
PROXY_CORES = "0"
LOAD_CORES = "1"
BOTH_CORES = "0,1"
# Pauses that make about 16,000 pushes/s of 64 and of 512 connections: what each proxy here can do with ease, so that
# latencies are those of an equal load.
EQUAL_64 = (2, 6)
EQUAL_512 = (24, 40)


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    load: Load = Load()
    setting: Setting = Setting()
    proxies: tuple = ALL
    # The most CPU per push that is wanted, over the best peer's.
    cpu_target: float = None
    # The same for shardd that checks pushes over all shards.
    full_target: float = None
    # Whether shardd's p99 is to be no worse than the best peer's, which only an equal load can tell.
    has_equal_load: bool = False
    # Whether pushes/s are to be no fewer than the best peer's.
    has_rate_target: bool = False
    idle_connections: int = 0
    # Whether the membership changes every second.
    churn: bool = False
    status: int = 200
    proxy_cores: str = PROXY_CORES
    load_cores: str = LOAD_CORES
    # How many times the rounds of others it gets.
    more_rounds: int = 1


def _main(name, title, load, cpu_target, setting=Setting(), more_rounds=1, full_target=None):
    return Scenario(
        name,
        title,
        load,
        setting,
        ALL + tuple(CHECKS) if full_target else ALL,
        cpu_target=cpu_target,
        full_target=full_target,
        has_rate_target=True,
        more_rounds=more_rounds,
    )


def _two_cores(name, title, load, workers):
    setting = Setting(workers=workers)
    return Scenario(name, title, load, setting, proxy_cores=BOTH_CORES, load_cores=BOTH_CORES)


LARGE_BODIES = Setting(buffer_bytes=32_768)
REDIRECT = Setting(mode="redirect")
EQUAL_LOAD = Load(delay=EQUAL_64)
SCENARIOS = [
    # Where the cores wait for each other the proxies differ less than two rounds of one of them do.
    _main("keepalive-1", "1 connection", Load(connections=1), 0.95, more_rounds=4),
    _main("keepalive-8", "8 connections", Load(connections=8), 0.90, more_rounds=4),
    _main("keepalive-64", "64 connections", Load(connections=64), 0.70, full_target=0.75),
    _main("keepalive-512", "512 connections", Load(connections=512), 0.70),
    _main("new-connections", "a new connection per push", Load(keep_alive=False), 0.85),
    _main("body-16k", "bodies of 16 kB", Load(body_bytes=16_000), 0.90, LARGE_BODIES, full_target=2.0),
    _main("body-200k", "bodies of 200 kB", Load(body_bytes=200_000, groups=50), 1.0, LARGE_BODIES),
    Scenario("equal-64", "64 connections, about 16,000 pushes/s", EQUAL_LOAD, has_equal_load=True),
    Scenario(
        "equal-512",
        "512 connections, about 16,000 pushes/s",
        Load(connections=512, delay=EQUAL_512),
        has_equal_load=True,
    ),
    Scenario("idle-10000", "10,000 idle connections, 64 busy", idle_connections=10_000),
    Scenario("shards-30", "30 shards", setting=Setting(shards=30)),
    Scenario("shards-300", "300 shards", setting=Setting(shards=300)),
    Scenario("redirect", "redirecting", setting=REDIRECT, proxies=("shardd", "nginx", "haproxy"), status=307),
    Scenario("steady-30", "30 shards, the same ones throughout", EQUAL_LOAD, Setting(shards=30), ("shardd",)),
    Scenario(
        "churn-30", "30 or 29 shards, another each second", EQUAL_LOAD, Setting(shards=30), ("shardd",), churn=True
    ),
    Scenario("steady-300", "300 shards, the same ones throughout", EQUAL_LOAD, Setting(shards=300), ("shardd",)),
    Scenario(
        "churn-300", "300 or 299 shards, another each second", EQUAL_LOAD, Setting(shards=300), ("shardd",), churn=True
    ),
    _two_cores("workers-1", "1 worker, two cores shared with the load", Load(), 1),
    _two_cores("workers-2", "2 workers, two cores shared with the load", Load(), 2),
    # A load that costs little, so that the cores are the proxy's; wrk's latencies mean nothing then.
    _two_cores("workers-1-pipelined", "1 worker, 16 pushes at a time", Load(pipelined=16), 1),
    _two_cores("workers-2-pipelined", "2 workers, 16 pushes at a time", Load(pipelined=16), 2),
    _two_cores("workers-1-new", "1 worker, a new connection per push", Load(keep_alive=False), 1),
    _two_cores("workers-2-new", "2 workers, a new connection per push", Load(keep_alive=False), 2),
]
QUICK = ["keepalive-1", "keepalive-8", "keepalive-64", "keepalive-512", "new-connections"]
