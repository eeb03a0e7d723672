// What bodies would store, and the rules of Pushgateway's check that they break. What is expected is what 1.5.1 did.
import Testing

@testable import ShardEngine

@Suite struct ContentsReaderTests {
    typealias Key = [(name: [UInt8], value: [UInt8])]

    static func key(_ labels: [(String, String)] = []) -> Key {
        ([("job", "t")] + labels).map { (Array($0.0.utf8), Array($0.1.utf8)) }
    }

    static func read(_ body: [UInt8], isProtobuf: Bool = false, key: Key = key()) -> PushContents {
        read(body, by: ContentsReader(), isProtobuf: isProtobuf, key: key)
    }

    static func read(
        _ body: [UInt8],
        by reader: ContentsReader,
        isProtobuf: Bool = false,
        key: Key = key()
    ) -> PushContents {
        reader.key.removeAll()
        // The reader goes by where these lie.
        let bytes = key.flatMap { $0.name + $0.value }
        return bytes.withUnsafeBytes { bytes in
            var offset = 0
            func next(_ count: Int) -> UnsafeRawBufferPointer {
                defer { offset += count }
                return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
            }
            for label in key { reader.key.add(next(label.name.count), next(label.value.count)) }
            return body.withUnsafeBytes { body in
                PushContents(reader.read(body, isProtobuf: isProtobuf), reader.families)
            }
        }
    }

    static func text(_ body: String, key: Key = key()) -> PushContents {
        read(Array(body.utf8), key: key)
    }

    /// What comes out, in words: `NAME KIND SERIES` of each family, or the reason for refusing, or `unreadable`.
    static func words(_ contents: PushContents) -> String {
        switch contents {
        case .unreadable: "unreadable"
        case .refused(let refusal): refusal.reason.rawValue
        case .families(let families):
            families.map { "\(String(decoding: $0.name, as: UTF8.self)) \($0.kind) \($0.series.count)" }
                .joined(separator: ", ")
        }
    }

    static func families(_ contents: PushContents) -> [PushedFamily] {
        guard case .families(let families) = contents else { return [] }
        return families
    }

    private static func line(_ contents: PushContents) -> String? {
        guard case .refused(let refusal) = contents else { return nil }
        return refusal.line
    }

    // MARK: Text

    @Test(arguments: [
        ("", ""), ("\n \n# c\n#\n# EOF\n", ""), ("x 1\n \t ", "x untyped 1"), ("  x 1\n", "x untyped 1"),
        ("x{} 1\nx{a=\"1\",} 1\nx { b = \"2\" , a=\"\" }5\n", "x untyped 3"),
        ("x+5\ny.5\n", "x untyped 1, y untyped 1"),
        ("# TYPE x gauge\nx 1\n", "x gauge 1"), ("#\tTYPE\tx\tGA\\UGE\nx 1\n", "x gauge 1"),
        ("# TYPE x counter\n# TYPE y gauge\nx 1\n", "x counter 1"), ("# TYPE x\n# TYPE x \nx 1\n", "x untyped 1"),
        ("# HELP x\n# HELP x a\nx 1\n", "x untyped 1"), ("x 1\n# HELP x a\n", "x untyped 1"),
        ("x{a=\"\"} 1\nx 1\n", "x untyped 2"), ("x{a=\"\\n\\\\\\\"\"} 1\n", "x untyped 1"),
        ("push_time_seconds 1\npush_failure_time_seconds{__a=\"1\"} 1\nx 1\n", "x untyped 1"),
        ("push_time_seconds 1\npush_time_seconds 1\n", ""),
        ("# TYPE push_time_seconds summary\npush_time_seconds_sum 1\n", ""),
        ("# TYPE g gauge\ng{le=\"x\",quantile=\"y\"} 1\n", "g gauge 1"), (":a:b 1\n", ":a:b untyped 1"),
    ]) func readsText(body: String, families: String) {
        #expect(Self.words(Self.text(body)) == families)
    }

