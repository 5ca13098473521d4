# Thin on purpose: each target is what one would type by hand, with the prerequisites seen to.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-argo-cd test test-kubernetes bench lint fmt

# Programs that the distribution lacks; every clone on the machine shares them.
export SLIPWAY_TOOLS_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slipway/tools
export PATH := $(SLIPWAY_TOOLS_DIR)/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Said before a program is compiled. The first time takes about 20 minutes of processor time.
define say-how-long
cores=$$(nproc); if [ -e $(1) ]; then \
	echo "==> compiling what has changed since the last time: seconds, up to a few minutes"; else \
	echo "==> compiling for the first time, with all dependencies: about $$(((20 + cores - 1) / cores + 1)) minutes on this machine's" \
		"$$cores cores; the demonstration itself takes about a minute"; fi
endef

help: ## This list
	@echo "Slipway takes a commit to a verified rollout. To see it happen on this machine: make demo"
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo
	@echo "Each target installs what it lacks on Debian 12 and 13 (root or sudo) and says what is missing elsewhere."
	@echo "Compiled output goes to CARGO_TARGET_DIR when that is set, downloaded tools to SLIPWAY_TOOLS_DIR"
	@echo "($(SLIPWAY_TOOLS_DIR))."

demo: ## Two releases through three environments on this machine: one succeeds, one is rolled back
	@scripts/install-prerequisites demo
	@$(call say-how-long,$(TARGET)/debug/slipway)
	cargo build --locked -p slipway-cli
	$(TARGET)/debug/slipway demo $(DEMO_FLAGS)

demo-argo-cd: ## The same through Applications of Argo CD
	@$(MAKE) --no-print-directory demo DEMO_FLAGS=--argo-cd

test: ## All tests, on real PostgreSQL, Redis, git, registry and buildah; TEST_FLAGS goes to cargo test
	@scripts/install-prerequisites test
	cargo test --workspace --locked $(TEST_FLAGS)

test-kubernetes: ## The tests of clusters and the journeys on a real Kubernetes, started here or of SLIPWAY_TEST_KUBECONFIG
	@tests/kubernetes/test $(TEST_FLAGS)

bench: ## The figures of ARCHITECTURE.md, each beside this machine's floor
	@scripts/install-prerequisites test
	cargo build --release --workspace --locked
	$(TARGET)/release/bench $(BENCH_FLAGS)

lint: ## Format, clippy, proto lint, and the dependencies' licences, bans, sources and advisories
	@scripts/install-prerequisites lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	buf lint
	@scripts/proto-baseline check
	@scripts/check-dependencies

fmt: ## Format the Rust sources
	cargo fmt --all
