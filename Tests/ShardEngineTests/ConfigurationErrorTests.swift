import Foundation
import Testing

@testable import ShardEngine

@Suite struct ConfigurationErrorTests {
    /// What parsing reports for a text, one problem a line.
    private static func problems(in text: String) -> [String] {
        do throws(ConfigurationErrors) {
            _ = try Configuration.parse(text, file: "f")
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    @Test func fullNeedsPushesToPassThrough() {
        let text = "pushgateway: {servers: [a]}\nmode: redirect\npushes: {check: full}\n"
        #expect(
            ConfigurationErrorTests.problems(in: text) == [
                "f:3: pushes.check: is full, and redirected clients push past shardd; expected off or guard with mode: redirect"
            ]
        )
    }

    /// One key with a wrong value, put below a file that is right otherwise, and what is said about it on line 2.
    @Test(arguments: [
        ("workers: \"4\"", "workers: \"4\" (quoted) is not a whole number; expected a whole number from 1 to 256"),
        ("workers: 1.0", "workers: 1.0 is not a whole number; expected a whole number from 1 to 256"),
        ("workers: 0", "workers: 0 is out of range; expected a whole number from 1 to 256"),
        ("workers: [1]", "workers: a list is not allowed here; expected a whole number from 1 to 256"),
        ("workers: 99999999999999999999", "workers: 99999999999999999999 is out of range; expected a whole number"),
        ("mode: Forward", "mode: Forward is not known; expected forward or redirect"),
        ("pushes: {check: all}", "pushes.check: all is not known; expected off, guard or full"),
        ("pushes: {check: on}", "pushes.check: on is not known; expected off, guard or full"),
        ("pushes: {check: false}", "pushes.check: false is not known; expected off, guard or full"),
        ("hash: {key: job}", "hash.key: job is not known; expected group or path"),
        ("hash: {vnodes: 0}", "hash.vnodes: 0 is out of range; expected a whole number from 1 to 100000"),
        ("hash: 5", "hash: 5 is not a mapping; expected keys below it"),
        ("http_listen_addr: 9292", "http_listen_addr: 9292 is not an address with a port; expected an address such as"),
        ("http_listen_addr: :0", "http_listen_addr: :0 is not an address with a port; expected an address such as"),
        ("http_listen_addr: ::1:80", "http_listen_addr: ::1:80 is not an address with a port"),
        ("http_listen_addr: host", "http_listen_addr: host is not an address with a port; expected an address such as"),
        ("check: {interval: 5}", "check.interval: 5 has no unit; expected a duration such as 250ms, 1s or 1m30s"),
        ("check: {interval: 0}", "check.interval: 0 is out of range; expected a duration such as"),
        ("check: {interval: 1d}", "check.interval: 1d has a unit that is not known; expected a duration such as"),
        ("check: {timeout: 25h}", "check.timeout: 25h is out of range; expected a duration such as"),
        ("check: {path: healthy}", "check.path: healthy does not begin with /; expected a path"),
        ("check: {path: /a b}", "check.path: /a b has characters that a path may not have; expected a path"),
        ("forward: {failover: \"true\"}", "forward.failover: \"true\" (quoted) is neither true nor false; expected"),
        ("forward: {failover: 1}", "forward.failover: 1 is neither true nor false; expected true or false"),
        ("limits: {body_bytes: 16M}", "limits.body_bytes: 16M has a unit that is not known; expected a size such as"),
        ("limits: {body_bytes: 2GiB}", "limits.body_bytes: 2GiB is out of range; expected a size such as 16MiB"),
        ("limits: {header_bytes: -1}", "limits.header_bytes: -1 is not a whole number with a unit; expected a size"),
        ("consul_server: {}", "consul_server.addr: is missing; expected the agent's address, such as localhost:8500"),
        ("consul_server: {addr: a:x}", "consul_server.addr: a:x is not an address; expected an address such as"),
        ("consul_server: {addr: http://a}", "consul_server.addr: http://a is not a URL of a host and a port; expected"),
        ("consul_server: {addr: http://a:1/v1}", "consul_server.addr: http://a:1/v1 is not a URL of a host and a port"),
        ("consul_server: {addr: ftp://a:1}", "consul_server.addr: ftp://a:1 is not an address; expected an address"),
        ("consul_server: {addr: a, wait: 11m}", "consul_server.wait: 11m is out of range; expected a duration"),
        ("consul_server: {addr: a, token: x, token_file: y}", "consul_server.token_file: is given as well as token;"),
        ("consul_server: {addr: a, token_file: /no}", "consul_server.token_file: /no cannot be read: No such file"),
        ("consul_server: {addr: a, token_file: /dev/null}", "consul_server.token_file: /dev/null is empty; expected"),
        (
            "consul_server: {addr: a, username: b:c}",
            "consul_server.username: has a ':'; expected a user's name without"
        ),
        ("consul_server: {addr: a, password: \"b\\n\"}", "consul_server.password: has a control character; expected"),
        (
            "consul_server: {addr: a, deregister_critical_service_after: 59s}",
            "consul_server.deregister_critical_service_after: 59s is out of range; expected a duration"
        ),
        ("worker: 1", "worker: is not a known key; did you mean workers?"),
        ("vnodes: 1", "vnodes: is not a known key; did you mean hash.vnodes?"),
        ("check: {pth: /}", "check.pth: is not a known key; did you mean check.path?"),
        ("check: {workers: 1}", "check.workers: is not a known key; did you mean workers?"),
        ("hash: {seed: 1}", "hash.seed: is not a known key; expected one of key, vnodes"),
        ("hash.vnodes: 1", "hash.vnodes: is a name with a dot; expected a key inside its section"),
        ("<<: {mode: forward}", "<<: is not a known key; expected one of check, consul_server"),
        ("? [a]\n: b", "file: a list is not a key; expected a key's name"),
        ("~: b", "file: an empty value is not a key; expected a key's name"),
    ])
    func aWrongValueIsToldWithItsLine(text: String, expected: String) {
        let problems = Self.problems(in: "pushgateway: {servers: [a]}\n" + text)
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix("f:2: " + expected) == true, "\(problems)")
    }

