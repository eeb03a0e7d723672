// Whether, and how, groups are moved by this configuration.
import MovingCore

extension Configuration {
    /// Whether groups are moved: by grouping keys alone can be told where a group belongs, and redirected clients push past
    /// shardd.
    var movesGroups: Bool { reconcile.enabled && hash.key == .group && mode == .forward }

    /// What the mover goes by.
    var moverSettings: MoverSettings {
        var settings = MoverSettings()
        settings.overlap = Milliseconds(reconcile.overlap.nanoseconds / 1_000_000)
        settings.groupsPerSecond = reconcile.groupsPerSecond
        settings.groupsAtOnce = max(1, min(settings.groupsAtOnce, reconcile.groupsPerSecond / 5))
        settings.stuckDelay = Milliseconds(reconcile.interval.nanoseconds / 1_000_000)
        return settings
    }

    /// What has to be the same on all replicas, as one number: the upper half is of the version, the lower one of settings by which
    /// replicas would place groups otherwise.
    func settingsNumber(version: String) -> UInt64 {
        func digest(_ text: String) -> UInt64 {
            text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 } >> 32
        }
        return digest(version) << 32 | digest("\(hash.key.rawValue) \(hash.vnodes)")
    }
}
