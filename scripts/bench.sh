#!/usr/bin/env bash
# `make bench`: compares kapo with other programs, interleaved in one run, and prints medians. A single part:
# scripts/bench.sh spawn http
#
# Installs missing programs with apt-get (as root), builds the measuring tool, and runs scripts/bench. This takes four
# to six minutes. Ratios are reliable; absolute times depend on the machine.
set -eu
cd "$(dirname "$0")/.."

declare -A PACKAGE=(
    [tini]=tini [dumb-init]=dumb-init [catatonit]=catatonit [nginx]=nginx-light [wrk]=wrk [ts]=moreutils [svlogd]=runit [s6-log]=s6
    [pgrep]=procps [taskset]=util-linux [python3]=python3
)
PATH=$PATH:/usr/sbin
want=()
for program in "${!PACKAGE[@]}"; do
    command -v "$program" >/dev/null || want+=("${PACKAGE[$program]}")
done
if [ "${#want[@]}" -gt 0 ]; then
    echo "bench: missing: ${want[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q >/dev/null
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${want[@]}" >/dev/null
    else
        echo "bench: not root: install them, or their lines are left out"
    fi
fi

KAPO_BIN=$(realpath -m "${KAPO_BIN:-target/kapo}")
[ -x "$KAPO_BIN" ] || { echo "bench: no $KAPO_BIN: make builds it" >&2; exit 1; }
mkdir -p target/bench
MEASURE=$PWD/target/bench/measure
rustc --edition 2024 -O -C strip=symbols -o "$MEASURE" benches/measure.rs
PAYLOAD=$(scripts/bench/payload.sh)

export KAPO_BIN MEASURE PAYLOAD PATH PYTHONDONTWRITEBYTECODE=1
exec python3 scripts/bench "$@"
