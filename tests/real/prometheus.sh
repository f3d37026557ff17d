#!/usr/bin/env bash
# Tests with the real Prometheus: it scrapes kapo, kapo_child_up follows the command, each alert of examples/ fires only
# for its own cause, and promtool accepts metrics, rules and configuration. (Only promtool tests the out-of-memory alert;
# oom.sh tests the metric.)
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need prometheus promtool curl python3

EXAMPLES=$ROOT/examples/prometheus
# One command that fails at once, again and again, one that its TTL ends, and one that is healthy until it is killed.
start_kapo flapping supervise --wait 0.2 -- sh -c 'exit 3'
flapping=${URL#http://}
start_kapo recycled supervise --wait 0.1 --ttl 2 -- sleep 600
recycled=${URL#http://}
# Daily jobs: one that succeeds again and again, one that has succeeded once, one that never has.
start_kapo daily supervise --wait 0.2 -- true
daily=${URL#http://}
start_kapo once supervise --wait 600 -- true
once=${URL#http://}
start_kapo never supervise --wait 600 -- sh -c 'exit 3'
never=${URL#http://}
# A command that fills the memory of its cgroup, if a cgroup can be created.
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { remove_memory_cgroup; }
full=none
if [ "$(id -u)" = 0 ] && memory_cgroup 67108864; then
    cat >"$WORK/fill.py" <<F
import os, time
usage = next(f for f in ("$CGROUP/memory.current", "$CGROUP/memory.usage_in_bytes") if os.path.exists(f))
kept = []
while int(open(usage).read()) < 0.94 * 67108864:
    kept.append(os.urandom(1 << 18))
time.sleep(600)
F
    outside=$KAPO
    KAPO=$WORK/inside
    start_kapo full run -- python3 "$WORK/fill.py"
    KAPO=$outside
    full=${URL#http://} full_pid=$PID
fi
start_kapo kapo supervise --wait 5 -- sleep 600
kapo=$PID
well=${URL#http://}

curl -sS --max-time 5 "$URL/metrics" >"$WORK/metrics"
check "promtool check metrics takes it" sh -c "promtool check metrics <'$WORK/metrics'"
same "and is silent" "" "$(promtool check metrics <"$WORK/metrics" 2>&1 || true)"
matches "kapo_child_up is 1" '^kapo_child_up 1$' "$(cat "$WORK/metrics")"
open=$(curl -sS --max-time 5 -H 'Accept: application/openmetrics-text; version=1.0.0' -D "$WORK/head" "$URL/metrics")
matches "OpenMetrics when asked for" '^[Cc]ontent-[Tt]ype: application/openmetrics-text' "$(cat "$WORK/head")"
same "which ends with # EOF" "# EOF" "$(printf '%s\n' "$open" | tail -n 1)"
check "the pid is no label" sh -c "! grep -q 'pid=' '$WORK/metrics'"

check "promtool check rules takes the alert rules of the examples" promtool check rules "$EXAMPLES/alerts.yml"
check "promtool check config takes the scrape configuration of the examples" \
    promtool check config "$EXAMPLES/scrape.yml"
check "promtool test rules: each alert fires when it should, and not before" \
    promtool test rules "$EXAMPLES/alerts_test.yml"

# Use the rules of the examples with shorter times.
sed -E 's/^( *(- )?for:).*/\1 0s/; s/> 90000/> 4/' "$EXAMPLES/alerts.yml" >"$WORK/alerts.yml"
port=$(free_port)
cat >"$WORK/prometheus.yml" <<E2
global:
  scrape_interval: 500ms
  scrape_timeout: 400ms
  evaluation_interval: 500ms
rule_files: [alerts.yml]
scrape_configs:
  - job_name: kapo
    static_configs:
      - targets: ["$well", "$flapping", "$recycled"]
  - job_name: kapo-daily
    static_configs:
      - targets: ["$daily", "$once", "$never"]
E2
if [ "$full" != none ]; then
    printf '  - job_name: kapo-full\n    static_configs:\n      - targets: ["%s"]\n' "$full" >>"$WORK/prometheus.yml"
fi
start prometheus prometheus --config.file="$WORK/prometheus.yml" --storage.tsdb.path="$WORK/tsdb" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn
prom=http://127.0.0.1:$port
check "prometheus is ready" wait_until 20 code_is "$prom/-/ready" 200

# value QUERY: prints the value of the first series of the result.
value() {
    curl -sS --max-time 5 -G --data-urlencode "query=$1" "$prom/api/v1/query" | python3 -c '
import json, sys
result = json.load(sys.stdin)["data"]["result"]
print(result[0]["value"][1] if result else "none")'
}
value_is() { [ "$(value "$1")" = "$2" ]; }
# firing TARGET: prints the names of the alerts that fire for the target.
firing() {
    curl -sS --max-time 5 "$prom/api/v1/alerts" | python3 -c '
import json, sys
alerts = json.load(sys.stdin)["data"]["alerts"]
print(*sorted({a["labels"]["alertname"] for a in alerts if a["state"] == "firing" and a["labels"]["instance"] == sys.argv[1]}))' "$1"
}
fires() { [ "$(firing "$1")" = "$2" ]; }

up="up{instance=\"$well\"}"
child_up="kapo_child_up{instance=\"$well\"}"
starts="kapo_child_starts_total{instance=\"$well\"}"
killed="kapo_child_exits_total{instance=\"$well\",reason=\"signal\"}"
check "the target is up" wait_until 15 value_is "$up" 1
check "Prometheus sees kapo_child_up 1" wait_until 10 value_is "$child_up" 1
same "no alert fires for it" "" "$(firing "$well")"
before=$(value "$starts")
pid=$(status "http://$well" Pid)
case $pid in
    [1-9]*) kill -KILL "$pid" ;;
    *) not_ok "the document names a pid to kill (got $pid)" ;;
esac
check "the command dies: kapo_child_up 0" wait_until 5 value_is "$child_up" 0
check "KapoCommandDown fires for it, alone" wait_until 5 fires "$well" KapoCommandDown
check "kapo starts it again: kapo_child_up 1" wait_until 15 value_is "$child_up" 1
same "kapo_child_starts_total has grown by one" 1 "$(value "$starts - $before")"
same "the end is counted by its reason" 1 "$(value "$killed")"
check "KapoCommandDown goes" wait_until 10 fires "$well" ""

flaps() { firing "$flapping" | grep -qw KapoFlapping; }
check "KapoFlapping fires for the command that fails again and again" wait_until 15 flaps
passes() { firing "$recycled" | grep -qw KapoTimeToLivePassed; }
check "KapoTimeToLivePassed fires for the one that its TTL ends" wait_until 15 passes
check "and not for the one that flaps" sh -c "! echo '$(firing "$flapping")' | grep -q TimeToLive"
fires_among() { firing "$1" | grep -qw "$2"; }
check "KapoNoSuccess fires for the daily job that has never succeeded" wait_until 15 fires_among "$never" KapoNoSuccess
check "and for the one whose last success is too old" wait_until 15 fires_among "$once" KapoNoSuccess
same "but not for the one that succeeds" "" "$(firing "$daily" | grep -w KapoNoSuccess)"
same "nor for a service" "" "$(firing "$well" | grep -w KapoNoSuccess)"
if [ "$full" = none ]; then
    echo "# no memory cgroup of our own: KapoMemoryNearLimit is left out"
else
    check "KapoMemoryNearLimit fires for the command that fills its cgroup" wait_until 15 fires "$full" KapoMemoryNearLimit
    stop "$full_pid"
fi
matches "each alert names its section of the runbook" '^docs/operations.md#kaponosuccess$' "$(
    curl -sS --max-time 5 "$prom/api/v1/alerts" | python3 -c '
import json, sys
for a in json.load(sys.stdin)["data"]["alerts"]: print(a["annotations"]["runbook_url"])')"

# kapo itself ends: the target is down, which only Prometheus can report.
stop "$kapo"
check "kapo ends: the target is down" wait_until 10 value_is "$up" 0
check "KapoUnreachable fires, and it alone" wait_until 10 fires "$well" KapoUnreachable
matches "nothing that Prometheus complains of" '^0$' "$(grep -c 'level=\(warn\|error\)' "$WORK/prometheus.log" || true)"
finish
