#!/usr/bin/env bash
# Tests of the page /ui in real Chromium and Firefox, without a display: each state is reached without a reload, light,
# dark and narrow, hostile text is not executed, axe-core finds nothing. ui.mjs has the tests.
#
# UPDATE_IMAGES=1 also makes docs/images/ui.png.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need node npm chromium python3

MODULES=$ROOT/target/npm
if ! [ -e "$MODULES/node_modules/puppeteer-core" ] || ! [ -e "$MODULES/node_modules/axe-core" ]; then
    mkdir -p "$MODULES"
    npm install --silent --no-audit --no-fund --prefix "$MODULES" puppeteer-core@24.43.1 axe-core@4.14.1 \
        >"$WORK/npm.log" 2>&1 || skip_all "npm cannot install puppeteer-core and axe-core"
fi
command -v firefox-esr >/dev/null || echo "# firefox-esr: left out"

# Browsers keep their profile and their caches here.
export HOME=$WORK TMPDIR=$WORK
export KAPO WORK MODULES ROOT
# A limit for the plots, if a cgroup can be created.
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { remove_memory_cgroup; }
if [ "$(id -u)" = 0 ] && memory_cgroup 268435456; then
    export LIMITED=$WORK/inside
fi
node "$ROOT/tests/real/ui.mjs" >"$WORK/tests.log" 2>&1 || not_ok "ui.mjs ends without an error"
cat "$WORK/tests.log"
PASSED=$((PASSED + $(grep -c '^ok ' "$WORK/tests.log" || true)))
FAILED=$((FAILED + $(grep -c '^not ok ' "$WORK/tests.log" || true)))
finish
