# Rutile: two commands do everything: `make run` and `make test`.
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(HOME)/.cache/rutile/target
VENV := $(HOME)/.cache/rutile/venv
export RUTILE_VENV := $(VENV)
RUN_ARGS ?=

.PHONY: setup setup-bench run build test slt slt-peer lint fmt bench bench-tpch soak dist

setup: ## packages, Rust, Python and Maven dependencies that building and testing need
	@scripts/setup.sh

setup-bench:
	@scripts/setup.sh bench

build:
	cargo build --release --locked --workspace

run: setup ## build and start a database, and print how to connect
	cargo build --release --locked --workspace --bin rutile
	@exec $(CARGO_TARGET_DIR)/release/rutile playground $(RUN_ARGS)

lint:
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

test: setup ## unit, SQL, cluster, crash and real-client tests
	cargo build --release --locked --workspace
	cargo test --release --locked --workspace --no-fail-fast

slt: build ## only the SQL cases
	cargo test --release --locked --workspace --test slt

slt-peer: ## the same SQL cases against another MySQL server: make slt-peer MYSQL_PEER=host:port
	@[ -n "$(MYSQL_PEER)" ] || { echo "say which server: make slt-peer MYSQL_PEER=host:port"; exit 2; }
	cargo build --release --locked --workspace --bin rutile-slt
	MYSQL_PEER=$(MYSQL_PEER) $(CARGO_TARGET_DIR)/release/rutile-slt check

bench: setup-bench ## sysbench beside MariaDB (and a MySQL given as MYSQL_PEER=host:port), on three stores beside Galera, raw access beside etcd
	cargo build --release --locked --workspace --bins
	scripts/bench-sysbench.sh
	BENCH_NODES=3 scripts/bench-sysbench.sh
	scripts/bench-raw.sh

bench-tpch: setup-bench ## the 22 queries of TPC-H beside MariaDB, answers compared with DuckDB's: make bench-tpch TPCH_SCALE=1
	cargo build --release --locked --workspace --bin rutile
	scripts/bench-tpch.sh

soak: build ## long runs: SIMULATIONS=2000 seeds of simulated stores, ROUNDS=200 crashes and faults, 10 kills each, SEEDS=100 of registers
	SIM_SEEDS=1-$${SIMULATIONS:-2000} SIM_EDGES=1 cargo test --release --locked --workspace --lib -- sim::tests --nocapture
	RUTILE_CRASH_ROUNDS=$${ROUNDS:-200} cargo test --release --locked --workspace --test crash -- --nocapture
	FAULTS=$${ROUNDS:-200} KILLS=10 SCALE_OUT_REGIONS=150 \
		cargo test --release --locked --workspace --test fault -- --nocapture --test-threads 1
	LINEAR_SEEDS=$$(seq -s, 1 $${SEEDS:-100}) cargo test --release --locked --workspace --test linear -- --nocapture

dist:
	cargo build --profile dist --locked --workspace --bin rutile
