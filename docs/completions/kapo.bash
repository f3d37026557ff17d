# Completion of kapo for bash. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.

# Which options are understood after that mode, and which of them take a value.
_kapo_options() {
    case $1 in
        '')
            options='--port -p --interface -i --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind -b --socket-activation -s --max-connections --history --no-ui --hide-args --stdout -S --stderr -E --stdlog -L --tail --quiet -q --log-format --help -h --version -v'
            valued=' --port -p --interface -i --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format ' ;;
        run|r)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --single-child --setsid --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --notify --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --idle-exit'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --idle-exit ' ;;
        supervise|s)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --single-child --setsid --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --notify --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --backoff-max --stable --max-restarts --within --restart --no-restart-on --log-repeats'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --ttl -t --stop-signal --stop-on --kill-after -k --drain --dump-signal --dump-wait --rewrite-signal --success-exit --parent-death-signal --orphan-signal --termination-log --watchdog --silence --ready-line --probe --probe-interval --probe-timeout --probe-failures --probe-grace --unhealthy --on --on-timeout --textfile --wait -w --backoff-max --stable --max-restarts --within --restart --no-restart-on ' ;;
        watch|w)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --quiet --log-format --help -h --version --wait -w --pid -p --process-events'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --log-format --wait -w --pid -p ' ;;
        check)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --live --ready --health --timeout'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --timeout ' ;;
        wait)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --ready --healthy --timeout --retry --verbose -v'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --timeout --retry ' ;;
        status)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --output -o --timeout'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --output -o --timeout ' ;;
        logs)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --follow -f --lines -n --stream --timeout'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --lines -n --stream --timeout ' ;;
        ls)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --stdout --stderr --stdlog --tail --quiet --log-format --help -h --version --output -o --sort --state --watch -w --fleet --prune --timeout'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --tail --log-format --output -o --sort --state --fleet --timeout ' ;;
        fleet)
            options='--port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --sidebind --socket-activation --max-connections --history --no-ui --hide-args --quiet --log-format --help -h --version --timeout --idle-exit'
            valued=' --port --interface --bind-failure --listen --run-dir --name --socket-mode --socket-group --max-connections --history --log-format --timeout --idle-exit ' ;;
        *) options='' valued='' ;;
    esac
}

_kapo() {
    local cur=${COMP_WORDS[COMP_CWORD]} mode='' value_of='' word options valued i=1
    COMPREPLY=()
    _kapo_options ''
    while ((i < COMP_CWORD)); do
        word=${COMP_WORDS[i]}
        if [[ $word == -- && $mode ]]; then
            ((i++))
            break
        elif [[ $word == -- ]]; then
            :
        elif [[ $word == -?* ]]; then
            # bash parts --opt=value into three words.
            [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))
            if [[ $valued == *" $word "* || ${COMP_WORDS[i]} == '=' ]]; then
                ((i++))
                if ((i >= COMP_CWORD)); then
                    value_of=$word
                fi
            fi
        elif [[ $mode ]]; then
            break
        else
            mode=$word
            _kapo_options "$mode"
        fi
        ((i++))
    done
    if [[ $value_of ]]; then
        [[ $cur == '=' ]] && cur=''
        case $value_of in
            --stop-signal|--dump-signal|--parent-death-signal|--orphan-signal)
                # What compgen knows of signals is what trap takes: EXIT and the like, and SIGTERM but not TERM.
                word=''
                [[ $cur == SIG* ]] && word=SIG
                mapfile -t COMPREPLY < <(compgen -P "$word" -W 'HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS' -- "${cur#SIG}")
                ;;
            --bind-failure) mapfile -t COMPREPLY < <(compgen -W 'exit warn' -- "$cur") ;;
            --log-format) mapfile -t COMPREPLY < <(compgen -W 'logfmt json' -- "$cur") ;;
            --unhealthy) mapfile -t COMPREPLY < <(compgen -W 'report stop' -- "$cur") ;;
            --restart) mapfile -t COMPREPLY < <(compgen -W 'always on-failure' -- "$cur") ;;
            --output) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur") ;;
            --stream) mapfile -t COMPREPLY < <(compgen -W 'stdout stderr' -- "$cur") ;;
            --output) mapfile -t COMPREPLY < <(compgen -W 'table wide json prom file-sd' -- "$cur") ;;
            --sort) mapfile -t COMPREPLY < <(compgen -W 'state name start restarts' -- "$cur") ;;
            --state) mapfile -t COMPREPLY < <(compgen -W 'flapping failing failed gone stuck dead denied foreign starting unready stopping pausing running done removed' -- "$cur") ;;
            --interface|-i|--listen|--run-dir|--termination-log|--textfile) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
        return
    fi
    if [[ ! $mode ]]; then
        [[ $cur == -* ]] || options='run supervise watch check wait status logs ls fleet help'
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    if ((i >= COMP_CWORD)) && [[ $cur == -* && ${COMP_WORDS[COMP_CWORD - 1]} != -- ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    case $mode in
        run | r | supervise | s)
            # bash-completion, where it is loaded, knows the command's own words.
            if declare -F _command_offset > /dev/null; then
                _command_offset "$i"
            elif ((i >= COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            fi ;;
        watch | w) mapfile -t COMPREPLY < <(compgen -W "$(ps -eo comm= 2> /dev/null)" -- "$cur") ;;
        help) mapfile -t COMPREPLY < <(compgen -W 'run supervise watch check wait status logs ls fleet help' -- "$cur") ;;
    esac
}

complete -F _kapo kapo
