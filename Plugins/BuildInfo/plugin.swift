// Has every build run scripts/build-info, which writes a Swift file that says of which revision the program is, and when it
// was built. SwiftPM runs the plugin before it builds the target `shardd`; the file is in the build folder.
import Foundation
import PackagePlugin

@main
struct BuildInfo: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
        let folder = context.pluginWorkDirectoryURL.appending(path: "generated")
        let script = context.package.directoryURL.appending(path: "scripts/build-info")
        return [
            .prebuildCommand(
                displayName: "Revision and date",
                executable: URL(filePath: "/bin/sh"),
                arguments: [script.path(percentEncoded: false), folder.path(percentEncoded: false)],
                // The script needs git and the compiler.
                environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"],
                outputFilesDirectory: folder
            )
        ]
    }
}
