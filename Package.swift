// swift-tools-version: 6.1
import PackageDescription

/// The simulator goes through thousands of histories in the unit tests: unoptimised it takes minutes. Preconditions stay.
let optimisedForTests = SwiftSetting.unsafeFlags(["-O"], .when(configuration: .debug))

let package = Package(
    name: "shardd",
    products: [
        .executable(name: "shardd", targets: ["shardd"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.1.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CEvent",
            pkgConfig: "libevent",
            providers: [.apt(["libevent-dev"])]
        ),
        .systemLibrary(
            name: "CZlib",
            pkgConfig: "zlib",
            providers: [.apt(["zlib1g-dev"])]
        ),
        // Pure and by itself, so that the simulator drives it without the rest, and the compiler keeps the rest out of it.
        .target(
            name: "MovingCore",
            path: "Sources/ShardEngine/Moving/Core",
            swiftSettings: [optimisedForTests]
        ),
        .target(
            name: "MovingSimulator",
            dependencies: ["MovingCore"],
            path: "Tests/MovingSimulator",
            swiftSettings: [
                optimisedForTests, .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
            ]
        ),
        .executableTarget(
            name: "simulate",
            dependencies: ["MovingSimulator"],
            path: "Tests/Simulate"
        ),
        .target(
            name: "ShardEngine",
            dependencies: [
                "CEvent",
                "CZlib",
                "MovingCore",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Yams", package: "Yams"),
            ],
            exclude: ["Moving/Core"],
            // The checks cost a tenth of a push; debug builds, and so the tests, have them.
            swiftSettings: [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]
        ),
        .executableTarget(
            name: "shardd",
            dependencies: [
                "ShardEngine",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            plugins: ["BuildInfo"]
        ),
        // Tells the program its revision and date; the tree stays as it is.
        .plugin(name: "BuildInfo", capability: .buildTool()),
        .executableTarget(
            name: "RingBenchmark",
            dependencies: ["ShardEngine"],
            path: "Benchmarks/RingBenchmark"
        ),
        .testTarget(
            name: "MovingTests",
            dependencies: ["MovingCore", "MovingSimulator"]
        ),
        .testTarget(
            name: "ShardEngineTests",
            dependencies: [
                "MovingCore",
                "MovingSimulator",
                "ShardEngine",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Yams", package: "Yams"),
            ],
            resources: [.copy("Fixtures")]
        ),
    ],
    swiftLanguageModes: [.v6]
)

// `make fuzz` alone builds this, without the tests, with which it has a file in common.
if Context.environment["FUZZ"] != nil {
    package.targets.removeAll { $0.type == .test }
    package.targets.append(
        .executableTarget(
            name: "fuzz",
            dependencies: ["ShardEngine"],
            path: "Tests",
            exclude: ["Fuzz/corpus"],
            sources: ["Fuzz/Fuzz.swift", "ShardEngineTests/Support/BodyReplay.swift"],
            swiftSettings: [.unsafeFlags(["-parse-as-library"])]
        )
    )
}
