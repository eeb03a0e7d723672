// Store calls on a loop that the test drives: each call is waited for.
import MovingCore

@testable import ShardEngine

/// Makes calls to stores, one after the other.
final class StoreCaller {
    private let loop: EventLoop
    private let resolver: Resolver
    let calls: StoreCalls

    init() {
        loop = EventLoop()
        resolver = Resolver(loop: loop)
        calls = StoreCalls(loop: loop, resolver: resolver)
    }

    /// Begins something and waits until it has called back.
    func wait<Result>(_ begin: (@escaping (Result) -> Void) -> Void) -> Result {
        var result: Result?
        begin { result = $0 }
        while true {
            if let result { return result }
            loop.turn()
        }
    }

    func list(_ address: ShardAddress) -> (listing: Listing?, reason: String?) {
        wait { done in calls.list(address) { done(($0, $1)) } }
    }

    func start(_ address: ShardAddress) -> StartTime? {
        wait { done in calls.readStart(address) { done($0) } }
    }

    func push(_ send: Send, at address: ShardAddress) -> (result: PushResult, reason: String?) {
        wait { done in calls.push(send, at: address) { done(($0, $1)) } }
    }

    /// As many at a time as the mover has.
    func pushAll(_ sends: [Send], at address: ShardAddress) -> [PushResult] {
        var results: [PushResult] = []
        var (next, underWay) = (0, 0)
        while results.count < sends.count {
            while underWay < 32, next < sends.count {
                underWay += 1
                next += 1
                calls.push(sends[next - 1], at: address) { result, _ in
                    results.append(result)
                    underWay -= 1
                }
            }
            loop.turn()
        }
        return results
    }

    /// A client's push; its status, or 0.
    func send(_ method: ShardEngine.Method, _ path: String, _ body: [UInt8], at address: ShardAddress) -> Int {
        let questions = StoreQuestions(calls: calls, address: address)
        return wait { done in
            questions.send(method, path, body, contentType: "text/plain; version=0.0.4", within: .seconds(5)) { end in
                if case .answered(let response) = end { done(response.status) } else { done(0) }
            }
        }
    }

    /// What a path is answered.
    func body(_ path: String, at address: ShardAddress) -> String? {
        wait { done in
            StoreQuestions(calls: calls, address: address).get(path, within: .seconds(5)) { end in
                guard case .answered(let response) = end else { return done(nil) }
                done(String(decoding: response.body, as: UTF8.self))
            }
        }
    }
}
