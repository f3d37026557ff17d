//! The state machine: its states, its inputs, and the table of what follows from each input in each state.
//!
//! An input is a classified [`Event`]: a signal with its purpose, a deadline with its name. Therefore the methods that
//! the table calls do not depend on the state again. Two facts are kept beside the state because they vary
//! independently of it: whether kapo was asked to stop, and whether the command is ready. The remains of the last run,
//! its output and its process group, may outlast several states and are kept beside them, too.

use std::time::{Duration, Instant};

use super::signals::ReceivedSignal;
use super::{Deadline, Effect, End, Event, ForegroundOwner, Lifecycle, Notification, Now, ProcessId, Signal};
use super::{SpawnErrorKind, StopCause, before_stop::TrafficDrain, ending::Stop};

/// The process that counts as the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: ProcessId,
    /// The process group of the run: the pid of the process that kapo started, even if `MAINPID=` names another one.
    pub(super) group: ProcessId,
    /// When the process was started.
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineState {
    /// The command was not started yet.
    Starting,
    Running(Process),
    /// The command is to be stopped, and gets no new traffic until the Drain deadline.
    Draining(Process, TrafficDrain),
    /// The command prints its state. The stop signal follows at the Dump deadline.
    Dumping(Process, StopCause),
    /// The command was asked to stop. SIGKILL follows at the Kill deadline, if there is one.
    Stopping(Process, Stop),
    /// The pause before the next start.
    Pausing,
    /// The pause is over, and the next start waits until nothing is left of the last run.
    Clearing,
    /// The last run has ended, and kapo keeps serving its status.
    Lingering,
    /// The last run has ended, and kapo closes the server when nothing is left of that run.
    Finishing,
    /// No more clients are accepted, and those that are connected get their answers.
    Closing,
    /// kapo exits.
    Done,
}

impl MachineState {
    /// Returns the command's process, if there is one.
    pub(super) fn process(mut self) -> Option<Process> {
        self.process_mut().copied()
    }

    /// Like [`MachineState::process`], but mutable.
    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            MachineState::Running(process)
            | MachineState::Draining(process, _)
            | MachineState::Dumping(process, _)
            | MachineState::Stopping(process, _) => Some(process),
            MachineState::Starting
            | MachineState::Pausing
            | MachineState::Clearing
            | MachineState::Lingering
            | MachineState::Finishing
            | MachineState::Closing
            | MachineState::Done => None,
        }
    }

    /// Whether a run has ended and no other run is about to start.
    pub(super) fn is_after_end(&self) -> bool {
        match self {
            MachineState::Starting
            | MachineState::Running(_)
            | MachineState::Draining(..)
            | MachineState::Dumping(..)
            | MachineState::Stopping(..) => false,
            MachineState::Pausing
            | MachineState::Clearing
            | MachineState::Lingering
            | MachineState::Finishing
            | MachineState::Closing
            | MachineState::Done => true,
        }
    }
}

/// A classified event.
#[derive(Debug)]
pub(super) enum Input {
    Start,
    Spawned(ProcessId),
    SpawnFailed(String, SpawnErrorKind),
    Exited(End),
    /// The command was stopped while it held the terminal.
    Stopped(Signal),
    /// The command is stopped and does not act on signals until it is continued.
    FoundStopped,
    KillFailed(Signal, String),
    /// A sibling wants the terminal, which is kapo's or the command's.
    TerminalWanted(ForegroundOwner),
    /// kapo's whole job was stopped, including kapo.
    JobStopped(Signal),
    Notified(Notification),
    /// kapo did not run for a while.
    Resumed,
    /// The probes of the present run have failed.
    Unhealthy(String),
    /// A signal that asks kapo to stop.
    StopRequest(ReceivedSignal),
    /// A further stop signal after kapo was asked to stop.
    RepeatedStopRequest(ReceivedSignal),
    /// CONT.
    Continue,
    /// TSTP, TTIN or TTOU.
    JobControl(Signal),
    /// Any other signal for the command.
    Forward(ReceivedSignal),
    /// A deadline has passed, this long ago.
    Due(Deadline, Duration),
    Drained(u64, Vec<String>),
    GroupCounted(Option<usize>),
    OrphansReaped,
    /// Neither output nor processes are left of the last run.
    NothingLeft,
    RequestAnswered,
    Closed,
}

