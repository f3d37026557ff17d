//! Performs the effects of the lifecycle: starts, signals, terminal changes, log records.

use super::parts::CurrentRun;
use super::{Job, group};
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::termios::isatty;

use crate::config::After;
use crate::driver::event_loop::LoopContext;
use crate::driver::notify::notify_socket::NotifySocket;
use crate::driver::process::leftover_group;
use crate::driver::process::program::Start;
use crate::driver::process::terminal;
use crate::driver::process::terminal::Terminal;
use crate::error::reason;
use crate::logic::lifecycle::{Effect, Event, SignalTarget, SpawnErrorKind};
use crate::logic::{Now, ProcessId, Stream};
use crate::signal::Signal;
use crate::sys;
use crate::sys::spawn::{SpawnError, Step};

impl Job {
    pub(super) fn perform(&mut self, now: Now, effect: Effect, context: &mut LoopContext) -> Option<Event> {
        match effect {
            Effect::Spawn => return Some(self.spawn(now, context)),
            Effect::Kill { signal, to, log } => match self.kill(signal, to) {
                Ok(()) => log.iter().for_each(|record| context.log(now, record)),
                Err(error) => return Some(Event::KillFailed { signal, reason: reason(&error) }),
            },
            Effect::CheckStopped(pid) => return self.is_stopped(pid).then_some(Event::FoundStopped),
            Effect::Suspend { signal, all } => {
                if let (Some(terminal), Some(pid)) = (&self.terminal, self.life.group()) {
                    terminal.take_back(Some(group(pid)));
                }
                self.suspended = terminal::can_be_stopped();
                terminal::suspend(self.terminal.as_ref(), signal, all);
            }
            Effect::GiveTerminal(pid) => {
                if let Some(terminal) = &self.terminal {
                    terminal.give(group(pid));
                }
            }
            Effect::WakeSiblings => {
                if let Some(terminal) = &self.terminal {
                    terminal.wake_siblings(self.life.group().map(group));
                }
            }
            Effect::Drain { run } => {
                self.output.draining = run;
                self.output.capture.end(now);
                self.serve_capture(now, context, &|_| false);
                return self.drained(now);
            }
            Effect::CountGroup { group, exactly } => {
                return Some(Event::GroupCounted { members: leftover_group::count(group, exactly) });
            }
            Effect::Notify(datagram) => {
                if let Some(manager) = &mut self.notify.manager {
                    manager.tell(now, datagram);
                }
            }
            Effect::Log(record) => context.log(now, &record),
            Effect::PrintError(text) => context.complain(&text),
            Effect::TerminationLog(text) => {
                if let Some(log) = &mut self.output.termination_log {
                    log.write(now, &text, context);
                }
            }
            Effect::Close => {
                self.close_unused_standard(context);
                self.publish(now, context);
                context.server.close(now, &context.epoll, self);
                self.ending.closing = true;
            }
            Effect::DieBy { signal, all } => self.ending.dies_by = Some((signal, all)),
            Effect::Exit(code) => {
                self.publish(now, context);
                self.write_textfile(now, true, context);
                self.exit(now, code, context);
            }
        }
        None
    }

    pub(super) fn spawn(&mut self, now: Now, context: &mut LoopContext) -> Event {
        match self.try_spawn(now, context) {
            Ok(pid) => {
                self.run = CurrentRun::default();
                self.probe_run(now);
                self.measuring.oom.run_started(now, context);
                if matches!(self.options.after, After::Once(_)) {
                    self.close_unused_standard(context);
                }
                Event::Spawned { pid }
            }
            Err(failure) => {
                self.output.capture.abandon(now, &context.epoll, &mut context.sinks);
                if let Some(terminal) = &self.terminal {
                    terminal.take_back(None);
                }
                self.failed(&failure)
            }
        }
    }

    /// Closes stdin, and stdout unless it is captured, once no further start needs them. The reader of the command's
    /// output then sees end-of-file when the command and its descendants have closed it, not when kapo ends. Terminals
    /// stay open because they show a hang-up, and stderr stays open because the log is written to it.
    pub(super) fn close_unused_standard(&mut self, context: &LoopContext) {
        if std::mem::replace(&mut self.ending.standard_closed, true) {
            return;
        }
        let [stdin, stdout, _] = sys::stdio::standard();
        let unused = [Some(stdin), Some(stdout).filter(|_| !self.output.capture.captures(Stream::Stdout))];
        for fd in unused.into_iter().flatten().filter(|fd| !isatty(fd)) {
            // The epoll instance takes the place of the descriptor because it can be neither read nor written. If no
            // descriptor is free, everything stays open.
            let _ = sys::stdio::close_but_keep_number(fd, context.epoll.as_fd());
        }
    }

