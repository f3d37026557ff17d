//! The file of a Unix socket: bound under a temporary name, linked to its own name once it is served, removed at the end
//! if it is still ours.
//!
//! A socket that is bound and does not listen yet refuses connections, as one does whose owner has died. Therefore the
//! name appears only when connections are accepted, and only a file that refuses them is replaced.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, poll};
use rustix::fs::{
    CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, link, lstat, open, renameat_with, unlink,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};

/// The longest path of a temporary name: `sun_path` of unix(7) without the NUL at its end.
const LONGEST_PATH: usize = 107;
/// How many temporary names are tried before the folder counts as full.
const TEMPORARY_NAMES: u64 = 64;
/// How often a name that others take and give up is tried.
const CLAIMS: usize = 16;
/// How often the lock of the folder is tried, with a pause of 10 ms. Without the lock kapo goes on: a stranger that holds
/// it must not hold kapo up.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A file that was created here; dropping it removes the file if it is still the same one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds `socket` to `path`, after `serve` has made it ready for clients. A socket file without a server is
    /// replaced. Errors: `ADDRINUSE` if it is served, `NOTSOCK` if the file is not a socket.
    pub(crate) fn create(
        path: &Path,
        socket: &OwnedFd,
        serve: fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<SocketFile, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let temporary = bind_temporarily(path, socket)?;
        let created = serve(socket).and_then(|()| claim(&temporary, path, &address));
        // Nothing can be done about a temporary file that cannot be removed; a renamed one is gone already.
        let _ = unlink(&temporary);
        created?;
        SocketFile::of(path)
    }

    /// The path.
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
            // The next start replaces a file that cannot be removed.
            let _ = unlink(&self.path);
        }
    }
}

/// Binds to a name that is free, in the folder of `path`; no longer than `path` may be.
fn bind_temporarily(path: &Path, socket: &OwnedFd) -> Result<PathBuf, Errno> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let in_folder = folder.join("x").as_os_str().len().saturating_sub(1);
    for attempt in 0..TEMPORARY_NAMES {
        let name = temporary_name(attempt, LONGEST_PATH.saturating_sub(in_folder));
        let temporary = folder.join(name);
        if temporary == path {
            continue;
        }
        match bind(socket, &SocketAddrUnix::new(&temporary)?) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map(|()| temporary),
        }
    }
    Err(Errno::ADDRINUSE)
}

/// A name of at most `room` bytes. The pid makes it differ from that of another kapo, and `attempt` from the last one.
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

/// Gives the bound and served socket its own name.
fn claim(temporary: &Path, path: &Path, address: &SocketAddrUnix) -> Result<(), Errno> {
    let mut lock = None;
    for _ in 0..CLAIMS {
        match link(temporary, path) {
            Err(Errno::EXIST) => {}
            // The file system has no hard links.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    renamed => return renamed,
                }
            }
            linked => return linked,
        }
        // Between the check of a dead file and its removal no other process may put a live one in its place.
        if lock.is_none() {
            lock = Some(lock_folder(path));
        }
        remove_dead(path, address)?;
    }
    Err(Errno::ADDRINUSE)
}

/// Locks the folder against other instances of kapo, for as long as the descriptor is open.
fn lock_folder(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(folder, flags, Mode::empty()).ok()?;
    for _ in 0..LOCK_TRIES {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => {
                // Nothing to wait for but the time; an interruption only shortens it.
                let _ = poll(&mut [], Some(&LOCK_PAUSE));
            }
            _ => break,
        }
    }
    Some(folder)
}

/// Removes a socket file without a server. Succeeds also if the file has gone meanwhile.
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
        // A connection, a full backlog, a socket of another type: it is served.
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
    fn the_name_appears_when_connections_are_accepted_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = stream();
        let file = SocketFile::create(&path, &socket, |socket| {
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
    fn a_path_of_the_greatest_length_has_room_for_the_temporary_name() {
        let folder = tempfile::tempdir().unwrap();
        for last in [1, 2, 10, 30] {
            let middle = LONGEST_PATH - last - 2 - folder.path().as_os_str().len();
            let deep = folder.path().join("d".repeat(middle));
            std::fs::create_dir(&deep).unwrap();
            let path = deep.join("s".repeat(last));
            assert_eq!(path.as_os_str().len(), LONGEST_PATH);
            let socket = stream();
            let file = SocketFile::create(&path, &socket, |socket| listen(socket, 1)).unwrap();
            UnixStream::connect(&path).unwrap();
            drop(file);
            let longer = deep.join("s".repeat(last + 2));
            let error = SocketFile::create(&longer, &stream(), |socket| listen(socket, 1)).unwrap_err();
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
            let created = SocketFile::create(&path, &stream(), |socket| listen(socket, 1));
            assert_eq!(created.unwrap_err(), expected);
        }
        let failing = SocketFile::create(&folder.path().join("new"), &stream(), |_| Err(Errno::NOMEM));
        assert_eq!(failing.unwrap_err(), Errno::NOMEM);
        assert_eq!(names(folder.path()), ["file", "served"]);
    }
}
