// The values read so far, and what can be judged only once all of them are there.
// The reader fills it key by key; `finish` turns it into the configuration.

/// A configuration in the making.
struct ConfigurationDraft {
    /// What goes into the configuration as it is.
    var file = Configuration()
    /// What goes there when the file has the section.
    var consul = Configuration.Consul()
    /// `consul_server.addr`.
    var consulEndpoint: ConsulEndpoint?
    /// `pushgateway.port`, for the servers that name none.
    var serverPort = 9091
    /// `pushgateway.username`.
    var shardUsername: String?
    /// `pushgateway.password`.
    var shardPassword: String?
    /// `pushgateway.servers`, unread until the port is known; nil where the file has no list of them.
    var servers: [LocatedText]?
    /// The line of each key and section that the file gives a value.
    var lines: [String: Int] = [:]

    /// The configuration; what it lacks or contradicts is added to the problems.
    mutating func finish(problems: inout ProblemList) -> Configuration {
        file.servers = readServers(problems: &problems)
        if file.pushCheck == .full, file.mode == .redirect {
            let message = "is full, and redirected clients push past shardd; expected off or guard with mode: redirect"
            problems.add(line: lines["pushes.check"] ?? 1, key: "pushes.check", message)
        }
        file.check.authorization = shardUsername.map { basicAuthorization($0, shardPassword) }
        if lines["consul_server"] != nil {
            finishConsul(problems: &problems)
            file.consul = consul
        } else if lines["pushgateway.servers"] == nil || servers?.isEmpty == true {
            require(
                "pushgateway.servers",
                "at least one, for without consul_server these are all the shards",
                &problems
            )
        }
        return file
    }

    private func require(_ key: String, _ expected: String, _ problems: inout ProblemList) {
        let section = String(key.prefix { $0 != "." })
        problems.add(line: lines[key] ?? lines[section] ?? 1, key: key, "is missing; expected \(expected)")
    }

    private func readServers(problems: inout ProblemList) -> [ShardAddress] {
        let addresses = (servers ?? []).compactMap { server -> ShardAddress? in
            if server.text.hasPrefix("dns+") || server.text.hasPrefix("dnssrv+") {
                let message = "\(server.text.shown): discovery by DNS comes with a later version of shardd"
                problems.add(line: server.line, key: "pushgateway.servers", "\(message); expected an address")
                return nil
            }
            let address = ShardAddress(parsing: server.text, defaultPort: serverPort)
            if address == nil {
                let message = "\(server.text.shown) is not an address; expected host, host:port or \"[v6]:port\""
                problems.add(line: server.line, key: "pushgateway.servers", message)
            }
            return address
        }
        return Set(addresses).sorted()
    }

    private mutating func finishConsul(problems: inout ProblemList) {
        if let consulEndpoint {
            consul.isTLS = consulEndpoint.isTLS
            consul.host = consulEndpoint.address.host
            consul.port = consulEndpoint.address.port
        } else if lines["consul_server.addr"] == nil {
            require(
                "consul_server.addr",
                "the agent's address, such as localhost:8500 (the variables CONSUL_* come with a later version)",
                &problems
            )
        }
        guard let path = consul.tokenFile, let line = lines["consul_server.token_file"] else { return }
        guard consul.token == nil else {
            let message = "is given as well as token; expected only one of the two"
            return problems.add(line: line, key: "consul_server.token_file", message)
        }
        do throws(Mistake) {
            consul.token = try readToken(path, nextTo: problems.file)
        } catch {
            let message = "\(path.shown) \(error.reason); expected a file that holds an ACL token"
            problems.add(line: line, key: "consul_server.token_file", message)
        }
    }

    /// Reads the token from a file; a relative path starts at the configuration file's folder.
    private func readToken(_ path: String, nextTo file: String) throws(Mistake) -> String {
        let folder =
            path.hasPrefix("/") ? "" : file[..<(file.lastIndex(of: "/").map(file.index(after:)) ?? file.startIndex)]
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try readFile(folder + path, limit: 16384)
        } catch {
            throw Mistake("cannot be read: \(error.reason)")
        }
        let token = bytes[..<((bytes.lastIndex { $0 != 0x0A && $0 != 0x0D } ?? -1) + 1)]
        guard !token.isEmpty else { throw Mistake("is empty") }
        guard token.allSatisfy({ (0x21...0x7E).contains($0) }) else { throw Mistake("has more than one token's text") }
        return String(decoding: token, as: UTF8.self)
    }
}
