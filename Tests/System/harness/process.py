"""A child process with its log in a file; it dies with this one, however this one ends."""

import os
import pathlib
import resource
import signal
import subprocess
import time

from .net import wait_until


class Process:
    def __init__(self, name, argv, log, limit_descriptors=None):
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log_path = log
        self.limit_descriptors = limit_descriptors
        self.child = None

    def start(self, stderr=None):
        """Its standard output and error are its log, but for standard error where a descriptor is given."""
        # setpriv: should the tests be killed outright, the kernel ends the child.
        wrapper = ["setpriv", "--pdeathsig", "KILL", "--"]
        if self.limit_descriptors:
            wrapper = ["prlimit", f"--nofile={self.limit_descriptors}:{self.limit_descriptors}", "--", *wrapper]
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(
                wrapper + self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=stderr or log,
                start_new_session=True,
            )
        return self

    @property
    def pid(self):
        return self.child.pid

    @property
    def is_running(self):
        return self.child is not None and self.child.poll() is None

    @property
    def exit_code(self):
        """None while it runs; the negative signal number when a signal ended it."""
        return self.child.poll()

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def send(self, number):
        self.child.send_signal(number)

    def pause(self):
        """Stops it from running without ending it: its sockets stay open and nothing answers."""
        self.send(signal.SIGSTOP)
        stat = pathlib.Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"{self.name} is stopped", every=0.005)

    def resume(self):
        self.send(signal.SIGCONT)

    def wait(self, timeout=15):
        return self.child.wait(timeout)

    def kill(self):
        self.send(signal.SIGKILL)
        return self.wait()

    def stop(self, timeout=15):
        """Asks it to end, then insists; returns the exit code."""
        if self.is_running:
            self.send(signal.SIGTERM)
            self.resume()
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.exit_code

    def _stat(self):
        with open(f"/proc/{self.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()

    def cpu_seconds(self):
        """User and system time so far."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_share(self, seconds):
        """The part of one core that it uses over the next so many seconds."""
        before, start = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / (time.monotonic() - start)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def next_descriptor(self):
        """The number that the next descriptor it opens will have."""
        used = set(os.listdir(f"/proc/{self.pid}/fd"))
        return next(number for number in range(len(used) + 1) if str(number) not in used)

    def limit_descriptors_to(self, number):
        """Lowers or raises the limit while it runs: no descriptor of that number or above can be opened."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (number, 4096))
