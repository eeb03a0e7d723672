// Runs many histories, counts what is wrong, and tells the shortest story of the first wrong one.
import Dispatch
import Foundation

/// What many histories of one configuration came to.
public struct Tally: Sendable {
    /// How many there were.
    public var histories = 0
    /// The seeds of wrong histories, and what is wrong.
    public var wrong: [(seed: UInt64, what: Set<Wrong>)] = []
    /// The longest that a request waited inside a fence.
    public var longestFence: Int64 = 0
}

/// Runs one history.
public func outcome(_ scenario: Scenario, without: Set<Rule> = []) -> Set<Wrong> {
    let world = World(scenario, without: without)
    world.run()
    return world.wrong
}

/// Tells one history step by step.
public func story(_ scenario: Scenario, without: Set<Rule> = []) -> (steps: [String], wrong: Set<Wrong>) {
    let world = World(scenario, without: without, isTracing: true)
    world.run()
    return (world.trace, world.wrong)
}

/// Runs histories of one configuration, from a seed on.
public func tally(_ configuration: Configuration, seeds: Range<UInt64>, without: Set<Rule> = []) -> Tally {
    var tally = Tally()
    for seed in seeds {
        let world = World(configuration.scenario(seed: seed), without: without)
        world.run()
        tally.histories += 1
        tally.longestFence = max(tally.longestFence, world.longestFence)
        if !world.wrong.isEmpty { tally.wrong.append((seed, world.wrong)) }
    }
    return tally
}

/// The command: `simulate N [CONFIGURATION...] [--without RULE]` for many histories, `simulate -SEED CONFIGURATION` for the
/// steps of one, and `simulate --shrink -SEED CONFIGURATION` for the shortest one that is wrong in the same way.
public func runSimulator(_ arguments: [String]) {
    var arguments = arguments
    let shrinks = arguments.first == "--shrink"
    if shrinks { arguments.removeFirst() }
    var without: Set<Rule> = []
    if let flag = arguments.firstIndex(of: "--without") {
        without = Set(arguments[(flag + 1)...].compactMap { Rule(rawValue: $0) })
        arguments.removeSubrange(flag...)
    }
    if arguments.first == "stories" { return runStories(without) }
    let names = Set(arguments.dropFirst())
    let chosen = Configuration.all.filter { names.isEmpty ? $0.isStrict : names.contains($0.name) }
    guard let count = arguments.first.flatMap({ Int($0) }) else { return print("how many histories?") }
    if count < 0 {
        let seed = UInt64(-count)
        let named = stories(seed: seed).first { names.contains($0.name) }
        guard var scenario = named ?? chosen.first?.scenario(seed: seed) else { return print("which configuration?") }
        if shrinks { scenario = shrunk(scenario, without: without) }
        let (steps, wrong) = story(scenario, without: without)
        print(numbered(steps))
        return print(wrong.map(\.rawValue).sorted())
    }
    let first = UInt64(ProcessInfo.processInfo.environment["SEED"] ?? "") ?? UInt64.random(in: 1 << 20..<1 << 40)
    say("seeds from \(first)")
    let (start, leftOut) = (DispatchTime.now(), without)
    let each = UInt64(max(1, count / chosen.count))
    for configuration in chosen {
        let parts = 2
        nonisolated(unsafe) var tallies = [Tally](repeating: Tally(), count: parts)
        let lock = NSLock()
        DispatchQueue.concurrentPerform(iterations: parts) { part in
            let low = first + each * UInt64(part) / UInt64(parts)
            let high = first + each * UInt64(part + 1) / UInt64(parts)
            let result = tally(configuration, seeds: low..<high, without: leftOut)
            lock.withLock { tallies[part] = result }
        }
        var kinds: [String: Int] = [:]
        let wrong = tallies.flatMap(\.wrong)
        for (_, what) in wrong { for kind in what { kinds[kind.rawValue, default: 0] += 1 } }
        let name = configuration.name.padding(toLength: 16, withPad: " ", startingAt: 0)
        let fence = tallies.map(\.longestFence).max() ?? 0
        let what = kinds.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        say(
            "\(name) \(tallies.map(\.histories).reduce(0, +)) histories, \(wrong.count) wrong"
                + (wrong.isEmpty ? "" : ": \(what); seeds \(wrong.prefix(5).map(\.seed))")
                + "; longest fence \(fence) ms"
        )
    }
    let seconds = Double(DispatchTime.now().uptimeNanoseconds - start.uptimeNanoseconds) / 1e9
    say("\(Int(Double(each) * Double(chosen.count) / seconds)) histories a second")
}

/// Writes a line at once, also where it goes to a file.
private func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

/// Runs each named story with many seeds.
func runStories(_ without: Set<Rule>) {
    var counts: [String: (wrong: Int, first: UInt64, kinds: Set<Wrong>)] = [:]
    for seed in UInt64(1)...200 {
        for scenario in stories(seed: seed) {
            let wrong = outcome(scenario, without: without)
            if wrong.isEmpty { continue }
            let count = counts[scenario.name] ?? (0, seed, [])
            counts[scenario.name] = (count.wrong + 1, count.first, count.kinds.union(wrong))
        }
    }
    for scenario in stories(seed: 1) {
        let count = counts[scenario.name] ?? (0, 0, [])
        print(
            "\(scenario.name): \(count.wrong) of 200 wrong \(count.kinds.map(\.rawValue).sorted()) first \(count.first)"
        )
    }
}
