//! The world does what the machine says, and checks the promises that are about an effect.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::World;
use super::child::{Child, StopCause, Watch};
use crate::logic::lifecycle::{Effect, Event, ForegroundOwner, SignalTarget};
use crate::logic::log::record::Style;
use crate::logic::{Exit, Pid, Sender};
use crate::signal::Signal;

/// Why the machine stops the command, as it logs it.
pub(super) fn cause_of_stop(effect: &Effect) -> Option<StopCause> {
    let Effect::Log(record) = effect else { return None };
    let mut line = Vec::new();
    record.render(Style::default(), SystemTime::UNIX_EPOCH, &mut line);
    let line = String::from_utf8_lossy(&line);
    if line.contains("msg=\"TTL expired\"") {
        Some(StopCause::Ttl)
    } else {
        line.contains("msg=\"watchdog timed out\"").then_some(StopCause::Watchdog)
    }
}

impl World {
    pub(super) fn perform(&mut self, event: &Event, effect: Effect, queue: &mut VecDeque<Event>) {
        if self.exited.is_some() {
            self.broken("something was done after the end");
        }
        match effect {
            Effect::Spawn => self.spawn(queue),
            Effect::Kill { signal, to, log: _ } => self.kill(event, signal, to, queue),
            Effect::CheckStopped(pid) => self.check_stopped(event, pid, queue),
            Effect::GiveTerminal(pid) => {
                let lives = self.child.as_ref().is_some_and(|child| child.pid == pid);
                self.promise(lives, "who gets the terminal lives");
                self.promise(!self.shared, "nobody is given unasked what siblings want");
            }
            Effect::WakeSiblings => {
                let Event::SiblingStopped { foreground_owner, .. } = event else {
                    self.broken("siblings are woken when one of them was stopped")
                };
                let ours = *foreground_owner != ForegroundOwner::Other;
                self.promise(ours, "the terminal is taken from nobody else");
            }
            Effect::Drain { run } => {
                self.promise(self.child.is_none() && run == self.starts, "what is drained has ended");
                let reading = (self.now + self.behaviour.drains_after, run);
                self.superseded += u64::from(self.draining.replace(reading).is_some());
            }
            Effect::CountGroup { group, exactly } => self.count_group(group, exactly, queue),
            Effect::Notify(datagram) => self.notify(&datagram),
            Effect::Log(_) | Effect::Suspend { .. } => {}
            Effect::Complain(_) => self.promise(self.restart().is_none(), "only run complains"),
            Effect::TerminationLog(text) => {
                self.promise(self.job.termination_log.is_some(), "nothing is written that was not asked for");
                self.promise(text.len() <= 4096, "a termination message is what the kubelet reads at most");
                self.certificates += 1;
            }
            Effect::Close => self.close(),
            Effect::DieBy { signal, all } => {
                let due = self.dies_by.take();
                self.promise(due == Some((signal, all)), "kapo dies as the terminal has ended the command");
            }
            Effect::Exit(code) => self.exit(code),
        }
    }

    fn check_stopped(&self, event: &Event, pid: Pid, queue: &mut VecDeque<Event>) {
        let asked = self.stop.is_some_and(|stop| stop.why == StopCause::Outside || self.asked);
        let by_signal = matches!(event, Event::Signal { .. });
        self.promise(asked && by_signal, "a stop is looked for at a stop signal");
        let child = self.child.as_ref().filter(|child| child.pid == pid);
        self.promise(child.is_some(), "only the living are looked at");
        if child.is_some_and(|child| child.behaviour.stopped) {
            queue.push_back(Event::FoundStopped);
        }
    }

    fn notify(&mut self, datagram: &[u8]) {
        self.promise(self.context.manager, "nobody is told where nobody listens");
        if datagram == b"READY=1" {
            self.promise(!self.told_stopping, "READY comes before STOPPING");
            self.promise(self.may_tell_ready > 0, "READY is told once, and once after each reload");
            self.may_tell_ready -= 1;
        }
        if datagram == b"STOPPING=1" {
            self.promise(!self.told_stopping, "STOPPING is told once");
            self.told_stopping = true;
        }
    }

