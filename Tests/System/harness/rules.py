"""The rules by which a Pushgateway refuses pushes, each with requests that show it: what its check has been seen to do.

In paths {a} and {b} are jobs whose groups lie on different shards where there are several, as do {a} and {a}/x/1.
"""

import itertools
from typing import NamedTuple

from .colliding import Metric, protobuf_family
from .protobuf import CONTENT_TYPE

A, B, AX = "/metrics/job/{a}", "/metrics/job/{b}", "/metrics/job/{a}/x/1"
HOLDER_A, HOLDER_B = ('job="{a}"', "{shard_a}"), ('job="{b}"', "{shard_b}")


class Step(NamedTuple):
    method: str
    path: str
    body: bytes
    # "taken", or a status.
    answer: object
    # What the tier's answer has to name.
    told: tuple = ()

    @property
    def headers(self):
        return [("Content-Type", CONTENT_TYPE)] if self.body[1:2] == b"\n" else []


class Case(NamedTuple):
    rule: str
    steps: list


class Apart:
    """Jobs for {a} and {b}, and which shards have their groups."""

    def __init__(self, checked):
        count = min(len(checked.shards), 2)
        jobs = [f"j{number}" for number in range(200)]
        places = {path: checked.place(path) for job in jobs for path in (f"/metrics/job/{job}", f"/metrics/job/{job}/x/1")}

        def differ(*paths):
            return len({places[f"/metrics/job/{path}"] for path in paths}) == count

        self.a = next(job for job in jobs if differ(job, f"{job}/x/1"))
        self.b = next(job for job in jobs if job != self.a and differ(self.a, job))
        self.values = {"a": self.a, "b": self.b}
        self.values["shard_a"], self.values["shard_b"] = (places[f"/metrics/job/{job}"] for job in (self.a, self.b))
        self.values["shard_ax"] = places[f"/metrics/job/{self.a}/x/1"]

    def path(self, step):
        return step.path.format(**self.values)

    def parts_told(self, step):
        return [part.format(**self.values) for part in step.told]


def text(name, kind, labels=""):
    """One family of one metric."""
    parts = {"summary": ["_sum", "_count"], "histogram": ["_sum", "_count"]}.get(kind, [""])
    return f"# TYPE {name} {kind}\n" + "".join(f"{name}{part}{labels} 1\n" for part in parts)


def step(method, path, body, answer, told):
    body = body.encode() if isinstance(body, str) else body
    return Step(method, path, body, answer, told)


def taken(method, path, body=b""):
    return step(method, path, body, "taken", ())


def refused(method, path, body, *told):
    return step(method, path, body, 400, told)


def binary(name, kind, *labels, timestamp=None):
    """A family as protobuf, with a metric for each list of pairs."""
    return protobuf_family(name, kind, [Metric(list(pairs), 1, timestamp) for pairs in labels])


TYPES = [
    Case("a type that differs from another group's", [
        taken("PUT", A, text("m", "gauge")),
        refused("PUT", B, text("m", "counter"), "m", *HOLDER_A),
        refused("POST", B, text("m", "summary"), "m", *HOLDER_A),
        refused("POST", B, "n 1\nm 1\n", "m", *HOLDER_A),
        taken("POST", B, text("m", "gauge")),
    ]),
    Case("PUT replaces the group's own type", [
        taken("PUT", A, text("m", "gauge")), taken("PUT", A, text("m", "counter")), taken("PUT", A, text("m", "histogram")),
        refused("PUT", B, text("m", "counter"), "m", *HOLDER_A),
        taken("PUT", B, text("m", "histogram")),
    ]),
    Case("POST replaces the group's own type of that name", [
        taken("PUT", A, text("m", "gauge")), taken("POST", A, text("m", "counter")), taken("POST", A, "m 1\n"),
        refused("PUT", B, text("m", "gauge"), "m", *HOLDER_A),
    ]),
    Case("a type that two groups have is changed by neither", [
        taken("PUT", A, text("m", "gauge")), taken("PUT", B, text("m", "gauge")),
        refused("PUT", A, text("m", "counter"), "m", *HOLDER_B),
        refused("POST", B, text("m", "counter"), "m", *HOLDER_A),
    ]),
    Case("the other type is taken once the holder is deleted", [
        taken("PUT", A, text("m", "gauge")), refused("PUT", B, text("m", "counter"), "m", *HOLDER_A),
        taken("DELETE", A), taken("PUT", B, text("m", "counter")),
        refused("PUT", A, text("m", "gauge"), "m", *HOLDER_B),
    ]),
    Case("the other type is taken once PUT has left the name out", [
        taken("PUT", A, text("m", "gauge")), taken("POST", A, "n 1\n"),
        refused("PUT", B, text("m", "counter"), "m", *HOLDER_A),
        taken("PUT", A, "n 1\n"), taken("PUT", B, text("m", "counter")),
    ]),
    Case("the other type is taken once an empty PUT has emptied the holder", [
        taken("PUT", A, text("m", "gauge")), taken("PUT", A), taken("PUT", B, text("m", "counter")),
    ]),
    Case("the type of a refused push does not count", [
        taken("PUT", A, text("k", "gauge")), refused("PUT", B, text("k", "counter") + text("m", "gauge"), "k", *HOLDER_A),
        taken("PUT", A + "/y/1", text("m", "counter")),
    ]),
    Case("a HELP that differs is taken", [
        taken("PUT", A, "# HELP m one\nm 1\n"), taken("PUT", B, "# HELP m other\nm 1\n"),
    ]),
]  # fmt: skip

