// How many descriptors there are for clients once every shard has all of its connections. The server makes one of the
// configuration at the start and at each reload, and gives it to the workers.
import Logging

/// The process's descriptors, shared out.
struct DescriptorBudget {
    private let all: Int
    private let configuration: Configuration

    /// - Parameter descriptors: how many the process may have open.
    init(_ descriptors: Int, _ configuration: Configuration) {
        all = descriptors
        self.configuration = configuration
    }

    /// For clients and their requests.
    var clients: Int {
        let shards =
            max(configuration.servers.count, 8) * configuration.forward.connectionsPerShard * configuration.workers
        return max(all - shards - 64, all / 4)
    }

    /// Says in the log where fewer connections are possible than the configuration allows.
    func noteIfFew(_ logger: Logger) {
        let possible = InboundLimits(configuration, descriptorLimit: clients).connections * configuration.workers
        guard possible < configuration.limits.connections / configuration.workers * configuration.workers else {
            return
        }
        logger.notice(
            "fewer connections than limits.connections are possible: raise the limit of open files",
            metadata: ["open_files": "\(all)", "connections": "\(possible)"]
        )
    }
}
