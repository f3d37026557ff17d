//! The value of each option, by its name: the command line beats the environment, which beats the default in the table.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{Fallback, OPTIONS, Opt, Verb};
use super::values::{self, Wrong, shown};
use crate::cli::parse::Given;
use crate::error::Error;

/// Where a value came from; the later beats the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The table, or nothing.
    Default,
    /// The variable.
    Environment,
    /// The option.
    CommandLine,
}

/// What sets KAPO_PORT to `tcp://10.0.0.1:6666`.
const SERVICE_LINK: &str =
    "; Kubernetes sets this variable for a Service named kapo: set enableServiceLinks: false";

/// Names and values of the variables whose names begin with KAPO_; there are few of them, or none.
pub type Variables<'env> = &'env [(OsString, OsString)];

/// The options of one start. Each is asked for once, by the function of its mode.
pub(super) struct Settings<'env> {
    verb: Verb,
    given: Vec<Given>,
    variables: Variables<'env>,
    /// Where the values asked for so far came from.
    sources: Vec<(&'static str, Source)>,
}

impl<'env> Settings<'env> {
    /// Of `verb`, given these options on the command line and this environment.
    pub(super) fn new(verb: Verb, given: Vec<Given>, variables: Variables<'env>) -> Settings<'env> {
        Settings { verb, given, variables, sources: Vec::new() }
    }

    /// The environment.
    pub(super) fn variables(&self) -> Variables<'env> {
        self.variables
    }

    /// The mode.
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// Whether a flag is set.
    #[inline(never)] // Inlined into every mode it would add 4 KiB.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        self.optional(name, values::boolean).map(Option::unwrap_or_default)
    }

    /// The value of an option that has a default in the table.
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

    /// The value of an option, the last one if it is given more than once; `None`: it has none, not even a default.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: fn(&OsStr) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.texts(name)?.pop() else { return Ok(None) };
        read(&text).map(Some).map_err(|wrong| self.refuse(name, &text, &wrong))
    }

    /// All values of an option that collects them, in the order given.
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

    /// What was given for an option: all of the command line, else the variable, else the default.
    fn texts(&mut self, name: &'static str) -> Result<Vec<OsString>, Error> {
        let opt = self.row(name);
        let mut texts = Vec::new();
        self.given.retain_mut(|given| {
            let asked = given.opt.long == opt.long;
            if asked {
                // A bare flag is set.
                texts.push(given.value.take().unwrap_or_else(|| "true".into()));
            }
            !asked
        });
        let mut source = Source::CommandLine;
        if texts.is_empty() {
            // Empty counts as not set: that is what `FOO=` in a unit or a compose file is meant to do.
            let variable = |env| self.variables.iter().find(|(name, _)| name == env);
            let value = opt.env.and_then(variable).map(|(_, value)| value).filter(|value| !value.is_empty());
            texts.extend(value.cloned());
            source = Source::Environment;
        }
        if texts.is_empty() {
            source = Source::Default;
            if let Fallback::Text(text) = opt.fallback {
                texts.push(text.into());
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
            && self.source(name) == Source::Environment
            && text.as_bytes().starts_with(b"tcp://");
        let hint = if by_kubernetes { SERVICE_LINK } else { "" };
        Error::Usage(format!("{}: {wrong}{hint}", self.label(name)))
    }

    fn row(&self, name: &str) -> &'static Opt {
        match OPTIONS.iter().find(|opt| opt.long == name && opt.serves(self.verb)) {
            Some(opt) => opt,
            None => unreachable!("OPTIONS has no --{name} for this mode; tests build every mode"),
        }
    }

    /// Where the value of an option came from that was asked for.
    pub(super) fn source(&self, name: &str) -> Source {
        self.sources.iter().find(|(known, _)| *known == name).map_or(Source::Default, |(_, source)| *source)
    }

    /// `--port` or `KAPO_PORT`: the name under which the user finds the value.
    pub(super) fn label(&self, name: &str) -> String {
        match (self.source(name), self.row(name).env) {
            (Source::Environment, Some(variable)) => variable.to_owned(),
            _ => format!("--{name}"),
        }
    }

    /// `KAPO_TAIL needs KAPO_STDOUT or KAPO_STDERR`: an option needs one of others, which are named as it was given.
    pub(super) fn needs(&self, name: &str, others: &[&str]) -> Error {
        let by_variable = self.source(name) == Source::Environment;
        let named = |other: &&str| match self.row(other).env.filter(|_| by_variable) {
            Some(variable) => variable.to_owned(),
            None => format!("--{other}"),
        };
        let others: Vec<String> = others.iter().map(named).collect();
        Error::Usage(format!("{} needs {}", self.label(name), others.join(" or ")))
    }

    /// To be called when every option was asked for.
    pub(super) fn finish(&mut self) {
        debug_assert!(self.given.is_empty(), "no function asks for {:?}", self.given);
    }
}
