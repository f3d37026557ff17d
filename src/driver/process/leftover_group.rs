//! Counts the processes that an ended run has left in its process group.

use rustix::io::Errno;

use crate::driver::proc::process_usage;
use crate::logic::ProcessId;
use crate::sys;

/// Returns how many processes are left in the group of a command that was reaped; `None` means at least one. The number
/// of the group may have been reused, so only descendants of kapo count. A zombie does not count, because its parent
/// may never reap it.
///
/// If `exactly` is false, /proc is read only if there is no cheaper way to find out whether the group is empty.
pub(crate) fn count(group: ProcessId, exactly: bool) -> Option<usize> {
    let group = group.get();
    let has_child = sys::wait::group_has_child(group);
    if has_child && !exactly {
        return None;
    }
    if !has_child
        && sys::signal::send(-group, 0)
            .is_err_and(|error| error.raw_os_error() == Some(Errno::SRCH.raw_os_error()))
    {
        return Some(0);
    }
    match process_usage::descendants_in_group(group) {
        // A child that has ended in the meantime stays in the group as a zombie until kapo reaps it.
        Some(0) | None if has_child => None,
        Some(members) => Some(members),
        // Members that are not children of kapo have a parent outside the group. Without /proc they cannot be
        // distinguished from unrelated processes.
        None => Some(0),
    }
}