impl Lifecycle {
    /// Handles an event that happened at `now`, and appends the effects to `out`.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let changed_before = std::mem::take(&mut self.document.changed);
        if event == Event::Deadline {
            while let Some((which, late)) = self.deadlines.take_due(now.mono) {
                self.apply(now, Input::Due(which, late), out);
            }
        } else if let Some(input) = self.input(event) {
            self.apply(now, input, out);
        }
        self.refresh(now, out);
        self.document.changed |= changed_before;
    }

    /// Classifies an event. A deadline may stand for several inputs, and some signals for none.
    fn input(&self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Signal { signal, sender } => return self.classify(ReceivedSignal { signal, sender }),
            Event::Deadline => return None,
            Event::SiblingStopped { signal, foreground_owner } => match foreground_owner {
                ForegroundOwner::Own | ForegroundOwner::Command => Input::TerminalWanted(foreground_owner),
                ForegroundOwner::Other => Input::JobStopped(signal),
            },
            Event::Start => Input::Start,
            Event::Spawned { pid } => Input::Spawned(pid),
            Event::SpawnFailed { reason, kind } => Input::SpawnFailed(reason, kind),
            Event::Exited(end) => Input::Exited(end),
            Event::KillFailed { signal, reason } => Input::KillFailed(signal, reason),
            Event::FoundStopped => Input::FoundStopped,
            Event::Stopped { signal } => Input::Stopped(signal),
            Event::Drained { run, last_output } => Input::Drained(run, last_output),
            Event::GroupCounted { members } => Input::GroupCounted(members),
            Event::OrphansReaped => Input::OrphansReaped,
            Event::Notified(notification) => Input::Notified(notification),
            Event::Resumed => Input::Resumed,
            Event::Unhealthy { run, .. } if run != self.starts() => return None,
            Event::Unhealthy { reason, .. } => Input::Unhealthy(reason),
            Event::RequestAnswered => Input::RequestAnswered,
            Event::Closed => Input::Closed,
        })
    }

    fn apply(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        let asked = matches!(input, Input::StopRequest(_) | Input::RepeatedStopRequest(_));
        self.step(now, input, out);
        // After the step, because the stop signal must not wait for the log.
        if asked {
            self.end_series(now, out);
        }
        if self.remains.is_empty() {
            self.step(now, Input::NothingLeft, out);
        }
    }

    /// The transition table.
    fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        use Deadline as D;
        use Input as I;
        use MachineState as S;
        match (self.state, input) {
            // kapo exits, so no event matters any more.
            (S::Done, _) => {}

            (S::Starting, I::Start) if self.own_end.leaving => self.finish(),
            (S::Starting, I::Start) => out.push(Effect::Spawn),
            (S::Starting, I::Spawned(pid)) => self.started(now, pid, out),
            (S::Starting, I::SpawnFailed(reason, kind)) => self.not_started(now, &reason, kind, out),
            (S::Starting, I::StopRequest(by) | I::RepeatedStopRequest(by)) => self.stop_before_start(by, out),
            (S::Starting, I::Forward(ReceivedSignal { signal, .. })) => {
                self.undelivered.before_start = Some(signal)
            }
            (S::Starting, I::Continue) => self.undelivered.before_start = Some(Signal::CONT),

            (S::Running(process), I::Exited(end)) => self.ended_by_itself(now, process, end, out),
            (S::Running(process), I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.requested_to_stop(now, process, by, out)
            }
            (S::Running(process) | S::Draining(process, _) | S::Dumping(process, _), I::Forward(signal)) => {
                self.forward(signal, process, out)
            }
            (S::Running(process), I::Continue) => {
                self.resume(process, out);
                self.resumed(now);
            }
            (S::Running(_), I::Resumed) => self.resumed(now),
            (S::Running(_), I::Notified(notification)) => self.notified(now, notification, out),
            (S::Running(process), I::Unhealthy(why)) => self.unhealthy(now, process, &why, out),
            (S::Running(process), I::Due(D::Ttl, _)) => self.ttl_passed(now, process, out),
            (S::Running(process), I::Due(D::Silence, late)) => self.silence_is_due(now, process, late, out),
            (S::Running(process), I::Due(D::Watchdog, late)) => self.ping_timed_out(now, process, late, out),
            (S::Running(_), I::Due(D::Stable, _)) => self.become_stable(now, out),

            (S::Draining(process, _), I::Exited(end)) => self.ended_by_itself(now, process, end, out),
            (S::Draining(process, drain), I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.requested_in_drain(now, process, drain, by, out)
            }
            (S::Draining(process, drain), I::Due(D::Drain, _)) => {
                self.drain_is_over(now, process, drain, out)
            }

            (S::Dumping(process, why), I::Exited(end)) => self.ended_in_dump(now, process, why, end, out),
            (S::Dumping(process, why), I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.stop_by_signal(now, process, why, by, out)
            }
            (S::Dumping(process, why), I::Due(D::Dump, _)) => self.dump_is_over(now, process, why, out),

            (S::Stopping(process, stop), I::Exited(end)) => self.ended_by_stop(now, process, stop, end, out),
            (S::Stopping(process, _), I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.forward_stop(process, by, out)
            }
            (S::Stopping(process, _), I::Forward(by)) => self.forward_signal(by.signal, process, None, out),
            (S::Draining(process, _) | S::Dumping(process, _) | S::Stopping(process, _), I::Continue) => {
                self.resume(process, out)
            }
            (S::Stopping(process, _), I::FoundStopped) => self.kill(Signal::CONT, process, None, out),
            (S::Draining(..) | S::Dumping(..) | S::Stopping(..), I::Notified(notification)) => {
                drop(self.apply_facts(notification, out))
            }
            (S::Stopping(process, stop), I::Due(D::Kill, _)) => self.kill_command(process, stop, out),

            (S::Running(_) | S::Draining(..) | S::Dumping(..) | S::Stopping(..), I::Stopped(signal)) => {
                self.suspend(signal, true, out)
            }
            (
                S::Running(process)
                | S::Draining(process, _)
                | S::Dumping(process, _)
                | S::Stopping(process, _),
                I::JobControl(signal),
            ) => {
                self.forward_signal(signal, process, None, out);
                self.suspend(signal, false, out);
            }
            (
                S::Running(process)
                | S::Draining(process, _)
                | S::Dumping(process, _)
                | S::Stopping(process, _),
                I::JobStopped(signal),
            ) => {
                self.forward_signal(signal, process, None, out);
                self.stop_with_job(signal, out);
            }

            (S::Pausing, I::Due(D::Start, _)) => self.clear(),
            (S::Pausing | S::Clearing, I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.stop_between_runs(by, out)
            }
            (S::Clearing, I::NothingLeft) => self.start_again(out),

            (S::Lingering, I::RequestAnswered) => self.extend_linger(now),
            (S::Lingering, I::StopRequest(by) | I::RepeatedStopRequest(by)) => {
                self.log_stop_request(by, out);
                self.finish();
            }
            (S::Lingering, I::Due(D::Linger, _)) => self.finish(),

            (S::Finishing, I::RepeatedStopRequest(by)) => self.give_up_waiting(by, out),
            (S::Finishing, I::NothingLeft) => self.close(out),
            (S::Closing, I::RepeatedStopRequest(by)) => {
                self.log_stop_request(by, out);
                self.exit(out);
            }
            (S::Closing, I::Closed) => self.exit(out),
            (S::Finishing | S::Closing, I::StopRequest(by)) => self.log_stop_request(by, out),

            // The remains of the last run may outlast several states.
            (_, I::Drained(run, last_output)) => self.drained(run, last_output, out),
            (_, I::GroupCounted(members)) => self.group_counted(now, members, out),
            (_, I::OrphansReaped | I::Due(D::CountGroup, _)) => self.count_again(out),
            (_, I::Due(D::Kill, _)) => self.group_is_due(now, out),

            (_, I::KillFailed(signal, reason)) => self.kill_failed(signal, &reason, out),
            (_, I::TerminalWanted(owner)) => self.give_terminal_to_sibling(owner, out),
            (_, I::JobControl(signal)) => self.suspend(signal, false, out),
            (_, I::JobStopped(signal)) => self.stop_with_job(signal, out),
            (_, I::Due(D::Flapping, _)) => self.update_flapping(now, out),

            // In most of these states no process exists. FoundStopped in Running has no effect, because kapo sends
            // CONT on its own only after a stop signal.
            (_, I::Exited(_) | I::Stopped(_) | I::FoundStopped | I::Notified(_)) => {}
            (_, I::Forward(_) | I::Continue | I::Resumed | I::Unhealthy(_)) => {}
            // These inputs matter only in one state each: Start and its results in Starting, Closed in Closing,
            // RequestAnswered in Lingering, NothingLeft in Clearing and Finishing. A deadline is cancelled when its
            // state ends.
            (
                _,
                I::Start
                | I::Spawned(_)
                | I::SpawnFailed(..)
                | I::Closed
                | I::RequestAnswered
                | I::NothingLeft,
            ) => {}
            (_, I::Due(D::Ttl | D::Watchdog | D::Silence | D::Stable | D::Start | D::Linger, _)) => {}
            (_, I::Due(D::Drain | D::Dump, _)) => {}
        }
    }
}
