//! The two outputs that kapo was started with, as descriptors that may be borrowed for ever.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

/// Descriptor 1.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: the program's entry sees to it that 1 is open, and nothing in kapo ever closes it.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Descriptor 2.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: the program's entry sees to it that 2 is open, and nothing in kapo ever closes it.
    unsafe { BorrowedFd::borrow_raw(2) }
}
