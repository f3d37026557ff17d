//! Completions for bash, zsh and fish, out of the table. Only tests/docs.rs calls this: the linker drops it from
//! the program.

use super::options::{GROUPS, MODES, ModeRow, OPTIONS, Opt, Verb};
use crate::signal::Signal;

/// What can stand for a value.
enum Kind {
    Signal,
    When,
    Path,
    Free,
}

fn kind(opt: &Opt) -> Option<Kind> {
    Some(match opt.value? {
        "SIGNAL" => Kind::Signal,
        "WHEN" => Kind::When,
        "ADDR" | "PATH" => Kind::Path,
        _ => Kind::Free,
    })
}

/// The options that are understood in that place by all their names; `None`: before the mode.
fn here(verb: Option<Verb>) -> impl Iterator<Item = (&'static Opt, Option<char>)> {
    OPTIONS.iter().filter_map(move |opt| match verb {
        None => opt.is_global().then_some((opt, opt.short)),
        Some(verb) if opt.is_global() => opt.serves(verb).then_some((opt, opt.short.filter(|c| *c == 'h'))),
        Some(verb) => opt.serves(verb).then_some((opt, opt.short)),
    })
}

fn places() -> impl Iterator<Item = Option<&'static ModeRow>> {
    [None].into_iter().chain(MODES.iter().map(Some))
}

fn pattern(row: &ModeRow) -> String {
    row.alias.map_or(row.name.to_owned(), |alias| format!("{}|{alias}", row.name))
}

fn mode_names() -> String {
    let mut names: Vec<&str> = MODES.iter().map(|row| row.name).collect();
    names.push("help");
    names.join(" ")
}

/// docs/completions/kapo.bash.
pub fn bash() -> String {
    let mut lists = String::new();
    for row in places() {
        let (mut all, mut valued) = (Vec::new(), Vec::new());
        for (opt, short) in here(row.map(|row| row.verb)) {
            let names = [Some(format!("--{}", opt.long)), short.map(|c| format!("-{c}"))];
            for name in names.into_iter().flatten() {
                if opt.value.is_some() {
                    valued.push(name.clone());
                }
                all.push(name);
            }
        }
        let place = row.map_or("''".to_owned(), pattern);
        let (all, valued) = (all.join(" "), valued.join(" "));
        lists.push_str(&format!(
            "        {place})\n            options='{all}'\n            valued=' {valued} ' ;;\n"
        ));
    }
    let by_kind = |wanted: fn(&Kind) -> bool| {
        let mut names = Vec::new();
        for opt in OPTIONS.iter().filter(|opt| kind(opt).is_some_and(|kind| wanted(&kind))) {
            names.push(format!("--{}", opt.long));
            names.extend(opt.short.map(|c| format!("-{c}")));
        }
        names.join("|")
    };
    let signals = (1..32).filter_map(Signal::new).map(|signal| signal.to_string().replace("SIG", ""));
    BASH.replace("@LISTS@", &lists)
        .replace("@SIGNALS@", &signals.collect::<Vec<_>>().join(" "))
        .replace("@MODES@", &mode_names())
        .replace("@SIGNAL@", &by_kind(|kind| matches!(kind, Kind::Signal)))
        .replace("@WHEN@", &by_kind(|kind| matches!(kind, Kind::When)))
        .replace("@PATH@", &by_kind(|kind| matches!(kind, Kind::Path)))
}

const BASH: &str = r#"# Completion of kapo for bash. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.

# Which options are understood after that mode, and which of them take a value.
_kapo_options() {
    case $1 in
@LISTS@        *) options='' valued='' ;;
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
            @SIGNAL@)
                # What compgen knows of signals is what trap takes: EXIT and the like, and SIGTERM but not TERM.
                word=''
                [[ $cur == SIG* ]] && word=SIG
                mapfile -t COMPREPLY < <(compgen -P "$word" -W '@SIGNALS@' -- "${cur#SIG}")
                ;;
            @WHEN@) mapfile -t COMPREPLY < <(compgen -W 'always on-failure' -- "$cur") ;;
            @PATH@) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
        return
    fi
    if [[ ! $mode ]]; then
        [[ $cur == -* ]] || options='@MODES@'
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
        help) mapfile -t COMPREPLY < <(compgen -W '@MODES@' -- "$cur") ;;
    esac
}

complete -F _kapo kapo
"#;

