//! The file of a Unix socket. It is bound under a temporary name, linked to its final name once it accepts connections,
//! and removed at the end if it is still the same file.
//!
//! A socket that is bound but does not listen refuses connections, and so does the socket of a process that has died.
//! Therefore the final name appears only when connections are accepted, and only a file that refuses connections is
//! replaced.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, poll};
use rustix::fs::{
    CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock, link, lstat, open, renameat_with,
    stat, unlink,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};

use crate::driver::http::socket_access::SocketAccess;

/// The longest path of a temporary name: `sun_path` of unix(7) without the NUL at its end.
const LONGEST_PATH: usize = 107;
/// How many temporary names are tried before the bind fails.
const TEMPORARY_NAMES: u64 = 64;
/// How many times the final name is tried if other processes keep creating and removing it.
const CLAIMS: usize = 16;
/// How many times the lock of the folder is tried, with a pause of 10 ms. After that kapo goes on without the lock, so
/// that another process that holds the lock cannot stop it.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A socket file that kapo created. Dropping it removes the file if it is still the same one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds `socket` to `path` after `serve` has made it accept connections, with the mode and group of `access` from
    /// the beginning. A socket file without a server is
    /// replaced. Errors: `ADDRINUSE` if another process serves it, `NOTSOCK` if the file is not a socket.
    pub(crate) fn create(
        path: &Path,
        access: SocketAccess,
        socket: &OwnedFd,
        serve: fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<SocketFile, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let temporary = bind_temporarily(path, access, socket)?;
        let created = access
            .set_group(&temporary)
            .and_then(|()| serve(socket))
            .and_then(|()| claim(&temporary, path, &address));
        // A temporary file that cannot be removed is left behind; after a rename there is none.
        let _ = unlink(&temporary);
        created?;
        SocketFile::of(path)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn of(path: &Path) -> Result<SocketFile, Errno> {
        let stat = lstat(path)?;
        Ok(SocketFile { path: path.to_owned(), device: stat.st_dev, inode: stat.st_ino })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|now| (now.st_dev, now.st_ino) == (self.device, self.inode)) {
            // If this fails, the next start replaces the file.
            let _ = unlink(&self.path);
        }
    }
}

/// Binds to a free temporary name in the folder of `path`. The name is short enough for `sun_path` whenever `path` is.
fn bind_temporarily(path: &Path, access: SocketAccess, socket: &OwnedFd) -> Result<PathBuf, Errno> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let in_folder = folder.join("x").as_os_str().len().saturating_sub(1);
    for attempt in 0..TEMPORARY_NAMES {
        let name = temporary_name(attempt, LONGEST_PATH.saturating_sub(in_folder));
        let temporary = folder.join(name);
        if temporary == path {
            continue;
        }
        match access.bind(socket, &temporary) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map(|()| temporary),
        }
    }
    Err(Errno::ADDRINUSE)
}

/// Returns a name of at most `room` bytes. It depends on the pid and on `attempt`, so that instances and attempts
/// differ.
fn temporary_name(attempt: u64, room: usize) -> String {
    let pid = u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
    let mixed = (pid << 8 | attempt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut name = format!(".kapo{mixed:016x}");
    if room < name.len() {
        name = format!("{mixed:016x}");
        name.truncate(room);
    }
    name
}

/// Links the socket, which accepts connections already, to its final name.
fn claim(temporary: &Path, path: &Path, address: &SocketAddrUnix) -> Result<(), Errno> {
    let mut lock = None;
    for _ in 0..CLAIMS {
        match link(temporary, path) {
            Err(Errno::EXIST) => {}
            // The file system does not support hard links.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    renamed => return renamed,
                }
            }
            linked => return linked,
        }
        // Without the lock another process could put a live socket there between the check of the dead file and its
        // removal.
        if lock.is_none() {
            lock = Some(lock_folder(path));
        }
        remove_dead(path, address)?;
    }
    Err(Errno::ADDRINUSE)
}

