"""Groups to be moved."""

from .http import ask

BODY = "# HELP first First.\n# TYPE first counter\nfirst 1\n# TYPE second gauge\nsecond 2\n"
# Enough for a run to take a while with the Pushgateways' consistency check on.
MANY = [f"/metrics/job/many/number/{number}" for number in range(400)]


def push(gateway, path, body=BODY):
    return ask(gateway.address, "POST", path, body.encode())