    fn close(&mut self) {
        self.promise(self.child.is_none(), "a port is not closed over a living child");
        self.promise(self.closing.is_none(), "a port is closed once");
        let at_once = self.insisted;
        self.promise(self.draining.is_none() || at_once, "the last words are read before the end");
        self.promise(self.awaited.is_none() || at_once, "the rest of the group is waited for");
        let left = self.rest.as_ref().is_some_and(|rest| !rest.leaves.stuck && rest.lives(self.now));
        let stopped = self.stop.is_some() && !self.job.single_child;
        self.promise(!(left && stopped), "nothing is left of the group of a stopped command");
        let told = self.context.manager == self.told_stopping;
        self.promise(told, "STOPPING is told before the port is closed");
        self.draining = None;
        self.closing = Some(self.now + self.closes_after);
        self.lingering = None;
    }

    fn exit(&mut self, code: u8) {
        self.promise(self.dies_by.is_none(), "who was interrupted does not just exit");
        self.promise(self.child.is_none(), "nobody exits over a living child");
        let expected = self.starts == 0 || code == self.expected_code;
        self.promise(expected, "the code is that of the last run");
        let starts = self.starts - self.superseded;
        let written = if self.job.termination_log.is_some() { starts } else { 0 };
        self.promise(self.certificates == written, "each end has its termination message");
        self.exited = Some(code);
        self.closing = None;
    }

    pub(super) fn spawn(&mut self, queue: &mut VecDeque<Event>) {
        self.promise(self.child.is_none(), "there is one child at most");
        self.promise(!self.asked && !self.meant, "nothing is started after a stop signal");
        self.promise(self.draining.is_none() && self.closing.is_none(), "a start follows an end");
        self.promise(self.awaited.is_none(), "a start waits for the end of the group");
        let lives = self.rest.as_ref().is_some_and(|rest| rest.lives(self.now));
        let alone = !lives || self.gave_up || self.job.single_child;
        self.promise(alone, "nothing of the last run is left when the next one starts");
        if self.last_end.is_some() {
            let least = self.drawn.map(|(from, _)| from);
            self.promise(least.is_some_and(|at| self.now >= at), "no start comes before the pause is over");
        }
        (self.rest, self.clearing, self.drawn) = (None, false, None);
        self.starts += 1;
        let Ok(number) = i32::try_from(self.starts % 1_000_000) else { return };
        let Some(pid) = Pid::new(100 + number) else { return };
        match self.behaviour.start {
            Ok(()) => {
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
                self.promise(self.job.single_child, "the group is signalled");
                self.promise(living == Some(pid), "only the living are signalled");
            }
            SignalTarget::Followed { pid, .. } | SignalTarget::Group(pid) => {
                self.promise(!self.job.single_child, "under --single-child the group is left alone");
                self.promise(living == Some(pid), "only the living are signalled");
            }
            SignalTarget::LeftoverGroup(pid) => {
                let left = living.is_none() && self.reaped == Some(pid);
                self.promise(left, "a leftover group is what the last run left");
                self.promise(!self.job.single_child, "under --single-child the group is left alone");
                self.judge_signal_to_rest(event, signal);
                return self.rest_feels(signal);
            }
        }
        self.judge_signal(event, signal);
        if let (Signal::KILL, Some(stop)) = (signal, &mut self.stop) {
            stop.killed |= stop.at < self.now || stop.why == StopCause::Outside;
        }
        if let (Signal::KILL, SignalTarget::Group(_), Some(child)) = (signal, to, &mut self.child) {
            child.group_killed = true;
        }
        if self.child.as_ref().is_some_and(|child| child.behaviour.unreachable) {
            queue.push_back(Event::KillFailed { signal, reason: "for a reason".to_owned() });
        } else {
            self.feel(signal);
        }
    }

