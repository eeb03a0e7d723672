import Testing

@testable import ShardEngine

@Suite struct QuantityTests {
    @Test(arguments: [
        ("0", 0), ("0s", 0), ("250ms", 250), ("1s", 1000), ("1m30s", 90_000), ("2h", 7_200_000),
        ("1h2m3s4ms", 3_723_004), ("90m", 5_400_000), ("5124095h", 18_446_742_000_000),
    ])
    func durations(text: String, milliseconds: UInt64) throws {
        #expect(try DurationText.parse(text) == .milliseconds(milliseconds))
    }

    @Test(arguments: [
        ("", "is not a whole number with a unit"), ("5", "has no unit"), ("1m30", "has no unit"),
        ("1.5s", "is not a whole number with a unit"), ("-1s", "is not a whole number with a unit"),
        ("1 s", "is not a whole number with a unit"), ("s", "is not a whole number with a unit"),
        ("1d", "has a unit that is not known"), ("1S", "has a unit that is not known"),
        ("30s1m", "has its units out of order"), ("1s1s", "has its units out of order"),
        ("5124096h", "is out of range"), ("5124095h9999999h", "has its units out of order"),
        ("99999999999999999999s", "is out of range"), ("5124095h60m", "is out of range"),
        ("\u{661}s", "is not a whole number with a unit"),
    ])
    func whatIsNoDuration(text: String, reason: String) {
        #expect(throws: Mistake(reason)) { try DurationText.parse(text) }
    }

    @Test(arguments: [
        ("0", 0), ("17", 17), ("17B", 17), ("1kB", 1000), ("1KB", 1000), ("1MB", 1_000_000), ("2GB", 2_000_000_000),
        ("64KiB", 65536), ("16MiB", 16_777_216), ("1GiB", 1_073_741_824),
    ])
    func sizes(text: String, bytes: Int) throws {
        #expect(try SizeText.parse(text) == bytes)
    }

    @Test(arguments: [
        ("", "is not a whole number with a unit"), ("MiB", "is not a whole number with a unit"),
        ("1.5MiB", "is not a whole number with a unit"), ("-1", "is not a whole number with a unit"),
        ("1M", "has a unit that is not known"), ("1mib", "has a unit that is not known"),
        ("1MiB2KiB", "is not one number with a unit"), ("9999999999GiB", "is out of range"),
    ])
    func whatIsNoSize(text: String, reason: String) {
        #expect(throws: Mistake(reason)) { try SizeText.parse(text) }
    }

    @Test func limitsArePrintedAsTheyAreRead() throws {
        for text in ["0s", "10ms", "90s", "10m", "24h"] {
            #expect(DurationText.text(try DurationText.parse(text)) == text)
        }
        for text in ["0B", "256B", "64KiB", "16MiB", "3GiB", "1000B"] {
            #expect(SizeText.text(try SizeText.parse(text)) == text)
        }
    }
}
