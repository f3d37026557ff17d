#!/usr/bin/env bash
# `make check`: runs all automatic checks in order.
#
# scripts/check.sh              all steps; prints the seconds of each; the first failure ends the run
# scripts/check.sh clippy test  only these steps, with their output on the terminal
# scripts/check.sh --list       the names of the steps
#
# Missing programs are installed with apt-get (as root), cargo or rustup if that is quick. A step whose programs would
# take long or cannot be installed is listed at the end as skipped.
set -eu
cd "$(dirname "$0")/.."

STEPS=(tools fmt clippy build size scripts examples docs layering test doc fuzz miri deny dist real density)
# Steps that take many minutes. They are not part of a full run; `make real` runs them.
LONG_STEPS=(long)
# Parsers of untrusted input, which take miri a minute; the rest of logic would take many. The skipped tests iterate over
# centuries or over every byte, or read from the kernel.
MIRI_ONLY=(logic::http::activation logic::log logic::deadlines logic::http::query logic::notify::message logic::proc
    logic::random sys::heap)
MIRI_SKIP=(--skip four_centuries --skip every_byte --skip the_own_line)
# Tests with other programs; each is a file under tests/real.
REAL=(activation clients container fleet haproxy hooks oom peers prometheus streams systemd textfile ui)
# The release files: built, compared, installed and run. The first step creates dist/ for the others.
DIST=(dist image arm64)
LONG=(packages reproducible source examples kernels)

# Debian installs haproxy and nginx here, which may not be in the path.
export PATH=$PATH:/usr/sbin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export KAPO_BIN=${KAPO_BIN:-$PWD/target/kapo}
LOGS=target/check
HOST=$(rustc -vV | sed -n 's/^host: //p')

note() { printf '   %s\n' "$*"; }
# Repeated at the end of a full run.
skip() { note "skipped: $*"; mkdir -p "$LOGS"; printf '%s\n' "$*" >>"$LOGS/skipped"; }
has() { command -v "$1" >/dev/null 2>&1; }
has_nightly() { rustc +nightly --version >/dev/null 2>&1; }

# The Debian package of each program that the steps need.
declare -A PACKAGE=(
    [curl]=curl [wget]=wget [shellcheck]=shellcheck [strace]=strace [python3]=python3 [node]=nodejs [c++]=g++
    [busybox]=busybox-static [tini]=tini [setpriv]=util-linux [pgrep]=procps [socat]=socat
    [skopeo]=skopeo [pip3]=python3-pip [lintian]=lintian [rpm]=rpm [debootstrap]=debootstrap [cpio]=cpio [file]=file [strings]=binutils
    [qemu-system-aarch64]=qemu-system-arm [qemu-system-x86_64]=qemu-system-x86
    [systemd-socket-activate]=systemd [systemd-nspawn]=systemd-container [podman]=podman [runc]=runc [catatonit]=catatonit
    [dockerd]=docker.io [docker-compose]=docker-compose [haproxy]=haproxy [prometheus]=prometheus [promtool]=prometheus [nginx]=nginx-light [yamllint]=yamllint
    [prometheus-node-exporter]=prometheus-node-exporter [prometheus-alertmanager]=prometheus-alertmanager [amtool]=prometheus-alertmanager
    [dumb-init]=dumb-init [supervisord]=supervisor [s6-supervise]=s6 [runsv]=runit
    [npm]=npm [chromium]=chromium [firefox-esr]=firefox-esr [lynx]=lynx [w3m]=w3m
)

step_tools() {
    local want=() program
    for program in "${!PACKAGE[@]}"; do
        has "$program" || want+=("${PACKAGE[$program]}")
    done
    if [ "${#want[@]}" -gt 0 ]; then
        note "missing: ${want[*]}"
        if [ "$(id -u)" = 0 ] && has apt-get; then
            note "installing them by apt-get"
            apt-get update -q >/dev/null
            # Do not start the services of installed packages: the checks start their own.
            RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -q --no-install-recommends "${want[@]}" >/dev/null
        else
            skip "not root: install ${want[*]} to run every check"
        fi
    fi
    has cargo-nextest || note "cargo-nextest is not here: cargo test does its work"
    if ! has_nightly; then
        skip "no nightly toolchain: fuzz targets and miri need one (rustup toolchain install nightly)"
    elif ! has cargo-fuzz; then
        note "installing cargo-fuzz by cargo (one or two minutes)"
        cargo +stable install cargo-fuzz --locked -q || cargo install cargo-fuzz --locked -q || true
    fi
    rustc --version
}

