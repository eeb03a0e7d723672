// What a start has read of the program's and its libraries' files: the server takes note of it first, and gives it back once
// it serves.
import CEvent
import Glibc

/// The parts of files that the process has mapped to be read or executed, and that it may let go of.
struct FilePages {
    private var mappings: [UnsafeMutableRawBufferPointer] = []

    /// Finds them. To be made before there are other threads, which may map files and unmap them again: what is mapped now
    /// stays.
    init() {
        guard let lines = try? readFile("/proc/self/smaps", limit: 1 << 20) else { return }
        var mapping: UnsafeMutableRawBufferPointer?
        for line in lines.split(separator: 0x0A) {
            // 5581a0000000-5581a1599000 r-xp 00000000 fe:00 1234    /usr/bin/shardd
            // and then a line for each thing that is known of it, of which two tell of pages that differ from the file's, as
            // those do in which addresses have been filled in:
            // Anonymous:             0 kB
            // Swap:                  0 kB
            let fields = line.split(separator: 0x20)
            guard fields.count == 3 else {
                if fields.count > 4, fields[0].contains(0x2D) { mapping = FilePages.readOnlyMapping(fields) }
                continue
            }
            let isZero = fields[1].elementsEqual("0".utf8)
            if fields[0].elementsEqual("Anonymous:".utf8), !isZero { mapping = nil }
            if fields[0].elementsEqual("Swap:".utf8), isZero, let mapping { mappings.append(mapping) }
        }
    }

    /// Gives back what a start took: the parsers of arguments and YAML, the runtime's tables, the names that libraries are
    /// linked by. What serving needs comes back, from the system's cache, as it is used.
    func giveBack() {
        for mapping in mappings { madvise(mapping.baseAddress, mapping.count, Int32(MADV_DONTNEED)) }
    }

    /// What a line that begins a mapping is about, if that is of a file and cannot be written to.
    private static func readOnlyMapping(_ fields: [ArraySlice<UInt8>]) -> UnsafeMutableRawBufferPointer? {
        guard fields.count == 6, fields[5].first == 0x2F else { return nil }
        guard fields[1].elementsEqual("r-xp".utf8) || fields[1].elementsEqual("r--p".utf8) else { return nil }
        let bounds = fields[0].split(separator: 0x2D).compactMap {
            UInt(String(decoding: $0, as: UTF8.self), radix: 16)
        }
        guard bounds.count == 2 else { return nil }
        return UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: bounds[0]),
            count: Int(bounds[1] - bounds[0])
        )
    }
}