SUFFIXES = [
    Case("names that end like the parts of a stored summary", [
        taken("PUT", A, text("m", "summary")),
        refused("PUT", B, text("m_count", "gauge"), "m_count", *HOLDER_A),
        refused("PUT", B, 'm_sum{z="1"} 1\n', "m_sum", *HOLDER_A),
        taken("PUT", B, "m_bucket 1\n"),
    ]),
    Case("names that end like the parts of a stored histogram", [
        taken("PUT", A, text("m", "histogram")),
        refused("PUT", B, text("m_count", "summary"), "m_count", *HOLDER_A),
        refused("POST", B, "m_sum 1\n", "m_sum", *HOLDER_A),
        refused("PUT", B, "m_bucket 1\n", "m_bucket", *HOLDER_A),
    ]),
    Case("a summary whose parts are names that are stored", [
        taken("PUT", A, text("m_count", "gauge")),
        refused("PUT", B, text("m", "summary"), "m", *HOLDER_A),
        refused("PUT", B, text("m", "histogram"), "m", *HOLDER_A),
        taken("PUT", B, text("m", "gauge")),
    ]),
    Case("a histogram whose buckets are a name that is stored", [
        taken("PUT", A, "m_bucket 1\n"),
        refused("PUT", B, text("m", "histogram"), "m", *HOLDER_A),
        taken("PUT", B, text("m", "summary")),
    ]),
    Case("PUT replaces the group's own part, and POST does not", [
        taken("PUT", A, "m_count 1\n"), refused("POST", A, text("m", "summary"), "m"), taken("PUT", A, text("m", "summary")),
        refused("POST", A, "m_count 1\n", "m_count"), taken("PUT", A, "m_count 1\n"),
    ]),
    Case("both in one body", [
        refused("PUT", A, text("m_count", "counter") + text("m", "summary"), "m"),
        taken("PUT", A, text("m_count", "counter") + text("m", "gauge")),
    ]),
    Case("parts of parts", [
        taken("PUT", A, text("m", "gauge")), taken("PUT", B, text("m_count", "summary")),
        refused("PUT", A, text("m", "histogram"), "m", *HOLDER_B),
        refused("PUT", A, "m_count_sum 1\n", "m_count_sum", *HOLDER_B),
    ]),
]  # fmt: skip

HOLDER_AX = ('job="{a}"', 'x="1"', "{shard_ax}")
SERIES = [
    Case("one series from two groups, by a label in the body", [
        taken("PUT", AX, "m 1\n"), refused("PUT", A, 'm{x="1"} 1\n', "m", *HOLDER_AX),
        taken("PUT", A, 'm{x="2"} 1\n'), taken("POST", AX, "m 2\n"),
        refused("POST", A, 'n 1\nm{x="3"} 1\nm{x="1"} 1\n', "m", *HOLDER_AX),
    ]),
    Case("one series from two groups, by a label of the key", [
        taken("PUT", A, 'm{x="1"} 1\n'), refused("PUT", AX, "m 1\n", "m", *HOLDER_A),
        taken("PUT", AX, 'm{y="1"} 1\n'), taken("DELETE", A), taken("PUT", AX, "m 1\n"),
        refused("PUT", A, 'm{x="1"} 1\n', "m", *HOLDER_AX),
    ]),
    Case("one series from two groups, by the instance", [
        taken("PUT", A + "/instance/i", "m 1\n"), refused("PUT", A, 'm{instance="i"} 1\n', "m", 'job="{a}"', 'instance="i"'),
        taken("PUT", A, 'm{instance=""} 1\n'), taken("POST", A, "m 1\n"),
    ]),
    Case("one series of a histogram from two groups", [
        taken("PUT", AX, text("h", "histogram")), refused("PUT", A, text("h", "histogram", '{x="1"}'), "h", *HOLDER_AX),
    ]),
    Case("an empty label of a key is not as none", [
        taken("PUT", A + "/x@base64/=", "m 1\n"), taken("PUT", A, "m 1\n"),
        refused("PUT", A, 'm{x=""} 1\n', "m", 'job="{a}"'),
    ]),
    Case("a series twice in a body", [
        refused("PUT", A, "m 1\nm 2\n", "m"), refused("PUT", A, 'm 1\nm{instance=""} 2\n', "m"),
        refused("PUT", A, 'm{job="1"} 1\nm{job="2"} 2\n', "m"), refused("PUT", AX, 'm{x="2"} 1\nm 2\n', "m"),
        taken("PUT", A, 'm{x=""} 1\nm 2\n'),
    ]),
]  # fmt: skip