/// docs/completions/_kapo, for zsh.
pub fn zsh() -> String {
    let specs = |verb: Option<Verb>, indent: &str| {
        let mut out = String::new();
        for (opt, short) in here(verb) {
            let brief = opt.brief.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
            let brief = brief.replace(':', "\\:").replace('\'', "'\\''");
            let long =
                if opt.value.is_some() { format!("--{}=", opt.long) } else { format!("--{}", opt.long) };
            let plus = if opt.value.is_some() { "+" } else { "" };
            let star = opt.long == "rewrite-signal";
            let names = match (short, star) {
                (Some(c), _) => format!("'(-{c} --{})'{{-{c}{plus},{long}}}", opt.long),
                (None, true) => format!("'*'{long}"),
                (None, false) => long,
            };
            let value = opt.value.unwrap_or_default().replace(':', "\\:");
            let value = match kind(opt) {
                None => String::new(),
                Some(Kind::Signal) => format!(":{value}:_signals -s"),
                Some(Kind::When) => format!(":{value}:(always on-failure)"),
                Some(Kind::Path) => format!(":{value}:_files"),
                Some(Kind::Free) => format!(":{value}: "),
            };
            out.push_str(&format!("{indent}{names}'[{brief}]{value}' \\\n"));
        }
        out
    };
    let mut modes = String::new();
    let mut cases = String::new();
    for row in MODES {
        modes.push_str(&format!(
            "        '{}:{}'\n",
            row.name,
            row.brief.replace(':', "\\:").replace('\'', "'\\''")
        ));
        let operands = match row.verb {
            Verb::Run | Verb::Supervise => "'(-)1:command:_command_names -e' '*::argument:_normal'",
            Verb::Watch => "'(-)1:process name:( ${(u)$(ps -eo comm= 2> /dev/null)} )'",
            Verb::Check | Verb::Wait => "'(-)1:URL:_urls'",
        };
        cases.push_str(&format!(
            "        {})\n            _arguments -s -S -A '-*' \\\n{}                {operands} ;;\n",
            pattern(row),
            specs(Some(row.verb), "                ")
        ));
    }
    format!(
        "#compdef kapo\n# Completion of kapo for zsh. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.\n\n\
         _kapo() {{\n    local curcontext=$curcontext state line ret=1\n    local -a modes=(\n{modes}        \
         'help:show help'\n    )\n    _arguments -C -s -A '-*' \\\n{}        '(-)1:mode:->mode' '*::word:->words' && \
         ret=0\n    case $state in\n    mode) _describe mode modes && ret=0 ;;\n    words)\n        \
         curcontext=${{curcontext%:*}}-$words[1]:\n        case $words[1] in\n{cases}        help) _describe mode \
         modes ;;\n        esac && ret=0 ;;\n    esac\n    return ret\n}}\n\n_kapo \"$@\"\n",
        specs(None, "        ")
    )
}

/// docs/completions/kapo.fish.
pub fn fish() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut out = FISH.to_owned();
    let mut valued = String::new();
    for row in places() {
        let mut names: Vec<String> = Vec::new();
        for (opt, short) in here(row.map(|row| row.verb)).filter(|(opt, _)| opt.value.is_some()) {
            names.push(format!("--{}", opt.long));
            names.extend(short.map(|c| format!("-{c}")));
        }
        let place = row.map_or("start".to_owned(), |row| pattern(row).replace('|', " "));
        valued
            .push_str(&format!("        case {place}\n            string join \\n -- {}\n", names.join(" ")));
    }
    out = out.replace("@VALUED@", &valued);
    for row in MODES {
        out.push_str(&format!(
            "complete -c kapo -n '__kapo_at start' -a {} -d {}\n",
            row.name,
            quoted(row.brief)
        ));
    }
    out.push_str("complete -c kapo -n '__kapo_at start' -a help -d 'show help'\n");
    out.push_str(&format!("complete -c kapo -n '__kapo_at help' -a '{}'\n", mode_names()));
    for (_, modes) in GROUPS {
        for opt in OPTIONS.iter().filter(|opt| opt.modes == *modes) {
            let words = |verbs: &[&str]| format!("__kapo_at {}", verbs.join(" "));
            let mut names: Vec<&str> = Vec::new();
            for row in MODES.iter().filter(|row| opt.serves(row.verb)) {
                names.push(row.name);
                names.extend(row.alias);
            }
            let value = match kind(opt) {
                None => "",
                Some(Kind::Signal) => " -x -a '(__kapo_signals)'",
                Some(Kind::When) => " -x -a 'always on-failure'",
                Some(Kind::Path) => " -r -F",
                Some(Kind::Free) => " -x",
            };
            let brief = quoted(opt.brief);
            let short = opt.short.map_or(String::new(), |c| format!(" -s {c}"));
            if opt.is_global() {
                let start = words(&["start"]);
                out.push_str(&format!(
                    "complete -c kapo -n '{start}'{short} -l {}{value} -d {brief}\n",
                    opt.long
                ));
                out.push_str(&format!(
                    "complete -c kapo -n '{}' -l {}{value} -d {brief}\n",
                    words(&names),
                    opt.long
                ));
            } else {
                let place = words(&names);
                out.push_str(&format!(
                    "complete -c kapo -n '{place}'{short} -l {}{value} -d {brief}\n",
                    opt.long
                ));
            }
        }
    }
    out
}

const FISH: &str = r#"# Completion of kapo for fish. Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.

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
"#;