step_fmt() { cargo fmt --all -- --check; }

step_clippy() { cargo clippy --locked --all-targets -- -D warnings; }

step_build() { scripts/build.sh; }

step_size() { scripts/size.sh; }

step_scripts() {
    # All tracked or new shell scripts, in any directory.
    local files
    mapfile -t files < <(git ls-files -co --exclude-standard | while read -r each; do
        [ -f "$each" ] && head -c 30 "$each" | grep -aq '^#!.*sh' && echo "$each"
    done)
    if has shellcheck; then
        shellcheck -x "${files[@]}"
        note "shellcheck: ${#files[@]} scripts"
    else
        skip "shellcheck is not here"
        for each in "${files[@]}"; do bash -n "$each"; done
    fi
    local python
    mapfile -t python < <(git ls-files -co --exclude-standard '*.py')
    # Compile in memory, so that no file is written beside the sources.
    [ "${#python[@]}" = 0 ] || python3 -c 'import sys; [compile(open(f).read(), f, "exec") for f in sys.argv[1:]]' "${python[@]}"
}

# Checks each file under examples/ with the checker of its own program.
step_examples() {
    local said
    said=$(scripts/examples.sh) || { printf '%s\n' "$said"; return 1; }
    printf '%s\n' "$said" | grep -v '^skipped' || true
    while read -r _ each; do skip "examples: $each"; done < <(printf '%s\n' "$said" | grep '^skipped' || true)
    note "examples: $(printf '%s\n' "$said" | grep -c '^ok') checks"
}

# Compares the committed documents with those generated from the options table.
step_docs() { run_tests --test docs; }

step_layering() { run_tests --test layering; }

step_test() {
    need_binary
    run_tests
    cargo test --locked --doc
}

run_tests() {
    if has cargo-nextest; then
        cargo nextest run --locked --no-fail-fast "$@"
    elif [ "$#" -gt 0 ]; then
        cargo test --locked "$@"
    else
        cargo test --locked --no-fail-fast --lib --bins --tests
    fi
}

need_binary() {
    [ -x "$KAPO_BIN" ] || { echo "no $KAPO_BIN: run scripts/check.sh build first" >&2; return 1; }
}

step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items; }

step_fuzz() {
    if ! has_nightly || ! has cargo-fuzz; then
        skip "fuzz targets: need nightly and cargo-fuzz"
        return 0
    fi
    local each seconds=${FUZZ_SECONDS:-10} targets
    # Name the target: a cargo-fuzz linked with musl would otherwise build for musl, where the sanitizer does not link.
    cargo +nightly fuzz build --target "$HOST"
    mapfile -t targets < <(cargo +nightly fuzz list)
    [ "${#targets[@]}" -gt 0 ] || { echo "no fuzz targets" >&2; return 1; }
    for each in "${targets[@]}"; do
        mkdir -p "fuzz/corpus/$each" "fuzz/artifacts/$each"
        local dirs=("fuzz/corpus/$each")
        [ ! -d "fuzz/seeds/$each" ] || dirs+=("fuzz/seeds/$each")
        if ! "fuzz/target/$HOST/release/$each" "${dirs[@]}" -max_total_time="$seconds" \
            -artifact_prefix="fuzz/artifacts/$each/" >"fuzz/artifacts/$each.log" 2>&1; then
            tail -n 40 "fuzz/artifacts/$each.log"
            echo "fuzz target $each failed; its input is under fuzz/artifacts/$each" >&2
            return 1
        fi
        note "fuzz $each: $(grep -a '^Done ' "fuzz/artifacts/$each.log")"
    done
}

step_miri() {
    # miri also needs the sources of std.
    if ! cargo +nightly miri --version >/dev/null 2>&1 ||
        [ ! -d "$(rustc +nightly --print sysroot)/lib/rustlib/src" ]; then
        note "installing miri by rustup"
        rustup component add --toolchain nightly miri rust-src >/dev/null 2>&1 ||
            { skip "miri: not to be had for this nightly"; return 0; }
    fi
    # Without isolation, because a few tests read sample files.
    MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation" \
        timeout -k 5 "${MIRI_SECONDS:-300}" cargo +nightly miri test --locked --lib -- \
        "${MIRI_ONLY[@]}" "${MIRI_SKIP[@]}" || {
        local code=$?
        [ "$code" != 124 ] || echo "miri took longer than ${MIRI_SECONDS:-300} s: mark the longest tests cfg_attr(miri, ignore)" >&2
        return "$code"
    }
}

