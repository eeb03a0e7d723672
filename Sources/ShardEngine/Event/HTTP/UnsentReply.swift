// What a client has not yet taken of its answer: bytes of its own, and then of a document that others get too.
import CEvent
import Glibc

/// What is still to be sent of a shared document.
struct PageRest {
    let bytes: [UInt8]
    var offset = 0
}

/// The rest of an answer. A connection has one.
struct UnsentReply: ~Copyable {
    /// What sending came to.
    enum Outcome {
        case all, notReady, failed
    }

    private var bytes = ByteBuffer(capacity: 0)
    private var page: PageRest?

    /// Takes what is to be sent.
    mutating func fill(_ bytes: UnsafeRawBufferPointer, _ page: PageRest?) {
        self.bytes.append(bytes)
        self.page = page
    }

    mutating func clear() {
        bytes.reset(keeping: 64)
        page = nil
    }

    /// Sends what the socket takes.
    mutating func send(to descriptor: Int32) -> Outcome {
        while bytes.count > 0 {
            let sent = Glibc.send(descriptor, bytes.readable.baseAddress, bytes.count, UnsentReply.flags)
            guard sent > 0 else { return UnsentReply.outcome() }
            bytes.consume(sent)
        }
        while let rest = page, rest.offset < rest.bytes.count {
            let sent = rest.bytes.withUnsafeBytes { bytes in
                let start = bytes.baseAddress.map { $0 + rest.offset }
                return Glibc.send(descriptor, start, bytes.count - rest.offset, UnsentReply.flags)
            }
            guard sent > 0 else { return UnsentReply.outcome() }
            page?.offset += sent
        }
        clear()
        return .all
    }

    private static func outcome() -> Outcome {
        errno == EAGAIN || errno == EINTR ? .notReady : .failed
    }

    private static let flags = Int32(MSG_NOSIGNAL)
}
