# shardd's entry points; each installs what it needs (apt-get, with sudo where not root).
SHELL := /bin/bash
.PHONY: build test lint deps

build: deps
	swift build -c release --product shardd

deps:
	@scripts/install-deps build

lint:
	swift format lint --strict --recursive Package.swift Sources Tests Benchmarks

test:
	@scripts/install-deps build
	swift test
