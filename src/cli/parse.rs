//! Divides the arguments into kapo's own options and the command, which is left unchanged.
//!
//! This parser is handwritten because the position decides where kapo's options end (`kapo run sleep --port 5`)
//! and whether `-p` means a port or a pid. Arguments are bytes and need not be UTF-8.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::cli::options::{MODES, Opt, Verb, options};
use crate::cli::similar::closest;
use crate::cli::values::shown;
use crate::error::Error;

/// An option on the command line. `value` is `None` for a flag without a value.
#[derive(Debug)]
pub struct Given {
    /// The row of the option in the table.
    pub opt: &'static Opt,
    /// The value.
    pub value: Option<OsString>,
}

/// The request that the arguments make.
#[derive(Debug)]
pub enum Invocation {
    /// Print the long or short help for a mode or for the whole program.
    Help {
        /// The mode; `None` for the whole program.
        verb: Option<Verb>,
        /// Whether the long form (`--help`) is requested.
        long: bool,
    },
    /// Print the version (`--version`).
    Version,
    /// Run a mode with its options, in the given order, and its operands.
    Mode {
        /// The mode.
        verb: Verb,
        /// The options, global ones first.
        given: Vec<Given>,
        /// The first argument that is not an option, and all arguments after it.
        operands: VecDeque<OsString>,
    },
}

/// Splits the arguments without parsing the values. The mode is returned even if there is an error after it.
pub fn split(words: Vec<OsString>) -> (Option<Verb>, Result<Invocation, Error>) {
    let mut scan = Scan { words: words.into(), verb: None, given: Vec::new() };
    let asked = scan.all();
    (scan.verb, asked)
}

/// Handles `kapo help`, with or without a mode.
fn help(words: &mut VecDeque<OsString>) -> Result<Invocation, Error> {
    let verb = match words.pop_front() {
        Some(word) if word == "--help" || word == "-h" || word == "help" => None,
        Some(word) => Some(mode(&word)?),
        None => None,
    };
    match words.pop_front() {
        Some(word) => {
            Err(Error::Usage(format!("unexpected argument {}: help takes only one mode", shown(&word))))
        }
        None => Ok(Invocation::Help { verb, long: true }),
    }
}

fn mode(word: &OsStr) -> Result<Verb, Error> {
    let text = word.to_string_lossy();
    Verb::named(&text).ok_or_else(|| {
        let names = MODES.iter().map(|row| row.name).chain(["help"]);
        let hint = match closest(&text, names) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("expected {}", one_of_the_modes()),
        };
        Error::Usage(format!("unknown mode {}; {hint}", shown(word)))
    })
}

fn one_of_the_modes() -> String {
    let names: Vec<&str> = MODES.iter().map(|row| row.name).collect();
    format!("{} or help (see kapo --help)", names.join(", "))
}

struct Scan {
    words: VecDeque<OsString>,
    /// The mode; `None` while only global options were read.
    verb: Option<Verb>,
    given: Vec<Given>,
}

impl Scan {
    fn all(&mut self) -> Result<Invocation, Error> {
        match self.options() {
            Ok(None) => {}
            Ok(Some(asked)) => return Ok(asked),
            Err(error) => {
                // A mode after the mistake still decides the exit code of the error.
                let word = self.words.iter().find(|word| !word.as_bytes().starts_with(b"-"));
                self.verb = word.and_then(|word| Verb::named(&word.to_string_lossy()));
                return Err(error);
            }
        }
        let Some(word) = self.words.pop_front() else {
            let error = Error::Usage(format!("no mode given; expected {}", one_of_the_modes()));
            return Err(self.swallowed(error));
        };
        if word == "help" {
            return help(&mut self.words);
        }
        let verb = mode(&word).map_err(|error| self.swallowed(error))?;
        self.verb = Some(verb);
        if let Some(asked) = self.options()? {
            return Ok(asked);
        }
        if let Some(word) = self.words.iter().find(|word| word.as_bytes().contains(&0)) {
            return Err(Error::Usage(format!(
                "{} contains a NUL byte, which an argument cannot contain",
                shown(word)
            )));
        }
        Ok(Invocation::Mode {
            verb,
            given: std::mem::take(&mut self.given),
            operands: std::mem::take(&mut self.words),
        })
    }

    /// Reads options up to the first argument that is not an option. A `--` is removed.
    fn options(&mut self) -> Result<Option<Invocation>, Error> {
        while let Some(word) = self.words.front() {
            // A single dash is not an option, because many commands use it for stdin.
            if !word.as_bytes().starts_with(b"-") || word == "-" {
                break;
            }
            let Some(word) = self.words.pop_front() else { break };
            let asked = match word.as_bytes().strip_prefix(b"--") {
                Some(b"") => break,
                Some(long) => self.long(long)?,
                None => self.bundle(&word)?,
            };
            if asked.is_some() {
                return Ok(asked);
            }
        }
        Ok(None)
    }

