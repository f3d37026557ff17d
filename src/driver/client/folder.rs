//! The folder with the sockets of kapos.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::stdio::stderr;

use super::query::connect;
use super::{leftovers, say};
use crate::config::InstanceState;
use crate::error::reason;
use crate::logic::client::ls::Instance;

/// The maximum number of sockets that are listed.
pub(super) const MOST: usize = 1 << 16;

/// Opens the folder and makes it the working directory. With relative names, its path may have any length.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    rustix::process::fchdir(&folder)?;
    Ok(folder)
}

/// Returns name and inode of each socket of the folder, sorted. Other files and symbolic links are left out.
pub(crate) fn sockets(folder: &OwnedFd) -> Result<Vec<(Vec<u8>, u64)>, Errno> {
    // A folder that was removed has no name left.
    if rustix::fs::fstat(folder)?.st_nlink == 0 {
        return Err(Errno::NOENT);
    }
    rustix::fs::seek(folder, SeekFrom::Start(0))?;
    let mut found = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 16_384];
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let kind = match entry.file_type() {
            // Some file systems do not store the type in the folder.
            FileType::Unknown => rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        // A kapo whose socket has such a name does not accept connections yet.
        if kind != FileType::Socket || entry.file_name().to_bytes().starts_with(b".kapo") {
            continue;
        }
        if found.len() == MOST {
            break;
        }
        found.push((entry.file_name().to_bytes().to_vec(), entry.ino()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes dead sockets whose file is still the same. kapo holds the same lock while it replaces a socket and begins
/// to listen, so that no socket is removed on which it is about to listen.
pub(super) fn prune<'a>(folder: &OwnedFd, instances: impl Iterator<Item = &'a mut Instance>) {
    leftovers::remove(folder);
    let dead = |instance: &&mut Instance| instance.state == InstanceState::Dead;
    let mut dead = instances.filter(dead).peekable();
    if dead.peek().is_none() {
        return;
    }
    if let Err(errno) = lock(folder) {
        let why = reason(&errno.into());
        say(stderr(), &format!("kapo: no socket was removed: cannot lock the folder: {why}"));
        return;
    }
    for instance in dead {
        let file = instance.file.as_slice();
        let same = |stat: &rustix::fs::Stat| {
            stat.st_ino == instance.inode && FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        };
        let stat = rustix::fs::statat(folder, file, AtFlags::SYMLINK_NOFOLLOW);
        // A file system may have given the number of the removed file to a new one.
        if !stat.as_ref().is_ok_and(same) || !matches!(connect(file), Err(Errno::CONNREFUSED)) {
            continue;
        }
        match rustix::fs::unlinkat(folder, file, AtFlags::empty()) {
            Ok(()) => instance.state = InstanceState::Removed,
            Err(errno) => {
                let (file, why) = (String::from_utf8_lossy(file), reason(&errno.into()));
                say(stderr(), &format!("kapo: cannot remove {file}: {why}"));
            }
        }
    }
}

/// Locks the folder until kapo exits. Gives up after 300 ms, because any user that may read the folder can lock it.
fn lock(folder: &OwnedFd) -> Result<(), Errno> {
    let mut tries = 30;
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if tries > 0 => tries -= 1,
            result => return result,
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = poll(&mut [], Some(&pause));
    }
}
