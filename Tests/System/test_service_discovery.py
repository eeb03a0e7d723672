"""/api/v1/sd: Prometheus loses no group while groups move, and sees that a shard is down."""

import subprocess
import threading
import time

import pytest
from harness import scrape
from harness.cluster import Cluster
from harness.moving import BODY
from harness.net import wait_until
from harness.prometheus import by_http
from harness.reconcile import drain
from harness.shardd import BINARY


def states(replica):
    """{target: state}"""
    found = {}
    for group in replica.json("/api/v1/sd"):
        assert group["labels"]["__scheme__"] == "http" and group["labels"]["__metrics_path__"] == "/metrics"
        for target in group["targets"]:
            assert target not in found
            found[target] = group["labels"]["__meta_shardd_state"]
    return found


def test_a_shard_stays_until_its_groups_have_moved(lab):
    cluster = Cluster(lab, 3, consul=True, reconcile={"groups_per_second": 150})
    leaving, replica = cluster.shards[0], cluster.replicas[0]
    paths = [f"/metrics/job/seen/number/{number}" for number in range(600)]
    for path in paths:
        cluster.request("PUT", path, BODY)
    shards = {shard.address.text: shard for shard in cluster.shards}
    command = [BINARY, "drain", f"--config.file={cluster.idle.config_path}", leaving.address.text]
    missing, seen = [], set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            targets = states(replica)
            seen.add(targets.get(leaving.address.text))
            # A group may move between the two listings, but is held by a target at each moment.
            held = {path for target in targets for path in scrape.held(shards[target])}
            held |= {path for target in targets for path in scrape.held(shards[target])}
            missing.append(len(set(paths) - held))
        assert child.wait() == 0, child.stderr.read()
    assert len(missing) > 5 and max(missing) == 0, missing
    assert "draining" in seen, seen
    wait_until(lambda: leaving.address.text not in states(replica), "the emptied shard has left")


@pytest.mark.parametrize("is_busy", [False, True], ids=["at rest", "while another comes"])
def test_a_shard_that_is_drained_is_told_until_it_is_needed_no_more(lab, is_busy):
    cluster = Cluster(lab, 3, spare=1, consul=True, reconcile={"overlap": "3s"})
    leaving, replica = cluster.shards[0], cluster.replicas[0]
    for number in range(50):
        cluster.request("PUT", f"/metrics/job/seen/number/{number}", BODY)
    if is_busy:
        cluster.scale_out()
    seen, held = Changes(lambda: states(replica).get(leaving.address.text)), len(scrape.listed(leaving))
    with seen:
        assert drain(cluster.idle, leaving).returncode == 0
    # A replica may hear of the maintenance before it hears of the drain, and takes the shard for one that has failed.
    assert [state for _, state in seen.found if state not in ("suspect", "down")] == ["up", "draining", None], seen.found
    assert held and seen.ended - seen.found[-1][0] > 2.5, "copies stay after that"


class Changes(threading.Thread):
    """What a function gives, asked all the time: each time it is something else, with the moment."""

    def __init__(self, look):
        super().__init__()
        self.look, self.found, self.stopping = look, [], threading.Event()

    def run(self):
        while not self.stopping.is_set():
            value = self.look()
            if not self.found or self.found[-1][1] != value:
                self.found.append((time.monotonic(), value))

    def __enter__(self):
        self.start()
        wait_until(lambda: self.found, "it is looked at")

    def __exit__(self, *_):
        self.ended = time.monotonic()
        self.stopping.set()
        self.join()


@pytest.mark.parametrize("is_consul", [False, True])
def test_a_shard_that_is_down_is_told_and_alerts(lab, is_consul):
    cluster = Cluster(lab, 3, consul=is_consul)
    dead, replica = cluster.shards[0], cluster.replicas[0]
    assert set(states(replica).values()) == {"up"}
    by_state = "relabel_configs: [{source_labels: [__meta_shardd_state], target_label: state}]"
    prometheus = lab.prometheus("states", f"{by_http(replica)}\n    {by_state}")
    dead.kill()
    wait_until(lambda: len(replica.shards()) == 2, "the dead shard has left the ring", 30)
    assert states(replica)[dead.address.text] == "down"

    def firing():
        return [(series["metric"]["instance"], series["metric"]["state"]) for series in prometheus.query("up == 0")]

    wait_until(lambda: firing() == [(dead.address.text, "down")], "up is 0", 30)
    dead.start().wait_ready()
    wait_until(lambda: states(replica)[dead.address.text] == "up", "it is up again", 30)


@pytest.mark.core
def test_a_shard_that_joins_is_told_before_it_gets_pushes(lab):
    cluster = Cluster(lab, 2, spare=1, consul=True)
    replica, new = cluster.replicas[0], cluster.spare[0].address.text
    seen = []
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            state = states(replica).get(new)
            if state and state not in seen:
                seen.append(state)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cluster.scale_out()
        wait_until(lambda: "up" in seen, "it is up")
    finally:
        stop.set()
        watcher.join()
    assert seen == ["joining", "up"], seen


def test_other_names_of_a_shard_are_no_targets(lab):
    gateway = lab.pushgateway(host="0.0.0.0")
    names = [f"127.0.0.7:{gateway.address.port}", f"127.0.0.8:{gateway.address.port}"]
    replica = lab.shardd(names)
    assert states(replica) == {names[0]: "up"}
