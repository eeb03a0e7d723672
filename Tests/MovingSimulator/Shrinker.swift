// Makes a wrong history short: leaves out what happens as long as the same thing is still wrong, and tells the rest as steps.
import MovingCore

/// The shortest scenario that was found to be wrong in the same way.
public func shrunk(_ scenario: Scenario, without: Set<Rule> = []) -> Scenario {
    let wanted = outcome(scenario, without: without)
    func isAlike(_ other: Scenario) -> Bool { !outcome(other, without: without).isDisjoint(with: wanted) }
    var best = scenario
    var length = best.happenings.count / 2
    while length > 0 {
        var start = 0
        while start < best.happenings.count {
            var shorter = best
            shorter.happenings.removeSubrange(start..<min(start + length, best.happenings.count))
            // Chance falls differently in a shorter history, so a few seeds are tried.
            var found: Scenario?
            for seed in [best.seed, best.seed &+ 1, best.seed &+ 2, best.seed &+ 3] where found == nil {
                shorter.seed = seed
                if !shorter.happenings.isEmpty, isAlike(shorter) { found = shorter }
            }
            if let found { best = found } else { start += length }
        }
        length /= 2
    }
    return best
}

/// The story in numbered steps.
public func numbered(_ steps: [String]) -> String {
    steps.enumerated().map { "\($0 + 1). \($1)" }.joined(separator: "\n")
}
