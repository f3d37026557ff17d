//! Decides how the output of one stream is forwarded: whether bytes are copied or pages are moved, when pipes are
//! enlarged, how much one read asks for, how long output gathers, and when buffers are freed. Knows nothing about
//! descriptors.
//!
//! Small output is read and written. If reads become large and the sink is a pipe, the command's pipe is enlarged and
//! pages are moved (splice(2)). This does not happen earlier, because the kernel limits the pages in a user's pipes,
//! and there may be thousands of kapos.

use std::time::{Duration, Instant};

use crate::logic::output::coalesce;
use crate::logic::output::coalesce::Coalescer;

/// Size of the first buffer in bytes; little output never needs more.
pub(crate) const SMALL: usize = 4 * 1024;
/// Size of the buffer after a read has filled the small one. It is larger than a pipe, so that one read empties the
/// pipe.
pub(crate) const LARGE: usize = 68 * 1024;
/// Bytes that one splice asks for, and the size to which the pipes are enlarged for it.
pub(crate) const MOVE: usize = 1024 * 1024;

/// After this many bytes, the turn of a stream ends.
const BUDGET: u64 = 256 * 1024;
/// A read of at least this size is large.
const LARGE_READ: usize = 32 * 1024;
/// A turn that moved less than this is small.
const SMALL_MOVE: u64 = 16 * 1024;
/// Pages are moved after this many large reads in a row if the last one ended between two writes of the command. Bytes
/// are copied again after this many small turns in a row.
const IN_A_ROW: u8 = 4;
/// Pages are moved after this many large reads in a row in any case, because the command's pipe then holds more than
/// the buffer.
const IN_ANY_CASE: u8 = 64;

/// Whether pages are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// Bytes are copied; this many reads in a row were large.
    Copying(u8),
    /// Pages are moved; this many turns in a row brought little.
    Moving(u8),
}

/// The result of one turn of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnSummary {
    /// Number of bytes that were read from the pipe.
    pub brought: u64,
    /// Whether the turn has ended because the budget was spent.
    pub again: bool,
    /// Whether the turn has ended because the pipe is closed.
    pub closed: bool,
    /// Whether the sink was full before or after the turn. Such a turn says little about how much the command writes.
    pub stalled: bool,
}

/// The forwarding policy of one stream.
#[derive(Debug)]
pub(crate) struct TransferPolicy {
    transfer: Transfer,
    coalescer: Coalescer,
    /// How many bytes of room a read should have.
    room: usize,
}

impl TransferPolicy {
    /// Returns the policy before the first read.
    pub(crate) fn new() -> TransferPolicy {
        TransferPolicy {
            transfer: Transfer::Copying(0),
            coalescer: Coalescer::new(&coalesce::OUTPUT),
            room: SMALL,
        }
    }

    /// Switches to copying, because a run begins or pages cannot be moved.
    pub(crate) fn copy(&mut self) {
        self.transfer = Transfer::Copying(0);
        self.coalescer = Coalescer::new(&coalesce::OUTPUT);
    }

    /// Whether pages are moved.
    pub(crate) fn moves(&self) -> bool {
        matches!(self.transfer, Transfer::Moving(_))
    }

