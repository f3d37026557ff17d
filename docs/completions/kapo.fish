# Completion of kapo for fish. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.

# The options that take a value, in that place.
function __kapo_valued
    switch $argv[1]
        case start
            string join \n -- --port -p --interface -i --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format
        case run r
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --idle-exit
        case supervise s
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --backoff-max --stable --max-restarts --within --restart --no-restart-on
        case watch w
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --log-format --wait -w --pid -p
        case check
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --timeout
        case wait
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --timeout --retry
        case status
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --output -o --timeout
        case logs
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --lines -n --stream --timeout
        case ls
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --output -o --sort --state --fleet --timeout
        case fleet
            string join \n -- --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --log-format --timeout --idle-exit
    end
end

# Where the cursor stands: `start`, a mode, or `command` and the words of the command so far.
function __kapo_place
    set -l place start
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        set -l word $words[1]
        set -e words[1]
        if test "$word" = --
            test $place = start; and continue
            printf '%s\n' command $words
            return
        else if string match -qr -- '^-.' $word
            contains -- $word (__kapo_valued $place); and set -e words[1]
        else if test $place = start
            set place $word
        else
            printf '%s\n' command $word $words
            return
        end
    end
    echo $place
end

function __kapo_at
    set -l place (__kapo_place)
    contains -- $place[1] $argv
end

function __kapo_command
    set -l place (__kapo_place)
    set -l line (string join ' ' -- (string escape -- $place[2..]) (commandline -ct))
    complete --do-complete="$line"
end

function __kapo_signals
    string split ' ' -- (kill -l)
end

