#!/usr/bin/env bash
# Tests that streams reach common clients without delay: Python's requests, directly and through nginx, which uses
# HTTP/1.0 towards kapo by default.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
PY=python3
python3 -c 'import requests' 2>/dev/null || PY=/usr/bin/python3
"$PY" -c 'import requests' 2>/dev/null || skip_all "requests is not installed"

mkfifo "$WORK/gate"
exec 9<>"$WORK/gate"
# shellcheck disable=SC2016
start_kapo streams -S --tail 64K run -- sh -c 'while read -r line; do echo "$line"; done <"$0"' "$WORK/gate"

# first_line URL: prints the first line that iter_lines returns within 3 s, while the stream continues.
first_line() {
    "$PY" - "$1" <<'E2'
import os, requests, signal, sys
signal.alarm(3)
with requests.get(sys.argv[1], stream=True) as answer:
    for line in answer.iter_lines():
        print(line.decode())
        sys.stdout.flush()
        os._exit(0)
E2
}

is_captured() { curl -sf "$URL/logs" | grep -q "$1"; }

# both NAME URL: checks that the current document and a line of output arrive while nothing else happens.
both() {
    matches "$1: /events begins at once" '^id: [0-9]+$' "$(first_line "$2/events" 2>&1)"
    echo "through $1" >&9
    wait_until 5 is_captured "through $1"
    matches "$1: /logs?follow=1 begins at once" '^through ' "$(first_line "$2/logs?follow=1" 2>&1)"
}

both requests "$URL"

if command -v nginx >/dev/null 2>&1; then
    for version in 1.0 1.1; do
        port=$(free_port)
        cat >"$WORK/nginx.conf" <<E2
daemon off;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log;
events { }
http {
    access_log off;
    client_body_temp_path $WORK/nginx1; proxy_temp_path $WORK/nginx2; fastcgi_temp_path $WORK/nginx3;
    uwsgi_temp_path $WORK/nginx4; scgi_temp_path $WORK/nginx5;
    server {
        listen 127.0.0.1:$port;
        location / { proxy_pass $URL; proxy_http_version $version; }
    }
}
E2
        nginx -c "$WORK/nginx.conf" -e "$WORK/nginx.log" 9>&- &
        nginx=$!
        STARTED+=("$nginx")
        wait_until 10 curl -sf "http://127.0.0.1:$port/livez" || not_ok "nginx starts: $(tail -n 3 "$WORK/nginx.log")"
        both "nginx by HTTP/$version" "http://127.0.0.1:$port"
        kill -QUIT "$nginx"
    done
else
    echo "# nginx is not installed: left out"
fi

finish
