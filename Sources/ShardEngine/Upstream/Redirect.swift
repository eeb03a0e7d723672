// What a shard, or a proxy before it, means by answering a push with a redirect. Exchange asks before it passes an answer on:
// clients follow redirects by GET, which shardd answers with 200, and would report a push as done that nobody has stored.

/// A redirect in answer to a push.
struct Redirect {
    let status: Int
    /// The Location header, as it came; empty when there is none.
    let location: String

    /// Whether clients follow answers with this status.
    static func isOne(_ status: Int) -> Bool {
        switch status {
        case 301, 302, 303, 307, 308: true
        default: false
        }
    }

    /// Reads a head with a status that is one.
    init(_ response: ParsedResponse, head: UnsafeRawBufferPointer) {
        status = response.status
        var location = ""
        forEachLine(of: head) { _, name, value in
            guard equalsIgnoringCase(name, "location") else { return }
            let text = String(decoding: value, as: UTF8.self).prefix(Redirect.locationLimit)
            location = String(text.split { $0 == " " || $0 == "\t" }.joined(separator: " "))
        }
        self.location = location
    }

    /// What the client is told, in one line.
    ///
    /// - Parameter target: path and query of the push.
    func line(shard: ShardAddress, target: String) -> String {
        let push = "shard \(shard): it answers pushes on this path with a redirect (\(status))"
        guard let path = path(from: target) else { return "\(push) that does not say where to" }
        if path == target { return "\(push) to \(location): the path to use is \(path), and the shard has to take it" }
        return "\(push): the path to use is \(path)"
    }

    /// Path and query that the Location leads to, on shardd; nil when it leads nowhere.
    func path(from target: String) -> String? {
        var reference = location.prefix { $0 != "#" }
        guard !location.isEmpty else { return nil }
        if let scheme = reference.firstIndex(where: { ":/?".contains($0) }), reference[scheme] == ":" {
            reference = reference[reference.index(after: scheme)...]
        }
        if reference.hasPrefix("//") {
            let path = reference.dropFirst(2).drop { $0 != "/" && $0 != "?" }
            return path.hasPrefix("/") ? withoutDots(path) : "/" + path
        }
        let path = target.prefix { $0 != "?" }
        if reference.isEmpty { return target }
        if reference.hasPrefix("/") { return withoutDots(reference) }
        if reference.hasPrefix("?") { return String(path) + reference }
        let folder = path[..<(path.lastIndex(of: "/") ?? path.startIndex)]
        return withoutDots(Substring("\(folder)/\(reference)"))
    }

    /// The path without its dot segments (RFC 3986, section 5.2.4), and its query.
    private func withoutDots(_ reference: Substring) -> String {
        let path = reference.prefix { $0 != "?" }
        var kept: [Substring] = []
        let segments = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        for segment in segments where segment != "." {
            if segment != ".." { kept.append(segment) } else if !kept.isEmpty { kept.removeLast() }
        }
        if let last = segments.last, last == "." || last == ".." { kept.append("") }
        return "/" + kept.joined(separator: "/") + reference.dropFirst(path.count)
    }

    private static let locationLimit = 2000
}
