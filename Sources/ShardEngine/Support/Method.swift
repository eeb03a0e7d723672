// The request methods that shardd tells apart. Gate, ingress, admin and metrics use them.

/// A request method of HTTP that evhttp knows as well; any other is answered 405 by the Gate.
public enum Method: UInt8, CaseIterable, Sendable {
    case get, head, put, post, delete, options, patch, trace

    /// The name as it stands in a request line.
    var name: StaticString {
        switch self {
        case .get: "GET"
        case .head: "HEAD"
        case .put: "PUT"
        case .post: "POST"
        case .delete: "DELETE"
        case .options: "OPTIONS"
        case .patch: "PATCH"
        case .trace: "TRACE"
        }
    }

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
