// Has bodies judged as those of pushes that come in, and looks for what must not be, whatever a body has in it. The fuzzer and the
// test of its corpus use it.
@testable import ShardEngine

/// One reader for all bodies, as a worker has one for all its pushes.
final class BodyReplay {
    private let bodyGuard = PushGuard()
    private let isProtobuf: Bool
    private let path = Array("/metrics/job/j/instance/i".utf8)
    private let type: [UInt8]

    init(isProtobuf: Bool) {
        self.isProtobuf = isProtobuf
        let name = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        type = Array((isProtobuf ? name : "text/plain; version=0.0.4").utf8)
    }

    /// What is wrong; nil where nothing is.
    func problem(_ body: UnsafeRawBufferPointer) -> String? {
        path.withUnsafeBytes { path in
            type.withUnsafeBytes { type in
                let isHarmful = bodyGuard.judge(body, path: path, type: type, coding: nil) != nil
                let outcome = bodyGuard.read(body, path: path, type: type)
                let fresh = PushGuard()
                let anew = PushContents(fresh.read(body, path: path, type: type), fresh.reader.families)
                if words(anew) != words(PushContents(outcome, bodyGuard.reader.families)) {
                    return "what was read before counts"
                }
                guard case .read = outcome, !isHarmful else { return nil }
                return problemOfTaking(bodyGuard.reader.families)
            }
        }
    }

    /// A push that has been taken is known, and taken at once from then on.
    private func problemOfTaking(_ families: BodyFamilies) -> String? {
        let known = KnownFamilies()
        known.isComplete = true
        let pushed = families.pushed()
        let push = CheckedPush(families: pushed, group: families.key.group, isPost: false)
        let listing = TierListing(begun: .now())
        guard case .take = known.decide(push, by: listing, isLast: true, at: listing.begun) else {
            return "it clashes with nothing and is not taken"
        }
        let isKnown = pushed.allSatisfy { family in
            !OwnFamilies.mayBecomeOne(family.name) && Set(family.series.map(\.shape)).count <= 64
        }
        let isTaken = known.takeAtOnce(families, at: listing.begun) != nil
        return isTaken == isKnown ? nil : "it is \(isTaken ? "" : "not ")taken at once"
    }

    private func words(_ contents: PushContents) -> String {
        switch contents {
        case .unreadable: "unreadable"
        case .refused(let refusal): refusal.line
        case .families(let families):
            families.map { "\($0.name) \($0.kind) \($0.help ?? []) \($0.series)" }.joined(separator: ", ")
        }
    }
}
