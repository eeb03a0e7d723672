// Writes one entry of the log as one line of logfmt or JSON.
// The log handler makes one for each entry and sends its bytes. Whatever a peer sent may be in a value, so nothing gets
// out that could end the line, start a field of its own or reach the terminal as a control sequence.
import Glibc
import Logging

/// The bytes of one entry, field by field.
struct LogLine {
    private let format: LogFormat
    private(set) var bytes: [UInt8] = []

    init(format: LogFormat) {
        self.format = format
        bytes.reserveCapacity(256)
        if format == .json { bytes.append(UInt8(ascii: "{")) }
    }

    /// Adds a field; keys are written in the order of the calls.
    mutating func add(_ key: String, _ value: Logger.MetadataValue) {
        switch format {
        case .logfmt:
            if !bytes.isEmpty { bytes.append(UInt8(ascii: " ")) }
            bytes.append(contentsOf: key.utf8.map { LogLine.isPlain($0) ? $0 : UInt8(ascii: "_") })
            bytes.append(UInt8(ascii: "="))
            appendLogfmt(LogLine.text(of: value))
        case .json:
            if bytes.count > 1 { bytes.append(UInt8(ascii: ",")) }
            appendQuoted(key)
            bytes.append(UInt8(ascii: ":"))
            appendJSON(value)
        }
    }

    /// Ends the line.
    mutating func finish() {
        if format == .json { bytes.append(UInt8(ascii: "}")) }
        bytes.append(UInt8(ascii: "\n"))
    }

    /// Time as RFC 3339 writes it: UTC, to the millisecond.
    static func timestamp(_ time: timespec) -> String {
        var seconds = time.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ number: Int, _ width: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let date = [(parts.tm_year + 1900, 4), (parts.tm_mon + 1, 2), (parts.tm_mday, 2)]
            .map { digits(Int($0.0), $0.1) }.joined(separator: "-")
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { digits(Int($0), 2) }.joined(separator: ":")
        return "\(date)T\(clock).\(digits(time.tv_nsec / 1_000_000, 3))Z"
    }

    /// The value as one text; lists and mappings as JSON, whose fields stand in one order.
    private static func text(of value: Logger.MetadataValue) -> String {
        switch value {
        case .string(let text): return text
        case .stringConvertible(let value): return value.description
        case .array, .dictionary:
            var line = LogLine(format: .json)
            line.bytes.removeAll()
            line.appendJSON(value)
            return String(decoding: line.bytes, as: UTF8.self)
        }
    }

    private mutating func appendLogfmt(_ text: String) {
        if !text.isEmpty, text.utf8.allSatisfy(LogLine.isPlain) {
            bytes.append(contentsOf: text.utf8)
        } else {
            appendQuoted(text)
        }
    }

    private mutating func appendJSON(_ value: Logger.MetadataValue) {
        switch value {
        case .string(let text): appendQuoted(text)
        case .stringConvertible(let value) where value is any FixedWidthInteger || value is Bool:
            bytes.append(contentsOf: value.description.utf8)
        case .stringConvertible(let value): appendQuoted(value.description)
        case .array(let values): appendList(values, "[", "]") { $0.appendJSON($1) }
        case .dictionary(let fields):
            appendList(fields.sorted { $0.key < $1.key }, "{", "}") { line, field in
                line.appendQuoted(field.key)
                line.bytes.append(UInt8(ascii: ":"))
                line.appendJSON(field.value)
            }
        }
    }

    private mutating func appendList<Element>(
        _ elements: [Element],
        _ open: Unicode.Scalar,
        _ close: Unicode.Scalar,
        _ append: (inout LogLine, Element) -> Void
    ) {
        bytes.append(UInt8(ascii: open))
        for (index, element) in elements.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            append(&self, element)
        }
        bytes.append(UInt8(ascii: close))
    }

    /// A string as JSON quotes it, which logfmt's readers understand too.
    private mutating func appendQuoted(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": bytes.append(contentsOf: #"\""#.utf8)
            case "\\": bytes.append(contentsOf: #"\\"#.utf8)
            case "\n": bytes.append(contentsOf: #"\n"#.utf8)
            case "\r": bytes.append(contentsOf: #"\r"#.utf8)
            case "\t": bytes.append(contentsOf: #"\t"#.utf8)
            case "\u{0}"..."\u{1F}", "\u{7F}"..."\u{9F}", "\u{2028}", "\u{2029}": appendEscape(scalar)
            default: bytes.append(contentsOf: UTF8.encode(scalar).unsafelyUnwrapped)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendEscape(_ scalar: Unicode.Scalar) {
        let digits = String(scalar.value, radix: 16)
        bytes.append(contentsOf: ("\\u" + String(repeating: "0", count: 4 - digits.count) + digits).utf8)
    }

    /// Whether logfmt may have the byte outside quotes: visible ASCII that neither quotes nor separates.
    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "="), UInt8(ascii: "\\"): false
        default: (0x21...0x7E).contains(byte)
        }
    }
}
