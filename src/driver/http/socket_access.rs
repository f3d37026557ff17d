//! Mode and group of a socket file, which decide who may connect. Both are set before the socket accepts connections.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, chownat, fstat, open};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, bind};
use rustix::process::umask;

use crate::config::Listen;
use crate::driver::proc::small_file;
use crate::error::{Error, reason};

/// The mode of sockets in `--run-dir` without `--socket-mode`.
const RUN_DIR: Mode = Mode::from_raw_mode(0o660);
/// How much of /etc/group is read.
const GROUP_FILE_MAX: usize = 16 << 20;

/// The permissions of a socket file; `None` means what the kernel chooses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketAccess {
    mode: Option<Mode>,
    group: Option<Gid>,
}

impl SocketAccess {
    /// Every user may connect or send.
    pub(crate) const EVERYONE: SocketAccess =
        SocketAccess { mode: Some(Mode::from_raw_mode(0o666)), group: None };

    /// Returns the permissions that the options name. Fails if there is no such group.
    pub(crate) fn of(listen: &Listen) -> Result<SocketAccess, Error> {
        let mode = listen.socket_mode.map(|mode| Mode::from_raw_mode(mode.into()));
        let group = listen.socket_group.as_deref().map(group_id).transpose()?;
        Ok(SocketAccess { mode, group })
    }

    /// Returns the permissions for a socket in `--run-dir`.
    pub(crate) fn in_run_dir(self) -> SocketAccess {
        SocketAccess { mode: self.mode.or(Some(RUN_DIR)), ..self }
    }

    /// Returns the number of the group.
    pub(crate) fn group(self) -> Option<u32> {
        self.group.map(Gid::as_raw)
    }

    /// Binds `socket` to `path`. kapo has a single thread, so no other file is created under the changed umask.
    pub(super) fn bind(self, socket: &OwnedFd, path: &Path) -> Result<(), Errno> {
        let address = SocketAddrUnix::new(path)?;
        let Some(mode) = self.mode else { return bind(socket, &address) };
        let before = umask(Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO).difference(mode));
        let bound = bind(socket, &address);
        umask(before);
        bound
    }

    /// Sets the group of the socket file at `path`. Another user who can write to the folder may have replaced the file,
    /// so a symbolic link is not followed, and a file of another type is not changed.
    pub(super) fn set_group(self, path: &Path) -> Result<(), Errno> {
        let Some(group) = self.group else { return Ok(()) };
        let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Socket {
            return Err(Errno::NOTSOCK);
        }
        chownat(&file, c"", None, Some(group), AtFlags::EMPTY_PATH)
    }
}

/// Returns the number of a group. Names are looked up in /etc/group (group(5)) only.
fn group_id(group: &str) -> Result<Gid, Error> {
    if let Ok(id) = group.parse() {
        return Ok(Gid::from_raw(id));
    }
    let failed = |why: &str| Error::setup("find group", group, why);
    let mut text = Vec::new();
    small_file::open(c"/etc/group")
        .and_then(|file| small_file::whole(file, GROUP_FILE_MAX, &mut text))
        .map_err(|errno| failed(&format!("/etc/group: {}", reason(&errno.into()))))?;
    let id = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':');
        let named = fields.next()? == group.as_bytes();
        fields.nth(1).filter(|_| named).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok())
    };
    let found = text.split(|byte| *byte == b'\n').find_map(id);
    found.map(Gid::from_raw).ok_or_else(|| failed("it is not in /etc/group"))
}
