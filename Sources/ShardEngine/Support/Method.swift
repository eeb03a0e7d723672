// The request methods that shardd tells apart. Gate, ingress, admin and metrics use them.

/// A request method of HTTP that evhttp knows as well; any other is answered 405 by the Gate.
public enum Method: UInt8, CaseIterable, Sendable {
    case get, head, put, post, delete, options, patch, trace

    /// The names as they stand in a request line, in the order of the cases.
    static let words: [StaticString] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]

    /// The method at an index of `words`.
    init?(_ index: Int?) {
        guard let index else { return nil }
        self.init(rawValue: UInt8(index))
    }

    /// The name as it stands in a request line.
    var name: StaticString { Method.words[Int(rawValue)] }

    /// Whether evhttp reads a body after this method's head.
    var mayHaveBody: Bool {
        switch self {
        case .get, .head, .trace: false
        default: true
        }
    }

    /// Whether it changes a group: what is forwarded to a shard.
    var isPush: Bool {
        switch self {
        case .put, .post, .delete: true
        default: false
        }
    }
}
