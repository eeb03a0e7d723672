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

    /// The method of that name; pushes first, since nearly all requests are.
    init?(_ name: UnsafeRawBufferPointer) {
        switch name.count {
        case 4 where equals(name, "POST"): self = .post
        case 3 where equals(name, "PUT"): self = .put
        case 6 where equals(name, "DELETE"): self = .delete
        case 3 where equals(name, "GET"): self = .get
        case 4 where equals(name, "HEAD"): self = .head
        case 7 where equals(name, "OPTIONS"): self = .options
        case 5 where equals(name, "PATCH"): self = .patch
        case 5 where equals(name, "TRACE"): self = .trace
        default: return nil
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