    /// Reads a long option: `--port 80`, `--port=80`, `--quiet`, `--quiet=false`.
    fn long(&mut self, text: &[u8]) -> Result<Option<Invocation>, Error> {
        let at = text.iter().position(|b| *b == b'=');
        let (name, value) = match at.and_then(|at| text.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..).map(|v| OsString::from_vec(v.to_vec()))),
            None => (text, None),
        };
        let name = String::from_utf8_lossy(name);
        let rows = || options().filter(|opt| opt.long == name);
        let Some(opt) = rows().find(|opt| self.takes(opt)) else {
            return Err(Error::Usage(match rows().next() {
                Some(_) => self.elsewhere(&name),
                None => self.unknown(&name),
            }));
        };
        self.take(opt, value, true)
    }

    /// Reads short options: `-p 80`, `-p80`, `-p=80`, `-SEL`, `-SEp80`.
    fn bundle(&mut self, word: &OsStr) -> Result<Option<Invocation>, Error> {
        let mut rest = word.as_bytes().get(1..).unwrap_or_default();
        while let Some((&letter, behind)) = rest.split_first() {
            rest = behind;
            let rows = || options().filter(|opt| opt.short == Some(char::from(letter)));
            // After the mode, the short forms of global options are not valid, because `-p` may mean a pid there. -h
            // is valid everywhere.
            let here = |opt: &&Opt| match self.verb {
                None => opt.is_global(),
                Some(verb) => opt.modes.contains(&verb) || opt.is_help(),
            };
            let Some(opt) = rows().find(here) else {
                let hint = match (rows().next(), self.verb) {
                    (Some(opt), Some(_)) if opt.is_global() => {
                        format!("it must come before the mode; after the mode use --{}", opt.long)
                    }
                    (Some(opt), None) => format!("{} must come after the mode", opt.usage()),
                    (Some(opt), Some(verb)) => {
                        format!("{} is not an option of {}", opt.usage(), verb.row().name)
                    }
                    (None, _) => {
                        return Err(Error::Usage(format!("unknown option {}", shown_in(letter, word))));
                    }
                };
                return Err(Error::Usage(format!("unknown option {}: {hint}", shown_in(letter, word))));
            };
            let mut value = None;
            // The original kapo used Go's flags, whose short form also allows `=`.
            let text = rest.strip_prefix(b"=").or(opt.value.and(Some(rest)).filter(|rest| !rest.is_empty()));
            if let Some(text) = text {
                value = Some(OsString::from_vec(text.to_vec()));
                rest = b"";
            }
            if let Some(asked) = self.take(opt, value, false)? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    fn takes(&self, opt: &Opt) -> bool {
        self.verb.map_or(opt.is_global(), |verb| opt.serves(verb))
    }

    /// If the option needs a value and has none, the next argument is the value, even if it looks like an option. Only
    /// `--` is not a value.
    fn take(
        &mut self,
        opt: &'static Opt,
        value: Option<OsString>,
        long: bool,
    ) -> Result<Option<Invocation>, Error> {
        let page = match opt.long {
            "help" => Some(Invocation::Help { verb: self.verb, long }),
            "version" => Some(Invocation::Version),
            _ => None,
        };
        match page {
            Some(_) if value.is_some() => {
                return Err(Error::Usage(format!("--{} takes no value", opt.long)));
            }
            Some(page) => return Ok(Some(page)),
            None => {}
        }
        let value = match (opt.value, value) {
            (Some(name), None) => match self.words.pop_front() {
                Some(word) if word != "--" => Some(word),
                _ => return Err(Error::Usage(format!("--{} needs a value ({name})", opt.long))),
            },
            (_, value) => value,
        };
        self.given.push(Given { opt, value });
        Ok(None)
    }

    /// Explains a missing mode if an option has taken its name as a value, as in `kapo -p run true`.
    fn swallowed(&self, error: Error) -> Error {
        let last = self.given.last().and_then(|given| Some((given.opt, given.value.as_deref()?)));
        match (error, last) {
            (Error::Usage(text), Some((opt, value))) if Verb::named(&value.to_string_lossy()).is_some() => {
                Error::Usage(format!("{text}; {} was read as the value of --{}", shown(value), opt.long))
            }
            (error, _) => error,
        }
    }

    /// Returns the message for an option that exists but is not valid here.
    fn elsewhere(&self, name: &str) -> String {
        let modes = options().filter(|opt| opt.long == name).flat_map(|opt| opt.modes);
        let modes: Vec<&str> = modes.map(|verb| verb.row().name).collect();
        let modes = modes.join(", ");
        match self.verb {
            Some(verb) => format!("--{name} is not an option of {}; it belongs to {modes}", verb.row().name),
            None => format!("--{name} must come after the mode ({modes})"),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let near = closest(name, options().filter(|opt| self.takes(opt)).map(|opt| opt.long));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean --{near}?"));
        format!("unknown option {}{hint}", shown(OsStr::new(&format!("--{name}"))))
    }
}

/// Formats a letter of a bundle: `'-x'`, or `'-x' in '-Sx'`.
fn shown_in(letter: u8, word: &OsStr) -> String {
    let alone = OsString::from_vec(vec![b'-', letter]);
    if alone == word { shown(word) } else { format!("{} in {}", shown(&alone), shown(word)) }
}
