# make demo   sets everything up and replays real quotes through the bridge to two Python workers
# make test   sets everything up and runs every check and every test
# Both need cargo, a C compiler, python3 with venv, and make; the tests need openssl, too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARGO ?= cargo
export MYCELIUM_PYTHON := $(abspath $(BIN)/python)

# For what mostly waits, or uses one core.
side_by_side = @echo 'side by side, each shown when it is done: $(2)'; $(MAKE) --jobs=$(1) --output-sync=target --no-print-directory $(2)
# Cargo is not to look for make's job server, which its children cannot reach.
ALONE := env -u MAKEFLAGS -u MFLAGS

.PHONY: help demo test test-apart test-rest test-models loom miri fuzz stress chaos test-rust test-python coverage test-pythons test-fallback lint check-contracts generate bench bench-bridge bench-dynamic bench-python docs leaks clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# The SDK alone: what the demo needs. It has no dependencies.
$(VENV)/.sdk: python-sdk/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable python-sdk
	@touch $@

# The SDK with its development tools, and with what builds the documentation: what the tests need.
$(VENV)/.dev: $(VENV)/.sdk
	$(BIN)/python -m pip install --quiet --editable 'python-sdk[dev,docs]'
	@touch $@

demo: $(VENV)/.sdk ## Replay real quotes to two Python workers over shared memory and over the socket
	$(CARGO) build --release --package mycelium-bridge
	target/release/mycelium-bridge demo --python $(MYCELIUM_PYTHON) $(DEMO_FLAGS)

test: lint check-contracts test-rust test-apart test-rest ## Run every check and every test

# What uses nothing that the others build.
test-apart: $(VENV)/.dev
	+$(call side_by_side,2,short-loom short-miri test-python docs)

lint: ## Formatting, clippy, rustdoc, ruff, mypy and pyright
	+$(MAKE) --jobs=2 --no-print-directory lint-rust lint-python

lint-rust:
	$(ALONE) $(CARGO) fmt --all --check
	$(ALONE) $(CARGO) clippy --all-targets --features mycelium-messages/serde -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(ALONE) $(CARGO) doc --no-deps --quiet

lint-python: $(VENV)/.dev
	cd python-sdk && ../$(BIN)/ruff format --check . ../contracts/tests/golden ../benches/python && ../$(BIN)/ruff check . ../contracts/tests/golden ../benches/python
	cd python-sdk && ../$(BIN)/mypy && ../$(BIN)/basedpyright --pythonpath ../$(BIN)/python

check-contracts: ## Fail if generated files are stale
	$(CARGO) run --quiet --package mycelium-contracts -- generate --check

generate: ## Regenerate Rust, Python, documentation and vectors from the contracts
	$(CARGO) run --quiet --package mycelium-contracts -- generate

# Two halves of about the same length: what mostly waits for other processes, and what computes. No package is named, so that
# nothing is built again with other features; `serde` needs one that the others do not.
MEMBERS := shm-transport bridge contracts contracts/messages tests
TESTS := $(foreach member,$(MEMBERS),$(wildcard $(member)/tests/*.rs) $(patsubst %/main.rs,%,$(wildcard $(member)/tests/*/main.rs)))
COMPUTING := build_script contracts_round_trip generated_python interop_bandit many_messages robust stress
WAITING := $(filter-out $(COMPUTING) serde,$(basename $(notdir $(TESTS))))

test-rust: $(VENV)/.dev ## All Rust tests, across processes and languages too
	$(CARGO) test --no-run
	+$(call side_by_side,2,rust-waiting rust-computing)
	$(CARGO) test --doc
	$(CARGO) test --package mycelium-messages --features serde

rust-waiting: private TARGETS = $(addprefix --test ,$(sort $(WAITING)))
rust-computing: private TARGETS = --lib --bins --examples $(addprefix --test ,$(COMPUTING))
rust-%:
	$(ALONE) $(CARGO) test $(TARGETS)

test-python: $(VENV)/.dev ## All Python tests
	cd python-sdk && ../$(BIN)/python -m pytest

# Without the tests that trace the interpreter themselves, or count its objects: the measuring of coverage is in their way.
# Every send takes the long way under a tracer, so the short one is not counted as reached.
coverage: $(VENV)/.dev ## What the Python tests reach
	cd python-sdk && ../$(BIN)/python -m coverage run -m pytest $(addprefix --ignore tests/test_,interrupts.py resources.py send_many.py worker_async.py)
	cd python-sdk && ../$(BIN)/python -m coverage report

