// Finds out what a push would store, and whether it breaks a rule of Pushgateway's consistency check by itself or together
// with its key. It reads as Pushgateway 1.5 does, in one pass over the body. The guard owns one; the formats are in TextContents
// and ProtobufContents, and what both of them find goes to BodyFamilies.
//
// Where versions differ it goes by 1.5.1:
// - 1.11 takes names in quotes in text, and in messages names of labels beyond letters, digits and `_`.
// - 1.11 refuses a body of messages that ends behind a length, and negative counts of a histogram's buckets.
// In messages it takes numbers of ten bytes that are too large for 64 bits, which every Pushgateway refuses: WireReader does.

/// Reads bodies of pushes, one after another, in memory that it keeps; confined to one thread.
final class ContentsReader {
    /// What a body came to.
    enum Outcome {
        /// `families` has what the push would store.
        case read
        /// It breaks a rule.
        case refused(PushRefusal)
        /// Every Pushgateway refuses it, whether it checks pushes or not, or this reader cannot read it; `families` has nothing.
        case unreadable
    }

    /// What the body that was read last would store. It refers to the body and to the key.
    let families = BodyFamilies()
    private let columns: LabelColumns
    private let text: TextContents
    private let protobuf: ProtobufContents

    /// The labels of the push's key, which are filled in before its body is read.
    var key: KeyLabels { families.key }

    init() {
        columns = LabelColumns(families.key)
        text = TextContents(families, columns)
        protobuf = ProtobufContents(families, columns)
    }

    /// - Parameter body: as it is when it has been inflated.
    func read(_ body: UnsafeRawBufferPointer, isProtobuf: Bool) -> Outcome {
        families.removeAll(keepsEmpty: isProtobuf)
        columns.removeAll()
        guard isProtobuf ? protobuf.read(body) : text.read(body) else {
            clear()
            return .unreadable
        }
        return families.refusal().map { .refused($0) } ?? .read
    }

    /// The push has no body.
    func clear() {
        families.removeAll(keepsEmpty: false)
    }
}

extension PushContents {
    /// - Parameter families: what the reader has found.
    init(_ outcome: ContentsReader.Outcome, _ families: BodyFamilies) {
        switch outcome {
        case .read: self = .families(families.pushed())
        case .refused(let refusal): self = .refused(refusal)
        case .unreadable: self = .unreadable
        }
    }
}
