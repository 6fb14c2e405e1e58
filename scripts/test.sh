#!/usr/bin/env bash
# Every check and test, in an order in which each step reuses what the one before has built. The test
# runner's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."
export HUB_REQUIRE_H11=1 HUB_REQUIRE_VARNISHTEST=1 HUB_REQUIRE_HUBCTL=1 HUB_REQUIRE_POSTGRES=1 HUB_REQUIRE_SYSTEMD=1
export HUB_REQUIRE_WEBSOCKET_CLIENTS=1

scripts/lint.sh
echo "== build"
cargo build --locked --workspace --all-targets
echo "== documentation tests"
cargo test --locked --workspace --doc --quiet
echo "== tests"
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --no-fail-fast
else
  cargo test --locked --workspace --lib --bins --tests --no-fail-fast
fi
