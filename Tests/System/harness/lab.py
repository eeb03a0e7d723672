"""What one test has started, so that it all ends with the test."""

from .balancer import Balancer
from .consul import Consul
from .load import Load
from .namespace import Namespace
from .net import wait_until
from .process import Process
from .prometheus import Prometheus
from .proxy import ConsulProxy
from .pushgateway import Pushgateway
from .shardd import Shardd
from .stub import StubShard


class Lab:
    def __init__(self, directory):
        self.directory = directory
        self.processes = []
        self.stubs = []
        self.loads = []

    def process(self, name, argv):
        """Any other program."""
        return self.add(Process(name, argv, self.directory / f"{name}-{len(self.processes)}.log").start())

    def pushgateway(self, *arguments, host=None, start=True, **options):
        gateway = self.add(Pushgateway(self.directory, host, arguments, **options))
        return gateway.start().wait_ready() if start else gateway

    def pushgateways(self, count, *arguments, **options):
        gateways = [self.add(Pushgateway(self.directory, None, arguments, **options)).start() for _ in range(count)]
        return [gateway.wait_ready() for gateway in gateways]

    def consul(self, configuration="", **options):
        return self.add(Consul(self.directory, configuration, **options)).start().wait_ready()

    def consul_pair(self, is_local=True):
        """Two agents, as on two hosts: a server, and a client of it. Each is reached from its own host alone if it
        `is_local`."""
        server = self.consul(is_local=is_local)
        client = self.consul(joins=server, is_local=is_local)
        wait_until(lambda: len(server.call("GET", "/v1/catalog/nodes")) == 2, "both are members", timeout=30)
        return server, client

    def prometheus(self, name, discovery, **options):
        """One that scrapes what it discovers so (see harness.prometheus)."""
        return self.add(Prometheus(self.directory, name, discovery, **options)).start().wait_ready()

    def shardd(
        self,
        shards=(),
        *,
        consul=None,
        arguments=(),
        start=True,
        wait=True,
        address=None,
        limit_descriptors=None,
        **settings,
    ):
        """A replica on the shards (addresses, or things that have one); other keywords are the file's sections."""
        servers = [shard if isinstance(shard, str) else getattr(shard, "address", shard).text for shard in shards]
        settings = {"pushgateway": {"port": 9091, "servers": servers}, **settings}
        if consul:
            settings["consul_server"] = {
                "addr": consul.address.text,
                "poll_interval": "200ms",
                **settings.get("consul_server", {}),
            }
        replica = self.add(Shardd(self.directory, settings, arguments, address, limit_descriptors))
        if start:
            replica.start()
        return replica.wait_ready() if start and wait else replica

    def stub(self, *arguments, **options):
        stub = StubShard(*arguments, **options)
        self.stubs.append(stub)
        return stub

    def balancer(self, servers, address=None):
        balancer = Balancer(servers, address)
        self.stubs.append(balancer)
        return balancer

    def consul_proxy(self, consul, **options):
        proxy = ConsulProxy(consul, **options)
        self.stubs.append(proxy)
        return proxy

    def namespace(self):
        namespace = Namespace()
        self.stubs.append(namespace)
        return namespace

    def load(self, replicas, gateways, **options):
        load = Load(replicas if isinstance(replicas, list) else [replicas], gateways, **options)
        self.loads.append(load)
        return load

    def add(self, process):
        """Has it end with the test."""
        self.processes.append(process)
        return process

    def close(self):
        """Stops everything; a shardd that had crashed, or does not end properly, fails the test."""
        wrong = []
        for load in self.loads:
            load.stopping.set()
        for process in reversed(self.processes):
            if process.child is None:
                continue
            crashed = isinstance(process, Shardd) and (process.exit_code or 0) < 0 and process.exit_code != -9
            code = process.stop()
            if isinstance(process, Shardd) and (crashed or code not in (0, 1, 64, 78, -9)):
                wrong.append(f"{process.name} ended with {code}")
        for stub in self.stubs:
            stub.stop()
        assert not wrong, wrong

    def logs(self, size=6000):
        """(name, end of the log) of every process."""
        return [(process.name, process.log()[-size:]) for process in self.processes]
