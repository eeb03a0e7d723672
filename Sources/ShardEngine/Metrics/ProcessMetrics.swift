// The standard process_* metrics, read from /proc when somebody asks. The exposition prints them.
import Glibc

/// What the process has used and may use.
struct ProcessMetrics {
    /// User and system time, in seconds.
    var cpuSeconds = 0.0
    /// Bytes.
    var residentMemory = 0.0
    /// Bytes.
    var virtualMemory = 0.0
    /// Seconds since 1970.
    var startTime = 0.0
    var openDescriptors = 0
    var maximumDescriptors = 0.0

    /// Reads the present figures of this process.
    static func read() -> ProcessMetrics {
        var metrics = ProcessMetrics()
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        // The name, in brackets, may hold spaces; the fields that count come after it (proc(5), from field 3 on).
        let fields = fileText("/proc/self/stat").split(separator: ")").last?.split(separator: " ") ?? []
        if fields.count > 21 {
            metrics.cpuSeconds = ((Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0)) / ticks
            metrics.virtualMemory = Double(fields[20]) ?? 0
            metrics.residentMemory = (Double(fields[21]) ?? 0) * Double(sysconf(Int32(_SC_PAGESIZE)))
            metrics.startTime = bootTime() + (Double(fields[19]) ?? 0) / ticks
        }
        metrics.openDescriptors = countDescriptors()
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            metrics.maximumDescriptors = Double(limit.rlim_cur)
        }
        return metrics
    }

    private static func bootTime() -> Double {
        for line in fileText("/proc/stat").split(separator: "\n") where line.hasPrefix("btime ") {
            return Double(line.dropFirst(6)) ?? 0
        }
        return 0
    }

    private static func countDescriptors() -> Int {
        guard let folder = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        // Not ".", "..", and the folder's own descriptor.
        return count - 3
    }

    private static func fileText(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
