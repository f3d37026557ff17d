//! The global allocator: an arena in the program's own pages for the allocations of the start.
//!
//! The allocations of a start are small, and most of them are never freed. libc's allocator asks the kernel for the
//! first page of each size class and returns it as soon as it is free, which is a third of all system calls of a
//! start. The arena is one array that the kernel has mapped with the program, and its pages cost nothing until they
//! are touched. Allocations that do not fit into it are made by libc.
//!
//! Memory is taken from the front to the back. Only the last allocation can be freed, which is the most frequent case
//! during a start.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// Enough for an idle instance with an ordinary environment. With the other static variables it fills at most four pages.
const SIZE: usize = 12 * 1024;
/// Allocations with a larger alignment are made by libc.
const ALIGNMENT: usize = 16;

#[repr(align(16))]
struct Space(UnsafeCell<[MaybeUninit<u8>; SIZE]>);

/// The arena, to be used as `#[global_allocator]`.
// With `repr(C)` the counter comes first. Behind the space it would take a page of its own.
#[repr(C)]
pub struct Arena {
    /// Number of used bytes. AcqRel, because a thread that takes memory which another thread has freed must see that
    /// thread's writes.
    used: AtomicUsize,
    space: Space,
}

// SAFETY: each byte of `space` belongs to the caller that took it by moving `used`, which is atomic; the arena itself
// reads and writes only bytes that its caller owns.
unsafe impl Sync for Arena {}

impl Arena {
    /// Returns an empty arena.
    pub const fn new() -> Arena {
        Arena { space: Space(UnsafeCell::new([MaybeUninit::uninit(); SIZE])), used: AtomicUsize::new(0) }
    }

    /// Takes `length` bytes. Returns null if there is no room.
    fn take(&self, length: usize, alignment: usize) -> *mut u8 {
        let part = |used: usize| {
            let start = used.checked_next_multiple_of(alignment)?;
            let end = start.checked_add(length)?;
            (alignment <= ALIGNMENT && end <= SIZE).then_some((start, end))
        };
        let moved = self.used.fetch_update(AcqRel, Acquire, |used| part(used).map(|(_, end)| end));
        match moved.ok().and_then(part) {
            // SAFETY: start is within the space.
            Some((start, _)) => unsafe { self.space.0.get().cast::<u8>().add(start) },
            None => null_mut(),
        }
    }

    /// Returns the offset of `part` in the arena; `None` if libc has allocated it.
    fn place(&self, part: *mut u8) -> Option<usize> {
        part.addr().checked_sub(self.space.0.get().addr()).filter(|start| *start < SIZE)
    }

