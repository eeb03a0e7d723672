// Everything that shardd's YAML file settles, with the default of each key, as one immutable value.
// `Configuration.load` makes it at start and at every reload; the loops are handed copies. What the keys mean to an
// operator is in conf/shardd.yml, which a test holds against these defaults.
import FoundationEssentials

/// What places a push on the ring.
public enum HashKey: String, CaseIterable, Equatable, Sendable {
    /// The grouping key, in one spelling.
    case group
    /// The decoded URL path, as dynamic-sharding hashes it.
    case path
}

/// A whole configuration, checked; durations and sizes have no unit left.
public struct Configuration: Equatable, Sendable {
    /// How a push reaches its shard.
    public enum Mode: String, CaseIterable, Equatable, Sendable {
        /// shardd sends it there.
        case forward
        /// The client is sent there, by 307.
        case redirect
    }

    /// Where clients connect.
    public struct ListenAddress: Equatable, Sendable {
        /// Host name or IP literal without brackets; nil for all addresses.
        public var host: String?
        /// TCP port.
        public var port: Int

        /// All addresses, unless there is a host.
        public init(host: String? = nil, port: Int) {
            self.host = host
            self.port = port
        }
    }

    /// What is looked at in pushes before they are forwarded.
    public enum PushCheck: String, CaseIterable, Equatable, Sendable {
        /// Paths alone, and only what no shard could take anyway.
        case off
        /// Paths and bodies: a push that would harm a shard is refused.
        case `guard`
        /// Also what a Pushgateway's consistency check would refuse, over all shards.
        case full
    }

    /// The ring's points and what is looked up on it.
    public struct Hash: Equatable, Sendable {
        /// Points of each shard.
        public var vnodes = 500
        /// What is hashed.
        public var key = HashKey.group
    }

    /// Health checks of shards, shardd's own and those registered with Consul.
    public struct Check: Equatable, Sendable {
        /// The path to GET.
        public var path = "/-/healthy"
        /// From one probe to the next.
        public var interval = TimeSpan.seconds(5)
        /// How long a probe may take.
        public var timeout = TimeSpan.seconds(2)
        /// Failures in a row that take a shard out.
        public var fall = 2
        /// Successes in a row that bring it back.
        public var rise = 1
        /// What shardd says to shards behind basic auth; nil for nothing.
        public var authorization: String?

        /// Of every request of shardd's own to a shard.
        var headers: [(name: String, value: String)] { authorization.map { [("Authorization", $0)] } ?? [] }
    }

    /// Sending pushes to shards.
    public struct Forward: Equatable, Sendable {
        /// How long connecting may take.
        public var connectTimeout = TimeSpan.seconds(1)
        /// From sending a push to its whole answer.
        public var responseTimeout = TimeSpan.seconds(10)
        /// Connections to one shard, at most.
        public var connectionsPerShard = 8
        /// Pushes sent on one connection and not yet answered, at most.
        public var pipelineDepth = 64
        /// Pushes waiting for one shard, at most.
        public var queuePerShard = 10_000
        /// Whether the next shard takes the pushes of one that cannot be reached.
        public var failover = true
    }

    /// What clients may use.
    public struct Limits: Equatable, Sendable {
        /// Bytes of a body.
        public var bodyBytes = 16 << 20
        /// Bytes of all requests that are under way, in the process.
        public var bodiesBytes = 256 << 20
        /// Bytes of a request's head.
        public var headerBytes = 64 << 10
        /// Headers of a request.
        public var headerCount = 2000
        /// From a request's first byte to the end of its head.
        public var headerTimeout = TimeSpan.seconds(10)
        /// From the end of the head to the end of the body.
        public var bodyTimeout = TimeSpan.seconds(30)
        /// How long a connection may rest between requests.
        public var idleTimeout = TimeSpan.seconds(120)
        /// Connections at once.
        public var connections = 20_000
    }

