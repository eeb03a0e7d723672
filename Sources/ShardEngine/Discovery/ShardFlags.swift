// What the flags of a Pushgateway say, which it tells in /api/v1/status: how often it writes its file, as copies of groups that have
// moved stay for longer than it takes the new owner to write them; and whether it checks pushes. `Stores` reads each answer.

extension HTTPOutcome {
    /// How often the Pushgateway that gave this answer writes its file; nil where it has none, or does not tell.
    var fileInterval: TimeSpan? {
        let flags = shardFlags
        guard let file = flags["persistence.file"], !file.isEmpty else { return nil }
        return flags["persistence.interval"].flatMap { TimeSpan(goDuration: $0) } ?? .seconds(300)
    }

    /// Whether the Pushgateway that gave this answer checks pushes for consistency; nil where it does not tell.
    var isChecking: Bool? { shardFlags["push.disable-consistency-check"].map { $0 != "true" } }

    /// The flags that are of use here.
    private var shardFlags: [String: String] {
        guard case .response(let response) = self, response.status == 200 else { return [:] }
        var flags: [String: String] = [:]
        response.body.withUnsafeBytes { body in
            var scanner = JSONScanner(body)
            scanner.object { scanner, name in
                guard name == "data", scanner.peek() == 0x7B else { return scanner.skip() }
                scanner.object { scanner, name in
                    guard name == "flags", scanner.peek() == 0x7B else { return scanner.skip() }
                    scanner.object { scanner, name in
                        let isOfUse = name.hasPrefix("persistence.") || name.hasPrefix("push.")
                        if isOfUse { flags[name] = scanner.string() } else { scanner.skip() }
                    }
                }
            }
        }
        return flags
    }
}

extension TimeSpan {
    /// A duration as Go writes it, such as `5m0s` or `1.5s`: https://pkg.go.dev/time#Duration.String
    init?(goDuration text: String) {
        var seconds = 0.0
        var rest = Substring(text)
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isNumber || $0 == "." }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { !$0.isNumber }
            rest = rest.dropFirst(unit.count)
            guard let number = Double(digits), let factor = TimeSpan.goUnits[String(unit)] else { return nil }
            seconds += number * factor
        }
        guard !text.isEmpty, seconds < 1e9 else { return nil }
        self.init(nanoseconds: UInt64((seconds * 1e9).rounded()))
    }

    private static let goUnits = ["h": 3600, "m": 60, "s": 1, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9]
}
