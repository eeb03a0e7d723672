// How whoever counts pushes under way hears of their ends, without memory for each. The check over all shards counts; an exchange
// has what it counts until the push has ended.

/// Counts pushes under way, by numbers that it gives them.
protocol PushCounter: AnyObject {
    func ended(_ number: Int)
}

/// A push under way; it has ended when this is let go of.
struct CountedPush: ~Copyable {
    private let counter: any PushCounter
    private let number: Int

    init(_ number: Int, of counter: any PushCounter) {
        self.counter = counter
        self.number = number
    }

    deinit {
        counter.ended(number)
    }
}
