"""What a figure depends on beside the code: the machine, and the versions of all that was compared."""

import os
import pathlib
import platform
import re
import subprocess

from . import places

VERSION_COMMANDS = {
    "shardd": [places.SHARDD, "--version"],
    "nginx": ["/usr/sbin/nginx", "-v"],
    "haproxy": ["/usr/sbin/haproxy", "-v"],
    "envoy": [places.ENVOY, "--version"],
}


def _field(text, name):
    match = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return match.group(1) if match else "unknown"


def machine():
    memory = int(_field(pathlib.Path("/proc/meminfo").read_text(), "MemTotal").split()[0]) * 1024
    return {
        "processor": _field(pathlib.Path("/proc/cpuinfo").read_text(), "model name"),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
    }


def versions(names):
    found = {}
    for name in names:
        result = subprocess.run(list(map(str, VERSION_COMMANDS[name])), capture_output=True, text=True, timeout=30)
        match = re.search(r"\d+\.\d+\.\d+", result.stdout + result.stderr)
        found[name] = match.group() if match else "unknown"
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=places.ROOT, capture_output=True, text=True, timeout=30
    )
    found["commit"] = commit.stdout.strip()
    return found
