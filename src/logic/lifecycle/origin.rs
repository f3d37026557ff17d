//! The true origin of a signal. Some that a process sends stand for what the terminal or the kernel would have sent.

use crate::logic::Sender;
use crate::signal::Signal;

/// A signal as the kernel has delivered it (signalfd(2)).
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The signal.
    pub signal: Signal,
    /// `si_code`: positive if the kernel has raised it.
    pub code: i32,
    /// The sender; 0 if it is outside our PID namespace.
    pub pid: i32,
    /// The user of the sender.
    pub uid: u32,
}

/// What can be seen of a process that has sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It exists.
    Alive {
        /// It is in kapo's process group and runs the same program as kapo.
        is_sibling_kapo: bool,
    },
    /// It is gone, or cannot be seen.
    Gone {
        /// kapo was started with ^C and ^\\ ignored, and is in the foreground of a terminal.
        may_be_typed: bool,
    },
}

/// The sender of a signal. A PIPE of kapo's own writing comes as if kapo had sent it to itself, so a signal with kapo's
/// own pid counts as the kernel's. `peer` is asked for INT and QUIT alone: another kapo of the group sends them in
/// place of the terminal when ^C has ended its command, and dies. So a sender that is gone may have been one.
pub fn sender(delivery: Delivery, own: i32, peer: impl FnOnce() -> Peer) -> Sender {
    let Delivery { signal, code, pid, uid } = delivery;
    let of_the_terminal = || {
        matches!(signal, Signal::INT | Signal::QUIT)
            && match peer() {
                Peer::Alive { is_sibling_kapo } => is_sibling_kapo,
                Peer::Gone { may_be_typed } => pid > 0 && may_be_typed,
            }
    };
    if code > 0 || pid == own || of_the_terminal() { Sender::Kernel } else { Sender::Process { pid, uid } }
}

/// The sender of a HUP. The kernel reports a lost terminal to the shell alone, and the shell to its jobs; to scripts
/// among them, and those they call, too. `shells` are the pids of kapo's parent and of the leader of its session.
pub fn of_hang_up(sender: Sender, shells: [Option<i32>; 2], terminal_is_gone: bool) -> Sender {
    match sender {
        Sender::Process { pid, .. } if terminal_is_gone && shells.contains(&Some(pid)) => Sender::Kernel,
        sender => sender,
    }
}

/// Whether a process of kapo's group was stopped because it wants the terminal. It cannot have been kapo, which reads
/// nothing from the terminal and blocks TTOU.
pub fn is_want_of_terminal(signal: Signal, sender: Sender) -> bool {
    sender == Sender::Kernel && matches!(signal, Signal::TTIN | Signal::TTOU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_sender_of_a_signal_is_found() {
        let process = Sender::Process { pid: 7, uid: 1000 };
        let (sibling, stranger) =
            (Peer::Alive { is_sibling_kapo: true }, Peer::Alive { is_sibling_kapo: false });
        let (typed, gone) = (Peer::Gone { may_be_typed: true }, Peer::Gone { may_be_typed: false });
        for (signal, code, peer, expected) in [
            (Signal::TERM, 0, sibling, process),
            (Signal::TERM, 128, stranger, Sender::Kernel),
            (Signal::INT, 0, sibling, Sender::Kernel),
            (Signal::INT, 0, stranger, process),
            (Signal::QUIT, 0, typed, Sender::Kernel),
            (Signal::QUIT, 0, gone, process),
        ] {
            let delivery = Delivery { signal, code, pid: 7, uid: 1000 };
            assert_eq!(sender(delivery, 1, || peer), expected, "{signal} {code} {peer:?}");
        }
        let own = Delivery { signal: Signal::PIPE, code: 0, pid: 1, uid: 0 };
        assert_eq!(sender(own, 1, || stranger), Sender::Kernel);
        let outside = Delivery { signal: Signal::INT, code: 0, pid: 0, uid: 0 };
        assert_eq!(sender(outside, 1, || typed), Sender::Process { pid: 0, uid: 0 });
    }

    #[test]
    fn a_hang_up_from_the_shell_is_the_terminals() {
        let shell = Sender::Process { pid: 7, uid: 0 };
        assert_eq!(of_hang_up(shell, [Some(7), None], true), Sender::Kernel);
        assert_eq!(of_hang_up(shell, [None, Some(7)], true), Sender::Kernel);
        assert_eq!(of_hang_up(shell, [Some(7), None], false), shell);
        assert_eq!(of_hang_up(shell, [Some(6), Some(5)], true), shell);
    }
}
