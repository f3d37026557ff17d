//! Counts the processes that an ended run has left in its process group.

use rustix::io::Errno;

use crate::driver::proc::process_usage;
use crate::logic::Pid;
use crate::sys;

/// How many processes are left in the group of a command that is reaped; `None`: at least one. The number of the group
/// may belong to strangers by now, so only descendants of kapo count. A zombie does not, whose parent may never reap it.
///
/// Without `exactly` the number is worth the reading of /proc only where nothing else tells whether there are any.
pub(crate) fn count(group: Pid, exactly: bool) -> Option<usize> {
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
        // A child that has ended meanwhile is a zombie until kapo reaps it.
        Some(0) | None if has_child => None,
        Some(members) => Some(members),
        // Members that are no children of kapo have a parent that has left the group itself. Without /proc they cannot be
        // told from strangers.
        None => Some(0),
    }
}