complete -c kapo -f
complete -c kapo -n '__kapo_at run r supervise s command' -a '(__kapo_command)'
complete -c kapo -n '__kapo_at watch w' -a '(ps -eo comm= 2>/dev/null | sort -u)'
complete -c kapo -n '__kapo_at start' -a run -d 'run a command once and serve its status'
complete -c kapo -n '__kapo_at start' -a supervise -d 'run a command and restart it after each end'
complete -c kapo -n '__kapo_at start' -a watch -d 'report on processes that kapo did not start'
complete -c kapo -n '__kapo_at start' -a check -d 'query the health of a running kapo: exit 0 or 1'
complete -c kapo -n '__kapo_at start' -a wait -d 'wait for the end of a job, exit with its code'
complete -c kapo -n '__kapo_at start' -a status -d 'show the state of a command and why it ended'
complete -c kapo -n '__kapo_at start' -a logs -d 'show the last output of a command'
complete -c kapo -n '__kapo_at start' -a ls -d 'list the kapos of a folder, trouble first'
complete -c kapo -n '__kapo_at start' -a fleet -d 'serve a page of all kapos of a folder'
complete -c kapo -n '__kapo_at start' -a help -d 'show help'
complete -c kapo -n '__kapo_at help' -a 'run supervise watch check wait status logs ls fleet help'
complete -c kapo -n '__kapo_at start' -s p -l port -x -d 'TCP port to listen on; 0: any free port'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l port -x -d 'TCP port to listen on; 0: any free port'
complete -c kapo -n '__kapo_at start' -s i -l interface -r -F -d 'address, /path or @name to listen on'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l interface -r -F -d 'address, /path or @name to listen on'
complete -c kapo -n '__kapo_at start' -l bind-failure -x -a 'exit warn' -d 'if an address is taken: exit or warn'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l bind-failure -x -a 'exit warn' -d 'if an address is taken: exit or warn'
complete -c kapo -n '__kapo_at start' -l listen -r -F -d 'further addresses: HOST:PORT, /path, @name'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l listen -r -F -d 'further addresses: HOST:PORT, /path, @name'
complete -c kapo -n '__kapo_at start' -l run-dir -r -F -d 'also listen on DIR/NAME.sock'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l run-dir -r -F -d 'also listen on DIR/NAME.sock'
complete -c kapo -n '__kapo_at start' -l name -x -d 'name of this kapo (default: of the command)'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l name -x -d 'name of this kapo (default: of the command)'
complete -c kapo -n '__kapo_at start' -l socket-mode -x -d 'permissions of Unix sockets, such as 0660'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l socket-mode -x -d 'permissions of Unix sockets, such as 0660'
complete -c kapo -n '__kapo_at start' -l socket-group -x -d 'group of Unix sockets in the file system'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l socket-group -x -d 'group of Unix sockets in the file system'
complete -c kapo -n '__kapo_at start' -s b -l sidebind -d 'also listen on the next free port above --port'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l sidebind -d 'also listen on the next free port above --port'
complete -c kapo -n '__kapo_at start' -s s -l socket-activation -d 'serve on inherited sockets (LISTEN_FDS)'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l socket-activation -d 'serve on inherited sockets (LISTEN_FDS)'
complete -c kapo -n '__kapo_at start' -l max-connections -x -d 'maximum number of open connections'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l max-connections -x -d 'maximum number of open connections'
complete -c kapo -n '__kapo_at start' -l history -x -d 'keep the last N ended runs; 0: off'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l history -x -d 'keep the last N ended runs; 0: off'
complete -c kapo -n '__kapo_at start' -l no-ui -d 'serve no page for browsers'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l no-ui -d 'serve no page for browsers'
complete -c kapo -n '__kapo_at start' -l hide-args -d 'hide the command\'s arguments everywhere'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l hide-args -d 'hide the command\'s arguments everywhere'
complete -c kapo -n '__kapo_at start' -s S -l stdout -d 'capture the command\'s stdout and copy it'
complete -c kapo -n '__kapo_at run r supervise s check wait status logs ls' -l stdout -d 'capture the command\'s stdout and copy it'
complete -c kapo -n '__kapo_at start' -s E -l stderr -d 'capture the command\'s stderr and copy it'
complete -c kapo -n '__kapo_at run r supervise s check wait status logs ls' -l stderr -d 'capture the command\'s stderr and copy it'
complete -c kapo -n '__kapo_at start' -s L -l stdlog -d 'write captured lines as timestamped log records'
complete -c kapo -n '__kapo_at run r supervise s check wait status logs ls' -l stdlog -d 'write captured lines as timestamped log records'
complete -c kapo -n '__kapo_at start' -l tail -x -d 'keep the last bytes of output; 0: off'
complete -c kapo -n '__kapo_at run r supervise s check wait status logs ls' -l tail -x -d 'keep the last bytes of output; 0: off'
complete -c kapo -n '__kapo_at start' -s q -l quiet -d 'log only warnings and errors'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l quiet -d 'log only warnings and errors'
complete -c kapo -n '__kapo_at start' -l log-format -x -a 'logfmt json' -d 'format of log lines: logfmt or json'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l log-format -x -a 'logfmt json' -d 'format of log lines: logfmt or json'
complete -c kapo -n '__kapo_at start' -s h -l help -d 'show help; after a mode, the help of that mode'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l help -d 'show help; after a mode, the help of that mode'
complete -c kapo -n '__kapo_at start' -s v -l version -d 'show the version'
complete -c kapo -n '__kapo_at run r supervise s watch w check wait status logs ls fleet' -l version -d 'show the version'
complete -c kapo -n '__kapo_at run r supervise s' -s t -l ttl -x -d 'stop each run after this time; 0: never'
complete -c kapo -n '__kapo_at run r supervise s' -l stop-signal -x -a '(__kapo_signals)' -d 'signal for the command after its TTL'
complete -c kapo -n '__kapo_at run r supervise s' -l stop-on -x -d 'signals that ask kapo to stop'
complete -c kapo -n '__kapo_at run r supervise s' -s k -l kill-after -x -d 'time from the stop signal to SIGKILL'
complete -c kapo -n '__kapo_at run r supervise s' -l drain -x -d 'time without new traffic before a stop'
complete -c kapo -n '__kapo_at run r supervise s' -l dump-signal -x -a '(__kapo_signals)' -d 'signal for a dump before a stop by kapo'
complete -c kapo -n '__kapo_at run r supervise s' -l dump-wait -x -d 'time from the dump signal to the stop'
complete -c kapo -n '__kapo_at run r supervise s' -l single-child -d 'signal only the command, not its process group'
complete -c kapo -n '__kapo_at run r supervise s' -l setsid -d 'run the command in a new session'
complete -c kapo -n '__kapo_at run r supervise s' -l rewrite-signal -x -d 'forward TO instead of FROM; TO 0: nothing'
complete -c kapo -n '__kapo_at run r supervise s' -l success-exit -x -d 'codes and signals that count as success'
complete -c kapo -n '__kapo_at run r supervise s' -l parent-death-signal -x -a '(__kapo_signals)' -d 'signal that kapo gets when its own parent ends'
complete -c kapo -n '__kapo_at run r supervise s' -l orphan-signal -x -a '(__kapo_signals)' -d 'the command\'s signal if kapo is killed'
complete -c kapo -n '__kapo_at run r supervise s' -l termination-log -r -F -d 'write how the run ended to this file'
complete -c kapo -n '__kapo_at run r supervise s' -l notify -d 'the command reports READY=1 by sd_notify'
complete -c kapo -n '__kapo_at run r supervise s' -l watchdog -x -d 'longest time between pings; 0: off'
complete -c kapo -n '__kapo_at run r supervise s' -l silence -x -d 'longest time without output; 0: off'
complete -c kapo -n '__kapo_at run r supervise s' -l ready-line -x -d 'ready when an output line contains TEXT'
complete -c kapo -n '__kapo_at run r supervise s' -l probe -x -d 'check of the command; all must pass'
complete -c kapo -n '__kapo_at run r supervise s' -l probe-interval -x -d 'how old the result of a probe may be'
complete -c kapo -n '__kapo_at run r supervise s' -l probe-timeout -x -d 'how long a probe may take'
complete -c kapo -n '__kapo_at run r supervise s' -l probe-failures -x -d 'failures in a row until it is unhealthy'
complete -c kapo -n '__kapo_at run r supervise s' -l probe-grace -x -d 'time in which failures do not count'
complete -c kapo -n '__kapo_at run r supervise s' -l unhealthy -x -a 'report stop' -d 'what unhealthy means: report or stop'
complete -c kapo -n '__kapo_at run r supervise s' -l on -x -d 'run a command at an event, such as an alert'
complete -c kapo -n '__kapo_at run r supervise s' -l on-timeout -x -d 'kill a command of --on after this time'
complete -c kapo -n '__kapo_at run r supervise s' -l textfile -r -F -d 'write metrics to this file for node_exporter'
complete -c kapo -n '__kapo_at run r' -s w -l wait -x -d 'keep answering for this long after the end'
complete -c kapo -n '__kapo_at run r' -l idle-exit -x -d 'answer until no request came for this long'
complete -c kapo -n '__kapo_at supervise s' -s w -l wait -x -d 'pause between an end and the next start'
complete -c kapo -n '__kapo_at supervise s' -l backoff-max -x -d 'double the pause up to this; 0: off'
complete -c kapo -n '__kapo_at supervise s' -l stable -x -d 'a run of this length resets the back-off'
complete -c kapo -n '__kapo_at supervise s' -l max-restarts -x -d 'give up after N restarts; 0: never'
complete -c kapo -n '__kapo_at supervise s' -l within -x -d 'time window for restarts and failures'
complete -c kapo -n '__kapo_at supervise s' -l restart -x -a 'always on-failure' -d 'start again: always or on-failure'
complete -c kapo -n '__kapo_at supervise s' -l no-restart-on -x -d 'codes and signals that are final: 78,SEGV'
complete -c kapo -n '__kapo_at supervise s' -l log-repeats -d 'log each start and end of a crash storm'
complete -c kapo -n '__kapo_at watch w' -s w -l wait -x -d 'pause between scans of the process list'
complete -c kapo -n '__kapo_at watch w' -s p -l pid -x -d 'watch this one process'
complete -c kapo -n '__kapo_at watch w' -l process-events -d 'learn of new processes from the kernel'
complete -c kapo -n '__kapo_at check' -l live -d '/livez: whether kapo answers'
complete -c kapo -n '__kapo_at check' -l ready -d '/readyz: whether the command is ready'
complete -c kapo -n '__kapo_at check' -l health -d '/healthz: whether the command is healthy'
complete -c kapo -n '__kapo_at check' -l timeout -x -d 'exit with 1 after this time'
complete -c kapo -n '__kapo_at wait' -l ready -d 'wait until /readyz is 200, not for the end'
complete -c kapo -n '__kapo_at wait' -l healthy -d 'wait until /healthz is 200, not for the end'
complete -c kapo -n '__kapo_at wait' -l timeout -x -d 'exit with 124 after this time'
complete -c kapo -n '__kapo_at wait' -l retry -x -d 'retry this long while nothing listens'
complete -c kapo -n '__kapo_at wait' -s v -l verbose -d 'print reason, code, start and last lines'
complete -c kapo -n '__kapo_at status' -s o -l output -x -a 'text json' -d 'output format: text or json'
complete -c kapo -n '__kapo_at status' -l timeout -x -d 'time limit for all requests together'
complete -c kapo -n '__kapo_at logs' -s f -l follow -d 'also print new output until kapo exits'
complete -c kapo -n '__kapo_at logs' -s n -l lines -x -d 'print only the last N lines of the kept output'
complete -c kapo -n '__kapo_at logs' -l stream -x -a 'stdout stderr' -d 'print only stdout or only stderr'
complete -c kapo -n '__kapo_at logs' -l timeout -x -d 'time limit for the answer'
complete -c kapo -n '__kapo_at ls' -s o -l output -x -a 'table wide json prom file-sd' -d 'table, wide, json, prom or file-sd'
complete -c kapo -n '__kapo_at ls' -l sort -x -a 'state name start restarts' -d 'order: state, name, start or restarts'
complete -c kapo -n '__kapo_at ls' -l state -x -a 'flapping failing failed gone stuck dead denied foreign starting unready stopping pausing running done removed' -d 'list only these: failing,flapping'
complete -c kapo -n '__kapo_at ls' -s w -l watch -d 'stay, and show each change'
complete -c kapo -n '__kapo_at ls' -l fleet -x -d 'with file-sd: reach the kapos through a fleet'
complete -c kapo -n '__kapo_at ls' -l prune -d 'remove dead sockets'
complete -c kapo -n '__kapo_at ls' -l timeout -x -d 'time limit for all answers together'
complete -c kapo -n '__kapo_at fleet' -l timeout -x -d 'time limit for an answer of the kapos'
complete -c kapo -n '__kapo_at fleet' -l idle-exit -x -d 'exit if no connection is open for this long'
