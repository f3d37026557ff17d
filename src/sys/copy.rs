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
        "20: movups xmm0, [rsi]",
        "add rsi, 16",
        "cmp rdi, r8",
        "jae 31f",
        "movups [rdi], xmm0",
        "add rdi, 16",
        "jmp 20b",
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

    #[test]
    fn memcpy_is_the_same_copy() {
        let (from, mut to) = (memory(2_000), vec![0; 2_000]);
        // SAFETY: both are as long.
        assert_eq!(unsafe { memcpy(to.as_mut_ptr(), from.as_ptr(), 2_000) }, to.as_mut_ptr());
        assert_eq!(from, to);
    }
}