BODIES = [
    Case("a timestamp", [
        refused("PUT", A, "m 1 1000\n"), refused("POST", A, "n 1\nm 1 0\n"),
        refused("PUT", A, binary("m", "gauge", [], timestamp=0)), refused("PUT", A, "push_time_seconds 1 5\n"),
        taken("PUT", A, "push_time_seconds 1\n"),
    ]),
    Case("a label twice", [
        refused("PUT", A, 'm{x="1",x="2"} 1\n'), refused("PUT", A, binary("m", "gauge", [("x", "1"), ("x", "2")]), "m"),
        refused("POST", A, binary("m", "gauge", [("job", "1"), ("job", "2")]), "m"),
        taken("POST", A, binary("m", "gauge", [("job", "1"), ("x", "2")])),
    ]),
    Case("a label's name", [
        refused("PUT", A, 'm{__x="1"} 1\n', "m"),
        *(refused("PUT", A, binary("m", "gauge", [(name, "1")]), "m") for name in ("__x", "__name__", "", "x-y", "1x")),
    ]),
    Case("a quantile on a summary", [
        refused("PUT", A + "/quantile/0.5", text("s", "summary"), "s"),
        refused("PUT", A, binary("s", "summary", [("quantile", "1")]), "s"),
        taken("PUT", A + "/quantile/0.5", text("s", "gauge")), taken("PUT", B, text("g", "gauge", '{quantile="1"}')),
        taken("PUT", B, text("h", "histogram", '{quantile="1"}')),
    ]),
    Case("the later of two families of a name", [
        taken("PUT", A, text("m", "gauge")), taken("PUT", B, binary("m", "counter", []) + binary("m", "gauge", [])),
        refused("PUT", B, binary("m", "gauge", []) + binary("m", "counter", []), "m", *HOLDER_A),
    ]),
]  # fmt: skip

OWN = [
    Case("a type or part that disagrees with Pushgateway's own families", [
        refused("PUT", A, text("go_goroutines", "counter"), "go_goroutines"),
        refused("PUT", A, text("process_cpu_seconds_total", "gauge"), "process_cpu_seconds_total"),
        refused("PUT", A, "pushgateway_build_info 1\n", "pushgateway_build_info"),
        refused("PUT", A, "go_gc_duration_seconds_count 1\n", "go_gc_duration_seconds_count"),
        refused("PUT", A, "pushgateway_http_push_size_bytes_sum 1\n", "pushgateway_http_push_size_bytes_sum"),
    ]),
    Case("families like Pushgateway's own", [
        taken("PUT", A, text("go_goroutines", "gauge")), taken("POST", A, text("process_cpu_seconds_total", "counter")),
        taken("POST", A, text("pushgateway_build_info", "gauge")), taken("POST", A, "go_gc_duration_seconds_bucket 1\n"),
        taken("POST", B, "# HELP go_goroutines Other.\n" + text("go_goroutines", "gauge")),
        refused("POST", B, text("go_goroutines", "untyped"), "go_goroutines"),
    ]),
    Case("a HELP that disagrees with what Pushgateway counts by handler", [
        # Each Pushgateway has this family from its first push on.
        taken("PUT", A, "n 1\n"), taken("PUT", B, "n 1\n"),
        refused("PUT", A, text("pushgateway_http_requests_total", "counter"), "pushgateway_http_requests_total"),
        taken("PUT", A, "# HELP pushgateway_http_requests_total Total HTTP requests processed by the Pushgateway, "
              "excluding scrapes.\n" + text("pushgateway_http_requests_total", "counter")),
    ]),
]  # fmt: skip

CASES = list(itertools.chain(TYPES, SUFFIXES, SERIES, BODIES, OWN))
