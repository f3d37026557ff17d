//! Performs the effects in the simulation, and checks the invariants of each effect.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::World;
use super::child::{Child, StopCause, Watch};
use crate::logic::lifecycle::{Effect, Event, ForegroundOwner, SignalTarget};
use crate::logic::log::record::Style;
use crate::logic::{Exit, ProcessId, Sender};
use crate::signal::Signal;

/// Returns the log line of an effect; empty if it has none.
fn line(effect: &Effect) -> String {
    let (Effect::Log(record) | Effect::Kill { log: Some(record), .. }) = effect else { return String::new() };
    let mut line = Vec::new();
    record.render(Style::default(), SystemTime::UNIX_EPOCH, &mut line);
    String::from_utf8_lossy(&line).into_owned()
}

/// Whether the machine has begun a drain, read from the log record.
pub(super) fn begins_drain(effect: &Effect) -> bool {
    line(effect).contains("msg=\"draining\"")
}

/// Returns how many ends a log record stands for.
fn ends_in_log(effect: &Effect) -> u64 {
    let line = line(effect);
    if !["\"exited\"", "\"cannot execute\"", "\"cannot start\""].iter().any(|msg| line.contains(msg)) {
        return 0;
    }
    let left_out = line.split_whitespace().find_map(|word| word.strip_prefix("repeats=")?.parse().ok());
    1 + left_out.unwrap_or(0_u64)
}

/// Returns why the machine stops the command, read from the log record.
pub(super) fn cause_of_stop(effect: &Effect) -> Option<StopCause> {
    let line = line(effect);
    let causes = [
        ("TTL expired", StopCause::Ttl),
        ("watchdog timed out", StopCause::Watchdog),
        ("watchdog triggered", StopCause::Watchdog),
        ("no output", StopCause::Silence),
        ("unhealthy", StopCause::Unhealthy),
    ];
    causes.into_iter().find(|(message, _)| line.contains(&format!("msg=\"{message}\""))).map(|(_, why)| why)
}

impl World {
    pub(super) fn perform(&mut self, event: &Event, effect: Effect, queue: &mut VecDeque<Event>) {
        if self.exited.is_some() {
            self.violated("no effect follows the exit");
        }
        match effect {
            Effect::Spawn => self.spawn(queue),
            Effect::Kill { signal, to, log: _ } => self.kill(event, signal, to, queue),
            Effect::CheckStopped(pid) => self.check_stopped(event, pid, queue),
            Effect::GiveTerminal(pid) => {
                let lives = self.child.as_ref().is_some_and(|child| child.pid == pid);
                self.invariant(lives, "only a running command gets the terminal");
                self.invariant(!self.shared, "a shared terminal is not given without a request");
            }
            Effect::WakeSiblings => {
                let Event::SiblingStopped { foreground_owner, .. } = event else {
                    self.violated("siblings are continued only after one was stopped")
                };
                let ours = *foreground_owner != ForegroundOwner::Other;
                self.invariant(ours, "the terminal is taken only from the command");
            }
            Effect::Drain { run } => {
                self.invariant(
                    self.child.is_none() && run == self.starts,
                    "only the output of the last ended run is drained",
                );
                let reading = (self.now + self.behaviour.drains_after, run);
                self.superseded += u64::from(self.draining.replace(reading).is_some());
            }
            Effect::CountGroup { group, exactly } => self.count_group(group, exactly, queue),
            Effect::Notify(datagram) => self.notify(&datagram),
            Effect::Log(_) => {
                self.logged_ends += ends_in_log(&effect);
                self.start_kept &= !line(&effect).contains("msg=\"started\"");
            }
            Effect::Suspend { .. } => {}
            Effect::PrintError(_) => {
                self.invariant(self.restart().is_none(), "only run writes errors to stderr")
            }
            Effect::TerminationLog(text) => {
                self.invariant(
                    self.job.termination_log.is_some(),
                    "the termination log is written only if it is set",
                );
                self.invariant(text.len() <= 4096, "a termination message fits the kubelet's limit");
                self.termination_messages += 1;
            }
            Effect::Close => self.close(),
            Effect::DieBy { signal, all } => {
                let due = self.dies_by.take();
                self.invariant(due == Some((signal, all)), "kapo dies by the signal that ended the command");
            }
            Effect::Exit(code) => self.exit(code),
        }
    }

