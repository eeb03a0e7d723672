// Times building rings and looking up owners; `swift run -c release RingBenchmark`.
import ShardEngine

print("shards\tvnodes\tbuild ms\tlookup ns")
