//! What the status document and the history show of the watched processes.

use std::time::SystemTime;

use super::names::WatchedName;
use super::{LastEnd, Watch};
use crate::logic::history::{EpisodeEffect, PastRun};
use crate::logic::reason::Reason;
use crate::logic::status::{ModeName, State, Status};
use crate::logic::{Exit, ProcessId};

impl Watch {
    /// Returns the status document. For each name it has one object for each matching process, the oldest first, or one
    /// object for the match that ended last.
    pub(crate) fn status(&self) -> Vec<Status> {
        let mut living: Vec<(usize, u64, ProcessId, SystemTime)> =
            self.living.iter().map(|(pid, p)| (p.name, p.ticks, *pid, p.start)).collect();
        living.sort_unstable();
        let mut living = living.into_iter().peekable();
        let mut objects = Vec::new();
        for (at, name) in self.names.iter().enumerate() {
            if name.living == 0 {
                objects.push(match name.last {
                    Some(last) => self.end_of(name, last),
                    None => self.blank(name),
                });
            }
            while let Some((_, _, pid, start)) = living.next_if(|process| process.0 == at) {
                objects.push(Status {
                    pid: Some(pid),
                    start_time: Some(start),
                    state: State::Running,
                    ready: true,
                    ..self.blank(name)
                });
            }
        }
        objects
    }

    fn end_of(&self, name: &WatchedName, last: LastEnd) -> Status {
        let (state, reason, signal) = match last.exit {
            // The exit is unknown: only the parent gets it, or the process was not reaped yet.
            None => (State::Stopped, None, None),
            Some(Exit::Code(0)) => (State::Stopped, Some(Reason::Success), None),
            Some(Exit::Code(_)) => (State::Stopped, Some(Reason::ExitCode), None),
            Some(Exit::Signal { signal, core_dumped: false }) => {
                (State::Killed, Some(Reason::Signal), Some(signal))
            }
            Some(Exit::Signal { signal, core_dumped: true }) => {
                (State::Killed, Some(Reason::CoreDump), Some(signal))
            }
        };
        Status {
            start_time: Some(last.start),
            end_time: Some(last.end),
            exit_code: last.exit.map_or(0, Exit::code),
            state,
            reason,
            signal,
            ..self.blank(name)
        }
    }

    fn blank(&self, name: &WatchedName) -> Status {
        Status {
            command: name.command.clone(),
            wait: Some(self.wait),
            restarts: name.found.saturating_sub(1),
            last_run: name.history.last().cloned(),
            ..Status::blank(ModeName::Watch)
        }
    }

    /// Returns the history entry. Resource usage and the cause of a stop are unknown, because the process is not a
    /// child of kapo.
    pub(super) fn past_run(&self, name: &WatchedName, last: LastEnd) -> PastRun {
        let lasted = last.end.duration_since(last.start).unwrap_or_default();
        PastRun::of(&self.end_of(name, last), Some(last.pid), lasted, None)
    }
}

/// Returns the effect of an exit on the episode. An unknown exit does not count as a failure.
pub(super) fn episode_effect(exit: Option<Exit>) -> EpisodeEffect {
    match exit {
        None | Some(Exit::Code(0)) => EpisodeEffect::Success,
        Some(Exit::Code(_) | Exit::Signal { .. }) => EpisodeEffect::Failure { stable: false },
    }
}
