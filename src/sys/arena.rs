//! One arena of the heap: small allocations, and what a request needs.
//!
//! An allocation takes the first gap that is large enough. Memory that lives long therefore lies at the front, and the
//! pages behind it are returned to the kernel when kapo goes to sleep ([`Arena::release_unused`]).
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Enough for a scrape, whose buffers need most. An idle instance touches the first three or four pages.
pub(super) const SIZE: usize = 64 * 1024;
/// The unit of allocation, and the largest alignment.
pub(super) const GRANULE: usize = 16;
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
    /// All granules before this one are taken.
    first: usize,
    /// There is no gap of so many granules; 0: unknown. An arena that is full is then not searched each time.
    lacking: usize,
}

impl Map {
    /// Returns the first granule at or behind `from` that is free or taken; the number of granules if there is none.
    fn next(&self, from: usize, taken: bool) -> usize {
        let flip = if taken { 0 } else { u64::MAX };
        let mut mask = u64::MAX << (from % 64);
        let mut place = from / 64;
        while let Some(word) = self.taken.get(place) {
            let found = (word ^ flip) & mask;
            if found != 0 {
                return place * 64 + found.trailing_zeros() as usize;
            }
            mask = u64::MAX;
            place += 1;
        }
        GRANULES
    }

    /// Marks the granules as taken, or as free.
    fn mark(&mut self, start: usize, end: usize, taken: bool) {
        let mut from = start;
        while from < end {
            let place = from / 64;
            let Some(word) = self.taken.get_mut(place) else { break };
            let behind = (end - place * 64).min(64);
            let mask = (u64::MAX << (from % 64)) & (u64::MAX >> (64 - behind));
            *word = if taken { *word | mask } else { *word & !mask };
            from = (place + 1) * 64;
        }
        if taken {
            self.peak = self.peak.max(end);
        } else {
            self.first = self.first.min(start);
            self.lacking = 0;
        }
    }

    /// Takes the first gap of `length` granules and returns its start.
    fn take(&mut self, length: usize) -> Option<usize> {
        if self.lacking != 0 && length >= self.lacking {
            return None;
        }
        let mut start = self.next(self.first, false);
        self.first = start;
        while start + length <= GRANULES {
            let end = self.next(start, true);
            if end - start >= length {
                self.mark(start, start + length, true);
                return Some(start);
            }
            start = self.next(end, false);
        }
        self.lacking = length;
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
pub(super) struct Arena {
    locked: AtomicBool,
    map: UnsafeCell<Map>,
    space: Space,
}

// SAFETY: `map` is used only under the lock. Each byte of `space` belongs to the caller that took it; the arena itself
// reads and writes only bytes that its caller owns.
unsafe impl Sync for Arena {}

impl Arena {
    /// Returns an empty arena.
    pub(super) const fn new() -> Arena {
        Arena {
            space: Space(UnsafeCell::new([MaybeUninit::uninit(); SIZE])),
            locked: AtomicBool::new(false),
            map: UnsafeCell::new(Map { taken: [0; GRANULES / 64], peak: 0, first: 0, lacking: 0 }),
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
    pub(super) fn take(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRANULE || layout.size() > SIZE {
            return null_mut();
        }
        match self.with(|map| map.take(granules(layout.size()))) {
            // SAFETY: start is within the space.
            Some(start) => unsafe { self.base().add(start * GRANULE) },
            None => null_mut(),
        }
    }

    /// Whether `part` was taken from this arena.
    pub(super) fn owns(&self, part: *mut u8) -> bool {
        part.addr().wrapping_sub(self.base().addr()) < SIZE
    }

    /// Returns the first granule of a part of this arena.
    fn place(&self, part: *mut u8) -> usize {
        part.addr().wrapping_sub(self.base().addr()) / GRANULE
    }

    /// Frees a part of this arena.
    pub(super) fn free(&self, part: *mut u8, length: usize) {
        let start = self.place(part);
        self.with(|map| map.mark(start, start + granules(length), false));
    }

    /// Changes the length of a part of this arena without moving it. Returns false if there is no room.
    pub(super) fn resize(&self, part: *mut u8, from: usize, to: usize) -> bool {
        let start = self.place(part);
        let (before, after) = (start + granules(from), start + granules(to));
        self.with(|map| {
            if after < before {
                map.mark(after, before, false);
            }
            after <= before || map.extend(before, after)
        })
    }

    /// Whether nothing is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.with(|map| map.taken.iter().all(|word| *word == 0))
    }

    /// Returns the pages behind the last part to the kernel. They read as zeros when they are touched again.
    pub(super) fn release_unused(&self) {
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
