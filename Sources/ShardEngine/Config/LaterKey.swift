// Keys that the documentation of shardd knows and this version does not: a value other than the default is an error that says
// so, rather than one that is silently of no effect. The table of keys names them.
import Yams

/// What a key of a later version may already be given: its default.
indirect enum LaterDefault {
    /// No value.
    case unset
    /// One of the spellings of a value.
    case scalars([String])
    /// A list or mapping with nothing in it.
    case empty
    /// A mapping of some of these keys.
    case keys([String: LaterDefault])

    /// The nodes below this one that are not the default, each by its dotted name; none when all is.
    func deviations(_ node: Node, name: String) -> [(name: String, node: Node)] {
        if node.isNull { return [] }
        switch self {
        case .scalars(let texts):
            if let text = node.scalar?.string, texts.contains(text) { return [] }
        case .empty:
            if node.sequence?.isEmpty == true || node.mapping?.isEmpty == true { return [] }
        case .keys(let defaults):
            guard let mapping = node.mapping else { break }
            return mapping.flatMap { key, value -> [(name: String, node: Node)] in
                let text = key.scalar?.string ?? key.shown
                let child = "\(name).\(text.shown)"
                return defaults[text]?.deviations(value, name: child) ?? [(child, key)]
            }
        case .unset:
            break
        }
        return [(name, node)]
    }

    fileprivate var shown: String {
        switch self {
        case .scalars(let texts): ", or its default, \(texts[0])"
        case .unset, .empty, .keys: ""
        }
    }
}

extension ConfigurationKey {
    /// A key of a later version.
    init(later name: String, _ accepted: LaterDefault) {
        self.init(name) { node, problems in
            for deviation in accepted.deviations(node, name: name) {
                let message = "comes with a later version of shardd; expected nothing yet\(accepted.shown)"
                problems.add(line: deviation.node.mark?.line ?? 1, key: deviation.name, message)
            }
        }
    }
}
