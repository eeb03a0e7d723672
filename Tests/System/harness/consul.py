"""A real Consul agent: in development mode, in which a restart forgets everything, or as a server that keeps its state."""

import base64
import json
import os
import pathlib

from .http import ask
from .net import Address, new_host, wait_until
from .process import Process

FETCHED = pathlib.Path(__file__).parents[3] / ".build/tools/consul"


class Consul(Process):
    def __init__(self, directory, configuration="", is_lasting=False, joins=None, is_local=False):
        """`joins` another one, whose client it is; one that `is_local` answers on another address than its node's, as
        agents do that listen on their own host alone."""
        host = new_host()
        self.node = f"node-{host}"
        self.address = Address(new_host() if is_local else host, 8500)
        if joins:
            mode = [f"-data-dir={directory / f'consul-{host}'}", f"-retry-join={joins.serf_host}", "-retry-interval=1s"]
        else:
            mode = self._lasting(directory / f"consul-{host}") if is_lasting else ["-dev"]
        self.serf_host = host
        argv = [
            FETCHED if os.access(FETCHED, os.X_OK) else "consul",
            "agent",
            *mode,
            f"-bind={host}",
            f"-client={self.address.host}",
            f"-node={self.node}",
            "-log-level=info",
            "-hcl=ports { dns = -1, grpc = -1, serf_wan = -1 }",
            f"-hcl={configuration}",
        ]
        super().__init__("consul", argv, directory / f"consul-{host}.log")

    @staticmethod
    def _lasting(data):
        return ["-server", "-bootstrap-expect=1", f"-data-dir={data}", "-hcl=performance { raft_multiplier = 1 }"]

    def call(self, method, path, body=None, headers=()):
        response = ask(self.address, method, path, json.dumps(body).encode() if body is not None else b"", headers)
        assert response.status == 200, response
        return json.loads(response.body) if response.body.strip() else None

    def has_leader(self):
        try:
            return bool(json.loads(ask(self.address, "GET", "/v1/status/leader", timeout=2).body))
        except (OSError, ValueError):
            return False

    def wait_ready(self):
        wait_until(self.has_leader, "Consul has a leader", timeout=30)
        return self

    def lengthen_log(self, transactions):
        """So that a server takes its time to read it when it starts."""
        value = base64.b64encode(bytes(500)).decode()
        for number in range(transactions):
            keys = [f"long/{number % 50}/{part}" for part in range(64)]
            self.call("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": key, "Value": value}} for key in keys])

    def registrations(self, name="pushgateway"):
        """What the catalogue has: sorted (node, address, whether it passes)."""
        return sorted(
            (
                entry["Node"]["Node"],
                f"{entry['Service']['Address'] or entry['Node']['Address']}:{entry['Service']['Port']}",
                all(check["Status"] == "passing" for check in entry["Checks"]),
            )
            for entry in self.call("GET", f"/v1/health/service/{name}")
        )

    def services(self):
        """The agent's services by ID."""
        return self.call("GET", "/v1/agent/services")

    def passing(self, name="pushgateway"):
        """Addresses of the instances whose checks all pass."""
        entries = self.call("GET", f"/v1/health/service/{name}?passing")
        return sorted(f"{entry['Service']['Address']}:{entry['Service']['Port']}" for entry in entries)

    def register(self, address, name="pushgateway", check=True, is_passing=True, meta=None):
        service = {"ID": f"{address.host}_{address.port}", "Name": name, "Address": address.host, "Port": address.port}
        if meta:
            service["Meta"] = meta
        if check:
            service["Check"] = {
                "HTTP": f"{address.url}/-/healthy",
                "Interval": "500ms",
                "Timeout": "1s",
                "Status": "passing" if is_passing else "critical",
            }
        self.call("PUT", "/v1/agent/service/register", service)

    def deregister(self, address):
        self.call("PUT", f"/v1/agent/service/deregister/{address.host}_{address.port}")

    def set_maintenance(self, address, enabled):
        flag = "true" if enabled else "false"
        self.call("PUT", f"/v1/agent/service/maintenance/{address.host}_{address.port}?enable={flag}")
