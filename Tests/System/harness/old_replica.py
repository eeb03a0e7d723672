"""A replica of version 0.1, as far as others see it in Consul: its ring, stored when it starts and once more for each run by
another ring that the lock's value tells of. The keys are those that version 0.1 wrote."""

import base64
import json
import threading
import time

from .http import ask

FOLDER = "shardd/pushgateway/"
# Without any one of these version 0.1 takes the value for that of no run.
OF_A_RUN = {
    "awayRings", "cleared", "draining", "kept", "phase", "ring", "run", "settledAt", "shards", "startedAt", "unreached",
    "vnodes",
}  # fmt: skip


class OldReplica:
    def __init__(self, consul, shards):
        self.consul = consul
        self.ring = sorted(shard.address.text for shard in shards)
        self.answered = None
        self.stopping = threading.Event()
        self._store()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _store(self):
        value = {"isInUse": False, "storedAt": time.time_ns(), "vnodes": 500, "shards": self.ring}
        self.consul.call("PUT", f"/v1/kv/{FOLDER}rings/37-c067cc7c", value)

    def _run(self):
        while not self.stopping.wait(0.2):
            answer = ask(self.consul.address, "GET", f"/v1/kv/{FOLDER}reconcile?consistent")
            if answer.status != 200:
                continue
            value = base64.b64decode(json.loads(answer.body)[0]["Value"] or "")
            try:
                run = json.loads(value)
            except ValueError:
                continue
            if not OF_A_RUN <= set(run) or run["run"] in (0, self.answered):
                continue
            assert (run["phase"], run["ring"]) == ("copying", []), run
            self.answered = run["run"]
            self._store()

    def stop(self):
        self.stopping.set()
        self.thread.join()
