#!/usr/bin/env bash
# Tests images that contain only the static binary and a static payload: chroot, podman, and Docker if an engine
# starts.
#
# Checked: kapo is PID 1, HEALTHCHECK with `kapo check` becomes healthy and unhealthy, a stop leaves the payload its
# time, and the exit code is returned. Engines keep all files under $WORK and are ended by pid.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/engines.sh
. "$ROOT/tests/real/engines.sh"
need unshare chroot busybox
[ "$(id -u)" = 0 ] || skip_all "needs root"

BUSYBOX=$(readlink -f "$(command -v busybox)")
if command -v ldd >/dev/null && ldd "$BUSYBOX" >/dev/null 2>&1; then
    skip_all "busybox is not static (Debian: busybox-static)"
fi

# --- a root with only the binary: no /proc, no /dev, no libc ---
mkdir "$WORK/empty"
cp "$KAPO" "$WORK/empty/kapo"
got=0
said=$(timeout 10 unshare --fork --pid --mount-proc chroot "$WORK/empty" /kapo --interface 127.0.0.1 --port 0 run -- /kapo --version 2>&1) || got=$?
same "in an empty root kapo runs itself as its command" 0 "$got"
matches "whose output is seen" '^kapo [0-9]' "$said"
got=0
timeout 10 unshare --fork --pid chroot "$WORK/empty" /kapo --interface 127.0.0.1 --port 0 run -- /none >"$WORK/none" 2>&1 || got=$?
same "a missing command in an empty root" 127 "$got"
got=0
said=$(timeout 10 unshare --fork --pid chroot "$WORK/empty" /kapo --interface @kapo-real-$$ run -- /kapo status unix:@kapo-real-$$ 2>"$WORK/said.log") || got=$?
same "kapo status in an empty root, without /proc" 0 "$got"
matches "which shows the state" '^kapo: running for .*state     running since .*ready     yes' "$(printf '%s' "$said" | tr '\n' ' ')"

# --- the image ---
mkdir "$WORK/image"
cp "$KAPO" "$WORK/image/kapo"
cp "$BUSYBOX" "$WORK/image/busybox"
# Exits with 42, one second after a stop signal; /break ends it by itself, /say makes it write a line.
cat >"$WORK/image/payload" <<'P'
#!/busybox sh
trap '/busybox sleep 1; exit 42' TERM
echo started
while [ ! -e /break ]; do
    if [ -e /say ]; then /busybox rm /say; echo said; fi
    /busybox sleep 0.1
done
exit 9
P
chmod 755 "$WORK/image/payload"
cat >"$WORK/image/Dockerfile" <<'P'
FROM scratch
COPY kapo busybox payload /
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1s --timeout=5s --retries=1 CMD ["/kapo", "check"]
ENTRYPOINT ["/kapo"]
CMD ["--stdout", "--tail", "4K", "run", "--wait", "60", "--", "/payload"]
P

