// What belongs to one loop, or to one queue, and is carried through other threads. Whatever hands work to another thread
// wraps in these what must not be touched there, and what is not to end there.
//
// Debug builds check each access, and the entry points of loop-confined classes (`assertOnLoop`): the unit tests and
// `make debug-test` run them. Release builds do without.
import Dispatch

/// Carries a loop-confined value through other threads. Wherever the last copy of this ends, the value is let go of on its loop.
public struct LoopBound<Value>: Sendable {
    private let handle: Handle

    /// Wraps a value.
    ///
    /// - Parameter mailbox: that of the loop to which the value belongs.
    public init(_ value: Value, on mailbox: LoopMailbox) {
        mailbox.assertOnLoop()
        handle = Handle(value, mailbox)
    }

    /// Wraps a value that belongs to this loop.
    public init(_ value: Value, on loop: EventLoop) {
        self.init(value, on: loop.mailbox)
    }

    /// The value; for its own loop only.
    public var value: Value {
        handle.mailbox.assertOnLoop()
        guard let value = handle.content.value else { preconditionFailure("the value has been let go of") }
        return value
    }

    /// Has the loop do something with the value, soon.
    public func post(_ body: @escaping @Sendable (Value) -> Void) {
        handle.mailbox.post { body(value) }
    }

    /// The same, but at once where the caller, whose mailbox this is, is on that loop.
    func perform(from caller: LoopMailbox, _ body: @escaping @Sendable (Value) -> Void) {
        if caller === handle.mailbox { body(value) } else { post(body) }
    }

    private final class Handle: Sendable {
        let content: Content
        let mailbox: LoopMailbox

        init(_ value: Value, _ mailbox: LoopMailbox) {
            content = Content(value)
            self.mailbox = mailbox
        }

        deinit {
            // Only the loop empties the content: what another thread still has of it is then an empty shell.
            if !mailbox.isOnLoop { mailbox.post { [content] in content.value = nil } }
        }
    }

    private final class Content: @unchecked Sendable {
        /// nil once it has been let go of.
        var value: Value?

        init(_ value: Value) {
            self.value = value
        }
    }
}

/// Carries a loop-confined object through another thread and back without keeping it alive: it must not end there.
struct WeakLoopBound<Object: AnyObject>: @unchecked Sendable {
    private weak var stored: Object?
    private let mailbox: LoopMailbox

    /// - Parameter mailbox: that of the loop to which the object belongs.
    init(_ object: Object, on mailbox: LoopMailbox) {
        mailbox.assertOnLoop()
        stored = object
        self.mailbox = mailbox
    }

    /// The object, if it is still there; for its own loop only.
    var object: Object? {
        mailbox.assertOnLoop()
        return stored
    }

    /// Has the loop do something with the object, soon, if it is still there by then.
    func post(_ body: @escaping @Sendable (Object) -> Void) {
        mailbox.post { if let object { body(object) } }
    }

    /// The same, but at once where the caller, whose mailbox this is, is on that loop.
    func perform(from caller: LoopMailbox, _ body: @escaping @Sendable (Object) -> Void) {
        guard caller === mailbox else { return post(body) }
        if let object { body(object) }
    }
}

/// Carries a value that a serial queue alone may touch.
struct QueueBound<Value>: @unchecked Sendable {
    private let stored: Value
    private let queue: DispatchQueue

    /// Wraps a value, which nobody but the queue touches from now on.
    init(_ value: Value, on queue: DispatchQueue) {
        stored = value
        self.queue = queue
    }

    /// The value; for its own queue only.
    var value: Value {
        #if DEBUG
            dispatchPrecondition(condition: .onQueue(queue))
        #endif
        return stored
    }
}

/// Which loop an object belongs to, for what does not keep its loop; takes no room in release builds.
struct LoopCheck {
    #if DEBUG
        private let mailbox: LoopMailbox
    #endif

    init(_ loop: EventLoop) {
        #if DEBUG
            mailbox = loop.mailbox
        #endif
    }

    /// Traps, in debug builds, on any thread but that of the loop.
    @inline(__always)
    func assertOnLoop(file: StaticString = #fileID, line: UInt = #line) {
        #if DEBUG
            mailbox.assertOnLoop(file: file, line: line)
        #endif
    }
}
