"""Random requests that get in each other's way: few groups, few names, of any type, in either format.

What shardd's guard refuses although a Pushgateway takes it is left out, as there the two differ by intent.
"""

import gzip
from typing import NamedTuple

from . import protobuf
from .protobuf import CONTENT_TYPE, TYPES, VALUE_FIELDS, integer, message, varint

# More of those whose series can also come from another group, by labels in the body.
PATHS = [
    "/metrics/job/a", "/metrics/job/a", "/metrics/job/a/instance/i", "/metrics/job/a/x/1", "/metrics/job/a/x/2",
    "/metrics/job/a/instance/i/x/1", "/metrics/job/a/x@base64/=", "/metrics/job/b", "/metrics/job/b/x/1",
    "/metrics/job/a/quantile/0.5",
]  # fmt: skip
# The type that a name has most often: were all types as likely, hardly any push would be taken.
NAMES = {
    "m": "summary", "m_count": "gauge", "m_sum": "counter", "m_bucket": "untyped", "s": "histogram", "s_sum": "gauge",
    "s_bucket": "untyped", "s_count": "summary", "s_count_sum": "gauge", "n": "gauge", "k": "counter", "u": "untyped",
}  # fmt: skip
# Pushgateway has families of these names itself, the last one as a summary's part.
OWN_NAMES = {"go_goroutines": "gauge", "process_open_fds": "gauge", "go_gc_duration_seconds_count": "untyped"}
LABELS = [
    {}, {}, {}, {"x": "1"}, {"x": "2"}, {"x": ""}, {"instance": "i"}, {"instance": ""}, {"instance": "i", "x": "1"},
    {"job": "z"}, {"y": "1"}, {"y": "", "x": "1"}, {"job": "b", "y": "1"},
]  # fmt: skip
# The text format knows only the first one. The last three are bad where they come twice, and a quantile in a summary.
BAD_LABELS = [("__x", "1"), ("x-y", "1"), ("", "1"), ("x", "1"), ("job", "a"), ("quantile", "1")]
# What the text format's parser refuses itself, with and without a check: such a push leaves no trace.
GARBAGE = [b'm{x="1"} abc\n', b"# TYPE m gauge\n# TYPE m gauge\nm 1\n", b'm{x="1",x="1"} 1\n']


class Push(NamedTuple):
    method: str
    path: str
    # As it was before it was compressed.
    body: bytes
    is_protobuf: bool = False
    is_gzip: bool = False

    def sent(self):
        """Method, path, body and headers."""
        headers = [("Content-Type", CONTENT_TYPE)] * self.is_protobuf + [("Content-Encoding", "gzip")] * self.is_gzip
        return self.method, self.path, gzip.compress(self.body) if self.is_gzip else self.body, headers

    def __str__(self):
        how = " protobuf" * self.is_protobuf + " gzip" * self.is_gzip
        return f"{self.method} {self.path}{how} {self.body!r}"


class Metric(NamedTuple):
    # A list of pairs, as a label may come twice.
    labels: list
    number: int
    timestamp: object = None


def random_push(chance, number):
    path = chance.choice(PATHS)
    dice = chance.random()
    if dice < 0.16:
        return Push("DELETE", path, b"")
    method = chance.choice(["PUT", "POST"])
    if dice < 0.19:
        return Push(method, path, b"")
    if dice < 0.21:
        return Push(method, path, chance.choice(GARBAGE))
    names = chance.sample(sorted(NAMES), chance.choice([1, 1, 1, 2, 2, 3]))
    if dice < 0.25:
        names += [chance.choice(sorted(OWN_NAMES))]
    is_protobuf = chance.random() < 0.4
    if is_protobuf and chance.random() < 0.05:
        # The later of two families of a name counts.
        names.append(names[0])
    family = protobuf_family if is_protobuf else text_family
    body = b"".join(random_family(chance, name, number, family) for name in names)
    return Push(method, path, body, is_protobuf, chance.random() < 0.25)


def random_family(chance, name, number, family):
    kind = {**NAMES, **OWN_NAMES}[name] if chance.random() < 0.8 else chance.choice(TYPES).lower()
    metrics = []
    for _ in range(chance.choice([1, 1, 1, 2])):
        labels = list(chance.choice(LABELS).items())
        if chance.random() < 0.04:
            labels.append(chance.choice(BAD_LABELS if family is protobuf_family else BAD_LABELS[:1]))
        metrics.append(Metric(labels, number, chance.choice([0, 1000]) if chance.random() < 0.012 else None))
    return family(name, kind, metrics)


def text_family(name, kind, metrics):
    # An untyped family without a TYPE line may become part of a summary or histogram in front of it.
    text = f"# TYPE {name} {kind}\n" if kind != "untyped" or metrics[0].number % 2 else ""
    return (text + "".join(line for metric in metrics for line in text_lines(name, kind, metric))).encode()


def text_lines(name, kind, metric):
    number = metric.number
    parts = {
        "summary": [("", ("quantile", "0.5"), number), ("_sum", None, number), ("_count", None, number)],
        "histogram": [
            ("_bucket", ("le", "1"), number), ("_bucket", ("le", "+Inf"), number + 1),
            ("_sum", None, number), ("_count", None, number + 1),
        ],
    }  # fmt: skip
    for suffix, extra, value in parts.get(kind, [("", None, number)]):
        labels = metric.labels + ([extra] if extra else [])
        inside = ",".join(f'{label}="{text}"' for label, text in labels)
        stamp = "" if metric.timestamp is None else f" {metric.timestamp}"
        yield f"{name}{suffix}{{{inside}}} {value}{stamp}\n"


def protobuf_family(name, kind, metrics):
    kind = kind.upper()
    encoded = message(1, name)
    # A family without a type is a counter.
    if kind != "COUNTER" or metrics[0].number % 2:
        encoded += integer(3, TYPES.index(kind))
    for labels, number, timestamp in metrics:
        values = {
            "SUMMARY": protobuf.summary(number, number, [(0.5, number)]),
            "HISTOGRAM": protobuf.histogram(number + 1, number, [(1, number)]),
        }
        pairs = b"".join(message(1, message(1, label) + message(2, text)) for label, text in labels)
        stamp = b"" if timestamp is None else integer(6, timestamp)
        value = values.get(kind, protobuf.simple(number))
        encoded += message(4, pairs + message(VALUE_FIELDS[kind], value) + stamp)
    return varint(len(encoded)) + encoded
