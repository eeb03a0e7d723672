// Reading small files whole. The configuration and the Consul token are read this way, at start and at every reload.
import Glibc

/// Why a file could not be read, in the system's words.
struct FileError: Error {
    let reason: String
}

/// The bytes of a file; more than `limit` of them are an error, so that a wrong name cannot fill the memory.
func readFile(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(reason: String(cString: strerror(errno))) }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
        let size = read(descriptor, &chunk, chunk.count)
        if size < 0 && errno == EINTR { continue }
        guard size >= 0 else { throw FileError(reason: String(cString: strerror(errno))) }
        guard size > 0 else { return content }
        guard content.count + size <= limit else { throw FileError(reason: "more than \(limit) bytes") }
        content.append(contentsOf: chunk[..<size])
    }
}
