//! How the output of one stream is passed on: bytes copied or pages moved, when pipes are enlarged, how much one read
//! asks for, how long output gathers, when buffers are given back. Knows nothing about descriptors.
//!
//! Small output is read and written. Where reads come back large and kapo's own output is a pipe, pages are moved
//! instead (splice(2)), and the command's pipe is enlarged; not before, because the kernel limits the pages of a user's
//! pipes and there may be thousands of kapos.

use std::time::{Duration, Instant};

use crate::logic::output::coalesce;
use crate::logic::output::coalesce::Coalescer;

/// The first buffer; a command that writes little never makes kapo touch more.
pub(crate) const SMALL: usize = 4 * 1024;
/// The buffer once a read has filled the small one: more than a pipe holds, so that a read empties it and ends where a
/// write of the command's ended.
pub(crate) const LARGE: usize = 68 * 1024;
/// What one move asks for, and what the pipes are made to hold for it.
pub(crate) const MOVE: usize = 1024 * 1024;

/// After this many bytes the loop gets its turn.
const BUDGET: u64 = 256 * 1024;
/// A read of this size is large.
const LARGE_READ: usize = 32 * 1024;
/// A turn that moved less than this is small.
const SMALL_MOVE: u64 = 16 * 1024;
/// Pages are moved after this many large reads in a row if the last one ended between two writes of the command's, and
/// bytes are copied again after this many small turns in a row.
const IN_A_ROW: u8 = 4;
/// Pages are moved after this many large reads in any case: the command's pipe holds more than the buffer.
const IN_ANY_CASE: u8 = 64;

/// Whether pages are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// Bytes are copied; this many reads in a row were large.
    Copying(u8),
    /// Pages are moved; this many turns in a row brought little.
    Moving(u8),
}

/// What one turn of a stream came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnSummary {
    /// How many bytes came out of the pipe.
    pub brought: u64,
    /// The turn has ended because the budget was spent.
    pub again: bool,
    /// The turn has ended because the pipe is closed.
    pub closed: bool,
    /// The sink was full before the turn or is full after it. Such a turn says little about how much the command writes.
    pub stalled: bool,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct TransferPolicy {
    transfer: Transfer,
    coalescer: Coalescer,
    /// For how many bytes a read is to have room.
    room: usize,
}

impl TransferPolicy {
    /// Nothing has come yet.
    pub(crate) fn new() -> TransferPolicy {
        TransferPolicy {
            transfer: Transfer::Copying(0),
            coalescer: Coalescer::new(&coalesce::OUTPUT),
            room: SMALL,
        }
    }

    /// Bytes are copied from now on: a run begins, or pages cannot be moved.
    pub(crate) fn copy(&mut self) {
        self.transfer = Transfer::Copying(0);
        self.coalescer = Coalescer::new(&coalesce::OUTPUT);
    }

    /// Whether pages are moved.
    pub(crate) fn moves(&self) -> bool {
        matches!(self.transfer, Transfer::Moving(_))
    }

    /// For how many bytes a read is to have room.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// For how long the pipe should be left alone, so that more gathers in it.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.coalescer.rest()
    }

    /// Whether a turn that has read so many bytes ends although more may be there. It does not end after a read that has
    /// emptied the pipe.
    pub(crate) fn is_budget_spent(&self, brought: u64, emptied: bool) -> bool {
        brought >= BUDGET && !emptied
    }

    /// A read has brought `read` bytes and has `emptied` the pipe or not. Returns whether the pipes should be enlarged,
    /// if the sink is a pipe; [`TransferPolicy::enlarged`] then takes the result. `movable`: the bytes need not pass
    /// through kapo's memory.
    pub(crate) fn read(&mut self, read: usize, emptied: bool, movable: bool) -> bool {
        if !emptied {
            self.room = LARGE;
        }
        let large = match self.transfer {
            Transfer::Copying(large) if read >= LARGE_READ => large.saturating_add(1),
            // The buffer was too small to tell.
            Transfer::Copying(large) if !emptied => large,
            _ => 0,
        };
        self.transfer = Transfer::Copying(large);
        if movable { large >= IN_A_ROW && emptied || large >= IN_ANY_CASE } else { large == IN_A_ROW }
    }

    /// The pipes were enlarged, or the kernel has refused that. Pages are moved if they are `movable`.
    pub(crate) fn enlarged(&mut self, granted: bool, movable: bool) {
        if movable {
            self.transfer = Transfer::Moving(0);
            // Pipes that hold little would be full before a rest is over.
            self.coalescer = Coalescer::new(if granted { &coalesce::PAGES } else { &coalesce::OUTPUT });
        }
    }

    /// A turn that began at `now` has ended. Returns whether buffers that a burst has enlarged should be given back.
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

    /// The buffer was given back: the next one is small.
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

    /// How many of these reads it takes until the pipes should be enlarged; `None`: a thousand are not enough.
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
    fn a_small_read_between_large_ones_begins_the_count_again() {
        let mut policy = TransferPolicy::new();
        for _ in 0..100 {
            assert!(!policy.read(LARGE_READ, true, true) && !policy.read(LARGE_READ, true, true));
            assert!(!policy.read(100, true, true));
        }
        // A read that has filled a small buffer tells nothing.
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
        assert!((0..1_000).all(|_| !policy.read(LARGE_READ, true, false)), "it asks once");
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
    fn output_gathers_for_longer_only_in_pipes_that_were_enlarged() {
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
    fn buffers_grow_when_one_was_filled_and_are_given_back_in_a_quiet_turn() {
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
    fn the_loop_gets_its_turn_while_the_pipe_is_not_empty() {
        let policy = TransferPolicy::new();
        assert!(policy.is_budget_spent(BUDGET, false));
        assert!(!policy.is_budget_spent(BUDGET, true) && !policy.is_budget_spent(BUDGET - 1, false));
    }
}
