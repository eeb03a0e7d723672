"""Clients that push as they should while bad pushes come at a rate: what the ones and the others are answered."""

import collections
import threading
import time

from .http import Closed, Connection, ask

PAUSE = 0.004


class Answers(collections.Counter):
    """How often each status was answered; also what was no answer."""

    slowest = 0.0

    @property
    def are_good(self):
        return bool(self) and set(self) <= {200, 202}


def push_beside(replica, bad, per_second, seconds, clients=8):
    """`bad` is the path of the bad pushes, or makes one of a number. Returns the good ones' answers and the bad ones'."""
    end = time.monotonic() + seconds
    good, others = Answers(), Answers()
    lock = threading.Lock()

    def push(connection, path, value):
        try:
            return connection.ask("PUT", path, b"x %d\n" % value).status
        except (OSError, Closed) as error:
            return repr(error)

    def client(number):
        value = 0
        with Connection(replica.address, timeout=20) as connection:
            while time.monotonic() < end:
                value += 1
                began = time.monotonic()
                status = push(connection, f"/metrics/job/good/client/{number}", value)
                with lock:
                    good[status] += 1
                    good.slowest = max(good.slowest, time.monotonic() - began)
                if not isinstance(status, int):
                    return
                time.sleep(PAUSE)

    def bad_client(number):
        try:
            status = ask(replica.address, "PUT", bad(number) if callable(bad) else bad, b"x 1\n", timeout=20).status
        except (OSError, Closed) as error:
            status = repr(error)
        with lock:
            others[status] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for number in range(int(per_second * seconds)):
        threads.append(threading.Thread(target=bad_client, args=(number,)))
        threads[-1].start()
        time.sleep(1 / per_second)
    for thread in threads:
        thread.join()
    return good, others
