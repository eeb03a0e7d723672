import Testing

@testable import ShardEngine

@Suite struct ShardAddressTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1:9091"), ("push-1:80", "push-1:80"), ("[::1]:9091", "[::1]:9091"),
        ("::1", "[::1]:9091"), ("[fe80::2]", "[fe80::2]:9091"), ("fe80::2%eth0", "[fe80::2%eth0]:9091"),
    ])
    func oneSpelling(text: String, expected: String) {
        #expect(ShardAddress(parsing: text, defaultPort: 9091)?.text == expected)
    }

    @Test(arguments: [
        "", ":9091", "a:", "a:0", "a:65536", "a:+5", "[::1", "[::1]x", "a b", "a/b", "http://a", "10.0.0.1:9091:9092",
        "[a]:1:", "fe80::2%/",
    ])
    func refusesWhatIsNoAddress(text: String) {
        #expect(ShardAddress(parsing: text, defaultPort: 9091) == nil)
    }

    @Test func needsAPortWhenThereIsNoDefault() {
        #expect(ShardAddress(parsing: "localhost") == nil)
    }
}
