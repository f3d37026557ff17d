#!/usr/bin/env bash
# Tests out-of-memory kills in a separate cgroup: a kill of the command is reported as `oom-kill`, that of a descendant
# is counted and logged, and a KILL sent by hand is neither.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need curl python3
[ "$(id -u)" = 0 ] || skip_all "needs root"

memory_cgroup 33554432 || skip_all "no cgroup with a memory limit can be made"
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { remove_memory_cgroup; }

# tail keeps all of its input, and exceeds the limit at once.
EAT='tail -n 1 </dev/zero'
KAPO=$WORK/inside

metric() { curl -sS --max-time 5 "$1/metrics" | awk -v name="$2" '$1 == name { print $2 }'; }
metric_is() { [ "$(metric "$1" "$2")" = "$3" ]; }
state_is() { [ "$(status "$1" Status)" = "$2" ]; }

# --- the command itself; the port stays open for the checks ---
start_kapo command run --wait 60 -- sh -c "while [ ! -e '$WORK/go' ]; do sleep 0.05; done; exec $EAT"
kapo=$PID
same "before it kapo_oom_kills_total is 0" 0 "$(metric "$URL" kapo_oom_kills_total)"
touch "$WORK/go"
check "the kernel kills the command" wait_until 20 state_is "$URL" killed
same "Reason is oom-kill" oom-kill "$(status "$URL" Reason)"
same "Signal is SIGKILL" SIGKILL "$(status "$URL" Signal)"
same "ExitCode is 137" 137 "$(status "$URL" ExitCode)"
check "kapo_oom_kills_total is 1" metric_is "$URL" kapo_oom_kills_total 1
check "so is kapo_child_exits_total with that reason" metric_is "$URL" 'kapo_child_exits_total{reason="oom-kill"}' 1
same "/healthz is 503" 503 "$(code "$URL/healthz")"
matches "which says why" "killed by the kernel: out of memory" "$(curl -sS "$URL/healthz?verbose")"
matches "the log says it" 'msg="exited".*reason=oom-kill' "$(cat "$WORK/command.log")"
run_of() { curl -sS --max-time 5 "$1/runs" | python3 -c "import json,sys; print(json.load(sys.stdin)[0]$2)"; }
same "its run tells the limit" 33554432 "$(run_of "$URL" '["Memory"]["LimitBytes"]')"
same "and the kill" 1 "$(run_of "$URL" '["Memory"]["OomKills"]')"
stop "$kapo"
same "kapo exits with 137" 137 "$CODE"

# --- the same without a request: only the exit code ---
got=0
"$KAPO" --interface 127.0.0.1 --port 0 run -- sh -c "exec $EAT" >"$WORK/alone.log" 2>&1 </dev/null || got=$?
same "run without --wait exits with 137" 137 "$got"
matches "and has logged the reason" 'reason=oom-kill' "$(cat "$WORK/alone.log")"

# --- a descendant: the command keeps running ---
start_kapo descendant run -- sh -c "(exec $EAT); touch '$WORK/survived'; exec sleep 600"
kapo=$PID
check "the command outlives its child" wait_until 20 test -e "$WORK/survived"
check "kapo_oom_kills_total counts the child" wait_until 5 metric_is "$URL" kapo_oom_kills_total 1
same "the command runs" running "$(status "$URL" Status)"
same "and has no reason" "" "$(status "$URL" Reason)"
# Version 1 raises no event, so the request for the metric has found the kill.
check "the log tells of it" wait_until 5 grep -Eq 'level=warn .*memory.*kills=1' "$WORK/descendant.log"
stop "$kapo"
same "its end is that of the signal it got" 143 "$CODE"

# --- an orphan that kapo reaps: logged without a request ---
start_kapo orphan run -- sh -c "($EAT &); exec sleep 600"
kapo=$PID
check "an orphan's kill is logged by itself" wait_until 20 grep -Eq 'level=warn .*memory.*kills=1' "$WORK/orphan.log"
check "and counted" metric_is "$URL" kapo_oom_kills_total 1
same "once" 1 "$(grep -c memory "$WORK/orphan.log")"
stop "$kapo"

# --- a KILL sent by hand is not an out-of-memory kill ---
start_kapo hand run --wait 60 -- sleep 600
kapo=$PID
pid=$(status "$URL" Pid)
case $pid in
    [1-9]*) kill -KILL "$pid" ;;
    *) not_ok "the document names a pid to kill (got $pid)" ;;
esac
check "a command killed by hand" wait_until 5 state_is "$URL" killed
same "has the reason signal" signal "$(status "$URL" Reason)"
same "and nothing is counted" 0 "$(metric "$URL" kapo_oom_kills_total)"
stop "$kapo"

# --- supervise: it is restarted ---
start_kapo again supervise --wait 0.2 -- sh -c "if [ -e '$WORK/second' ]; then exec sleep 600; fi; touch '$WORK/second'; exec $EAT"
kapo=$PID
started_again() { [ "$(status "$URL" Restarts)" = 1 ] && state_is "$URL" running; }
check "under supervise it is started again" wait_until 20 started_again
check "and the kill stays counted" metric_is "$URL" kapo_oom_kills_total 1
stop "$kapo"
finish
