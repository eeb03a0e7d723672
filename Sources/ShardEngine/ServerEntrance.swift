// How the workers' admin endpoints reach the server, which is on the loop of the first worker: what never changes is here, and
// everything else is asked for on the server's loop. The server makes one and gives it to each worker's admin handler.

/// The server, as all workers' loops see it.
struct ServerEntrance: AdminDelegate {
    let server: WeakLoopBound<Server>
    let isLifecycleEnabled: Bool
    let build: BuildInfo

    func gather(for mailbox: LoopMailbox, _ done: @escaping (ServerStatus, WorkerSnapshot) -> Void) {
        let done = LoopBound(done, on: mailbox)
        server.perform(from: mailbox) { server in
            server.gather { status, snapshot in done.perform(from: server.mailbox) { $0(status, snapshot) } }
        }
    }

    func reload(for mailbox: LoopMailbox, _ done: @escaping ([String]) -> Void) {
        let done = LoopBound(done, on: mailbox)
        server.perform(from: mailbox) { server in
            let problems = server.reload()
            done.perform(from: server.mailbox) { $0(problems) }
        }
    }

    func quit(from mailbox: LoopMailbox) {
        server.perform(from: mailbox) { $0.quit() }
    }
}
