// A replica's note as text: what is kept in Consul under the replica's key, and what an operator sees there. `ConsulRegister`
// writes the note of this replica and reads the notes of the others.
//
//      shardd-note 1
//      epoch 57
//      settings 9f3a61c2
//      node consul-client-3
//      busy 17@52 18@52
//      touched 0 4 9
//      stuck /job/batch: it answered 400: ...
import FoundationEssentials
import MovingCore

/// A note with what `ConsulRegister` itself has to know of the replica.
struct StoredNote: Equatable {
    var note: Note
    /// The node whose agent the replica is registered with; empty where that is not known.
    var node: String
}

extension StoredNote {
    /// The note as text.
    func encoded() -> [UInt8] {
        var lines = [
            StoredNote.title, "epoch \(note.epoch)", "settings \(String(note.settings, radix: 16))",
        ]
        if !node.isEmpty { lines.append("node \(node)") }
        if !note.busy.isEmpty {
            let words = note.busy.sorted { $0.key < $1.key }.map { "\($0.key)@\($0.value)" }
            lines.append("busy " + words.joined(separator: " "))
        }
        if !note.touched.isEmpty {
            lines.append("touched " + note.touched.sorted().map(String.init).joined(separator: " "))
        }
        lines += note.stuck.map { "stuck " + $0 }
        return Array((lines.joined(separator: "\n") + "\n").utf8)
    }

    /// The note that the text says; nil where this version does not understand all of it.
    init?(decoding bytes: some Sequence<UInt8>) {
        let lines = String(decoding: Array(bytes), as: UTF8.self).split(separator: "\n")
        guard lines.first.map(String.init) == StoredNote.title else { return nil }
        var epoch: Epoch?
        var settings: UInt64?
        var rest = Note(epoch: 0)
        node = ""
        for line in lines.dropFirst() {
            let words = line.split(separator: " ").map(String.init)
            let values = words.dropFirst()
            switch words.first {
            case "epoch" where values.count == 1: epoch = Epoch(words[1])
            case "settings" where values.count == 1: settings = UInt64(words[1], radix: 16)
            case "node": node = values.joined(separator: " ")
            case "busy":
                for value in values {
                    let parts = value.split(separator: "@")
                    guard parts.count == 2, let range = UInt16(parts[0]), let since = Epoch(parts[1]) else {
                        return nil
                    }
                    rest.busy[range] = since
                }
            case "touched":
                for value in values {
                    guard let range = UInt16(value) else { return nil }
                    rest.touched.insert(range)
                }
            case "stuck": rest.stuck.append(values.joined(separator: " "))
            default: return nil
            }
        }
        guard let epoch, let settings else { return nil }
        (rest.epoch, rest.settings) = (epoch, settings)
        note = rest
    }

    /// Stands for a note that this version does not understand. The replica is waited for as one that follows nothing yet
    /// and has other settings: nothing is moved while such a replica is there.
    static let unknown = StoredNote(note: Note(epoch: 0, settings: .max), node: "")
    private static let title = "shardd-note 1"
}
