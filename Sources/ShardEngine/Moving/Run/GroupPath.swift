// Where a group is pushed to, and where it belongs. Paths are written so that any label value can stand in them, and are
// placed by the parser that places clients' pushes.
import FoundationEssentials

/// Writes groups' paths and places them; confined to one thread.
final class GroupPath {
    private let parser = GroupingKeyParser(key: .group)

    /// A path under which a Pushgateway takes pushes for the group: values are in base64, since they may hold slashes or
    /// be empty; names beyond the classic ones are escaped, as Pushgateway 1.11 and later reads them.
    func path(of group: GroupLabels) -> String {
        var path = "/metrics"
        let job = group.pairs.filter { $0.name == "job" }
        for pair in job + group.pairs.filter({ $0.name != "job" }) {
            path += "/\(escapedName(pair.name))@base64/\(base64(pair.value))"
        }
        return path
    }

    /// The group that pushes on a path are for; nil where a Pushgateway would refuse them.
    func group(at path: [UInt8]) -> GroupLabels? {
        func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
        guard let labels = path.withUnsafeBytes({ parser.labels(path: $0) }) else { return nil }
        return GroupLabels(labels.map { LabelPair(name: text($0.key), value: text($0.value)) })
    }

    /// The group's place on the ring.
    func hash(of group: GroupLabels) -> UInt32 {
        var path = path(of: group)
        return path.withUTF8 { parser.hash(path: UnsafeRawBufferPointer($0)) }
    }

    /// What tells the group that pushes on a path are for from others; nil where a Pushgateway would refuse them.
    func identity(at path: String) -> (hash: UInt32, digest: UInt64)? {
        var path = path
        return path.withUTF8 { parser.identity(path: UnsafeRawBufferPointer($0)) }
    }

    /// The group's grouping key as people read it.
    func text(of group: GroupLabels) -> String {
        var path = path(of: group)
        return path.withUTF8 { bytes in
            _ = parser.hash(path: UnsafeRawBufferPointer(bytes))
            return String(decoding: parser.text, as: UTF8.self)
        }
    }

    /// With the alphabet for URLs and without padding (RFC 4648, section 5), but for an empty value, which is `=`: a path
    /// has no empty part.
    private func base64(_ value: String) -> String {
        guard !value.isEmpty else { return "=" }
        let text = Data(value.utf8).base64EncodedString()
        return text.filter { $0 != "=" }.replacing("+", with: "-").replacing("/", with: "_")
    }

    /// `U__` and each character that a classic name cannot have as its hexadecimal code between underscores:
    /// https://prometheus.io/docs/instrumenting/escaping_schemes/
    private func escapedName(_ name: String) -> String {
        func isClassic(_ scalar: Unicode.Scalar, isFirst: Bool) -> Bool {
            switch scalar {
            case "a"..."z", "A"..."Z", "_": true
            case "0"..."9": !isFirst
            default: false
            }
        }
        let scalars = name.unicodeScalars
        guard scalars.enumerated().contains(where: { !isClassic($1, isFirst: $0 == 0) }) else { return name }
        return scalars.enumerated().reduce(into: "U__") { text, element in
            let (index, scalar) = element
            if scalar == "_" {
                text += "__"
            } else if isClassic(scalar, isFirst: index == 0) {
                text.unicodeScalars.append(scalar)
            } else {
                text += "_\(String(scalar.value, radix: 16))_"
            }
        }
    }
}
