#!/usr/bin/env bash
# Tests captured output in volume: a gigabyte to each kind of sink, a stalled reader, ten million lines, an endless
# line, thousands of short runs. The variables BYTES, LINES, LONG_LINE and RUNS set the sizes.
# The dollar signs in single quotes are for awk and for the shells that are started.
# shellcheck disable=SC2016
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 sha256sum curl

BYTES=${BYTES:-1073741824}
LINES=${LINES:-10000000}
LONG_LINE=${LONG_LINE:-1073741824}
RUNS=${RUNS:-3000}
ROOM=$(df --output=avail -B1 "$WORK" | tail -1)
[ "$ROOM" -gt $((4 * BYTES)) ] || skip_all "$WORK has too little room"
kapo=("$KAPO" --quiet --interface 127.0.0.1 --port 0)

head -c "$BYTES" /dev/urandom >"$WORK/bytes"
SUM=$(sha256sum <"$WORK/bytes")

sum_of() { same "$1" "$SUM" "$(sha256sum)"; }

# Runs in this shell, so that the counters are kept.
sum_of "a pipe" < <("${kapo[@]}" --stdout run cat "$WORK/bytes" | cat)

mkfifo "$WORK/fifo"
"${kapo[@]}" --stdout run cat "$WORK/bytes" >"$WORK/fifo" &
sum_of "a FIFO" <"$WORK/fifo"
wait $!

"${kapo[@]}" --stdout run cat "$WORK/bytes" >"$WORK/out"
sum_of "a file" <"$WORK/out"
rm "$WORK/out"
"${kapo[@]}" --stdout run cat "$WORK/bytes" >>"$WORK/out"
sum_of "an O_APPEND file" <"$WORK/out"
rm "$WORK/out"

# A socket and a terminal with a reader in Python. A terminal in raw mode does not change the bytes.
read_from() {
    python3 - "$1" "$BYTES" "${kapo[@]}" --stdout run cat "$WORK/bytes" <<'PYTHON'
import hashlib, os, pty, socket, subprocess, sys, tty
kind, wanted, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if kind == "socket":
    ours, theirs = (each.detach() for each in socket.socketpair())
else:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=theirs)
os.close(theirs)
total, digest = 0, hashlib.sha256()
while total < wanted:
    data = os.read(ours, 1 << 20)
    if not data:
        break
    total += len(data)
    digest.update(data)
process.wait()
print(digest.hexdigest() + "  -")
PYTHON
}
same "a socket" "$SUM" "$(read_from socket)"
same "a terminal" "$SUM" "$(read_from terminal)"

"${kapo[@]}" -SE run sh -c "cat '$WORK/bytes' & cat '$WORK/bytes' >&2; wait" \
    > >(sha256sum >"$WORK/one") 2> >(sha256sum >"$WORK/two")
wait_until 60 test -s "$WORK/one" -a -s "$WORK/two" || true
same "both streams at once" "$SUM $SUM" "$(cat "$WORK/one") $(cat "$WORK/two")"

# The reader stalls for three seconds in the middle, and kapo answers meanwhile.
PORT=$(free_port)
"$KAPO" --quiet --interface 127.0.0.1 --port "$PORT" --stdout run cat "$WORK/bytes" |
    { head -c 1000000; sleep 3; cat; } | sha256sum >"$WORK/stalled" &
STALLED=$!
wait_until 10 code_is "http://127.0.0.1:$PORT/livez" 200
for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.1
    curl -s -o /dev/null -w '%{time_total}\n' "http://127.0.0.1:$PORT/"
done | sort -n >"$WORK/times"
printf '   answers during the stall: %s s at most\n' "$(tail -n 1 "$WORK/times")"
check "answers within 100 ms during the stall" \
    awk 'END { exit !(NR == 10 && $1 > 0 && $1 < 0.1) }' "$WORK/times"
wait "$STALLED"
same "a stalled reader loses nothing" "$SUM" "$(cat "$WORK/stalled")"
rm "$WORK/bytes"

# Lines of 100 bytes, each with its number.
lines_are_right() {
    python3 -c '
import sys
number = 0
for line in sys.stdin.buffer:
    number += 1
    if line[0:5] != b"time=" or line[32:] != b" level=info stream=stdout msg=\"%099d\"\n" % number:
        sys.exit(f"line {number} is {line!r}")
print(number)'
}
same "$LINES lines by --stdlog" "$LINES" \
    "$("${kapo[@]}" --stdout --stdlog run seq -f %099.0f "$LINES" | lines_are_right)"

for flags in --stdout "--stdout --stdlog"; do
    PORT=$(free_port)
    # shellcheck disable=SC2086  # flags are words
    "$KAPO" -q -i 127.0.0.1 -p "$PORT" $flags run --wait 60 sh -c "head -c $LONG_LINE /dev/zero | tr '\\0' x" >/dev/null &
    PID=$!
    STARTED+=("$PID")
    has_ended() { [ "$(status "http://127.0.0.1:$PORT" Status)" = stopped ]; }
    wait_until 120 has_ended
    PEAK=$(awk '/^VmHWM/ { print $2 }' "/proc/$PID/status")
    printf '   a line of %s bytes by %s: peak of %s KiB\n' "$LONG_LINE" "$flags" "$PEAK"
    check "a line without end takes bounded memory by $flags" test "$PEAK" -lt 3000
    stop "$PID"
done

lost=0
for _ in $(seq "$RUNS"); do
    [ "$("${kapo[@]}" --stdout run -- echo x)" = x ] || lost=$((lost + 1))
done
same "lines lost in $RUNS runs of echo" 0 "$lost"

finish
