// The table of all keys: what each is called, where its value goes and of what kind it is.
// The reader looks keys up here and knows nothing of any one of them: a new key is one line here, its default in
// Configuration, and its place in conf/shardd.yml. A section is what stands before the dot.
import Yams

/// One key of the file.
struct ConfigurationKey {
    /// The dotted name.
    let name: String
    /// Reads the node into the draft, or adds a problem.
    let read: (Node, inout ConfigurationDraft, inout ProblemList) -> Void

    /// A key that always has a value.
    init<Value>(
        _ name: String,
        _ place: WritableKeyPath<ConfigurationDraft, Value>,
        _ kind: ConfigurationKind<Value>
    ) {
        self.name = name
        read = { node, draft, problems in
            guard let value = kind.read(node, name, &problems) else { return }
            draft[keyPath: place] = value
        }
    }

    /// A key that may have none.
    init<Value>(
        optional name: String,
        _ place: WritableKeyPath<ConfigurationDraft, Value?>,
        _ kind: ConfigurationKind<Value>
    ) {
        self.name = name
        read = { node, draft, problems in draft[keyPath: place] = kind.read(node, name, &problems) }
    }

    /// A key that is only looked at.
    init(_ name: String, _ judge: @escaping (Node, inout ProblemList) -> Void) {
        self.name = name
        read = { node, _, problems in judge(node, &problems) }
    }

    /// The section's name; empty for a key at the top.
    var section: Substring { name.prefix { $0 != "." }.count == name.count ? "" : name.prefix { $0 != "." } }
}

extension ConfigurationKey {
    private static let instant = TimeSpan.milliseconds(1)
    private static let second = TimeSpan.seconds(1)
    private static let minute = TimeSpan.seconds(60)

    /// Every key that a file may have.
    static var all: [ConfigurationKey] { present + later }

    /// Those of this version, which conf/shardd.yml has too.
    static var present: [ConfigurationKey] { general + consulServer + shards + requests }

    private static var general: [ConfigurationKey] {
        [
            .init("http_listen_addr", \.file.listen, .listenAddress),
            .init("mode", \.file.mode, .name()),
            .init("workers", \.file.workers, .integer(1...256)),
            .init(optional: "log.level", \.file.logLevel, .name()),
            .init("pushgateway.port", \.serverPort, .integer(1...65535)),
            .init(optional: "pushgateway.servers", \.servers, .list(of: "addresses such as 10.0.0.1 or 10.0.0.1:9091")),
            .init(
                optional: "pushgateway.username",
                \.shardUsername,
                .text("a user's name without a colon", without: ":")
            ),
            .init(optional: "pushgateway.password", \.shardPassword, .text("a password")),
            .init("hash.vnodes", \.file.hash.vnodes, .integer(1...100_000)),
            .init("hash.key", \.file.hash.key, .name()),
        ]
    }

    private static var consulServer: [ConfigurationKey] {
        [
            .init(optional: "consul_server.addr", \.consulEndpoint, .consulEndpoint),
            .init(
                optional: "consul_server.username",
                \.consul.username,
                .text("a user's name without a colon", without: ":")
            ),
            .init(optional: "consul_server.password", \.consul.password, .text("a password")),
            .init(optional: "consul_server.token", \.consul.token, .text("an ACL token")),
            .init(optional: "consul_server.token_file", \.consul.tokenFile, .text("the path of a file")),
            .init("consul_server.register_service_name", \.consul.serviceName, .text("a service's name")),
            .init(optional: "consul_server.datacenter", \.consul.datacenter, .text("a datacenter's name")),
            .init(optional: "consul_server.tag", \.consul.tag, .text("a tag")),
            .init("consul_server.register", \.consul.register, .boolean),
            .init("consul_server.poll_interval", \.consul.pollInterval, .duration(from: .milliseconds(10))),
            .init("consul_server.wait", \.consul.wait, .duration(from: .zero, to: .seconds(600))),
            .init(
                optional: "consul_server.deregister_critical_service_after",
                \.consul.deregisterCriticalServiceAfter,
                .duration(from: minute, to: .seconds(30 * 86400))
            ),
        ]
    }

