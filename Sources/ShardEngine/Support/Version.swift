// The version of shardd, in one place, and what is known of a build: `--version` prints it and `shardd_build_info` carries it.

/// The version of the engine and of the program around it, by semantic versioning.
public let sharddVersion = "0.2.0"

/// What a program was built from, when and by what.
public struct BuildInfo: Sendable {
    /// The version of the engine.
    public let version = sharddVersion
    /// The commit, with `-dirty` if the tree differed from it; `unknown` outside a repository.
    public let revision: String
    /// When the program was built of this revision, as RFC 3339 writes it.
    public let date: String
    /// Of the compiler.
    public let swiftVersion: String

    /// What the program was told at its build.
    public init(revision: String, date: String, swiftVersion: String) {
        self.revision = revision
        self.date = date
        self.swiftVersion = swiftVersion
    }
}
