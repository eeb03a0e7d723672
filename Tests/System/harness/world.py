"""Shards, two replicas and Consul, or one replica by itself, under random traffic, and the steps of a script that come
over them.

A step is a line of text, as "kill a". One that makes no sense where it stands is passed over, so any part of a script
is a script. What a step does is exact: see `_kill` and `_lose` for what a killed Pushgateway may take with it.
"""

import contextlib
import signal
import time

from . import scrape
from .net import wait_until
from .reconcile import OFTEN, drain, wait_reconciled
from .traffic import Traffic

NAMES = "abcdefgh"
FIRST = "abc"
# These keep their metrics in a file.
PERSISTENT = "aceg"
FEWEST_SHARDS = 2
MOST_SHARDS = 6
CHECK = {"interval": "1s", "timeout": "1s", "fall": 2, "rise": 1}
FORWARD = {"response_timeout": "3s"}


class World:
    def __init__(self, lab, seed, group_count=200, has_consul=True):
        self.lab = lab
        self.log = []
        self.consul = lab.consul(is_lasting=True) if has_consul else None
        self.is_consul_up = has_consul
        self.oracle = lab.pushgateway()
        self.gateways = {}
        self.members = set()
        # Those that hang.
        self.hung = set()
        self.replicas = []
        for name in FIRST:
            self._start_member(name)
        settings = {"check": CHECK, "reconcile": OFTEN, "forward": FORWARD, "arguments": ["--log.level=debug"]}
        if has_consul:
            settings["consul_server"] = {"register": False}
        self.replicas = [lab.shardd(self._running(), consul=self.consul, **settings) for _ in range(1 + has_consul)]
        self.up = [True for _ in self.replicas]
        for replica in self.replicas if has_consul else ():
            wait_until(lambda: replica.ring()["source"] == "consul", "the ring comes from Consul")
        self.traffic = Traffic(seed, self._addresses, self.oracle, group_count)

    def _addresses(self):
        return [(index, replica.address) for index, replica in enumerate(self.replicas) if self.up[index]]

    def _is_up(self, name):
        return self.gateways[name].is_running and name not in self.hung

    def _running(self):
        return [self.gateways[name] for name in sorted(self.members) if self._is_up(name)]

    def run(self, script):
        """The whole of it: traffic, the steps, an end at which everything is up, and the comparison."""
        self.traffic.start()
        try:
            for step in script:
                assert not self.traffic.failures, self.traffic.failures
                self.do(step)
            self.restore()
        finally:
            self.traffic.stop()
        assert not self.traffic.failures, self.traffic.failures
        self.settle()
        scrape.assert_same(self.oracle, self._running())

    def do(self, step):
        action, _, name = step.partition(" ")
        began = self.traffic.now()
        done = getattr(self, "_" + action.replace("-", "_"))(name)
        took = float(self.traffic.now()) - float(began)
        self.log.append(f"{began} {step}" + (" (passed over)" if done is False else f" ({took:.1f} s)"))

    def settle(self):
        wait_reconciled(self.replicas, self._running(), timeout=40)

    def restore(self):
        if self.consul and not self.is_consul_up:
            self.do("start-consul")
        for index, is_up in enumerate(self.up):
            if not is_up:
                self.do(f"start-replica {index}")
        for name in sorted(self.members):
            if not self._is_up(name):
                self.do(f"start {name}")

    # The steps

    def _wait(self, seconds):
        time.sleep(float(seconds))

    def _add(self, name):
        if name in self.members or len(self.members) == MOST_SHARDS or not self._can_change():
            return False
        self._start_member(name)

    def _can_change(self):
        return self.is_consul_up or not self.consul

    def _start_member(self, name):
        file = self.lab.directory / f"{name}.data"
        file.unlink(missing_ok=True)
        if name not in self.gateways:
            gateway = self.lab.pushgateway(start=False)
            gateway.name = f"pushgateway {name}"
            if name in PERSISTENT:
                gateway.keep_in(file)
            self.gateways[name] = gateway
        self.gateways[name].start().wait_ready()
        self.members.add(name)
        if self.consul:
            self.consul.register(self.gateways[name].address)
        else:
            self._reload()

    def _reload(self):
        """The replica goes by a file that names the members, those that are down among them."""
        for replica in self.replicas:
            servers = [self.gateways[name].address.text for name in sorted(self.members)]
            replica.change_config(pushgateway={"port": 9091, "servers": servers})
            replica.send(signal.SIGHUP)

    def _drain(self, name):
        """Scale-in: the shard is empty when the command has ended, and is stopped then."""
        if name not in self.members or not self._can_change() or not self._is_up(name):
            return False
        if len(self._running()) <= FEWEST_SHARDS:
            return False
        gateway = self.gateways[name]
        replica = self.replicas[self.up.index(True)]
        if self.consul:
            self._list_shards()
        else:
            self.members.remove(name)
            self._reload()
        result = drain(replica, gateway)
        assert result.returncode == 0, f"drain {name}: {result}"
        left = scrape.held(gateway)
        assert not left, f"drain {name} has left {sorted(left)}"
        gateway.stop()
        self.members.discard(name)

    def _kill(self, name):
        """SIGKILL of a shard with a file, which may be in the midst of a reconcile but loses nothing that it has taken."""
        if name not in PERSISTENT or not self._may_go(name):
            return False
        with self._nothing_unwritten(name) as gateway:
            gateway.kill()

    def _stop(self, name):
        """SIGTERM: a Pushgateway with a file writes it, but for what it answers while it does."""
        if name not in PERSISTENT or not self._may_go(name):
            return False
        with self._nothing_unwritten(name) as gateway:
            gateway.stop()

    @contextlib.contextmanager
    def _nothing_unwritten(self, name):
        """Nobody writes to the shard while its file catches up: the traffic pauses, and so do the replicas."""
        with self.traffic.paused():
            running = [replica for index, replica in enumerate(self.replicas) if self.up[index]]
            for replica in running:
                replica.pause()
            self.gateways[name].wait_persisted()
            yield self.gateways[name]
            for replica in running:
                replica.resume()

    def _restart(self, name):
        """As with an upgrade, so short that a replica may not notice."""
        if self._stop(name) is False:
            return False
        self._start(name)

    def _lose(self, name):
        """SIGKILL of a shard without a file: what it held, when all was reconciled, is to be gone, and no more."""
        if name in PERSISTENT or not self._may_go(name):
            return False
        self.restore()
        with self.traffic.paused():
            self.settle()
            scrape.assert_same(self.oracle, self._running())
            lost = sorted(scrape.held(self.gateways[name]))
            self.gateways[name].kill()
            self.traffic.forget(lost)

    def _hang(self, name):
        """It answers nobody until it is started again, and goes on then with what its sockets have kept."""
        if not self._may_go(name):
            return False
        self.hung.add(name)
        self.gateways[name].pause()

    def _may_go(self, name):
        running = self._running()
        return name in self.members and self.gateways[name] in running and len(running) > FEWEST_SHARDS

    def _start(self, name):
        if name not in self.members or self._is_up(name):
            return False
        if name in self.hung:
            self.hung.remove(name)
            self.gateways[name].resume()
        else:
            self.gateways[name].start().wait_ready()

    def _stop_consul(self, _):
        if not self.is_consul_up:
            return False
        self.is_consul_up = False
        self.consul.kill()

    def _start_consul(self, _):
        """The shards are registered again, as their operators would do it, those that are down as such."""
        if self.is_consul_up:
            return False
        self.consul.start().wait_ready()
        for name in sorted(self.members):
            gateway = self.gateways[name]
            self.consul.register(gateway.address, is_passing=self._is_up(name))
        self.is_consul_up = True

    def _kill_replica(self, index):
        index = int(index)
        if not all(self.up):
            return False
        self.up[index] = False
        self.replicas[index].kill()

    def _start_replica(self, index):
        index = int(index)
        if self.up[index]:
            return False
        self._list_shards()
        self.replicas[index].start().wait_ready()
        self.up[index] = True

    def _list_shards(self):
        """The file names the shards that there are, as an operator would have it."""
        for replica in self.replicas:
            servers = [gateway.address.text for gateway in self._running()]
            replica.change_config(pushgateway={"port": 9091, "servers": servers})
