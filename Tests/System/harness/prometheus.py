"""A real Prometheus, and the raw samples that it stored."""

import json
import pathlib
import urllib.parse

from .http import ask
from .net import new_address, wait_until
from .process import Process

# The installed one is built without discovery by Consul, and this one is too old for discovery by HTTP.
WITH_CONSUL = pathlib.Path(__file__).parents[3] / ".build/tools/prometheus"
CONFIGURATION = """\
global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}
scrape_configs:
  - job_name: pushgateway
    honor_labels: true
    {discovery}
"""


def by_consul(consul, name="pushgateway"):
    """All instances, not only those whose checks pass: a shard in maintenance has groups until it is drained."""
    return f"consul_sd_configs: [{{server: '{consul.address.text}', services: [{name}], refresh_interval: 1s}}]"


def by_http(replica):
    return f"http_sd_configs: [{{url: '{replica.address.url}/api/v1/sd', refresh_interval: 1s}}]"


class Prometheus(Process):
    def __init__(self, directory, name, discovery, interval="1s", program="prometheus"):
        self.address = new_address()
        folder = directory / f"prometheus-{name}"
        folder.mkdir()
        file = folder / "prometheus.yml"
        file.write_text(CONFIGURATION.format(discovery=discovery, interval=interval))
        argv = [
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address.text}",
            "--log.level=warn",
        ]
        super().__init__(f"prometheus {name}", argv, directory / f"prometheus-{name}.log")

    def is_ready(self):
        try:
            return ask(self.address, "GET", "/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def wait_ready(self):
        wait_until(self.is_ready, f"{self.name} is ready", 30)
        return self

    def query(self, expression):
        path = "/api/v1/query?query=" + urllib.parse.quote(expression)
        answer = json.loads(ask(self.address, "GET", path, timeout=60).body)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def samples(self, selector, period="10m"):
        """Raw samples as stored: {labels as a frozenset of pairs, __name__ among them: [(time, value)]}"""
        return {
            frozenset(series["metric"].items()): [(time, float(value)) for time, value in series["values"]]
            for series in self.query(f"{selector}[{period}]")
        }

    def targets(self):
        """The addresses that it scrapes, and that were up at the last scrape."""
        return sorted(series["metric"]["instance"] for series in self.query("up == 1"))
