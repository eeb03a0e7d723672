// `GET /metrics`: all of shardd's own metrics. The admin handler makes one for each scrape. Names are fixed.

/// The metrics of the server as text.
struct MetricsExposition: ~Copyable {
    private let status: ServerStatus
    private let snapshot: WorkerSnapshot
    private var text = MetricsText()

    init(_ status: ServerStatus, _ snapshot: WorkerSnapshot) {
        self.status = status
        self.snapshot = snapshot
    }

    /// What has been written; valid until the next change.
    var bytes: UnsafeRawBufferPointer { text.bytes }

    /// Writes every family.
    mutating func write() {
        writeProgram()
        writeRequests()
        writeShards()
        writeRing()
        writeDiscovery()
        writeReconciling()
        writeProcess()
    }

    private mutating func writeProgram() {
        let build = status.build
        text.family("shardd_build_info", .gauge, "A constant 1, labeled by what was built, when and with which Swift.")
        text.sample(
            1,
            labels: [
                ("version", build.version), ("revision", build.revision), ("builddate", build.date),
                ("swiftversion", build.swiftVersion),
            ]
        )
        text.family("shardd_log_dropped_total", .counter, "Log entries that standard error did not take in time.")
        text.sample(Double(status.logDropped))
    }

    private mutating func writeRequests() {
        text.family("shardd_requests_total", .counter, "Requests answered, by method and status code.")
        for (method, answers) in zip(Method.allCases, snapshot.answers) {
            for entry in answers.entries {
                let labels = [("method" as StaticString, method.name.description), ("code", String(entry.status))]
                text.sample(Double(entry.count), labels: labels)
            }
        }
        text.family(
            "shardd_request_duration_seconds",
            .histogram,
            "From the arrival of a whole push to its answer."
        )
        text.histogram(snapshot.durations)
        text.family("shardd_requests_in_flight", .gauge, "Pushes that have arrived and have no answer yet.")
        text.sample(Double(snapshot.inFlight))
        text.family("shardd_connections", .gauge, "Open connections of clients.")
        text.sample(Double(snapshot.connections))
        text.family("shardd_rejected_total", .counter, "Requests turned away without asking a shard, by reason.")
        for reason in RejectionReason.allCases {
            text.sample(Double(snapshot.rejections[reason] ?? 0), labels: [("reason", reason.rawValue)])
        }
        text.family(
            "shardd_pushes_refused_total",
            .counter,
            "Pushes refused because they would harm a shard, by reason."
        )
        for reason in RefusalReason.allCases {
            text.sample(Double(snapshot.refusals[reason] ?? 0), labels: [("reason", reason.rawValue)])
        }
    }

    private mutating func writeShards() {
        let shards = snapshot.shards.sorted { $0.key < $1.key }
        text.family("shardd_shard_requests_total", .counter, "Pushes sent to a shard, by the status of the answer.")
        for (address, shard) in shards {
            for entry in shard.answers.entries {
                text.sample(Double(entry.count), labels: [("shard", address.text), ("code", String(entry.status))])
            }
        }
        text.family("shardd_shard_response_seconds", .histogram, "From the sending of a push to the shard's answer.")
        for (address, shard) in shards { text.histogram(shard.responses, labels: [("shard", address.text)]) }
        writeShardGauges(shards)
        text.family(
            "shardd_failovers_total",
            .counter,
            "Pushes that went to another shard because this one, their owner, could not be reached."
        )
        for (address, shard) in shards { text.sample(Double(shard.failovers), labels: [("shard", address.text)]) }
        writeShardCounters(shards)
    }

    private mutating func writeShardCounters(_ shards: [(key: ShardAddress, value: WorkerSnapshot.Shard)]) {
        text.family("shardd_shard_bytes_total", .counter, "Bytes received from (in) and sent to (out) a shard.")
        for (address, shard) in shards {
            text.sample(Double(shard.bytesIn), labels: [("shard", address.text), ("direction", "in")])
            text.sample(Double(shard.bytesOut), labels: [("shard", address.text), ("direction", "out")])
        }
        text.family(
            "shardd_shard_retries_total",
            .counter,
            "Pushes that were sent again because the connection to the shard had broken."
        )
        for (address, shard) in shards { text.sample(Double(shard.retries), labels: [("shard", address.text)]) }
        text.family("shardd_shard_connect_errors_total", .counter, "Connections to a shard that could not be made.")
        for (address, shard) in shards { text.sample(Double(shard.connectErrors), labels: [("shard", address.text)]) }
        text.family("shardd_shard_check_failures_total", .counter, "Checks that a shard has failed.")
        for (address, shard) in shards {
            let failures = shard.checkFailures + (status.checkFailures[address] ?? 0)
            text.sample(Double(failures), labels: [("shard", address.text)])
        }
    }

    private mutating func writeShardGauges(_ shards: [(key: ShardAddress, value: WorkerSnapshot.Shard)]) {
        text.family(
            "shardd_shard_up",
            .gauge,
            "Whether the shard takes pushes: 0 while it cannot be reached, or fails its checks and takes no push."
        )
        let readiness = Readiness(status, snapshot)
        for (address, _) in shards {
            text.sample(readiness.fault(of: address) == nil ? 1 : 0, labels: [("shard", address.text)])
        }
        text.family("shardd_shard_queue", .gauge, "Pushes that wait in shardd, not yet sent to the shard.")
        for (address, shard) in shards { text.sample(Double(shard.queue), labels: [("shard", address.text)]) }
        text.family("shardd_shard_in_flight", .gauge, "Pushes that wait for the shard or its answer.")
        for (address, shard) in shards { text.sample(Double(shard.inFlight), labels: [("shard", address.text)]) }
        text.family("shardd_shard_connections", .gauge, "Connections to the shard.")
        for (address, shard) in shards { text.sample(Double(shard.connections), labels: [("shard", address.text)]) }
    }

