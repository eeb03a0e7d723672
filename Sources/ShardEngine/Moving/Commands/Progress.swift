// What a person who waits for a command is told every few seconds, through a pipe as well: what it waits for. The command's context
// owns one; the commands tell it what they do, and its lines go where theirs go.

/// Tells what is waited for; confined to the command's thread.
final class Progress {
    private let line: (String) -> Void
    private var timer: Timer?
    private var what = ""
    private var estimate = ""

    /// - Parameter line: is called with each line.
    init(loop: EventLoop, _ line: @escaping (String) -> Void) {
        self.line = line
        timer = Timer(loop: loop) { [unowned self] in
            tell()
            timer?.schedule(after: Progress.interval)
        }
        timer?.schedule(after: Progress.interval)
    }

    /// From now on this is waited for.
    ///
    /// - Parameter estimate: how long it takes, as far as is known.
    func waits(_ what: String, _ estimate: String = "") { (self.what, self.estimate) = (what, estimate) }

    /// The same, told at once where it is something new; the estimate alone is not.
    func tells(_ what: String, _ estimate: String = "") {
        let isNew = self.what != what
        waits(what, estimate)
        if isNew { tell() }
    }

    private func tell() { line("waiting for \(what)" + (estimate.isEmpty ? "" : ", \(estimate)")) }

    private static let interval = TimeSpan.seconds(4)
}
