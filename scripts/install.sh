#!/usr/bin/env bash
# Installs the Debian packages that a target needs, and nothing that is there already.
# Usage: scripts/install.sh run|test|lint|bench|deb
set -euo pipefail

# pingora builds zlib-ng with cmake; ring and mimalloc need a C compiler.
build=(build-essential cmake pkg-config)
case "${1:-}" in
  run) packages=("${build[@]}" curl openssl) ;;
  lint) packages=("${build[@]}") ;;
  test) packages=("${build[@]}" curl openssl varnish python3-venv nodejs npm postgresql-15 systemd) ;;
  deb) packages=("${build[@]}" dpkg-dev) ;;
  bench) packages=("${build[@]}" nginx-light haproxy util-linux) ;;
  *) echo "usage: $0 run|test|lint|bench|deb" >&2; exit 64 ;;
esac

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: install rustup (package rustup on newer Debian, or https://rustup.rs), then try again." >&2
  exit 1
fi

if [ "$1" = deb ] && ! command -v cargo-deb >/dev/null; then
  cargo install --locked --quiet cargo-deb@3.8.0
fi

missing=()
for package in "${packages[@]}"; do
  case "$package" in
    # Any build of these will do.
    nodejs) command -v node >/dev/null || missing+=("$package") ;;
    npm) command -v npm >/dev/null || missing+=("$package") ;;
    nginx-light) command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=("$package") ;;
    *) dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

line="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -eq 0 ]; then
  as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo env)
else
  echo "These packages are missing, and neither root nor sudo is at hand. Run this, then try again:" >&2
  echo "  sudo $line" >&2
  exit 1
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
# Packages must not start their daemons: the ports are ours to choose.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" DEBIAN_FRONTEND=noninteractive $line >/dev/null