    /// Moves the end of the last allocation. Returns false if `from` is not that end, or `to` is beyond the arena.
    fn move_end(&self, from: usize, to: usize) -> bool {
        to <= SIZE && self.used.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

// SAFETY: parts do not overlap, because each begins where all memory taken before it ends. They have the requested
// size and alignment and do not move. Memory from libc is returned to libc.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let part = self.take(layout.size(), layout.align());
        if !part.is_null() {
            return part;
        }
        // SAFETY: the caller guarantees what the callee requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let part = self.take(layout.size(), layout.align());
        if part.is_null() {
            // SAFETY: the caller guarantees what the callee requires.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // The memory may have been used before.
        // SAFETY: the part has this length and belongs to this caller alone.
        unsafe { part.write_bytes(0, layout.size()) };
        part
    }

    unsafe fn dealloc(&self, part: *mut u8, layout: Layout) {
        match self.place(part) {
            Some(start) => {
                self.move_end(start + layout.size(), start);
            }
            // SAFETY: it is not from the arena, so libc has allocated it with this layout.
            None => unsafe { System.dealloc(part, layout) },
        }
    }

    unsafe fn realloc(&self, part: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        let Some(start) = self.place(part) else {
            // SAFETY: libc has allocated it with this layout.
            return unsafe { System.realloc(part, layout, length) };
        };
        let grown = start.checked_add(length).is_some_and(|end| self.move_end(start + layout.size(), end));
        if grown || length <= layout.size() {
            return part;
        }
        // SAFETY: the caller guarantees that a layout of this size is valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(length, layout.align()) };
        // SAFETY: its size is not zero, because it is larger than before.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // The old part cannot be freed, because it is not the last one.
            // SAFETY: both are at least this long, and a new part overlaps no other.
            unsafe { part.copy_to_nonoverlapping(new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Returns a part of the arena, filled with `fill`.
    fn part(arena: &Arena, layout: Layout, fill: u8) -> *mut u8 {
        // SAFETY: no layout of these tests is empty.
        let part = unsafe { arena.alloc(layout) };
        assert!(!part.is_null() && part.addr().is_multiple_of(layout.align()));
        // SAFETY: the part has this length.
        unsafe { part.write_bytes(fill, layout.size()) };
        part
    }

    fn bytes<'a>(part: *mut u8, length: usize) -> &'a [u8] {
        // SAFETY: the tests pass only lengths that they have allocated and filled.
        unsafe { std::slice::from_raw_parts(part, length) }
    }

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let arena = Arena::new();
        let all: Vec<_> = [(1, 1), (3, 2), (8, 8), (5, 1), (16, 16), (7, 4)]
            .into_iter()
            .zip(1..)
            .map(|((size, align), fill)| (part(&arena, layout(size, align), fill), size, fill))
            .collect();
        for (part, size, fill) in all {
            assert!(arena.place(part).is_some());
            assert_eq!(bytes(part, size), vec![fill; size]);
        }
    }

    #[test]
    fn the_last_part_can_be_freed_grown_and_shrunk() {
        let arena = Arena::new();
        let first = part(&arena, layout(100, 8), 1);
        let last = part(&arena, layout(40, 8), 2);
        // SAFETY: each part is passed with its own layout, and is not used after it is freed.
        let grown = unsafe { arena.realloc(last, layout(40, 8), 4_000) };
        // SAFETY: as above.
        let shrunk = unsafe { arena.realloc(grown, layout(4_000, 8), 60) };
        assert_eq!((grown, shrunk), (last, last));
        let used = arena.used.load(Acquire);
        assert_eq!(arena.place(last).unwrap() + 60, used);
        // SAFETY: as above.
        unsafe { arena.dealloc(last, layout(60, 8)) };
        assert_eq!(part(&arena, layout(8, 8), 3), last);
        assert_eq!(bytes(first, 100), [1; 100]);
    }

    #[test]
    fn a_part_in_the_middle_moves_only_when_it_grows() {
        let arena = Arena::new();
        let middle = part(&arena, layout(100, 8), 1);
        let last = part(&arena, layout(40, 8), 2);
        // SAFETY: as above.
        let shrunk = unsafe { arena.realloc(middle, layout(100, 8), 50) };
        assert_eq!(shrunk, middle);
        // SAFETY: as above.
        let grown = unsafe { arena.realloc(middle, layout(50, 8), 200) };
        assert_ne!(grown, middle);
        assert_eq!(bytes(grown, 50), [1; 50]);
        assert_eq!(bytes(last, 40), [2; 40]);
    }

    #[test]
    fn what_does_not_fit_is_allocated_and_freed_by_libc() {
        let arena = Arena::new();
        let most = part(&arena, layout(SIZE - 10, 1), 1);
        for (size, align) in [(11, 1), (100_000, 8), (1, 64)] {
            let foreign = part(&arena, layout(size, align), 2);
            assert_eq!(arena.place(foreign), None);
            // SAFETY: as above.
            let foreign = unsafe { arena.realloc(foreign, layout(size, align), 2 * size) };
            assert_eq!(bytes(foreign, size), vec![2; size]);
            // SAFETY: as above.
            unsafe { arena.dealloc(foreign, layout(2 * size, align)) };
        }
        // SAFETY: as above.
        let moved = unsafe { arena.realloc(most, layout(SIZE - 10, 1), SIZE + 1) };
        assert_eq!((arena.place(moved), bytes(moved, SIZE - 10)), (None, &[1; SIZE - 10][..]));
        // SAFETY: as above.
        unsafe { arena.dealloc(moved, layout(SIZE + 1, 1)) };
    }

    #[test]
    fn zeroed_memory_is_zero_although_it_was_used_before() {
        let arena = Arena::new();
        for size in [64, SIZE + 1] {
            let used = part(&arena, layout(size, 8), 0xff);
            // SAFETY: as above.
            unsafe { arena.dealloc(used, layout(size, 8)) };
            // SAFETY: as above.
            let zeroed = unsafe { arena.alloc_zeroed(layout(size, 8)) };
            assert_eq!(bytes(zeroed, size), vec![0; size]);
            // SAFETY: as above.
            unsafe { arena.dealloc(zeroed, layout(size, 8)) };
        }
    }
}