step_deny() {
    # The checks of licences, sources and duplicate crates need only cargo. The rest of deny.toml needs cargo-deny,
    # which takes many minutes to build.
    python3 scripts/licences.py
    if cargo deny --version >/dev/null 2>&1; then
        cargo deny check
    else
        skip "advisories: cargo-deny is not here (cargo install cargo-deny --locked)"
    fi
}

step_real() { run_real 180 "${REAL[@]}"; }

# Many kapos at once. 300 take less than a minute; scripts/density.sh 10000 shows the figures of a full host.
step_density() {
    need_binary
    scripts/density.sh 300
}

step_dist() { run_real 400 "${DIST[@]}"; }

step_long() { MACHINES="x86_64 aarch64" run_real 3600 "${LONG[@]}"; }

# run_real SECONDS SCRIPT...: runs scripts of tests/real, each with that time limit, and shows the last line of each.
run_real() {
    need_binary
    local limit=$1 each failed=() log
    shift
    for each in "$@"; do
        log=$LOGS/real-$each.log
        local began=$SECONDS code=0
        mkdir -p "$LOGS"
        timeout -k 20 "$limit" "tests/real/$each.sh" >"$log" 2>&1 </dev/null || code=$?
        case $code in
            0)
                note "real $each: $(tail -n 1 "$log") ($((SECONDS - began)) s)"
                while read -r _ each; do skip "real: $each"; done < <(grep '^# .*: left out' "$log" || true)
                ;;
            77) skip "real $each: $(tail -n 1 "$log")" ;;
            *)
                grep -v '^ok ' "$log" | tail -n 40
                note "real $each: FAILED with $code ($((SECONDS - began)) s), all of it in $log"
                failed+=("$each")
                ;;
        esac
    done
    [ "${#failed[@]}" = 0 ] || { echo "failed against real programs: ${failed[*]}" >&2; return 1; }
}

# The summary lines of test runners, which are shown again so that a reader sees that tests ran.
closing_lines() {
    grep -aE '^ *Summary \[|^density: |^test result: (ok|FAILED)\. [1-9]|^   (real|fuzz|examples|shellcheck|skipped)|^size: |^build: |^licences: ' "$1" | sort -u || true
}

# The time limit of a step, far above what it needs, because a test may hang.
limit() {
    case $1 in
        tools | build | test | fuzz) echo 600 ;;
        real | dist) echo 900 ;;
        long) echo 9000 ;;
        *) echo 420 ;;
    esac
}

known() {
    local each
    for each in "${STEPS[@]}" "${LONG_STEPS[@]}"; do [ "$each" != "$1" ] || return 0; done
    echo "check: no step is called $1; there are: ${STEPS[*]} ${LONG_STEPS[*]}" >&2
    return 2
}

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${STEPS[@]}" "${LONG_STEPS[@]}"
    exit 0
elif [ "$#" -gt 0 ]; then
    for step in "$@"; do known "$step"; done
    for step in "$@"; do "step_$step"; done
    exit 0
fi

mkdir -p "$LOGS"
rm -f "$LOGS"/*
for step in "${STEPS[@]}"; do
    printf '== %-9s' "$step"
    began=$SECONDS
    code=0
    # Run the step in a separate process, so that `set -e` holds inside it and a hanging step can be killed.
    timeout -k 30 "$(limit "$step")" "$0" "$step" >"$LOGS/$step.log" 2>&1 </dev/null || code=$?
    if [ "$code" != 0 ]; then
        printf ' FAILED after %s s\n' "$((SECONDS - began))"
        tail -n 80 "$LOGS/$step.log"
        [ "$code" != 124 ] || echo "check: $step took longer than $(limit "$step") s and was ended"
        echo "check: $step failed (exit code $code); again by itself: scripts/check.sh $step"
        exit 1
    fi
    printf ' ok %4s s\n' "$((SECONDS - began))"
    closing_lines "$LOGS/$step.log"
done

echo
if [ -s "$LOGS/skipped" ]; then
    echo "not checked on this machine:"
    sort -u "$LOGS/skipped" | sed 's/^/   /'
fi
echo "closing lines of the test runners:"
grep -ahE '^ *Summary \[|^test result: (ok|FAILED)\. [1-9]' "$LOGS/test.log" || true
grep -ahE '^   real ' "$LOGS/real.log" || true
echo "check: all ${#STEPS[@]} steps passed in $SECONDS s"
