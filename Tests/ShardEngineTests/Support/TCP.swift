// Blocking TCP for tests: sockets that listen, and clients that speak raw HTTP.
import Foundation
import Glibc

@testable import ShardEngine

/// Opens a listening socket on a loopback address; returns its descriptor and port.
func listenOnLoopback(backlog: Int32 = 128) -> (descriptor: Int32, port: Int) {
    let (descriptor, port) = bindToLoopback()
    precondition(listen(descriptor, backlog) == 0)
    return (descriptor, port)
}

private func bindToLoopback() -> (descriptor: Int32, port: Int) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = loopback(port: 0)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
            precondition(bind(descriptor, address, size) == 0)
            getsockname(descriptor, address, &size)
        }
    }
    return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
}

/// An address at which connections are refused for as long as this lives, since nothing else can take its port.
final class RefusingAddress {
    let address: ShardAddress
    private let descriptor: Int32

    init() {
        let (descriptor, port) = bindToLoopback()
        self.descriptor = descriptor
        address = ShardAddress(host: "127.0.0.1", port: port)
    }

    deinit {
        close(descriptor)
    }
}

/// Connects to a loopback port and waits for it; -1 when that fails.
func connectToLoopback(port: Int) -> Int32 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = loopback(port: port)
    let result = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
            connect(descriptor, address, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
    guard result == 0 else {
        close(descriptor)
        return -1
    }
    return descriptor
}

private func loopback(port: Int) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(port).bigEndian
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    return address
}

/// Has the kernel answer the end of the connection with a reset.
func resetOnClose(_ descriptor: Int32) {
    var option = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
}

/// Sends all of the text.
func sendAll(_ descriptor: Int32, _ text: String) {
    let bytes = Array(text.utf8)
    var sent = 0
    while sent < bytes.count {
        let count = bytes[sent...].withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, 0x4000) }
        if count <= 0 { return }
        sent += count
    }
}

/// Reads one message with a Content-Length or without a body; nil when the connection ends before it is whole.
func readMessage(_ descriptor: Int32, timeout seconds: Int = 10) -> String? {
    var limit = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var message: [UInt8] = []
    var byte: UInt8 = 0
    while message.suffix(4) != [13, 10, 13, 10] {
        guard recv(descriptor, &byte, 1, 0) == 1 else { return nil }
        message.append(byte)
    }
    var missing = contentLength(String(decoding: message, as: UTF8.self))
    var chunk = [UInt8](repeating: 0, count: 65536)
    while missing > 0 {
        let count = recv(descriptor, &chunk, min(missing, chunk.count), 0)
        guard count > 0 else { return nil }
        message += chunk[..<count]
        missing -= count
    }
    return String(decoding: message, as: UTF8.self)
}

private func contentLength(_ head: String) -> Int {
    for line in head.split(whereSeparator: \.isNewline) where line.lowercased().hasPrefix("content-length:") {
        return Int(line.dropFirst(15).trimmingCharacters(in: .whitespaces)) ?? 0
    }
    return 0
}
