#!/usr/bin/env bash
# The demo: two colours of a sample application behind the gateway, a few tenants, lines to paste.
# Everything lives in one folder, target/demo; Ctrl-C stops it all. Folder, ports and the folder of
# the binaries can be set: HUB_DEMO_DIR, HUB_DEMO_PORT, HUB_DEMO_ADMIN_PORT, HUB_DEMO_BLUE_PORT,
# HUB_DEMO_GREEN_PORT, HUB_DEMO_BIN.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${HUB_DEMO_BIN:-target/debug}
dir=${HUB_DEMO_DIR:-target/demo}
port=${HUB_DEMO_PORT:-8080}
admin_port=${HUB_DEMO_ADMIN_PORT:-9900}
blue_port=${HUB_DEMO_BLUE_PORT:-8181}
green_port=${HUB_DEMO_GREEN_PORT:-8182}

# Before anything is touched: a demo that runs already must not lose its files.
for name in HUB_DEMO_PORT:"$port" HUB_DEMO_ADMIN_PORT:"$admin_port" HUB_DEMO_BLUE_PORT:"$blue_port" HUB_DEMO_GREEN_PORT:"$green_port"; do
  if (exec 3<>"/dev/tcp/127.0.0.1/${name#*:}") 2>/dev/null; then
    echo "port ${name#*:} is taken, perhaps by a demo that runs already; stop that, or choose another port: ${name%%:*}=NUMBER make run" >&2
    exit 1
  fi
done
mkdir -p "$dir"
chmod 700 "$dir"

# Secrets of this demo, made once, never printed into a log.
[ -s "$dir/admin-token" ] || openssl rand -hex 24 > "$dir/admin-token"
[ -s "$dir/jwt-secret" ] || openssl rand -hex 32 > "$dir/jwt-secret"
if [ ! -s "$dir/api-key" ]; then
  "$bin/hub-gateway" api-key demo-partner --tenant loc_lakeside > "$dir/api-key.txt"
  sed -n 2p "$dir/api-key.txt" > "$dir/api-key"
  sed -n 4p "$dir/api-key.txt" > "$dir/api-keys"
  rm "$dir/api-key.txt"
