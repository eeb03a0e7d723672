// The version of shardd, in one place: `--version` prints it and `shardd_build_info` carries it.

/// The version of the engine and of the program around it, by semantic versioning.
public let sharddVersion = "0.1.0"
