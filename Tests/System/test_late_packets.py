"""Packets between one replica and a shard are lost for some seconds, and flow again: what the replica has given up must not
arrive then. The network is real: the replica is in a namespace of its own."""

import threading
import time

import pytest

from harness.net import wait_until
from harness.shardd import Shardd

NO_PROBES = {"interval": "60s", "timeout": "1s"}


@pytest.mark.parametrize("size", [0, 500_000], ids=["small", "large"])
def test_a_push_that_was_given_up_does_not_overwrite_a_newer_one(lab, size):
    namespace = lab.namespace()
    gateway = lab.pushgateway("--push.disable-consistency-check", host=namespace.shard_host)
    settings = {
        "pushgateway": {"port": 9091, "servers": [gateway.address.text]},
        "check": NO_PROBES,
        "forward": {"response_timeout": "1500ms"},
    }
    cut_off = Shardd(lab.directory, settings, address=namespace.client_address, prefix=namespace.prefix)
    lab.add(cut_off).start().wait_ready()
    other = lab.shardd([gateway], check=NO_PROBES)
    paths = [f"/metrics/job/a/n/{number}" for number in range(8)]
    for path in paths:
        assert cut_off.push(path, "x 0\n").status == 202
    namespace.cut()
    statuses = []
    old = "x 1\n" + "# long\n" * (size // 7)
    threads = [
        threading.Thread(target=lambda path=path: statuses.append(cut_off.push(path, old).status)) for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {502, 504}, statuses
    for path in paths:
        assert other.push(path, "x 2\n").status == 202
    namespace.mend()
    wait_until(lambda: cut_off.push("/metrics/job/again").status == 202, "packets flow again")
    # TCP sends what was lost again after 0.2, 0.4, 0.8 … s: this is long after the next time.
    time.sleep(4)
    samples = [(name, dict(labels), value) for (name, labels), value in gateway.samples().items()]
    values = {labels["n"]: value for name, labels, value in samples if name == "x" and "n" in labels}
    assert values == {str(number): 2.0 for number in range(8)}
