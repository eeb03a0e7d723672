// Where this configuration has the register: the server makes the tier's keeper by it, and another one when a reload changes it.
import Logging

/// Where the register is.
enum RegisterPlace: Equatable {
    /// In Consul, for all replicas that use it.
    case consul(Configuration.Consul)
    /// In this process.
    case memory
    /// In this process, and nothing is moved by it.
    case nowhere

    /// - Parameter mayMove: whether nothing but the configuration could be against it.
    init(_ configuration: Configuration, mayMove: Bool = true) {
        if !configuration.movesGroups || !mayMove {
            self = .nowhere
        } else {
            self = configuration.consul.map { .consul($0) } ?? .memory
        }
    }

    func makeKeeper(
        _ loop: EventLoop,
        _ resolver: Resolver,
        _ configuration: Configuration,
        _ logger: Logger
    ) -> any RegisterKeeper {
        guard case .consul(let settings) = self else { return MemoryRegister(loop: loop, isMoving: self == .memory) }
        let client = ConsulClient(loop: loop, resolver: resolver, settings: settings)
        let keeper = ConsulRegister(loop: loop, client: client, id: .random(in: 1..<(.max >> 8)), logger: logger)
        keeper.wantsLock = true
        keeper.apply(configuration.reconcile)
        return keeper
    }
}
