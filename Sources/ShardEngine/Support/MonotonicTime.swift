// Time for deadlines and durations. Everything that measures or waits uses this; wall-clock time is only printed.
import Glibc

/// A point on the monotonic clock, in nanoseconds since an arbitrary start.
public struct MonotonicTime: Comparable, Hashable, Sendable {
    /// Nanoseconds since the clock's start.
    public var nanoseconds: UInt64

    /// Makes a point from a count of nanoseconds.
    public init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// The present moment.
    public static func now() -> MonotonicTime {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return MonotonicTime(nanoseconds: UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec))
    }

    /// The point `span` later.
    public func advanced(by span: TimeSpan) -> MonotonicTime {
        MonotonicTime(nanoseconds: nanoseconds &+ span.nanoseconds)
    }

    /// The time that has passed since `earlier`; zero when `earlier` is later.
    public func since(_ earlier: MonotonicTime) -> TimeSpan {
        TimeSpan(nanoseconds: nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0)
    }

    /// Earlier or shorter comes first.
    public static func < (left: MonotonicTime, right: MonotonicTime) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
}

/// A length of time, never negative.
public struct TimeSpan: Comparable, Hashable, Sendable {
    /// Length in nanoseconds.
    public var nanoseconds: UInt64

    /// Makes a span from a count of nanoseconds.
    public init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// A span of so many seconds.
    public static func seconds(_ count: Double) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(count * 1e9))
    }

    /// A span of so many milliseconds.
    public static func milliseconds(_ count: UInt64) -> TimeSpan {
        TimeSpan(nanoseconds: count * 1_000_000)
    }

    /// No time at all.
    public static let zero = TimeSpan(nanoseconds: 0)

    /// Length in seconds.
    public var seconds: Double { Double(nanoseconds) / 1e9 }

    /// Earlier or shorter comes first.
    public static func < (left: TimeSpan, right: TimeSpan) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
}

/// The time of day, in seconds since 1970: for people and for Prometheus, never for measuring.
func wallClock() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Nanoseconds since 1970 by the system's clock.
func wallClockNanoseconds() -> Int64 { Int64(wallClock() * 1e9) }
