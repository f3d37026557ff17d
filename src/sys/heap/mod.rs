//! The global allocator. Memory is taken from the arena in the program's own pages; if it has no room, from further
//! arenas, which are mapped one at a time; and large parts are mapped each for itself.
//!
//! musl's allocator asks the kernel for the first page of each size class and returns it as soon as it is free: a third
//! of all system calls of a start, and up to 25 page faults of a scrape. It also takes 9 KB of the program. The arena is
//! an array that the kernel has mapped with the program, and its pages cost nothing until they are touched.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::arena::{Arena, GRANULE, SIZE};
use super::stack::page_size;

/// Larger parts than this get a mapping of their own if the first arena has no room.
const LARGEST: usize = SIZE / 4;
/// The address of a chunk is a multiple of this, so that the chunk of a part can be computed.
const ALIGNMENT: usize = 128 * 1024;

/// A further arena. A mapping that is all zeros is an empty one.
#[repr(C)]
struct FurtherArena {
    next: *mut FurtherArena,
    arena: Arena,
}

/// The heap.
// With `repr(C)` the arena comes last. Variables behind it would touch a page of their own.
#[repr(C)]
struct Heap {
    /// Protects the list of chunks and each of them.
    locked: AtomicBool,
    chunks: UnsafeCell<*mut FurtherArena>,
    arena: Arena,
}

// SAFETY: `chunks` and what it leads to is used only under the lock, and the arena has a lock of its own.
unsafe impl Sync for Heap {}

/// Whether a part that is not in the first arena has a mapping of its own.
fn is_mapped(layout: Layout) -> bool {
    layout.size() > LARGEST || layout.align() > GRANULE
}

/// Maps memory, which is all zeros. Returns null if there is none. The kernel rounds `length` up to whole pages.
fn map(length: usize) -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping overlaps nothing.
    let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
    if start == libc::MAP_FAILED { null_mut() } else { start.cast() }
}

/// Returns mapped memory to the kernel.
///
/// # Safety
/// `start` was returned by [`map`] or is a page of such a mapping, and nothing uses the `length` bytes.
unsafe fn unmap(start: *mut u8, length: usize) {
    if length > 0 {
        // SAFETY: guaranteed by the caller.
        unsafe { libc::munmap(start.cast(), length) };
    }
}

/// Maps a chunk. Returns null if there is no memory.
fn map_chunk() -> *mut FurtherArena {
    let whole = map(2 * ALIGNMENT);
    if whole.is_null() {
        return null_mut();
    }
    let first = whole.expose_provenance();
    let start = first.next_multiple_of(ALIGNMENT);
    let end = (start + size_of::<FurtherArena>()).next_multiple_of(page_size());
    // SAFETY: the parts of the mapping before and behind the chunk are not used.
    unsafe { unmap(whole, start - first) };
    // SAFETY: as above.
    unsafe { unmap(whole.with_addr(end), first + 2 * ALIGNMENT - end) };
    with_exposed_provenance_mut(start)
}

/// Returns the chunk to which a part belongs.
fn chunk_of(part: *mut u8) -> *mut FurtherArena {
    with_exposed_provenance_mut(part.addr() / ALIGNMENT * ALIGNMENT)
}

impl Heap {
    const fn new() -> Heap {
        Heap { arena: Arena::new(), locked: AtomicBool::new(false), chunks: UnsafeCell::new(null_mut()) }
    }

