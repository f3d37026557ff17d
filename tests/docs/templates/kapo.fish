# Completion of kapo for fish. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.

# The options that take a value, in that place.
function __kapo_valued
    switch $argv[1]
@VALUED@    end
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
