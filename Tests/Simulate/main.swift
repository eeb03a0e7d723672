// make simulate: random histories with fresh seeds, as many as are asked for, on all cores.
import MovingSimulator

runSimulator(CommandLine.arguments.dropFirst().map { $0 })
