// What is found in paths and done about them. With real Pushgateways: Tests/System/test_guard_paths.py.
import Testing

@testable import ShardEngine

@Suite struct PathGuardTests {
    private func finding(_ path: String, key: HashKey = .group) -> PathFinding {
        Array(path.utf8).withUnsafeBytes { GroupingKeyParser(key: key).place(path: $0).finding }
    }

    private func verdict(
        _ path: String,
        _ method: Method = .put,
        isGuarding: Bool = true
    ) -> PathGuard.Verdict {
        Array(path.utf8).withUnsafeBytes { path in
            let finding = GroupingKeyParser(key: .group).place(path: path).finding
            return PathGuard.judge(path, finding, method: method, isGuarding: isGuarding)
        }
    }

    private func reason(_ verdict: PathGuard.Verdict) -> RefusalReason? {
        if case .refuse(let refusal) = verdict { refusal.reason } else { nil }
    }

    @Test(arguments: [
        "/metrics/job/a", "/metrics/job/a/", "/metrics/job/a/x/y", "/metrics/job/a/x/", "/metrics/job/a/b/2/a/1",
        "/metrics/job@base64/YQ", "/metrics/job/a/x@base64/", "/metrics/job/a/x@base64/=", "/metrics/job/é/x/日本",
        "/metrics/job/a%2Fx%2Fy", "/metrics/job/a/instance/i", "/metrics/job/a/instances/", "/metrics/job/...",
        "/metrics/job/a/instance@base64/=/instance/i", "/metrics/job/a/x/instance", "/metrics/job/shard",
        "/metrics/job/a/job/shardd", "/metrics/job/a/job/", "/metrics/job/a/job@base64/_w",
        // What a shard refuses by itself, without harm.
        "/metrics/job/a/x", "/metrics/job/a/x@base64/!", "/metrics/job/a/%ff/x", "/metrics/job/a/__x/y",
        "/metrics/job/100%", "/metrics/job@base64/=", "/metrics/job@base64/", "/metrics/job/a/1/2",
        "/metrics/job/a/instance/x/y/",
    ]) func findsNothing(_ path: String) {
        #expect(finding(path) == .nothing)
        #expect(finding(path, key: .path) == .nothing)
        #expect(verdict(path) == .forward)
    }

    @Test(arguments: [
        "/metrics/job//x", "/metrics/job/a//", "/metrics/job/..", "/metrics/job/a/./b", "/metrics/job/a/x/..",
        "/metrics/job/%2e%2e", "/metrics/job/a%2F%2Fb", "/metrics/job/a/x/%2E", "/metrics/job@base64/YQ//x",
        "/metrics/job/a\"/x%2F%2Fy/z", "/metrics/./job/a%2F..", "/metrics/job/shardd/..", "/metrics/job/%ff/..",
        "/metrics/job/a/instance//x/y",
    ]) func findsUncleanPaths(_ path: String) {
        #expect(finding(path) == .unclean)
        #expect(reason(verdict(path, isGuarding: false)) == .path)
    }

    @Test(arguments: [
        "/metrics/job/shardd", "/metrics/job@base64/c2hhcmRk==", "/metrics/job/%73hardd/a/b",
        "/metrics/job/shardd/x/%ff",
    ])
    func findsShardsOwnJob(_ path: String) {
        #expect(finding(path) == .jobOfShardd)
        #expect(finding(path, key: .path) == .jobOfShardd)
        #expect(reason(verdict(path, .delete, isGuarding: false)) == .reserved)
    }

