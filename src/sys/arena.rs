//! The global allocator: an arena in the program's own pages, for small allocations and for what a request needs.
//!
//! libc's allocator asks the kernel for the first page of each size class and returns it as soon as it is free: a third
//! of all system calls of a start, and up to 25 page faults of a scrape. The arena is one array that the kernel has
//! mapped with the program, and its pages cost nothing until they are touched. Allocations that do not fit into it are
//! made by libc.
//!
//! An allocation takes the first gap that is large enough. Memory that lives long therefore lies at the front, and the
//! pages behind it are returned to the kernel when kapo goes to sleep ([`release_unused`]).
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Enough for a scrape, whose buffers need most. An idle instance touches the first three or four pages.
const SIZE: usize = 64 * 1024;
/// The unit of allocation, and the largest alignment; libc makes allocations with a larger one.
const GRANULE: usize = 16;
const GRANULES: usize = SIZE / GRANULE;

#[repr(align(16))]
struct Space(UnsafeCell<[MaybeUninit<u8>; SIZE]>);

/// Which granules are taken.
#[derive(Debug)]
struct Map {
    /// One bit for each granule.
    taken: [u64; GRANULES / 64],
    /// All granules from this one on have not been touched since their pages were returned.
    peak: usize,
}

impl Map {
    /// Returns the first granule at or behind `from` that is free or taken; the number of granules if there is none.
    fn next(&self, from: usize, taken: bool) -> usize {
        let flip = if taken { 0 } else { u64::MAX };
        let mut mask = u64::MAX << (from % 64);
        for (place, word) in self.taken.iter().enumerate().skip(from / 64) {
            let found = (word ^ flip) & mask;
            if found != 0 {
                return place * 64 + found.trailing_zeros() as usize;
            }
            mask = u64::MAX;
        }
        GRANULES
    }

    /// Marks the granules as taken, or as free.
    fn mark(&mut self, start: usize, end: usize, taken: bool) {
        for (place, word) in self.taken.iter_mut().enumerate().take(end.div_ceil(64)).skip(start / 64) {
            let first = start.saturating_sub(place * 64);
            let behind = (end - place * 64).min(64);
            let mask = (u64::MAX << first) & (u64::MAX >> (64 - behind));
            *word = if taken { *word | mask } else { *word & !mask };
        }
        if taken {
            self.peak = self.peak.max(end);
        }
    }

    /// Takes the first gap of `length` granules and returns its start.
    fn take(&mut self, length: usize) -> Option<usize> {
        let mut start = self.next(0, false);
        while start + length <= GRANULES {
            let end = self.next(start, true);
            if end - start >= length {
                self.mark(start, start + length, true);
                return Some(start);
            }
            start = self.next(end, false);
        }
        None
    }

    /// Takes the granules from `start` to `end` if all of them are free.
    fn extend(&mut self, start: usize, end: usize) -> bool {
        let fits = end <= GRANULES && self.next(start, true) >= end;
        if fits {
            self.mark(start, end, true);
        }
        fits
    }
}

/// The arena.
// With `repr(C)` the map comes first. Behind the space it would take a page of its own.
#[repr(C)]
struct Arena {
    locked: AtomicBool,
    map: UnsafeCell<Map>,
    space: Space,
}

// SAFETY: `map` is used only under the lock. Each byte of `space` belongs to the caller that took it; the arena itself
// reads and writes only bytes that its caller owns.
unsafe impl Sync for Arena {}

impl Arena {
    /// Returns an empty arena.
    const fn new() -> Arena {
        Arena {
            space: Space(UnsafeCell::new([MaybeUninit::uninit(); SIZE])),
            locked: AtomicBool::new(false),
            map: UnsafeCell::new(Map { taken: [0; GRANULES / 64], peak: 0 }),
        }
    }

    /// Calls `action` under the lock, which is held for less than a microsecond.
    fn with<T>(&self, action: impl FnOnce(&mut Map) -> T) -> T {
        while self.locked.swap(true, Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: only the holder of the lock has a reference, and `action` cannot allocate.
        let result = action(unsafe { &mut *self.map.get() });
        self.locked.store(false, Release);
        result
    }

    fn base(&self) -> *mut u8 {
        self.space.0.get().cast()
    }

    /// Takes memory for `layout`. Returns null if there is no room.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRANULE || layout.size() > SIZE {
            return null_mut();
        }
        match self.with(|map| map.take(granules(layout.size()))) {
            // SAFETY: start is within the space.
            Some(start) => unsafe { self.base().add(start * GRANULE) },
            None => null_mut(),
        }
    }

    /// Returns the first granule of `part`; `None` if libc has allocated it.
    fn place(&self, part: *mut u8) -> Option<usize> {
        let offset = part.addr().checked_sub(self.base().addr())?;
        (offset < SIZE).then_some(offset / GRANULE)
    }

    /// Returns the pages behind the last part to the kernel. They read as zeros when they are touched again.
    fn release_unused(&self) {
        self.with(|map| {
            let last = map.taken.iter().rposition(|word| *word != 0);
            let end = last.map_or(0, |place| (place + 1) * 64) * GRANULE;
            let base = self.base().addr();
            let page = super::stack::page_size();
            let start = (base + end).next_multiple_of(page);
            // The kernel returns whole pages, and the last one may hold other variables, too.
            let behind = (base + map.peak * GRANULE).next_multiple_of(page).min((base + SIZE) / page * page);
            let length = behind.saturating_sub(start);
            if length > 0 {
                map.peak = (start - base) / GRANULE;
                let start = self.base().with_addr(start);
                // SAFETY: no part lies behind `end`, and none can be taken, because the lock is held.
                unsafe { libc::madvise(start.cast(), length, libc::MADV_DONTNEED) };
            }
        });
    }
}

