#!/usr/bin/env bash
# Wraps a command, shows its status with curl, ends it, and shows that the exit code is that of the command.
set -eu
cd "$(dirname "$0")/.."

kapo=${KAPO_BIN:-target/kapo}
port=${KAPO_PORT:-6666}

command -v curl >/dev/null || { echo "demo: needs curl (Debian: apt-get install curl)" >&2; exit 1; }

echo "\$ kapo --port $port run -- sleep 60 &"
"$kapo" --port "$port" run -- sleep 60 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' EXIT

echo "\$ curl -i localhost:$port/"
# Retry until the port is open.
curl -sS -i --retry 50 --retry-delay 0 --retry-max-time 5 --retry-connrefused "http://127.0.0.1:$port/"
echo
echo "\$ curl localhost:$port/readyz"
curl -sS "http://127.0.0.1:$port/readyz"
echo
echo "\$ kill -TERM $pid; wait $pid; echo \$?"
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
trap - EXIT
echo "$code"
[ "$code" = 143 ] || { echo "demo: 143 was expected, 128 and the number of TERM" >&2; exit 1; }
