# shardd's entry points; each installs what it needs (apt-get, with sudo where not root). Swift is a prerequisite.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build run test unit-test debug-test system-test picture lint check simulate fuzz \
	bench bench-quick bench-compare bench-sharding bench-moving bench-stalls bench-gate

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the release binary, .build/release/shardd
	@scripts/install-deps build
	swift build -c release --product shardd --static-swift-stdlib

run: ## Three Pushgateways and shardd on port 9292, until Ctrl-C; CONSUL=1: with a Consul agent
	@CONSUL='$(CONSUL)' scripts/run-demo

test: unit-test debug-test system-test ## Every test, with what they need: Consul, Pushgateway, Prometheus, Go and Python clients

unit-test: ## The tests of the engine, some with a Consul agent or a Pushgateway
	@scripts/install-deps build run consul
	swift test

simulate: ## Histories of moving groups, N of them with fresh seeds; N=-SEED with SIMULATE=fail tells one, '--shrink -SEED fail' the shortest
	@scripts/install-deps build
	swift build -c release --product simulate
	.build/release/simulate $(or $(N),1000000) $(SIMULATE)

# Optimised, and yet with what tests may look at; the address sanitizer finds what is read beside a body.
fuzz: ## Bodies that nobody has thought of, for the readers of pushes; SECONDS=60 for each format
	@scripts/install-deps build
	FUZZ=1 swift build --scratch-path .build/fuzz --product fuzz --sanitize=fuzzer --sanitize=address -Xswiftc -O \
		-Xswiftc -sanitize-coverage=edge,inline-8bit-counters,pc-table,trace-cmp
	@for format in text protobuf; do \
		mkdir -p .build/fuzz/corpus/$$format && \
		SWIFT_BACKTRACE=enable=no FORMAT=$$format .build/fuzz/debug/fuzz -max_total_time=$(or $(SECONDS),60) -max_len=4096 -print_final_stats=1 \
			-artifact_prefix=.build/fuzz/$$format- .build/fuzz/corpus/$$format Tests/Fuzz/corpus/$$format || exit 1; \
	done

debug-test: ## A core of the tests with real processes, with a debug build, which checks that each loop is its own thread's
	@scripts/install-deps build test consul consul-sd oracle
	swift build --product shardd
	SHARDD=.build/debug/shardd PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest Tests/System -m core $(PYTEST)

system-test: build ## The tests with real processes; PYTEST='-k name -x' chooses
	@scripts/install-deps test consul consul-sd oracle
	PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest Tests/System $(PYTEST)

picture: ## docs/scaling.svg, of what the scale tests see
	$(MAKE) system-test PYTEST='-k test_scale'
	/usr/bin/python3 -B Tests/System/harness/picture.py

lint: check ## Layout and formatting
	swift format lint --strict --recursive Package.swift Sources Tests Benchmarks

check: ## The order of the folders, the import rule, the lengths of files and functions
	@scripts/install-deps lint
	scripts/check-layout

bench: build ## shardd against nginx, HAProxy and Envoy, about half an hour; BENCH='--scenarios keepalive-64' chooses
	@scripts/install-deps bench envoy
	/usr/bin/python3 -B Benchmarks/bench.py $(BENCH)

bench-quick: build ## The core of it, about a minute
	@scripts/install-deps bench envoy
	/usr/bin/python3 -B Benchmarks/bench.py --quick $(BENCH)

bench-compare: build ## shardd of this tree against that of another revision: BASE=main
	@scripts/install-deps bench
	/usr/bin/python3 -B Benchmarks/compare.py $(or $(BASE),main) $(BENCH)

bench-sharding: build ## Pushes/s over 1, 2, 4 and 8 real Pushgateways with their consistency check on
	@scripts/install-deps bench
	/usr/bin/python3 -B Benchmarks/sharding.py $(BENCH)

bench-moving: build ## Groups/s moved between real Pushgateways, and what pushes notice; about six minutes, with BASE=main twelve
	@scripts/install-deps bench
	/usr/bin/python3 -B Benchmarks/moving.py $(BASE) $(BENCH)

bench-stalls: build ## How long the loop is held up when the membership changes, of 3 to 1,000 shards; about two minutes
	@scripts/install-deps bench
	/usr/bin/python3 -B Benchmarks/stalls.py $(BENCH)

bench-gate: build ## Instructions, allocations and system calls of a push, against Benchmarks/gate.json; RECORD=1 writes it
	@scripts/install-deps gate
	/usr/bin/python3 -B Benchmarks/gate.py
