#!/usr/bin/env bash
# Installs, upgrades, removes and purges the Debian package in a throw-away copy of this machine's file system, and fails
# where something is missing or left. Needs root; nothing outside is changed.
# Usage: scripts/deb-test.sh [PACKAGE.deb]
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${HUB_DEB_TEST:-}" != inside ]; then
  deb=${1:-$(ls -t "${CARGO_TARGET_DIR:-target}"/debian/hub-gateway_*.deb | head -1)}
  HUB_DEB_TEST=inside exec unshare --mount --propagation private "$0" "$deb"
fi

# Mounts end with this process, which has a view of its own.
base=/mnt
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
mount -t tmpfs tmpfs "$base/root/run"
mount --bind /dev "$base/root/dev"
mount -t proc proc "$base/root/proc"
cp "$1" "$base/root/hub-gateway.deb"

inside() { chroot "$base/root" "$@"; }
sh_inside() { inside sh -euc "$1"; }
fail() { echo "FAILED: $1" >&2; exit 1; }
units="hub-gateway.service hub-gateway.socket hub-gateway-https.socket hub-gateway-check.timer"
token=/etc/hub-gateway/credentials/admin-token
made='find /etc /usr /var -path /var/lib/dpkg -prune -o -path /var/cache -prune -o -name hubctl -print -o -name "*hub-gateway*" -print'

echo "== install"
sh_inside "dpkg --purge hub-gateway >/dev/null 2>&1 || true; rm -rf /etc/hub-gateway"
inside dpkg -i /hub-gateway.deb
inside dpkg -V hub-gateway
[ "$(sh_inside "stat -c '%a %U' $token")" = "600 root" ] || fail "the admin token is not root's alone"
# shellcheck disable=SC2086
enabled=$(inside systemctl is-enabled $units || true)
[ "$(sort -u <<< "$enabled")" = disabled ] || fail "a unit is enabled that nobody enabled: $enabled"
sh_inside "cd /usr/lib/systemd/system && systemd-analyze verify --man=no --recursive-errors=yes $units"
sh_inside "mkdir -p /run/credentials/hub-gateway.service && cp $token /run/credentials/hub-gateway.service/"
inside hub-gateway check /etc/hub-gateway/gateway.toml
inside hubctl --version

echo "== upgrade"
before=$(inside sha256sum "$token")
inside systemctl enable hub-gateway.service hub-gateway.socket 2>/dev/null
sh_inside "echo '# mine' >> /etc/hub-gateway/gateway.toml"
inside dpkg -i --force-confold /hub-gateway.deb
[ "$before" = "$(inside sha256sum "$token")" ] || fail "the admin token was made anew"
inside systemctl is-enabled --quiet hub-gateway.service hub-gateway.socket || fail "an upgrade disabled a unit"
inside grep -qx '# mine' /etc/hub-gateway/gateway.toml || fail "an upgrade overwrote the configuration"

echo "== remove"
inside dpkg -r hub-gateway
enabled=$(sh_inside 'find /etc/systemd/system -name "hub-gateway*"')
[ -z "$enabled" ] || fail "a unit is still enabled: $enabled"
inside test -e /etc/hub-gateway/gateway.toml || fail "the configuration is gone before a purge"

echo "== purge"
inside dpkg -P hub-gateway
left=$(sh_inside "$made")
[ -z "$left" ] || fail "left behind: $left"
echo "the package installs, upgrades and goes without a trace but its user"