    /// Whether the command has to get this signal now.
    fn judge_signal(&mut self, event: &Event, signal: Signal) {
        match event {
            Event::Signal { signal: received, sender } => {
                let own = matches!(*received, Signal::PIPE | Signal::TTIN | Signal::SEGV);
                let foreign = *sender != Sender::Kernel || !own;
                self.promise(foreign, "what the kernel raised for kapo itself is not passed on");
                let same = self.rewritten(*received) == Some(signal);
                self.promise(same, "a signal is passed on as it was asked");
            }
            Event::SiblingStopped { signal: felt, foreground_owner } => self.promise(
                *foreground_owner == ForegroundOwner::Other && self.rewritten(*felt) == Some(signal),
                "the command is stopped with the job",
            ),
            Event::Spawned { .. } => {
                self.promise(self.asked || self.early, "nobody is signalled at birth for nothing")
            }
            Event::FoundStopped => self.promise(
                signal == Signal::CONT && self.child.as_ref().is_some_and(|child| child.behaviour.stopped),
                "who is stopped is continued, nobody else",
            ),
            Event::Notified(told) => self.promise(told.trigger, "words kill only where they ask for it"),
            Event::Deadline if self.stop.is_none() => self.judge_our_own_stop(),
            Event::Deadline if signal == Signal::KILL => {
                let due = self.kill_due();
                self.promise(due.is_some_and(|due| self.now >= due), "no SIGKILL comes before its time");
            }
            Event::Deadline => {
                let stops = signal == self.job.stop_signal || signal == Signal::CONT;
                self.promise(stops, "one stop is enough")
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
            | Event::Asked
            | Event::Closed => self.broken("a signal for no reason"),
        }
    }

    pub(super) fn count_group(&mut self, group: Pid, exactly: bool, queue: &mut VecDeque<Event>) {
        self.promise(self.reaped == Some(group) && self.child.is_none(), "the last run's group is counted");
        self.promise(!self.job.single_child, "under --single-child the group is left alone");
        let first = self.awaited.is_none_or(|watch| watch.look.is_none() && !watch.killed);
        self.promise(exactly == first, "only the first count is logged");
        if self.awaited.is_none() {
            self.promise(self.restart().is_some(), "what run leaves behind on purpose is left alone");
            self.awaited = Some(Watch::default());
        }
        let members = match &self.rest {
            Some(rest) if rest.lives(self.now) => rest.leaves.members,
            _ => Some(0),
        };
        queue.push_back(Event::GroupCounted { members });
    }

    /// What the rest of a group gets, and when.
    pub(super) fn judge_signal_to_rest(&mut self, event: &Event, signal: Signal) {
        let stopped = self.stop.is_some();
        let allowed = match (event, signal) {
            (Event::Deadline, Signal::KILL) => self.awaited.is_some_and(|watch| watch.killed),
            (Event::Signal { .. }, Signal::KILL) => self.insisted,
            (Event::GroupCounted { .. }, Signal::TERM | Signal::CONT) => !stopped && self.restart().is_some(),
            (Event::Exited(_), Signal::TERM) => !stopped && self.job.setsid && self.restart().is_none(),
            _ => false,
        };
        self.promise(allowed, "the rest of a group is signalled when it is due");
        if let (Signal::TERM, Some(watch)) = (signal, &mut self.awaited) {
            let first = !std::mem::replace(&mut watch.termed, true);
            self.promise(first, "the rest of a group is asked to end once");
        }
    }

    pub(super) fn rest_feels(&mut self, signal: Signal) {
        let Some(rest) = &mut self.rest else { return };
        let after = match signal {
            Signal::KILL if !rest.leaves.stuck => Some(Duration::ZERO),
            Signal::TERM => rest.leaves.ends_after,
            _ => None,
        };
        let end = after.map(|after| self.now + after);
        rest.ends = [rest.ends, end].into_iter().flatten().min();
    }

    /// What the child does about a signal.
    pub(super) fn feel(&mut self, signal: Signal) {
        let harmless = [Signal::CHLD, Signal::CONT, Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let Some(child) = &mut self.child else { return };
        if child.behaviour.stopped && signal != Signal::KILL {
            if signal != Signal::CONT {
                return child.pending.push(signal);
            }
            child.behaviour.stopped = false;
            let pending = std::mem::take(&mut child.pending);
            return pending.into_iter().for_each(|signal| self.feel(signal));
        }
        let (after, exit) = if signal == Signal::KILL {
            (Duration::ZERO, None)
        } else if child.behaviour.deaf || harmless.contains(&signal) || signal == Signal::WINCH {
            return;
        } else {
            (child.behaviour.dies_after, child.behaviour.answer)
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