fn granules(length: usize) -> usize {
    length.div_ceil(GRANULE)
}

// SAFETY: parts do not overlap, because each is made of granules that were free. They have the requested size and
// alignment and do not move. Memory from libc is returned to libc.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let part = self.take(layout);
        if !part.is_null() {
            return part;
        }
        // SAFETY: the caller guarantees what the callee requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let part = self.take(layout);
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
            Some(start) => self.with(|map| map.mark(start, start + granules(layout.size()), false)),
            // SAFETY: it is not from the arena, so libc has allocated it with this layout.
            None => unsafe { System.dealloc(part, layout) },
        }
    }

    unsafe fn realloc(&self, part: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        let Some(start) = self.place(part) else {
            // SAFETY: libc has allocated it with this layout.
            return unsafe { System.realloc(part, layout, length) };
        };
        let (before, after) = (start + granules(layout.size()), start + granules(length));
        if after <= before {
            self.with(|map| map.mark(after, before, false));
            return part;
        }
        if self.with(|map| map.extend(before, after)) {
            return part;
        }
        // SAFETY: the caller guarantees that a layout of this size is valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(length, layout.align()) };
        // SAFETY: its size is not zero, because it is larger than before.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are at least this long, and a new part overlaps no other.
            unsafe { part.copy_to_nonoverlapping(new, layout.size()) };
            // SAFETY: the part has this layout, and the caller no longer uses it.
            unsafe { self.dealloc(part, layout) };
        }
        new
    }
}

static ARENA: Arena = Arena::new();

/// Returns the unused pages of the arena to the kernel.
pub(crate) fn release_unused() {
    ARENA.release_unused();
}

/// The allocator that uses the arena, for `#[global_allocator]`.
#[derive(Debug)]
pub struct Memory;

// SAFETY: the arena is an allocator.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees what the callee requires, here and below.
        unsafe { ARENA.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { ARENA.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, part: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { ARENA.dealloc(part, layout) }
    }

    unsafe fn realloc(&self, part: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { ARENA.realloc(part, layout, length) }
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
    fn the_last_part_can_be_grown_and_shrunk_in_place() {
        let arena = Arena::new();
        let first = part(&arena, layout(100, 8), 1);
        let last = part(&arena, layout(40, 8), 2);
        // SAFETY: each part is passed with its own layout, and is not used after it is freed.
        let grown = unsafe { arena.realloc(last, layout(40, 8), 4_000) };
        // SAFETY: as above.
        let shrunk = unsafe { arena.realloc(grown, layout(4_000, 8), 60) };
        assert_eq!((grown, shrunk), (last, last));
        // SAFETY: as above.
        unsafe { arena.dealloc(last, layout(60, 8)) };
        assert_eq!(part(&arena, layout(8, 8), 3), last);
        assert_eq!(bytes(first, 100), [1; 100]);
    }

    #[test]
    fn a_part_in_the_middle_moves_when_it_grows_and_its_gap_is_used_again() {
        let arena = Arena::new();
        let middle = part(&arena, layout(100, 8), 1);
        let last = part(&arena, layout(40, 8), 2);
        // SAFETY: as above.
        let grown = unsafe { arena.realloc(middle, layout(100, 8), 200) };
        assert_ne!(grown, middle);
        assert_eq!((bytes(grown, 100), bytes(last, 40)), (&[1; 100][..], &[2; 40][..]));
        assert_eq!(part(&arena, layout(112, 8), 3), middle);
        assert_eq!(part(&arena, layout(1, 8), 4).addr(), grown.addr() + 208);
    }

    #[test]
    fn parts_of_all_sizes_are_found_in_any_order_of_freeing() {
        let arena = Arena::new();
        let mut parts: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut seed = 1_u32;
        for _ in 0..500 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (size, place, fill) =
                ((seed >> 20) as usize + 1, (seed >> 8) as usize, seed.to_le_bytes()[2]);
            if parts.len() > 20 {
                let (old, size, fill) = parts.swap_remove(place % parts.len());
                assert_eq!(bytes(old, size), vec![fill; size]);
                // SAFETY: as above.
                unsafe { arena.dealloc(old, layout(size, 8)) };
                // Miri knows no madvise(2).
                if !cfg!(miri) {
                    arena.release_unused();
                }
            }
            parts.push((part(&arena, layout(size, 8), fill), size, fill));
        }
        for (old, size, fill) in parts {
            assert_eq!(bytes(old, size), vec![fill; size]);
            // SAFETY: as above.
            unsafe { arena.dealloc(old, layout(size, 8)) };
        }
        assert!(arena.with(|map| map.taken.iter().all(|word| *word == 0)));
    }

    #[test]
    fn what_does_not_fit_is_allocated_and_freed_by_libc() {
        let arena = Arena::new();
        let most = part(&arena, layout(SIZE - 16, 1), 1);
        for (size, align) in [(17, 1), (100_000, 8), (1, 64)] {
            let foreign = part(&arena, layout(size, align), 2);
            assert_eq!(arena.place(foreign), None);
            // SAFETY: as above.
            let foreign = unsafe { arena.realloc(foreign, layout(size, align), 2 * size) };
            assert_eq!(bytes(foreign, size), vec![2; size]);
            // SAFETY: as above.
            unsafe { arena.dealloc(foreign, layout(2 * size, align)) };
        }
        // SAFETY: as above.
        let moved = unsafe { arena.realloc(most, layout(SIZE - 16, 1), SIZE + 1) };
        assert_eq!((arena.place(moved), bytes(moved, SIZE - 16)), (None, &[1; SIZE - 16][..]));
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
