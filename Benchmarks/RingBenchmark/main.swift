// Times what places a push: making a ring, looking up owners on it, reading grouping keys.
// `swift run -c release RingBenchmark`; each figure is the best of several runs.
import Glibc
import ShardEngine

/// The least time that `work` took in several runs, in nanoseconds for each of its `count` steps.
func nanoseconds(runs: Int = 5, per count: Int, _ work: () -> Void) -> Double {
    (0..<runs).map { _ in
        let start = MonotonicTime.now()
        work()
        return MonotonicTime.now().since(start).seconds * 1e9 / Double(count)
    }.min() ?? 0
}

/// Three significant digits or so, without Foundation.
func format(_ number: Double) -> String {
    let scaled = (number * 100).rounded() / 100
    return number >= 100 ? "\(Int(number.rounded()))" : "\(scaled)"
}

/// Bytes of memory that the process has resident.
func residentBytes() -> Int {
    var fields = [CChar](repeating: 0, count: 256)
    let descriptor = open("/proc/self/statm", O_RDONLY)
    defer { close(descriptor) }
    guard read(descriptor, &fields, fields.count - 1) > 0 else { return 0 }
    let pages = fields.split(separator: CChar(UInt8(ascii: " ")))[1].reduce(0) { $0 * 10 + Int($1) - 0x30 }
    return pages * Int(getpagesize())
}

func timeRings() {
    print("shards\tvnodes\tbuild ms\tKiB\tlookup ns\tlookup ns, each waiting for the last")
    for count in [1, 3, 10, 30, 100, 300, 1000] {
        let addresses = (0..<count).map { ShardAddress(host: "10.0.\($0 >> 8).\($0 & 255)", port: 9091) }
        var ring = Ring(shards: addresses, vnodes: 500)
        let before = residentBytes()
        let copies = (0..<20).map { _ in Ring(shards: addresses, vnodes: 500) }
        let kibibytes = (residentBytes() - before) / copies.count / 1024
        let build = nanoseconds(per: 1) { ring = Ring(shards: addresses, vnodes: 500) } / 1e6
        let lookups = 2_000_000
        var sum = 0
        let free = nanoseconds(per: lookups) {
            var key: UInt32 = 1
            for _ in 0..<lookups {
                key = key &* 1_664_525 &+ 1_013_904_223
                sum &+= ring.owner(of: key)
            }
        }
        let chained = nanoseconds(per: lookups) {
            var key: UInt32 = 1
            for _ in 0..<lookups { key = key &* 1_664_525 &+ 1_013_904_223 &+ UInt32(ring.owner(of: key)) }
            sum &+= Int(key)
        }
        precondition(sum != 0)
        print("\(count)\t500\t\(format(build))\t\(kibibytes)\t\(format(free))\t\(format(chained))")
    }
}

func timeGroupingKeys() {
    let paths = [
        ("job alone", "/metrics/job/backup"),
        ("3 labels in order", "/metrics/job/batch_17/dc/eu-west-1/instance/10.0.0.17:8080/shard/7"),
        ("3 labels, any order", "/metrics/job/batch_17/shard/7/instance/10.0.0.17:8080/dc/eu-west-1"),
        ("… of similar names", "/metrics/job/batch_17/label_three/7/label_two/10.0.0.17:8080/label_one/eu-west-1"),
        ("… percent-encoded", "/metrics/job/batch_17/shard/7/instance/10.0.0.17%3A8080/dc/eu-west-1"),
        ("… one in base64", "/metrics/job/batch_17/shard/7/instance/10.0.0.17:8080/path@base64/L3Zhci90bXA"),
        ("… one escaped name", "/metrics/job/batch_17/shard/7/U__host_2e_name/10.0.0.17:8080/dc/eu-west-1"),
        ("refused, odd", "/metrics/job/batch_17/dc/eu-west-1/instance/10.0.0.17:8080/shard"),
        ("10,000 labels, descending", "/metrics/job/x" + (0..<10_000).map { "/n\(19_999 - $0)/v" }.joined()),
    ]
    print("\ngrouping key\tbytes\tns\tns, key: path")
    for (name, path) in paths {
        let rounds = max(10, 20_000_000 / (path.utf8.count * 10))
        let times = [HashKey.group, .path].map { key in
            let parser = GroupingKeyParser(key: key)
            return Array(path.utf8).withUnsafeBytes { bytes in
                nanoseconds(per: rounds) {
                    for _ in 0..<rounds { _ = parser.hash(path: bytes) }
                }
            }
        }
        print("\(name)\t\(path.utf8.count)\t\(format(times[0]))\t\(format(times[1]))")
    }
}

timeRings()
timeGroupingKeys()
