import Foundation
import Testing
import Yams

@testable import ShardEngine

@Suite struct ConfigurationTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    private static let documented = folder.appending(path: "../../conf/shardd.yml").standardizedFileURL.path
    private static let servers = "pushgateway: {servers: [a]}\n"

    @Test func aFileOfDynamicShardingLoadsUnchanged() throws {
        var expected = Configuration()
        expected.consul = Configuration.Consul()
        expected.servers = ["10.0.0.1", "10.0.0.2", "localhost"].map { ShardAddress(host: $0, port: 9091) }
        let file = Self.folder.appending(path: "Fixtures/dynamic-sharding.yml").path
        #expect(try Configuration.load(file: file) == expected)
    }

    @Test func whatAFileDoesNotSettleHasItsDefault() throws {
        var expected = Configuration()
        expected.servers = [ShardAddress(host: "a", port: 9091)]
        #expect(try Configuration.parse(Self.servers, file: "f") == expected)
        let empty = "consul_server:\nhash:\nworkers:\nlimits: {body_bytes: ~}\n"
        #expect(try Configuration.parse(Self.servers + empty, file: "f") == expected)
    }

    @Test func theDocumentedFileHoldsTheDefaults() throws {
        var expected = Configuration()
        expected.servers = [ShardAddress(host: "127.0.0.1", port: 9091)]
        let text = try String(contentsOfFile: Self.documented, encoding: .utf8)
        #expect(try Configuration.parse(text, file: "f") == expected)
        expected.consul = Configuration.Consul()
        expected.logLevel = .info
        #expect(try Configuration.parse(Self.withOptionalKeys(text), file: "f") == expected)
    }

    @Test func theDocumentedFileHasExactlyTheKeysOfTheTable() throws {
        let text = try String(contentsOfFile: Self.documented, encoding: .utf8)
        let root = try #require(try Yams.compose(yaml: Self.withOptionalKeys(text))?.mapping)
        let names = root.flatMap { key, value -> [String] in
            let section = key.string ?? ""
            return value.mapping?.keys.map { "\(section).\($0.string ?? "")" } ?? [section]
        }
        #expect(names.sorted() == ConfigurationKey.present.map(\.name).sorted())
    }

    @Test func everyKeyReachesItsPlace() throws {
        let text = """
            http_listen_addr: "[::1]:1"
            mode: redirect
            workers: 2
            log: {level: debug}
            pushgateway: {port: 3, servers: [b, a:4, "[::1]:5", b, b:3]}
            hash: {vnodes: 6, key: path}
            consul_server:
              addr: https://consul.example:7
              username: 1e3
              password: 0123
              token: yes
              register_service_name: 10.50
              datacenter: null-island
              tag: 2001-01-01
              register: no
              poll_interval: 8s
              wait: 9m
              deregister_critical_service_after: 10h
            check: {path: /up, interval: 11s, timeout: 12ms, fall: 13, rise: 0x0E}
            forward: {connect_timeout: 15ms, response_timeout: 1m16s, connections_per_shard: 17, pipeline_depth: 18,
              queue_per_shard: 1_9, failover: off}
            limits: {body_bytes: 20MiB, header_bytes: 21KiB, header_timeout: 22s, body_timeout: 23s, idle_timeout: 24s,
              connections: 25}
            shutdown: {grace: 0}
            reconcile: {enabled: FALSE, interval: 26s, settle: 27s}
            web: {reuse_port: true}
            """
        var expected = Configuration()
        expected.listen = .init(host: "::1", port: 1)
        expected.mode = .redirect
        expected.workers = 2
        expected.logLevel = .debug
        expected.servers = [("::1", 5), ("a", 4), ("b", 3)].map { ShardAddress(host: $0.0, port: $0.1) }
        expected.hash = .init(vnodes: 6, key: .path)
        var consul = Configuration.Consul()
        (consul.isTLS, consul.host, consul.port) = (true, "consul.example", 7)
        (consul.username, consul.password, consul.token) = ("1e3", "0123", "yes")
        (consul.serviceName, consul.datacenter, consul.tag) = ("10.50", "null-island", "2001-01-01")
        (consul.register, consul.pollInterval, consul.wait) = (false, .seconds(8), .seconds(540))
        consul.deregisterCriticalServiceAfter = .seconds(36000)
        expected.consul = consul
        expected.check = .init(path: "/up", interval: .seconds(11), timeout: .milliseconds(12), fall: 13, rise: 14)
        expected.forward = .init(
            connectTimeout: .milliseconds(15),
            responseTimeout: .seconds(76),
            connectionsPerShard: 17,
            pipelineDepth: 18,
            queuePerShard: 19,
            failover: false
        )
        expected.limits = .init(
            bodyBytes: 20 << 20,
            headerBytes: 21 << 10,
            headerTimeout: .seconds(22),
            bodyTimeout: .seconds(23),
            idleTimeout: .seconds(24),
            connections: 25
        )
        expected.reusesPort = true
        expected.shutdown = .init(grace: .zero)
        expected.reconcile = .init(enabled: false, interval: .seconds(26), settle: .seconds(27))
        #expect(try Configuration.parse(text, file: "f") == expected)
    }

    @Test(arguments: [
        ("10.0.0.1", false, "10.0.0.1", 8500), ("consul:1", false, "consul", 1), ("\"[::1]\"", false, "::1", 8500),
        ("http://consul:80", false, "consul", 80), ("https://[::1]:8501/", true, "::1", 8501),
    ])
    func consulIsNamedInSeveralWays(addr: String, isTLS: Bool, host: String, port: Int) throws {
        let consul = try #require(try Configuration.parse("consul_server:\n  addr: \(addr)", file: "f").consul)
        #expect(consul.isTLS == isTLS)
        #expect(consul.host == host)
        #expect(consul.port == port)
    }

    @Test(arguments: [(":1", nil, 1), ("0.0.0.0:9292", "0.0.0.0", 9292), ("\"[::]:80\"", "::", 80)])
    func listenAddressesAreNamedInSeveralWays(text: String, host: String?, port: Int) throws {
        let configuration = try Configuration.parse(Self.servers + "http_listen_addr: \(text)", file: "f")
        #expect(configuration.listen == Configuration.ListenAddress(host: host, port: port))
    }

    @Test func defaultsOfKeysOfLaterVersionsAreAccepted() throws {
        let tls = "{ca_file: , cert_file: , key_file: , server_name: , insecure_skip_verify: false}"
        let text = """
            consul_server: {addr: "localhost:8500", register_self: , tls: \(tls)}
            pushgateway: {servers: [a], scheme: http, route_prefix: /, password_file: , tls: \(tls)}
            shutdown: {delay: 0s, grace: 30s}
            reconcile: {overlap: 150s, give_up: 168h, give_up_replica: 10m}
            web:
              config_file:
              route_prefix: /
              reuse_port: false
              authorization: {push: , delete: , read: , admin: , bearer_tokens: {}, open_health: true}
            expire: []
            """
        var expected = Configuration()
        expected.servers = [ShardAddress(host: "a", port: 9091)]
        expected.consul = Configuration.Consul()
        #expect(try Configuration.parse(text, file: "f") == expected)
    }

    @Test func anchorsCarriageReturnsAndAByteOrderMarkAreFine() throws {
        let text = "\u{FEFF}pushgateway: {servers: [&s a, *s]}\r\ncheck: {interval: &i 7s}\r\nshutdown: {grace: *i}\r\n"
        let configuration = try Configuration.parse(text, file: "f")
        #expect(configuration.servers == [ShardAddress(host: "a", port: 9091)])
        #expect(configuration.check.interval == .seconds(7))
        #expect(configuration.shutdown.grace == .seconds(7))
    }

    @Test func theTokenIsReadFromItsFileWithoutTheLineEnd() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "token-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try "se-cr-et\r\n".write(to: folder.appending(path: "token"), atomically: true, encoding: .utf8)
        let file = folder.appending(path: "shardd.yml")
        for path in ["token", folder.appending(path: "token").path] {
            let text = "consul_server: {addr: a, token_file: \(path)}"
            try text.write(to: file, atomically: true, encoding: .utf8)
            let consul = try Configuration.load(file: file.path).consul
            #expect(consul?.token == "se-cr-et")
            #expect(consul?.tokenFile == path)
        }
    }

    /// The file with the keys that are off by default: those with a number sign right before them.
    private static func withOptionalKeys(_ text: String) -> String {
        text.replacing(/(?m)^( *)#(?=[a-z])/) { $0.output.1 }
    }

    /// YAML has `off` for false, too; here it is the word.
    @Test(arguments: [("off", Configuration.PushCheck.off), ("\"off\"", .off), ("guard", .guard)])
    func readsHowPushesAreChecked(text: String, check: Configuration.PushCheck) throws {
        let file = "pushgateway: {servers: [a]}\npushes: {check: \(text)}\n"
        #expect(try Configuration.parse(file, file: "f").pushCheck == check)
    }
}
