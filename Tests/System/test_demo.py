"""make run: what it starts answers, and it leaves nothing behind."""

import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from harness.http import ask
from harness.net import Address, new_ports, wait_until
from harness.shardd import ROOT


def children_of(marker):
    """The script's processes, itself included: they carry its marker in their environment."""
    marker = f"DEMO_OF={marker}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if marker in file.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            continue
    return found


def heed_signals():
    """A shell cannot trap what was ignored when it was started, as under nohup or in the background of another one."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Demo:
    def __init__(self, tmp_path, consul=""):
        self.marker = f"{os.getpid()}-{time.monotonic_ns()}"
        base = new_ports()
        self.port = base
        self.log = tmp_path / "demo.log"
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir()
        environment = {
            **os.environ,
            "DEMO_OF": self.marker,
            "PORT": str(base),
            "PUSHGATEWAY_PORT": str(base + 1),
            "CONSUL_PORT": str(base + 2),
            "CONSUL": consul,
            "TMPDIR": str(self.temporary),
        }
        with open(self.log, "wb") as log:
            self.start(environment, log)

    def start(self, environment, log):
        self.child = subprocess.Popen(
            [ROOT / "scripts/run-demo"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=heed_signals,
        )

    def text(self):
        return self.log.read_text()

    def wait_started(self):
        wait_until(
            lambda: "Ctrl-C stops everything" in self.text() or self.child.poll() is not None, "it runs", timeout=120
        )
        assert self.child.poll() is None, self.text()

    def leaves_nothing(self):
        wait_until(lambda: not children_of(self.marker), "no process is left")
        # Swift's own build leaves files of its own there.
        assert list(self.temporary.glob("shardd-run.*")) == []

    def end(self):
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


class DemoInTerminal(Demo):
    """`make run` as the leader of a terminal's session, as when a terminal is opened for it alone."""

    def start(self, environment, log):
        self.terminal, inside = pty.openpty()
        # In a terminal with colours the compiler gets other flags, and everything is built anew.
        environment["TERM"] = "dumb"
        self.child = subprocess.Popen(
            ["setsid", "--ctty", "make", "-C", ROOT, "run"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            preexec_fn=heed_signals,
        )
        os.close(inside)
        self.shown = b""

    def text(self):
        while select.select([self.terminal], [], [], 0)[0]:
            self.shown += os.read(self.terminal, 65536)
        return self.shown.decode()


@pytest.fixture
def start(tmp_path):
    demos = []

    def start(kind=Demo, **options):
        demos.append(kind(tmp_path, **options))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


@pytest.mark.parametrize("consul", ["", "1"])
def test_it_shows_where_groups_land_and_leaves_nothing(start, consul):
    demo = start(consul=consul)
    demo.wait_started()
    rows = re.findall(r"^(/metrics/\S+) +(\d+) +(\S.*?) *$", demo.text(), re.MULTILINE)
    assert len(rows) >= 5
    assert {status for _, status, _ in rows} == {"200"}, demo.text()
    for _, _, shard in rows:
        assert re.fullmatch(rf"127\.0\.0\.[123]:{demo.port + 1}", shard), demo.text()
    etl = [shard for path, _, shard in rows if "/etl/" in path]
    assert len(etl) == 2 and len(set(etl)) == 1
    assert ask(Address("127.0.0.1", demo.port), "GET", "/-/ready").status == 200
    assert len(children_of(demo.marker)) >= (5 if consul else 4)
    # As the terminal does it: the whole foreground group hears of Ctrl-C.
    os.killpg(demo.child.pid, signal.SIGINT)
    assert demo.child.wait(30) == 0, demo.text()
    demo.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ways_to_end_leave_nothing_either(start, number):
    demo = start()
    demo.wait_started()
    demo.child.send_signal(number)
    assert demo.child.wait(30) == 0, demo.text()
    demo.leaves_nothing()


def test_ctrl_c_in_a_terminal_leaves_nothing(start):
    demo = start(DemoInTerminal)
    demo.wait_started()
    os.write(demo.terminal, b"\x03")
    demo.child.wait(30)
    demo.leaves_nothing()
    os.close(demo.terminal)


def test_a_terminal_that_goes_away_leaves_nothing(start):
    demo = start(DemoInTerminal)
    demo.wait_started()
    os.close(demo.terminal)
    demo.child.wait(30)
    demo.leaves_nothing()


def test_a_killed_script_takes_its_children_along(start):
    demo = start()
    demo.wait_started()
    demo.child.kill()
    demo.child.wait()
    wait_until(lambda: not children_of(demo.marker), "no process is left")


def test_a_taken_port_is_named_with_the_way_out(start):
    first = start()
    first.wait_started()
    result = subprocess.run(
        [ROOT / "scripts/run-demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PORT": str(first.port), "PUSHGATEWAY_PORT": str(new_ports())},
    )
    assert result.returncode == 1
    assert f"127.0.0.1:{first.port} is taken" in result.stderr and "PORT=" in result.stderr


def test_a_dead_shardd_ends_it_all_and_is_named(start):
    demo = start()
    demo.wait_started()
    victims = []
    for pid in children_of(demo.marker):
        with open(f"/proc/{pid}/comm") as file:
            if file.read().strip() == "shardd":
                victims.append(pid)
    assert len(victims) == 1
    os.kill(victims[0], signal.SIGKILL)
    assert demo.child.wait(30) == 1
    assert "run: shardd ended" in demo.text()
    demo.leaves_nothing()
