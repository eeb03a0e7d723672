"""The proxies that are compared: how each is configured from its template in peers/, and started."""

import dataclasses
import pathlib

from . import places
from .processes import Process

PEERS = ("nginx", "haproxy", "envoy")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a scenario asks of a proxy."""

    shards: int = 3
    mode: str = "forward"
    workers: int = 1


@dataclasses.dataclass(frozen=True)
class Kind:
    port: int
    template: str
    # One line a shard of the template's @SERVERS@.
    server_line: str
    command: object


KINDS = {
    "shardd": Kind(18010, "shardd.yml", "", lambda c, s, b: [b or places.SHARDD, f"--config.file={c}"]),
    "nginx": Kind(
        18020,
        "nginx.conf",
        "        server {host}:{port};",
        lambda c, s, b: ["/usr/sbin/nginx", "-c", c, "-p", c.parent],
    ),
    "haproxy": Kind(
        18030, "haproxy.cfg", "    server {host} {host}:{port}", lambda c, s, b: ["/usr/sbin/haproxy", "-f", c, "-db"]
    ),
    "envoy": Kind(
        18040,
        "envoy.yaml",
        "            - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}",
        lambda c, s, b: [
            places.ENVOY,
            "-c",
            c,
            "--concurrency",
            s.workers,
            "--disable-hot-restart",
            "--log-level",
            "error",
        ],
    ),
}


class Proxy:
    """One proxy, which listens once it is made."""

    def __init__(self, name, setting, cores, kind=None, binary=None, port=None):
        self.name = name
        self.kind = KINDS[kind or name]
        self.port = port or self.kind.port
        self.setting = setting
        self.work = places.WORK / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.configuration = self.work / self.kind.template
        self.configure(places.shard_hosts(setting.shards))
        command = self.kind.command(self.configuration, setting, binary)
        self.process = Process(name, command, cores, self.work / "output.log")
        self.process.wait_until_listening(places.PROXY_HOST, self.port)

    @property
    def url(self):
        return f"http://{places.PROXY_HOST}:{self.port}/"

    def configure(self, hosts):
        line = self.kind.server_line
        values = {
            "LISTEN": f"{places.PROXY_HOST}:{self.port}",
            "HOST": places.PROXY_HOST,
            "PORT": self.port,
            "MODE": self.setting.mode,
            "WORKERS": self.setting.workers,
            "WORK": self.work,
            "SHARD_PORT": places.SHARD_PORT,
            "SHARDS": ", ".join(hosts),
            "RING_SIZE": 500 * len(hosts),
            "SERVERS": "\n".join(line.format(host=host, port=places.SHARD_PORT) for host in hosts),
        }
        text = (places.BENCHMARKS / "peers" / self.kind.template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        pathlib.Path(self.configuration).write_text(text)
