// The names of the labels of series. Both readers of bodies ask it for each label.

/// The names of a series' own labels, in their order. Most series have the names of the one before, so that what is known of
/// a name need not be found out again.
final class LabelColumns {
    struct Column {
        let name: UnsafeRawBufferPointer
        let isOfKey: Bool
        let isInstance: Bool
        /// Whether the check takes it.
        let isValid: Bool
        /// The kind of families in text of whose metrics it is no label, but tells which part of one a line is.
        private let partOf: FamilyKind?
        private let hash: UInt64
        private let shape: UInt64
        private let emptyShape: UInt64

        init(_ name: UnsafeRawBufferPointer, of key: KeyLabels) {
            self.name = name
            isOfKey = key.contains(name)
            isInstance = equals(name, "instance")
            isValid = Column.isValid(name)
            partOf = equals(name, "le") ? .histogram : equals(name, "quantile") ? .summary : nil
            hash = KeyedHash.ofProcess.hash(name)
            shape = SeriesHash.shapeName(name, isEmpty: false)
            emptyShape = SeriesHash.emptied(shape)
        }

        @inline(__always)
        func isPart(of kind: FamilyKind?) -> Bool { partOf != nil && partOf == kind }

        /// The label's part in a series' hash.
        @inline(__always)
        func hash(_ value: UnsafeRawBufferPointer, _ hash: KeyedHash) -> Int {
            Int(truncatingIfNeeded: hash.hash(value, after: self.hash))
        }

        /// Adds the label to a series, whose sums have what the key's labels bring already.
        @inline(__always)
        func add(_ hash: Int, isEmpty: Bool, to sum: inout SeriesSum) {
            if isOfKey { return }
            sum.hash &+= hash
            sum.names &+= isEmpty ? emptyShape : shape
            if isInstance { sum.hasInstance = true }
        }

        private static func isValid(_ name: UnsafeRawBufferPointer) -> Bool {
            guard let first = name.first, first &- UInt8(ascii: "0") >= 10 else { return false }
            return !begins(name, at: 0, with: "__")
                && name.allSatisfy { byte in
                    (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte &- UInt8(ascii: "0") < 10
                        || byte == UInt8(ascii: "_")
                }
        }
    }

    private let key: KeyLabels
    /// Of the last series; no two of one name.
    private var columns = Arena<Column>(capacity: 32)
    /// The names of those columns that are too many to be looked at one by one.
    private var late: Set<NameBytes> = []
    private var count = 0

    private static let fewColumns = 16

    init(_ key: KeyLabels) {
        self.key = key
    }

    /// Forgets the names of another body.
    func removeAll() {
        columns.removeAll()
        if !late.isEmpty { late.removeAll() }
        count = 0
    }

    @inline(__always)
    func beginSeries() {
        count = 0
    }

    /// Takes the next label's name, if it is that of the series before in this place, as it is in most; nil for another one.
    @inline(__always)
    func takeNext(_ cursor: inout TextCursor) -> UnsafePointer<Column>? {
        guard count < columns.count else { return nil }
        let column = columns.pointer(to: count)
        let length = column.pointee.name.count
        guard let name = column.pointee.name.baseAddress, cursor.isNext(name, length),
            cursor.byte(ahead: length) == UInt8(ascii: "=")
        else { return nil }
        cursor.offset &+= length
        count &+= 1
        return UnsafePointer(column)
    }

    /// The next label of the series; nil where it has one of that name. It is valid until the next one.
    ///
    /// - Parameter kind: of a histogram or summary in text: that may have labels twice that only tell parts of it.
    @inline(__always)
    func next(_ name: UnsafeRawBufferPointer, of kind: FamilyKind? = nil) -> UnsafePointer<Column>? {
        if count < columns.count {
            let column = columns.pointer(to: count)
            if NameBytes(column.pointee.name) == NameBytes(name) {
                count &+= 1
                return UnsafePointer(column)
            }
        }
        return added(name, kind)
    }

    @inline(never)
    private func added(_ name: UnsafeRawBufferPointer, _ kind: FamilyKind?) -> UnsafePointer<Column>? {
        for index in max(count, LabelColumns.fewColumns)..<max(columns.count, count, LabelColumns.fewColumns) {
            late.remove(NameBytes(columns[index].name))
        }
        columns.removeAll(from: count)
        let column = Column(name, of: key)
        let isThere = columns.elements.prefix(LabelColumns.fewColumns).contains {
            NameBytes($0.name) == NameBytes(name)
        }
        if isThere || !late.isEmpty && late.contains(NameBytes(name)) {
            let former = columns.elements.firstIndex { NameBytes($0.name) == NameBytes(name) }
            guard column.isPart(of: kind), let former else { return nil }
            return UnsafePointer(columns.pointer(to: former))
        }
        if count >= LabelColumns.fewColumns { late.insert(NameBytes(name)) }
        columns.append(column)
        count &+= 1
        return UnsafePointer(columns.pointer(to: count &- 1))
    }
}
