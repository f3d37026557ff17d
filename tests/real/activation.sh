#!/usr/bin/env bash
# Tests sockets from systemd-socket-activate: listening and connected, TCP and Unix, several, named, inetd style.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need systemd-socket-activate curl python3

ACTIVATE=$(command -v systemd-socket-activate)
AT=127.0.0.1

# The instances that --accept has forked are children of systemd-socket-activate and outlive it, so they are ended by
# pid.
end_instances() {
    local each
    for each in $(pgrep -P "$1" || true); do kill -TERM "$each" 2>/dev/null || true; done
    stop "$1"
}

listens_on() { python3 -c 'import sys
port = int(sys.argv[1])
lines = [l.split() for l in open("/proc/net/tcp").readlines()[1:]]
sys.exit(not any(f[3] == "0A" and int(f[1].split(":")[1], 16) == port for f in lines))' "$1"; }

# A listening socket, Accept=no, and a second port beside it.
port=$(free_port)
start one "$ACTIVATE" -l "$AT:$port" "$KAPO" --socket-activation --sidebind --interface "$AT" --port "$(free_port)" \
    run -- sleep 60
one=$PID
wait_until 5 listens_on "$port"
first=$(curl -sS --max-time 10 "http://$AT:$port/" || true)
same "the first curl starts the job and gets its document" sleep "$(printf %s "$first" | field Command)"
side=$(printf %s "$first" | field SidebindPort)
matches "SidebindPort is a port" '^[1-9][0-9]*$' "$side"
same "the second curl is answered on SidebindPort" "$(printf %s "$first" | field Pid)" "$(status "http://$AT:$side" Pid)"
same "both sockets show the same run" "$(printf %s "$first" | field StartTime)" "$(status "http://$AT:$port" StartTime)"
stop "$one"
same "TERM ends it with the command's code" 143 "$CODE"

# Accept=yes: one instance for each connection.
port=$(free_port)
start accept "$ACTIVATE" --accept -l "$AT:$port" "$KAPO" --socket-activation --sidebind --interface "$AT" \
    --port "$(free_port)" run -- sleep 60
accept=$PID
wait_until 5 listens_on "$port"
curl -sS --max-time 10 "http://$AT:$port/" >"$WORK/a" &
a=$!
curl -sS --max-time 10 "http://$AT:$port/" >"$WORK/b" &
b=$!
wait "$a" || true
wait "$b" || true
side_a=$(field SidebindPort <"$WORK/a")
side_b=$(field SidebindPort <"$WORK/b")
check "two connections give two SidebindPorts ($side_a, $side_b)" [ "$side_a" != "$side_b" ]
same "the first instance answers on its own" "$(field Pid <"$WORK/a")" "$(status "http://$AT:$side_a" Pid)"
same "the second instance answers on its own" "$(field Pid <"$WORK/b")" "$(status "http://$AT:$side_b" Pid)"
end_instances "$accept"

# The connection is answered even if the job ends at once.
port=$(free_port)
start quick "$ACTIVATE" --accept -l "$AT:$port" "$KAPO" --socket-activation run -- true
wait_until 5 listens_on "$port"
answered=0
for _ in 1 2 3 4 5 6 7 8 9 10; do
    if [ "$(code "http://$AT:$port/")" = 200 ]; then answered=$((answered + 1)); fi
done
same "each of ten connections is answered though its job ends at once" 10 "$answered"
end_instances "$PID"

# A Unix socket.
start unix "$ACTIVATE" -l "$WORK/sock" "$KAPO" --socket-activation run -- sleep 60
wait_until 5 test -S "$WORK/sock"
same "a Unix socket" sleep "$(curl -sS --max-time 10 --unix-socket "$WORK/sock" http://localhost/ | field Command)"
stop "$PID"

# Two sockets, with names.
port=$(free_port)
other=$(free_port)
start two "$ACTIVATE" -l "$AT:$port" -l "$AT:$other" --fdname=front:back "$KAPO" --socket-activation run -- sleep 60
wait_until 5 listens_on "$other"
pid=$(status "http://$AT:$port" Pid)
same "two sockets, one run" "$pid" "$(status "http://$AT:$other" Pid)"
matches "the log shows the first name" front "$(cat "$WORK/two.log")"
matches "the log shows the second name" back "$(cat "$WORK/two.log")"
stop "$PID"

# inetd style: the connection is standard input and output.
port=$(free_port)
start inetd "$ACTIVATE" --accept --inetd -l "$AT:$port" "$KAPO" --socket-activation run -- sleep 2
wait_until 5 listens_on "$port"
same "inetd style" sleep "$(curl -sS --max-time 10 "http://$AT:$port/" | field Command)"
end_instances "$PID"

# The command inherits none of the sockets.
port=$(free_port)
# shellcheck disable=SC2016  # for the inner shell
start clean "$ACTIVATE" -l "$AT:$port" "$KAPO" --socket-activation run -- \
    sh -c 'ls -l /proc/self/fd; env; exec sleep 60'
wait_until 5 listens_on "$port"
check "a job that lists what it got" code_is "http://$AT:$port/" 200
wait_until 5 grep -q '^PATH=' "$WORK/clean.log"
check "no socket among its descriptors" sh -c "! grep 'socket:' '$WORK/clean.log'"
check "no LISTEN_ variable in its environment" sh -c "! grep '^LISTEN_' '$WORK/clean.log'"
stop "$PID"

# kapo fleet: started by the first client, and ended when no connection is open.
mkdir "$WORK/fleet"
start fleet-kapo "$KAPO" --interface "$WORK/fleet/web.sock" run -- sleep 60
kapo=$PID
wait_until 5 test -S "$WORK/fleet/web.sock"
port=$(free_port)
start fleet "$ACTIVATE" -l "$AT:$port" "$KAPO" --socket-activation fleet --idle-exit 0.5 "$WORK/fleet"
fleet=$PID
wait_until 5 listens_on "$port"
same "the first client of fleet gets the list" web "$(curl -sS --max-time 10 "http://$AT:$port/" | field Name)"
same "and reaches a kapo through it" ok "$(curl -sS --max-time 10 "http://$AT:$port/i/web/readyz")"
CODE=0
wait "$fleet" || CODE=$?
same "fleet ends by itself with 0" 0 "$CODE"
stop "$kapo"

# Other kinds of descriptors are refused by number and reason, and nothing is started.
# refused NAME WANTED-TEXT SHELL-TEXT: run by a shell that becomes kapo, so that LISTEN_PID is its own pid.
refused() {
    local name=$1 wanted=$2 got=0
    KAPO=$KAPO WORK=$WORK timeout 10 bash -c "$3" >"$WORK/refused" 2>&1 || got=$?
    same "$name: exit code" 125 "$got"
    matches "$name: says why" "$wanted" "$(cat "$WORK/refused")"
    check "$name: nothing was started" test ! -e "$WORK/started"
    rm -f "$WORK/started"
}
# shellcheck disable=SC2016  # all for the inner shell
{
    RUN='exec "$KAPO" --socket-activation run -- touch "$WORK/started"'
    refused "a file as fd 3" 3 'export LISTEN_FDS=1 LISTEN_PID=$$; exec 3</etc/passwd; '"$RUN"
    refused "a closed fd 3" 3 'export LISTEN_FDS=1 LISTEN_PID=$$; exec 3<&-; '"$RUN"
    refused "LISTEN_PID of another" LISTEN_PID 'export LISTEN_FDS=1 LISTEN_PID=1; exec 3</etc/passwd; '"$RUN"
    refused "LISTEN_FDS=0" . 'export LISTEN_FDS=0 LISTEN_PID=$$; '"$RUN"
    refused "LISTEN_FDS=abc" LISTEN_FDS 'export LISTEN_FDS=abc LISTEN_PID=$$; '"$RUN"
    refused "LISTEN_FDS=1000000000" LISTEN_FDS 'export LISTEN_FDS=1000000000 LISTEN_PID=$$; '"$RUN"
}
python3 - "$KAPO" "$WORK" >"$WORK/refused" 2>&1 <<'PY' && got=0 || got=$?
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
os.dup2(s.fileno(), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], ["kapo", "--socket-activation", "run", "--", "touch", sys.argv[2] + "/started"])
PY
same "a datagram socket: exit code" 125 "$got"
check "a datagram socket: nothing was started" test ! -e "$WORK/started"

finish
