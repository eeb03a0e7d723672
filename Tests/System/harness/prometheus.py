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
global: {{{settings}}}
{rules}scrape_configs:
  - job_name: pushgateway
    honor_labels: true
    {discovery}
"""


def by_consul(consul, name="pushgateway", refresh="1s"):
    """All instances, not only those whose checks pass: a shard in maintenance has groups until it is drained."""
    return f"consul_sd_configs: [{{server: '{consul.address.text}', services: [{name}]{_refresh(refresh)}}}]"


def by_http(replica, refresh="1s"):
    return f"http_sd_configs: [{{url: '{replica.address.url}/api/v1/sd'{_refresh(refresh)}}}]"


def _refresh(interval):
    """None: Prometheus's default."""
    return f", refresh_interval: {interval}" if interval else ""


class Prometheus(Process):
    def __init__(self, directory, name, discovery, interval="1s", program="prometheus", alerts=()):
        """`interval` of scrapes and of evaluations, or None for the default; `alerts`: (name, expression)."""
        self.address = new_address()
        folder = directory / f"prometheus-{name}"
        folder.mkdir()
        file = folder / "prometheus.yml"
        settings = ", ".join(
            f"{what}: {interval}" for what in ("scrape_interval", "scrape_timeout", "evaluation_interval") if interval
        )
        rules = ""
        if alerts:
            found = [{"alert": alert, "expr": expression} for alert, expression in alerts]
            (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "alerts", "rules": found}]}))
            rules = "rule_files: [rules.yml]\n"
        file.write_text(CONFIGURATION.format(discovery=discovery, settings=settings, rules=rules))
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

    def query_range(self, expression, start, end, step=1):
        """{labels as a frozenset of pairs: {time: value}}"""
        query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": step})
        answer = json.loads(ask(self.address, "GET", f"/api/v1/query_range?{query}", timeout=60).body)
        assert answer["status"] == "success", answer
        return {
            frozenset(series["metric"].items()): {time: float(value) for time, value in series["values"]}
            for series in answer["data"]["result"]
        }

    def samples(self, selector, period="1h"):
        """Raw samples as stored: {labels as a frozenset of pairs, __name__ among them: [(time, value)]}"""
        return {
            frozenset(series["metric"].items()): [(time, float(value)) for time, value in series["values"]]
            for series in self.query(f"{selector}[{period}]")
        }

    def targets(self):
        """The addresses that it scrapes, and that were up at the last scrape."""
        return sorted(series["metric"]["instance"] for series in self.query("up == 1"))
