#!/usr/bin/env bash
# The real Prometheus scrapes kapo: the target is up, kapo_child_up follows the command, an alert rule from examples/
# fires, and promtool has nothing to say against metrics, rules and configuration.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need prometheus promtool curl python3

EXAMPLES=$ROOT/examples/prometheus
start_kapo kapo supervise --wait 5 -- sleep 600
kapo=$PID

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
    promtool check config --syntax-only "$EXAMPLES/prometheus.yml"
if [ -f "$EXAMPLES/alerts_test.yml" ]; then
    check "promtool test rules" promtool test rules "$EXAMPLES/alerts_test.yml"
else
    not_ok "examples/prometheus/alerts_test.yml is there for promtool test rules"
fi

# The rules of the examples, with shorter patience: nobody here waits for minutes.
sed -E 's/^( *(- )?for:).*/\1 0s/' "$EXAMPLES/alerts.yml" >"$WORK/alerts.yml"
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
      - targets: ["${URL#http://}"]
E2
start prometheus prometheus --config.file="$WORK/prometheus.yml" --storage.tsdb.path="$WORK/tsdb" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn
prom=http://127.0.0.1:$port
check "prometheus is ready" wait_until 20 code_is "$prom/-/ready" 200

# value QUERY: of the first series that the expression gives, without its time.
value() {
    curl -sS --max-time 5 -G --data-urlencode "query=$1" "$prom/api/v1/query" | python3 -c '
import json, sys
result = json.load(sys.stdin)["data"]["result"]
print(result[0]["value"][1] if result else "none")'
}
value_is() { [ "$(value "$1")" = "$2" ]; }
firing() {
    curl -sS --max-time 5 "$prom/api/v1/alerts" | python3 -c '
import json, sys
names = sorted(a["labels"]["alertname"] for a in json.load(sys.stdin)["data"]["alerts"] if a["state"] == "firing")
print(" ".join(names))'
}
some_fire() { [ -n "$(firing)" ]; }

check "the target is up" wait_until 15 value_is 'up{job="kapo"}' 1
check "Prometheus sees kapo_child_up 1" wait_until 10 value_is kapo_child_up 1
same "no alert fires" "" "$(firing)"
starts=$(value kapo_child_starts_total)
kill -KILL "$(status "$URL" Pid)" || true
check "the command dies: kapo_child_up 0" wait_until 5 value_is kapo_child_up 0
check "the alert for it fires" wait_until 5 some_fire
echo "# firing: $(firing)"
check "kapo starts it again: kapo_child_up 1" wait_until 15 value_is kapo_child_up 1
check "kapo_child_starts_total has grown by one" wait_until 5 value_is "kapo_child_starts_total - $starts" 1
quiet() { [ -z "$(firing)" ] || [ "$(firing)" != "$fired" ]; }
fired=$(firing)
[ -z "$fired" ] || check "the alert for a command that is down goes" wait_until 10 quiet

# kapo itself goes: the target is down, which only Prometheus can say.
stop "$kapo"
check "kapo ends: the target is down" wait_until 10 value_is 'up{job="kapo"}' 0
matches "nothing that Prometheus complains of" '^0$' "$(grep -c 'level=\(warn\|error\)' "$WORK/prometheus.log" || true)"
finish
