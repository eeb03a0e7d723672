"""The proxies that are compared: how each is configured from its template in peers/, and started."""

import dataclasses

from . import places
from .processes import Process, require_free

PEERS = ("nginx", "haproxy", "envoy")
# shardd with another setting of pushes.check than the default.
CHECKS = {"shardd-off": "off", "shardd-full": "full"}
# Where shards are, in each template's language: one line a shard, in place of @SERVERS@.
SERVER_LINES = {
    "nginx.conf": "        server {host}:{port};",
    "nginx-redirect.conf": "        {percent:.2f}% {host}:{port};",
    "haproxy.cfg": "    server {host} {host}:{port}",
    "haproxy-redirect.cfg": "    http-request return status 307 hdr location http://{host}:{port}%[pathq]"
    " if {{ var(txn.shard) -m int {index} }}",
    "envoy.yaml": "            - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a scenario asks of a proxy."""

    shards: int = 3
    mode: str = "forward"
    workers: int = 1
    # Of HAProxy: its best is another for large bodies.
    buffer_bytes: int = 16_384
    # Of shardd.
    check: str = "guard"

    @property
    def is_redirect(self):
        return self.mode == "redirect"


@dataclasses.dataclass(frozen=True)
class Kind:
    template: str
    redirect_template: str
    # From the configuration's path and the setting to the arguments.
    arguments: object
    program: object


KINDS = {
    "shardd": Kind("shardd.yml", "shardd.yml", lambda path, _: [f"--config.file={path}"], places.SHARDD),
    "nginx": Kind(
        "nginx.conf", "nginx-redirect.conf", lambda path, _: ["-c", path, "-p", path.parent], "/usr/sbin/nginx"
    ),
    "haproxy": Kind("haproxy.cfg", "haproxy-redirect.cfg", lambda path, _: ["-f", path, "-db"], "/usr/sbin/haproxy"),
    "envoy": Kind(
        "envoy.yaml",
        None,
        lambda path, setting: [
            *("-c", path, "--concurrency", setting.workers),
            *("--disable-hot-restart", "--log-level", "error"),
        ],
        places.ENVOY,
    ),
}


class Proxy:
    """One proxy, which listens once it is made. A name that is no kind's is another shardd, given by its binary."""

    def __init__(self, name, setting, cores, port, binary=None, hosts=None):
        self.name = name
        self.setting = setting
        self.port = port
        kind = KINDS.get(name, KINDS["shardd"])
        self.template = kind.redirect_template if setting.is_redirect else kind.template
        self.work = places.WORK / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.configuration = self.work / self.template
        self.configure(hosts or places.shard_hosts(setting.shards))
        require_free(places.PROXY_HOST, port, name)
        command = [binary or kind.program, *kind.arguments(self.configuration, setting)]
        self.process = Process(name, command, cores, self.work / "output.log")
        self.process.wait_until_listening(places.PROXY_HOST, self.port)

    @property
    def url(self):
        return f"http://{places.PROXY_HOST}:{self.port}/"

    def configure(self, hosts):
        """Writes its configuration for these shards, renamed into place: a reload never sees half of it."""
        values = {
            "LISTEN": f"{places.PROXY_HOST}:{self.port}",
            "HOST": places.PROXY_HOST,
            "PORT": self.port,
            "MODE": self.setting.mode,
            "WORKERS": self.setting.workers,
            "CHECK": CHECKS.get(self.name, self.setting.check),
            "BUFFER": self.setting.buffer_bytes,
            "WORK": self.work,
            "SHARD_PORT": places.SHARD_PORT,
            "SHARDS": ", ".join(hosts),
            "COUNT": len(hosts),
            "RING_SIZE": 500 * len(hosts),
            "SERVERS": self._servers(hosts),
            "LAST": f"{hosts[-1]}:{places.SHARD_PORT}",
        }
        text = (places.BENCHMARKS / "peers" / self.template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        written = self.configuration.with_suffix(".new")
        written.write_text(text)
        written.rename(self.configuration)

    def _servers(self, hosts):
        line = SERVER_LINES.get(self.template, "")
        # split_clients ends with "everything else", which is the last shard's part.
        listed = hosts[:-1] if self.template == "nginx-redirect.conf" else hosts
        percent = 100 / len(hosts)
        return "\n".join(
            line.format(host=host, port=places.SHARD_PORT, index=index, percent=percent)
            for index, host in enumerate(listed)
        )
