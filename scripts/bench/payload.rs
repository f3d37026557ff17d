//! The smallest static program: exits at once, waits forever with one argument, or exits with 3 with two. The time to
//! start it is the minimum.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

// The stack at the start holds argc.
global_asm!(".globl _start", "_start:", "mov rdi, [rsp]", "jmp {main}", main = sym main);

extern "C" fn main(argc: usize) -> ! {
    if argc == 2 {
        loop {
            // SAFETY: pause(2) takes no argument.
            unsafe { asm!("syscall", inout("rax") 34usize => _, out("rcx") _, out("r11") _) };
        }
    }
    // SAFETY: exit_group(2) does not return.
    unsafe { asm!("syscall", in("rax") 231usize, in("rdi") if argc > 2 { 3usize } else { 0 }, options(noreturn)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
