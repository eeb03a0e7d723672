"""Makes a list of steps with which a test fails shorter."""

import time


def shrunk(steps, fails, deadline):
    """The shortest part of the steps found that still fails, by leaving out ever smaller runs of them."""
    size = len(steps) // 2
    while size and time.monotonic() < deadline:
        start = 0
        while start < len(steps) and time.monotonic() < deadline:
            shorter = steps[:start] + steps[start + size :]
            if fails(shorter):
                steps = shorter
            else:
                start += size
        size //= 2
    return steps
