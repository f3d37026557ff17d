//! Renders the help pages and the version from the table. `-h` shows one line for each option, `--help` everything.

use super::options::{Fallback, GROUPS, MODES, Opt, Verb};

/// The width of the help in columns. Serial consoles and CI logs still have 80 columns.
const WIDTH: usize = 79;

/// The description of kapo in one line.
pub const ABOUT: &str = "Wraps any command in a status socket with a JSON document, probes and metrics.";

/// The commit from which the program was built, set by scripts/build.sh. `None` for `cargo install` and source
/// archives.
const COMMIT: Option<&str> = option_env!("KAPO_COMMIT");

/// `kapo 0.2.0`, and the commit in brackets if it is known.
pub fn version() -> String {
    describe_version(COMMIT)
}

fn describe_version(commit: Option<&str>) -> String {
    let version = concat!("kapo ", env!("CARGO_PKG_VERSION"));
    match commit {
        Some(commit) if !commit.is_empty() => format!("{version} ({commit})\n"),
        _ => format!("{version}\n"),
    }
}

/// Returns the help of a mode, or the general help.
pub fn page(verb: Option<Verb>, long: bool) -> String {
    let mut out = String::new();
    match verb {
        None => overview(&mut out),
        Some(verb) => {
            let row = verb.row();
            out.push_str(&format!("Usage: {}\n\n", synopsis(verb)));
            wrap(&mut out, 0, if long { row.full } else { row.brief });
        }
    }
    // The options of the mode come before the global options, which are the same for all modes.
    let (global, special): (Vec<_>, Vec<_>) = GROUPS.iter().partition(|group| group.modes().is_empty());
    let mut first = true;
    // run and supervise have so many options that -h only names the global ones.
    let describes_global = long || !matches!(verb, Some(Verb::Run | Verb::Supervise));
    let described = global.iter().copied().filter(|_| describes_global);
    for group in special.into_iter().chain(described) {
        // After a mode, `-p` may mean a pid instead of the port.
        let short = verb.is_none() || !group.modes().is_empty();
        let mut title = Some(group.title);
        for opt in group.options.iter().filter(|opt| is_shown(opt, verb)) {
            if let Some(title) = title.take() {
                // -h has no blank lines between the groups, so that it fits two screens.
                let blank = if long || first { "\n" } else { "" };
                first = false;
                out.push_str(&format!("{blank}{title}:\n"));
            }
            let letter = opt.short.filter(|_| short || opt.is_help());
            option(&mut out, opt, letter, long);
        }
    }
    if describes_global {
        out.push('\n');
    }
    if long {
        wrap(&mut out, 0, REMARKS);
    } else if !describes_global {
        let shown = global.iter().flat_map(|group| group.options).filter(|opt| is_shown(opt, verb));
        let names: Vec<String> = shown.map(|opt| format!("--{}", opt.long)).collect();
        wrap(&mut out, 0, &format!("Global options (kapo -h): {}.", names.join(", ")));
    }
    if !long {
        out.push_str("--help explains each option and names its environment variable.\n");
    }
    if verb.is_none() {
        out.push_str("kapo MODE -h and kapo MODE --help show the options of a mode.\n");
    }
    out
}

/// Whether the help of the mode, or the general help, names the option.
fn is_shown(opt: &Opt, verb: Option<Verb>) -> bool {
    match verb {
        None => opt.is_global(),
        Some(verb) => opt.matters_to(verb),
    }
}

/// The rules that apply to all options.
pub const REMARKS: &str = "Global options are accepted before the mode and, in their long form, also after it. \
     Every option of run, supervise and watch, and every global option, can also be set \
     by an environment variable: KAPO_MAX_CONNECTIONS sets --max-connections. The only \
     different name is KAPO_WATCHPID, which sets --pid. The command line takes precedence \
     over the environment. An empty variable counts as not set. A flag is switched off \
     with =false, such as --quiet=false. SECONDS is a number such as 30 or 0.5, or a number with \
     units: 500ms, 30s, 5m, 6h, 2d, 1w, 1m30s.";

/// `kapo [OPTIONS] run [OPTIONS] [--] COMMAND [ARG...]`.
pub fn synopsis(verb: Verb) -> String {
    let row = verb.row();
    format!("kapo [OPTIONS] {} [OPTIONS] {}", row.name, row.operands)
}

fn overview(out: &mut String) {
    out.push_str("Usage: kapo [OPTIONS] MODE [OPTIONS] ...\n\n");
    wrap(out, 0, ABOUT);
    out.push_str("\nModes:\n");
    for row in MODES {
        let names = row.alias.map_or(row.name.to_owned(), |alias| format!("{}, {alias}", row.name));
        let synopsis = format!("{names} {}", row.operands);
        column(out, &synopsis, row.brief);
    }
    column(out, "help [MODE]", "show help");
}

fn option(out: &mut String, opt: &Opt, letter: Option<char>, long: bool) {
    let short = letter.map_or("    ".to_owned(), |short| format!("-{short}, "));
    let left = format!("{short}{}", opt.usage());
    let default = match opt.fallback {
        Fallback::Unset => None,
        Fallback::Text(_) | Fallback::Shown(_) => Some(opt.default()),
    };
    if !long {
        let default = default.map_or(String::new(), |default| format!(" [{default}]"));
        column(out, &left, &format!("{}{default}", opt.brief));
        return;
    }
    out.push_str(&format!("  {left}\n"));
    let mut text = paragraph(opt);
    if let Some(default) = default {
        text.push_str(&format!(" Default: {default}."));
    }
    if let Some(env) = opt.env {
        text.push_str(&format!(" [{env}]"));
    }
    wrap(out, 10, &text);
}

