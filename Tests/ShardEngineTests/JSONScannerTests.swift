// Reading JSON front to back: what is stepped over, what is read, and what is no JSON.
import Testing

@testable import ShardEngine

@Suite struct JSONScannerTests {
    /// A peer must not use up the stack.
    @Test(arguments: ["[", #"{"a":"#])
    func refusesWhatIsTooDeep(_ open: String) {
        let close = open == "[" ? "]" : "}"
        for (depth, isTaken) in [(60, true), (70, false), (500_000, false)] {
            var text = String(repeating: open, count: depth) + "1" + String(repeating: close, count: depth)
            text.withUTF8 { bytes in
                var scanner = JSONScanner(UnsafeRawBufferPointer(bytes))
                scanner.skip()
                #expect(scanner.isAtEnd() == isTaken)
            }
        }
    }

    private func scan<Result>(_ text: String, _ body: (inout JSONScanner) -> Result) -> (result: Result, isWhole: Bool)
    {
        var text = text
        return text.withUTF8 { bytes in
            var scanner = JSONScanner(UnsafeRawBufferPointer(bytes))
            let result = body(&scanner)
            return (result, scanner.isAtEnd())
        }
    }

    @Test func readsWhatIsWantedAndStepsOverTheRest() {
        let text = #" {"a": [1, -2.5e+10, {"x": null}], "b" : "value", "c": {"d": "\"}"}, "e": true , "f": []} "#
        var names: [String] = []
        var value = ""
        var isTrue = false
        let (_, isWhole) = scan(text) { scanner in
            scanner.object { scanner, name in
                names.append(name)
                switch name {
                case "b": value = scanner.string()
                case "e": isTrue = scanner.boolean()
                default: scanner.skip()
                }
            }
        }
        #expect(isWhole && names == ["a", "b", "c", "e", "f"] && value == "value" && isTrue)
    }

    @Test(arguments: [
        (#""plain""#, "plain"),
        (#""""#, ""),
        (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t"),
        (#""\u003ca\u003e \u00e9""#, "<a> é"),
        (#""\ud83d\ude00!""#, "😀!"),
        (#""\ud83d alone""#, "\u{FFFD} alone"),
        (#""ends in a backslash\\""#, "ends in a backslash\\"),
        (#""日本""#, "日本"),
    ])
    func unescapesStrings(_ text: String, _ expected: String) {
        let (string, isWhole) = scan(text) { $0.string() }
        #expect(isWhole && string == expected)
    }

    @Test(arguments: [
        "", "{", "[1", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, "[1,]", "[1 2]", #""open"#, #""open\""#, #"{"a":1}}"#,
        #"{1:2}"#, #""\x""#, #""\u12""#, "[@]",
    ])
    func tellsWhatIsNoJSON(_ text: String) {
        let (_, isWhole) = scan(text) { scanner in
            if scanner.peek() == 0x22 { _ = scanner.string() } else { scanner.skip() }
        }
        #expect(!isWhole)
    }
}
