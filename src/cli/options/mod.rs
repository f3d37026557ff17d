//! The table of the command line: modes, options, variables, defaults and their texts. It is the only source of the
//! parser, the help pages, the man page, the table of options in README.md and the completions.

mod clients;
mod fleet;
mod health;
mod output;
mod restarting;
mod serving;
mod stopping;
mod watching;

pub use super::modes::{MODES, ModeRow, Verb};

/// The value of an option that is set neither on the command line nor in the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The option stays unset. The help shows this as `off` for a flag and `none` for a value.
    Unset,
    /// This text, which is parsed like a value that the user has given.
    Text(&'static str),
    /// The option stays unset and its user applies this default, because it matters whether the option was given.
    Shown(&'static str),
}

/// What shell completion offers for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// No completion, for example for a number or a duration.
    None,
    /// The names of signals.
    Signal,
    /// The paths of files.
    Path,
    /// These words.
    Words(&'static [&'static str]),
}

impl Completion {
    /// Returns the allowed words if the value is one of a fixed set of words.
    pub fn words(self) -> Option<&'static [&'static str]> {
        match self {
            Completion::Words(words) => Some(words),
            Completion::None | Completion::Signal | Completion::Path => None,
        }
    }
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// The modes that accept the option. An empty list means that the option is global.
    pub modes: &'static [Verb],
    /// The long name, without the dashes.
    pub long: &'static str,
    /// The short name, without the dash.
    pub short: Option<char>,
    /// The name of the value in the help; `None` for a flag.
    pub value: Option<&'static str>,
    /// What shell completion offers for the value.
    pub completion: Completion,
    /// The environment variable that sets the option.
    pub env: Option<&'static str>,
    /// The default value.
    pub fallback: Fallback,
    /// The summary of one line for the help.
    pub brief: &'static str,
    /// The details that the summary leaves out; may be empty.
    pub full: &'static str,
}

impl Opt {
    /// Whether the option is also accepted before the mode.
    pub fn is_global(&self) -> bool {
        self.modes.is_empty()
    }

    /// Whether the option asks for help. Its long and its short name are valid everywhere.
    pub fn is_help(&self) -> bool {
        self.long == "help"
    }

    /// Whether the mode accepts the option on the command line.
    pub fn serves(&self, verb: Verb) -> bool {
        self.is_global() || self.modes.contains(&verb)
    }

    /// Returns the default value as the help shows it.
    pub fn default(&self) -> &'static str {
        match (self.fallback, self.value) {
            (Fallback::Text(text) | Fallback::Shown(text), _) => text,
            (Fallback::Unset, Some(_)) => "none",
            (Fallback::Unset, None) => "off",
        }
    }

    /// Whether the option can be set for the mode. `watch` and `fleet` refuse the options that capture
    /// output.
    pub fn is_taken_by(&self, verb: Verb) -> bool {
        self.serves(verb) && !(matches!(verb, Verb::Watch | Verb::Fleet) && CAPTURE.contains(&self.long))
    }

    /// Whether the option has an effect in the mode. Clients accept every global option, because they may share the
    /// environment of the process that they query, but they use only a few. Some options concern the output or the
    /// arguments of a command, and `watch` has none.
    pub fn matters_to(&self, verb: Verb) -> bool {
        let used = match verb {
            Verb::Run | Verb::Supervise => true,
            Verb::Watch => self.is_taken_by(verb) && self.long != "hide-args",
            Verb::Fleet => {
                self.is_taken_by(verb) && !matches!(self.long, "hide-args" | "sidebind" | "name" | "history")
            }
            Verb::Ls => matches!(self.long, "run-dir" | "help" | "version"),
            Verb::Check | Verb::Wait | Verb::Status | Verb::Logs => {
                matches!(self.long, "port" | "interface" | "help" | "version")
            }
        };
        self.serves(verb) && (used || !self.is_global())
    }

    /// Returns the option as the help shows it, such as `--port PORT`.
    pub fn usage(&self) -> String {
        match self.value {
            Some(value) => format!("--{} {value}", self.long),
            None => format!("--{}", self.long),
        }
    }

    const fn short(mut self, short: char) -> Opt {
        self.short = Some(short);
        self
    }

    const fn env(mut self, name: &'static str) -> Opt {
        self.env = Some(name);
        self
    }

    const fn completes(mut self, completion: Completion) -> Opt {
        self.completion = completion;
        self
    }

    const fn otherwise(mut self, text: &'static str) -> Opt {
        self.fallback = Fallback::Text(text);
        self
    }

    const fn says(mut self, brief: &'static str, full: &'static str) -> Opt {
        self.brief = brief;
        self.full = full;
        self
    }
}

