// How a replica is among the replicas: a service at the Consul agent whose check the replica passes each second, a session that
// lives as long as the check, and the note that the session holds. `ConsulRegister` owns one.
//
// A session's own time to live is at least 10 s, and may end twice as late; a check's can be 3 s. The check belongs to the
// service and not to the node: a critical check of a node would take all of the node's services out.
// https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions
import FoundationEssentials
import Logging

/// The session of one replica; loop-confined.
final class ReplicaSession {
    /// What became of passing the check.
    enum Pass {
        case passed
        /// The agent does not know the check, or does not take it: the reason.
        case refused(String)
        /// The agent does not answer: the reason.
        case failed(String)
    }

    /// The session's ID; nil while there is none, or it is being made.
    private(set) var id: String?
    /// The node that the agent belongs to.
    private(set) var node = ""
    private let client: ConsulClient
    private let calls: ConsulCalls
    private let name: String
    private let logger: Logger
    /// One that was made before and may still be alive.
    private var former: String?

    /// - Parameter replica: the replica's ID.
    init(client: ConsulClient, replica: UInt64, logger: Logger) {
        self.client = client
        self.logger = logger
        calls = ConsulCalls(client)
        name = TierKeys.name(of: replica)
    }

    private var serviceID: String { ReplicaSession.serviceID(name) }
    private var checkID: String { "service:\(serviceID)" }

    /// Makes everything anew: service, session and note. `done` gets the reason when that has failed.
    ///
    /// - Parameter note: is asked for the note when it is about to be written.
    func begin(_ note: @escaping () -> StoredNote, _ done: @escaping (String?) -> Void) {
        calls.cancel()
        former = id ?? former
        id = nil
        // A service that is registered again keeps the state of its check, so that is passed in any case.
        step(.put, "/v1/agent/service/register", body: encoded(registration), done) { [unowned self] _ in
            step(.put, passTarget, done) { [unowned self] _ in endFormer(note, done) }
        }
    }

    /// A session that is still alive would keep the note and the lock.
    private func endFormer(_ note: @escaping () -> StoredNote, _ done: @escaping (String?) -> Void) {
        guard let former else { return create(note, done) }
        step(.put, "/v1/session/destroy/\(former)\(client.datacenterQuery)", done) { [unowned self] _ in
            self.former = nil
            create(note, done)
        }
    }

    private func create(_ note: @escaping () -> StoredNote, _ done: @escaping (String?) -> Void) {
        struct Created: Decodable {
            var id: String

            enum CodingKeys: String, CodingKey {
                case id = "ID"
            }
        }
        let target = "/v1/session/create\(client.datacenterQuery)"
        step(.put, target, body: encoded(sessionDefinition), done) { [unowned self] outcome in
            guard let created: Created = decodeDocument(outcome) else { return done(ReplicaSession.unknownAnswer) }
            former = created.id
            readNode(created.id, note, done)
        }
    }

    private func readNode(_ id: String, _ note: @escaping () -> StoredNote, _ done: @escaping (String?) -> Void) {
        struct Session: Decodable {
            var node: String

            enum CodingKeys: String, CodingKey {
                case node = "Node"
            }
        }
        step(.get, "/v1/session/info/\(id)\(client.datacenterQuery)", done) { [unowned self] outcome in
            guard let sessions: [Session] = decodeDocument(outcome) else { return done(ReplicaSession.unknownAnswer) }
            guard let session = sessions.first else { return done("the new session has ended already") }
            node = session.node
            step(.put, noteTarget(id), body: note().encoded(), done) { [unowned self] outcome in
                guard outcome.isTrue else { return done("another session holds the note") }
                self.id = id
                logger.info("this replica has joined", metadata: ["replica": "\(name)", "node": "\(node)"])
                done(nil)
            }
        }
    }

    /// Tells the agent that the replica runs.
    func pass(_ done: @escaping (Pass) -> Void) {
        calls.call(.put, passTarget) { outcome in
            switch outcome {
            case .failed(let reason): done(.failed(reason))
            case .response: done(outcome.fault.map { .refused($0) } ?? .passed)
            }
        }
    }

    /// Drops what is under way, so that it can be begun again.
    func cancel() { calls.cancel() }

    /// Where the note is written, held by the session.
    func noteTarget(_ session: String) -> String {
        client.keyTarget([TierKeys.registerName, name], "acquire=\(session)")
    }

    /// Goodbye: the others need not wait for this replica any more, nor for its lock.
    func end(_ done: @escaping () -> Void) {
        calls.cancel()
        let session = id ?? former
        (id, former) = (nil, nil)
        // Each step is made whatever has become of the one before it.
        calls.call(.delete, client.keyTarget([TierKeys.registerName, name])) { [unowned self] _ in
            let deregister = { [unowned self] in
                calls.call(.put, client.deregistrationTarget(serviceID)) { _ in done() }
            }
            guard let session else { return deregister() }
            calls.call(.put, "/v1/session/destroy/\(session)\(client.datacenterQuery)") { _ in deregister() }
        }
    }

    /// One call of several: goes on to the next one, or ends all with the reason.
    private func step(
        _ method: Method,
        _ target: String,
        body: [UInt8] = [],
        _ done: @escaping (String?) -> Void,
        _ next: @escaping (HTTPOutcome) -> Void
    ) {
        calls.call(method, target, body: body) { outcome in
            if let fault = outcome.fault { return done(fault) }
            next(outcome)
        }
    }

    private var passTarget: String { "/v1/agent/check/pass/\(client.escaped(checkID))" }

    private func encoded(_ value: some Encodable) -> [UInt8] {
        guard let body = try? JSONEncoder().encode(value) else { preconditionFailure("a document that is no JSON") }
        return Array(body)
    }

    private var registration: ReplicaRegistration {
        ReplicaRegistration(id: serviceID, name: ReplicaSession.serviceName, check: ReplicaRegistration.Check())
    }

    private var sessionDefinition: SessionDefinition {
        SessionDefinition(serviceChecks: [SessionDefinition.ServiceCheck(id: checkID)])
    }

    /// The ID of the service of the replica with this name.
    static func serviceID(_ name: String) -> String { "\(serviceName)-\(name)" }

    static let serviceName = "shardd-replica"
    private static let unknownAnswer = "its answer is not what it should be"
}

private struct ReplicaRegistration: Encodable {
    struct Check: Encodable {
        /// Within ten seconds of the death of the replica that moves groups another one has to do so.
        var timeToLive = "3s"
        var status = "passing"
        var deregisterAfter = "1m"

        enum CodingKeys: String, CodingKey {
            case timeToLive = "TTL"
            case status = "Status"
            case deregisterAfter = "DeregisterCriticalServiceAfter"
        }
    }

    var id: String
    var name: String
    var check: Check

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case name = "Name"
        case check = "Check"
    }
}

private struct SessionDefinition: Encodable {
    struct ServiceCheck: Encodable {
        var id: String

        enum CodingKeys: String, CodingKey {
            case id = "ID"
        }
    }

    var name = ReplicaSession.serviceName
    var serviceChecks: [ServiceCheck]
    var nodeChecks = ["serfHealth"]
    /// What the former holder of the lock still does is refused by check-and-set.
    var lockDelay = "0s"
    var behavior = "release"

    enum CodingKeys: String, CodingKey {
        case name = "Name"
        case serviceChecks = "ServiceChecks"
        case nodeChecks = "NodeChecks"
        case lockDelay = "LockDelay"
        case behavior = "Behavior"
    }
}