    /// How many bytes of room a read should have.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Returns for how long the pipe should not be read, so that more output gathers in it.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.coalescer.rest()
    }

    /// Whether a turn that has read `brought` bytes must end although more may be available. It does not end after a
    /// read that has emptied the pipe.
    pub(crate) fn is_budget_spent(&self, brought: u64, emptied: bool) -> bool {
        brought >= BUDGET && !emptied
    }

    /// Records a read of `read` bytes, and whether it `emptied` the pipe. Returns whether the pipes should be enlarged
    /// if the sink is a pipe; pass the result to [`TransferPolicy::enlarged`]. `movable` means that the bytes need not
    /// pass through kapo's memory.
    pub(crate) fn read(&mut self, read: usize, emptied: bool, movable: bool) -> bool {
        if !emptied {
            self.room = LARGE;
        }
        let large = match self.transfer {
            Transfer::Copying(large) if read >= LARGE_READ => large.saturating_add(1),
            // The buffer was full, so the size of the output is unknown.
            Transfer::Copying(large) if !emptied => large,
            _ => 0,
        };
        self.transfer = Transfer::Copying(large);
        if movable { large >= IN_A_ROW && emptied || large >= IN_ANY_CASE } else { large == IN_A_ROW }
    }

    /// Records whether the kernel has `granted` larger pipes. Switches to moving pages if they are `movable`.
    pub(crate) fn enlarged(&mut self, granted: bool, movable: bool) {
        if movable {
            self.transfer = Transfer::Moving(0);
            // Small pipes would be full before the longer pause is over.
            self.coalescer = Coalescer::new(if granted { &coalesce::PAGES } else { &coalesce::OUTPUT });
        }
    }

    /// Records a turn that began at `now`. Returns whether buffers that a burst has enlarged should be freed.
    pub(crate) fn turn(&mut self, now: Instant, turn: TurnSummary) -> bool {
        if !turn.again && !turn.closed && !turn.stalled {
            self.coalescer.turn(now, usize::try_from(turn.brought).unwrap_or(usize::MAX));
            if let Transfer::Moving(small) = &mut self.transfer {
                *small = if turn.brought < SMALL_MOVE { *small + 1 } else { 0 };
                if *small >= IN_A_ROW {
                    self.copy();
                }
            }
        }
        !turn.again && !turn.stalled && turn.brought < SMALL as u64 && self.rest().is_none()
    }

    /// Records that the buffer was freed, so that the next one is small.
    pub(crate) fn buffer_released(&mut self) {
        self.room = SMALL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    const QUIET: TurnSummary = TurnSummary { brought: 0, again: false, closed: false, stalled: false };

    fn moving() -> TransferPolicy {
        let mut policy = TransferPolicy::new();
        for _ in 0..IN_A_ROW {
            policy.read(LARGE_READ, true, true);
        }
        policy.enlarged(true, true);
        policy
    }

    /// Returns the number of identical reads after which the pipes should be enlarged; `None` if it is more than a
    /// thousand.
    fn reads_until_enlarged(read: usize, emptied: bool, movable: bool) -> Option<usize> {
        let mut policy = TransferPolicy::new();
        (1..=1_000).find(|_| policy.read(read, emptied, movable))
    }

    #[test]
    fn pipes_are_enlarged_after_large_reads_in_a_row() {
        let (in_a_row, in_any_case) = (usize::from(IN_A_ROW), usize::from(IN_ANY_CASE));
        for (read, emptied, movable, wanted) in [
            (LARGE_READ, true, true, Some(in_a_row)),
            (LARGE_READ, false, true, Some(in_any_case)),
            (LARGE_READ, true, false, Some(in_a_row)),
            (LARGE_READ, false, false, Some(in_a_row)),
            (LARGE_READ - 1, true, true, None),
            (LARGE_READ - 1, false, true, None),
            (0, true, true, None),
        ] {
            assert_eq!(reads_until_enlarged(read, emptied, movable), wanted, "{read} {emptied} {movable}");
        }
    }

    #[test]
    fn a_small_read_restarts_the_count_of_large_ones() {
        let mut policy = TransferPolicy::new();
        for _ in 0..100 {
            assert!(!policy.read(LARGE_READ, true, true) && !policy.read(LARGE_READ, true, true));
            assert!(!policy.read(100, true, true));
        }
        // A read that has filled a small buffer does not change the count.
        assert!((0..3).all(|_| !policy.read(LARGE_READ, true, true)));
        assert!(!policy.read(SMALL, false, true));
        assert!(policy.read(LARGE_READ, true, true));
    }

    #[test]
    fn bytes_that_kapo_must_see_are_never_moved() {
        let mut policy = TransferPolicy::new();
        for _ in 0..IN_A_ROW {
            policy.read(LARGE_READ, true, false);
        }
        policy.enlarged(true, false);
        assert!(!policy.moves());
        assert!((0..1_000).all(|_| !policy.read(LARGE_READ, true, false)), "the request is not repeated");
    }

    #[test]
    fn bytes_are_copied_again_after_small_turns_in_a_row() {
        let now = epoch().mono;
        let (little, much) =
            (TurnSummary { brought: SMALL_MOVE - 1, ..QUIET }, TurnSummary { brought: SMALL_MOVE, ..QUIET });
        let mut policy = moving();
        for _ in 0..10 {
            for _ in 1..IN_A_ROW {
                policy.turn(now, little);
            }
            policy.turn(now, much);
            assert!(policy.moves());
        }
        for _ in 1..IN_A_ROW {
            policy.turn(now, little);
        }
        for uncounted in [
            TurnSummary { again: true, ..little },
            TurnSummary { closed: true, ..little },
            TurnSummary { stalled: true, ..little },
        ] {
            policy.turn(now, uncounted);
            assert!(policy.moves(), "{uncounted:?}");
        }
        policy.turn(now, little);
        assert!(!policy.moves());
    }

    #[test]
    fn output_gathers_longer_only_in_enlarged_pipes() {
        let now = epoch().mono;
        let much = TurnSummary { brought: MOVE as u64, ..QUIET };
        for (granted, wanted) in [(true, Some(Duration::from_micros(400))), (false, None)] {
            let mut policy = moving();
            policy.enlarged(granted, true);
            for _ in 0..4 {
                policy.turn(now, much);
            }
            assert_eq!(policy.rest(), wanted, "{granted}");
            policy.copy();
            assert_eq!(policy.rest(), None);
        }
    }

    #[test]
    fn a_filled_buffer_grows_and_a_quiet_turn_frees_it() {
        let now = epoch().mono;
        let mut policy = TransferPolicy::new();
        policy.read(100, true, true);
        assert_eq!(policy.room(), SMALL);
        policy.read(SMALL, false, true);
        assert_eq!(policy.room(), LARGE);
        for (turn, wanted) in [
            (TurnSummary { brought: SMALL as u64, ..QUIET }, false),
            (TurnSummary { again: true, ..QUIET }, false),
            (TurnSummary { stalled: true, ..QUIET }, false),
            (QUIET, true),
            (TurnSummary { closed: true, ..QUIET }, true),
        ] {
            assert_eq!(policy.turn(now, turn), wanted, "{turn:?}");
        }
        policy.buffer_released();
        assert_eq!(policy.room(), SMALL);
    }

    #[test]
    fn a_turn_ends_although_the_pipe_is_not_empty() {
        let policy = TransferPolicy::new();
        assert!(policy.is_budget_spent(BUDGET, false));
        assert!(!policy.is_budget_spent(BUDGET, true) && !policy.is_budget_spent(BUDGET - 1, false));
    }
}
