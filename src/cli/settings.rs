//! Looks up the value of each option: the command line overrides the environment, which overrides the default in the
//! table.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{Fallback, Opt, Verb, options};
use super::values::{self, Wrong, shown};
use crate::cli::parse::Given;
use crate::error::Error;

/// The source of a value. A later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ValueSource {
    /// The default in the table, or no value.
    Default,
    /// The environment variable.
    Environment,
    /// The command line.
    CommandLine,
}

/// The explanation for a value such as `tcp://10.0.0.1:6666` in KAPO_PORT.
const SERVICE_LINK: &str =
    "; Kubernetes sets this variable for a Service named kapo: set enableServiceLinks: false";

/// The names and values of the environment variables that begin with KAPO_. There are only a few.
pub type Variables<'env> = &'env [(OsString, OsString)];

/// The options of one start. The function of each mode looks up each of its options exactly once.
pub(super) struct Settings<'env> {
    verb: Verb,
    given: Vec<Given>,
    variables: Variables<'env>,
    /// The sources of the values that were looked up so far.
    sources: Vec<(&'static str, ValueSource)>,
}

impl<'env> Settings<'env> {
    /// Creates the settings of `verb` from the options on the command line and the environment.
    pub(super) fn new(verb: Verb, given: Vec<Given>, variables: Variables<'env>) -> Settings<'env> {
        // Room for the options of supervise, because growth leaves unused pieces in the arena of the start.
        Settings { verb, given, variables, sources: Vec::with_capacity(64) }
    }

    /// Returns the environment variables.
    pub(super) fn variables(&self) -> Variables<'env> {
        self.variables
    }

    /// Returns the mode.
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// Returns whether a flag is set.
    #[inline(never)] // Inlining this into every mode would add 4 KiB.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        self.optional(name, values::boolean).map(Option::unwrap_or_default)
    }

    /// Returns the value of an option that has a default in the table.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        read: fn(&OsStr) -> Result<T, Wrong>,
    ) -> Result<T, Error> {
        match self.optional(name, read)? {
            Some(value) => Ok(value),
            None => unreachable!("--{name} has no default; tests build every mode"),
        }
    }

    /// Returns the value of an option; `None` if there is no value and no default. An option with a value must not be
    /// given twice.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: fn(&OsStr) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).map_err(|wrong| self.refuse(name, &text, &wrong))
    }

    /// Returns the only text given for an option, or the last one for a flag: a script may add `--quiet=false`.
    fn text(&mut self, name: &'static str) -> Result<Option<Cow<'env, OsStr>>, Error> {
        let mut texts = self.texts(name)?;
        let last = texts.pop();
        if let (Some(first), Some(last)) = (texts.first(), &last)
            && self.row(name).value.is_some()
        {
            let hint = if ["port", "interface"].contains(&name) { "; --listen adds listeners" } else { "" };
            return Err(Error::Usage(format!(
                "--{name} is given twice ({} and {}), but takes only one value{hint}",
                shown(first),
                shown(last)
            )));
        }
        Ok(last)
    }

    /// Returns all values of an option that may be given more than once, in their order.
    pub(super) fn all<T>(
        &mut self,
        name: &'static str,
        read: fn(&OsStr) -> Result<Vec<T>, Wrong>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for text in self.texts(name)? {
            all.extend(read(&text).map_err(|wrong| self.refuse(name, &text, &wrong))?);
        }
        Ok(all)
    }

    /// Returns the texts given for an option: all from the command line, or the variable, or the default.
    fn texts(&mut self, name: &'static str) -> Result<Vec<Cow<'env, OsStr>>, Error> {
        let opt = self.row(name);
        let mut texts = Vec::new();
        self.given.retain_mut(|given| {
            let asked = given.opt.long == opt.long;
            if asked {
                // A flag without a value is set.
                let text = given.value.take();
                texts.push(text.map_or(Cow::Borrowed(OsStr::new("true")), Cow::Owned));
            }
            !asked
        });
        let mut source = ValueSource::CommandLine;
        if texts.is_empty() {
            // An empty variable counts as not set, as users of `FOO=` in a unit or compose file expect.
            let variable = |env| self.variables.iter().find(|(name, _)| name == env);
            let value = opt.env.and_then(variable).map(|(_, value)| value).filter(|value| !value.is_empty());
            texts.extend(value.map(|value| Cow::Borrowed(value.as_os_str())));
            source = ValueSource::Environment;
        }
        if texts.is_empty() {
            source = ValueSource::Default;
            if let Fallback::Text(text) = opt.fallback {
                texts.push(Cow::Borrowed(OsStr::new(text)));
            }
        }
        self.sources.push((name, source));
        match texts.iter().find(|text| text.as_bytes().contains(&0)) {
            Some(text) => Err(self.refuse(name, text, &format!("{} contains a NUL byte", shown(text)))),
            None => Ok(texts),
        }
    }

    #[cold]
    fn refuse(&self, name: &str, text: &OsStr, wrong: &str) -> Error {
        let by_kubernetes = name == "port"
            && self.source(name) == ValueSource::Environment
            && text.as_bytes().starts_with(b"tcp://");
        let hint = if by_kubernetes { SERVICE_LINK } else { "" };
        Error::Usage(format!("{}: {wrong}{hint}", self.label(name)))
    }

    fn row(&self, name: &str) -> &'static Opt {
        // Each start looks up all options, and with `find` this loop would be a tenth of its instructions.
        for opt in options() {
            if opt.long == name && opt.serves(self.verb) {
                return opt;
            }
        }
        unreachable!("OPTIONS has no --{name} for this mode; tests build every mode")
    }

    /// Returns the source of the value of an option that was looked up.
    pub(super) fn source(&self, name: &str) -> ValueSource {
        self.sources
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(ValueSource::Default, |(_, source)| *source)
    }

    /// Returns the name that the user gave, such as `--port` or `KAPO_PORT`.
    pub(super) fn label(&self, name: &str) -> String {
        match (self.source(name), self.row(name).env) {
            (ValueSource::Environment, Some(variable)) => variable.to_owned(),
            _ => format!("--{name}"),
        }
    }

    /// Returns the error for an option that needs one of others, such as `KAPO_TAIL needs KAPO_STDOUT or KAPO_STDERR`.
    /// The others are named in the same form as the option.
    pub(super) fn needs(&self, name: &str, others: &[&str]) -> Error {
        let by_variable = self.source(name) == ValueSource::Environment;
        let named = |other: &&str| match self.row(other).env.filter(|_| by_variable) {
            Some(variable) => variable.to_owned(),
            None => format!("--{other}"),
        };
        let others: Vec<String> = others.iter().map(named).collect();
        Error::Usage(format!("{} needs {}", self.label(name), others.join(" or ")))
    }

    /// Returns the error for two options that exclude each other.
    pub(super) fn conflict(&self, one: &str, other: &str) -> Error {
        Error::Usage(format!("{} and {} cannot be combined", self.label(one), self.label(other)))
    }

    /// Checks that all options were looked up.
    pub(super) fn finish(&mut self) {
        debug_assert!(self.given.is_empty(), "no function asks for {:?}", self.given);
    }
}
