//! The options of `kapo ls` and `kapo fleet`, and the states of the instances that they list.

use std::path::PathBuf;
use std::time::Duration;

/// The options of `ls`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListOptions {
    /// The folder; `None` means the first default folder that exists.
    pub folder: Option<PathBuf>,
    /// `--output`.
    pub format: ListFormat,
    /// `--sort`.
    pub order: ListOrder,
    /// `--state`: only these are shown.
    pub states: StateSet,
    /// `--fleet`: the address of a fleet that serves the folder.
    pub fleet: Option<String>,
    /// `--prune`: remove the sockets that are dead.
    pub prune: bool,
    /// `--watch`: follow the sockets.
    pub watch: bool,
    /// `--timeout`: the time for all answers together.
    pub timeout: Duration,
}

/// The options of `fleet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetOptions {
    /// The folder, as for `ls`.
    pub folder: Option<PathBuf>,
    /// `--timeout`: the time for one answer.
    pub timeout: Duration,
    /// `--idle-exit`: exit if no connection was open for this long.
    pub idle_exit: Option<Duration>,
}

/// The output format of `ls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// A table for people.
    Table,
    /// The table with more columns.
    Wide,
    /// A JSON array.
    Json,
    /// Metrics in the text format of Prometheus.
    Prom,
    /// Targets for the file-based service discovery of Prometheus.
    FileSd,
}

impl ListFormat {
    /// The words of the option, in the order of the variants.
    pub const WORDS: &[&str] = &["table", "wide", "json", "prom", "file-sd"];
    /// All formats.
    pub const ALL: &[ListFormat] =
        &[ListFormat::Table, ListFormat::Wide, ListFormat::Json, ListFormat::Prom, ListFormat::FileSd];
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    /// By state, the worst first; equal ones by their start, the newest first.
    State,
    /// By name.
    Name,
    /// By start, the newest first.
    Start,
    /// By number of restarts, the highest first.
    Restarts,
}

impl ListOrder {
    /// The words of the option, in the order of the variants.
    pub const WORDS: &[&str] = &["state", "name", "start", "restarts"];
    /// All orders.
    pub const ALL: &[ListOrder] = &[ListOrder::State, ListOrder::Name, ListOrder::Start, ListOrder::Restarts];
}

/// The state of one instance of kapo, as `ls` sees it. The worst is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceState {
    /// The command has failed often.
    Flapping,
    /// The last run has failed, and the command will be started again.
    Failing,
    /// The run has failed.
    Failed,
    /// No process matches (`watch`).
    Gone,
    /// The socket accepts or queues a connection, but no answer arrives.
    Stuck,
    /// Nothing listens on the socket.
    Dead,
    /// The user may not connect.
    Denied,
    /// The answer is not that of a kapo.
    Foreign,
    /// Nothing has run yet.
    Starting,
    /// The command runs and is not ready.
    Unready,
    /// The command is being stopped.
    Stopping,
    /// The last run was a success, and the command will be started again.
    Pausing,
    /// The command runs.
    Running,
    /// The run was a success.
    Done,
    /// The socket was dead and `--prune` has removed it.
    Removed,
}

impl InstanceState {
    /// The names, in the order of the variants.
    pub const WORDS: &[&str] = &[
        "flapping", "failing", "failed", "gone", "stuck", "dead", "denied", "foreign", "starting", "unready",
        "stopping", "pausing", "running", "done", "removed",
    ];
    /// All states.
    pub const ALL: &[InstanceState] = &[
        InstanceState::Flapping,
        InstanceState::Failing,
        InstanceState::Failed,
        InstanceState::Gone,
        InstanceState::Stuck,
        InstanceState::Dead,
        InstanceState::Denied,
        InstanceState::Foreign,
        InstanceState::Starting,
        InstanceState::Unready,
        InstanceState::Stopping,
        InstanceState::Pausing,
        InstanceState::Running,
        InstanceState::Done,
        InstanceState::Removed,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        InstanceState::WORDS.get(self as usize).copied().unwrap_or_default()
    }

    /// Whether nothing is wrong. The same commands are healthy (`/healthz`).
    pub fn is_well(self) -> bool {
        self >= InstanceState::Unready
    }
}

/// A set of states: one bit for each, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSet(pub usize);

impl StateSet {
    /// Whether the set contains the state.
    pub fn contains(self, state: InstanceState) -> bool {
        self.0 & 1 << state as usize != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_belongs_to_the_variant_in_its_place() {
        assert_eq!(InstanceState::WORDS.len(), InstanceState::ALL.len());
        for (word, state) in InstanceState::WORDS.iter().zip(InstanceState::ALL) {
            assert_eq!((*word, state.name()), (format!("{state:?}").to_lowercase().as_str(), *word));
        }
        assert_eq!(ListFormat::WORDS.len(), ListFormat::ALL.len());
        assert_eq!(ListOrder::WORDS.len(), ListOrder::ALL.len());
    }
}
