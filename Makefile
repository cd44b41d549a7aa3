# A thin front of Meson. `make help` lists the targets.
BUILD ?= build
CC ?= gcc
# SAN=1: address and undefined-behaviour sanitizers in a build of its own
SAN ?=
FUZZ_SECONDS ?= 20
PYTHON := /usr/bin/python3

comma := ,

.DEFAULT_GOAL := all
.PHONY: all help demo test unit e2e fuzz lint bench test-peers install clean deps-build

help:
	@sed -n 's/^## //p' Makefile

## make             build the programs into build/bin/
all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) $(NINJA_FLAGS)

deps-build:
	@tools/deps build

$(BUILD)/build.ninja: | deps-build
	CC=$(CC) meson setup $(BUILD) -Db_sanitize=$(if $(SAN),address$(comma)undefined,none) $(if $(SAN),-Db_lundef=false)

## make unit        unit tests
unit: all
	@tools/deps test
	meson test -C $(BUILD) --no-rebuild --print-errorlogs

## make fuzz        every fuzz target for FUZZ_SECONDS (20)
fuzz:
	@tools/deps build test
	@[ -f $(BUILD)-fuzz/build.ninja ] || CC=clang meson setup $(BUILD)-fuzz -Dfuzz=true \
	    -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fsanitize=fuzzer-no-link
	@ninja -C $(BUILD)-fuzz
	tools/fuzz $(BUILD)-fuzz $(FUZZ_SECONDS)

## make clean       remove what was built (not the kernel cache)
clean:
	rm -rf build build-*/
