#!/usr/bin/env bash
# Runs the same commands under kapo and under tini, dumb-init, catatonit, supervisord, s6-supervise and runsv, and
# checks what docs/coming-from.md says about each of them.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need tini dumb-init catatonit supervisord supervisorctl s6-supervise s6-svc s6-svstat s6-log runsv sv python3 unshare script pgrep ps

# kapo without its port and its messages about normal ends.
K=("$KAPO" --quiet --interface none)
RUN=("${K[@]}" run)

# What each program exits with when the command of this line is run by it.
# exit_codes NAME "TINI DUMB-INIT CATATONIT KAPO" COMMAND...
exit_codes() {
    local name=$1 wanted=$2 got="" each
    shift 2
    for each in "tini -s --" "dumb-init --" "catatonit --" "${RUN[*]} --"; do
        local code=0
        # shellcheck disable=SC2086  # the words of the program
        $each "$@" >>"$WORK/exit_codes.log" 2>&1 </dev/null || code=$?
        got="$got${got:+ }$code"
    done
    same "exit code, tini, dumb-init, catatonit, kapo: $name" "$wanted" "$got"
}
printf 'echo\n' >"$WORK/not-executable"
printf '#!/nowhere/sh\n' >"$WORK/no-interpreter"
printf 'exit 4\n' >"$WORK/no-first-line"
chmod +x "$WORK"/no-*
exit_codes "exit 0" "0 0 0 0" true
exit_codes "exit 3" "3 3 3 3" sh -c 'exit 3'
# shellcheck disable=SC2016  # for the shells below
{
    exit_codes "TERM" "143 143 143 143" sh -c 'kill -TERM $$'
    exit_codes "KILL" "137 137 137 137" sh -c 'kill -KILL $$'
    exit_codes "signal 34" "162 162 162 162" sh -c 'kill -34 $$'
}
exit_codes "not found" "127 2 1 127" nothing-has-this-name
exit_codes "not executable" "126 2 1 126" "$WORK/not-executable"
exit_codes "without its interpreter" "127 2 1 126" "$WORK/no-interpreter"
exit_codes "a script without its first line" "4 4 4 4" "$WORK/no-first-line"
# supervisord begins now, because it takes its time; its checks are below.
# count NAME CODE...: adds a line to NAME, and exits with the first code the first time, and so on; the last one remains.
cat >"$WORK/count" <<'S'
#!/bin/sh
echo start >>"$1"
runs=$(wc -l <"$1")
[ "$runs" -lt "$#" ] || runs=$(($# - 1))
shift "$runs"
exit "$1"
S
chmod +x "$WORK/count"
S=$WORK/supervisor
mkdir "$S"
# program NAME COMMAND OPTION...: adds a program.
program() {
    printf '[program:%s]\ncommand=%s\n' "$1" "$2"
    shift 2
    printf '%s\n' "$@" ''
}
counted() { program "$1" "$WORK/count $S/$1 $2" startsecs=0 "${@:3}"; }
treed() {
    mkdir "$WORK/tree-$1"
    program "$1" "python3 -S -I $WORK/tree.py $WORK/tree-$1" stopwaitsecs=1 "${@:2}"
}
{
    printf '[supervisord]\nnodaemon=true\nlogfile=%s/log\npidfile=%s/pid\nchildlogdir=%s\n' "$S" "$S" "$S"
    printf '[unix_http_server]\nfile=%s/socket\n[supervisorctl]\nserverurl=unix://%s/socket\n' "$S" "$S"
    printf '[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n'
    counted success "0 0 0" # autorestart=unexpected, exitcodes=0
    counted failure "3 3 0"
    counted listed "3" exitcodes=0,3
    counted never "3" autorestart=false
    counted always "0 0 0" autorestart=true
    program quick "$WORK/count $S/quick 0" startsecs=9 startretries=1
    program slow "$WORK/count $S/slow 0" startsecs=9 startretries=2
    program inner "$KAPO --interface none --run-dir $S --name inner run -- sh -c 'echo said; exec sleep 600'"
    program missing nothing-has-this-name startretries=0
    program place "$WORK/place $S/place.txt" directory=/usr umask=027
    treed default stopsignal=QUIT
    treed group stopsignal=TERM stopasgroup=true
    printf '[eventlistener:listener]\ncommand=python3 -S -I %s/listener.py %s/events\nevents=PROCESS_STATE\nbuffer_size=1000\npriority=1000\n' "$S" "$S"
} >"$S/conf"
cat >"$S/listener.py" <<'P'
import sys
while True:
    sys.stdout.write("READY\n"); sys.stdout.flush()
    head = dict(each.split(":") for each in sys.stdin.readline().split())
    body = sys.stdin.read(int(head["len"]))
    open(sys.argv[1], "a").write("%s %s\n" % (head["eventname"], body))
    sys.stdout.write("RESULT 2\nOK"); sys.stdout.flush()
P
# Where the command runs and what its streams are.
cat >"$WORK/place" <<'S'
#!/bin/sh
said="$(pwd) $(umask)"
for each in 0 1 2; do said="$said $(readlink "/proc/$$/fd/$each" | sed 's/:.*//')"; done
echo "$said" >"$1.new" && mv "$1.new" "$1"
exec sleep 600
S
chmod +x "$WORK/place"
ctl() { supervisorctl -c "$S/conf" "$@"; }
start supervisord supervisord -c "$S/conf"
supervisord=$PID
# And so do s6 and runit.
mkdir "$WORK/s6" "$WORK/runit"
cat >"$WORK/s6/run" <<S
#!/bin/sh
echo start >>starts
[ ! -e code ] || exit "\$(cat code)"
exec python3 -S -I "$WORK/tree.py" "\$PWD"
S
cat >"$WORK/s6/finish" <<'S'
#!/bin/sh
echo "$1 $2" >>ends
S
chmod +x "$WORK/s6/run" "$WORK/s6/finish"
cp "$WORK/s6/run" "$WORK/s6/finish" "$WORK/runit/"
start s6 s6-supervise "$WORK/s6"
# shellcheck disable=SC2034  # used by its name
s6=$PID
start runit runsv "$WORK/runit"
# shellcheck disable=SC2034  # used by its name
runit=$PID

# On stderr: the inits write nothing, and kapo without --quiet its log.
for each in "tini -s --" "dumb-init --" "catatonit --" "${RUN[*]} --"; do
    # shellcheck disable=SC2086  # the words of the program
    same "${each##*/} true writes nothing" "" "$($each true 2>&1)"
done
matches "kapo without --quiet" 'msg="exited".* code=0' "$("$KAPO" -i none run -- true 2>&1)"
# The terminal: the command has its foreground. With `exec`, because dumb-init gets it only if it leads the session, and
# script(1) starts it through a shell that may fork first.
for each in "tini -s --" "dumb-init --" "catatonit --" "${RUN[*]} --"; do
    # shellcheck disable=SC2016  # for the shell
    matches "foreground on a terminal: ${each##*/}" '^ *([0-9]+) +\1[[:space:]]*$' \
        "$(SHELL=/bin/sh script -qec "exec $each sh -c 'ps -o tpgid=,pgid= -p \$\$'" /dev/null </dev/null)"
done
start_kapo first run -- sleep 600
first=$PID
code=0
"$KAPO" --interface 127.0.0.1 --port "${URL##*:}" run -- touch "$WORK/touched" 2>"$WORK/second.log" || code=$?
same "kapo exits with 125 if its port is taken" 125 "$code"
check "and does not start the command" test ! -e "$WORK/touched"
stop "$first"
catatonit -P >"$WORK/pause.log" 2>&1 &
PID=$!
is_pausing() { [ "$(cat "/proc/$1/comm")" = catatonit ] && grep -q '^State:.S' "/proc/$1/status"; }
check "catatonit -P has no command" wait_until 5 is_pausing "$PID"
# A TERM that comes early has no effect.
stop "$PID" KILL
code=0
"${RUN[@]}" 2>"$WORK/pause.log" || code=$?
same "kapo needs one" 2 "$code"
# Words of the others are errors, and start nothing.
for each in "-- touch" "run -g -- touch" "run -e 3 -- touch" "run -s -- touch"; do
    code=0
    # shellcheck disable=SC2086  # several words
    "${K[@]}" $each "$WORK/touched" 2>"$WORK/words.log" || code=$?
    same "kapo $each" 2 "$code"
done
check "nothing was started" test ! -e "$WORK/touched"

# Three processes: the command itself, a child in its process group, and a child in a session of its own. Each writes
# the signals that it gets to the file `signals` and ends at TERM; with `stubborn` the child in the process group does not end.
cat >"$WORK/tree.py" <<'P'
import os, signal, sys
folder, stubborn = sys.argv[1], sys.argv[2:] == ["stubborn"]
# O_APPEND keeps the lines of several processes whole.
log = os.open(folder + "/signals", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def member(name, session):
    def handler(number, frame):
        # RTMAX ends the processes that the check has left, after every signal that is already pending.
        if number == signal.SIGRTMAX:
            os._exit(0)
        os.write(log, ("%s %s\n" % (name, signal.Signals(number).name)).encode())
        if number == signal.SIGTERM and not (stubborn and name == "child"):
            os._exit(0)
    if session:
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGRTMAX):
        signal.signal(number, handler)
    with open("%s/%s.pid" % (folder, name), "w") as file:
        file.write("%d" % os.getpid())
    os.rename("%s/%s.pid" % (folder, name), "%s/%s" % (folder, name))
if not os.fork():
    member("child", False)
elif not os.fork():
    member("session", True)
else:
    with open(folder + "/leads", "w") as file:
        file.write("session" if os.getsid(0) == os.getpid() else "group" if os.getpgrp() == os.getpid() else "nothing")
    member("main", False)
while True:
    signal.pause()
P

# tree NAME PEER...: starts the three processes under the peer; $PID is the peer, $TREE their folder.
tree() {
    local name=$1
    shift
    TREE=$WORK/tree-$name
    mkdir "$TREE"
    start "tree-$name" "$@" python3 -S -I "$WORK/tree.py" "$TREE" "${MODE-}"
    wait_until 10 tree_ready "$TREE" || not_ok "$name: the processes start"
}

tree_ready() { [ -e "$1/child" ] && [ -e "$1/session" ] && [ -e "$1/main" ]; }
tree_wrote() { grep -qx "$1" "$TREE/signals"; }

# tree_kill FOLDER: ends those that are left. A pid may belong to another process by now.
tree_kill() {
    local each pid
    for each in "$1/child" "$1/session" "$1/main"; do
        [ -e "$each" ] || continue
        pid=$(cat "$each")
        ! tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$1" || kill -RTMAX "$pid" 2>/dev/null || true
    done 2>/dev/null
}
clean_more() {
    local each
    for each in "$WORK"/*/child; do tree_kill "${each%/child}"; done
}

# tree_end: ends what is left, and prints what the processes got.
tree_end() {
    local each
    tree_kill "$TREE"
    for each in child session main; do
        wait_until 5 tree_gone "$each" || true
    done
    sort "$TREE/signals" | paste -sd, -
}
# Gone, or a zombie whose parent does not reap it.
ended() { ! grep -qs '^State:.[^Z]' "/proc/$1/status"; }
tree_gone() { ended "$(cat "$TREE/$1")"; }

# got_term NAME WANTED PEER...: which processes get a TERM that the peer gets.
got_term() {
    local name=$1 wanted=$2
    shift 2
    tree "$name" "$@"
    stop "$PID"
    same "TERM reaches under $name (exit code $CODE)" "$wanted" "$(tree_end)"
}
all=child\ SIGTERM,main\ SIGTERM
got_term tini "main SIGTERM" tini -s --
got_term tini-g "$all" tini -s -g --
got_term tini-environment "$all" env TINI_SUBREAPER=1 TINI_KILL_PROCESS_GROUP=1 tini --
got_term dumb-init "$all" dumb-init --
got_term dumb-init-single-child "main SIGTERM" dumb-init --single-child --
got_term catatonit "main SIGTERM" catatonit --
got_term catatonit-g "$all" catatonit -g --
got_term kapo "$all" "${RUN[@]}" --
got_term kapo-single-child "main SIGTERM" "${RUN[@]}" --single-child --
# shellcheck disable=SC2016  # for the shell
got_term shell "" sh -c '"$@" & wait' sh
got_term kapo-and-shell "main SIGTERM" "${RUN[@]}" --single-child -- sh -c 'exec "$@"' sh
leads() { cat "$WORK/tree-$1/leads"; }
same "what the command leads, tini, dumb-init, dumb-init -c, catatonit, kapo" "group session nothing group group" \
    "$(leads tini) $(leads dumb-init) $(leads dumb-init-single-child) $(leads catatonit) $(leads kapo)"

# The command ends by itself; what happens to the child in its process group?
# end_of_main NAME WANTED PEER...
end_of_main() {
    local name=$1 wanted=$2
    shift 2
    tree "end-$name" "$@"
    kill -RTMAX "$(cat "$TREE/main")"
    wait "$PID" || true
    same "a command that ends by itself leaves a process under $name, which gets" "$wanted" "$(tree_end)"
}
end_of_main tini "" tini -s -g --
end_of_main dumb-init "child SIGTERM" dumb-init --
end_of_main dumb-init-single-child "" dumb-init --single-child --
end_of_main catatonit "" catatonit --
end_of_main kapo "" "${RUN[@]}" --
tree end-kapo-supervise "${K[@]}" supervise --wait 600 --
kill -RTMAX "$(cat "$TREE/main")"
check "kapo supervise ends it before the next start" wait_until 5 tree_wrote "child SIGTERM"
stop "$PID"
tree_end >/dev/null

# The command ends at TERM, its child does not.
# stubborn NAME WANTED PEER...: whether the child is alive when the peer has ended.
stubborn() {
    local name=$1 wanted=$2 left=gone
    shift 2
    MODE=stubborn tree "stubborn-$name" "$@"
    stop "$PID"
    tree_gone child || left=alive
    tree_end >/dev/null
    same "a child that ignores TERM, after the end of $name" "$wanted" "$left"
}
stubborn tini alive tini -s -g --
stubborn dumb-init alive dumb-init --
stubborn catatonit alive catatonit -g --
stubborn kapo gone "${RUN[@]}" --kill-after 0.2 --
stubborn kapo-single-child alive "${RUN[@]}" --single-child --

# killed NAME WANTED PEER...: what the processes get when the peer is killed.
killed() {
    local name=$1 wanted=$2
    shift 2
    tree "killed-$name" "$@"
    stop "$PID" KILL
    [ -z "$wanted" ] || wait_until 5 tree_wrote "$wanted" || true
    same "SIGKILL of $name" "$wanted" "$(tree_end)"
}
killed tini "" tini -s -g --
killed dumb-init "" dumb-init --
killed catatonit "" catatonit -g --
killed kapo "main SIGTERM" "${RUN[@]}" --
killed kapo-0 "" "${RUN[@]}" --orphan-signal 0 --

# Other signals, and rewritten ones. got NAME WANTED SIGNAL PEER...: the signal, and a TERM when it has arrived.
got() {
    local name=$1 wanted=$2 signal=$3
    shift 3
    tree "$name" "$@"
    kill "-$signal" "$PID"
    wait_until 5 test -s "$TREE/signals" || true
    kill -KILL "$PID" || true
    wait "$PID" 2>/dev/null || true
    same "$signal under $name" "$wanted" "$(tree_end)"
}
# KILL of kapo sends its --orphan-signal, which must not be one of the signals here.
QUIET=(--orphan-signal RTMAX)
got tini-hup "main SIGHUP" HUP tini -s --
got catatonit-hup "main SIGHUP" HUP catatonit --
got kapo-hup "main SIGHUP" HUP "${RUN[@]}" "${QUIET[@]}" --single-child --
got dumb-init-hup "child SIGHUP,main SIGHUP" HUP dumb-init --
got kapo-group-hup "child SIGHUP,main SIGHUP" HUP "${RUN[@]}" "${QUIET[@]}" --
got dumb-init-rewrite "child SIGQUIT,main SIGQUIT" TERM dumb-init --rewrite 15:3 --
got kapo-rewrite "child SIGQUIT,main SIGQUIT" TERM "${RUN[@]}" "${QUIET[@]}" --rewrite-signal 15:3 --

# Rewritten to 0: HUP is dropped. TERM follows it.
for each in "dumb-init --rewrite 1:0 --" "${RUN[*]} --rewrite-signal HUP:0 --"; do
    # shellcheck disable=SC2086  # the words of the program
    tree "zero-$(basename "${each%% *}")" $each
    kill -HUP "$PID"
    stop "$PID"
    same "HUP is dropped: ${each##*/}" "$all" "$(tree_end)"
done

# A child whose parent has ended: which process adopts it, and is it reaped? $1: how many seconds that may take.
cat >"$WORK/orphan.py" <<'P'
import os, sys, time
peer = os.getppid()
read, write = os.pipe()
if not os.fork():
    parent = os.getpid()
    if not os.fork():
        while os.getppid() == parent:
            time.sleep(0.01)
        os.write(write, b"%d %d" % (os.getppid(), os.getpid()))
    os._exit(0)
os.wait()
adopter, orphan = os.read(read, 40).split()
os.close(write)
os.read(read, 1)  # until the orphan has ended
name = {peer: "peer", os.getpid(): "itself"}.get(int(adopter), "other")
until = time.monotonic() + float(sys.argv[1])
while os.path.exists("/proc/%d" % int(orphan)) and time.monotonic() < until:
    time.sleep(0.01)
print(name, "" if name == "other" else "zombie" if os.path.exists("/proc/%d" % int(orphan)) else "reaped")
sys.exit(5)
P
# adopts NAME WANTED PEER...
adopts() {
    local name=$1 wanted=$2 limit=10 code=0 said
    shift 2
    # An init of this machine may take its time.
    case $wanted in *zombie* | other*) limit=0 ;; esac
    said=$("$@" python3 -S -I "$WORK/orphan.py" "$limit" 2>"$WORK/adopts.log") || code=$?
    same "an orphan under $name" "$wanted, exit code 5" "${said% }, exit code $code"
}
adopts "tini is adopted by another process" other tini --
adopts "tini -s" "peer reaped" tini -s --
adopts "TINI_SUBREAPER" "peer reaped" env TINI_SUBREAPER= tini --
adopts "dumb-init is adopted by another process" other dumb-init --
adopts "catatonit" "peer reaped" catatonit --
adopts "kapo" "peer reaped" "${RUN[@]}" --
pid1() {
    local name=$1 wanted=$2
    shift 2
    adopts "$name as PID 1" "$wanted" unshare --fork --pid --mount-proc "$@"
}
if unshare --fork --pid --mount-proc true 2>/dev/null; then
    pid1 "no init" "itself zombie"
    pid1 "tini" "peer reaped" tini --
    pid1 "dumb-init" "peer reaped" dumb-init --
    pid1 "catatonit" "peer reaped" catatonit --
    pid1 "kapo" "peer reaped" "${RUN[@]}" --
else
    echo "# PID 1: left out, unshare is not permitted"
fi

# tini's -w, -v, -e and -p.
warned() { "$@" sh -c '(true &); exit 3' 2>&1 || true; }
matches "tini -w warns about each orphan" 'Reaped zombie process' "$(for _ in 1 2 3 4 5; do warned tini -w -s --; done)"
matches "tini -v" 'Main child exited normally \(with status .3.\)' "$(tini -v -s -- sh -c 'exit 3' 2>&1 || true)"
matches "TINI_VERBOSITY=2" 'Main child exited' "$(TINI_VERBOSITY=2 tini -s -- true 2>&1)"
matches "kapo without --quiet and exit 3" 'msg="exited".* code=3' "$("$KAPO" -i none run -- sh -c 'exit 3' 2>&1 || true)"
# mapped "WANTED CODES" COMMAND... : the command under tini with two -e, and under kapo with --success-exit.
mapped() {
    local wanted=$1 got="" code
    shift
    code=0; tini -s -e 3 -e 143 -- "$@" || code=$?; got=$code
    code=0; "${RUN[@]}" --success-exit 3,143 -- "$@" 2>>"$WORK/mapped.log" || code=$?; got="$got $code"
    code=0; "${RUN[@]}" --success-exit 3,TERM -- "$@" 2>>"$WORK/mapped.log" || code=$?; got="$got $code"
    same "-e 3 -e 143, --success-exit 3,143 and 3,TERM: $*" "$wanted" "$got"
}
mapped "0 0 0" sh -c 'exit 3'
mapped "4 4 4" sh -c 'exit 4'
# shellcheck disable=SC2016  # for the shell below
mapped "0 0 0" sh -c 'kill -TERM $$'
mapped "0 0 143" sh -c 'exit 143'
# -p: the peer gets the signal when its parent ends.
# parent_dies NAME WANTED PEER...
parent_dies() {
    local name=$1 wanted=$2
    shift 2
    TREE=$WORK/tree-parent-$name
    mkdir "$TREE"
    # The subshell is the parent; it ends when the processes are there.
    (
        "$@" python3 -S -I "$WORK/tree.py" "$TREE" >"$WORK/parent.log" 2>&1 </dev/null &
        echo "$!" >"$TREE/pid"
        wait_until 10 tree_ready "$TREE"
    )
    if [ "$wanted" = alive ]; then
        # It has no signal but ours.
        kill -USR1 "$(cat "$TREE/main")"
        check "$name lives on when its parent ends" wait_until 5 tree_wrote "main SIGUSR1"
        same "without a signal" "main SIGUSR1" "$(cat "$TREE/signals")"
        kill -TERM "$(cat "$TREE/pid")"
    else
        check "$name gets its signal when its parent ends" wait_until 5 tree_wrote "main $wanted"
        kill -TERM "$(cat "$TREE/pid")" 2>/dev/null || true
    fi
    check "and ends" wait_until 5 ended "$(cat "$TREE/pid")"
    tree_end >/dev/null
}
parent_dies tini-p SIGHUP tini -s -p SIGHUP --
parent_dies kapo-p SIGHUP "${RUN[@]}" --parent-death-signal SIGHUP --
parent_dies tini alive tini -s --
parent_dies kapo alive "${RUN[@]}" --

# --- supervisord ---
# event NAME STATE: the listener has got the state. This is faster than supervisorctl.
event() { grep -qE "^PROCESS_STATE_$2 processname:$1 " "$S/events"; }
check "an event listener gets the states" wait_until 15 event success EXITED
runs() { wc -l <"$1"; }
runs_reach() { [ "$(runs "$1")" -ge "$2" ]; }
runs_are() { [ "$(runs "$1")" = "$2" ]; }
# under_kapo NAME "CODES" "RUNS, CODE" ARGUMENT...: the same command under kapo.
under_kapo() {
    local name=$1 codes=$2 wanted=$3 code=0
    shift 3
    # shellcheck disable=SC2086  # several codes
    "${K[@]}" "$@" -- "$WORK/count" "$WORK/count-$name" $codes >>"$WORK/under_kapo.log" 2>&1 || code=$?
    same "the same with kapo $*" "$wanted" "$(runs "$WORK/count-$name") runs, exit code $code"
}
check "autorestart=unexpected: a success ends" grep -q 'success (exit status 0; expected)' "$S/log"
under_kapo success "0 0 0" "1 runs, exit code 0" supervise --wait 0.1 --restart on-failure
check "a failure is started again until a success" wait_until 10 event failure EXITED
check "in the third run" wait_until 5 runs_are "$S/failure" 3
under_kapo failure "3 3 0" "3 runs, exit code 0" supervise --wait 0.1 --restart on-failure
check "exitcodes=0,3 makes 3 expected" wait_until 5 grep -q 'listed (exit status 3; expected)' "$S/log"
under_kapo listed 3 "1 runs, exit code 0" supervise --wait 0.1 --restart on-failure --success-exit 3
under_kapo final 3 "1 runs, exit code 3" supervise --wait 0.1 --no-restart-on 3
check "autorestart=false" wait_until 5 grep -q 'never (exit status 3; not expected)' "$S/log"
under_kapo never 3 "1 runs, exit code 3" run
check "autorestart=true starts again after a success" wait_until 10 runs_reach "$S/always" 3
under_kapo always "0 0 0" "3 runs, exit code 0" supervise --wait 0.1 --max-restarts 2
check "startretries=1: FATAL" wait_until 10 event quick FATAL
same "after two starts" 2 "$(runs "$S/quick")"
under_kapo quick "3 4" "2 runs, exit code 4" supervise --wait 0.1 --max-restarts 1
check "a missing command is FATAL" wait_until 10 event missing FATAL
check "and supervisord goes on" kill -0 "$supervisord"
code=0
"${K[@]}" supervise --max-restarts 0 --no-restart-on 127 -- nothing-has-this-name 2>>"$WORK/under_kapo.log" || code=$?
same "kapo supervise --no-restart-on 127 gives up at once if the command is missing" 127 "$code"
same "never has run once" 1 "$(runs "$S/never")"
same "success too" 1 "$(runs "$S/success")"
for each in default group; do check "supervisord has started $each" wait_until 10 tree_ready "$WORK/tree-$each"; done
check "the place is known" wait_until 10 test -s "$S/place.txt"
same "directory= and umask=; the output and the input are pipes" "/usr 0027 pipe pipe pipe" "$(cat "$S/place.txt")"
start_place() {
    cd /usr
    umask 027
    exec "${RUN[@]}" -- "$WORK/place" "$WORK/place.txt"
}
touch "$WORK/input"
start_place >"$WORK/place.out" 2>"$WORK/place.err" <"$WORK/input" &
PID=$!
check "kapo has started it" wait_until 10 test -s "$WORK/place.txt"
same "kapo: those of its caller" "/usr 0027 $WORK/input $WORK/place.out $WORK/place.err" "$(cat "$WORK/place.txt")"
same "kapo's own directory is /" / "$(readlink "/proc/$PID/cwd")"
stop "$PID"
code=0
said=$(ctl status) || code=$?
matches "supervisorctl status shows the states (exit code $code)" '^quick +FATAL' "$said"
same "and has an exit code of its own" 3 "$code"
matches "kapo as a program of supervisord" '^inner +running' "$("$KAPO" ls "$S" 2>&1)"
same "supervisord: the command leads a" group "$(cat "$WORK/tree-default/leads")"
printf '%s\n' "tail inner" "stop inner" "stop default" "signal HUP group" | ctl >"$WORK/ctl.log" 2>&1
matches "supervisorctl tail" '(^|[ >])said$' "$(cat "$WORK/ctl.log")"
check "supervisorctl stop ends kapo" grep -q 'stopped: inner (exit status 143)' "$S/log"
TREE=$WORK/tree-default
check "stopwaitsecs: KILL" grep -q "killing 'default'.*SIGKILL" "$S/log"
check "supervisord leaves the child" kill -0 "$(cat "$TREE/child")"
same "stopsignal=QUIT" "main SIGQUIT" "$(tree_end)"
tree kapo-stop "${RUN[@]}" --single-child --rewrite-signal TERM:QUIT --kill-after 0.5 --
stop "$PID"
same "kapo kills it, too" 137 "$CODE"
same "kapo --rewrite-signal TERM:QUIT --single-child" "main SIGQUIT" "$(tree_end)"
TREE=$WORK/tree-group
check "supervisorctl signal HUP" wait_until 5 tree_wrote "main SIGHUP"
check "startretries=2 gives up" wait_until 10 event slow FATAL
pauses() { sed -n "s/^\([^ ]* [0-9:]*\),\(...\) INFO spawned: '$1'.*/\1.\2/p" "$S/log" | python3 -c '
import datetime, sys
times = [datetime.datetime.fromisoformat(line.strip()) for line in sys.stdin]
print(*(int((b - a).total_seconds()) for a, b in zip(times, times[1:])))'; }
matches "its pauses become longer" '^[1-9][0-9]* ([2-9]|[1-9][0-9]+)$' "$(pauses slow)"
# It ends its programs one after the other, which takes seconds; the checks are below.
kill -TERM "$supervisord"

# A second kind of stop: `supervisorctl restart`.
D=$WORK/run
mkdir "$D"
start restart "$KAPO" --interface none --run-dir "$D" --name worker supervise --wait 0.1 --rewrite-signal USR1:TERM -- sleep 600
restart=$PID
answers() { "$KAPO" check "unix:$D/worker.sock" >"$WORK/check.log" 2>&1; }
check "kapo ls shows a program" wait_until 10 answers
matches "with its state" '^worker +running' "$("$KAPO" ls "$D")"
kill -USR1 "$restart"
check "--rewrite-signal USR1:TERM restarts the command" wait_until 5 grep -q 'restarts=1' "$WORK/restart.log"
check "kapo answers" wait_until 5 answers
matches "kapo status shows it" 'restarted once, last exit 143' "$(KAPO_RUN_DIR=$D "$KAPO" status worker)"
matches "the run has failed" 'level=warn msg="exited".* reason=signal signal=SIGTERM' "$(cat "$WORK/restart.log")"
stop "$restart"
same "the exit code of kapo supervise after TERM" 143 "$CODE"
start success "$KAPO" --interface none supervise --wait 0.1 --rewrite-signal USR1:TERM --success-exit TERM -- sleep 600
check "kapo supervise --success-exit TERM" wait_until 10 grep -q 'msg="started"' "$WORK/success.log"
kill -USR1 "$PID"
check "the restart is no failure" wait_until 10 grep -q 'level=info msg="exited".* reason=success' "$WORK/success.log"
stop "$PID"

# --- s6 and runit ---
mkdir "$WORK/hook"
cat >"$WORK/hook/hook" <<S
#!/bin/sh
echo "\$KAPO_EVENT \$KAPO_EXIT_CODE \$KAPO_SIGNAL" >>"$WORK/hook/ends"
S
chmod +x "$WORK/hook/hook"
last_end() { [ "$(tail -n 1 "$TREE/ends")" = "$*" ]; }
# kill_run NAME PID: kills the main process of the supervisor PID.
kill_run() {
    check "$1 has started run" wait_until 10 tree_ready "$WORK/$1"
    local main
    main=$(cat "$WORK/$1/main")
    mkdir "$WORK/$1/killed"
    mv "$WORK/$1/child" "$WORK/$1/session" "$WORK/$1/main" "$WORK/$1/killed"
    kill -KILL "$main"
}
# again NAME "ARGUMENTS OF FINISH"
again() {
    TREE=$WORK/$1
    check "$1: finish gets the signal: $2" wait_until 10 last_end "$2"
    check "$1 starts it again" wait_until 10 tree_ready "$TREE"
    kill -RTMAX "$(cat "$TREE/killed/child")" "$(cat "$TREE/killed/session")"
}
kill_run s6
kill_run runit
again s6 "256 9"
again runit "-1 9"
same "run leads, s6 and runit" "session nothing" "$(cat "$WORK/s6/leads") $(cat "$WORK/runit/leads")"
TREE=$WORK/s6
s6-svc -h "$WORK/s6"
check "s6-svc -h" wait_until 5 tree_wrote "main SIGHUP"
same "reaches only run" "main SIGHUP" "$(cat "$TREE/signals")"
TREE=$WORK/runit
sv hup "$WORK/runit"
check "sv hup" wait_until 5 tree_wrote "main SIGHUP"
same "reaches only run" "main SIGHUP" "$(cat "$TREE/signals")"
# A stop: down NAME COMMAND...: TERM only to the main process.
down() {
    local name=$1
    shift
    TREE=$WORK/$name
    : >"$TREE/signals"
    "$@"
    check "$name: the main process gets TERM, and finish its exit code" wait_until 10 last_end "$DOWN"
    check "$name: the child goes on" kill -0 "$(cat "$TREE/child")"
    same "$name: what the processes got" "main SIGTERM" "$(tree_end)"
}
DOWN="0 0" down s6 s6-svc -d "$WORK/s6"
DOWN="0 0" down runit sv -w 7 down "$WORK/runit" >>"$WORK/sv.log"
# exit_of COMMAND...: prints its exit code.
exit_of() { local code=0; "$@" >>"$WORK/exit_of.log" 2>&1 || code=$?; echo "$code"; }
same "s6-svstat and sv status of a service that is down" "0 0" \
    "$(exit_of s6-svstat "$WORK/s6") $(exit_of sv status "$WORK/runit")"
same "kapo status of a kapo that is not there" 3 "$(exit_of "$KAPO" status "unix:$D/nothing.sock")"
start failing "$KAPO" --interface none --run-dir "$D" --name failing supervise --wait 600 -- sh -c 'exit 3'
check "a kapo in its pause" wait_until 10 grep -q 'msg="exited"' "$WORK/failing.log"
same "kapo status of a command that has failed" 1 "$(exit_of "$KAPO" status "unix:$D/failing.sock")"

# s6-svc -o, sv once
before=$(runs "$WORK/s6/starts")
echo 4 | tee "$WORK/s6/code" >"$WORK/runit/code"
once() {
    TREE=$WORK/$1
    check "$1 starts it once" wait_until 10 last_end "$2"
}
s6-svc -o "$WORK/s6"
once s6 "4 0"
sv once "$WORK/runit" >>"$WORK/sv.log"
once runit "4 0"

# finish with 125 (s6) ends the restarts, as --no-restart-on does.
echo 3 >"$WORK/s6/code"
printf 'exit 125\n' >>"$WORK/s6/finish"
before=$(wc -l <"$WORK/s6/starts")
s6-svc -u "$WORK/s6"
TREE=$WORK/s6
check "s6: run exits with 3" wait_until 10 last_end "3 0"
s6_down() { s6-svstat -o wantedup,up "$WORK/s6" | grep -qx 'false false'; }
check "s6: finish with 125 ends the restarts" wait_until 10 s6_down
same "after one start" "$((before + 1))" "$(wc -l <"$WORK/s6/starts")"
for each in s6 runit; do
    stop "${!each}"
    same "$each: the exit code of the supervisor after TERM" 0 "$CODE"
done

# supervisord has ended.
stop "$supervisord"
TREE=$WORK/tree-group
same "stopasgroup=true" "child SIGTERM,main SIGHUP,main SIGTERM" "$(tree_end)"
same "the exit code of supervisord says nothing about its programs" 0 "$CODE"

# Hooks in the place of finish.
# hooks NAME WANTED COMMAND...: what a hook for fail and for end get under kapo run.
hooks() {
    local name=$1 wanted=$2
    shift 2
    rm -f "$WORK/hook/ends"
    "${RUN[@]}" --on "fail=$WORK/hook/hook" --on "end=$WORK/hook/hook" -- "$@" >>"$WORK/hooks.log" 2>&1 || true
    same "hooks of kapo run: $name" "$wanted" "$(paste -sd, "$WORK/hook/ends")"
}
hooks "exit 3" "fail 3 ,end 3 " sh -c 'exit 3'
# shellcheck disable=SC2016  # for the shell below
hooks "KILL" "fail 137 SIGKILL,end 137 SIGKILL" sh -c 'kill -KILL $$'
hooks "exit 0" "end 0 " true
# Under supervise no event says that a run was a success; the next start is one.
rm -f "$WORK/hook/ends"
"${K[@]}" supervise --wait 0.1 --max-restarts 1 --on "start=$WORK/hook/hook" --on "fail=$WORK/hook/hook" \
    --on "end=$WORK/hook/hook" -- true >>"$WORK/hooks.log" 2>&1 || true
same "hooks of kapo supervise: two successes" "start 0 ,start 0 ,end 0 " "$(paste -sd, "$WORK/hook/ends")"

# The next start waits for finish, but not for a hook.
mkdir "$WORK/slow"
printf '#!/bin/sh\necho start >>order\n' >"$WORK/slow/run"
printf '#!/bin/sh\nsleep 0.2\necho finish >>order\n' >"$WORK/slow/finish"
printf '#!/bin/sh\nuntil [ -e second ]; do sleep 0.02; done\necho hook >>order\n' >"$WORK/slow/hook"
chmod +x "$WORK/slow"/*
start slow s6-supervise "$WORK/slow"
slow=$PID
three_lines() { [ "$(runs "$WORK/slow/order")" -ge 3 ]; }
check "s6: a slow finish" wait_until 10 three_lines
same "s6: the next start waits for it" "start finish start" "$(head -n 3 "$WORK/slow/order" | paste -sd' ')"
stop "$slow"
cd "$WORK/slow"
rm order
code=0
# shellcheck disable=SC2016  # for the shell below
"${K[@]}" supervise --wait 0.1 --max-restarts 1 --on fail=./hook -- \
    sh -c 'echo start >>order; [ "$(wc -l <order)" -lt 2 ] || : >second; exit 3' >>"$WORK/hooks.log" 2>&1 || code=$?
cd - >/dev/null
same "kapo: it does not wait for a hook" "start start" "$(head -n 2 "$WORK/slow/order" | paste -sd' ')"

# Readiness: descriptor 3 for s6, sd_notify or a line for kapo.
mkdir "$WORK/ready"
printf '3\n' >"$WORK/ready/notification-fd"
printf '#!/bin/sh\necho >&3\nexec sleep 600\n' >"$WORK/ready/server"
printf '#!/bin/sh\nexec ./server\n' >"$WORK/ready/run"
cat >"$WORK/ready/notify" <<'S'
#!/bin/bash
exec 3> >(read -r _ && exec systemd-notify --ready)
exec ./server
S
chmod +x "$WORK/ready"/[rsn]*[nry]
start ready s6-supervise "$WORK/ready"
ready=$PID
s6_ready() { [ "$(s6-svstat -o ready "$WORK/ready")" = true ]; }
check "s6: a newline on descriptor 3 means ready" wait_until 10 s6_ready
check "s6-svwait -U" s6-svwait -U -t 5000 "$WORK/ready"
stop "$ready"
# Killed: what they have started goes on.
mkdir "$WORK/kill-s6" "$WORK/kill-runit" "$WORK/kill-supervisord"
# goes_on NAME PEER...: the peer is killed, and the process whose pid is in its file lives.
goes_on() {
    local name=$1 file=$WORK/kill-$1/main
    shift
    start "kill-$name" "$@"
    wait_until 10 test -s "$file" || true
    stop "$PID" KILL
    kill -USR1 "$(cat "$file")"
    TREE=$WORK/kill-$name
    check "$name is killed: its command goes on" wait_until 5 tree_wrote "main SIGUSR1"
    same "without a signal" "main SIGUSR1" "$(cat "$TREE/signals")"
    tree_kill "$WORK/kill-$name"
}
for each in s6 runit supervisord; do
    printf '#!/bin/sh\nexec python3 -S -I "%s" "%s"\n' "$WORK/tree.py" "$WORK/kill-$each" >"$WORK/kill-$each/run"
    chmod +x "$WORK/kill-$each/run"
done
goes_on s6 s6-supervise "$WORK/kill-s6"
goes_on runit runsv "$WORK/kill-runit"
printf '[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=%s/pid\n[program:run]\ncommand=%s/run\n' \
    "$WORK/kill-supervisord" "$WORK/kill-supervisord" >"$WORK/kill-supervisord/conf"
goes_on supervisord supervisord -c "$WORK/kill-supervisord/conf"
if command -v systemd-notify >/dev/null 2>&1; then
    cd "$WORK/ready"
    start notify "$KAPO" --interface none run --notify -- ./notify
    cd - >/dev/null
    check "kapo: the same program with a script for --notify" wait_until 10 grep -q 'msg="ready"' "$WORK/notify.log"
    stop "$PID"
    same "kapo: and its end" 143 "$CODE"
else
    echo "# systemd-notify: left out, it is not installed"
fi

# s6-log as the reader of kapo's output, over several runs.
"${K[@]}" supervise --wait 0 --max-restarts 2 -- echo line 2>>"$WORK/log.log" | s6-log n3 s100000 "$WORK/log"
same "s6-log gets the lines of all runs" 3 "$(grep -c line "$WORK/log/current")"
# piped OPTION...: a command that writes to a pipe without a reader.
piped() {
    local code=0
    # The fifo has lost its reader when kapo starts.
    { : <&9; exec 8>"$WORK/fifo"; exec 9<&-; "${K[@]}" "$@" run -- sh -c 'echo lost && exit 4' >&8 2>>"$WORK/log.log" 8>&- || code=$?; } 9<>"$WORK/fifo"
    exec 8>&-
    echo "$code"
}
mkfifo "$WORK/fifo"
same "without a reader: SIGPIPE, or 4 with --stdout" "141 4" "$(piped) $(piped --stdout)"

# --- systemd: what kapo sends to NOTIFY_SOCKET. tests/real/systemd.sh has the real one. ---
cat >"$WORK/notify.py" <<'P'
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1] + ".new")
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    said = server.recv(4096).decode().replace("\n", " ")
    open(sys.argv[2], "a").write(said + "\n")
P
N=$WORK/notified
start systemd python3 -S -I "$WORK/notify.py" "$WORK/systemd" "$N"
check "a socket in the place of systemd" wait_until 10 test -S "$WORK/systemd"
# unit NAME ARGUMENT...: kapo as the main process of a unit.
unit() {
    local name=$1
    shift
    : >"$N"
    start "unit-$name" env NOTIFY_SOCKET="$WORK/systemd" WATCHDOG_USEC=400000 "${K[@]}" "$@"
}
sent() { grep -qwF "$1" "$N"; }
# shellcheck disable=SC2016  # for the shells below
unit plain run -- sh -c 'echo "socket ${NOTIFY_SOCKET-none}"; exec sleep 600'
check "READY=1 when the command runs" wait_until 5 sent READY=1
check "kapo pings for itself" wait_until 5 sent WATCHDOG=1
check "the command has no NOTIFY_SOCKET" wait_until 5 grep -qx 'socket none' "$WORK/unit-plain.log"
stop "$PID"
check "STOPPING=1 at the end" wait_until 5 sent STOPPING=1
unit probe run --probe exec:false --probe-interval 1 -- sleep 600
check "READY=1 does not wait for a probe" wait_until 5 sent READY=1
stop "$PID"
# shellcheck disable=SC2016  # for the shell below
unit line --stdout run --ready-line up -- sh -c 'until [ -e "$0" ]; do sleep 0.02; done; echo up; exec sleep 600' "$WORK/up"
check "kapo pings before the ready line" wait_until 5 sent WATCHDOG=1
same "READY=1 is not sent" "" "$(grep READY "$N" || true)"
: >"$WORK/up"
check "READY=1 after the line" wait_until 5 sent READY=1
stop "$PID"
finish
