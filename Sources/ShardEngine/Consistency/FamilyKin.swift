// Which families' names are parts of others. KnownFamilies and the listings ask.

/// Which families may not be beside each other: a summary or histogram is told in a scrape by names that are its own with these
/// endings.
enum FamilyKin {
    private static let endings: [[UInt8]] = ["_count", "_sum", "_bucket"].map { Array($0.utf8) }

    private static func endings(of kind: FamilyKind) -> ArraySlice<[UInt8]> {
        switch kind {
        case .summary: endings[..<2]
        case .histogram: endings[...]
        case .counter, .gauge, .untyped: []
        }
    }

    /// Names that may not be beside a family, whatever is known of them.
    static func names(of name: [UInt8], _ kind: FamilyKind) -> [[UInt8]] {
        let stem = endings.first { name.count > $0.count && name.suffix($0.count).elementsEqual($0) }
        return endings(of: kind).map { name + $0 } + (stem.map { [Array(name.dropLast($0.count))] } ?? [])
    }

    /// Whether one is told by the other's name.
    static func areKin(_ one: (name: [UInt8], kind: FamilyKind), _ other: (name: [UInt8], kind: FamilyKind)) -> Bool {
        endings(of: one.kind).contains { other.name == one.name + $0 }
            || endings(of: other.kind).contains { one.name == other.name + $0 }
    }
}