/// Locks the folder against other instances of kapo as long as the descriptor is open. A folder that kapo may not read
/// cannot be opened and locked. In that case an abstract socket, whose name only one process can have, is the lock.
fn lock_folder(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (lock, name) = match open(folder, flags, Mode::empty()) {
        Ok(folder) => (folder, None),
        Err(_) => {
            let Stat { st_dev, st_ino, .. } = stat(folder).ok()?;
            let name = format!("kapo-lock-{st_dev}-{st_ino}");
            let socket =
                socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
            (socket, Some(SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?))
        }
    };
    for _ in 0..LOCK_TRIES {
        let locked = match &name {
            None => flock(&lock, FlockOperation::NonBlockingLockExclusive),
            Some(name) => bind(&lock, name),
        };
        match locked {
            Err(Errno::AGAIN | Errno::ADDRINUSE) => {
                // No descriptor is polled, only the time; an interruption merely shortens the pause.
                let _ = poll(&mut [], Some(&LOCK_PAUSE));
            }
            _ => break,
        }
    }
    Some(lock)
}

/// Removes a socket file without a server. Also succeeds if the file has disappeared meanwhile.
fn remove_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), Errno> {
    let found = match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match retry_on_intr(|| connect(&probe, address)) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // A connection, a full backlog or a socket of another type shows that the file is served.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => return Err(Errno::ADDRINUSE),
        Err(errno) => return Err(errno),
    }
    match unlink(path) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::listen;

    use super::*;

    fn stream() -> OwnedFd {
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_final_name_appears_when_connections_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = stream();
        let file = SocketFile::create(&path, SocketAccess::default(), &socket, |socket| {
            assert!(socket_is_alone_in_its_folder(socket));
            listen(socket, 1)
        });
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(folder.path()), ["s"]);
        drop(file.unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
    }

    fn socket_is_alone_in_its_folder(socket: &OwnedFd) -> bool {
        let address = SocketAddrUnix::try_from(rustix::net::getsockname(socket).unwrap()).unwrap();
        let temporary = PathBuf::from(String::from_utf8(address.path_bytes().unwrap().to_vec()).unwrap());
        names(temporary.parent().unwrap()) == [temporary.file_name().unwrap().to_str().unwrap()]
    }

    #[test]
    fn the_longest_path_leaves_room_for_a_temporary_name() {
        let folder = tempfile::tempdir().unwrap();
        for last in [1, 2, 10, 30] {
            let middle = LONGEST_PATH - last - 2 - folder.path().as_os_str().len();
            let deep = folder.path().join("d".repeat(middle));
            std::fs::create_dir(&deep).unwrap();
            let path = deep.join("s".repeat(last));
            assert_eq!(path.as_os_str().len(), LONGEST_PATH);
            let socket = stream();
            let file =
                SocketFile::create(&path, SocketAccess::default(), &socket, |socket| listen(socket, 1))
                    .unwrap();
            UnixStream::connect(&path).unwrap();
            drop(file);
            let longer = deep.join("s".repeat(last + 2));
            let error =
                SocketFile::create(&longer, SocketAccess::default(), &stream(), |socket| listen(socket, 1))
                    .unwrap_err();
            assert_eq!(error, Errno::NAMETOOLONG);
        }
    }

    #[test]
    fn a_failed_creation_leaves_nothing_behind_and_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let served = folder.path().join("served");
        let _server = UnixDatagram::bind(&served).unwrap();
        std::fs::write(folder.path().join("file"), "precious").unwrap();
        for (name, expected) in [("served", Errno::ADDRINUSE), ("file", Errno::NOTSOCK)] {
            let path = folder.path().join(name);
            let created =
                SocketFile::create(&path, SocketAccess::default(), &stream(), |socket| listen(socket, 1));
            assert_eq!(created.unwrap_err(), expected);
        }
        let failing =
            SocketFile::create(&folder.path().join("new"), SocketAccess::default(), &stream(), |_| {
                Err(Errno::NOMEM)
            });
        assert_eq!(failing.unwrap_err(), Errno::NOMEM);
        assert_eq!(names(folder.path()), ["file", "served"]);
    }
}
