#!/busybox sh
# shellcheck shell=dash disable=SC2086,SC2317  # $K is words; functions are called through until_true
# Runs as the only script of a small machine, from arm64.sh and kernels.sh: under kapo as PID 1, or as PID 1 itself.
# Needs /kapo and /busybox. Prints `ok NAME` or `not ok NAME` for each check, and `all done` at the end.
export PATH=/bin
/busybox mkdir -p /bin /proc /sys /dev /tmp /run
/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
ip link set lo up

# same NAME WANTED GOT, has NAME NEEDLE TEXT
same() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: wanted $2, got $3"; fi; }
has() { case $3 in *"$2"*) echo "ok $1" ;; *) echo "not ok $1: no $2 in: $3" ;; esac; }
# until NAME COMMAND...: within ten seconds.
until_true() {
    local i=0
    while [ $i -lt 100 ]; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
        i=$((i + 1))
    done
    return 1
}
get() { printf 'GET %s HTTP/1.0\r\n\r\n' "$2" | nc 127.0.0.1 "$1"; }
get_has() { get "$1" "$2" | grep -q "$3"; }
code() { local got=0; "$@" >/tmp/out 2>&1 || got=$?; echo $got; }

if [ "$$" != 1 ]; then
    # kapo is PID 1 and this script its command.
    same "kapo is PID 1" kapo "$(cat /proc/1/comm)"
    until_true get_has 6666 / running
    has "PID 1: the document" '"Status":"running"' "$(get 6666 /)"
    has "PID 1: its command" '"Command":"/inside"' "$(get 6666 /)"
    has "PID 1: /readyz" "ok" "$(get 6666 /readyz)"
    has "PID 1: /metrics" "kapo_build_info" "$(get 6666 /metrics)"
    i=0
    while [ $i -lt 40 ]; do (sleep 0 & sleep 0 &); i=$((i + 1)); done
    no_zombies() { ! grep -q '^State:.Z' /proc/[0-9]*/status; }
    until_true no_zombies
    same "PID 1: eighty orphans are reaped" 0 "$(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)"
    trap 'touch /tmp/usr1' USR1
    kill -USR1 1
    until_true [ -e /tmp/usr1 ]
    same "PID 1: a signal to it comes to its command" yes "$([ -e /tmp/usr1 ] && echo yes)"
    trap : USR1
fi

K="/kapo --interface 127.0.0.1 --port 7000"
has "version" "kapo " "$(/kapo --version)"
same "the command's exit code" 7 "$(code $K run -- sh -c 'exit 7')"
same "killed by a signal" 137 "$(code $K run -- sh -c 'kill -9 $$')"
same "not found" 127 "$(code $K run -- /none)"
echo text >/tmp/text
same "not executable" 126 "$(code $K run -- /tmp/text)"
same "wrong usage" 2 "$(code $K run --nonsense)"
same "TTL" 124 "$(code $K run --ttl 0.3 -- sleep 100)"
same "TTL out of a range, and KILL for a command that ignores TERM" 124 "$(code $K run --ttl 0.2-0.4 --kill-after 0.3 -- sh -c 'trap "" TERM; while :; do sleep 1; done')"
same "--success-exit" 0 "$(code $K run --success-exit 7 -- sh -c 'exit 7')"

# --- HTTP, check, wait ---
$K run --wait 30 -- sh -c 'while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3' 2>/tmp/log &
pid=$!
until_true get_has 7000 /readyz ok
same "the port is taken" 125 "$(code $K run -- true)"
same "kapo check" 0 "$(code /kapo check http://127.0.0.1:7000)"
for path in / /livez /readyz /healthz /metrics /debug/vars; do
    has "GET $path" " 200 OK" "$(get 7000 $path | head -n 1)"
done
has "a method that kapo has not" " 405 " "$(printf 'DELETE / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 7000 | head -n 1)"
touch /tmp/end
same "kapo wait has the code of the job" 3 "$(code /kapo wait http://127.0.0.1:7000)"
has "the document after the end" '"ExitCode":3' "$(get 7000 /)"
has "/readyz after the end" " 503 " "$(get 7000 /readyz | head -n 1)"
kill $pid
got=0
wait $pid || got=$?
same "the exit code after --wait was cut short" 3 $got

# --- every signal that can be passed on ---
wrong=
for n in 1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 24 25 26 27 29 30 31 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 \
    52 53 54 55 56 57 58 59 60 61 62 63 64; do
    # kapo is in the foreground: a shell starts its background jobs with INT and QUIT ignored, and so the command.
    (until_true get_has 7000 /readyz ok; kill -$n "$(cat /tmp/pid)") &
    got=0
    sh -c "echo \$\$ >/tmp/pid; exec $K -q run -- sleep 100" || got=$?
    wait $!
    [ $got = $((128 + n)) ] || wrong="$wrong $n:$got"
done 2>/dev/null
same "signals that end the command" "" "$wrong"
for n in CONT URG WINCH USR1; do
    rm -f /tmp/got
    $K -q run -- sh -c "trap 'touch /tmp/got; exit 9' $n; touch /tmp/ready; while :; do sleep 0.1; done" &
    pid=$!
    until_true [ -e /tmp/ready ]
    kill -$n $pid
    got=0
    wait $pid || got=$?
    same "SIG$n comes to the command's handler" 9 $got
    rm -f /tmp/ready
done

# --- capture, supervise, watch ---
$K --stdout --stdlog --tail 4096 run --wait 30 -- sh -c 'echo first; echo second' >/tmp/captured 2>/tmp/log &
pid=$!
until_true grep -q second /tmp/captured
has "captured lines have a time" 'time=' "$(grep second /tmp/captured)"
until_true get_has 7000 /logs second
has "/logs has the last lines" second "$(get 7000 /logs)"
kill $pid
wait $pid 2>/dev/null

same "supervise gives up" 5 "$(code $K -q supervise --wait 0.05 --max-restarts 2 -- sh -c 'echo x >>/tmp/starts; exit 5')"
same "after three starts" 3 "$(wc -l </tmp/starts)"

cp /kapo /tmp/watched
$K -q watch --wait 0.2 watched &
pid=$!
until_true get_has 7000 /livez ok
has "watch: nothing yet" " 503 " "$(get 7000 /readyz | head -n 1)"
/tmp/watched --interface 127.0.0.1 --port 0 -q run -- sleep 100 &
job=$!
until_true get_has 7000 /readyz ok
has "watch: a process came" " 200 " "$(get 7000 /readyz | head -n 1)"
kill $job
wait $job 2>/dev/null
until_true get_has 7000 /readyz 503
has "watch: it went" " 503 " "$(get 7000 /readyz | head -n 1)"
kill $pid
got=0
wait $pid || got=$?
same "watch ends with 0 after TERM" 0 $got
echo "all done"
[ "$$" != 1 ] || poweroff -f
exit 42