fi
chmod 600 "$dir"/*
for file in hub.toml demo-tenants.jsonl; do
  if [ -e "$dir/$file" ]; then
    cp "$dir/$file" "$dir/$file.previous"
    echo "$dir/$file is made anew; the last one is $dir/$file.previous"
  fi
done
sed -e "s/^address = \"127\.0\.0\.1:8080\"/address = \"127.0.0.1:$port\"/" \
  -e "s/^address = \"127\.0\.0\.1:9900\"/address = \"127.0.0.1:$admin_port\"/" \
  -e "s/127\.0\.0\.1:8181/127.0.0.1:$blue_port/" \
  -e "s/127\.0\.0\.1:8182/127.0.0.1:$green_port/" \
  config/examples/demo.toml > "$dir/hub.toml"
cp config/examples/demo-tenants.jsonl "$dir/demo-tenants.jsonl"
# Each demo begins on blue, whatever the last one rolled out.
rm -rf "$dir/store"

apps=() gateway=
# The process that has taken over from the one that was started here, if one has and lives.
successor() {
  local pid
  pid=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$dir/ready.json" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ "$pid" != "$gateway" ] && grep -qs "$dir/ready.json" "/proc/$pid/cmdline" && echo "$pid"
}
stop() {
  trap - EXIT INT TERM
  # The gateway first: what it still serves needs the applications.
  local pid
  if pid=$(successor); then
    kill -TERM "$pid" 2>/dev/null || true
    while successor > /dev/null; do sleep 0.1; done
  fi
  [ -z "$gateway" ] || { kill -TERM "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; }
  for pid in "${apps[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait
  echo
  echo "stopped"
}
trap stop EXIT
trap 'exit 0' INT TERM

# In sessions of their own, so that Ctrl-C reaches this script alone, which stops them in order.
setsid "$bin/hub-sample-app" --colour blue --listen "127.0.0.1:$blue_port" & apps+=($!)
setsid "$bin/hub-sample-app" --colour green --listen "127.0.0.1:$green_port" & apps+=($!)
rm -f "$dir/ready.json"
setsid "$bin/hub-gateway" run "$dir/hub.toml" --ready-file "$dir/ready.json" & gateway=$!

for _ in $(seq 100); do
  [ -s "$dir/ready.json" ] && break
  kill -0 "$gateway" 2>/dev/null || { wait "$gateway"; exit $?; }
  sleep 0.1
done
[ -s "$dir/ready.json" ] || { echo "the gateway did not become ready" >&2; exit 1; }
for pid in "${apps[@]}"; do
  kill -0 "$pid" 2>/dev/null || { echo "a sample application ended; its message stands above" >&2; exit 1; }
done

b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
claims="{\"sub\":\"agent-7\",\"location_id\":\"loc_lakeside\",\"aud\":\"hub-demo\",\"exp\":$(( $(date +%s) + 86400 ))}"
unsigned="$(printf '{"alg":"HS256","typ":"JWT"}' | b64).$(printf '%s' "$claims" | b64)"
signature=$(printf '%s' "$unsigned" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(printf '%s' "$(cat "$dir/jwt-secret")" | od -An -tx1 | tr -d ' \n')" -binary | b64)
printf '%s' "$unsigned.$signature" > "$dir/token.jwt"
chmod 600 "$dir/token.jwt"

cat <<EOF

The gateway serves http://127.0.0.1:$port (sample application) and http://127.0.0.1:$admin_port (admin).
Paste these into another terminal, in this folder:

  # one tenant, named by a header, and by its subdomain
  curl -s http://127.0.0.1:$port/api/contacts -H 'X-Location-Id: loc_lakeside'  # expect: "location_id":"loc_lakeside"
  curl -s http://lakeside.localtest.example:$port/api/contacts --resolve lakeside.localtest.example:$port:127.0.0.1  # expect: "location_id":"loc_lakeside"

  # a signed token and an API key name their tenant themselves
  curl -s http://127.0.0.1:$port/agent/whoami -H "Authorization: Bearer \$(cat $dir/token.jwt)"  # expect: "subject":"agent-7"
  curl -s http://127.0.0.1:$port/partner/whoami -H "X-Api-Key: \$(cat $dir/api-key)"  # expect: "location_id":"loc_lakeside"

  # refused: a token for one location, a header for another; then an unknown location
  curl -si http://127.0.0.1:$port/agent/whoami -H "Authorization: Bearer \$(cat $dir/token.jwt)" -H 'X-Location-Id: loc_hilltop'  # expect: tenant_mismatch
  curl -si http://127.0.0.1:$port/api/contacts -H 'X-Location-Id: loc_nowhere'  # expect: tenant_unknown

  # the first of endless server-sent events
  curl -sN http://127.0.0.1:$port/events -H 'X-Location-Id: loc_lakeside' | head -3  # expect: event: tick

  # the operator's view
  export HUB_ADMIN_TOKEN_FILE=$dir/admin-token HUB_ADMIN=127.0.0.1:$admin_port
  $bin/hubctl status  # expect: serving
  $bin/hubctl clusters  # expect: blue (active)
  $bin/hubctl tenants  # expect: loc_hilltop
  $bin/hubctl explain /api/contacts -H 'X-Location-Id: loc_hilltop'  # expect: colour: green
  curl -s http://127.0.0.1:$admin_port/metrics | grep hub_requests_total  # expect: route="agent"

  # switch to green, without a request lost; --canary 1,5,25,50 in place of --all-at-once goes by stages
  $bin/hubctl rollout start app --all-at-once --bake 2  # expect: committed
  curl -s http://127.0.0.1:$port/api/contacts -H 'X-Location-Id: loc_lakeside'  # expect: "colour":"green"

  # have another process take over: the same binary here, a new one after an installation
  $bin/hubctl upgrade  # expect: committed

Ctrl-C stops everything. Access log: $dir/access.log
EOF
wait "$gateway"
# After an upgrade another process serves, which is no child of this script.
while successor > /dev/null; do sleep 0.5; done
