#!/usr/bin/env bash
# scripts/density.sh N: starts N kapos around a tiny command, and prints what each costs beside a bare command and tini.
# Then come a sweep by `kapo ls`, scrapes (PROMETHEUS=1: by Prometheus also if N is over 1,000), KILL to a tenth, TERM to
# all and a crash storm. Everything that it starts is ended, on ^C and after a failure, too. Exits with 1 if a check
# fails. 10,000 wrappers need 20,200 pids (kernel.pid_max), an open-file limit of about 1,000, and 3 GiB of memory;
# Prometheus needs another 2 GiB.
set -eu
cd "$(dirname "$0")/.."

KAPO_BIN=$(realpath -m "${KAPO_BIN:-target/kapo}")
[ -x "$KAPO_BIN" ] || { echo "density: no $KAPO_BIN: make builds it" >&2; exit 1; }
PAYLOAD=$(scripts/bench/payload.sh)
export KAPO_BIN PAYLOAD MEASURE=none PYTHONDONTWRITEBYTECODE=1
exec python3 scripts/bench/density.py "$@"
