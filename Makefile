# A thin front of Meson. `make help` lists the targets.
BUILD ?= build
CC ?= gcc
# SAN=1: address and undefined-behaviour sanitizers in a build of its own
SAN ?=
FUZZ_SECONDS ?= 20
PYTHON := /usr/bin/python3
# Where `make install` goes; nothing that is installed knows it.
PREFIX ?= /usr/local
DESTDIR ?=

comma := ,

.DEFAULT_GOAL := all
.PHONY: all help kernel demo install uninstall deb image unit e2e test test-vm test-peers lint bench fuzz clean deps-build

help:
	@sed -n 's/^## //p' Makefile

## make             build the programs into build/bin/
all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) $(NINJA_FLAGS)

deps-build:
	@tools/deps build

$(BUILD)/build.ninja: | deps-build
	CC=$(CC) meson setup $(BUILD) -Db_sanitize=$(if $(SAN),address$(comma)undefined,none) $(if $(SAN),-Db_lundef=false)

## make kernel      the enclave kernel, built once from Debian's source and cached
kernel: deps-build
	@tools/deps kernel
	@mkdir -p $(BUILD)/bin; k=$$(kernel/build) && { cmp -s "$$k" $(BUILD)/bin/bzImage || cp "$$k" $(BUILD)/bin/bzImage; }

## make demo        build everything, run a capsule end to end and verify its attestation
demo: all kernel
	@tools/deps demo
	@examples/demo $(BUILD)

## make install     programs, kernel, man pages, completion and docs into PREFIX (/usr/local) below DESTDIR
install: all kernel
	@tools/install $(BUILD) "$(DESTDIR)$(PREFIX)"

## make uninstall   what `make install` put there
uninstall: all kernel
	@tools/install --remove $(BUILD) "$(DESTDIR)$(PREFIX)"

## make deb         the Debian package, as build/capsule_VERSION_ARCH.deb
deb: all kernel
	@tools/deps deb
	@tools/deb $(BUILD)

## make image       a container image of capsule-cli, as build/capsule-image.tar or to DEST (docker://HOST/NAME:TAG, ...)
image: all kernel
	@tools/deps image
	@tools/image $(BUILD) $(DEST)

## make unit        unit tests
unit: all
	@tools/deps test
	meson test -C $(BUILD) --no-rebuild --print-errorlogs

## make e2e         end-to-end tests: real processes, sockets and images (ARGS for pytest; LAUNCHER=qemu)
e2e: all kernel
	@tools/deps test
	CAPSULE_BIN=$(CURDIR)/$(BUILD)/bin $(if $(SAN),CAPSULE_SANITIZED=1) $(if $(LAUNCHER),CAPSULE_TEST_LAUNCHER=$(LAUNCHER)) \
	    tools/side-by-side $(if $(ARGS),1,2) $(BUILD)/pytest-e2e $(PYTHON) -m pytest -p no:cacheprovider -q tests/e2e $(ARGS)

## make test        unit, e2e and fuzz
test: unit e2e fuzz

## make test-vm     what runs in a QEMU machine, and the tests of run there; installs vhost-device-vsock
test-vm: all kernel
	@tools/deps test
	@[ -w /dev/vhost-vsock ] || tools/vhost-device-vsock
	CAPSULE_BIN=$(CURDIR)/$(BUILD)/bin $(if $(SAN),CAPSULE_SANITIZED=1) CAPSULE_TEST_LAUNCHER=qemu \
	    tools/side-by-side $(if $(ARGS),1,2) $(BUILD)/pytest-vm $(PYTHON) -m pytest -p no:cacheprovider -q \
	    tests/e2e/test_qemu.py tests/e2e/test_nitro_cli_vm.py tests/e2e/test_run.py tests/e2e/test_capsule_api.py \
	    tests/e2e/test_mount_runs.py $(VM_PEERS) $(ARGS)

## make test-peers  conformance against third-party programs, which it installs, and test-vm
test-peers: all kernel
	@tools/deps test deb peers
	@tools/peers $(BUILD)
	CAPSULE_BIN=$(CURDIR)/$(BUILD)/bin $(if $(SAN),CAPSULE_SANITIZED=1) $(BUILD)/peers/venv/bin/python -m pytest -p no:cacheprovider -q tests/peers \
	    --junitxml=$(BUILD)/pytest-peers.xml $(ARGS)
	@$(MAKE) --no-print-directory test-vm ARGS= VM_PEERS="tests/peers/test_mount_suites.py tests/peers/test_mount_sqlite.py"

## make lint        format, clang-tidy, cppcheck, gcc's analyzer, house rules
lint: all
	@tools/deps test lint
	@tools/lint $(BUILD) | tee $(BUILD)/lint-results.txt; ! grep -q FAILED $(BUILD)/lint-results.txt

## make bench       figures, as ratios against a peer or a limit of the same run
bench: all kernel
	@tools/deps bench
	@bench/run $(BUILD)

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
