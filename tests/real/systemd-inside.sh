#!/usr/bin/env bash
# Runs inside the machine that systemd.sh has booted, and prints `ok` and `not ok` lines. Not to be run by hand.
set -eu

HERE=/kapo-test
UNITS=/etc/systemd/system
BIN=/usr/local/bin

ok() { printf 'ok %s\n' "$*"; }
not_ok() { printf 'not ok %s\n' "$*"; }

check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$name"; else
        not_ok "$name"
        [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/    /' | tail -n 30
    fi
}

same() {
    if [ "$2" = "$3" ]; then ok "$1"; else
        not_ok "$1"
        printf '    wanted: %s\n    got:    %s\n' "$2" "$3"
    fi
}

matches() {
    if printf '%s' "$3" | grep -aEq -- "$2"; then ok "$1"; else
        not_ok "$1"
        printf '    wanted: %s\n    got:    %s\n' "$2" "$3"
    fi
}

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

# Prints this member of the document on standard input; "none" if there is no document.
field() {
    python3 -c '
import json, sys
try:
    value = json.load(sys.stdin)[0][sys.argv[1]]
except (ValueError, LookupError):
    value = "none"
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

status() { curl -sS --max-time 5 "http://127.0.0.1:$1/" 2>/dev/null | field "$2"; }
code() { curl -s --max-time 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$1" || true; }
code_is() { [ "$(code "$1")" = "$2" ]; }
is() { [ "$(systemctl is-active "$1" || true)" = "$2" ]; }
show() { systemctl show --value -p "$2" "$1"; }
show_is() { [ "$(show "$1" "$2")" = "$3" ]; }

# unit NAME: writes a unit from standard input.
unit() { cat >"$UNITS/$1"; }

trap 'journalctl --no-pager -o short-monotonic >"$HERE/journal" 2>&1 || true' EXIT

ip link set lo up 2>/dev/null || true
# The commands of the examples. They are world-readable because DynamicUser= uses an unknown user.
printf '#!/bin/sh\nexec sleep 1000\n' >"$BIN/worker"
# The job runs until the file exists.
printf '#!/bin/sh\nwhile [ ! -e %s/end ]; do sleep 0.05; done\nexit 7\n' "$HERE" >"$BIN/job"
# Uses sd_notify and becomes ready on request. systemd-notify sends a BARRIER after each message, waits up to five
# seconds for it, and fails if it is not answered.
cat >"$BIN/speaker" <<'S'
#!/bin/sh
began=$(date +%s%N)
systemd-notify --status="warming up"
echo "$? $((($(date +%s%N) - began) / 1000000))" >/tmp/barrier && mv /tmp/barrier /kapo-test/speaker/barrier
while [ ! -e /kapo-test/ready ]; do sleep 0.05; done
systemd-notify --ready --status="warm" || exit 3
exec sleep 1000
S
# The same, hardened like the other units, with pings until a file exists.
cat >"$BIN/pinger" <<'S'
#!/bin/sh
systemd-notify --ready || exit 3
while [ ! -e /kapo-test/silent ]; do
    systemd-notify WATCHDOG=1 || exit 4
    sleep 0.2
done
exec sleep 1000
S
chmod 755 "$BIN/worker" "$BIN/job" "$BIN/speaker" "$BIN/pinger" "$HERE"
mkdir -p "$HERE/speaker"

cd "$UNITS"
for each in worker.service job.socket job.service job@.service watch.service backup.service backup.timer kapo-ls.service kapo-ls.timer kapo-fleet.socket kapo-fleet.service; do
    said=$(systemd-analyze verify --man=no "$UNITS/$each" 2>&1 || echo failed)
    # Only check messages about the file itself, because the machine is minimal.
    same "systemd-analyze verify $each says nothing" "" "$(printf '%s' "$said" | grep -E "${each%@*}|failed" || true)"
done

# --- worker.service: Type=notify, hardened ---
check "worker.service becomes active" wait_until 10 is worker.service active
same "its document says running" running "$(status 6666 Status)"
text=$(show worker.service StatusText)
matches "kapo tells systemd its status ($text)" '...' "$text"
said=$(systemctl --no-pager status worker.service 2>&1 || true)
matches "systemctl status shows that text" "Status: \"" "$said"
check "its main process is kapo" grep -qx kapo "/proc/$(show worker.service MainPID)/comm"
matches "it does not run as root (DynamicUser)" '^[1-9]' "$(awk '/^Uid:/ { print $2 }' "/proc/$(show worker.service MainPID)/status")"
main=$(show worker.service MainPID)
# The restrictions of the unit apply to kapo and to the command.
hardened() {
    local unit=$1 pid=$2
    same "$unit: no new privileges" 1 "$(awk '/^NoNewPrivs:/ { print $2 }' "/proc/$pid/status")"
    same "$unit: system calls are filtered" 2 "$(awk '/^Seccomp:/ { print $2 }' "/proc/$pid/status")"
    same "$unit: no capability" 0000000000000000 "$(awk '/^CapBnd:/ { print $2 }' "/proc/$pid/status")"
    check "$unit: /usr is read-only" sh -c "awk '\$5 == \"/\" { print \$6 }' /proc/$pid/mountinfo | tail -n 1 | grep -q '^ro'"
}
hardened "kapo in worker.service" "$main"
hardened "the worker" "$(status 6666 Pid)"
kill -KILL "$(status 6666 Pid)" || true
restarted() { [ "$(status 6666 Restarts)" = 1 ] && [ "$(status 6666 Status)" = running ]; }
check "a killed worker is started again by kapo" wait_until 10 restarted
same "by the same kapo" "$main" "$(show worker.service MainPID)"
# journald writes asynchronously.
logged() { journalctl --no-pager -o cat -u worker.service "$@"; }
has_exited() { logged -p warning | grep -q 'msg="exited"'; }
check "journalctl -p warning shows the end" wait_until 10 has_exited
matches "without a time and a prefix" '^level=warn msg="exited" command=' "$(logged -p warning)"
same "and nothing of level info" "" "$(logged -p warning | grep level=info || true)"
matches "which has the priority info" '^level=info msg="listening" address=' "$(logged -p info..info)"
worker=$(status 6666 Pid)
began=$(date +%s%N)
systemctl stop worker.service || true
same "systemctl stop ends it without failure" inactive "$(systemctl is-active worker.service || true)"
check "at once" [ $((($(date +%s%N) - began) / 1000000)) -lt 3000 ]
check "and the worker with it" [ ! -e "/proc/$worker" ]

# --- WatchdogSec= ---
mkdir -p "$UNITS/worker.service.d"
printf '[Service]\nWatchdogSec=1\nTimeoutAbortSec=2\nRestartSec=0\n' >"$UNITS/worker.service.d/dog.conf"
systemctl daemon-reload
systemctl start worker.service || true
main=$(show worker.service MainPID)
pings() {
    local was
    was=$(show worker.service WatchdogTimestampMonotonic)
    wait_until 3 sh -c "[ \$(systemctl show --value -p WatchdogTimestampMonotonic worker.service) -gt $was ]"
}
check "kapo pings the watchdog" pings
check "and again" pings
same "so it is still the same" "$main" "$(show worker.service MainPID)"
kill -STOP "$main" || true
other() { [ "$(show worker.service MainPID)" != "$main" ] && is worker.service active; }
check "WatchdogSec= ends a stopped kapo and starts it again" wait_until 15 other
check "which serves" wait_until 5 code_is 6666/readyz 200
matches "systemd counts the restart" '^[1-9]' "$(show worker.service NRestarts)"
systemctl stop worker.service || true

# --- Type=notify and a command that uses sd_notify itself ---
unit speaker.service <<'U'
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/local/bin/kapo --port 6680 run --notify -- /usr/local/bin/speaker
KillMode=mixed
SuccessExitStatus=143
U
systemctl daemon-reload
systemctl start --no-block speaker.service
check "before the command says READY kapo answers" wait_until 5 code_is 6680/livez 200
check "its STATUS= is in the document" wait_until 5 sh -c "curl -sS http://127.0.0.1:6680/ | grep -q 'warming up'"
check "its BARRIER was answered: systemd-notify has returned" wait_until 8 test -e "$HERE/speaker/barrier"
read -r failed took <"$HERE/speaker/barrier" || true
same "without failure" 0 "${failed:-none}"
check "and well within its five seconds (${took:-none} ms)" [ "${took:-9999}" -lt 3000 ]
same "/readyz is 503" 503 "$(code 6680/readyz)"
same "the unit is still activating" activating "$(systemctl is-active speaker.service || true)"
touch "$HERE/ready"
check "after READY the unit is active" wait_until 5 is speaker.service active
check "and /readyz 200" wait_until 5 code_is 6680/readyz 200
check "its STATUS= has reached the document" wait_until 5 sh -c "curl -sS http://127.0.0.1:6680/ | grep -q '\"StatusText\":\"warm\"'"
check "its STATUS= has reached systemd" wait_until 5 sh -c "systemctl show -p StatusText speaker.service | grep -q warm"
same "the command does not speak past kapo: the main process is still kapo" kapo \
    "$(cat "/proc/$(show speaker.service MainPID)/comm" 2>/dev/null || true)"
systemctl stop speaker.service || true
same "a stop is no failure" inactive "$(systemctl is-active speaker.service || true)"

# --- --watchdog: the command's own pings ---
unit pinger.service <<'U'
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/local/bin/kapo --port 6682 supervise --wait 1 --notify --watchdog 2 -- /usr/local/bin/pinger
KillMode=mixed
SuccessExitStatus=143
U
systemctl daemon-reload
check "a command that pings is ready" systemctl start pinger.service
first=$(status 6682 Pid)
matches "and runs" '^[1-9]' "$first"
check "longer than its watchdog's time" sh -c "sleep 3; [ \"\$(curl -sS http://127.0.0.1:6682/ | grep -o '\"Restarts\":[0-9]*')\" = '\"Restarts\":0' ]"
touch "$HERE/silent"
missed() { curl -sS http://127.0.0.1:6682/metrics | grep -q '^kapo_child_exits_total{reason="watchdog"} [1-9]'; }
check "once it is silent it is stopped, reason watchdog" wait_until 10 missed
rm "$HERE/silent"
check "and started again" wait_until 10 code_is 6682/readyz 200
systemctl stop pinger.service || true

# --- --drain is longer than TimeoutStopSec= ---
unit drained.service <<'U'
[Service]
Type=notify
ExecStart=/usr/local/bin/kapo --port 6684 run --drain 4 -- sleep 600
KillMode=mixed
TimeoutStopSec=2
SuccessExitStatus=143
U
systemctl daemon-reload
systemctl start drained.service || true
began=$(date +%s%N)
systemctl stop --no-block drained.service || true
check "a stop begins the drain: /readyz is 503" wait_until 2 code_is 6684/readyz 503
check "systemd shows that it drains" wait_until 2 sh -c "systemctl show -p StatusText drained.service | grep -q 'draining for'"
check "it ends" wait_until 10 is drained.service inactive
check "after the drain, not at TimeoutStopSec=" [ $((($(date +%s%N) - began) / 1000000)) -ge 4000 ]
same "without a failure" success "$(show drained.service Result)"

# --- systemd restarts kapo if kapo fails with the code of the command ---
printf '#!/bin/sh\nsleep 0.5\nexit 9\n' >"$BIN/failing"
chmod 755 "$BIN/failing"
unit failing.service <<'U'
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/local/bin/kapo --port 6683 run -- /usr/local/bin/failing
Restart=on-failure
RestartSec=0.1
U
systemctl daemon-reload
check "Type=notify: a command that will fail is active at first" systemctl start failing.service
again() { [ "$(show failing.service NRestarts)" -ge 2 ] && is failing.service active; }
check "and is started again by systemd, twice" wait_until 10 again
systemctl stop failing.service || true

unit missing.service <<'U'
[Service]
Type=notify
ExecStart=/usr/local/bin/kapo --port 6681 run -- /usr/local/bin/there-is-none
U
systemctl daemon-reload
check "a command that is not there fails the unit at its start" sh -c "! systemctl start missing.service"
same "with 127" 127 "$(show missing.service ExecMainStatus)"

# --- job.socket and job.service, Accept=no ---
mkdir -p "$UNITS/job.service.d" "$UNITS/job@.service.d"
printf '[Service]\nExecStart=\nExecStart=%s\n' \
    "$(sed -n 's/^ExecStart=//p' job.service | sed 's/--idle-exit [0-9]*/--idle-exit 1/')" >"$UNITS/job.service.d/soon.conf"
systemctl daemon-reload
check "job.socket listens" wait_until 5 is job.socket active
same "and no job runs yet" inactive "$(systemctl is-active job.service || true)"
first=$(status 6670 Pid)
matches "the first curl starts the job" '^[1-9]' "$first"
check "job.service is active" wait_until 5 is job.service active
same "the next curl is answered by the same run" "$first" "$(status 6670 Pid)"
hardened "kapo in job.service" "$(show job.service MainPID)"
matches "systemctl status shows the job's state, too" 'Status: "running' "$(systemctl --no-pager status job.service 2>&1 || true)"
curl -sS --max-time 20 -D "$HERE/head" -o "$HERE/body" http://127.0.0.1:6670/wait &
waiter=$!
touch "$HERE/end"
got=0
wait "$waiter" || got=$?
same "curl .../wait returns when the job has ended" 0 "$got"
matches "with its exit code in the head" '^[Kk]apo-[Ee]xit-[Cc]ode: 7' "$(cat "$HERE/head" 2>/dev/null || true)"
same "and in the document" 7 "$(field ExitCode <"$HERE/body")"
gone() { ! is job.service active && ! is job.service deactivating; }
check "when nobody asks any more, kapo ends" wait_until 10 gone
same "with the job's code" 7 "$(show job.service ExecMainStatus)"
rm -f "$HERE/end"
systemctl reset-failed job.service 2>/dev/null || true
second=$(status 6670 Pid)
matches "the next connection starts the next run" '^[1-9]' "$second"
check "which is another" [ "$first" != "$second" ]
touch "$HERE/end"
check "it ends as well" wait_until 10 gone

# --- Accept=no with jobs that end at once: one connection, one start ---
unit brief.socket <<'U'
[Socket]
ListenStream=127.0.0.1:6682
U
over() { case $(show brief.service ActiveState) in inactive | failed) true ;; *) false ;; esac; }
brief() {
    local what=$1 code=$2 wanted=$3 answered=0 told=0
    shift 3
    unit brief.service <<U
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStartPre=/bin/sh -c 'echo x >>$HERE/starts'
ExecStart=/usr/local/bin/kapo --socket-activation run -- $*
U
    systemctl daemon-reload
    rm -f "$HERE/starts"
    systemctl start brief.socket
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        if curl -sS --max-time 10 -D "$HERE/head" -o "$HERE/body" http://127.0.0.1:6682/wait; then
            answered=$((answered + 1))
            if [ "$(field Reason <"$HERE/body")" = "$wanted" ]; then told=$((told + 1)); fi
        fi
        wait_until 10 over || not_ok "brief.service is over ($what)"
        [ "$(show brief.service ExecMainStatus)" = "$code" ] || not_ok "brief.service ends with $code ($what)"
    done
    same "a job that $what: 20 connections are answered" 20 "$answered"
    same "with how it ended" 20 "$told"
    same "by 20 starts" 20 "$(grep -c . "$HERE/starts" || true)"
    same "and the socket still listens" active "$(systemctl is-active brief.socket || true)"
    systemctl stop brief.socket brief.service 2>/dev/null || true
    systemctl reset-failed brief.service 2>/dev/null || true
}
brief "ends at once" 0 success /bin/true
brief "exits with 3" 3 exit-code /bin/sh -c "'exit 3'"
brief "does not exist" 127 exec-failed /usr/local/bin/there-is-none

# --- job@.service, Accept=yes ---
rm -f "$HERE/end"
systemctl stop job.socket || true
systemctl reset-failed job.service 2>/dev/null || true
mkdir -p "$UNITS/job.socket.d"
cp "$HERE/accept.conf" "$UNITS/job.socket.d/"
systemctl daemon-reload
systemctl start job.socket || true
curl -sS --max-time 10 http://127.0.0.1:6670/ >"$HERE/a" &
a=$!
curl -sS --max-time 10 http://127.0.0.1:6670/ >"$HERE/b" &
b=$!
wait "$a" || true
wait "$b" || true
side_a=$(field SidebindPort <"$HERE/a")
side_b=$(field SidebindPort <"$HERE/b")
check "two connections, two runs, two SidebindPorts ($side_a, $side_b)" [ "$side_a" != "$side_b" ]
count=$(systemctl list-units --no-legend --plain 'job@*.service' | grep -c . || true)
same "two instances of job@.service" 2 "$count"
same "the first answers on its own port" "$(field Pid <"$HERE/a")" "$(status "$side_a" Pid)"
same "the second answers on its own port" "$(field Pid <"$HERE/b")" "$(status "$side_b" Pid)"
touch "$HERE/end"
none() { [ "$(systemctl list-units --no-legend --plain 'job@*.service' | grep -c . || true)" = 0 ]; }
printf '[Service]\nExecStart=\nExecStart=%s\n' \
    "$(sed -n 's/^ExecStart=//p' job@.service | sed 's/--idle-exit [0-9]*//; s/-- .*/-- true/')" >"$UNITS/job@.service.d/soon.conf"
systemctl daemon-reload
answered=0
for _ in 1 2 3 4 5; do
    if code_is 6670/ 200; then answered=$((answered + 1)); fi
done
same "a connection is answered though its job ends at once, five times" 5 "$answered"
check "instances go when their jobs have ended and nobody asks" wait_until 15 none
systemctl stop job.socket || true

# --- watch.service ---
check "watch.service is active" wait_until 10 is watch.service active
check "nothing called sshd runs" code_is 6668/readyz 503
cp /bin/sleep "$HERE/sshd"
"$HERE/sshd" 100 &
target=$!
seen() { [ "$(status 6668 Pid)" = "$target" ]; }
check "a process of that name is found" wait_until 10 seen
kill "$target" || true
check "and missed at once when it ends" wait_until 1 code_is 6668/readyz 503

echo "inside: all of it ran"