    pub(super) fn failed(&self, failure: &SpawnError) -> Event {
        let why = reason(&failure.error);
        let (kind, reason) = match failure.step {
            Step::Execute if failure.error.kind() == io::ErrorKind::NotFound => {
                match self.starter.program.file_exists() {
                    true => (
                        SpawnErrorKind::NotExecutable,
                        "its interpreter or dynamic loader is missing".to_owned(),
                    ),
                    false => (SpawnErrorKind::NotFound, why),
                }
            }
            Step::Execute => (SpawnErrorKind::NotExecutable, why),
            Step::Prepare => (SpawnErrorKind::Setup, why),
            Step::Enter => {
                let directory = self.starter.program.directory().unwrap_or_default().to_string_lossy();
                (SpawnErrorKind::Setup, format!("cannot enter {directory}: {why}"))
            }
        };
        Event::SpawnFailed { reason, kind }
    }

    pub(super) fn try_spawn(&mut self, now: Now, context: &mut LoopContext) -> Result<ProcessId, SpawnError> {
        let before = |error| SpawnError { step: Step::Prepare, error };
        let [stdout, stderr] = self.output.capture.begin(&context.epoll, &context.sinks).map_err(before)?;
        let terminal = if self.options.setsid {
            Terminal::for_new_session()
        } else {
            let given = self.terminal.as_ref().filter(|_| self.life.gives_terminal());
            given.filter(|terminal| terminal.is_available()).map(AsFd::as_fd)
        };
        let start = Start {
            stdin: None,
            stdout: stdout.as_ref().map(AsFd::as_fd),
            stderr: stderr.as_ref().map(AsFd::as_fd),
            terminal,
            blocked: self.starter.blocked,
            ignore_chld: self.starter.ignore_chld,
            open_files: self.starter.open_files,
            set: self.notify.socket.as_ref().map_or(&[], NotifySocket::variables),
            pid_variable: self.options.watchdog.map(|_| "WATCHDOG_PID"),
            new_session: self.options.setsid,
            death_signal: self.options.orphan_signal,
        };
        let gets_terminal = terminal.is_some() && !self.options.setsid;
        let pid = self.starter.program.start(&start);
        self.foreground_check.stop();
        if gets_terminal {
            self.foreground_check.start(now.mono);
        }
        context.deep = true;
        if let Some(directory) = self.starter.directory.leave() {
            self.starter.program.starts_in(directory);
        }
        ProcessId::new(pid?).ok_or_else(|| before(io::ErrorKind::Other.into()))
    }

    /// Sends a signal. A process that no longer exists is not an error.
    pub(super) fn kill(&mut self, signal: Signal, to: SignalTarget) -> io::Result<()> {
        let number = i32::from(signal.number());
        let sent = match to {
            SignalTarget::Process(pid) => sys::signal::send(pid.get(), number),
            SignalTarget::Group(pid) => {
                // If the command has moved to another group, a signal to its old group would miss it.
                let moved = sys::group::of(pid.get()).is_some_and(|now| now != pid.get());
                let direct = moved.then(|| sys::signal::send(pid.get(), number));
                let group = sys::signal::send(-pid.get(), number);
                direct.unwrap_or(group)
            }
            SignalTarget::Followed { pid, group } if sys::group::of(pid.get()) == Some(group.get()) => {
                sys::signal::send(-group.get(), number)
            }
            SignalTarget::Followed { pid, group } => {
                if leftover_group::count(group, false) != Some(0) {
                    // Ignore the result for the group: only the result for the command matters.
                    let _ = sys::signal::send(-group.get(), number);
                }
                sys::signal::send(pid.get(), number)
            }
            SignalTarget::LeftoverGroup(pid) if leftover_group::count(pid, false) != Some(0) => {
                sys::signal::send(-pid.get(), number)
            }
            SignalTarget::LeftoverGroup(_) => Ok(()),
        };
        match sent {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => Err(error),
            Ok(()) | Err(_) => {
                self.run.killed |= signal == Signal::KILL;
                Ok(())
            }
        }
    }

    /// Whether the command is stopped. If kapo waits for stops, it has already consumed the last report.
    pub(super) fn is_stopped(&self, pid: ProcessId) -> bool {
        let pid = pid.get();
        sys::wait::is_stopped(pid) || (self.run.was_stopped && !sys::wait::is_continued(pid))
    }
}
