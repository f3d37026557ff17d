# shellcheck shell=bash
# Functions for the tests of the pages. Sourced after lib.sh, never run.

# Prepares the browsers and the packages of npm, or skips the script.
need_browser() {
    need node npm chromium
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
}

# run_browser FILE: runs the tests of a file and counts them.
run_browser() {
    node "$ROOT/tests/real/$1" >"$WORK/tests.log" 2>&1 || not_ok "$1 ends without an error"
    cat "$WORK/tests.log"
    PASSED=$((PASSED + $(grep -c '^ok ' "$WORK/tests.log" || true)))
    FAILED=$((FAILED + $(grep -c '^not ok ' "$WORK/tests.log" || true)))
}
