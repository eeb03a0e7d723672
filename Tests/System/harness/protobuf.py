"""Metric families as delimited protobuf messages, for what a push in the text format cannot say (counts above 2^53)."""

import struct

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
TYPES = ("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM")
# The field of a metric's value, by the metric's type.
VALUE_FIELDS = {"GAUGE": 2, "COUNTER": 3, "SUMMARY": 4, "UNTYPED": 5, "HISTOGRAM": 7}


def varint(number):
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def integer(field, number):
    return varint(field << 3) + varint(number)


def signed(field, number):
    return integer(field, number << 1 if number >= 0 else (-number << 1) - 1)


def double(field, number):
    return varint(field << 3 | 1) + struct.pack("<d", number)


def message(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def simple(number):
    """The value of a counter, a gauge or an untyped metric."""
    return double(1, number)


def summary(count, total, quantiles=()):
    encoded = integer(1, count) + double(2, total)
    return encoded + b"".join(message(3, double(1, quantile) + double(2, value)) for quantile, value in quantiles)


def histogram(count, total, buckets=()):
    encoded = integer(1, count) + double(2, total)
    return encoded + b"".join(message(3, integer(1, below) + double(2, bound)) for bound, below in buckets)


def native_histogram(count, total, deltas, schema=3):
    """One run of positive buckets, from the first on, each with the difference of its count to that before."""
    encoded = integer(1, count) + double(2, total) + signed(5, schema) + double(6, 1e-128) + integer(7, 0)
    encoded += message(12, signed(1, 0) + integer(2, len(deltas)))
    return encoded + b"".join(signed(13, delta) for delta in deltas)


def family(name, kind, metrics, help=None):
    """`metrics` are pairs of labels, a dictionary, and a value as encoded by the functions above."""
    encoded = message(1, name)
    if help is not None:
        encoded += message(2, help)
    encoded += integer(3, TYPES.index(kind))
    for labels, value in metrics:
        pairs = b"".join(message(1, message(1, label) + message(2, text)) for label, text in labels.items())
        encoded += message(4, pairs + message(VALUE_FIELDS[kind], value))
    return varint(len(encoded)) + encoded