    fn check_stopped(&self, event: &Event, pid: ProcessId, queue: &mut VecDeque<Event>) {
        let asked = self.stop.is_some_and(|stop| stop.why == StopCause::Outside || self.asked);
        let by_signal = matches!(event, Event::Signal { .. } | Event::Deadline);
        self.invariant(asked && by_signal, "the command is checked for a stop only after a stop signal");
        let child = self.child.as_ref().filter(|child| child.pid == pid);
        self.invariant(child.is_some(), "only a running command is checked");
        if child.is_some_and(|child| child.behaviour.stopped) {
            queue.push_back(Event::FoundStopped);
        }
    }

    fn notify(&mut self, datagram: &[u8]) {
        self.invariant(self.context.manager, "notifications need a service manager");
        if datagram == b"READY=1" {
            self.invariant(!self.stopping_reported, "READY comes before STOPPING");
            self.invariant(self.ready_reports_allowed > 0, "READY is sent once, and once after each reload");
            self.ready_reports_allowed -= 1;
        }
        if datagram == b"STOPPING=1" {
            self.invariant(!self.stopping_reported, "STOPPING is sent once");
            self.stopping_reported = true;
        }
    }

    fn close(&mut self) {
        self.invariant(self.child.is_none(), "the server is not closed while the command runs");
        self.invariant(self.closing.is_none(), "the server is closed once");
        let at_once = self.stopped_again;
        self.invariant(
            self.draining.is_none() || at_once,
            "the output is drained before the server is closed",
        );
        self.invariant(
            self.awaited.is_none() || at_once,
            "the rest of the group has ended before the server is closed",
        );
        let left = self.rest.as_ref().is_some_and(|rest| !rest.leaves.stuck && rest.lives(self.now));
        let stopped = (self.stop.is_some() || self.dumped) && !self.job.single_child;
        self.invariant(!(left && stopped), "no process is left in the group of a stopped command");
        let reported = self.context.manager == self.stopping_reported;
        self.invariant(reported, "STOPPING is sent before the server is closed");
        self.draining = None;
        self.closing = Some(self.now + self.closes_after);
        self.lingering = None;
    }

    fn exit(&mut self, code: u8) {
        self.invariant(self.dies_by.is_none(), "after an interrupt kapo dies by the signal");
        self.invariant(self.child.is_none(), "kapo does not exit while the command runs");
        let expected = self.starts == 0 || code == self.expected_code;
        self.invariant(expected, "the exit code is that of the last run");
        let all = self.restart().is_none() || self.logged_ends == self.starts;
        self.invariant(all, "each end is in the log or counted by it");
        let starts = self.starts - self.superseded;
        let written = if self.job.termination_log.is_some() { starts } else { 0 };
        self.invariant(self.termination_messages == written, "each end has its termination message");
        self.exited = Some(code);
        self.closing = None;
    }

    pub(super) fn spawn(&mut self, queue: &mut VecDeque<Event>) {
        self.invariant(self.child.is_none(), "there is at most one command");
        self.invariant(!self.asked && !self.interrupted, "nothing is started after a stop signal");
        self.invariant(
            self.draining.is_none() && self.closing.is_none(),
            "a start waits for the drain, and none follows the close",
        );
        self.invariant(self.awaited.is_none(), "a start waits for the end of the group");
        let lives = self.rest.as_ref().is_some_and(|rest| rest.lives(self.now));
        let alone = !lives || self.gave_up || self.job.single_child;
        self.invariant(alone, "no process of the last run is left at the next start");
        if self.last_end.is_some() {
            let least = self.random_deadline.map(|(from, _)| from);
            self.invariant(least.is_some_and(|at| self.now >= at), "no start comes before the pause is over");
        }
        (self.rest, self.clearing, self.random_deadline) = (None, false, None);
        self.starts += 1;
        let Ok(number) = i32::try_from(self.starts % 1_000_000) else { return };
        let Some(pid) = ProcessId::new(100 + number) else { return };
        match self.behaviour.start {
            Ok(()) => {
                self.start_kept = true;
                let behaviour = self.behaviour.clone();
                let ends = behaviour.lasts.map(|lasts| (self.now + lasts, behaviour.exit));
                self.child = Some(Child {
                    pid,
                    since: self.now,
                    behaviour,
                    ends,
                    group_killed: false,
                    pending: Vec::new(),
                });
                queue.push_back(Event::Spawned { pid });
            }
            Err(kind) => {
                queue.push_back(Event::SpawnFailed { reason: "for a reason".to_owned(), kind });
            }
        }
    }

