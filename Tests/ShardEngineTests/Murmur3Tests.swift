import Testing

@testable import ShardEngine

@Suite struct Murmur3Tests {
    /// Published vectors of MurmurHash3_x86_32 with seed 0: those of the spaolacci/murmur3 package that
    /// dynamic-sharding uses, and the well-known ones for short inputs, which have every length of tail.
    private static let texts: [(String, UInt32)] = [
        ("", 0), ("hello", 0x248b_fa47), ("hello, world", 0x149b_bb7f), ("19 Jan 2038 at 3:14:07 AM", 0xe31e_8a70),
        ("The quick brown fox jumps over the lazy dog.", 0xd5c4_8bfc), ("test", 0xba6b_d213),
        ("Hello, world!", 0xc036_3e43), ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
    ]
    private static let binaries: [([UInt8], UInt32)] = [
        ([0xFF, 0xFF, 0xFF, 0xFF], 0x7629_3b50), ([0x21, 0x43, 0x65, 0x87], 0xf55b_516b),
        ([0x21, 0x43, 0x65], 0x7e4a_8634), ([0x21, 0x43], 0xa0f7_b07a), ([0x21], 0x7266_1cf4),
        ([0, 0, 0, 0], 0x2362_f9de), ([0, 0, 0], 0x85f0_b427), ([0, 0], 0x30f4_c306), ([0], 0x514e_28b7),
    ]

    @Test(arguments: texts.map { (Array($0.0.utf8), $0.1) } + binaries)
    func hashesAsPublished(bytes: [UInt8], expected: UInt32) {
        #expect(hash(bytes) == expected)
    }

    @Test func readsBytesWhereverTheyLie() {
        let bytes = Array("xxxxhello, world".utf8)
        for start in 0...4 {
            let copy = Array(bytes[start...])
            #expect(bytes.withUnsafeBytes { murmur3(UnsafeRawBufferPointer(rebasing: $0[start...])) } == hash(copy))
        }
    }

    /// Published vectors of the first half of MurmurHash3_x64_128 with seed 0, from spaolacci/murmur3 too.
    @Test(arguments: [
        ("", 0 as UInt64), ("hello", 0xcbd8_a7b3_41bd_9b02), ("hello, world", 0x342f_ac62_3a5e_bc8e),
        ("19 Jan 2038 at 3:14:07 AM", 0xb89e_5988_b737_affc),
        ("The quick brown fox jumps over the lazy dog.", 0xcd99_481f_9ee9_02c9),
    ])
    func hashesWidelyAsPublished(text: String, expected: UInt64) {
        #expect(Array(text.utf8).withUnsafeBytes { wideMurmur3($0) } == expected)
    }

    private func hash(_ bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { murmur3($0) }
    }
}
