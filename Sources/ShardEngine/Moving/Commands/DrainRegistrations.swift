// The registrations of a shard that is drained, at whichever agents of Consul they are. An agent is spoken to where it can be
// reached: the configured one, and others at their node's address and the configured port. Most agents listen only on their own
// host: there the replica beside one does it, which the drain's key in Consul tells (DrainFollower).
import FoundationEssentials
import Logging

/// A shard in Consul, while it is drained; confined to the command's thread.
struct DrainRegistrations {
    let context: CommandContext
    let consul: ConsulClient
    let shard: ShardAddress

    /// All of them, by the catalogue.
    func find() throws(RunFailure) -> [CatalogRegistration] {
        guard case .response(let response) = context.session.send(consul.request(.get, consul.currentHealthTarget)),
            response.status == 200, let instances = HealthyInstances(decoding: response.body)
        else { throw RunFailure("Consul does not tell what is registered") }
        return instances.registrations.filter { $0.shard == shard }
    }

    /// Tells all replicas how far the drain has come.
    func announce(_ phase: DrainEntry.Phase, _ registrations: [CatalogRegistration]) throws(RunFailure) {
        let entry = DrainEntry(
            shard: shard.text,
            phase: phase,
            registrations: registrations.map { DrainEntry.Registration(node: $0.node, id: $0.id) }
        )
        let body = (try? JSONEncoder().encode(entry)).map(Array.init) ?? []
        let outcome = context.session.send(consul.request(.put, consul.drainTarget(shard), body: body))
        guard case .response(let response) = outcome, response.status == 200 else {
            let reason = DrainRegistrations.reason(outcome)
            throw RunFailure("Consul does not store that \(shard) is being drained: \(reason)")
        }
    }

    /// The drain, if one is under way or was broken off.
    func announced() -> DrainEntry? {
        ConsulClient.drains(context.session.send(consul.request(.get, consul.drainTarget(nil))))
            .first { $0.address == shard }
    }

    /// Tells all replicas that the drain is over.
    func withdraw() throws(RunFailure) {
        let outcome = context.session.send(consul.request(.delete, consul.drainTarget(shard)))
        guard case .response(let response) = outcome, response.status == 200 else {
            let reason = DrainRegistrations.reason(outcome)
            throw RunFailure("Consul does not forget that \(shard) is being drained: \(reason)")
        }
    }

    /// Registers the shard again, which a drain that is taken back had deregistered already.
    func register(_ note: (String) -> Void) throws(RunFailure) {
        guard context.configuration.consul?.register == true, context.configuration.servers.contains(shard) else {
            return note("\(shard) had been deregistered: register it with Consul again")
        }
        let registrar = Registrar(
            client: consul,
            configuration: context.configuration,
            loop: context.session.loop,
            resolver: context.session.resolver,
            logger: Logger(label: "shardd") { _ in SwiftLogNoOpLogHandler() }
        )
        // Nothing is to become of the others.
        registrar.draining = Set(context.configuration.servers).subtracting([shard])
        var end: (failure: String?, Void)?
        registrar.run { end = ($0, ()) }
        context.session.pause(DrainRegistrations.patience) { end != nil }
        if let reason = end?.failure ?? (end == nil ? "Consul does not answer" : nil) {
            throw RunFailure("\(shard) cannot be registered again: \(reason)")
        }
    }

    /// Has those agents that can be reached do this with their registrations.
    func ask(_ registrations: [CatalogRegistration], _ target: (String) -> String) throws(RunFailure) {
        let own = try ownNode()
        for registration in registrations {
            var request = consul.request(.put, target(registration.id))
            if registration.node != own {
                guard registration.isNodeAlive else { continue }
                (request.host, request.timeout) = (registration.nodeAddress, DrainRegistrations.timeout)
            }
            let outcome = context.session.send(request)
            if case .response(let response) = outcome, response.status == 200 { continue }
            // What another agent does not do, the replica beside it does.
            guard registration.node == own else { continue }
            throw RunFailure("Consul does not do it: \(DrainRegistrations.reason(outcome))")
        }
    }

    /// Removes registrations whose agents are gone from the catalogue; one that is there would put it back.
    func forget(_ registrations: [CatalogRegistration]) {
        struct Removal: Encodable {
            var node: String
            var serviceID: String

            enum CodingKeys: String, CodingKey {
                case node = "Node"
                case serviceID = "ServiceID"
            }
        }
        for registration in registrations where !registration.isNodeAlive {
            let removal = Removal(node: registration.node, serviceID: registration.id)
            let body = (try? JSONEncoder().encode(removal)).map(Array.init) ?? []
            _ = context.session.send(
                consul.request(.put, "/v1/catalog/deregister\(consul.datacenterQuery)", body: body)
            )
        }
    }

    /// Waits, but not for long, until none is left that is wanted gone; returns those that are.
    func wait(until isGone: (CatalogRegistration) -> Bool) throws(RunFailure) -> [CatalogRegistration] {
        let deadline = MonotonicTime.now().advanced(by: DrainRegistrations.patience)
        while true {
            let left = try find().filter { !isGone($0) }
            if left.isEmpty || MonotonicTime.now() >= deadline { return left }
            guard !context.isInterrupted else { throw RunFailure("interrupted") }
            context.session.pause(.milliseconds(100))
        }
    }

    private func ownNode() throws(RunFailure) -> String {
        guard case .response(let response) = context.session.send(consul.request(.get, "/v1/agent/self")),
            let agent = try? JSONDecoder().decode(ConsulAgent.self, from: Data(response.body))
        else { throw RunFailure("Consul does not tell the agent's name: the token needs agent:read") }
        return agent.member.name
    }

    private static func reason(_ outcome: HTTPOutcome) -> String {
        switch outcome {
        case .failed(let reason): reason
        case .response(let response): "it answered \(response.status)"
        }
    }

    /// A replica does what the key says at once, and its agent tells the catalogue within a second or so.
    private static let patience = TimeSpan.seconds(10)
    /// For an agent that most likely cannot be reached.
    private static let timeout = TimeSpan.seconds(2)
}
