//! Reaps children, and reports stops and the end of the command.

use super::{Job, group};

use crate::driver::event_loop::LoopContext;
use crate::driver::poll::Source;
use crate::logic::lifecycle::{AfterStop, End, Event, TerminalView};
use crate::logic::{Exit, Now, Pid, Usage};
use crate::signal::Signal;
use crate::sys;
use crate::sys::wait::{Change, WaitStatus};

/// So many children are reaped before the status port gets its turn.
const REAPED_AT_ONCE: usize = 1_000;

/// So often the command's notifications are read before its end counts, and that of others: enough for all that can
/// wait on a socket (net.unix.max_dgram_qlen, 512 at most by default), and an end where somebody never ceases to send.
const ROUNDS_OF_NOTIFICATIONS: usize = 34;

impl Job {
    /// Reaps all that have ended, within bounds.
    pub(super) fn reap(&mut self, now: Now, stage: &mut LoopContext) {
        let orphans = self.children.orphans;
        self.reap_each(now, stage);
        if self.children.orphans != orphans && self.life.waits_for_group() {
            self.handle(now, Event::OrphansReaped, stage);
        }
    }

    pub(super) fn reap_each(&mut self, now: Now, stage: &mut LoopContext) {
        self.children.unreaped = true;
        let stops = self.terminal.is_some();
        let mut rounds = ROUNDS_OF_NOTIFICATIONS;
        for _ in 0..REAPED_AT_ONCE {
            let mut child = None;
            if self.notify.socket.is_some() {
                child = sys::wait::peek_change(stops);
                if child.is_none() {
                    self.children.unreaped = false;
                    return;
                }
                // What it said before it ended was meant for this run; whose word it is can be seen only until it is
                // reaped, and until then no signal can go astray.
                while rounds > 0 {
                    rounds -= 1;
                    if !self.listen_to_command(now, stage) {
                        break;
                    }
                }
            }
            let change = match child {
                Some(child) => sys::wait::next_change_of(child, stops),
                None => sys::wait::next_change(stops),
            };
            let Some(change) = change else {
                // Who was stopped has gone on meanwhile.
                if child.is_some() {
                    continue;
                }
                self.children.unreaped = false;
                return;
            };
            let command = self.life.pid().filter(|pid| pid.get() == change.pid);
            let exit = match change.status {
                WaitStatus::Stopped(signal) => {
                    if let Some(pid) = command {
                        self.run.was_stopped = true;
                        self.stopped(now, pid, signal, stage);
                    }
                    continue;
                }
                WaitStatus::Exited(code) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                WaitStatus::Signaled { signal, core_dumped } => {
                    Exit::Signal { signal: Signal::new(signal).unwrap_or(Signal::KILL), core_dumped }
                }
            };
            if let Some(pid) = command {
                let Change { user, system, max_rss_bytes, .. } = change;
                self.ended(now, pid, exit, Usage { user, system, max_rss_bytes }, stage);
            } else {
                self.children.orphans += 1;
                if matches!(exit, Exit::Signal { signal: Signal::KILL, .. }) {
                    self.measuring.oom.expect_kill();
                }
            }
        }
    }

    /// The command was stopped.
    pub(super) fn stopped(&mut self, now: Now, pid: Pid, signal: i32, stage: &mut LoopContext) {
        let leader = self.life.group().unwrap_or(pid);
        let Some(terminal) = self.terminal.as_ref().filter(|_| !self.suspended) else { return };
        let Some(signal) = Signal::new(signal) else { return };
        let view = terminal.view(group(leader));
        let mut answer = self.life.after_stop(signal, view);
        if answer == AfterStop::GiveTerminal && !terminal.give(group(leader)) {
            answer = self.life.after_stop(signal, TerminalView { is_free: false, ..view });
        }
        match answer {
            AfterStop::Continue | AfterStop::GiveTerminal => {
                let _ = sys::signal::send(-leader.get(), i32::from(Signal::CONT.number()));
            }
            AfterStop::StopWithIt => self.handle(now, Event::Stopped { signal }, stage),
            AfterStop::StayStopped => {}
        }
    }

    /// Gives the terminal to the command once more if kapo's group has it, see [`crate::driver::process::foreground_check`].
    pub(super) fn give_terminal_again(&mut self) {
        // Without a shell that does job control nothing takes the terminal away.
        let minded = self.terminal.as_ref().filter(|terminal| terminal.somebody_minds_us());
        let (Some(terminal), Some(leader)) = (minded, self.life.group()) else {
            return self.foreground_check.stop();
        };
        let wanted = self.life.gives_terminal() && !self.suspended;
        if wanted && terminal.is_ours() && terminal.give(group(leader)) {
            // A process of the group that has tried to read meanwhile was stopped.
            let _ = sys::signal::send(-leader.get(), i32::from(Signal::CONT.number()));
        }
    }

    pub(super) fn ended(&mut self, now: Now, pid: Pid, exit: Exit, usage: Usage, stage: &mut LoopContext) {
        let leader = self.life.group().unwrap_or(pid);
        self.foreground_check.stop();
        (self.run.main_pid, self.run.since) = (None, None);
        // The rest of a line, which the record of its end must not cut in two where both go one way.
        self.serve_capture(now, stage, &|source| matches!(source, Source::Pipe(_)));
        let on_terminal = self.terminal.as_ref().is_some_and(|terminal| terminal.is_with(group(leader)));
        if let Some(terminal) = &self.terminal {
            terminal.take_back(Some(group(leader)));
        }
        // Also if the command has succeeded: a descendant may have been killed.
        self.measuring.oom.look(now, stage);
        let oom_killed = self.measuring.oom.is_cause(now, exit, self.run.killed);
        let by_hup = matches!(exit, Exit::Signal { signal: Signal::HUP, .. });
        let hung_up = by_hup && self.terminal_is_gone();
        // A `run` that ends kapo at once shows it to nobody who is not connected already.
        let shown = self.life.goes_on_after_end() || stage.server.connections() > 0;
        let memory = if shown { self.measuring.oom.memory() } else { None };
        self.handle(now, Event::Exited(End { exit, usage, oom_killed, on_terminal, hung_up, memory }), stage);
    }
}
