"""What is measured: each scenario's load and setting, who takes part, and the targets that shardd is held to."""

import dataclasses

from .load import Load
from .proxies import PEERS, Setting

ALL = ("shardd", *PEERS)


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    load: Load = Load()
    setting: Setting = Setting()
    proxies: tuple = ALL
    # The most CPU per push that is wanted, over the best peer's.
    cpu_target: float = None
    idle_connections: int = 0
    status: int = 200


SCENARIOS = [
    Scenario("keepalive-1", "1 connection", Load(connections=1), cpu_target=0.95),
    Scenario("keepalive-8", "8 connections", Load(connections=8), cpu_target=0.90),
    Scenario("keepalive-64", "64 connections", Load(connections=64), cpu_target=0.70),
    Scenario("keepalive-512", "512 connections", Load(connections=512), cpu_target=0.70),
    Scenario("new-connections", "a new connection per push", Load(keep_alive=False), cpu_target=0.85),
    Scenario("body-16k", "bodies of 16 kB", Load(body_bytes=16_000), cpu_target=0.90),
    Scenario("body-200k", "bodies of 200 kB", Load(body_bytes=200_000, groups=50), cpu_target=1.0),
    Scenario("shards-30", "30 shards", setting=Setting(shards=30)),
    Scenario("shards-300", "300 shards", setting=Setting(shards=300)),
]
QUICK = ["keepalive-1", "keepalive-8", "keepalive-64", "keepalive-512", "new-connections"]
