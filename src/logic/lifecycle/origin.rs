//! Determines the origin of a signal. Some signals that a process sends stand for what the terminal or the kernel would
//! have sent.

use crate::logic::Sender;
use crate::signal::Signal;

/// A signal as the kernel delivers it (signalfd(2)).
#[derive(Clone, Copy, Debug)]
pub struct DeliveredSignal {
    /// The signal.
    pub signal: Signal,
    /// `si_code`: positive if the kernel has raised the signal.
    pub code: i32,
    /// The pid of the sender; 0 if it is outside kapo's PID namespace.
    pub pid: i32,
    /// The user ID of the sender.
    pub uid: u32,
}

/// What is known about the sender of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalSender {
    /// The process exists.
    Alive {
        /// The process is in kapo's process group and runs the same program as kapo.
        is_sibling_kapo: bool,
    },
    /// The process no longer exists, or cannot be seen.
    Gone {
        /// kapo was started with ^C and ^\\ ignored, and is in the foreground of a terminal.
        may_be_typed: bool,
    },
}

/// Returns the sender of a signal. A PIPE caused by kapo's own write appears to come from kapo, so a signal from kapo's
/// own pid counts as the kernel's. `peer` is called only for INT and QUIT: another kapo in the group sends them in
/// place of the terminal when ^C has ended its command, and then ends. Therefore a sender that no longer exists may
/// have been such a kapo.
pub fn sender(delivery: DeliveredSignal, own: i32, peer: impl FnOnce() -> SignalSender) -> Sender {
    let DeliveredSignal { signal, code, pid, uid } = delivery;
    let of_the_terminal = || {
        matches!(signal, Signal::INT | Signal::QUIT)
            && match peer() {
                SignalSender::Alive { is_sibling_kapo } => is_sibling_kapo,
                SignalSender::Gone { may_be_typed } => pid > 0 && may_be_typed,
            }
    };
    if code > 0 || pid == own || of_the_terminal() { Sender::Kernel } else { Sender::Process { pid, uid } }
}

/// Returns the sender of a HUP. The kernel reports a lost terminal only to the shell, which sends HUP to its jobs,
/// including scripts and the processes that they have started. `shells` are the pids of kapo's parent and of its
/// session leader.
pub fn of_hang_up(sender: Sender, shells: [Option<i32>; 2], terminal_is_gone: bool) -> Sender {
    match sender {
        Sender::Process { pid, .. } if terminal_is_gone && shells.contains(&Some(pid)) => Sender::Kernel,
        sender => sender,
    }
}

/// Whether the signal means that a process of kapo's group was stopped because it wants the terminal. It cannot have
/// been kapo, which does not read from the terminal and blocks TTOU.
pub fn wants_terminal(signal: Signal, sender: Sender) -> bool {
    sender == Sender::Kernel && matches!(signal, Signal::TTIN | Signal::TTOU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_sender_of_a_signal_is_found() {
        let process = Sender::Process { pid: 7, uid: 1000 };
        let (sibling, stranger) =
            (SignalSender::Alive { is_sibling_kapo: true }, SignalSender::Alive { is_sibling_kapo: false });
        let (typed, gone) =
            (SignalSender::Gone { may_be_typed: true }, SignalSender::Gone { may_be_typed: false });
        for (signal, code, peer, expected) in [
            (Signal::TERM, 0, sibling, process),
            (Signal::TERM, 128, stranger, Sender::Kernel),
            (Signal::INT, 0, sibling, Sender::Kernel),
            (Signal::INT, 0, stranger, process),
            (Signal::QUIT, 0, typed, Sender::Kernel),
            (Signal::QUIT, 0, gone, process),
        ] {
            let delivery = DeliveredSignal { signal, code, pid: 7, uid: 1000 };
            assert_eq!(sender(delivery, 1, || peer), expected, "{signal} {code} {peer:?}");
        }
        let own = DeliveredSignal { signal: Signal::PIPE, code: 0, pid: 1, uid: 0 };
        assert_eq!(sender(own, 1, || stranger), Sender::Kernel);
        let outside = DeliveredSignal { signal: Signal::INT, code: 0, pid: 0, uid: 0 };
        assert_eq!(sender(outside, 1, || typed), Sender::Process { pid: 0, uid: 0 });
    }

    #[test]
    fn a_hang_up_from_the_shell_counts_as_the_terminal_s() {
        let shell = Sender::Process { pid: 7, uid: 0 };
        assert_eq!(of_hang_up(shell, [Some(7), None], true), Sender::Kernel);
        assert_eq!(of_hang_up(shell, [None, Some(7)], true), Sender::Kernel);
        assert_eq!(of_hang_up(shell, [Some(7), None], false), shell);
        assert_eq!(of_hang_up(shell, [Some(6), Some(5)], true), shell);
    }
}
