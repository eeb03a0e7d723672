"""The bodies that the fuzzer begins with (Tests/Fuzz/corpus): a tier with `pushes.check: full` answers each as a Pushgateway does."""

import pathlib

from harness.checked import Checked, kind_of
from harness.http import ask
from harness.protobuf import CONTENT_TYPE

# What shardd refuses as it harms a Pushgateway that takes it (docs/PUSHGATEWAY.md), so that the reference is not sent it.
HARMFUL = {
    "protobuf/empty-family",
    "protobuf/empty-message-len0",
    "protobuf/help-non-utf8",
    "protobuf/histogram-with-le-label",
    "protobuf/huge-length",
    "protobuf/length-of-zero-between",
    "protobuf/name-digit",
    "protobuf/name-dot",
    "protobuf/name-newline",
    "protobuf/name-non-utf8",
    "protobuf/no-name",
    "protobuf/push-failure-counter",
    "protobuf/push-failure-empty-family",
    "protobuf/same-family-twice-first-is-bad",
    "protobuf/two-kinds",
    "protobuf/type-5",
    "protobuf/type-5-gauge",
    "protobuf/type-9",
    "text/help-non-utf8",
    "text/push-failure-labelled-gauge",
    "text/push-failure-time-seconds-counter",
    "text/type-gauge-histogram",
}
CORPUS = pathlib.Path(__file__).resolve().parent.parent / "Fuzz/corpus"
HEADERS = {"text": (), "protobuf": [("Content-Type", CONTENT_TYPE)]}


def test_every_body_is_answered_as_by_one_pushgateway(lab):
    checked = Checked(lab, 1)
    different = []
    for file in sorted(CORPUS.glob("*/*")):
        name, push = f"{file.parent.name}/{file.name}", ("PUT", "/metrics/job/corpus", file.read_bytes())
        headers = HEADERS[file.parent.name]
        if name in HARMFUL:
            assert ask(checked.replica.address, *push, headers).status == 400, name
            continue
        answer, expected = checked.both(*push, headers)
        if kind_of(answer) != kind_of(expected):
            different.append(f"{name}: {answer}, should be {expected}")
    assert not different, "\n".join(different)
