"""Where things are, and the loopback addresses that the benchmark keeps to itself."""

import ipaddress
import pathlib

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
# Everything that a run writes.
WORK = ROOT / ".build/bench"
# What make bench keeps, with RECORD=1.
RECORDED = BENCHMARKS / "results"
SHARDD = ROOT / ".build/release/shardd"
ENVOY = WORK / "envoy/envoy/_bin/envoy"

# Each proxy of a run listens on the next port.
PROXY_HOST = "127.78.0.1"
FIRST_PROXY_PORT = 18010
SHARD_PORT = 19091
_FIRST_SHARD = ipaddress.IPv4Address("127.77.0.1")


def shard_hosts(count):
    return [str(_FIRST_SHARD + index) for index in range(count)]
