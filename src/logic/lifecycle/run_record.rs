//! The record of a run: its start and its end. The status document is written only from this record.

use std::time::{Duration, SystemTime};

use crate::logic::history::{CgroupMemory, EpisodeEffect, History, PastRun};
use crate::logic::metrics::Exits;
use crate::logic::reason::Reason;
use crate::logic::status::{State, Status, StopSignalFrom};
use crate::logic::{Exit, Now, ProcessId, Usage};
use crate::signal::Signal;

/// One run of the command, or one attempt to start it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// The process that counts as the command, or `None` if it could not be started.
    pub pid: Option<ProcessId>,
    /// The time of the start.
    pub start_time: SystemTime,
    /// The TTL of this run, chosen at random from the range of `--ttl`.
    pub ttl: Option<Duration>,
    /// The end of the run, or `None` while it runs.
    pub end: Option<RunEnd>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEnd {
    /// The time of the end.
    pub end_time: SystemTime,
    /// The command's own exit code, or 128+n for a signal.
    pub exit_code: u8,
    /// The signal that ended it.
    pub signal: Option<Signal>,
    /// Why the run ended.
    pub reason: Reason,
    /// The resource usage of the command and its reaped descendants.
    pub usage: Usage,
    /// How long the run lasted, by the monotonic clock.
    pub lasted: Duration,
    /// The memory of kapo's cgroup at the end, or `None` if it cannot be read.
    pub memory: Option<CgroupMemory>,
    /// The last lines of the output. They arrive after the end, and only if the run has failed.
    pub last_output: Vec<String>,
}

impl RunEnd {
    /// Returns the end of a run that lasted no time and used no resources.
    pub fn new(now: Now, exit: Exit, reason: Reason) -> RunEnd {
        let signal = match exit {
            Exit::Code(_) => None,
            Exit::Signal { signal, .. } => Some(signal),
        };
        RunEnd {
            end_time: now.wall,
            exit_code: exit.code(),
            signal,
            reason,
            usage: Usage::default(),
            lasted: Duration::ZERO,
            memory: None,
            last_output: Vec::new(),
        }
    }
}

impl RunRecord {
    /// Writes the members of the document that describe a run. While a run goes on, EndTime, Usage and LastOutput are
    /// those of the run before it.
    fn write(&self, status: &mut Status) {
        status.start_time = Some(self.start_time);
        status.ttl = self.ttl;
        status.pid = self.pid.filter(|_| self.end.is_none());
        status.expires_at =
            self.ttl.filter(|_| self.end.is_none()).and_then(|ttl| self.start_time.checked_add(ttl));
        status.reason = self.end.as_ref().map(|end| end.reason);
        status.signal = self.end.as_ref().and_then(|end| end.signal);
        status.exit_code = self.end.as_ref().map_or(0, |end| end.exit_code);
        status.state = match &self.end {
            None => State::Running,
            Some(RunEnd { signal: Some(_), .. }) => State::Killed,
            Some(_) => State::Stopped,
        };
        if let Some(end) = &self.end {
            status.end_time = Some(end.end_time);
            status.usage = end.usage;
            status.last_output.clone_from(&end.last_output);
        }
    }

    /// Returns the run as the history shows it, or `None` while it runs.
    fn past(&self, stop_signal_from: Option<StopSignalFrom>) -> Option<PastRun> {
        let end = self.end.clone()?;
        Some(PastRun {
            start_time: Some(self.start_time),
            end_time: Some(end.end_time),
            lasted: end.lasted,
            pid: self.pid,
            exit_code: end.exit_code,
            signal: end.signal,
            reason: Some(end.reason),
            stop_signal_from,
            usage: end.usage,
            memory: end.memory,
            last_output: end.last_output,
            first: false,
            command: None,
        })
    }
}

/// The runs so far. Each method also writes its change into the status document.
#[derive(Debug)]
pub(super) struct Runs {
    /// The current run, or the last one.
    latest: Option<RunRecord>,
    /// The runs that have ended.
    history: History,
    starts: u64,
    exits: Exits,
    failed: u64,
    last_code: Option<u8>,
}

impl Runs {
    /// Creates an empty record that keeps at most `limit` ended runs.
    pub(super) fn new(limit: usize) -> Runs {
        Runs {
            latest: None,
            history: History::new(limit),
            starts: 0,
            exits: Exits::default(),
            failed: 0,
            last_code: None,
        }
    }

    /// Records that the command runs.
    pub(super) fn started(&mut self, now: Now, pid: ProcessId, ttl: Option<Duration>, status: &mut Status) {
        self.begin(now, Some(pid), ttl, status).write(status);
    }

    /// Records that the command could not be started.
    pub(super) fn failed(&mut self, now: Now, code: u8, episode: EpisodeEffect, status: &mut Status) {
        self.begin(now, None, None, status);
        self.ended(RunEnd::new(now, Exit::Code(code), Reason::ExecFailed), episode, status);
    }

    fn begin(
        &mut self,
        now: Now,
        pid: Option<ProcessId>,
        ttl: Option<Duration>,
        status: &mut Status,
    ) -> &RunRecord {
        status.restarts = self.starts;
        status.next_start = None;
        status.status_text.clear();
        self.starts += 1;
        self.latest.insert(RunRecord { pid, start_time: now.wall, ttl, end: None })
    }

    /// Records the end of the run. `episode` is its meaning for the current series of failures.
    pub(super) fn ended(&mut self, end: RunEnd, episode: EpisodeEffect, status: &mut Status) {
        self.exits.count(end.reason);
        self.failed += u64::from(matches!(episode, EpisodeEffect::Failure { .. }));
        self.last_code = Some(end.exit_code);
        if let Some(run) = &mut self.latest {
            run.end = Some(end);
            run.write(status);
            if let Some(past) = run.past(status.stop_signal_from) {
                self.history.ended(past, episode);
            }
            status.last_run = self.history.last().cloned();
        }
    }

    /// Records that another process counts as the command.
    pub(super) fn followed(&mut self, main: ProcessId, status: &mut Status) {
        if let Some(run) = &mut self.latest {
            run.pid = Some(main);
            run.write(status);
        }
    }

    /// Records the last lines of the latest run, which arrive after its end.
    pub(super) fn drained(&mut self, last_output: Vec<String>, status: &mut Status) {
        if let Some(run) = &mut self.latest
            && let Some(end) = &mut run.end
        {
            self.history.drained(&last_output);
            end.last_output = last_output;
            run.write(status);
            status.last_run = self.history.last().cloned();
        }
    }

    /// Returns the runs that have ended.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Returns the number of starts so far, including failed ones.
    pub(super) fn starts(&self) -> u64 {
        self.starts
    }

    /// Returns the number of ended runs, by reason.
    pub(super) fn exits(&self) -> Exits {
        self.exits
    }

    /// Returns the number of failed runs.
    pub(super) fn failed_runs(&self) -> u64 {
        self.failed
    }

    /// Returns the exit code of the last run that ended, even while the next one is running.
    pub(super) fn last_code(&self) -> Option<u8> {
        self.last_code
    }
}