    @Test(arguments: [
        ("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n", "h histogram 1"),
        ("# TYPE h histogram\nh_sum{a=\"1\"} 3\nh_sum{a=\"2\"} 3\nh_count{a=\"1\"} 1\nh 1\n", "h histogram 3"),
        ("# TYPE h histogram\nh_bucket 1\nh_sum{quantile=\"x\"} 1\n", "h histogram 2"),
        ("# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.5\",a=\"1\"} 1\ns_sum 1\n", "s summary 2"),
        ("# TYPE s summary\ns{quantile=\"0.5\",quantile=\"1\"} 1\n", "s summary 1"),
        ("# TYPE s summary\ns_bucket{le=\"1\"} 1\ns_sum 1\n", "s summary 1, s_bucket untyped 1"),
        ("x_count 1\n# TYPE x summary\n", "x_count untyped 1"),
        ("_count 1\n_sum 1\n", "_count untyped 1, _sum untyped 1"),
        ("# TYPE x_count summary\nx_count_sum 1\nx 1\n", "x_count summary 1, x untyped 1"),
        ("# TYPE x gauge\nx 1\nx_count 1\n", "x gauge 1, x_count untyped 1"),
    ]) func mergesTheLinesOfAMetric(body: String, families: String) {
        #expect(Self.words(Self.text(body)) == families)
    }

    @Test func keepsHelpWithoutEscapes() {
        let body = "# HELP x a\\\\b\\nc\nx 1\n# TYPE s summary\n# HELP s_count of s\ns_sum 1\ny 1\n"
        let help = Self.families(Self.text(body)).map { $0.help.map { String(decoding: $0, as: UTF8.self) } }
        #expect(help == ["a\\b\nc", "of s", nil])
    }

    @Test(arguments: [
        "x 1", "# EOF", "x", "x\n", "x \n", "x 1\r\n", "x 1 \n", "x 1 2 \n", "x 1 1.5\n", "x 1 9223372036854775808\n",
        "x 1 2 3\n", "9x 1\n", "x.y 1\n", "# TYPE 9x gauge\n", "# TYPE x-y gauge\n", "# TYPE x gauge\r\nx 1\n",
        "# TYPE x gauge\n# TYPE x gauge\nx 1\n", "x 1\n# TYPE x untyped\n", "# TYPE x info\n", "# TYPE x gauge \n",
        "# TYPE x gauge_histogram\n", "# HELP x a\n# HELP x a\nx 1\n", "# HELP x \\q\n", "# HELP x \\\n",
        "# TYPE s summary\n# TYPE s_count counter\ns_count 1\n", "# TYPE h histogram\nh_bucket{le=\"x\"} 1\n",
        "# TYPE s summary\ns{quantile=\"1_0\"} 1\n", "# TYPE s summary\ns{quantile=\"\"} 1\n", "x{a=\"\\q\"} 1\n",
        "x{a=\"\n\"} 1\n", "x{a=\"\\\n\"} 1\n", "x{a=\"1\",a=\"2\"} 1\n", "x{__name__=\"y\"} 1\n", "x{a:b=\"1\"} 1\n",
        "x{a='1'} 1\n", "x{,} 1\n", "x{a=\"1\"b=\"1\"} 1\n", "x{a=\"1\" 1\n", "x{\n", "x{a\n", "x{a=\n", "x{a=\"1\n",
        "{\"x\"} 1\n", "{\"x\",a=\"1\"} 1\n", "x{\"a\"=\"1\"} 1\n", "\"x\" 1\n", "\u{FEFF}x 1\n", "x 1\n\0",
        "x{a=\"1\"}\n",
        "x 1 # {a=\"b\"} 1\n", "x 1 5\ny\n",
    ]) func whatNoPushgatewayTakesIsUnreadable(body: String) {
        #expect(Self.words(Self.text(body)) == "unreadable", "\(body)")
    }

    @Test func aLabelThatIsNotUTF8IsUnreadableInText() {
        for bytes: [UInt8] in [[0xFF], [0xED, 0xA0, 0x80], [0xC3]] {
            let body = Array("x{a=\"".utf8) + bytes + Array("\"} 1\n".utf8)
            #expect(Self.words(Self.read(body)) == "unreadable")
        }
    }