    /// Calls `action` with the first chunk under the lock.
    fn with<T>(&self, action: impl FnOnce(&mut *mut FurtherArena) -> T) -> T {
        while self.locked.swap(true, Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: only the holder of the lock has a reference, and `action` does not allocate.
        let result = action(unsafe { &mut *self.chunks.get() });
        self.locked.store(false, Release);
        result
    }

    /// Takes a part of a chunk. Returns null if there is no memory.
    fn take_from_chunk(&self, layout: Layout) -> *mut u8 {
        self.with(|first| {
            let mut chunk = *first;
            while !chunk.is_null() {
                // SAFETY: the list has only chunks that are mapped.
                let FurtherArena { arena, next } = unsafe { &*chunk };
                let part = arena.take(layout);
                if !part.is_null() {
                    return part;
                }
                chunk = *next;
            }
            let new = map_chunk();
            if new.is_null() {
                return null_mut();
            }
            // SAFETY: the chunk is mapped, and nothing else knows it yet.
            unsafe { (*new).next = *first };
            *first = new;
            // SAFETY: as above.
            unsafe { &*new }.arena.take(layout)
        })
    }

    /// Frees a part of a chunk. A chunk that is empty is unmapped, but for the first one of the list, which is likely to
    /// be used again soon.
    ///
    /// # Safety
    /// `part` was taken from a chunk of this heap with this length, and nothing uses it any more.
    unsafe fn free_in_chunk(&self, part: *mut u8, length: usize) {
        let chunk = chunk_of(part);
        self.with(|first| {
            // SAFETY: a chunk that has a part is mapped.
            let arena = unsafe { &(*chunk).arena };
            arena.free(part, length);
            if *first == chunk || !arena.is_empty() {
                return;
            }
            let mut place = first;
            while *place != chunk {
                // SAFETY: all chunks before this one are mapped, and this one is in the list.
                place = unsafe { &mut (**place).next };
            }
            // SAFETY: the chunk is mapped.
            *place = unsafe { (*chunk).next };
            // SAFETY: the chunk is empty and no longer in the list.
            unsafe { unmap(chunk.cast(), size_of::<FurtherArena>()) };
        });
    }

    /// Returns unused memory to the kernel: the end of the first arena, and the chunk that is kept although it is
    /// empty.
    fn release_unused(&self) {
        self.arena.release_unused();
        self.with(|first| {
            let chunk = *first;
            // SAFETY: the list has only chunks that are mapped.
            if !chunk.is_null() && unsafe { &*chunk }.arena.is_empty() {
                // SAFETY: as above.
                *first = unsafe { (*chunk).next };
                // SAFETY: the chunk is empty and no longer in the list.
                unsafe { unmap(chunk.cast(), size_of::<FurtherArena>()) };
            }
        });
    }
}

// SAFETY: parts do not overlap, because each is made of free granules of one arena or is a mapping of its own. They have
// the requested size and alignment: a granule's, or a page's. Where a part comes from follows from its address and
// layout, so it is returned to the same place.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let part = self.arena.take(layout);
        if !part.is_null() {
            return part;
        }
        match is_mapped(layout) {
            true if layout.align() > page_size() => null_mut(),
            true => map(layout.size()),
            false => self.take_from_chunk(layout),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees what the callee requires.
        let part = unsafe { self.alloc(layout) };
        // A mapping is all zeros. Other memory may have been used before.
        if !part.is_null() && (self.arena.owns(part) || !is_mapped(layout)) {
            // SAFETY: the part has this length and belongs to this caller alone.
            unsafe { part.write_bytes(0, layout.size()) };
        }
        part
    }

    unsafe fn dealloc(&self, part: *mut u8, layout: Layout) {
        if self.arena.owns(part) {
            self.arena.free(part, layout.size());
        } else if is_mapped(layout) {
            // SAFETY: the part is a mapping, and the caller no longer uses it.
            unsafe { unmap(part, layout.size()) };
        } else {
            // SAFETY: the part belongs to a chunk, and the caller no longer uses it.
            unsafe { self.free_in_chunk(part, layout.size()) };
        }
    }

