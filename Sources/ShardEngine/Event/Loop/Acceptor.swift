// One listening socket for the HTTP servers of several loops: it accepts on the first loop and hands the sockets out in turn,
// so that each server has as many connections as the others. The workers' group makes one where the port is not shared with
// other processes (docs/adr/0019-one-listening-socket.md).

/// Accepts for several servers; confined to the loop of the listener.
final class Acceptor {
    /// A server, as the acceptor sees it.
    private struct Place {
        var isPaused = false
        var hand: (Int32) -> Void = { _ in }
    }

    private let listener: Listener
    private let mailbox: LoopMailbox
    private var places: [Place] = []
    private var next = 0
    /// Whether the first server takes all that is left: the others may have stopped by then.
    private var isEnding = false

    /// - Parameter mailbox: that of the listener's loop.
    init(_ listener: Listener, mailbox: LoopMailbox) {
        self.listener = listener
        self.mailbox = mailbox
        listener.start { [unowned self] in accepted($0) }
        listener.pause()
    }

    /// The part of the connections that a server on this loop gets; the first one is to be on the listener's own loop. To
    /// be called before the loops run.
    func share(for loop: EventLoop) -> any ConnectionSource {
        mailbox.assertOnLoop()
        places.append(Place(isPaused: true))
        return AcceptorShare(self, places.count - 1, acceptorMailbox: mailbox, mailbox: loop.mailbox)
    }

    fileprivate func setHandler(of place: Int, _ hand: @escaping (Int32) -> Void) {
        mailbox.assertOnLoop()
        places[place].hand = hand
    }

    fileprivate func setPaused(_ isPaused: Bool, _ place: Int) {
        mailbox.assertOnLoop()
        places[place].isPaused = isPaused
        if places.allSatisfy(\.isPaused) { listener.pause() } else { listener.resume() }
    }

    fileprivate func stopQueueing() {
        isEnding = true
        setPaused(false, 0)
        listener.stopQueueing()
    }

    private func accepted(_ descriptor: Int32) {
        if isEnding { return places[0].hand(descriptor) }
        for _ in places {
            next = next + 1 == places.count ? 0 : next + 1
            if !places[next].isPaused { break }
        }
        places[next].hand(descriptor)
    }
}

/// One server's part of an acceptor's connections; confined to that server's loop.
private final class AcceptorShare: ConnectionSource {
    /// Owned by the part of the server on the acceptor's loop, so that it ends there.
    private let local: Acceptor?
    private let acceptor: WeakLoopBound<Acceptor>
    private let place: Int
    private let mailbox: LoopMailbox
    private var isPaused = true

    init(_ acceptor: Acceptor, _ place: Int, acceptorMailbox: LoopMailbox, mailbox: LoopMailbox) {
        local = mailbox === acceptorMailbox ? acceptor : nil
        self.acceptor = WeakLoopBound(acceptor, on: acceptorMailbox)
        self.place = place
        self.mailbox = mailbox
    }

    /// To be called before the loops run.
    func start(_ onAccept: @escaping (Int32) -> Void) {
        if let local {
            local.setHandler(of: place, onAccept)
            local.setPaused(false, place)
        } else {
            let onAccept = LoopBound(onAccept, on: mailbox)
            acceptor.object?.setHandler(of: place) { descriptor in
                onAccept.post { $0(descriptor) }
            }
            acceptor.object?.setPaused(false, place)
        }
        isPaused = false
    }

    func pause() {
        mailbox.assertOnLoop()
        setPaused(true)
    }

    func resume() {
        mailbox.assertOnLoop()
        setPaused(false)
    }

    func stopQueueing() {
        mailbox.assertOnLoop()
        local?.stopQueueing()
    }

    private func setPaused(_ isPaused: Bool) {
        // Out of descriptors, the listener pauses by itself: the local server, which asks every so often, has it go on.
        if let local { return local.setPaused(isPaused, place) }
        guard isPaused != self.isPaused else { return }
        self.isPaused = isPaused
        acceptor.post { [place] in $0.setPaused(isPaused, place) }
    }
}
