// Pushes that were taken at once and have not ended: of each its group, and where its families are known. KnownFamilies keeps them,
// in memory that grows to what is under way at one time and is used again.

/// Pushes under way, by numbers.
struct CountedPushes: ~Copyable {
    struct Push {
        var group: Int
        /// Where the first of its families is, or of a number that is not in use the next such number; negative for none.
        var first: Int
    }

    struct Link {
        let family: FamilyReference
        /// Where the push's next family is, or the next link that is not in use; negative for none.
        var next: Int
    }

    private var pushes = Arena<Push>(capacity: 64)
    private var links = Arena<Link>(capacity: 256)
    private var unusedPush = -1
    private var unusedLink = -1

    /// - Returns: the push's number.
    @inline(__always)
    mutating func begin(_ group: Int) -> Int {
        guard unusedPush >= 0 else {
            pushes.append(Push(group: group, first: -1))
            return pushes.count &- 1
        }
        let number = unusedPush
        unusedPush = pushes[number].first
        pushes[number] = Push(group: group, first: -1)
        return number
    }

    @inline(__always)
    mutating func add(_ family: FamilyReference, to number: Int) {
        let link = Link(family: family, next: pushes[number].first)
        if unusedLink >= 0 {
            let index = unusedLink
            unusedLink = links[index].next
            links[index] = link
            pushes[number].first = index
        } else {
            pushes[number].first = links.count
            links.append(link)
        }
    }

    func group(of number: Int) -> Int { pushes[number].group }

    @inline(__always)
    func forEachFamily(of number: Int, _ body: (FamilyReference) -> Void) {
        var index = pushes[number].first
        while index >= 0 {
            body(links[index].family)
            index = links[index].next
        }
    }

    /// Calls `body` with each family of a push, whose number is not in use then.
    @inline(__always)
    mutating func end(_ number: Int, _ body: (FamilyReference) -> Void) {
        var index = pushes[number].first
        while index >= 0 {
            let link = links[index]
            body(link.family)
            links[index].next = unusedLink
            unusedLink = index
            index = link.next
        }
        pushes[number].first = unusedPush
        unusedPush = number
    }
}
