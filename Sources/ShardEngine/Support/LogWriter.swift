// Writes the log on a thread of its own, so that whoever does not read it (a full pipe, a stopped terminal) stops no push.
//
// Loggers on any thread queue whole lines, which takes no longer than a copy; the thread writes them in their order. What
// the queue has no room for, and what cannot be written (a full disk, a closed pipe), is dropped and counted, and the next
// line that can be written says how many entries are missing at that place. Standard error's open file description is
// shared with other processes, so it stays blocking: only this thread waits for it.
import Dispatch
import Glibc
import Synchronization

/// The queue and the thread of one descriptor; any thread may use it.
public final class LogWriter: Sendable {
    private struct Queue {
        /// Whole lines.
        var lines: [UInt8] = []
        /// Entries that were dropped after those lines; the writer's next batch tells of them.
        var dropped = 0
        var isFinished = false
    }

    private let descriptor: Int32
    private let notice: @Sendable (Int) -> [UInt8]
    private let queue = Mutex(Queue())
    private let droppedTotal = Atomic<UInt64>(0)
    private let work = DispatchSemaphore(value: 0)
    private let end = DispatchSemaphore(value: 0)

    /// Starts the thread.
    ///
    /// - Parameter notice: makes the line that tells how many entries were dropped.
    public init(descriptor: Int32 = STDERR_FILENO, notice: @escaping @Sendable (Int) -> [UInt8]) {
        self.descriptor = descriptor
        self.notice = notice
        // The queue has no other work: what it has is a thread, which waits as it likes.
        DispatchQueue(label: "shardd.log").async { [self] in run() }
    }

    /// How many entries have been dropped.
    var droppedCount: UInt64 { droppedTotal.load(ordering: .relaxed) }

    /// Queues a line, its newline included, or drops it; never waits for the reader.
    public func write(_ line: [UInt8]) {
        let isFirst = queue.withLock { queue -> Bool? in
            // Once one is dropped all are, until the batch that tells of it is taken: the notice stands where they are missing.
            guard queue.dropped == 0, queue.lines.count + line.count <= LogWriter.capacity else {
                queue.dropped += 1
                return nil
            }
            queue.lines += line
            return queue.lines.count == line.count
        }
        guard let isFirst else { return countDropped(1) }
        if isFirst { work.signal() }
    }

    /// Waits until what is queued has been written, but no longer than this; nothing is written afterwards.
    func finish(within time: TimeSpan) {
        queue.withLock { $0.isFinished = true }
        work.signal()
        _ = end.wait(timeout: .now() + .nanoseconds(Int(time.nanoseconds)))
    }

    private func countDropped(_ count: Int) {
        droppedTotal.add(UInt64(count), ordering: .relaxed)
    }

    // MARK: The thread

    private func run() {
        var output = Output(descriptor: descriptor)
        while true {
            // Where entries could not be written, the log is to say so as soon as it can, though no other entry comes.
            _ = work.wait(timeout: output.lost == 0 ? .distantFuture : .now() + LogWriter.retry)
            var isFinished = false
            repeat {
                var (batch, dropped) = ([UInt8](), 0)
                queue.withLock { queue in
                    swap(&batch, &queue.lines)
                    swap(&dropped, &queue.dropped)
                    isFinished = queue.isFinished
                }
                if output.lost > 0 { output.writeNotice(notice(output.lost)) }
                let lost = output.write(batch)
                if lost > 0 { countDropped(lost) }
                if dropped > 0 {
                    output.lost += dropped
                    output.writeNotice(notice(output.lost))
                }
                if batch.isEmpty, dropped == 0 { break }
            } while true
            if isFinished { break }
        }
        end.signal()
    }

    /// Lines that wait, in bytes: a quarter of a second of what requests at full load make at the level debug.
    private static let capacity = 1 << 20
    /// When to try to write again after an error.
    private static let retry = DispatchTimeInterval.seconds(1)
    /// What a pipe takes as a whole (PIPE_BUF).
    fileprivate static let pieceSize = 4096
}

/// The descriptor, and what has become of the latest lines; confined to the writer's thread.
private struct Output {
    let descriptor: Int32
    /// Entries that are missing since the last line that was written.
    var lost = 0
    /// The end of a line of which only the beginning could be written: it comes before anything else.
    private var cutEnd: ArraySlice<UInt8> = []

    init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    /// Tells of the lost entries, if it can be written; the notice itself is no entry of anybody's.
    mutating func writeNotice(_ line: [UInt8]) {
        let before = lost
        lost = 0
        if write(line) > 0 { lost = before }
    }

    /// Writes lines; returns how many of them are lost, and adds them to `lost`.
    mutating func write(_ lines: [UInt8]) -> Int {
        cutEnd = cutEnd.dropFirst(send(cutEnd))
        guard cutEnd.isEmpty else { return lose(lines[...]) }
        var rest = lines[...]
        while !rest.isEmpty {
            let piece = rest[..<Output.endOfPiece(rest)]
            let sent = rest.startIndex + send(piece)
            rest = lines[sent...]
            guard sent < piece.endIndex else { continue }
            if sent > piece.startIndex, lines[sent - 1] != 0x0A {
                // A line that has begun is no loss: its end comes later.
                let next = rest.firstIndex(of: 0x0A).map { $0 + 1 } ?? rest.endIndex
                cutEnd = rest[..<next]
                rest = rest[next...]
            }
            return lose(rest)
        }
        return 0
    }

    private mutating func lose(_ lines: ArraySlice<UInt8>) -> Int {
        let count = lines.count { $0 == 0x0A }
        lost += count
        return count
    }

    /// Where a piece ends: as many whole lines as a pipe takes at once, so that other processes' lines do not come between;
    /// a longer line is a piece of its own.
    private static func endOfPiece(_ lines: ArraySlice<UInt8>) -> Int {
        guard lines.count > LogWriter.pieceSize else { return lines.endIndex }
        let newline = lines.prefix(LogWriter.pieceSize).lastIndex(of: 0x0A) ?? lines.firstIndex(of: 0x0A)
        return newline.map { $0 + 1 } ?? lines.endIndex
    }

    /// Writes for as long as that takes; returns how many bytes were written before an error, all of them without one.
    private func send(_ bytes: ArraySlice<UInt8>) -> Int {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.dropFirst(sent).withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                sent += count
            } else if count < 0, errno == EAGAIN {
                // Another process that has the same description has made it non-blocking.
                var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&ready, 1, -1)
            } else if count == 0 || errno != EINTR {
                break
            }
        }
        return sent
    }
}
