//! The signal policy: which signals ask kapo to stop, which are forwarded, and which ends count as an interrupt.

use crate::logic::lifecycle::event::IgnoredAtStart;
use crate::logic::{Exit, Sender};
use crate::signal::{Signal, SignalSet};

/// Whether the signal asks kapo to stop, as set by `--stop-on`. Of the signals that the kernel raises, only the
/// terminal's interrupts and TERM (SysRq) count, because WINCH, for example, comes with every change of the window
/// size. HUP counts if the terminal is gone, even if it is not listed. A HUP from a process counts only if it is
/// listed, because daemons reload on it.
pub fn is_stop_signal(
    signal: Signal,
    sender: Sender,
    ignored_at_start: IgnoredAtStart,
    stop_on: SignalSet,
) -> bool {
    match (signal, sender) {
        // KILL cannot be caught, so it never arrives as a signal. Here it stands for the death of a parent that ended
        // before kapo could watch it.
        (Signal::KILL, _) => true,
        (Signal::HUP, Sender::Kernel) => !ignored_at_start.hang_up,
        (Signal::INT | Signal::QUIT, Sender::Kernel) => {
            !ignored_at_start.interrupt && stop_on.contains(signal)
        }
        (Signal::TERM, Sender::Kernel) | (_, Sender::Process { .. }) => stop_on.contains(signal),
        (_, Sender::Kernel) => false,
    }
}

/// Whether the signal stops a job, and kapo with it.
pub fn is_job_control(signal: Signal) -> bool {
    matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU)
}

/// Whether a signal that the kernel raises is meant for the command as well. That is the case for signals of the
/// terminal, which do not reach the command's own process group, for TERM (by SysRq), and for ALRM, which was requested
/// before kapo was executed (`alarm(60); exec kapo`). All other signals of the kernel are caused by kapo itself.
pub fn is_for_command(signal: Signal) -> bool {
    const FOR_COMMAND: [Signal; 8] = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::ALRM,
        Signal::TERM,
        Signal::TSTP,
        Signal::CONT,
        Signal::WINCH,
    ];
    FOR_COMMAND.contains(&signal)
}

/// Whether to log that the signal was forwarded. Signals that a terminal sends often, and those that programs send each
/// other in large numbers, are not logged.
pub fn is_logged(signal: Signal) -> bool {
    !is_job_control(signal) && ![Signal::CONT, Signal::WINCH].contains(&signal) && signal <= Signal::SYS
}

/// Returns INT or QUIT if that signal (^C or ^\) ended the command.
pub fn interruption(exit: Exit) -> Option<Signal> {
    match exit {
        Exit::Signal { signal: signal @ (Signal::INT | Signal::QUIT), .. } => Some(signal),
        Exit::Signal { .. } | Exit::Code(_) => None,
    }
}

/// Whether INT or QUIT ended the command, or the command exited with 128+n, which shells and many programs do after
/// such a signal. While the command has the terminal, ^C and ^\ reach only the command, although the user means kapo as
/// well. A command that exits with another code cannot be distinguished from one that has finished.
pub fn is_interrupted(exit: Exit) -> bool {
    [Signal::INT, Signal::QUIT]
        .iter()
        .any(|signal| exit.code() == Exit::Signal { signal: *signal, core_dumped: false }.code())
}