    /// Ending.
    public struct Shutdown: Equatable, Sendable {
        /// How long requests already received may take.
        public var grace = TimeSpan.seconds(30)
    }

    /// Moving groups to their owners.
    public struct Reconcile: Equatable, Sendable {
        /// Whether groups are moved at all.
        public var enabled = true
        /// How long a group that could not be moved is left alone.
        public var interval = TimeSpan.seconds(30)
        /// How long other shards have to have been named before groups are moved to them.
        public var settle = TimeSpan.seconds(10)
        /// How long a moved group is written and scraped at both shards.
        public var overlap = TimeSpan.seconds(150)
        /// After how long a shard that does not come back is given up.
        public var giveUp = TimeSpan.seconds(7 * 24 * 3600)
        /// After how long moves wait no more for a replica that is cut off from Consul.
        public var giveUpReplica = TimeSpan.seconds(600)
        /// Groups that are moved in a second, at most.
        public var groupsPerSecond = 1000
    }

    /// Discovery and registration through Consul; nil for static discovery.
    public var consul: Consul?
    /// Where clients connect.
    public var listen = ListenAddress(port: 9292)
    /// The shards that the file names: ascending, none twice.
    public var servers: [ShardAddress] = []
    /// How a push reaches its shard.
    public var mode = Mode.forward
    /// Event loops, one thread each.
    public var workers = 1
    /// Whether another process that wants this too may listen on the port.
    public var reusesPort = false
    /// The least severe entries to log; nil for what the command line says.
    public var logLevel: LogLevel?
    /// The ring.
    public var hash = Hash()
    /// Health checks.
    public var check = Check()
    /// Sending pushes to shards.
    public var forward = Forward()
    /// What clients may use.
    public var limits = Limits()
    /// What is looked at in pushes.
    public var pushCheck = PushCheck.guard
    /// Ending.
    public var shutdown = Shutdown()
    /// Moving groups to their owners.
    public var reconcile = Reconcile()

    /// The defaults, with no shard.
    public init() {}
}

extension Configuration {
    /// The Consul agent to ask, and what to ask it.
    public struct Consul: Equatable, Sendable {
        /// Whether the agent is spoken to over TLS.
        public var isTLS = false
        /// Host name or IP literal without brackets.
        public var host = "localhost"
        /// TCP port.
        public var port = 8500
        /// User for basic auth.
        public var username: String?
        /// Password for basic auth.
        public var password: String?
        /// The ACL token, from the file or from `tokenFile`.
        public var token: String?
        /// Where the token was read from.
        public var tokenFile: String?
        /// The service whose instances are the shards.
        public var serviceName = "pushgateway"
        /// The datacenter to ask about; nil for the agent's own.
        public var datacenter: String?
        /// The tag that instances must have.
        public var tag: String?
        /// Whether the file's servers are registered at start.
        public var register = true
        /// From one poll to the next.
        public var pollInterval = TimeSpan.seconds(1)
        /// How long a blocking query waits; zero for plain polls.
        public var wait = TimeSpan.zero
        /// After how long in critical state Consul drops a registration; nil for never.
        public var deregisterCriticalServiceAfter: TimeSpan?

        /// The defaults.
        public init() {}
    }
}

extension Configuration {
    /// What a reload would have to change and cannot, as `key: reason`.
    func fixedKeys(changedIn loaded: Configuration) -> [String] {
        var keys: [String] = []
        if loaded.listen != listen { keys.append("http_listen_addr") }
        if loaded.workers != workers { keys.append("workers") }
        if loaded.reusesPort != reusesPort { keys.append("web.reuse_port") }
        if let consul, let new = loaded.consul, new.serviceName != consul.serviceName {
            keys.append("consul_server.register_service_name")
        }
        return keys.map { "\($0): cannot change without a restart" }
    }
}

/// The value of an Authorization header for basic auth (RFC 7617).
func basicAuthorization(_ username: String, _ password: String?) -> String {
    "Basic \(Data("\(username):\(password ?? "")".utf8).base64EncodedString())"
}
