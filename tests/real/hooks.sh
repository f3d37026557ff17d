#!/usr/bin/env bash
# Tests of the hooks in examples/: a real Alertmanager gets an alert and its end, a test server gets pings, logger writes
# a line, and a program in the place of sendmail gets a mail.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need prometheus-alertmanager amtool curl python3 logger

HOOKS=$ROOT/examples/hooks
export JOB=worker PING MAILTO=admin@example.org SENDMAIL ALERTMANAGER

# Alertmanager: flapping is an alert, recovered ends it.
printf 'route:\n  receiver: none\nreceivers:\n  - name: none\n' >"$WORK/alertmanager.yml"
port=$(free_port)
start alertmanager prometheus-alertmanager --config.file="$WORK/alertmanager.yml" --storage.path="$WORK/data" \
    --web.listen-address="127.0.0.1:$port" --cluster.listen-address= --log.level=warn
ALERTMANAGER=http://127.0.0.1:$port
check "Alertmanager is ready" wait_until 20 code_is "$ALERTMANAGER/-/ready" 200
alerts() { amtool --alertmanager.url="$ALERTMANAGER" alert query -o extended; }
has() { alerts | grep -q "$1"; }
lacks() { ! alerts | grep -q "$1"; }
cat >"$WORK/job" <<'J'
#!/bin/sh
[ -e "$1" ] && exec sleep 600
exit 3
J
chmod +x "$WORK/job"
start flapping "$KAPO" -i none supervise --wait 0.1 --stable 1 --on flapping="$HOOKS/alertmanager.sh" \
    --on recovered="$HOOKS/alertmanager.sh" -- "$WORK/job" "$WORK/fixed"
flapping=$PID
check "flapping is an alert" wait_until 15 has Kapo_flapping
matches "with the reason and the job" 'job="worker".*reason exit-code, exit code 3' "$(alerts | tr '\n' ' ')"
touch "$WORK/fixed"
check "recovered ends the alert" wait_until 15 lacks Kapo_flapping
stop "$flapping"
"$KAPO" -q -i none run --on fail="$HOOKS/alertmanager.sh" -- sh -c 'exit 4' >"$WORK/fail.log" 2>&1 || true
check "a failed job is an alert" has 'Kapo_fail.*exit code 4'
same "no hook has failed" "" "$(cat "$WORK"/*.log | grep 'hook failed' || true)"

# Pings to a test server, which writes the path and whether a document came.
cat >"$WORK/server.py" <<'P'
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(self.path, body[0]["Status"], flush=True)
        self.send_response(200)
        self.end_headers()
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
P
port=$(free_port)
start server python3 "$WORK/server.py" "$port"
check "the test server answers" wait_until 10 code_is "http://127.0.0.1:$port/" 200
PING=http://127.0.0.1:$port/uuid
"$KAPO" -q -i none run --on start="$HOOKS/ping.sh" --on end="$HOOKS/ping.sh" -- sh -c 'exit 5' >"$WORK/ping.log" 2>&1 || true
same "a start and an end are pinged, each with its document" "/uuid/start running
/uuid/5 stopped" "$(cat "$WORK/server.log")"

# logger, by the variable, to a socket in the place of /dev/log.
cat >"$WORK/syslog.py" <<'P'
import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(sys.argv[1])
print(log.recv(1000).decode(), flush=True)
P
start syslog python3 "$WORK/syslog.py" "$WORK/dev-log"
check "the syslog socket is there" wait_until 10 test -S "$WORK/dev-log"
KAPO_ON_GIVE_UP="logger -u $WORK/dev-log -p daemon.err -t worker gave up" \
    "$KAPO" -q -i none supervise --max-restarts 1 --wait 0 -- false >"$WORK/logger.log" 2>&1 || true
check "logger writes its line" wait_until 5 grep -q '^<27>.*worker: gave up' "$WORK/syslog.log"

# A mail.
SENDMAIL=$WORK/sendmail
printf '#!/bin/sh\ncat >"%s/mail"\n' "$WORK" >"$SENDMAIL"
chmod +x "$SENDMAIL"
"$KAPO" -q -i none run --on fail="$HOOKS/mail.sh" -- sh -c 'exit 6' >"$WORK/mail.log" 2>&1 || true
matches "the mail has its address" '^To: admin@example.org$' "$(cat "$WORK/mail")"
matches "and a subject" '^Subject: kapo on .*: fail \(exit-code, exit code 6\)$' "$(cat "$WORK/mail")"
matches "and the document" '^\[\{"Arguments"' "$(cat "$WORK/mail")"
finish
