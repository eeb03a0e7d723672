// Who is ended for others: when there are as many connections as may be, or requests take as much memory as they may. Requests
// that are whole are always answered; of those that are not, the slowest ends first.

extension HTTPServer {
    /// The connection that is missed least: the one that has been idle for longest; failing that, one that has its last
    /// answer.
    var leastNeeded: InboundConnection? {
        var longest: InboundConnection?
        for case let connection? in connections where connection.isDispensable {
            if let best = longest, best.phaseStart <= connection.phaseStart, best.phase == .idle { continue }
            longest = connection
        }
        return longest
    }

    /// Ends requests that have been coming for some time, the oldest first.
    func endUnfinished() {
        let now = loop.now
        var slow: [InboundConnection] = []
        for case let connection? in connections where connection.isUnfinished(since: HTTPServer.decentTime, at: now) {
            slow.append(connection)
        }
        end(slow, count: HTTPServer.mostEndedAtOnce)
    }

    /// Ends the oldest unfinished heads until those that are left take no more than their part of the memory.
    func endOldestHeads() {
        var heads: [InboundConnection] = []
        for case let connection? in connections where connection.phase == .head { heads.append(connection) }
        heads.sort { $0.phaseStart < $1.phaseStart }
        for connection in heads where memory.hasTooManyHeads { connection.refuse(HTTPServer.tooSlow) }
    }

    /// Ends bodies that hold memory that others wait for, and that will not be whole in time; the slowest first, and no more
    /// than it takes for the next ones to go on.
    func endSlowest(at now: MonotonicTime) {
        memory.preferWhole()
        let shortage = memory.shortage
        guard shortage > 0 else { return }
        let enough = memory.used - shortage
        var slow: [InboundConnection] = []
        for case let connection? in connections where connection.isHopeless(at: now) { slow.append(connection) }
        slow.sort { ($0.partial?.pace ?? 0) < ($1.partial?.pace ?? 0) }
        for connection in slow where memory.used > enough { connection.refuse(HTTPServer.tooSlow) }
    }

    private func end(_ slow: [InboundConnection], count: Int) {
        for connection in slow.sorted(by: { $0.phaseStart < $1.phaseStart }).prefix(count) {
            connection.refuse(HTTPServer.tooSlow)
        }
    }

    private static let tooSlow = Refusal(408, "the request took too long while others waited")
    /// How long a head may take when it is in others' way.
    private static let decentTime = TimeSpan.seconds(1)
    private static let mostEndedAtOnce = 64
}
