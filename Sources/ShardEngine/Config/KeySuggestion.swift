// What an unknown key was probably meant to be. The reader puts it into its message.

/// Finds the known names near a misspelt one.
enum KeySuggestion {
    /// The one dotted name that was most likely meant: the nearest within two edits, or the same word at another
    /// level; nil when nothing is near.
    static func nearest(to name: String, among known: [String]) -> String? {
        let word = lastPart(of: name)
        let distances = known.map { (name: $0, distance: distance(Array(name.utf8), Array($0.utf8))) }
        if let best = distances.min(by: { $0.distance < $1.distance }), best.distance <= min(2, word.utf8.count / 2) {
            return best.name
        }
        let elsewhere = known.filter { lastPart(of: $0) == word && $0.contains(".") != name.contains(".") }
        return elsewhere.count == 1 ? elsewhere[0] : nil
    }

    private static func lastPart(of name: String) -> Substring {
        name[(name.lastIndex(of: ".").map(name.index(after:)) ?? name.startIndex)...]
    }

    /// Levenshtein's distance.
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var row = Array(0...right.count)
        for (i, leftByte) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, rightByte) in right.enumerated() {
                let substituted = diagonal + (leftByte == rightByte ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substituted, diagonal + 1, row[j] + 1)
            }
        }
        return row[right.count]
    }
}
