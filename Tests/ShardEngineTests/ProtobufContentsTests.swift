// What bodies of messages would store, and the rules of Pushgateway's check that they break. What is expected is what 1.5.1
// did.
import Testing

@testable import ShardEngine

@Suite struct ProtobufContentsTests {
    /// The bytes of a message.
    private struct Message {
        var bytes: [UInt8] = []

        static func varint(_ number: UInt64) -> [UInt8] {
            number < 0x80 ? [UInt8(number)] : [UInt8(number & 0x7F) | 0x80] + varint(number >> 7)
        }

        func number(_ field: UInt64, _ number: UInt64) -> Message {
            Message(bytes: bytes + Message.varint(field << 3) + Message.varint(number))
        }

        func double(_ field: UInt64) -> Message {
            Message(bytes: bytes + Message.varint(field << 3 | 1) + [0, 0, 0, 0, 0, 0, 0xF0, 0x3F])
        }

        func bytes(_ field: UInt64, _ content: [UInt8]) -> Message {
            Message(bytes: bytes + Message.varint(field << 3 | 2) + Message.varint(UInt64(content.count)) + content)
        }

        func text(_ field: UInt64, _ text: String) -> Message { bytes(field, Array(text.utf8)) }

        func message(_ field: UInt64, _ message: Message) -> Message { bytes(field, message.bytes) }

        func label(_ name: String, _ value: String) -> Message {
            message(1, Message().text(1, name).text(2, value))
        }

        /// With a value of a kind, by the number of its field.
        func value(_ field: UInt64 = 2) -> Message {
            message(field, field == 4 || field == 7 ? Message().number(1, 1).double(2) : Message().double(1))
        }
    }

    private static func family(_ name: String, _ type: UInt64?, _ metrics: [Message]) -> [UInt8] {
        var family = Message().text(1, name)
        if let type { family = family.number(3, type) }
        for metric in metrics { family = family.message(4, metric) }
        return delimited(family)
    }

    private static func delimited(_ family: Message) -> [UInt8] {
        Message.varint(UInt64(family.bytes.count)) + family.bytes
    }

    private static func words(_ body: [UInt8], _ key: [(String, String)] = []) -> String {
        ContentsReaderTests.words(ContentsReaderTests.read(body, isProtobuf: true, key: ContentsReaderTests.key(key)))
    }

    private static func gauge(_ metric: Message) -> String { words(family("x", 1, [metric])) }

    @Test func readsEachKind() {
        let metrics: [(UInt64, UInt64, String)] = [
            (0, 3, "counter"), (1, 2, "gauge"), (2, 4, "summary"), (3, 5, "untyped"), (4, 7, "histogram"),
        ]
        for (type, field, kind) in metrics {
            let body = Self.family("x", type, [Message().value(field), Message().label("a", "1").value(field)])
            #expect(Self.words(body) == "x \(kind) 2")
        }
        #expect(Self.words([]) == "")
        #expect(Self.words(Self.family("x", nil, [Message().value(3)])) == "x counter 1")
        #expect(Self.words(Self.family("x", 1, [])) == "x gauge 0")
        #expect(Self.words(Self.family("push_time_seconds", 0, [])) == "")
        let helped = Self.delimited(Message().message(4, Message().value()).number(3, 1).text(2, "h").text(1, "x"))
        let families = ContentsReaderTests.families(
            ContentsReaderTests.read(helped, isProtobuf: true, key: ContentsReaderTests.key())
        )
        #expect(families.map(\.help) == [Array("h".utf8)] && families.map(\.kind) == [.gauge])
    }

    @Test func seriesAreThoseOfText() {
        let body = Self.family("x", 1, [Message().label("b", "2").label("a", "").value()])
        let key = ContentsReaderTests.key([("c", "3")])
        let messages = ContentsReaderTests.families(ContentsReaderTests.read(body, isProtobuf: true, key: key))
        let text = ContentsReaderTests.families(ContentsReaderTests.text("x{a=\"\",b=\"2\",c=\"4\"} 1\n", key: key))
        #expect(messages.first?.series == text.first?.series)
    }

    @Test func theLastFamilyOfANameCounts() {
        let bad = Self.family("x", 2, [Message().value(4).number(6, 5)])
        let body = bad + Self.family("x_count", 1, [Message().value()]) + Self.family("x", 1, [Message().value()])
        #expect(Self.words(body) == "x gauge 1, x_count gauge 1")
    }

