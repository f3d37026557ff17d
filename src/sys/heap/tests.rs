use super::*;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Returns a part, filled with `fill`.
fn part(heap: &Heap, layout: Layout, fill: u8) -> *mut u8 {
    // SAFETY: no layout of these tests is empty.
    let part = unsafe { heap.alloc(layout) };
    assert!(!part.is_null() && part.addr().is_multiple_of(layout.align()));
    // SAFETY: the part has this length.
    unsafe { part.write_bytes(fill, layout.size()) };
    part
}

fn bytes<'a>(part: *mut u8, length: usize) -> &'a [u8] {
    // SAFETY: the tests pass only lengths that they have allocated and filled.
    unsafe { std::slice::from_raw_parts(part, length) }
}

fn chunks(heap: &Heap) -> usize {
    heap.with(|first| {
        let (mut number, mut chunk) = (0, *first);
        while !chunk.is_null() {
            number += 1;
            // SAFETY: the list has only chunks that are mapped.
            chunk = unsafe { (*chunk).next };
        }
        number
    })
}

#[test]
fn parts_are_aligned_and_do_not_overlap() {
    let heap = Heap::new();
    let all: Vec<_> = [(1, 1), (3, 2), (8, 8), (5, 1), (16, 16), (7, 4)]
        .into_iter()
        .zip(1..)
        .map(|((size, align), fill)| (part(&heap, layout(size, align), fill), size, fill))
        .collect();
    for (part, size, fill) in all {
        assert!(heap.arena.owns(part));
        assert_eq!(bytes(part, size), vec![fill; size]);
    }
}

#[test]
fn the_last_part_can_be_grown_and_shrunk_in_place() {
    let heap = Heap::new();
    let first = part(&heap, layout(100, 8), 1);
    let last = part(&heap, layout(40, 8), 2);
    // SAFETY: each part is passed with its own layout, and is not used after it is freed.
    let grown = unsafe { heap.realloc(last, layout(40, 8), 4_000) };
    // SAFETY: as above.
    let shrunk = unsafe { heap.realloc(grown, layout(4_000, 8), 60) };
    assert_eq!((grown, shrunk), (last, last));
    // SAFETY: as above.
    unsafe { heap.dealloc(last, layout(60, 8)) };
    assert_eq!(part(&heap, layout(8, 8), 3), last);
    assert_eq!(bytes(first, 100), [1; 100]);
}

#[test]
fn a_part_in_the_middle_moves_when_it_grows_and_its_gap_is_used_again() {
    let heap = Heap::new();
    let middle = part(&heap, layout(100, 8), 1);
    let last = part(&heap, layout(40, 8), 2);
    // SAFETY: as above.
    let grown = unsafe { heap.realloc(middle, layout(100, 8), 200) };
    assert_ne!(grown, middle);
    assert_eq!((bytes(grown, 100), bytes(last, 40)), (&[1; 100][..], &[2; 40][..]));
    assert_eq!(part(&heap, layout(112, 8), 3), middle);
    assert_eq!(part(&heap, layout(1, 8), 4).addr(), grown.addr() + 208);
}

/// One part that a test holds: where, its length and its content.
type Held = (*mut u8, usize, u8);

