//! Completions for bash, zsh and fish, generated from the options table and the files under templates/.

use kapo::cli::options::{Completion, GROUPS, MODES, ModeRow, Opt, Verb, options};
use kapo::signal::Signal;

const BASH: &str = include_str!("templates/kapo.bash");
const FISH: &str = include_str!("templates/kapo.fish");
const ZSH: &str = include_str!("templates/_kapo");

/// Returns the options that are valid after `verb` with all their names; `None` means before the mode.
fn here(verb: Option<Verb>) -> impl Iterator<Item = (&'static Opt, Option<char>)> {
    options().filter_map(move |opt| match verb {
        None => opt.is_global().then_some((opt, opt.short)),
        Some(verb) if opt.is_global() => {
            opt.is_taken_by(verb).then_some((opt, opt.short.filter(|c| *c == 'h')))
        }
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

/// Generates docs/completions/kapo.bash.
pub(crate) fn bash() -> String {
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
    let completed_by = |wanted: Completion| {
        let mut names = Vec::new();
        for opt in options().filter(|opt| opt.value.is_some() && opt.completion == wanted) {
            names.push(format!("--{}", opt.long));
            names.extend(opt.short.map(|c| format!("-{c}")));
        }
        names.join("|")
    };
    let choices = |indent: &str| {
        let mut cases = String::new();
        for (opt, words) in options().filter_map(|opt| Some((opt, opt.completion.words()?))) {
            cases.push_str(&format!(
                "{indent}--{}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\") ;;\n",
                opt.long,
                words.join(" ")
            ));
        }
        cases
    };
    let signals = (1..32).filter_map(Signal::new).map(|signal| signal.to_string().replace("SIG", ""));
    BASH.replace("@LISTS@", &lists)
        .replace("@SIGNALS@", &signals.collect::<Vec<_>>().join(" "))
        .replace("@MODES@", &mode_names())
        .replace("@SIGNAL@", &completed_by(Completion::Signal))
        .replace("@CHOICES@", &choices("            "))
        .replace("@PATH@", &completed_by(Completion::Path))
}

/// Generates docs/completions/_kapo for zsh.
pub(crate) fn zsh() -> String {
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
            let value = match opt.completion {
                _ if opt.value.is_none() => String::new(),
                Completion::Signal => format!(":{value}:_signals -s"),
                Completion::Words(words) => format!(":{value}:({})", words.join(" ")),
                Completion::Path => format!(":{value}:_files"),
                Completion::None => format!(":{value}: "),
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
            Verb::Ls | Verb::Fleet => "'(-)1:folder:_files -/'",
            Verb::Check | Verb::Wait | Verb::Status | Verb::Logs => "'(-)1:URL:_urls'",
        };
        cases.push_str(&format!(
            "        {})\n            _arguments -s -S -A '-*' \\\n{}                {operands} ;;\n",
            pattern(row),
            specs(Some(row.verb), "                ")
        ));
    }
    ZSH.replace("@MODES@", &modes).replace("@GLOBAL@", &specs(None, "        ")).replace("@CASES@", &cases)
}

/// Generates docs/completions/kapo.fish.
pub(crate) fn fish() -> String {
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
    for group in GROUPS {
        for opt in group.options {
            let words = |verbs: &[&str]| format!("__kapo_at {}", verbs.join(" "));
            let mut names: Vec<&str> = Vec::new();
            for row in MODES.iter().filter(|row| opt.is_taken_by(row.verb)) {
                names.push(row.name);
                names.extend(row.alias);
            }
            let value = match opt.completion {
                _ if opt.value.is_none() => String::new(),
                Completion::Signal => " -x -a '(__kapo_signals)'".to_owned(),
                Completion::Words(words) => format!(" -x -a '{}'", words.join(" ")),
                Completion::Path => " -r -F".to_owned(),
                Completion::None => " -x".to_owned(),
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
