//! Starts threads that end with the process. std's threads have names, handles and results, which nothing here needs
//! and which take 20 KB of the program.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

type Work = Box<dyn FnOnce() + Send>;

/// Runs `work` in a new thread, which has the C library's default stack size and cannot be joined
/// (pthread_create(3)).
pub(crate) fn detached(work: Work) -> io::Result<()> {
    extern "C" fn run(work: *mut c_void) -> *mut c_void {
        // SAFETY: `detached` made the pointer from a box of this type, for this thread alone.
        let work = unsafe { Box::from_raw(work.cast::<Work>()) };
        work();
        ptr::null_mut()
    }
    let work = Box::into_raw(Box::new(work));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: `thread` may be written, and null attributes are the default ones.
    let error = unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run, work.cast()) };
    if error != 0 {
        // SAFETY: no thread was started, so the box still belongs to this function.
        drop(unsafe { Box::from_raw(work) });
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: pthread_create has set it.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: the thread is joinable, and nothing else joins or detaches it.
    unsafe { libc::pthread_detach(thread) };
    Ok(())
}
