"""The fixture `lab`, the logs of what failed, and a limit on the time of each test."""

import os
import shutil
import signal
import sys

import pytest

from harness import shardd
from harness.lab import Lab
from harness.prometheus import WITH_CONSUL
from harness.pushgateway import NEWEST as NEWEST_PUSHGATEWAY

sys.dont_write_bytecode = True
SECONDS_PER_TEST = 150


def pytest_sessionstart():
    """A missing part is a failure of the whole run, never a skip."""
    consul = os.access(shardd.ROOT / ".build/tools/consul", os.X_OK) or shutil.which("consul")
    parts = {
        "shardd (make build)": os.access(shardd.BINARY, os.X_OK),
        "consul (scripts/install-deps consul)": consul,
        "Prometheus with discovery by Consul (scripts/install-deps consul-sd)": os.access(WITH_CONSUL, os.X_OK),
        "Pushgateway 1.11 (scripts/install-deps oracle)": os.access(NEWEST_PUSHGATEWAY, os.X_OK),
    }
    for program in ("prometheus-pushgateway", "prometheus", "promtool", "go", "curl", "setpriv", "prlimit", "ip", "tc"):
        parts[f"{program} (scripts/install-deps test)"] = shutil.which(program)
    missing = [part for part, is_there in parts.items() if not is_there]
    if missing:
        pytest.exit(f"missing: {', '.join(missing)}", returncode=1)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture(autouse=True)
def time_limit(request):
    own = request.node.get_closest_marker("seconds")
    seconds = own.args[0] if own else SECONDS_PER_TEST

    def give_up(*_):
        raise TimeoutError(f"the test ran for more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if lab and report.failed and report.when in ("call", "teardown"):
        report.sections += [(f"log of {name}", log) for name, log in lab.logs()]
