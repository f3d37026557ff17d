#!/usr/bin/env bash
# Tests with the real node_exporter: its textfile collector reads the files of two jobs in one folder, and promtool
# accepts them.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need prometheus-node-exporter promtool curl

FOLDER=$WORK/textfile
mkdir "$FOLDER"
# run_job FILE ARGUMENT...: runs a job without a port.
run_job() {
    local file=$1
    shift
    "$KAPO" -q --interface none run --textfile "$FOLDER/$file" "$@" >"$WORK/$file.log" 2>&1 || true
}
run_job good.prom -- true
run_job bad.prom -- sh -c 'exit 3'

check "promtool check metrics takes the file" sh -c "promtool check metrics <'$FOLDER/bad.prom'"
same "and is silent" "" "$(promtool check metrics <"$FOLDER/bad.prom" 2>&1 || true)"
same "kapo has no warning about the file" "" "$(grep -h textfile "$WORK"/*.prom.log)"

port=$(free_port)
start node prometheus-node-exporter --web.listen-address="127.0.0.1:$port" --collector.disable-defaults \
    --collector.textfile --collector.textfile.directory="$FOLDER"
check "node_exporter answers" wait_until 20 code_is "http://127.0.0.1:$port/metrics" 200
# shows LINE: node_exporter serves this line.
shows() { curl -sS --max-time 5 "http://127.0.0.1:$port/metrics" | grep -qxF "$1"; }
check "it reads both files without an error" shows 'node_textfile_scrape_error 0'
check "the job that succeeded" shows 'kapo_child_last_exit_code{name="true"} 0'
check "the job that failed" shows 'kapo_child_last_exit_code{name="sh"} 3'
check "its end by reason" shows 'kapo_child_exits_total{name="sh",reason="exit-code"} 1'
check "a type" shows '# TYPE kapo_child_exits_total counter'
matches "the time of the success" '^kapo_child_last_success_time_seconds\{name="true"\} 1\.[0-9]+e\+09$' \
    "$(curl -sS --max-time 5 "http://127.0.0.1:$port/metrics")"
check "the page is clean" sh -c "curl -sS --max-time 5 http://127.0.0.1:$port/metrics | promtool check metrics"

# A service: the file changes while kapo runs.
start service "$KAPO" --interface none supervise --wait 0.2 --textfile "$FOLDER/service.prom" -- sleep 600
service=$PID
check "a running service is up" wait_until 10 shows 'kapo_child_up{name="sleep"} 1'
stop "$service"
check "and down after its end" wait_until 10 shows 'kapo_child_up{name="sleep"} 0'
check "node_exporter has never seen a part of a file" shows 'node_textfile_scrape_error 0'
finish