# The same image as a chroot, for machines without an engine.
got=0
# shellcheck disable=SC2016  # for the shell in the root
said=$(timeout 20 unshare --fork --pid chroot "$WORK/image" /kapo --interface @kapo-real-$$ --stdout --tail 4K run -- /busybox sh -c '
echo started
until [ "$(/kapo logs "$1")" = started ]; do /busybox sleep 0.05; done
/kapo status "$1"' sh unix:@kapo-real-$$ 2>"$WORK/said.log") || got=$?
same "kapo logs and kapo status in the root of the image" 0 "$got"
matches "which show the output" '^started.*last output: +[|] started' "$(printf '%s' "$said" | tr '\n' ' ')"

# The checks for both engines; `engine` is a function that calls the current one.
# looks_right NAME: a container with that name was started from the image with its own CMD.
pid1() { engine exec "$1" /busybox cat /proc/1/comm | grep -qx kapo; }
serves() { engine exec "$1" /kapo check >/dev/null; }
serves_not() { ! engine exec "$1" /kapo check >/dev/null; }
# said_by ARGUMENT...: runs a command in a container and prints its output on one line.
said_by() { engine exec "$@" 2>&1 | tr '\r\n' '  '; }
follows() { grep -q "$1" "$WORK/follow.log"; }
state() { engine inspect --format "{{.State.$2}}" "$1"; }
state_is() { [ "$(state "$1" "$2")" = "$3" ]; }

looks_right() {
    local c=$1 label=$2 began
    check "$label: the payload runs and kapo check says so" wait_until 20 serves "$c"
    check "$label: kapo is PID 1" pid1 "$c"
    matches "$label: exec C /kapo status" '^payload: running for .*ready     yes.*last output: +[|] started' "$(said_by "$c" /kapo status)"
    same "$label: exec C /kapo logs" "started " "$(said_by "$c" /kapo logs)"
    start follow engine exec "$c" /kapo logs -f
    check "$label: exec C /kapo logs -f begins with what is kept" wait_until 10 follows started
    engine exec "$c" /busybox touch /say
    check "$label: and follows" wait_until 10 follows said
    began=$(date +%s%N)
    engine stop --time 30 "$c" >/dev/null
    began=$((($(date +%s%N) - began) / 1000000))
    check "$label: a stop takes the payload's own time ($began ms of 30000)" [ "$began" -ge 900 -a "$began" -lt 15000 ]
    same "$label: the payload's exit code comes out" 42 "$(state "$c" ExitCode)"
}

# exits NAME WANTED CODE ENGINE-ARGUMENT...: checks the code of a container that ends by itself.
exits() {
    local name=$1 wanted=$2 got=0
    shift 2
    engine run --rm "${COMMON[@]}" "$@" >"$WORK/exits.log" 2>&1 || got=$?
    same "$name" "$wanted" "$got"
    if [ "$got" != "$wanted" ]; then tail -n 5 "$WORK/exits.log" | sed 's/^/    /'; fi
}

# shellcheck disable=SC2016  # for the shell in the container
ORPHANS='
i=0
while [ $i -lt 100 ]; do (/busybox sleep 0 &); i=$((i + 1)); done
i=0
while [ $i -lt 100 ]; do
    [ "$(/busybox grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | /busybox wc -l)" != 0 ] || exit 3
    /busybox sleep 0.1
    i=$((i + 1))
done
exit 1'

# shellcheck disable=SC2016  # for the shell in the container
codes() {
    exits "$1: exit code of the command" 7 kapo-test run -- /busybox sh -c 'exit 7'
    exits "$1: killed by a signal" 137 kapo-test run -- /busybox sh -c '/busybox kill -9 $$'
    exits "$1: TTL out of a range" 124 kapo-test --port 7777 run --ttl 0.2-0.5 -- /busybox sleep 30
    exits "$1: not found" 127 kapo-test run -- /none
    exits "$1: settings by environment" 124 -e KAPO_TTL=0.3 -e KAPO_PORT=7778 kapo-test run -- /busybox sleep 30
    exits "$1: a hundred orphans are reaped, and the command's code is kept" 3 kapo-test run -- /busybox sh -c "$ORPHANS"
}

# --- podman ---
podman_part() {
    local c
    podman_starts || return 0
    engine() { "${PODMAN[@]}" "$@"; }
    if ! engine build --format docker -t kapo-test "$WORK/image" >"$WORK/podman.log" 2>&1; then
        not_ok "podman builds the image"
        tail -n 20 "$WORK/podman.log"
        return 0
    fi
    ok "podman builds an image from scratch"
    COMMON=("${PODMAN_RUN[@]}")
    c=kapo-graceful
    if ! engine run -d --name "$c" "${COMMON[@]}" kapo-test >"$WORK/podman.log" 2>&1; then
        not_ok "podman starts a container"
        tail -n 20 "$WORK/podman.log"
        return 0
    fi
    looks_right "$c" podman

    c=kapo-health
    engine run -d --name "$c" "${COMMON[@]}" kapo-test >/dev/null
    check "podman: kapo answers" wait_until 20 serves "$c"
    check "podman: HEALTHCHECK says healthy" engine healthcheck run "$c"
    engine exec "$c" /busybox touch /break
    check "podman: the payload ends, the port stays for --wait" wait_until 10 serves_not "$c"
    got=0
    said=$(engine exec "$c" /kapo status 2>&1) || got=$?
    same "podman: then exec C /kapo status exits with 1" 1 "$got"
    matches "podman: and names the exit code" '^payload: .*exit 9' "$said"
    check "podman: HEALTHCHECK says unhealthy" sh -c "! $(printf '%q ' "${PODMAN[@]}") healthcheck run $c"
    engine stop --time 10 "$c" >/dev/null
    same "podman: the exit code of the command that had ended" 9 "$(state "$c" ExitCode)"
    codes podman
}

# --- Docker: a private engine without a network of its own ---
docker_part() {
    local c
    docker_starts || return 0
    engine() { docker "$@"; }
    if ! engine build -q -t kapo-test "$WORK/image" >"$WORK/docker.log" 2>&1; then
        not_ok "Docker builds the image"
        tail -n 20 "$WORK/docker.log"
        return 0
    fi
    ok "Docker builds an image from scratch"
    COMMON=(--network none)
    c=kapo-graceful
    engine run -d --name "$c" "${COMMON[@]}" kapo-test >/dev/null
    looks_right "$c" Docker

    c=kapo-health
    engine run -d --name "$c" "${COMMON[@]}" kapo-test >/dev/null
    check "Docker: HEALTHCHECK turns healthy" wait_until 20 state_is "$c" Health.Status healthy
    engine exec "$c" /busybox touch /break
    check "Docker: HEALTHCHECK turns unhealthy when the payload has ended" wait_until 20 state_is "$c" Health.Status unhealthy
    engine stop --time 10 "$c" >/dev/null
    same "Docker: the exit code of the command that had ended" 9 "$(state "$c" ExitCode)"

    c=kapo-restart
    engine run -d --name "$c" "${COMMON[@]}" --restart on-failure:2 kapo-test run -- /busybox sh -c 'exit 5' >/dev/null
    restarted() { [ "$(engine inspect --format '{{.RestartCount}}' "$c")" = 2 ]; }
    check "Docker: a restart policy sees the failure" wait_until 20 restarted
    codes Docker
}

# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { clean_engines; }

podman_part
docker_part
finish