    fn kill(&mut self, event: &Event, signal: Signal, to: SignalTarget, queue: &mut VecDeque<Event>) {
        let living = self.child.as_ref().map(|child| child.pid);
        match to {
            SignalTarget::Process(pid) => {
                let dumps = self.job.dump_signal == Some(signal) && self.stop.is_none();
                self.invariant(
                    self.job.single_child || dumps,
                    "only --single-child and a dump signal a single process",
                );
                self.invariant(living == Some(pid), "only a running command is signalled");
            }
            SignalTarget::Followed { pid, .. } | SignalTarget::Group(pid) => {
                self.invariant(!self.job.single_child, "under --single-child the group is left alone");
                self.invariant(living == Some(pid), "only a running command is signalled");
            }
            SignalTarget::LeftoverGroup(pid) => {
                let left = living.is_none() && self.reaped == Some(pid);
                self.invariant(left, "a leftover group belongs to the last run");
                self.invariant(!self.job.single_child, "under --single-child the group is left alone");
                self.check_signal_to_rest(event, signal);
                return self.deliver_to_rest(signal);
            }
        }
        self.check_signal(event, signal);
        if let (Signal::KILL, Some(stop)) = (signal, &mut self.stop) {
            stop.killed |= stop.at < self.now || stop.why == StopCause::Outside;
        }
        if let (Signal::KILL, SignalTarget::Group(_), Some(child)) = (signal, to, &mut self.child) {
            child.group_killed = true;
        }
        if self.child.as_ref().is_some_and(|child| child.behaviour.unreachable) {
            queue.push_back(Event::KillFailed { signal, reason: "for a reason".to_owned() });
        } else {
            self.deliver(signal);
        }
    }

    /// Checks that the command must get this signal now.
    fn check_signal(&mut self, event: &Event, signal: Signal) {
        match event {
            Event::Signal { signal: received, sender } => {
                let own = matches!(*received, Signal::PIPE | Signal::TTIN | Signal::SEGV);
                let foreign = *sender != Sender::Kernel || !own;
                self.invariant(foreign, "a signal that the kernel raises for kapo is not forwarded");
                let same = self.rewritten(*received) == Some(signal);
                self.invariant(same, "a signal is forwarded as --rewrite-signal says");
            }
            Event::SiblingStopped { signal: felt, foreground_owner } => self.invariant(
                *foreground_owner == ForegroundOwner::Other && self.rewritten(*felt) == Some(signal),
                "the command is stopped with the job",
            ),
            Event::Spawned { .. } => self.invariant(
                self.asked || self.signalled_before_start,
                "a signal at the start arrived before the start",
            ),
            Event::FoundStopped => self.invariant(
                signal == Signal::CONT && self.child.as_ref().is_some_and(|child| child.behaviour.stopped),
                "only a stopped command is continued",
            ),
            Event::Notified(notification) => {
                self.invariant(notification.trigger, "only WATCHDOG=trigger stops the command")
            }
            Event::Unhealthy { run, .. } => {
                self.invariant(*run == self.starts, "only the probes of the present run stop the command")
            }
            Event::Deadline if self.stop.is_none() => self.check_own_stop(signal),
            Event::Deadline if signal == Signal::KILL => {
                let due = self.kill_due();
                self.invariant(
                    due.is_some_and(|due| self.now >= due),
                    "no SIGKILL is sent before its deadline",
                );
            }
            Event::Deadline => {
                let passed_on = self.passed_on.and_then(|signal| self.rewritten(signal));
                let own = signal == self.job.stop_signal || signal == Signal::CONT;
                let stops = own || passed_on == Some(signal);
                self.invariant(stops, "only a stop signal and CONT are sent at a deadline")
            }
            Event::Start
            | Event::SpawnFailed { .. }
            | Event::Exited(_)
            | Event::Stopped { .. }
            | Event::Drained { .. }
            | Event::GroupCounted { .. }
            | Event::OrphansReaped
            | Event::KillFailed { .. }
            | Event::Resumed
            | Event::RequestAnswered
            | Event::Closed => self.violated("this event causes no signal"),
        }
    }