    private static var shards: [ConfigurationKey] {
        [
            .init("check.path", \.file.check.path, .urlPath),
            .init("check.interval", \.file.check.interval, .duration(from: .milliseconds(10))),
            .init("check.timeout", \.file.check.timeout, .duration(from: instant)),
            .init("check.fall", \.file.check.fall, .integer(1...1000)),
            .init("check.rise", \.file.check.rise, .integer(1...1000)),
            .init("forward.connect_timeout", \.file.forward.connectTimeout, .duration(from: instant)),
            .init("forward.response_timeout", \.file.forward.responseTimeout, .duration(from: instant)),
            .init("forward.connections_per_shard", \.file.forward.connectionsPerShard, .integer(1...1000)),
            .init("forward.pipeline_depth", \.file.forward.pipelineDepth, .integer(1...10_000)),
            .init("forward.queue_per_shard", \.file.forward.queuePerShard, .integer(1...10_000_000)),
            .init("forward.failover", \.file.forward.failover, .boolean),
        ]
    }

    private static var requests: [ConfigurationKey] {
        [
            .init("web.reuse_port", \.file.reusesPort, .boolean),
            .init("limits.body_bytes", \.file.limits.bodyBytes, .size(1...(1 << 30))),
            .init("limits.bodies_bytes", \.file.limits.bodiesBytes, .size(1...(1 << 40))),
            .init("limits.header_bytes", \.file.limits.headerBytes, .size(256...(16 << 20))),
            .init("limits.header_count", \.file.limits.headerCount, .integer(1...1_000_000)),
            .init("limits.header_timeout", \.file.limits.headerTimeout, .duration(from: instant)),
            .init("limits.body_timeout", \.file.limits.bodyTimeout, .duration(from: instant)),
            .init("limits.idle_timeout", \.file.limits.idleTimeout, .duration(from: instant)),
            .init("limits.connections", \.file.limits.connections, .integer(1...1_000_000)),
            .init("shutdown.grace", \.file.shutdown.grace, .duration(from: .zero)),
            .init("reconcile.enabled", \.file.reconcile.enabled, .boolean),
            .init("reconcile.interval", \.file.reconcile.interval, .duration(from: second)),
            .init("reconcile.settle", \.file.reconcile.settle, .duration(from: .zero)),
            .init("reconcile.overlap", \.file.reconcile.overlap, .duration(from: .zero)),
            .init("reconcile.give_up", \.file.reconcile.giveUp, .duration(from: second, to: .seconds(366 * 86400))),
            .init("reconcile.give_up_replica", \.file.reconcile.giveUpReplica, .duration(from: second)),
            .init("reconcile.groups_per_second", \.file.reconcile.groupsPerSecond, .integer(1...1_000_000)),
            .init("pushes.check", \.file.pushCheck, .pushCheck),
        ]
    }

    /// Keys of later versions: only their defaults are accepted, so that a file that has every key can be loaded.
    private static var later: [ConfigurationKey] {
        let tls: LaterDefault = .keys([
            "ca_file": .unset, "cert_file": .unset, "key_file": .unset, "server_name": .unset,
            "insecure_skip_verify": .scalars(["false"]),
        ])
        let authorization: LaterDefault = .keys([
            "push": .unset, "delete": .unset, "read": .unset, "admin": .unset, "bearer_tokens": .empty,
            "open_health": .scalars(["true"]),
        ])
        return [
            .init(later: "consul_server.register_self", .unset),
            .init(later: "consul_server.tls", tls),
            .init(later: "pushgateway.scheme", .scalars(["http"])),
            .init(later: "pushgateway.route_prefix", .scalars(["/"])),
            .init(later: "pushgateway.password_file", .unset),
            .init(later: "pushgateway.tls", tls),
            .init(later: "shutdown.delay", .scalars(["0s"])),
            .init(later: "web.config_file", .unset),
            .init(later: "web.route_prefix", .scalars(["/"])),
            .init(later: "web.authorization", authorization),
            .init(later: "expire", .empty),
        ]
    }
}
