#!/usr/bin/env bash
# Tests HAProxy with a backend whose health checks go to kapo: with its default OPTIONS request, with GET /readyz, and
# with an open port alone. The backend goes down when the command ends and comes up again when it is back.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin
need haproxy curl python3

# The payload: a web server that returns its name. Only kapo's port shows whether it is up.
cat >"$WORK/payload.py" <<'E2'
import http.server, sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"payload"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
E2

payload=$(free_port)
front=$(free_port)
# The ports are fixed for the whole test, because a restarted kapo must be on the same port.
options=$(free_port)
tcp=$(free_port)
ready=$(free_port)

cat >"$WORK/haproxy.cfg" <<E2
global
    stats socket $WORK/stats mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
    timeout check 2s
    default-server inter 200ms fastinter 100ms fall 2 rise 2
frontend front
    bind 127.0.0.1:$front
    default_backend by_readyz
backend by_options
    option httpchk
    server app 127.0.0.1:$payload check port $options
backend by_readyz
    option httpchk GET /readyz
    server app 127.0.0.1:$payload check port $ready
backend by_tcp
    option tcp-check
    server app 127.0.0.1:$payload check port $tcp
E2
check "haproxy takes the configuration" haproxy -c -q -f "$WORK/haproxy.cfg"

# stat_of BACKEND SERVER FIELD: prints a field of HAProxy's statistics, read from its own socket.
stat_of() {
    python3 - "$WORK/stats" "$@" <<'E2'
import csv, io, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"show stat\n")
data = b""
while part := s.recv(65536):
    data += part
for row in csv.DictReader(io.StringIO(data.decode().lstrip("# "))):
    if (row["pxname"], row["svname"]) == (sys.argv[2], sys.argv[3]):
        print(row[sys.argv[4]])
E2
}
seen_by() { stat_of "$1" app status; }
is_up() { [ "$(seen_by "$1")" = UP ]; }
is_down() { [ "$(seen_by "$1")" = DOWN ]; }

start payload python3 "$WORK/payload.py" "$payload"
check "the payload serves" wait_until 10 code_is "http://127.0.0.1:$payload/" 200
start options "$KAPO" --interface 127.0.0.1 --port "$options" run -- sleep 600
by_options=$PID
start tcp "$KAPO" --interface 127.0.0.1 --port "$tcp" run -- sleep 600
by_tcp=$PID
start ready "$KAPO" --interface 127.0.0.1 --port "$ready" supervise --wait 4 -- sleep 600
by_ready=$PID
start haproxy haproxy -db -f "$WORK/haproxy.cfg"
proxy=$PID

check "the default check, OPTIONS, finds it up" wait_until 10 is_up by_options
check "GET /readyz finds it up" wait_until 10 is_up by_readyz
check "a tcp-check finds it up" wait_until 10 is_up by_tcp
check "a request comes through" code_is "http://127.0.0.1:$front/" 200

# run: the port is closed when the command ends.
end_of() { kill -TERM "$(status "http://127.0.0.1:$1" Pid)"; }
end_of "$options"
check "OPTIONS: the command ends, the backend is down" wait_until 10 is_down by_options
end_of "$tcp"
check "tcp-check: the command ends, the backend is down" wait_until 10 is_down by_tcp
check "while the third is not concerned" is_up by_readyz
stop "$by_options"
stop "$by_tcp"
start options2 "$KAPO" --interface 127.0.0.1 --port "$options" run -- sleep 600
start tcp2 "$KAPO" --interface 127.0.0.1 --port "$tcp" run -- sleep 600
check "OPTIONS: it is back, and up" wait_until 10 is_up by_options
check "tcp-check: it is back, and up" wait_until 10 is_up by_tcp

# supervise: the port stays open during the pause, and /readyz answers 503.
end_of "$ready"
check "GET /readyz: the command ends, the backend is down in the pause" wait_until 4 is_down by_readyz
same "and the front says so" 503 "$(code "http://127.0.0.1:$front/")"
check "GET /readyz: kapo has started it again, and it is up" wait_until 15 is_up by_readyz
check "a request comes through again" wait_until 5 code_is "http://127.0.0.1:$front/" 200

# A stop: the backend is removed before the command has ended.
kill -TERM "$by_ready"
check "a stop takes it out" wait_until 10 is_down by_readyz
same "the checks are no noise in kapo's log" "" \
    "$(cat "$WORK"/{options,tcp,ready,options2,tcp2}.log | grep -v 'msg="\(listening\|started\|exited\|signal received\)"' || true)"

# A drain: two servers behind one backend. Each request takes 0.3 s, and a server that gets TERM drops its requests.
cat >"$WORK/load.py" <<'E2'
import sys, threading, time, urllib.request

url, stop_after = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + stop_after
answers, lock = {}, threading.Lock()


def client():
    while time.monotonic() < end:
        try:
            seen = urllib.request.urlopen(url, timeout=10).status
        except Exception as error:
            seen = str(error)
        with lock:
            answers[seen] = answers.get(seen, 0) + 1


threads = [threading.Thread(target=client) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("good", answers.pop(200, 0))
print("bad", sum(answers.values()), answers)
E2
sed 's/        body = b"payload"/        __import__("time").sleep(0.3)\n        body = b"payload"/' "$WORK/payload.py" >"$WORK/slow.py"
one=$(free_port)
two=$(free_port)
one_kapo=$(free_port)
two_kapo=$(free_port)
cat >>"$WORK/haproxy.cfg" <<E2
frontend drained
    bind 127.0.0.1:$(free_port | tee "$WORK/drained")
    default_backend pair
backend pair
    balance roundrobin
    option httpchk GET /readyz
    server one 127.0.0.1:$one check port $one_kapo
    server two 127.0.0.1:$two check port $two_kapo
E2
stop "$proxy"
start haproxy2 haproxy -db -f "$WORK/haproxy.cfg"
proxy=$PID
drained=http://127.0.0.1:$(cat "$WORK/drained")/
start two "$KAPO" --interface 127.0.0.1 --port "$two_kapo" run -- python3 "$WORK/slow.py" "$two"
pair=$PID
both_up() {
    code_is "http://127.0.0.1:$one/" 200 && code_is "http://127.0.0.1:$two/" 200 &&
        [ "$(stat_of pair one status) $(stat_of pair two status)" = "UP UP" ]
}
in_flight() { [ "$(stat_of pair one scur)" -ge 2 ]; }
# load OPTIONS...: stops the kapo of server one, with these options, under load.
load() {
    start "one" "$KAPO" --interface 127.0.0.1 --port "$one_kapo" run "$@" -- python3 "$WORK/slow.py" "$one"
    local kapo=$PID
    check "both servers are up" wait_until 15 both_up
    python3 "$WORK/load.py" "$drained" 6 >"$WORK/load" &
    local clients=$!
    STARTED+=("$clients")
    check "requests are in flight to the one that is stopped" wait_until 5 in_flight
    kill -TERM "$kapo"
    wait "$clients"
    wait "$kapo" || true
}
load --drain 3
matches "no request fails during the drain" '^bad 0 ' "$(cat "$WORK/load")"
matches "many were answered" '^good [0-9]{2,}$' "$(cat "$WORK/load")"
load
matches "without a drain some fail, so the load can tell" '^bad [1-9]' "$(cat "$WORK/load")"
stop "$pair"
stop "$proxy"
finish
