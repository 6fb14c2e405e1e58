#!/usr/bin/env bash
# Formatting, clippy, and the licences and sources of every dependency.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== formatting"
cargo fmt --all --check
echo "== clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings
echo "== licences, duplicates, sources"
if ! command -v cargo-deny >/dev/null; then
  cargo install --locked --quiet cargo-deny@0.20.2
fi
# Advisories need the advisory database, which `cargo deny check advisories` fetches where there is a
# network; licences, bans and sources need nothing but the lock file.
cargo deny --all-features check licenses bans sources