test-pythons: ## The Python tests on every interpreter of PYTHONS (python3.10 to 3.14 and 3.14t) that is there
	.ci/pythons

# The same scenarios where shared memory is not to be had, and where membarrier is not. What makes no link, or none over
# shared memory in the first place, is left out. No package is named, so that nothing is built again with other features.
NO_LINK := config_errors contracts_alone documentation generated_python getting_started interop_bandit remote remote_tls samples stdio_worker uplink
SCENARIOS := $(addprefix --test ,$(filter-out $(NO_LINK),$(basename $(notdir $(wildcard tests/tests/*.rs)))))

BENCHES := --package mycelium-benches --package mycelium-bench-harness
FALLBACK := without-memfd without-membarrier
test-fallback: $(VENV)/.dev ## The scenarios again without memfd, and without membarrier
	$(CARGO) test --no-run $(SCENARIOS)
	+$(call side_by_side,2,$(FALLBACK))

test-rest: $(VENV)/.dev
	$(CARGO) test --no-run $(BENCHES)
	$(CARGO) test --no-run $(SCENARIOS)
	+$(call side_by_side,3,$(FALLBACK) test-benches)

without-%: export CHAOS_FAULTS = 50
without-%:
	MYCELIUM_DISABLE=$* $(ALONE) $(CARGO) test $(SCENARIOS)

test-models: ## The ring under loom and Miri, in their short form
	+$(call side_by_side,2,short-loom short-miri)

short-%:
	$(ALONE) .ci/$* --short

test-benches: $(VENV)/.dev ## The measuring programs in their short form; rivals are built
	$(ALONE) $(CARGO) test $(BENCHES)

loom: ## The ring and the protocol of parking under every interleaving
	.ci/loom

stress: ## Two processes that are killed again and again, for STRESS_SECONDS (120)
	STRESS_SECONDS=$${STRESS_SECONDS:-120} $(CARGO) test --release --package shm-transport --test stress

chaos: $(VENV)/.dev ## CHAOS_FAULTS (10000) random faults from CHAOS_SEED (1) at a bridge with workers in both languages
	CHAOS_FAULTS=$${CHAOS_FAULTS:-10000} $(CARGO) test --test chaos -- --nocapture

fuzz: ## What a peer can write, under libFuzzer; FUZZ_SECONDS (60) per target
	.ci/fuzz

miri: ## The ring under Miri, with both aliasing models
	.ci/miri

bench: $(VENV)/.sdk ## Measure the transport beside its floors and its rivals, and the bridge; BENCH_FLAGS go to both programs
	$(CARGO) bench --package mycelium-benches
	$(CARGO) run --release --package mycelium-benches --bin measure -- $(BENCH_FLAGS)
	$(MAKE) bench-bridge

bench-bridge: $(VENV)/.sdk ## Measure the bridge: its router, round trips, fan-out, stopped workers, idle links
	$(CARGO) run --release --package mycelium-benches --bin bench-bridge -- --python $(MYCELIUM_PYTHON) $(BENCH_FLAGS)

bench-dynamic: $(VENV)/.dev ## What JSON, MessagePack and raw messages cost beside those of a contract; BENCH_FLAGS go to the program
	$(CARGO) run --release --package mycelium-benches --bin dynamic -- --python $(MYCELIUM_PYTHON) --docs docs/benchmarks.md $(BENCH_FLAGS)

docs: $(VENV)/.dev ## The documentation as a site, in target/site
	$(BIN)/sphinx-build -q -W --keep-going docs target/site

# The SDK with NumPy and the rivals that it is measured with, apart from the tests.
$(VENV)-bench/.ready: benches/python/requirements.txt python-sdk/pyproject.toml
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --requirement benches/python/requirements.txt --editable python-sdk
	@touch $@

bench-python: $(VENV)-bench/.ready ## Measure the Python SDK beside its rivals; BENCH_FLAGS go to the program
	$(CARGO) run --release --package mycelium-benches --bin bench-python -- $(BENCH_FLAGS)

leaks: $(VENV)/.dev ## Connect 10,000 times in Python and look for what is left behind
	cd python-sdk && MYCELIUM_LEAK_CONNECTS=10000 ../$(BIN)/python -m pytest -q tests/test_resources.py

clean: ## Remove everything that was built
	$(CARGO) clean
	rm -rf $(VENV) $(VENV)-bench
