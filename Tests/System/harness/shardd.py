"""The shardd under test: the binary that SHARDD names, or the release build."""

import json
import os
import pathlib
import subprocess
import time
import urllib.parse

from prometheus_client.parser import text_string_to_metric_families

from .http import ask
from .net import new_address, wait_until
from .process import Process

ROOT = pathlib.Path(__file__).parents[3]
BINARY = os.environ.get("SHARDD") or str(ROOT / ".build/release/shardd")

# Quick checks and a short grace, so that tests need not wait for what users would not notice.
DEFAULTS = {
    "check": {"interval": "300ms", "timeout": "1s", "fall": 2, "rise": 1},
    "shutdown": {"grace": "5s"},
    "reconcile": {"enabled": False, "overlap": "1s"},
}


def to_yaml(settings, indent=0):
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"{' ' * indent}{key}:", *to_yaml(value, indent + 2)]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{' ' * indent}{key}: [{', '.join(json.dumps(str(item)) for item in value)}]")
        else:
            lines.append(f"{' ' * indent}{key}: {str(value).lower() if isinstance(value, bool) else value}")
    return lines if indent else "\n".join(lines) + "\n"


def run(*arguments, stdin="", timeout=20):
    """Runs a command of shardd's to its end."""
    return subprocess.run(
        [BINARY, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )


class Shardd(Process):
    def __init__(self, directory, settings, arguments=(), address=None, limit_descriptors=None, prefix=()):
        """`prefix`: a command that runs it."""
        self.address = address or new_address()
        # Two replicas may have one address, so a file's name needs more.
        self.config_path = directory / f"shardd-{self.address.text}-{len(list(directory.iterdir()))}.yml"
        self.settings = {"http_listen_addr": f'"{self.address.text}"', **DEFAULTS, **settings}
        self.write_config(self.settings)
        argv = [*prefix, BINARY, f"--config.file={self.config_path}", *arguments]
        super().__init__(f"shardd {self.address.text}", argv, self.config_path.with_suffix(".log"), limit_descriptors)

    def log(self):
        # A thread writes the entries, a moment after what they tell of.
        time.sleep(0.05)
        return super().log()

    def write_config(self, settings):
        """Replaces the file by settings, or by text."""
        text = settings if isinstance(settings, str) else to_yaml(settings)
        self.config_path.write_text(text)

    def change_config(self, **settings):
        self.settings = {**self.settings, **settings}
        self.write_config(self.settings)

    def is_ready(self):
        assert self.is_running, f"{self.name} ended with {self.exit_code}"
        try:
            return self.ask("GET", "/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def wait_ready(self):
        wait_until(self.is_ready, f"{self.name} is ready", every=0.02)
        return self

    def ask(self, method, target, body=b"", headers=(), timeout=15):
        answer = ask(self.address, method, target, body, headers, timeout)
        assert answer.header("Transfer-Encoding") is None and answer.header("Content-Length") is not None, answer
        return answer

    def push(self, path, text="x 1\n", method="PUT", headers=()):
        return self.ask(method, path, text.encode() if isinstance(text, str) else text, headers)

    def json(self, target):
        response = self.ask("GET", target)
        assert response.status == 200, response
        assert response.header("Content-Type").startswith("application/json"), response
        return json.loads(response.body)

    def ring(self):
        return self.json("/api/v1/ring")

    def generation(self):
        return self.ring()["generation"]

    def shards(self):
        """The addresses of the ring's shards."""
        return [shard["address"] for shard in self.ring()["shards"]]

    def states(self):
        return {shard["address"]: shard["state"] for shard in self.ring()["shards"]}

    def locate(self, path):
        return self.json("/api/v1/locate?path=" + urllib.parse.quote(path, safe=""))

    def placement(self, path):
        """Where a push with this path goes now: the shard in the answer to a GET."""
        response = self.ask("GET", path)
        assert response.status == 200, response
        url = response.text.rstrip("\n")
        prefix = "nextUrl:http://"
        assert url.startswith(prefix) and url.endswith(path), response
        return url[len(prefix) : len(url) - len(path)]

    def locate_offline(self, *paths):
        """The shard of each path on the ring as it is now, computed by the command line."""
        result = run("locate", f"--config.file={self.config_path}", "--shards", ",".join(self.shards()), *paths)
        assert result.returncode == 0, result
        return [line.split("\t")[3] for line in result.stdout.splitlines()]

    def metrics(self):
        """{name: {labels as a frozenset of pairs: value}} of shardd's own metrics."""
        found = {}
        for family in text_string_to_metric_families(self.ask("GET", "/metrics").text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def metric(self, name, **labels):
        """The sum of the samples that have at least these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for have, value in self.metrics().get(name, {}).items() if wanted <= have)
