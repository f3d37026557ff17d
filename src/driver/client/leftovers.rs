//! Removes the sockets with temporary names that killed kapos have left. A kapo has such a name only for the moment in
//! which it begins to listen.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, seek, statat, unlinkat};
use rustix::io::Errno;

use super::query::connect;
use crate::sys::clock;

/// After this many seconds, a file with such a name belongs to no kapo that is about to listen.
const LEFT_AFTER: i64 = 60;

/// Removes the old ones that refuse connections. `folder` is the working directory.
pub(super) fn remove(folder: &OwnedFd) {
    let [(now, _), _] = clock::real_and_boot();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    if seek(folder, SeekFrom::Start(0)).is_err() {
        return;
    }
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let file = entry.file_name();
        if !file.to_bytes().starts_with(b".kapo") {
            continue;
        }
        let is_left = statat(folder, file, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Socket
                && now.saturating_sub(stat.st_mtime) > LEFT_AFTER
        });
        if is_left && matches!(connect(file.to_bytes()), Err(Errno::CONNREFUSED)) {
            // The list does not show these names. If this one cannot be removed, it only takes room.
            let _ = unlinkat(folder, file, AtFlags::empty());
        }
    }
}
