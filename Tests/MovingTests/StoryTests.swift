import MovingSimulator
import Testing

/// The stories by name, each with many ways for chance to fall.
@Suite struct StoryTests {
    static let names = stories(seed: 1).map(\.name)

    @Test(arguments: names)
    func nothingIsWrong(name: String) {
        for seed in UInt64(1)...60 {
            guard let scenario = stories(seed: seed).first(where: { $0.name == name }) else { continue }
            let wrong = outcome(scenario)
            if wrong.isEmpty { continue }
            let short = shrunk(scenario)
            Issue.record("\(name), seed \(seed): \(wrong.map(\.rawValue).sorted())\n\(numbered(story(short).steps))")
            return
        }
    }

    @Test func nothingMovesWhileReplicasPlaceGroupsDifferently() {
        for seed in UInt64(1)...20 {
            let (steps, wrong) = story(storyOfOtherSettings(seed: seed))
            #expect(wrong == [.dead], "it waits for ever, and nothing else is wrong")
            #expect(!steps.contains { $0.contains("moves: PUT") })
        }
    }
}
