# shellcheck shell=bash
# Functions for the scripts beside it: counting, waiting, starting kapo, cleaning up. Sourced, never run.
#
# A script ends with `finish`, whose last line is `N passed, N failed`; exit code 77 means that the machine lacks what
# the script needs. Processes that were started here are ended by pid, and the directory $WORK is removed.
set -eu

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KAPO=$(realpath -m "${KAPO_BIN:-$ROOT/target/kapo}")
WORK=$(mktemp -d "${TMPDIR:-/tmp}/kapo-real.XXXXXX")
STARTED=()
PASSED=0
FAILED=0

ok() {
    PASSED=$((PASSED + 1))
    printf 'ok %s\n' "$*"
}

not_ok() {
    FAILED=$((FAILED + 1))
    printf 'not ok %s\n' "$*"
}

# check NAME COMMAND...: passes if the command succeeds; otherwise prints its output.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        ok "$name"
    else
        not_ok "$name"
        printf '%s\n' "$said" | sed 's/^/    /' | tail -n 30
    fi
}

# same NAME WANTED GOT
same() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1"
        printf '    wanted: %s\n    got:    %s\n' "$2" "$3"
    fi
}

# matches NAME PATTERN TEXT: an extended regular expression that must occur in the text.
matches() {
    if printf '%s' "$3" | grep -aEq -- "$2"; then
        ok "$1"
    else
        not_ok "$1"
        printf '    wanted: %s\n    got:    %s\n' "$2" "$3"
    fi
}

skip_all() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

# need PROGRAM...: skips the whole script if one of them is missing.
need() {
    local each
    for each in "$@"; do
        command -v "$each" >/dev/null 2>&1 || skip_all "$each is not installed"
    done
    [ -x "$KAPO" ] || { echo "no $KAPO: make builds it" >&2; exit 1; }
}

# wait_until SECONDS COMMAND...: repeats the command until it succeeds; fails after the limit.
wait_until() {
    local limit=$(($1 * 20))
    shift
    while [ "$limit" -gt 0 ]; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.05
        limit=$((limit - 1))
    done
    return 1
}

# start NAME COMMAND...: starts a command in the background, with its output in $WORK/NAME.log and its pid in $PID.
start() {
    local name=$1
    shift
    "$@" >"$WORK/$name.log" 2>&1 </dev/null &
    PID=$!
    STARTED+=("$PID")
}

# start_kapo NAME ARGUMENT...: starts kapo on a port that the kernel chooses; sets $PID and $URL
# (http://127.0.0.1:PORT).
start_kapo() {
    local name=$1
    shift
    start "$name" "$KAPO" --interface 127.0.0.1 --port 0 "$@"
    if ! wait_until 10 grep -aEq 'msg="?listening' "$WORK/$name.log"; then
        echo "kapo $* did not say that it listens:" >&2
        cat "$WORK/$name.log" >&2
        exit 1
    fi
    # shellcheck disable=SC2034  # for the script that sources this file
    URL=http://$(grep -aE 'msg="?listening' "$WORK/$name.log" | sed -n '1s/.*address="\{0,1\}\([^ "]*\).*/\1/p')
}

# memory_cgroup BYTES: creates a cgroup with this memory limit at $CGROUP, and $WORK/inside, which is kapo in that
# cgroup. Fails if that is impossible. `clean_more` must call remove_memory_cgroup.
memory_cgroup() {
    local root limit swap_limit swap=0
    # Use version 2 if it has the memory controller, otherwise version 1.
    CGROUP=
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if grep -qsw memory "$root/cgroup.subtree_control"; then
            CGROUP=$root/kapo-real-$$ limit=memory.max swap_limit=memory.swap.max
        fi
    done
    if [ -z "$CGROUP" ] && [ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
        # Version 1 counts memory and swap together.
        CGROUP=/sys/fs/cgroup/memory/kapo-real-$$ limit=memory.limit_in_bytes swap_limit=memory.memsw.limit_in_bytes swap=$1
    fi
    if [ -z "$CGROUP" ] || ! mkdir "$CGROUP" 2>/dev/null; then
        CGROUP=
        return 1
    fi
    echo "$1" >"$CGROUP/$limit"
    # Without swap accounting this file does not exist, and the memory limit alone counts.
    echo "$swap" >"$CGROUP/$swap_limit" 2>/dev/null || true
    cat >"$WORK/inside" <<I
#!/bin/sh
echo \$\$ >"$CGROUP/cgroup.procs" && exec "$KAPO" "\$@"
I
    chmod 755 "$WORK/inside"
    echo "# in $CGROUP"
}

remove_memory_cgroup() {
    local each
    [ -n "${CGROUP-}" ] || return 0
    while read -r each; do kill -KILL "$each" 2>/dev/null || true; done <"$CGROUP/cgroup.procs"
    wait_until 5 rmdir "$CGROUP"
}

is_gone() { ! kill -0 "$1" 2>/dev/null; }

# stop PID [SIGNAL]: signals the process and waits for its end; sets $CODE to its exit code.
stop() {
    kill "-${2:-TERM}" "$1" 2>/dev/null || true
    # shellcheck disable=SC2034  # for the script that sources this file
    CODE=0
    # shellcheck disable=SC2034  # for the script that sources this file
    wait "$1" 2>/dev/null || CODE=$?
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# field NAME: prints this member of the first object of the status document on standard input, in JSON but with bare
# strings. Prints "none" if there is no document, so that the check fails and not the script.
field() {
    python3 -c '
import json, sys
try:
    value = json.load(sys.stdin)[0][sys.argv[1]]
except (ValueError, LookupError):
    value = "none"
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

# status URL FIELD
status() { curl -sS --max-time 5 "$1/" | field "$2"; }

# code URL: prints only the HTTP status; 000 if there is no answer.
code() { curl -s --max-time 5 -o /dev/null -w '%{http_code}' "$1" || true; }

code_is() { [ "$(code "$1")" = "$2" ]; }

# Additional cleanup at the end; a script may redefine it.
clean_more() { :; }

clean() {
    local each
    clean_more || true
    for each in ${STARTED[@]+"${STARTED[@]}"}; do
        kill -TERM "$each" 2>/dev/null || true
    done
    for each in ${STARTED[@]+"${STARTED[@]}"}; do
        wait_until 5 is_gone "$each" || kill -KILL "$each" 2>/dev/null || true
    done
    rm -rf "$WORK"
}
trap clean EXIT
trap 'exit 130' INT TERM

finish() {
    printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
    [ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
}
