// `shardd reconcile`: prints what is not where it belongs, and puts it there. The command line calls it.

/// One reconciling by hand.
public struct ReconcileCommand {
    private let configuration: Configuration
    private let isDryRun: Bool

    /// - Parameter isDryRun: whether to print the plan and do nothing.
    public init(_ configuration: Configuration, isDryRun: Bool) {
        self.configuration = configuration
        self.isDryRun = isDryRun
    }

    /// Lists the shards, prints a line for each stray, and moves them.
    ///
    /// - Parameters:
    ///   - line: is called with each stray as group, from, to and reason, with tabs between.
    ///   - note: is called with what a person should know.
    /// - Throws: why it could not be done, or not as a whole.
    public func run(line: (String) -> Void, note: @escaping (String) -> Void) throws(RunFailure) {
        let context = try CommandContext(configuration, note: note)
        let order = context.order(shards: try context.healthyShards())
        if isDryRun {
            let (strays, problems) = context.runs.plan(order)
            for stray in strays { line(stray.line) }
            note("\(strays.count) copies are not on their owners")
            return try check(problems, note)
        }
        let outcome = try context.perform(order) { strays in
            for stray in strays { line(stray.line) }
        }
        note("\(outcome.moved) groups pushed to their owners, \(outcome.deleted) copies deleted")
        try check(outcome.problems, note)
    }

    private func check(_ problems: [String], _ note: (String) -> Void) throws(RunFailure) {
        for problem in problems { note(problem) }
        if !problems.isEmpty { throw RunFailure("not all groups are on their owners") }
    }
}

extension Stray {
    /// Group, from, to and reason, with tabs between.
    var line: String {
        var buffer = ByteBuffer(capacity: 256)
        var group = group
        group.withUTF8 { EscapedText.field.append(UnsafeRawBufferPointer($0), to: &buffer) }
        return "\(String(decoding: buffer.readable, as: UTF8.self))\t\(from)\t\(to)\t\(reason.rawValue)"
    }
}
