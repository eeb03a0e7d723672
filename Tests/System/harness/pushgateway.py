"""A real Pushgateway, its groups in memory only unless a file is given."""

import json
import pathlib

from prometheus_client.parser import text_string_to_metric_families

from .http import ask
from .net import new_address, wait_until
from .process import Process
from .scrape import OWN_JOB

# A later one than is installed, for what later ones do otherwise.
NEWEST = pathlib.Path(__file__).parents[3] / ".build/tools/prometheus-pushgateway"


class Pushgateway(Process):
    def __init__(self, directory, host=None, arguments=(), program="prometheus-pushgateway", headers=()):
        """Tests ask it with these headers."""
        self.address = new_address(host)
        self.headers = list(headers)
        argv = [
            str(program),
            f"--web.listen-address={self.address.text}",
            "--persistence.file=",
            *arguments,
        ]
        super().__init__(f"pushgateway {self.address.text}", argv, directory / f"pushgateway-{self.address.text}.log")

    def keep_in(self, file):
        """From its next start on it keeps its groups in a file, in which a push is soon."""
        self.file = pathlib.Path(file)
        self.argv.remove("--persistence.file=")
        self.argv += [f"--persistence.file={file}", "--persistence.interval=20ms"]
        return self

    def wait_persisted(self):
        """Until its file has all that it has taken by now. It is written after each request, a DELETE of nothing too; the
        first time it may have been begun before."""

        def written_at():
            return self.file.stat().st_mtime_ns if self.file.exists() else None

        for _ in range(2):
            before = written_at()
            assert ask(self.address, "DELETE", "/metrics/job/nothing", headers=self.headers).status == 202
            wait_until(lambda: written_at() != before, f"{self.name} has written its file", every=0.005)

    def is_ready(self):
        try:
            return ask(self.address, "GET", "/-/ready", headers=self.headers, timeout=2).status == 200
        except OSError:
            return False

    def wait_ready(self):
        wait_until(self.is_ready, f"{self.name} is ready")
        return self

    def restart(self):
        """Starts it anew on its address, with no groups."""
        self.stop()
        return self.start().wait_ready()

    def metrics_text(self):
        return ask(self.address, "GET", "/metrics").text

    def samples(self):
        """What clients have pushed: {(name, labels as a frozenset of pairs): value}."""
        found = {}
        for family in text_string_to_metric_families(self.metrics_text()):
            for sample in family.samples:
                if sample.labels.get("job", OWN_JOB) != OWN_JOB:
                    found[sample.name, frozenset(sample.labels.items())] = sample.value
        return found

    def groups(self):
        """The grouping labels of every group of clients, each a dictionary."""
        return [labels for labels in self._labels() if labels["job"] != OWN_JOB]

    def marks(self):
        """By which shardd knows the store."""
        return [labels["store"] for labels in self._labels() if labels["job"] == OWN_JOB and "store" in labels]

    def is_member(self):
        """Whether shardd has searched it for groups, and has said so by its mark."""
        return any("tier" in labels for labels in self._labels() if labels["job"] == OWN_JOB)

    def void_marks(self):
        """The numbers of the groups by which shardd tells what was replaced while a shard was away."""
        return [labels["void"] for labels in self._labels() if labels["job"] == OWN_JOB and "void" in labels]

    def _labels(self):
        data = json.loads(ask(self.address, "GET", "/api/v1/metrics", headers=self.headers).text)["data"]
        return [group["labels"] for group in data if "job" in group["labels"]]
