// Connections that wait for one thing, in the order in which they came: a parser, memory, or others' large bodies.

import DequeModule

/// A line of connections; one that no longer waits is passed over when its turn comes.
struct WaitingLine {
    private struct Entry {
        let connection: InboundConnection
        let ticket: UInt32
        /// How many bytes it waits for.
        let bytes: Int
    }

    private var entries = Deque<Entry>()

    /// The connection waits from now on; `ticket` tells this wait from its later ones.
    mutating func append(_ connection: InboundConnection, bytes: Int = 0) {
        entries.append(Entry(connection: connection, ticket: connection.waitTicket, bytes: bytes))
    }

    /// Who is next, and for how many bytes.
    var first: (connection: InboundConnection, bytes: Int)? {
        mutating get {
            while let entry = entries.first {
                if isInLine(entry) { return (entry.connection, entry.bytes) }
                entries.removeFirst()
            }
            return nil
        }
    }

    var isEmpty: Bool { mutating get { first == nil } }

    /// At most so many wait.
    var count: Int { entries.count }

    /// How many bytes all of them wait for.
    var bytes: Int {
        var sum = 0
        for entry in entries where isInLine(entry) { sum += entry.bytes }
        return sum
    }

    /// Lets those for whom this holds go before the others.
    mutating func prefer(_ isPreferred: (InboundConnection) -> Bool) {
        let waiting = entries.filter { isInLine($0) }
        let marked = waiting.map { ($0, isPreferred($0.connection)) }
        entries = Deque(marked.filter(\.1).map(\.0) + marked.filter { !$0.1 }.map(\.0))
    }

    private func isInLine(_ entry: Entry) -> Bool {
        entry.connection.isWaiting && entry.connection.waitTicket == entry.ticket
    }

    mutating func removeFirst() {
        entries.removeFirst()
    }
}
