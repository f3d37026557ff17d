//! What a signal, or an end by one, means for kapo.

use crate::logic::lifecycle::event::IgnoredAtStart;
use crate::logic::{Exit, Sender};
use crate::signal::Signal;

/// Whether kapo is asked to stop: by a signal of `--stop-on`. Of those that the kernel raises only the terminal's
/// interrupts and TERM (SysRq) count, as WINCH comes with every new size of a window. HUP counts when the terminal is gone,
/// listed or not; daemons reload when a process sends it.
pub fn asks_for_an_end(
    signal: Signal,
    sender: Sender,
    ignored_at_start: IgnoredAtStart,
    stop_on: &[Signal],
) -> bool {
    match (signal, sender) {
        // No process can catch KILL; it stands for the death of a parent that was dead before kapo could ask.
        (Signal::KILL, _) => true,
        (Signal::HUP, Sender::Kernel) => !ignored_at_start.hang_up,
        (Signal::INT | Signal::QUIT, Sender::Kernel) => {
            !ignored_at_start.interrupt && stop_on.contains(&signal)
        }
        (Signal::TERM, Sender::Kernel) | (_, Sender::Process { .. }) => stop_on.contains(&signal),
        (_, Sender::Kernel) => false,
    }
}

/// What stops a job, and kapo with it.
pub fn job_control(signal: Signal) -> bool {
    matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU)
}

/// Whether the kernel raises this one for the command as well: for whom the terminal belongs to, which the command
/// did not hear of as it is in another group, for all (TERM, by SysRq), or as it was ordered before kapo was executed
/// (ALRM: `alarm(60); exec kapo`). All else that it raises is about kapo's own doing.
pub fn concerns_the_command(signal: Signal) -> bool {
    const CONCERNS: [Signal; 8] = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::ALRM,
        Signal::TERM,
        Signal::TSTP,
        Signal::CONT,
        Signal::WINCH,
    ];
    CONCERNS.contains(&signal)
}

/// Whether that it was passed on is told in the log: not what a terminal sends at each turn, nor what programs use to
/// talk to each other by the thousand.
pub fn is_worth_a_word(signal: Signal) -> bool {
    !job_control(signal) && ![Signal::CONT, Signal::WINCH].contains(&signal) && signal <= Signal::SYS
}

/// The signal of ^C or ^\ that has ended a command which does not handle it.
pub fn interruption(exit: Exit) -> Option<Signal> {
    match exit {
        Exit::Signal { signal: signal @ (Signal::INT | Signal::QUIT), .. } => Some(signal),
        Exit::Signal { .. } | Exit::Code(_) => None,
    }
}

/// Whether INT or QUIT has ended the command, or it has ended with 128+n, which is what shells and many others make of
/// the signal. On a terminal that is the command's ^C and ^\ reach it alone, and mean kapo, too. One that makes another
/// code of them cannot be told from one that is done.
pub fn is_interrupted(exit: Exit) -> bool {
    [Signal::INT, Signal::QUIT]
        .iter()
        .any(|signal| exit.code() == Exit::Signal { signal: *signal, core_dumped: false }.code())
}
