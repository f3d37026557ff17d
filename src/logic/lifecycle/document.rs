//! The status document of one command, the runs from which it is written, and whether it has changed since it was last
//! rendered.

use std::time::Duration;

use super::run_record::{RunEnd, Runs};
use super::{Now, ProcessId, StopSignalFrom};
use crate::logic::history::EpisodeEffect;
use crate::logic::status::Status;

#[derive(Debug)]
pub(super) struct Document {
    pub(super) status: Status,
    pub(super) runs: Runs,
    /// The document must be rendered again.
    pub(super) changed: bool,
}

impl Document {
    pub(super) fn new(status: Status, runs: Runs) -> Document {
        Document { status, runs, changed: true }
    }

    /// Records that a run was started.
    pub(super) fn started(&mut self, now: Now, pid: ProcessId, ttl: Option<Duration>) {
        self.runs.started(now, pid, ttl, &mut self.status);
        self.changed = true;
    }

    /// Records that the command could not be started.
    pub(super) fn failed(&mut self, now: Now, code: u8, episode: EpisodeEffect) {
        self.runs.failed(now, code, episode, &mut self.status);
        self.changed = true;
    }

    /// Records that another process counts as the command.
    pub(super) fn followed(&mut self, main: ProcessId) {
        self.runs.followed(main, &mut self.status);
        self.changed = true;
    }

    /// Records the end of the run.
    pub(super) fn ended(&mut self, end: RunEnd, episode: EpisodeEffect) {
        self.runs.ended(end, episode, &mut self.status);
        self.changed = true;
    }

    /// Records the last lines of a failed run.
    pub(super) fn drained(&mut self, last_output: Vec<String>) {
        self.runs.drained(last_output, &mut self.status);
        self.changed = true;
    }

    /// Records a stop signal. Only the first one is shown.
    pub(super) fn stop_requested(&mut self, by: StopSignalFrom) {
        if self.status.stop_signal_from.is_none() {
            self.status.stop_signal_from = Some(by);
            self.changed = true;
        }
    }

    /// Clears the planned next start after a change of the state.
    pub(super) fn clear_next_start(&mut self) {
        self.status.next_start = None;
        self.changed = true;
    }
}
