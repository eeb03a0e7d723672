// The families that a Pushgateway has of itself, read from a shard's `/metrics`: what is pushed has to go with them.

/// Reads a scrape of a Pushgateway.
enum OwnFamilies {
    /// Whether a Pushgateway may have the family of itself once it has been asked something; it minds the HELP of these.
    static func mayBecomeOne(_ name: [UInt8]) -> Bool { name.starts(with: "pushgateway_http_".utf8) }

    /// The families with a series that nobody has pushed: whatever is pushed has a label `instance`.
    static func read(_ scrape: UnsafeRawBufferPointer) -> [PushedFamily] {
        var kinds: [String: FamilyKind] = [:]
        var helps: [String: String] = [:]
        var own: Set<String> = []
        var present = ""
        for line in String(decoding: scrape, as: UTF8.self).split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                let parts = line.dropFirst(7).split(separator: " ")
                guard parts.count == 2 else { continue }
                present = String(parts[0])
                kinds[present] = kind(parts[1])
            } else if line.hasPrefix("# HELP ") {
                let parts = line.dropFirst(7).split(separator: " ", maxSplits: 1)
                if parts.count == 2 { helps[String(parts[0])] = unescaped(parts[1]) }
            } else if !line.hasPrefix("#"), !line.contains("instance=\"") {
                own.insert(present)
            }
        }
        return own.sorted().compactMap { name in
            kinds[name].map { kind in
                PushedFamily(name: Array(name.utf8), kind: kind, help: helps[name].map { Array($0.utf8) }, series: [])
            }
        }
    }

    private static func kind(_ word: Substring) -> FamilyKind {
        switch word {
        case "counter": .counter
        case "gauge": .gauge
        case "summary": .summary
        case "histogram": .histogram
        default: .untyped
        }
    }

    private static func unescaped(_ help: Substring) -> String {
        String(help).replacing("\\n", with: "\n").replacing("\\\\", with: "\\")
    }
}