/// Allocates, grows, shrinks and frees parts of all sizes in a random order, and checks that none is overwritten.
fn use_at_random(heap: &Heap, mut seed: u32, steps: usize, most: usize) {
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..steps {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, fill, kind, _] = seed.to_le_bytes();
        // Small sizes are the most frequent.
        let size = (seed as usize >> 8) % (1 << (4 + kind % 14)) + 1;
        let place = seed as usize >> 8;
        if held.len() > most {
            let (old, before, content) = held.swap_remove(place % held.len());
            assert_eq!(bytes(old, before), vec![content; before]);
            if kind % 3 == 0 {
                // SAFETY: the part has this layout, and only the result is used.
                let new = unsafe { heap.realloc(old, layout(before, 8), size) };
                let kept = before.min(size);
                assert_eq!(bytes(new, kept), vec![content; kept]);
                // SAFETY: the part has this length.
                unsafe { new.write_bytes(content, size) };
                held.push((new, size, content));
            } else {
                // SAFETY: the part has this layout and is not used any more.
                unsafe { heap.dealloc(old, layout(before, 8)) };
            }
            if kind == 0 {
                heap.release_unused();
            }
        }
        if kind % 7 == 0 {
            // SAFETY: the layout is not empty.
            let part = unsafe { heap.alloc_zeroed(layout(size, 8)) };
            assert_eq!(bytes(part, size), vec![0; size]);
            held.push((part, size, 0));
        } else {
            held.push((part(heap, layout(size, 8), fill), size, fill));
        }
    }
    for (old, size, fill) in held {
        assert_eq!(bytes(old, size), vec![fill; size]);
        // SAFETY: as above.
        unsafe { heap.dealloc(old, layout(size, 8)) };
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri knows neither madvise(2) nor the unmapping of a part of a mapping")]
fn threads_use_the_heap_at_random_and_leave_nothing() {
    let heap = Heap::new();
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let heap = &heap;
            scope.spawn(move || use_at_random(heap, seed, 20_000, 300));
        }
    });
    assert!(heap.arena.is_empty());
    // Only the first chunk is kept.
    assert_eq!(chunks(&heap), 1);
    heap.release_unused();
    assert_eq!(chunks(&heap), 0);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know the unmapping of a part of a mapping")]
fn small_parts_fill_chunk_after_chunk() {
    let heap = Heap::new();
    let parts: Vec<_> = (0..100_000_usize)
        .map(|number| (part(&heap, layout(40, 8), number.to_le_bytes()[0]), number.to_le_bytes()[0]))
        .collect();
    // 48 bytes each, and the first 64 KiB are in the program.
    assert_eq!(chunks(&heap), (100_000_usize * 48).div_ceil(SIZE / 48 * 48) - 1);
    for (part, fill) in parts {
        assert_eq!(bytes(part, 40), [fill; 40]);
        // SAFETY: as above.
        unsafe { heap.dealloc(part, layout(40, 8)) };
    }
    assert_eq!(chunks(&heap), 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know mremap(2)")]
fn what_does_not_fit_into_the_arena_is_mapped() {
    let heap = Heap::new();
    let most = part(&heap, layout(SIZE - 16, 1), 1);
    for (size, align) in [(17, 1), (100_000, 8), (1, 64), (5_000, 4_096)] {
        let foreign = part(&heap, layout(size, align), 2);
        assert!(!heap.arena.owns(foreign));
        // SAFETY: as above.
        let foreign = unsafe { heap.realloc(foreign, layout(size, align), 2 * size) };
        assert_eq!(bytes(foreign, size), vec![2; size]);
        // SAFETY: as above.
        unsafe { heap.dealloc(foreign, layout(2 * size, align)) };
    }
    // SAFETY: as above.
    let moved = unsafe { heap.realloc(most, layout(SIZE - 16, 1), SIZE + 1) };
    assert_eq!((heap.arena.owns(moved), bytes(moved, SIZE - 16)), (false, &[1; SIZE - 16][..]));
    // SAFETY: as above.
    let back = unsafe { heap.realloc(moved, layout(SIZE + 1, 1), 100) };
    assert_eq!((heap.arena.owns(back), bytes(back, 100)), (true, &[1; 100][..]));
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not know the unmapping of a part of a mapping")]
fn what_cannot_be_mapped_is_null() {
    let heap = Heap::new();
    let huge = layout(1 << 60, 8);
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(huge) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { heap.alloc(layout(8, 1 << 20)) }.is_null());
    let part = part(&heap, layout(10, 1), 7);
    // SAFETY: as above. The part stays as it is.
    assert!(unsafe { heap.realloc(part, layout(10, 1), 1 << 60) }.is_null());
    assert_eq!(bytes(part, 10), [7; 10]);
}