const fn flag(modes: &'static [Verb], long: &'static str) -> Opt {
    let (short, value, env, fallback) = (None, None, None, Fallback::Unset);
    let completion = Completion::None;
    Opt { modes, long, short, value, completion, env, fallback, brief: "", full: "" }
}

const fn value(modes: &'static [Verb], long: &'static str, name: &'static str) -> Opt {
    let mut opt = flag(modes, long);
    opt.value = Some(name);
    opt
}

/// The options for the command's output.
pub(super) const CAPTURE: &[&str] = &["stdout", "stderr", "stdlog", "tail"];

const GLOBAL: &[Verb] = &[];
const JOB: &[Verb] = &[Verb::Run, Verb::Supervise];
const RUN: &[Verb] = &[Verb::Run];
const SUPERVISE: &[Verb] = &[Verb::Supervise];
const WATCH: &[Verb] = &[Verb::Watch];
const CHECK: &[Verb] = &[Verb::Check];
const WAIT: &[Verb] = &[Verb::Wait];
const STATUS: &[Verb] = &[Verb::Status];
const LOGS: &[Verb] = &[Verb::Logs];
const LS: &[Verb] = &[Verb::Ls];
const FLEET: &[Verb] = &[Verb::Fleet];

/// A group of options of one task, in which all options have the same modes.
#[derive(Debug)]
pub struct OptionGroup {
    /// The heading in the help.
    pub title: &'static str,
    /// The options, in the order of the help.
    pub options: &'static [Opt],
}

impl OptionGroup {
    /// The modes that accept the options of the group. An empty list means that the options are global.
    pub fn modes(&self) -> &'static [Verb] {
        self.options.first().map_or(&[], |opt| opt.modes)
    }
}

const fn group(title: &'static str, options: &'static [Opt]) -> OptionGroup {
    OptionGroup { title, options }
}

/// Every option, in groups by task, in the order of the help.
pub static GROUPS: &[OptionGroup] = &[
    group("Listening and answering", serving::SERVING),
    group("Output of the command", output::OUTPUT),
    group("Log and help", output::LOG),
    group("Time limit, signals and end", stopping::STOPPING),
    group("Readiness, health and reports", health::HEALTH),
    group("After the end", restarting::AFTER_RUN),
    group("Starting again", restarting::RESTARTING),
    group("Watching processes", watching::WATCHING),
    group("Query", clients::CHECKING),
    group("Condition and limits", clients::WAITING),
    group("Display", clients::STATUS_OPTIONS),
    group("Selection", clients::LOGS_OPTIONS),
    group("List", clients::LS_OPTIONS),
    group("Folder of sockets", fleet::FLEET_OPTIONS),
];

/// Returns every option, in the order of the help.
pub fn options() -> impl Iterator<Item = &'static Opt> + Clone {
    GROUPS.iter().flat_map(|group| group.options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_taken_twice_where_both_could_be_meant() {
        for (at, one) in options().enumerate() {
            for other in options().skip(at + 1) {
                let meet = MODES.iter().any(|m| one.serves(m.verb) && other.serves(m.verb));
                assert!(!meet || one.long != other.long, "--{}", one.long);
                let both_global = one.is_global() == other.is_global();
                assert!(!meet || !both_global || one.short.is_none() || one.short != other.short, "{one:?}");
                assert!(!meet || one.env.is_none() || one.env != other.env, "{:?}", one.env);
            }
        }
    }

    #[test]
    fn all_options_of_a_group_have_the_same_modes() {
        for group in GROUPS {
            for opt in group.options {
                assert_eq!(opt.modes, group.modes(), "--{}", opt.long);
            }
        }
    }

    #[test]
    fn every_option_has_a_short_text() {
        for opt in options() {
            assert!(!opt.brief.is_empty() && opt.brief.len() <= 60, "--{}: {}", opt.long, opt.brief);
            assert!(!opt.brief.ends_with('.'), "--{}", opt.long);
            assert!(opt.full.is_empty() || opt.full.ends_with('.'), "--{}", opt.long);
        }
    }
}