    @Test(arguments: [
        ("", "f:1: pushgateway.servers: is missing; expected at least one, for without consul_server"),
        ("# nothing\n", "f:1: pushgateway.servers: is missing"),
        ("---\n", "f:1: pushgateway.servers: is missing"),
        ("mode: forward\npushgateway:\n  port: 1", "f:2: pushgateway.servers: is missing"),
        ("pushgateway:\n  servers: []", "f:2: pushgateway.servers: is missing"),
        ("pushgateway:\n  servers: a", "f:2: pushgateway.servers: a is not a list; expected a list of addresses"),
        ("pushgateway:\n  servers:\n    - a\n    - ~", "f:4: pushgateway.servers: an empty value is not one value;"),
        ("pushgateway:\n  servers:\n    - a\n    - b:x", "f:4: pushgateway.servers: b:x is not an address; expected"),
        ("- a\n", "f:1: file: a list is not a mapping; expected keys"),
        ("\nword", "f:2: file: word is not a mapping; expected keys"),
        ("pushgateway:\n\tservers: [a]", "f:2: syntax: a tab is where only spaces may be"),
        ("pushgateway:\n  servers: [a\nmode: forward", "f:3: syntax: did not find expected ',' or ']'"),
        ("a: b\nc: d: e", "f:2: syntax: mapping values are not allowed in this context"),
        ("a: *b", "f:1: syntax: found undefined alias"),
        (
            "a: b\nc: \"d\ne",
            "f:3: syntax: found unexpected end of stream while scanning a quoted scalar that begins on"
        ),
        ("pushgateway: {servers: [a]}\n---\nb: 1", "f:3: syntax: a second document begins; expected one in a file"),
        ("a: 1\nb: \u{1}", "f:2: syntax: the character U+0001 is not allowed; expected printable text"),
    ])
    func aFileThatCannotBeReadIsToldWithItsLine(text: String, expected: String) {
        let problems = Self.problems(in: text)
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix(expected) == true, "\(problems)")
    }

    @Test func allProblemsAreToldAtOnceInTheOrderOfTheirLines() {
        let text = """
            consul_server:
              adr: localhost
              wait: 5
            pushgateway:
              port: 65536
              servers: [a, b:0, [c]]
            limit: {}
            workers: many
            """
        let starts = [
            "f:1: consul_server.addr: is missing", "f:2: consul_server.adr: is not a known key",
            "f:3: consul_server.wait: 5 has no unit", "f:5: pushgateway.port: 65536 is out of range",
            "f:6: pushgateway.servers: a list is not one value", "f:6: pushgateway.servers: b:0 is not an address",
            "f:7: limit: is not a known key; did you mean limits?", "f:8: workers: many is not a whole number",
        ]
        let problems = Self.problems(in: text)
        #expect(problems.count == starts.count, "\(problems)")
        for (problem, start) in zip(problems, starts) { #expect(problem.hasPrefix(start), "\(problem)") }
    }

    @Test func repeatedKeysAreToldAlongWithEverythingElse() {
        let text = """
            pushgateway: {servers: [a], "port": 1, port: 2}
            mode: sideways
            'mode': forward
            hash:
              vnodes: x
            &anchor mode: &value forward
            !!str mode: *value
            hash:
              vnodes: 0
              seed: 1
            """
        #expect(
            Self.problems(in: text) == [
                "f:1: pushgateway.port: is given again after line 1; expected once",
                "f:2: mode: sideways is not known; expected forward or redirect",
                "f:3: mode: is given again after line 2; expected once",
                "f:5: hash.vnodes: x is not a whole number; expected a whole number from 1 to 100000",
                "f:6: mode: is given again after line 2; expected once",
                "f:7: mode: is given again after line 2; expected once",
                "f:8: hash: is given again after line 4; expected once",
                "f:9: hash.vnodes: 0 is out of range; expected a whole number from 1 to 100000",
                "f:10: hash.seed: is not a known key; expected one of key, vnodes",
            ]
        )
    }

    @Test func manyRepeatedKeysAreToldToo() {
        let text = "pushgateway: {servers: [a]}\n" + String(repeating: "mode: forward\n", count: 500)
        #expect(Self.problems(in: text) == ["f:102: mode: is given more than once; expected once"])
        let marked = "mode: forward\nmode: forward\n\u{E000}0\u{E000}mode: forward"
        #expect(Self.problems(in: marked) == ["f:1: mode: is given more than once; expected once"])
    }

    @Test func aSecretIsNeverShown() {
        let text = "consul_server: {addr: a, username: \"se:cret\", password: \"secret\\e\", token: \"secret\\0\"}"
        let problems = Self.problems(in: text)
        #expect(problems.count == 3)
        #expect(!problems.contains { $0.contains("secret") || $0.contains("se:cret") })
    }

    @Test func whatIsShownStaysShortAndOnOneLine() {
        let problems = Self.problems(in: "mode: \"\\n\\e[31m\\u2028\(String(repeating: "x", count: 100))\"")
        let start = "f:1: mode: \"\\n\\u{1B}[31m\\u{2028}"
        #expect(problems.first?.hasPrefix(start) == true, "\(problems)")
        #expect(problems.first?.contains("x…\" (quoted) is not known") == true)
    }

    @Test func filesThatCannotBeReadAreProblems() throws {
        func problem(_ file: String) -> String? {
            do throws(ConfigurationErrors) {
                _ = try Configuration.load(file: file)
                return nil
            } catch {
                return error.description
            }
        }
        #expect(
            problem("/no/file") == "/no/file:1: file: cannot be read: No such file or directory; expected a YAML file"
        )
        #expect(problem("/") == "/:1: file: cannot be read: Is a directory; expected a YAML file")
        let file = FileManager.default.temporaryDirectory.appending(path: "latin-\(UUID().uuidString).yml").path
        defer { try? FileManager.default.removeItem(atPath: file) }
        try Data("mode: forward\n# caf".utf8 + [0xE9]).write(to: URL(filePath: file))
        #expect(problem(file) == "\(file):2: file: is not UTF-8; expected text in UTF-8")
        try Data(count: 5 << 20).write(to: URL(filePath: file))
        #expect(problem(file) == "\(file):1: file: cannot be read: more than 4194304 bytes; expected a YAML file")
    }
}
