//! Reaps children, and reports stops and the end of the command.

use super::{Job, group};
use std::time::Duration;

use crate::driver::event_loop::LoopContext;
use crate::driver::poll::Source;
use crate::logic::lifecycle::{AfterStop, End, Event, TerminalView};
use crate::logic::{Exit, Now, ProcessId, Usage};
use crate::signal::Signal;
use crate::sys;
use crate::sys::wait::{Change, WaitStatus};

/// The number of children to reap in one turn, so that the status port is not starved.
const REAPED_AT_ONCE: usize = 1_000;

/// How many times the notification socket is read in one turn before exits are reaped. This is enough for all datagrams
/// that a socket can queue (net.unix.max_dgram_qlen, 512 by default), and is a limit if a process never stops sending.
const ROUNDS_OF_NOTIFICATIONS: usize = 34;

impl Job {
    /// Reaps the children that have ended, up to the limit for one turn. Returns how long to wait for more of them before
    /// the next turn.
    pub(super) fn reap(&mut self, now: Now, context: &mut LoopContext) -> Option<Duration> {
        let orphans = self.children.orphans;
        self.reap_each(now, context);
        let orphans = usize::try_from(self.children.orphans - orphans).unwrap_or(usize::MAX);
        if orphans == 0 {
            return None;
        }
        if self.life.waits_for_group() {
            self.handle(now, Event::OrphansReaped, context);
        }
        self.children.coalescer.turn(now.mono, orphans);
        self.children.coalescer.rest()
    }

    pub(super) fn reap_each(&mut self, now: Now, context: &mut LoopContext) {
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
                // Read the notifications that the command sent before it ended, because they belong to this run. The
                // sender of a datagram can be identified only before it is reaped. Its pid cannot be reused before
                // that, so no signal can reach a wrong process.
                while rounds > 0 {
                    rounds -= 1;
                    if !self.read_notifications(now, context) {
                        break;
                    }
                }
            }
            let change = match child {
                Some(child) => sys::wait::next_change_of(child, stops),
                None => sys::wait::next_change(stops),
            };
            let Some(change) = change else {
                // The process was stopped and has been continued since.
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
                        self.stopped(now, pid, signal, context);
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
                self.ended(now, pid, exit, Usage { user, system, max_rss_bytes }, context);
            } else if !self.children.helpers.reaped(change.pid, exit, change.user + change.system) {
                self.children.orphans += 1;
                if matches!(exit, Exit::Signal { signal: Signal::KILL, .. }) {
                    self.measuring.oom.expect_kill();
                }
            }
        }
    }

    /// Handles a stop of the command.
    pub(super) fn stopped(&mut self, now: Now, pid: ProcessId, signal: i32, context: &mut LoopContext) {
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
            AfterStop::StopWithIt => self.handle(now, Event::Stopped { signal }, context),
            AfterStop::StayStopped => {}
        }
    }

    /// Gives the terminal to the command again if kapo's group has it. See
    /// [`crate::logic::lifecycle::foreground_check`].
    pub(super) fn restore_foreground(&mut self) {
        // Only a shell with job control puts kapo's group into the foreground again.
        let watched = self.terminal.as_ref().filter(|terminal| terminal.has_job_control_shell());
        let (Some(terminal), Some(leader)) = (watched, self.life.group()) else {
            return self.foreground_check.stop();
        };
        let wanted = self.life.gives_terminal() && !self.suspended;
        if wanted && terminal.is_ours() && terminal.give(group(leader)) {
            // A process of the command's group that tried to read before this was stopped.
            let _ = sys::signal::send(-leader.get(), i32::from(Signal::CONT.number()));
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Now,
        pid: ProcessId,
        exit: Exit,
        usage: Usage,
        context: &mut LoopContext,
    ) {
        let leader = self.life.group().unwrap_or(pid);
        self.foreground_check.stop();
        self.stop_probing();
        (self.run.main_pid, self.run.since) = (None, None);
        // Write the rest of a line first. Otherwise the log record of the end would split that line if both go to the
        // same sink.
        self.serve_capture(now, context, &|source| matches!(source, Source::Pipe(_)));
        let on_terminal =
            self.terminal.as_ref().is_some_and(|terminal| terminal.has_foreground(group(leader)));
        if let Some(terminal) = &self.terminal {
            terminal.take_back(Some(group(leader)));
        }
        // Also check after a success: a descendant of the command may have been killed.
        self.measuring.oom.update(now, context);
        let oom_killed = self.measuring.oom.is_cause(now, exit, self.run.killed);
        let by_hup = matches!(exit, Exit::Signal { signal: Signal::HUP, .. });
        let hung_up = by_hup && self.terminal_is_gone();
        // Under `run` without `--wait` or `--idle-exit`, only a client that is already connected can still see the
        // memory.
        let shown = self.life.goes_on_after_end() || context.server.connections() > 0;
        let memory = if shown { self.measuring.oom.memory() } else { None };
        self.handle(
            now,
            Event::Exited(End { exit, usage, oom_killed, on_terminal, hung_up, memory }),
            context,
        );
    }
}