    @Test func takesTheNumbersThatGoTakes() {
        let taken = [
            "0", "1", "+1", "-1", ".5", "5.", "1e3", "1E+3", "1e-999", "NaN", "nan", "Inf", "+inf", "-INFINITY",
            "1e308",
            "1.7976931348623157e308", "0.00001e313", "0e9999", "000" + String(repeating: "9", count: 308),
        ]
        let refused = [
            "", ".", "+", "-.", "1e", "1e+", "e1", "0x1F", "0x1p4", "1_0", "1e999", "1e309", "1.8e308", "+nan", "infi",
            "1 ", "1a", "--1", "1e99999999999999999999", String(repeating: "9", count: 310),
        ]
        func isFloat(_ text: String) -> Bool { Array(text.utf8).withUnsafeBytes { GoNumber.isFloat($0) } }
        for text in taken { #expect(isFloat(text), "\(text)") }
        for text in refused { #expect(!isFloat(text), "\(text)") }
        func isInteger(_ text: String) -> Bool { Array(text.utf8).withUnsafeBytes { GoNumber.isInteger($0) } }
        for text in ["0", "+7", "-7", "0007", "9223372036854775807", "-9223372036854775808"] {
            #expect(isInteger(text), "\(text)")
        }
        for text in [
            "", "+", "-", "1.5", "1_0", "9223372036854775808", "-9223372036854775809", "99999999999999999999999",
        ] {
            #expect(!isInteger(text), "\(text)")
        }
    }

    // MARK: Rules in text

    @Test(arguments: [
        ("x 1 0\n", "timestamp"), ("x 1\ny 1 -5\n", "timestamp"), ("push_time_seconds 1 5\n", "timestamp"),
        ("# TYPE h histogram\nh_sum 1 1000\n", "timestamp"), ("x{__a=\"1\"} 1\n", "metric_label"),
        ("x{__=\"1\"} 1\n", "metric_label"), ("x 1\nx 2\n", "series_twice"),
        ("x{a=\"1\",b=\"2\"} 1\nx{b=\"2\",a=\"1\"} 1\n", "series_twice"),
        ("x 1\nx{instance=\"\"} 1\n", "series_twice"), ("x{job=\"1\"} 1\nx{job=\"2\"} 1\n", "series_twice"),
        ("# TYPE s summary\ns_sum{job=\"1\"} 1\ns_sum{job=\"2\"} 1\n", "series_twice"),
        ("x_count 1\n# TYPE x summary\nx{quantile=\"1\"} 1\n", "family_suffix"),
        ("x_sum 1\n# TYPE x summary\nx_count{a=\"1\"} 1\n", "family_suffix"),
        ("x_bucket 1\n# TYPE x histogram\nx_sum 1\n", "family_suffix"),
        ("# TYPE x_count summary\nx_count_sum 1\n# TYPE x histogram\nx_sum 1\n", "family_suffix"),
    ]) func refusesByARule(body: String, reason: String) {
        #expect(Self.words(Self.text(body)) == reason)
    }

    @Test func refusesWhatTheKeyBrings() {
        let summary = "# TYPE s summary\ns_sum 1\n"
        let quantile = Self.key([("quantile", "x")])
        #expect(Self.words(Self.text(summary, key: quantile)) == "metric_label")
        #expect(Self.words(Self.text("# TYPE s summary\nx 1\n", key: quantile)) == "x untyped 1")
        #expect(Self.words(Self.text("x{quantile=\"1\"} 1\nx{quantile=\"2\"} 1\n", key: quantile)) == "series_twice")
        let labels = Self.key([("a", "1"), ("instance", "i")])
        #expect(Self.words(Self.text("x{a=\"2\"} 1\nx 1\n", key: labels)) == "series_twice")
        #expect(Self.words(Self.text("x{instance=\"\"} 1\nx{b=\"\"} 1\n", key: labels)) == "x untyped 2")
        let bytes: Key = [(Array("job".utf8), [0xFF])]
        #expect(Self.words(Self.text("x 1\n", key: bytes)) == "key_not_utf8")
    }

    @Test func findsTwoEqualSeriesAmongMany() {
        let series = (0..<500).map { "x{a=\"\($0)\"} 1\n" }
        #expect(Self.words(Self.text(series.joined())) == "x untyped 500")
        for index in [0, 6, 7, 8, 9, 499] {
            #expect(Self.words(Self.text(series.joined() + series[index])) == "series_twice")
        }
    }

    @Test func tellsApartManyLabels() {
        let names = (0..<40).map { "a\($0)" }
        func sample(_ names: some Sequence<String>) -> String {
            "x{\(names.map { "\($0)=\"1\"" }.joined(separator: ","))} 1\n"
        }
        let half = sample(names.prefix(20) + ["a39", "b"])
        #expect(Self.words(Self.text(sample(names) + half + sample(names.reversed().dropLast()))) == "x untyped 3")
        #expect(Self.words(Self.text(sample(names) + half + sample(names.reversed()))) == "series_twice")
        for twice in [3, 15, 16, 17, 39] {
            #expect(Self.words(Self.text(half + sample(names + ["a\(twice)"]))) == "unreadable")
        }
    }

    /// Its memory is kept from body to body, and so is nothing else.
    @Test func aReaderReadsManyBodies() {
        let reader = ContentsReader()
        let many = (0..<3000).map { "m\($0 % 7)_\($0 / 7){a=\"\($0)\",b\($0 % 40)=\"\"} 1\n" }.joined()
        let bodies = [
            "x 1\nx 2\n", "x{a=\"1\"} 1\n", many, "x{b=\"1\",a=\"\"} 1\nx{a=\"1\"} 1 5\n", "x\n", "x 1\n", "",
            "# TYPE h histogram\nh_sum 1\nh_count 1\n", "h_sum 1\n", many + "m0_0{a=\"0\",b0=\"\"} 1\n",
        ]
        for body in bodies + bodies.reversed() {
            let expected = Self.words(Self.text(body))
            #expect(Self.words(Self.read(Array(body.utf8), by: reader)) == expected, "\(body.prefix(60))")
        }
    }

    @Test func namesTheFamilyAndTheRule() {
        let timestamp = "family \"x\" has a timestamp at byte 9 of the body: a Pushgateway takes none"
        #expect(Self.line(Self.text("\n# c\ny 1\nx 1 5\n")) == timestamp)
        let suffix =
            "family \"x_count\" has the name of a series of family \"x\" of the same body, which is a summary"
        #expect(Self.line(Self.text("x_count 1\n# TYPE x summary\nx 1\n")) == suffix)
        let twice =
            "family \"x\" has two equal series, one at byte 4 of the body: "
            + "their labels are the same once those of the grouping key are set"
        #expect(Self.line(Self.text("x 1\nx 1\n")) == twice)
    }

    // MARK: Series

    private static func series(_ body: String, _ key: [(String, String)] = []) -> PushedSeries? {
        families(text(body, key: self.key(key))).first?.series.first
    }

    @Test func shapesAreOfNamesAndOfEmptyValues() throws {
        let plain = try #require(Self.series("x{a=\"1\",b=\"2\"} 1\n"))
        let other = try #require(Self.series("y{b=\"3\",a=\"4\"} 1\n"))
        #expect(plain.shape == other.shape && plain.hash != other.hash)
        #expect(Self.series("y{b=\"2\",instance=\"\",a=\"1\"} 1\n") == plain)
        for body in [
            "x{a=\"1\"} 1\n", "x{a=\"1\",b=\"\"} 1\n", "x{a=\"\",b=\"2\"} 1\n", "x{a=\"1\",b=\"2\",instance=\"i\"} 1\n",
        ] {
            let series = try #require(Self.series(body))
            #expect(series.shape.allNames != plain.shape.allNames, "\(body)")
            #expect(series.shape.keyNames == plain.shape.keyNames, "\(body)")
        }
        // The same labels of another group: one series in two groups.
        let moved = try #require(Self.series("x{b=\"2\"} 1\n", [("a", "1")]))
        #expect(moved.hash == plain.hash && moved.shape.allNames == plain.shape.allNames)
        #expect(moved.shape.keyNames != plain.shape.keyNames)
        #expect(Self.series("x{b=\"2\",a=\"0\",job=\"u\"} 1\n", [("a", "1")]) == moved)
        let empty = try #require(Self.series("x{b=\"2\",a=\"0\"} 1\n", [("a", "")]))
        #expect(empty.shape.keyNames != moved.shape.keyNames && empty.shape.allNames != moved.shape.allNames)
    }

    @Test func shapesAreTheSameInEveryProcess() throws {
        let shape = try #require(Self.series("x{a=\"1\"} 1\n")).shape
        #expect(shape == SeriesShape(keyNames: 6_530_575_421_546_901_552, allNames: 16_138_254_698_024_839_353))
    }

    @Test func ownLabelsOfHistogramsDoNotCount() throws {
        let histogram = "# TYPE h histogram\nh_bucket{a=\"1\",le=\"5\"} 1\n"
        #expect(Self.series(histogram) == Self.series("x{a=\"1\"} 1\n"))
        #expect(Self.series("# TYPE s summary\ns{quantile=\"1\",a=\"1\"} 1\n") == Self.series("x{a=\"1\"} 1\n"))
        #expect(Self.series("x{a=\"1\",le=\"5\"} 1\n") != Self.series("x{a=\"1\"} 1\n"))
    }

    @Test func escapesDoNotCount() {
        #expect(Self.words(Self.text("x{a=\"\\\\n\"} 1\nx{a=\"\\n\"} 1\n")) == "x untyped 2")
        #expect(Self.text("x{a=\"\\n\"} 1\n").firstHash == Self.text("y{a=\"\\n\"} 2\n").firstHash)
    }
}

extension PushContents {
    fileprivate var firstHash: Int? { ContentsReaderTests.families(self).first?.series.first?.hash }
}