    pub(super) fn count_group(&mut self, group: ProcessId, exactly: bool, queue: &mut VecDeque<Event>) {
        self.invariant(self.reaped == Some(group) && self.child.is_none(), "the last run's group is counted");
        self.invariant(!self.job.single_child, "under --single-child the group is left alone");
        let first = self.awaited.is_none_or(|watch| watch.look.is_none() && !watch.killed);
        self.invariant(exactly == first, "only the first count is logged");
        if self.awaited.is_none() {
            self.invariant(
                self.restart().is_some(),
                "run leaves the rest of the group alone after a normal end",
            );
            self.awaited = Some(Watch::default());
        }
        let members = match &self.rest {
            Some(rest) if rest.lives(self.now) => rest.leaves.members,
            _ => Some(0),
        };
        queue.push_back(Event::GroupCounted { members });
    }

    /// Checks that the rest of the group must get this signal now.
    pub(super) fn check_signal_to_rest(&mut self, event: &Event, signal: Signal) {
        let stopped = self.stop.is_some();
        let allowed = match (event, signal) {
            (Event::Deadline, Signal::KILL) => self.awaited.is_some_and(|watch| watch.killed),
            (Event::Signal { .. }, Signal::KILL) => self.stopped_again,
            (Event::GroupCounted { .. }, Signal::TERM | Signal::CONT) => {
                !stopped && (self.restart().is_some() || self.dumped)
            }
            (Event::Exited(_), Signal::TERM) => !stopped && self.job.setsid && self.restart().is_none(),
            _ => false,
        };
        self.invariant(allowed, "the rest of a group is signalled when it is due");
        if let (Signal::TERM, Some(watch)) = (signal, &mut self.awaited) {
            let first = !std::mem::replace(&mut watch.termed, true);
            self.invariant(first, "the rest of a group is asked to end once");
        }
    }

    pub(super) fn deliver_to_rest(&mut self, signal: Signal) {
        let Some(rest) = &mut self.rest else { return };
        let after = match signal {
            Signal::KILL if !rest.leaves.stuck => Some(Duration::ZERO),
            Signal::TERM => rest.leaves.ends_after,
            _ => None,
        };
        let end = after.map(|after| self.now + after);
        rest.ends = [rest.ends, end].into_iter().flatten().min();
    }

    /// Delivers a signal to the child.
    pub(super) fn deliver(&mut self, signal: Signal) {
        let harmless = [Signal::CHLD, Signal::CONT, Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let Some(child) = &mut self.child else { return };
        if child.behaviour.stopped && signal != Signal::KILL {
            if signal != Signal::CONT {
                return child.pending.push(signal);
            }
            child.behaviour.stopped = false;
            let pending = std::mem::take(&mut child.pending);
            return pending.into_iter().for_each(|signal| self.deliver(signal));
        }
        let (after, exit) = if signal == Signal::KILL {
            (Duration::ZERO, None)
        } else if child.behaviour.ignores_signals || harmless.contains(&signal) || signal == Signal::WINCH {
            return;
        } else {
            (child.behaviour.dies_after, child.behaviour.exit_on_signal)
        };
        let end = (self.now + after, exit.unwrap_or(Exit::Signal { signal, core_dumped: false }));
        if child.ends.is_none_or(|(at, _)| end.0 < at) {
            child.ends = Some(end);
        }
    }

    pub(super) fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let rule = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        let signal = rule.map_or(Some(signal), |(_, to)| *to)?;
        let stops = matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU);
        Some(if stops && self.job.setsid { Signal::STOP } else { signal })
    }
}
