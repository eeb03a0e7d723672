// What the flags of a Pushgateway say, which it tells in /api/v1/status: how often it writes its file, as copies of groups that have
// moved stay for longer than it takes the new owner to write them; and whether it checks pushes. `Stores` reads each answer.

/// The flags of one Pushgateway that are of use here.
struct ShardFlags {
    /// How often it writes its file; nil where it has none, or does not tell.
    private(set) var fileInterval: TimeSpan?
    /// Whether it checks pushes for consistency; nil where it does not tell.
    private(set) var isChecking: Bool?

    /// Reads what a Pushgateway has answered.
    init(_ outcome: HTTPOutcome) {
        guard case .response(let response) = outcome, response.status == 200 else { return }
        var file = ""
        var interval: TimeSpan?
        response.body.withUnsafeBytes { body in
            var scanner = JSONScanner(body)
            scanner.object { scanner, name in
                guard name == "data", scanner.peek() == 0x7B else { return scanner.skip() }
                scanner.object { scanner, name in
                    guard name == "flags", scanner.peek() == 0x7B else { return scanner.skip() }
                    scanner.object { scanner, name in
                        switch name {
                        case "persistence.file": file = scanner.string()
                        case "persistence.interval": interval = TimeSpan(goDuration: scanner.string())
                        case "push.disable-consistency-check": isChecking = scanner.string() != "true"
                        default: scanner.skip()
                        }
                    }
                }
            }
        }
        if !file.isEmpty { fileInterval = interval ?? .seconds(300) }
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
