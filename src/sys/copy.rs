//! memcpy(3) and memmove(3) for musl on x86-64. Those of musl begin with `rep movs` even if the copy is short, which
//! costs up to ten times as much as the copy itself; most copies of kapo are shorter than 100 bytes. In assembly,
//! because a compiler would make a call of memcpy out of a loop that copies.
#![allow(unsafe_code)]

use std::arch::naked_asm;

/// memmove(3): copies `length` bytes and returns `to`. Loads all bytes of a block, and those of the last or first block,
/// before it stores anything over them.
///
/// # Safety
/// `from` is valid for reads of `length` bytes, and `to` for writes.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 50f",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 40f",
        // Forwards. The last block may overlap the one before it.
        "movups xmm1, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 16]",
        "cmp rdx, 1024",
        "jae 30f",
        // From rcx = 16 - length, the distance to the last block, in steps of 16 while it is negative.
        "lea rsi, [rsi + rdx - 16]",
        "mov ecx, 16",
        "sub rcx, rdx",
        "jz 31f",
        "20: movups xmm0, [rsi + rcx]",
        "movups [r8 + rcx], xmm0",
        "add rcx, 16",
        "js 20b",
        "jmp 31f",
        // A long copy in words.
        "30: mov rcx, rdx",
        "shr rcx, 3",
        "rep movsq",
        "31: movups [r8], xmm1",
        "ret",
        // Backwards, because the target begins within the source.
        "40: movups xmm1, [rsi]",
        "41: movups xmm0, [rsi + rdx - 16]",
        "movups [rdi + rdx - 16], xmm0",
        "sub rdx, 16",
        "cmp rdx, 16",
        "ja 41b",
        "movups [rdi], xmm1",
        "ret",
        // Fewer than 16 bytes: two words of 8 or 4 bytes that may overlap, or the first, middle and last byte.
        "50: cmp edx, 8",
        "jb 60f",
        "mov rcx, [rsi]",
        "mov rsi, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rsi",
        "ret",
        "60: cmp edx, 4",
        "jb 70f",
        "mov ecx, [rsi]",
        "mov esi, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], esi",
        "ret",
        "70: test edx, edx",
        "je 71f",
        "mov ecx, edx",
        "shr ecx",
        "movzx r8d, byte ptr [rsi]",
        "movzx r9d, byte ptr [rsi + rcx]",
        "movzx esi, byte ptr [rsi + rdx - 1]",
        "mov [rdi], r8b",
        "mov [rdi + rcx], r9b",
        "mov [rdi + rdx - 1], sil",
        "71: ret",
    )
}

/// memcpy(3), which may assume that nothing overlaps.
///
/// # Safety
/// As for [`memmove`].
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym memmove)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies within a copy of `before`, and checks the result and that nothing else has changed.
    fn check(before: &[u8], from: usize, to: usize, length: usize) {
        let (mut memory, mut wanted) = (before.to_vec(), before.to_vec());
        wanted.copy_within(from..from + length, to);
        let start = memory.as_mut_ptr();
        let (target, source) = (start.wrapping_add(to), start.wrapping_add(from));
        // SAFETY: both ranges are within the memory.
        assert_eq!(unsafe { memmove(target, source, length) }, target);
        assert!(memory == wanted, "{length} bytes from {from} to {to}");
    }

    fn memory(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn short_copies_at_all_alignments_and_overlaps() {
        let memory = memory(250);
        for length in 0..=100 {
            for from in 30..46 {
                for to in 0..=140 {
                    check(&memory, from, to, length);
                }
            }
        }
    }

    #[test]
    fn lengths_around_the_limit_of_a_long_copy() {
        let memory = memory(6_000);
        for length in (1_015..1_045).chain(1_990..2_000) {
            for from in [2_000, 2_003, 2_008] {
                for distance in [0, 1, 7, 8, 9, 15, 16, 17, 900, 1_023, 1_024, 1_990] {
                    check(&memory, from, from + distance, length);
                    check(&memory, from, from - distance, length);
                }
            }
        }
    }

    /// Memory between pages that cannot be touched.
    struct Fenced {
        start: *mut u8,
        length: usize,
    }

    impl Fenced {
        const PAGE: usize = 4096;

        fn new(length: usize) -> Fenced {
            let (whole, kind) = (length + 2 * Fenced::PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping overlaps nothing.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, kind, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            let start = start.cast::<u8>().wrapping_add(Fenced::PAGE);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a part of the new mapping, on whole pages.
            let result = unsafe { libc::mprotect(start.cast(), length, access) };
            assert_eq!(result, 0);
            Fenced { start, length }
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the memory is mapped until the process ends, and nothing else refers to it.
            unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
        }
    }

    /// A copy that reads or writes beyond its parts ends the test by SEGV.
    #[test]
    fn a_copy_touches_nothing_outside() {
        let page = Fenced::PAGE;
        let (mut from, mut to) = (Fenced::new(page), Fenced::new(page));
        from.bytes().copy_from_slice(&memory(page));
        for length in (0..=300).chain(1_000..1_300) {
            for (source, target) in [(0, 0), (page - length, page - length), (page - length, 0)] {
                let (start, end) = (from.start.wrapping_add(source), to.start.wrapping_add(target));
                to.bytes().fill(0);
                // SAFETY: both parts are within their memory.
                unsafe { memmove(end, start, length) };
                let copied = to.bytes()[target..target + length] == from.bytes()[source..source + length];
                assert!(copied, "{length} bytes from {source} to {target}");
            }
            // Within one memory, from the start to the end and back; both overlap if the part is long.
            for (source, target) in [(0, page - length), (page - length, 0), (0, 1.min(page - length))] {
                let start = from.start;
                // SAFETY: both parts are within the memory.
                unsafe { memmove(start.wrapping_add(target), start.wrapping_add(source), length) };
            }
        }
    }

    #[test]
    fn memcpy_is_the_same_copy() {
        let (from, mut to) = (memory(2_000), vec![0; 2_000]);
        // SAFETY: both are as long.
        assert_eq!(unsafe { memcpy(to.as_mut_ptr(), from.as_ptr(), 2_000) }, to.as_mut_ptr());
        assert_eq!(from, to);
    }
}
