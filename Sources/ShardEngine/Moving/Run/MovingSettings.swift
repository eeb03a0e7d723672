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
        settings.groupsAtOnce = max(1, min(settings.groupsAtOnce, reconcile.groupsPerSecond / 5))
        return settings
    }

    /// What has to be the same on all replicas, as one number: by other settings they would place groups otherwise.
    func settingsNumber(version: String) -> UInt64 {
        var digest: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in "\(version) \(hash.key.rawValue)".utf8 { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return digest
    }
}
