// What a mark is called in a shard. While a store is absent, a PUT or DELETE leaves one at the store that stands in: nothing
// that the absent one has of the key counts any more. Courses write marks behind pushes, listings read them.
import MovingCore

extension MarkID {
    /// The mark of the group that pushes on a path are for; nil where a Pushgateway would refuse them.
    ///
    /// - Parameter parser: of the `hash.key` by which pushes are placed; what it was asked before is no longer valid.
    init?(path: UnsafeRawBufferPointer, _ parser: GroupingKeyParser) {
        guard let (hash, digest) = parser.identity(path: path) else { return nil }
        self.init(hash: hash, digest: digest)
    }

    /// The mark that a family's name says; nil for any other family.
    init?(family name: String) {
        guard name.hasPrefix(MarkID.prefix) else { return nil }
        let digits = name.dropFirst(MarkID.prefix.count)
        guard digits.utf8.count == 24, let hash = UInt32(digits.prefix(8), radix: 16),
            let digest = UInt64(digits.dropFirst(8), radix: 16)
        else { return nil }
        self.init(hash: hash, digest: digest)
    }

    /// The name of the family without metrics that is the mark.
    var familyName: String {
        MarkID.prefix + MarkID.digits(UInt64(hash), count: 8) + MarkID.digits(digest, count: 16)
    }

    private static func digits(_ number: UInt64, count: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: count - text.utf8.count) + text
    }

    /// What is pushed to add the mark to its group: a length-delimited MetricFamily with a name, the type gauge, no metrics.
    var body: [UInt8] {
        let name = Array(familyName.utf8)
        let message = [0x0A, UInt8(name.count)] + name + [0x18, 0x01]
        return [UInt8(message.count)] + message
    }

    /// Where marks with a number are pushed.
    static func groupPath(_ number: Epoch) -> String { "/metrics/job/shardd/void/\(number)" }

    private static let prefix = "shardd_void_"
}
