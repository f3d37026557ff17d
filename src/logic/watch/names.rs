//! The names of `watch NAME...`, and what is kept for each of them. A process that matches several names counts for the
//! first one.

use super::matching::{ProcessNames, Rule};
use super::{LastEnd, Watch};
use crate::logic::ProcessId;
use crate::logic::history::History;

/// One NAME and its processes.
#[derive(Debug)]
pub(super) struct WatchedName {
    pub(super) rule: Rule,
    /// The value of `Command`.
    pub(super) command: String,
    /// Number of living processes.
    pub(super) living: usize,
    /// The process that ended last.
    pub(super) last: Option<LastEnd>,
    pub(super) history: History,
    /// Number of processes so far.
    pub(super) found: u64,
}

impl WatchedName {
    pub(super) fn new(rule: Rule, command: String, history: usize) -> WatchedName {
        WatchedName { rule, command, living: 0, last: None, history: History::new(history), found: 0 }
    }
}

impl Watch {
    /// Returns the name that a process matches; with `--pid`, always the only one.
    pub(super) fn matching(&self, names: &ProcessNames<'_>) -> Option<usize> {
        self.names.iter().position(|name| self.only.is_some() || name.rule.matches(names))
    }

    /// Whether the rule of the name `at` passes the test.
    pub(super) fn has_rule(&self, at: usize, test: &dyn Fn(&Rule) -> bool) -> bool {
        self.names.get(at).is_some_and(|name| test(&name.rule))
    }

    /// Whether a process matches its own name or, if it is not known yet, any name.
    pub(super) fn accepts(&self, pid: ProcessId, test: &dyn Fn(&Rule) -> bool) -> bool {
        match self.living.get(&pid) {
            Some(process) => self.has_rule(process.name, test),
            None => self.names.iter().any(|name| test(&name.rule)),
        }
    }

    /// Returns the value of `Command` of a name: NAME or, with `--pid` alone, the name of that process once it is known.
    pub(crate) fn command(&self, at: usize) -> &str {
        self.names.get(at).map_or("", |name| &name.command)
    }

    /// Returns the ended processes of one name.
    pub(crate) fn history_of(&self, at: usize) -> Option<&History> {
        self.names.get(at).map(|name| &name.history)
    }

    /// Returns the ended processes of all names.
    pub(crate) fn history(&self) -> &History {
        match self.names.as_slice() {
            [only] => &only.history,
            _ => &self.all,
        }
    }

    /// Whether there are several names.
    pub(crate) fn has_several_names(&self) -> bool {
        self.names.len() > 1
    }
}
