"""A log that nobody reads: a full or closed pipe, a stopped terminal, a full disk. No push waits for it, and what is missing
is counted and told."""

import fcntl
import os
import pty
import re
import resource
import termios
import threading
import time

import pytest

from harness.http import Connection, encode
from harness.net import wait_until
from test_logs import parse_logfmt

# More than the queue holds.
PUSHES = 12000


class Reader:
    """Reads a descriptor to its end."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.data = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            self.data += data

    def lines(self):
        self.thread.join(10)
        return self.data.decode().replace("\r\n", "\n").splitlines()


def start(lab, stderr, level="debug", workers=1):
    replica = lab.shardd(lab.pushgateways(1, "--push.disable-consistency-check"), start=False, workers=workers)
    replica.argv.append(f"--log.level={level}")
    replica.start(stderr)
    return replica.wait_ready()


def push_at_full_load(replica, count=PUSHES):
    """Over several connections, pipelined; each has its answer soon."""
    slowest = 0

    def push(name):
        nonlocal slowest
        with Connection(replica.address, timeout=5) as connection:
            for first in range(0, count // 4, 50):
                began = time.monotonic()
                paths = [f"/metrics/job/{name}/n/{number % 20}" for number in range(first, first + 50)]
                connection.send(b"".join(encode("PUT", path, b"x 1\n", host=replica.address.text) for path in paths))
                for _ in paths:
                    assert connection.read().status in (200, 202)
                slowest = max(slowest, time.monotonic() - began)
            finished.append(name)

    finished = []
    threads = [threading.Thread(target=push, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(finished) == 4
    assert slowest < 3, f"50 pushes took {slowest} s"


def dropped(replica):
    return int(replica.metric("shardd_log_dropped_total"))


def check_lines(lines, lost, is_ordered=True):
    """Whole lines, in the order of their times, with a notice for each gap; the notices add up to what was lost."""
    entries = [parse_logfmt(line) for line in lines]
    notices = [entry for entry in entries if "entries were dropped" in entry["msg"]]
    assert sum(int(entry["dropped"]) for entry in notices) == lost, notices
    assert all(entry["level"] == "warn" for entry in notices)
    times = [entry["time"] for entry in entries if entry not in notices]
    # A thread may be held up between taking the time and queueing the entry, so that another one's comes before it.
    assert not is_ordered or times == sorted(times)
    requests = [entry for entry in entries if entry["msg"] == "request"]
    assert requests and all(
        entry["method"] and entry["path"] and entry["status"] and entry["duration"].endswith("s")
        for entry in requests
    )
    return entries


def test_a_full_pipe_stops_no_push_and_the_log_tells_of_the_gap(lab):
    reading, writing = os.pipe()
    replica = start(lab, writing, workers=2)
    push_at_full_load(replica)
    lost = dropped(replica)
    assert lost > 0
    # The description is the test's too: it must still be as it was.
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(writing)
    reader = Reader(reading)
    wait_until(lambda: b"entries were dropped" in reader.data, "the gap is told, though nothing else happens")
    assert replica.push("/metrics/job/after").status == 202
    # The scrapes of this test were dropped, too, as long as the queue was full.
    lost = dropped(replica)
    assert replica.stop() == 0
    lines = reader.lines()
    entries = check_lines(lines, lost, is_ordered=False)
    assert entries[-1]["msg"] == "shardd has stopped"
    after = next(index for index, entry in enumerate(entries) if entry.get("path") == "/metrics/job/after")
    assert "entries were dropped" in " ".join(entry["msg"] for entry in entries[:after])
    assert entries[after]["shard"] and entries[after]["method"] == "PUT" and entries[after]["status"] == "202"


def test_a_replica_ends_in_time_though_nobody_reads_its_log(lab):
    reading, writing = os.pipe()
    replica = start(lab, writing)
    push_at_full_load(replica)
    began = time.monotonic()
    assert replica.stop() == 0
    assert time.monotonic() - began < 5
    os.close(writing)
    os.close(reading)


def test_a_closed_pipe_stops_no_push(lab):
    reading, writing = os.pipe()
    replica = start(lab, writing)
    os.close(writing)
    os.close(reading)
    push_at_full_load(replica)
    wait_until(lambda: dropped(replica) >= PUSHES, "all that the writer had yet to write is dropped, too")
    assert replica.stop() == 0


def test_a_pipe_that_another_process_makes_non_blocking(lab):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    reader = Reader(reading)
    replica = start(lab, writing)
    push_at_full_load(replica)
    lost = dropped(replica)
    assert replica.stop() == 0
    os.close(writing)
    check_lines(reader.lines(), lost)


def test_a_stopped_terminal_stops_no_push(lab):
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    replica = start(lab, slave)
    termios.tcflow(slave, termios.TCOOFF)
    push_at_full_load(replica)
    assert dropped(replica) > 0
    termios.tcflow(slave, termios.TCOON)
    reader = Reader(master)
    wait_until(lambda: b"entries were dropped" in reader.data, "the log goes on")
    lost = dropped(replica)
    assert replica.stop() == 0
    os.close(slave)
    check_lines(reader.lines(), lost)


def test_a_full_disk_stops_no_push(lab):
    with open("/dev/full", "w") as full:
        replica = start(lab, full)
        push_at_full_load(replica)
        assert dropped(replica) >= PUSHES
        assert replica.stop() == 0


def test_a_file_that_may_grow_again_has_whole_lines(lab):
    """A limit of the file's size stands for the disk's: both end a write in the midst of a line."""
    path = lab.directory / "limited.log"
    with open(path, "ab") as file:
        replica = start(lab, file)
    limit = path.stat().st_size + 20000
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    push_at_full_load(replica)
    assert dropped(replica) > 0
    assert path.stat().st_size == limit
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: "entries were dropped" in path.read_text(), "the gap is told")
    lost = dropped(replica)
    assert replica.stop() == 0
    check_lines(path.read_text().splitlines(), lost)


def test_a_closed_standard_error_is_no_client(lab):
    """Else the log would go to whichever socket got its number."""
    replica = lab.shardd(lab.pushgateways(1), start=False)
    replica.argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *replica.argv, "--log.level=debug"]
    replica.start().wait_ready()
    push_at_full_load(replica, 400)
    assert os.readlink(f"/proc/{replica.pid}/fd/2") == "/dev/null"


@pytest.mark.parametrize("text,code", [("shards: 3\n", 78), (None, 1)], ids=["configuration", "port"])
def test_a_start_that_fails_says_so_before_it_ends(lab, text, code):
    gateway = lab.pushgateway()
    replica = lab.shardd([gateway], start=False, address=gateway.address)
    if text:
        replica.write_config(text)
    reading, writing = os.pipe()
    replica.start(writing)
    os.close(writing)
    assert replica.wait() == code
    lines = Reader(reading).lines()
    assert len(lines) == (2 if text else 1), lines
    assert re.search("shards|another process has the port", lines[0]), lines