    private mutating func writeRing() {
        text.family("shardd_ring_generation", .gauge, "How many rings there have been since the start.")
        text.sample(Double(status.generation))
        text.family(
            "shardd_ring_fingerprint",
            .gauge,
            "48 bits of a hash of the ring's shards, vnodes and key: equal on replicas that agree."
        )
        text.sample(Double(status.ring.fingerprint(key: status.key)))
        text.family("shardd_ring_shards", .gauge, "Shards on the ring.")
        text.sample(Double(status.ring.shards.count))
        text.family(
            "shardd_shards_same_store",
            .gauge,
            "Addresses left off the ring because another one leads to the same Pushgateway."
        )
        text.sample(Double(status.sameStoreCount))
        text.family("shardd_shard_restarts_total", .counter, "How often a shard was found to be restarted.")
        for (shard, count) in status.restartCounts.sorted(by: { $0.key < $1.key }) {
            text.sample(Double(count), labels: [("shard", shard.text)])
        }
        text.family(
            "shardd_check_mismatch",
            .gauge,
            "Whether a shard's own consistency check and pushes.check do not go together."
        )
        for (shard, isMismatch) in status.checkMismatches.sorted(by: { $0.key < $1.key }) {
            text.sample(isMismatch ? 1 : 0, labels: [("shard", shard.text)])
        }
        text.family(
            "shardd_families_set_aside",
            .gauge,
            "Families that failed the scrape of their shard and are not there any more, as set aside by this replica."
        )
        text.sample(Double(status.familiesSetAside))
        text.family("shardd_ring_share_ratio", .gauge, "The part of the hash space that a shard owns.")
        for (index, shard) in status.ring.shards.enumerated() {
            text.sample(status.ring.share(of: index), labels: [("shard", shard.text)])
        }
        text.family("shardd_ring_last_change_timestamp_seconds", .gauge, "When the ring last changed.")
        text.sample(status.ringChangedAt)
    }

    private mutating func writeDiscovery() {
        text.family("shardd_discovery_polls_total", .counter, "Polls for the healthy shards, by result.")
        for result in PollResult.allCases {
            text.sample(Double(status.polls[result] ?? 0), labels: [("result", result.rawValue)])
        }
        text.family("shardd_discovery_last_success_timestamp_seconds", .gauge, "When a poll last succeeded.")
        text.sample(status.lastPollSuccess ?? 0)
        text.family(
            "shardd_config_last_reload_successful",
            .gauge,
            "Whether the configuration was valid when it was last read."
        )
        text.sample(status.wasLastReloadSuccessful ? 1 : 0)
        text.family(
            "shardd_config_last_reload_success_timestamp_seconds",
            .gauge,
            "When the configuration was last read and applied."
        )
        text.sample(status.lastReloadSuccess)
    }

    private mutating func writeReconciling() {
        let moving = status.moving
        text.family("shardd_handover_step", .gauge, "0 at rest, 1 handing over, 2 overlapping, 3 a shard is absent.")
        text.sample(Double(moving.step))
        text.family(
            "shardd_handover_wait_seconds",
            .histogram,
            "How long pushes have waited while their groups were handed over."
        )
        text.histogram(snapshot.handoverWaits)
        text.family("shardd_moving_groups", .gauge, "Groups that are not where they belong, by the latest listings.")
        text.sample(Double(moving.moving))
        text.family(
            "shardd_reconcile_runs_total",
            .counter,
            "Times that the tier came to rest or could not, by result."
        )
        for result in RunResult.allCases {
            text.sample(Double(moving.runs[result] ?? 0), labels: [("result", result.rawValue)])
        }
        text.family("shardd_reconcile_groups_moved_total", .counter, "Groups that were pushed to their owners.")
        text.sample(Double(moving.moved))
        text.family("shardd_reconcile_copies_deleted_total", .counter, "Void copies of groups that were deleted.")
        text.sample(Double(moving.deleted))
        text.family("shardd_reconcile_duplicate_groups", .gauge, "Groups that two shards have while they overlap.")
        text.sample(Double(moving.duplicates))
        text.family("shardd_reconcile_stuck_groups", .gauge, "Groups that their shard refuses, by reason.")
        for reason in StuckReason.allCases {
            let count = moving.stuck[reason] ?? 0
            text.sample(Double(count), labels: [("reason", reason.rawValue)])
        }
        text.family("shardd_reconcile_blocked", .gauge, "1 while nothing may move for this reason.")
        for obstacle in MovingObstacle.allCases {
            let isIt = moving.obstacles.contains(obstacle)
            text.sample(isIt ? 1 : 0, labels: [("reason", obstacle.rawValue)])
        }
        text.family(
            "shardd_reconcile_last_success_timestamp_seconds",
            .gauge,
            "When every group was last seen on its owner alone."
        )
        text.sample(moving.lastSuccess ?? 0)
    }

    private mutating func writeProcess() {
        let process = ProcessMetrics.read()
        text.family("process_cpu_seconds_total", .counter, "User and system CPU time spent.")
        text.sample(process.cpuSeconds)
        text.family("process_resident_memory_bytes", .gauge, "Resident memory.")
        text.sample(process.residentMemory)
        text.family("process_virtual_memory_bytes", .gauge, "Virtual memory.")
        text.sample(process.virtualMemory)
        text.family("process_open_fds", .gauge, "Open file descriptors.")
        text.sample(Double(process.openDescriptors))
        text.family("process_max_fds", .gauge, "The limit of open file descriptors.")
        text.sample(process.maximumDescriptors)
        text.family("process_start_time_seconds", .gauge, "When the process started, since 1970.")
        text.sample(process.startTime)
    }
}