    @Test func refusesByARule() {
        for time: UInt64 in [0, 1, .max] {
            #expect(Self.gauge(Message().value().number(6, time)) == "timestamp")
            let pushTime = Self.family("push_time_seconds", 1, [Message().value().number(6, time)])
            #expect(Self.words(pushTime) == "timestamp")
        }
        for name in ["", "a.b", "9a", "__x", "__name__", "ü", "a:b"] {
            #expect(Self.gauge(Message().label(name, "1").value()) == "metric_label", "\(name)")
        }
        #expect(Self.gauge(Message().label("a", "1").label("a", "1").value()) == "metric_label")
        #expect(Self.gauge(Message().label("job", "1").label("a", "1").label("job", "2").value()) == "metric_label")
        let quantile = Self.family("s", 2, [Message().label("quantile", "1").value(4)])
        #expect(Self.words(quantile) == "metric_label")
        let summary = Self.family("s", 2, [Message().value(4)])
        #expect(Self.words(summary, [("quantile", "1")]) == "metric_label")
        for metric in [Message(), Message().value(3), Message().label("a", "1").value(5)] {
            #expect(Self.gauge(metric) == "metric_kind")
        }
        #expect(Self.words(Self.family("x", nil, [Message().value()])) == "metric_kind")
        let twice = [Message().value(), Message().label("instance", "").value()]
        #expect(Self.words(Self.family("x", 1, twice)) == "series_twice")
        for name in ["s_count", "s_sum"] {
            let scalar = Self.family(name, 1, [Message().label("a", "1").value()])
            #expect(Self.words(summary + scalar) == "family_suffix")
            #expect(Self.words(scalar + summary) == "family_suffix")
        }
        let bucket = Self.family("s_bucket", 1, [Message().value()])
        #expect(Self.words(summary + bucket) == "s summary 1, s_bucket gauge 1")
        #expect(Self.words(Self.family("s", 4, [Message().value(7)]) + bucket) == "family_suffix")
    }

    @Test func aValueThatIsNotUTF8IsRefusedWhereTheKeyLeavesIt() {
        func metric(_ name: String) -> Message {
            Message().message(1, Message().text(1, name).bytes(2, [0xFF])).value()
        }
        #expect(Self.gauge(metric("a")) == "metric_label")
        #expect(Self.gauge(metric("job")) == "x gauge 1")
    }

    @Test func whatNoPushgatewayTakesIsUnreadable() {
        let whole = Self.family("x", 1, [Message().label("a", "1").value()])
        for length in 2..<whole.count { #expect(Self.words(Array(whole[..<length])) == "unreadable") }
        // Pushgateway 1.5 takes what came before a length that is cut short, or behind which nothing comes.
        for tail: [UInt8] in [[], [0x80], [0x80, 0x80, 0x80, 0x80], [0x20]] {
            #expect(Self.words(whole + tail) == "x gauge 1")
        }
        for tail: [UInt8] in [
            [0x80, 0x80, 0x80, 0x80, 0x80], [0x80, 0x80, 0x80, 0x80, 0x80, 0], [0x05, 1], [0], [0x02, 0x07, 0x00],
        ] {
            #expect(Self.words(whole + tail) == "unreadable", "\(tail)")
        }
        let label = Message().message(1, Message().bytes(1, []).bytes(9, [0xFF])).value()
        #expect(Self.gauge(label) == "metric_label")
        let metrics = [
            Message().bytes(1, [0x0A, 5]), Message().bytes(2, [0x09, 0]), Message().bytes(2, [0x0C]),
            Message().bytes(3, Message().bytes(2, [0x0A, 1]).bytes),
            Message().bytes(4, Message().bytes(3, [0x80]).bytes),
            Message().bytes(7, Message().bytes(3, Message().bytes(3, [0x12]).bytes).bytes),
            Message().bytes(7, Message().bytes(10, [0x80]).bytes), Message().bytes(7, Message().bytes(14, [0]).bytes),
        ]
        for metric in metrics { #expect(Self.gauge(metric.value()) == "unreadable", "\(metric.bytes)") }
        #expect(Self.words(Self.family("", 1, [Message().value()])) == "unreadable")
        for type: UInt64 in [5, 9, .max] {
            #expect(Self.words(Self.family("x", type, [Message().value()])) == "unreadable")
        }
    }

    /// A small generator, so that no input is different from run to run.
    @Test func noDamageTraps() {
        let metric = Message().label("a", "1").message(7, Message().number(1, 1).message(3, Message().double(2)))
        let messages = Self.family("h", 4, [metric]) + Self.family("x", 1, [Message().value()])
        let text = "# TYPE h histogram\n# HELP h a\\\\\nh_bucket{a=\"\\n\",le=\"1\"} 1 5\nx{b=\"ü\"} -1e3\n\n"
        var state: UInt64 = 1
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let letters = Array("\n \"\\{},=#_:1ax\u{0}ü".utf8) + [0xFF, 0x80, 0x7F]
        for round in 0..<20_000 {
            var body = round % 2 == 0 ? Array(text.utf8) : messages
            for _ in 0...next(3) {
                switch next(3) {
                case 0: body[next(body.count)] = round % 2 == 0 ? letters[next(letters.count)] : UInt8(next(256))
                case 1: body.removeSubrange(next(body.count)...)
                default: body.insert(letters[next(letters.count)], at: next(body.count + 1))
                }
                if body.isEmpty { break }
            }
            _ = ContentsReaderTests.read(body, isProtobuf: round % 2 == 1, key: ContentsReaderTests.key())
            _ = ContentsReaderTests.read(body, isProtobuf: round % 2 == 0, key: ContentsReaderTests.key())
        }
    }
}