    unsafe fn realloc(&self, part: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that a layout of this size is valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(length, layout.align()) };
        let resized = if self.arena.owns(part) {
            self.arena.resize(part, layout.size(), length)
        } else if !is_mapped(layout) {
            let resize = |_: &mut _| {
                // SAFETY: a chunk that has a part is mapped.
                let arena = unsafe { &(*chunk_of(part)).arena };
                arena.resize(part, layout.size(), length)
            };
            !is_mapped(wanted) && self.with(resize)
        } else if is_mapped(wanted) {
            // SAFETY: the part is a mapping of this length, and the caller uses only the result.
            let moved = unsafe { libc::mremap(part.cast(), layout.size(), length, libc::MREMAP_MAYMOVE) };
            return if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() };
        } else {
            false
        };
        if resized {
            return part;
        }
        // SAFETY: its size is not zero, which the caller guarantees.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are at least this long, and a new part overlaps no other.
            unsafe { part.copy_to_nonoverlapping(new, layout.size().min(length)) };
            // SAFETY: the part has this layout, and the caller no longer uses it.
            unsafe { self.dealloc(part, layout) };
        }
        new
    }
}

static HEAP: Heap = Heap::new();

/// Returns unused memory to the kernel.
pub(crate) fn release_unused() {
    HEAP.release_unused();
}

/// The allocator, for `#[global_allocator]`.
#[derive(Debug)]
pub struct Memory;

// SAFETY: the heap is an allocator.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees what the callee requires, here and below.
        unsafe { HEAP.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { HEAP.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, part: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { HEAP.dealloc(part, layout) }
    }

    unsafe fn realloc(&self, part: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { HEAP.realloc(part, layout, length) }
    }
}

/// malloc(3) and its relatives, for the functions of musl that allocate, such as getaddrinfo(3). The granule before a
/// part has its length.
#[cfg(target_env = "musl")]
mod c {
    use std::alloc::{GlobalAlloc, Layout};
    use std::ffi::c_void;
    use std::ptr::null_mut;

    use super::{GRANULE, HEAP};

    /// Returns the layout of a part of `length` bytes with its length before it.
    fn layout(length: usize) -> Option<Layout> {
        Layout::from_size_align(length.checked_add(GRANULE)?, GRANULE).ok()
    }

    /// Writes the length and returns the memory behind it.
    ///
    /// # Safety
    /// `part` is null, or has the layout.
    unsafe fn finish(part: *mut u8, layout: Layout) -> *mut c_void {
        if part.is_null() {
            return null_mut();
        }
        // SAFETY: the part is longer than a granule and aligned for its length.
        unsafe { part.cast::<usize>().write(layout.size() - GRANULE) };
        // SAFETY: as above.
        unsafe { part.add(GRANULE) }.cast()
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(length: usize) -> *mut c_void {
        let Some(layout) = layout(length) else { return null_mut() };
        // SAFETY: the layout is not empty.
        let part = unsafe { HEAP.alloc(layout) };
        // SAFETY: the part has this layout.
        unsafe { finish(part, layout) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn calloc(number: usize, length: usize) -> *mut c_void {
        let Some(layout) = number.checked_mul(length).and_then(layout) else { return null_mut() };
        // SAFETY: the layout is not empty.
        let part = unsafe { HEAP.alloc_zeroed(layout) };
        // SAFETY: the part has this layout.
        unsafe { finish(part, layout) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, length: usize) -> *mut c_void {
        if old.is_null() {
            return malloc(length);
        }
        // SAFETY: `old` is from these functions, so its length is before it.
        let part = unsafe { old.cast::<u8>().sub(GRANULE) };
        // SAFETY: as above.
        let before = layout(unsafe { part.cast::<usize>().read() });
        let (Some(before), Some(after)) = (before, layout(length)) else { return null_mut() };
        // SAFETY: the part has this layout, and the caller uses only the result.
        let part = unsafe { HEAP.realloc(part, before, after.size()) };
        // SAFETY: the part has the new layout.
        unsafe { finish(part, after) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(old: *mut c_void) {
        if old.is_null() {
            return;
        }
        // SAFETY: `old` is from these functions, so its length is before it.
        let part = unsafe { old.cast::<u8>().sub(GRANULE) };
        // SAFETY: as above.
        if let Some(layout) = layout(unsafe { part.cast::<usize>().read() }) {
            // SAFETY: the part has this layout, and the caller no longer uses it.
            unsafe { HEAP.dealloc(part, layout) };
        }
    }
}

#[cfg(test)]
mod tests;