/// Returns the summary as a sentence, followed by the details.
pub fn paragraph(opt: &Opt) -> String {
    let mut letters = opt.brief.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase()).into_iter();
    let brief: String = first.chain(letters).collect();
    let space = if opt.full.is_empty() { "" } else { " " };
    format!("{brief}.{space}{}", opt.full)
}

/// Writes two columns. If the left text is too wide, the right text begins on a new line.
fn column(out: &mut String, left: &str, right: &str) {
    const LEFT: usize = 30;
    out.push_str("  ");
    out.push_str(left);
    if left.len() + 2 > LEFT {
        out.push('\n');
        wrap(out, LEFT + 2, right);
    } else {
        let mut text = String::new();
        wrap(&mut text, LEFT + 2, right);
        out.push_str(text.get(left.len() + 2..).unwrap_or_default());
    }
}

fn wrap(out: &mut String, indent: usize, text: &str) {
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::options::options;
    use super::*;

    #[test]
    fn the_version_names_the_commit_if_it_is_known() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(describe_version(Some("0123456789ab")), format!("kapo {version} (0123456789ab)\n"));
        assert_eq!(describe_version(Some("")), format!("kapo {version}\n"));
        assert_eq!(describe_version(None), format!("kapo {version}\n"));
    }

    /// Whether the page has a row that begins with the option.
    fn describes(page: &str, opt: &Opt) -> bool {
        page.lines().any(|line| {
            let line = line.trim_start();
            let line = line.split_once(", ").filter(|(s, _)| s.len() == 2).map_or(line, |(_, l)| l);
            line.strip_prefix(&opt.usage()).is_some_and(|rest| rest.is_empty() || rest.starts_with("  "))
        })
    }

    #[test]
    fn every_option_is_in_the_help_of_its_modes_and_in_no_other() {
        for opt in options() {
            for row in MODES {
                let named_alike = options().any(|o| o.usage() == opt.usage() && o.matters_to(row.verb));
                let page = page(Some(row.verb), true);
                assert_eq!(describes(&page, opt), named_alike, "{} in {}:\n{page}", opt.usage(), row.name);
            }
        }
    }

    #[test]
    fn the_short_help_has_a_row_for_each_option_of_the_mode_and_names_the_others() {
        for opt in options().filter(|opt| opt.is_global()) {
            assert!(describes(&page(None, false), opt), "{}", opt.usage());
        }
        for opt in options() {
            for row in MODES.iter().filter(|row| opt.matters_to(row.verb)) {
                let page = page(Some(row.verb), false);
                let words: String = page.split_whitespace().collect::<Vec<_>>().join(" ");
                let named = words.split_once("Global options").map(|(_, global)| global).unwrap_or_default();
                let name = format!("--{}", opt.long);
                let is_named = opt.is_global() && named.split([' ', ',', '.']).any(|word| word == name);
                assert!(is_named || describes(&page, opt), "{name}: {page}");
            }
        }
    }

    #[test]
    fn the_short_help_fits_two_screens_with_a_line_for_each_option() {
        for verb in MODES.iter().map(|row| Some(row.verb)).chain([None]) {
            let page = page(verb, false);
            assert!(page.lines().count() <= 2 * 24, "{} lines: {page}", page.lines().count());
        }
        for opt in options().filter(|opt| opt.long != "parent-death-signal") {
            let mut row = String::new();
            option(&mut row, opt, opt.short, false);
            assert_eq!(row.lines().count(), 1, "{row}");
        }
    }

    #[test]
    fn the_help_of_a_client_shows_what_it_uses() {
        for verb in [Verb::Check, Verb::Wait, Verb::Status, Verb::Logs] {
            let page = page(Some(verb), false);
            assert!(page.contains("--timeout SECONDS") && page.contains("--interface ADDR"), "{page}");
            assert!(!page.contains("--stdout") && !page.contains("--max-connections N"), "{page}");
        }
    }

    #[test]
    fn the_help_of_watch_shows_no_capture_options() {
        let page = page(Some(Verb::Watch), true);
        for option in ["--stdout", "--stderr", "--stdlog", "--tail", "--hide-args"] {
            assert!(!page.contains(option), "{option}: {page}");
        }
        assert!(page.contains("--max-connections N") && page.contains("--quiet"), "{page}");
    }

    #[test]
    fn the_help_of_a_mode_shows_no_short_form_that_the_mode_refuses() {
        let page = page(Some(Verb::Watch), false);
        assert_eq!(page.matches(" -p, ").count(), 1, "{page}");
        assert!(page.contains(" -p, --pid PID") && page.contains("     --port PORT"), "{page}");
        assert!(page.contains(" -h, --help") && !page.contains("-S, "), "{page}");
    }

    #[test]
    fn no_line_of_help_is_wider_than_a_terminal() {
        for verb in MODES.iter().map(|row| Some(row.verb)).chain([None]) {
            for line in page(verb, true).lines().chain(page(verb, false).lines()) {
                assert!(line.len() <= WIDTH, "{line}");
            }
        }
    }
}
