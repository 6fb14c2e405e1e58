# The same recipes locally and in CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DIST := target/dist
BENCH := $(DIST)/hub-loadtest

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: run
run: ## Install what is missing, build, and run the demo until Ctrl-C
	@scripts/install.sh run
	cargo build --locked -p hub-gateway --bin hub-gateway -p hub-ops --bin hubctl -p hub-testkit --bin hub-sample-app
	@scripts/demo.sh

.PHONY: test
test: ## Install what is missing and run every check and test
	@scripts/install.sh test
	@scripts/test.sh

.PHONY: lint
lint: ## Formatting, clippy, licences and duplicates
	@scripts/install.sh lint
	@scripts/lint.sh

.PHONY: schema
schema: ## Write config/schema.json anew
	cargo run --locked -q -p hub-gateway --bin hub-gateway -- schema > config/schema.json.part
	mv config/schema.json.part config/schema.json

.PHONY: docs
docs: ## Build the API documentation
	cargo doc --locked --workspace --no-deps

.PHONY: dist
dist: ## Build the optimised binaries that benches use and packages ship
	@scripts/install.sh bench
	cargo build --locked --profile dist -p hub-gateway -p hub-loadtest -p hub-testkit -p hub-ops --bins --example bare

.PHONY: deb
deb: ## Build the Debian package into target/debian
	@scripts/install.sh deb
	cargo build --locked --profile dist -p hub-gateway -p hub-ops --bins
	cargo deb --locked --no-build --profile dist -p hub-gateway

.PHONY: deb-test
deb-test: deb ## Install, upgrade, remove and purge that package in a throw-away copy of this machine (root)
	@scripts/deb-test.sh

.PHONY: bench-proxy
bench-proxy: dist ## CPU per request beside bare pingora, nginx and HAProxy
	$(BENCH) proxy --bin-dir $(DIST)

.PHONY: bench-reload
bench-reload: dist ## 100 reloads of a large configuration under load
	$(BENCH) reload --bin-dir $(DIST)

.PHONY: bench-isolation
bench-isolation: dist ## A tenant at 10x its quota beside well-behaved ones
	$(BENCH) isolation --bin-dir $(DIST)

.PHONY: bench-memory
bench-memory: dist ## Memory of an idle gateway and of an idle connection
	$(BENCH) memory --bin-dir $(DIST)

.PHONY: bench-ws
bench-ws: dist ## WebSockets held, their memory, CPU per message and hostile peers, beside nginx, HAProxy and bare pingora
	$(BENCH) ws --bin-dir $(DIST)

.PHONY: soak-ws
soak-ws: dist ## 200 WebSockets come and go each second for 30 minutes; fails where something is left behind
	$(BENCH) ws --soak-minutes 30 --bin-dir $(DIST)

.PHONY: bench-switch
bench-switch: dist ## 100 rollouts between two good colours under mixed traffic; fails where a request does
	$(BENCH) switch --bin-dir $(DIST)

.PHONY: bench-upgrade
bench-upgrade: dist ## 50 upgrades of the binary under mixed traffic; fails where a connection or a request does
	$(BENCH) upgrade --bin-dir $(DIST)

.PHONY: bench-greens
bench-greens: dist ## 14 ways for a new colour to be bad, and how soon each is taken back
	$(BENCH) greens --bin-dir $(DIST)

.PHONY: bench-tenants
bench-tenants: ## Look-ups among 100,000 tenants and 10,000 routes
	@scripts/install.sh run
	cargo bench --locked --profile dist -p hub-gateway --bench tenants --bench router

.PHONY: bench-migrate
bench-migrate: ## A column gets another name while both colours write to a real Postgres at 200 tx/s
	@scripts/install.sh test
	cargo build --locked --workspace --bins
	HUB_REQUIRE_POSTGRES=1 HUB_REQUIRE_HUBCTL=1 HUB_MIGRATE_SECONDS=30 cargo test --locked --workspace --test fence live:: -- --nocapture

.PHONY: simulate
simulate: ## Rollouts in a world that crashes, by seeds; prints states and transitions covered
	@scripts/install.sh run
	HUB_SIMULATE_SEEDS=1000000 cargo test --locked -p hub-gateway --lib switch::machine::simulation -- --nocapture

.PHONY: eval-judge
eval-judge: ## Simulated deployments: false rollbacks and power of the judges
	@scripts/install.sh run
	cargo build --locked --profile dist -p hub-loadtest
	$(BENCH) judge

.PHONY: fuzz-smoke
fuzz-smoke: ## Generated requests: our parser beside h11, a million of them
	@scripts/install.sh test
	HUB_REQUIRE_H11=1 HUB_DIFFERENTIAL_REQUESTS=1000000 cargo test --locked -p hub-gateway --test h11_differential -- --nocapture