    @Test func findsKeysThatAreNotUTF8() {
        #expect(finding("/metrics/job/a/x/%ff") == .notUTF8(label: Array("x".utf8)))
        #expect(finding("/metrics/job/a/b/1/x@base64/_w/a/2") == .notUTF8(label: Array("x".utf8)))
        #expect(finding("/metrics/job/%ed%a0%80") == .notUTF8(label: Array("job".utf8)))
        #expect(finding("/metrics/job@base64/wyg/x/y") == .notUTF8(label: Array("job".utf8)))
        // Only the last value of a name counts.
        #expect(finding("/metrics/job/a/x/%ff/x/1") == .nothing)
        #expect(reason(verdict("/metrics/job/a/x/%ff")) == .keyNotUTF8)
        #expect(verdict("/metrics/job/a/x/%ff", .delete) == .forward)
        #expect(verdict("/metrics/job/a/x/%ff", isGuarding: false) == .forward)
    }

    @Test(arguments: [
        "/metrics/job@base64/!", "/metrics/job%40base64/a", "/metrics/job@base64/a=b/odd",
        "/metrics/job@base64/abcde/x/y",
    ])
    func findsMalformedJobs(_ path: String) {
        #expect(finding(path) == .malformedJob)
        #expect(reason(verdict(path, .delete)) == .jobNotBase64)
        #expect(verdict(path, isGuarding: false) == .forward)
    }

    @Test func namesPathsAsGoCleansThem() {
        let cleaned = [
            "/metrics/job/b//": "/metrics/job/b/", "//metrics/job/b": "/metrics/job/b", "/metrics/job/..": "/metrics",
            "/metrics/job/../..": "/", "/../..": "/", "/metrics/job/a/./": "/metrics/job/a/", "/": "/", "///": "/",
            "/metrics/job/a%0Ab//c%2525": "/metrics/job/a%0Ab/c%2525", "/metrics/job/é/../ü": "/metrics/job/%C3%BC",
            "/a;b/!//$&+,:=@~": "/a;b/%21/$&+,:=@~", "/a/%2e%2e/b": "/b",
        ]
        for (path, wanted) in cleaned {
            #expect(Array(path.utf8).withUnsafeBytes { PathGuard.cleaned($0) } == wanted, "\(path)")
        }
    }

    @Test func leavesTheEmptyInstanceOut() {
        let rewritten = [
            "/metrics/job/b/instance/": "/metrics/job/b",
            "/metrics/job/b/instance@base64/=": "/metrics/job/b",
            "/metrics/job/b/x/1/instance@base64/=/y@base64/Mg": "/metrics/job/b/x/1/y@base64/Mg",
            "/metrics/job@base64/Yg==/instance/x/z/%C3%A9/instance/": "/metrics/job@base64/Yg==/z/%C3%A9",
            "/metrics/job/b/instance@base64/=/x/": "/metrics/job/b/x/",
            "/metrics%2Fjob%2fb%2Finstance%40base64%2F%3D%2Fx%2F1": "/metrics%2Fjob%2fb%2Fx%2F1",
            "/metrics/job/b/%69nstance/": "/metrics/job/b",
            "/metrics/job/b/U__in_73_tance/": "/metrics/job/b",
            "/metrics/job/b/instance/x/U__instance/": "/metrics/job/b",
            // Where only the plain name is empty, Pushgateways that know UTF-8 names and those that do not differ.
            "/metrics/job/b/instance@base64/=/U__instance/x": "/metrics/job/b/U__instance/x",
        ]
        for (path, wanted) in rewritten {
            #expect(verdict(path) == .withoutInstance(Array(wanted.utf8)), "\(path)")
            #expect(verdict(path, isGuarding: false) == .forward, "\(path)")
            #expect(finding(wanted) == .nothing, "\(wanted)")
        }
    }

    /// What is found costs nothing to those who do not ask: the hash is the same.
    @Test func placesAsItHashes() {
        for path in ["/metrics/job/a/b/2/a/1", "/metrics/job/a%2Fx%2Fy", "/metrics/job//x", "/metrics/job/a/x/%ff"] {
            for key in HashKey.allCases {
                Array(path.utf8).withUnsafeBytes { path in
                    let parser = GroupingKeyParser(key: key)
                    let placed = parser.place(path: path).hash
                    let text = Array(parser.text)
                    #expect(placed == parser.hash(path: path) && text == Array(parser.text))
                }
            }
        }
    }
}
