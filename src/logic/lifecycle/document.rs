//! The status document of one life, the runs that it is written from, and whether it has changed since it was rendered.

use std::time::Duration;

use super::run_record::{RunEnd, Runs};
use super::{Now, Pid, StopSignalFrom};
use crate::logic::history::Verdict;
use crate::logic::status::Status;

#[derive(Debug)]
pub(super) struct Document {
    pub(super) status: Status,
    pub(super) runs: Runs,
    /// It must be rendered again.
    pub(super) changed: bool,
}

impl Document {
    pub(super) fn new(status: Status, runs: Runs) -> Document {
        Document { status, runs, changed: true }
    }

    /// The command runs.
    pub(super) fn started(&mut self, now: Now, pid: Pid, ttl: Option<Duration>) {
        self.runs.started(now, pid, ttl, &mut self.status);
        self.changed = true;
    }

    /// The command could not be started.
    pub(super) fn failed(&mut self, now: Now, code: u8, verdict: Verdict) {
        self.runs.failed(now, code, verdict, &mut self.status);
        self.changed = true;
    }

    /// Another process counts as the command.
    pub(super) fn followed(&mut self, main: Pid) {
        self.runs.followed(main, &mut self.status);
        self.changed = true;
    }

    /// The run has ended.
    pub(super) fn ended(&mut self, end: RunEnd, verdict: Verdict) {
        self.runs.ended(end, verdict, &mut self.status);
        self.changed = true;
    }

    /// The last lines of a failed run have been read.
    pub(super) fn drained(&mut self, last_output: Vec<String>) {
        self.runs.drained(last_output, &mut self.status);
        self.changed = true;
    }

    /// The first stop signal is the one that is shown.
    pub(super) fn asked_to_stop(&mut self, by: StopSignalFrom) {
        if self.status.stop_signal_from.is_none() {
            self.status.stop_signal_from = Some(by);
            self.changed = true;
        }
    }

    /// The state has changed: what is shown of it follows, and no start is planned any more.
    pub(super) fn no_next_start(&mut self) {
        self.status.next_start = None;
        self.changed = true;
    }
}
