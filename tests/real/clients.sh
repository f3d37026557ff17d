#!/usr/bin/env bash
# Reads the status with common HTTP clients, and uses HEAD with each client that supports it.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need curl python3

start_kapo clients run -- sleep 300
kapo=$PID

# has NAME PROGRAM: prints a missing program and does not count it.
has() {
    command -v "$2" >/dev/null 2>&1 && return 0
    echo "# $1 is not installed: left out"
    return 1
}

read_by() { same "$1 reads the document" sleep "$(field Command <"$2" 2>/dev/null || head -c 200 "$2")"; }

curl -sS --max-time 5 "$URL/" >"$WORK/curl" || true
read_by curl "$WORK/curl"
head=$(curl -sSI --max-time 5 "$URL/" | tr -d '\r')
matches "curl HEAD gets 200" '^HTTP/1.1 200 ' "$head"
full=$(curl -sS -D - -o "$WORK/body" --max-time 5 "$URL/" | tr -d '\r')
same "HEAD has the same head as GET" "$(printf '%s' "$full" | grep -vi '^date:')" "$(printf '%s' "$head" | grep -vi '^date:')"
same "Content-Length is the body's length" "$(stat -c %s "$WORK/body")" \
    "$(printf '%s' "$head" | sed -n 's/^[Cc]ontent-[Ll]ength: //p')"
same "curl uses one connection for two requests" "1 0" \
    "$(curl -sS -o /dev/null -o /dev/null -w '%{num_connects} ' "$URL/" "$URL/livez" | sed 's/ $//')"
same "curl gets 204 for OPTIONS" 204 "$(curl -sS -o /dev/null -w '%{http_code}' -X OPTIONS "$URL/")"
same "curl --http1.0" 200 "$(curl -sS -o /dev/null -w '%{http_code}' --http1.0 "$URL/")"
same "curl asking for an upgrade to HTTP/2 is answered in 1.1" "200 1.1" \
    "$(curl -sS -o /dev/null -w '%{http_code} %{http_version}' --http2 "$URL/" 2>/dev/null || echo failed)"
same "curl posting a megabyte gets its answer" 405 \
    "$(head -c 1000000 /dev/zero | curl -sS -o /dev/null -w '%{http_code}' --data-binary @- -H Expect: "$URL/")"

if has wget wget; then
    wget -q -T 5 -t 1 -O "$WORK/wget" "$URL/" || true
    read_by wget "$WORK/wget"
    check "wget HEAD (--spider)" wget -q -T 5 -t 1 --spider "$URL/"
    wget -q -T 5 -t 1 -O "$WORK/wget10" --no-http-keep-alive "$URL/" || true
    read_by "wget without keep-alive" "$WORK/wget10"
fi

if has busybox busybox; then
    timeout 10 busybox wget -q -O "$WORK/busybox" "$URL/" || true
    read_by "busybox wget" "$WORK/busybox"
    if busybox wget --help 2>&1 | grep -q spider; then
        check "busybox wget HEAD (--spider)" timeout 10 busybox wget -q --spider "$URL/"
    fi
fi

# One script for the Python clients: http.client on a persistent connection, urllib, requests with a session.
PY=python3
if ! python3 -c 'import requests' 2>/dev/null && /usr/bin/python3 -c 'import requests' 2>/dev/null; then
    PY=/usr/bin/python3
fi
"$PY" - "$URL" >"$WORK/python" 2>&1 <<'E2' || echo "the script failed" >>"$WORK/python"
import http.client, json, socket, sys, urllib.parse, urllib.request

url = sys.argv[1]
host = urllib.parse.urlsplit(url).netloc


def say(name, good):
    print(("good " if good else "bad ") + name)


connection = http.client.HTTPConnection(host, timeout=5)
sockets = set()
for path in ("/", "/livez", "/anything/else"):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    sockets.add(id(connection.sock))
    say("http.client GET " + path, answer.status == 200 and len(body) > 0)
connection.request("HEAD", "/")
answer = connection.getresponse()
say("http.client HEAD has a length and no body", int(answer.getheader("Content-Length")) > 2 and answer.read() == b"")
connection.request("GET", "/")
say("http.client goes on after HEAD", json.loads(connection.getresponse().read())[0]["Command"] == "sleep")
say("http.client keeps one connection", sockets == {id(connection.sock)} and connection.sock is not None)

say("urllib", json.load(urllib.request.urlopen(url + "/", timeout=5))[0]["Status"] == "running")

# The request of Go's net/http: its own User-Agent, gzip accepted, and a connection that is kept and reused.
port = int(host.rsplit(":", 1)[1])
with socket.create_connection(("127.0.0.1", port), 5) as s:
    seen = b""
    for _ in range(3):
        s.sendall(b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += s.recv(65536)
        seen += head[:12]
    say("keep-alive as Go's client does it", seen == b"HTTP/1.1 200" * 3)

try:
    import requests
except ImportError:
    print("# requests is not installed: left out")
else:
    with requests.Session() as session:
        answer = session.get(url + "/", timeout=5)
        say("requests GET", answer.json()[0]["Command"] == "sleep")
        say("requests knows it is JSON", answer.headers["Content-Type"].startswith("application/json"))
        head = session.head(url + "/", timeout=5)
        say("requests HEAD", head.status_code == 200 and head.content == b"")
        say("requests OPTIONS", session.options(url + "/", timeout=5).status_code == 204)
        say("requests DELETE is refused", session.delete(url + "/", timeout=5).status_code == 405)
E2
while read -r word rest; do
    case $word in
        good) ok "$rest" ;;
        bad) not_ok "$rest" ;;
        '#') echo "# $rest" ;;
        *) not_ok "python: $word $rest" ;;
    esac
done <"$WORK/python"

if has node node && node -e 'process.exit(typeof fetch === "function" ? 0 : 1)' 2>/dev/null; then
    node - "$URL" >"$WORK/node" 2>&1 <<'E2' || echo "the script failed" >>"$WORK/node"
const url = process.argv[2];
const say = (name, good) => console.log((good ? "good " : "bad ") + name);
(async () => {
  const got = await fetch(url + "/");
  say("Node fetch GET", (await got.json())[0].Command === "sleep");
  const head = await fetch(url + "/", { method: "HEAD" });
  say("Node fetch HEAD", head.status === 200 && (await head.text()) === "");
  const many = await Promise.all(Array.from({ length: 50 }, () => fetch(url + "/livez").then((r) => r.text())));
  say("Node fetch, fifty at once", many.every((text) => text.startsWith("ok")));
})();
E2
    while read -r word rest; do
        case $word in
            good) ok "$rest" ;;
            bad) not_ok "$rest" ;;
            *) not_ok "node: $word $rest" ;;
        esac
    done <"$WORK/node"
fi

stop "$kapo"
same "TERM ends it with the command's code" 143 "$CODE"
check "the port is closed afterwards" code_is "$URL/" 000
finish
