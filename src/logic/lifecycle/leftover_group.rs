//! Handles the rest of an ended run's process group: it is waited for, asked to end, and killed at the deadline.
//!
//! After a stop the group has already received the stop signal together with the command. After any other end the group
//! is left alone, unless the command is restarted: then it gets TERM, so that the ports and files are free for the next
//! run.

use std::time::{Duration, Instant};

use crate::config::KILL_AFTER;
use crate::logic::lifecycle::{
    Deadline, Effect, Lifecycle, Now, ProcessId, Record, Signal, SignalTarget, Stop,
};

/// The first pause between two counts of the group. SIGCHLD reports most changes, but a process that moves to another
/// group, or whose parent is outside the group, leaves without one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two counts. Each pause is twice as long as the previous one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for a group after SIGKILL. Only a process that is blocked in the kernel takes longer to die.
const DYING: Duration = Duration::from_secs(1);

/// The process group of an ended run that may not be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover {
    group: ProcessId,
    stage: Stage,
    pause: Duration,
}

/// Which steps kapo has taken to end the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The processes of the group were not counted yet. `stopped` is true if the group has received the stop signal.
    New { stopped: bool },
    /// The group was asked to end.
    Asked,
    /// The group got SIGKILL.
    Killed,
}

impl Lifecycle {
    /// Whether the driver must report the ends of children other than the command.
    pub fn waits_for_group(&self) -> bool {
        self.remains.group.is_some()
    }

    /// Waits for the group after the run was ended by `stop`, whose signal the group has received as well.
    pub(super) fn wait_for_stopped_group(
        &mut self,
        now: Now,
        group: ProcessId,
        stop: Stop,
        out: &mut Vec<Effect>,
    ) {
        if stop.killed {
            self.deadlines.set(Deadline::Kill, now.mono, DYING);
            self.look_for_leftover(group, Stage::Killed, out);
        } else {
            self.set_kill_deadline(stop.at);
            self.look_for_leftover(group, Stage::New { stopped: true }, out);
        }
    }

    /// Asks the group to end after a run that ended by itself, because another run follows.
    pub(super) fn clear_group(&mut self, group: ProcessId, out: &mut Vec<Effect>) {
        self.look_for_leftover(group, Stage::New { stopped: false }, out);
    }

    fn look_for_leftover(&mut self, group: ProcessId, stage: Stage, out: &mut Vec<Effect>) {
        self.remains.group = Some(Leftover { group, stage, pause: FIRST_PAUSE });
        out.push(Effect::CountGroup { group, exactly: matches!(stage, Stage::New { .. }) });
    }

    /// Sets the deadline for SIGKILL. As with timeout(1), a `--kill-after` of zero means never.
    fn set_kill_deadline(&mut self, asked_at: Instant) {
        let patience = self.job.kill_after.unwrap_or(KILL_AFTER);
        if !patience.is_zero() {
            self.deadlines.set(Deadline::Kill, asked_at, patience);
        }
    }

    /// Counts the group again, if it is waited for.
    pub(super) fn count_again(&self, out: &mut Vec<Effect>) {
        if let Some(Leftover { group, .. }) = self.remains.group {
            out.push(Effect::CountGroup { group, exactly: false });
        }
    }

    /// Decides what to do with the group after its processes were counted.
    pub(super) fn group_counted(&mut self, now: Now, members: Option<usize>, out: &mut Vec<Effect>) {
        let Some(mut leftover) = self.remains.group else { return };
        if members == Some(0) {
            return self.leave_group();
        }
        if let Stage::New { stopped } = leftover.stage {
            let record = match stopped {
                true => Record::info("waiting for leftover processes"),
                false => Record::warn("stopping leftover processes").with("signal", Signal::TERM),
            };
            let record = record.number("group", leftover.group);
            let record = match members {
                Some(members) => record.number("processes", members),
                None => record,
            };
            if stopped {
                out.push(Effect::Log(record));
            } else {
                let to = SignalTarget::LeftoverGroup(leftover.group);
                out.push(Effect::Kill { signal: Signal::TERM, to, log: Some(record) });
                // A stopped process does not act on a signal until it is continued.
                out.push(Effect::Kill { signal: Signal::CONT, to, log: None });
                self.set_kill_deadline(now.mono);
            }
            leftover.stage = Stage::Asked;
        }
        self.deadlines.set(Deadline::CountGroup, now.mono, leftover.pause);
        leftover.pause = (2 * leftover.pause).min(LONGEST_PAUSE);
        self.remains.group = Some(leftover);
    }

    /// Handles the deadline of the group.
    pub(super) fn group_is_due(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(leftover) = self.remains.group else { return };
        if leftover.stage == Stage::Killed {
            out.push(Effect::Log(
                Record::warn("leftover processes survive SIGKILL").number("group", leftover.group),
            ));
            return self.leave_group();
        }
        let record = Record::warn("killing leftover processes");
        out.push(Effect::Kill {
            signal: Signal::KILL,
            to: SignalTarget::LeftoverGroup(leftover.group),
            log: Some(record.number("group", leftover.group)),
        });
        self.remains.group = Some(Leftover { stage: Stage::Killed, pause: FIRST_PAUSE, ..leftover });
        self.deadlines.set(Deadline::Kill, now.mono, DYING);
        self.count_again(out);
    }

    /// Kills the group without waiting for it, after a repeated stop signal.
    pub(super) fn kill_leftover(&mut self, out: &mut Vec<Effect>) {
        if let Some(Leftover { group, .. }) = self.remains.group.take() {
            out.push(Effect::Kill {
                signal: Signal::KILL,
                to: SignalTarget::LeftoverGroup(group),
                log: None,
            });
        }
    }

    /// Stops waiting for the group, because it is empty or was given up.
    fn leave_group(&mut self) {
        self.remains.group = None;
        self.deadlines.stop(Deadline::CountGroup);
        self.deadlines.stop(Deadline::Kill);
    }
}
