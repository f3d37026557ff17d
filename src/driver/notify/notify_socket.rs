//! The NOTIFY_SOCKET that the command gets under `--notify`: datagrams come in, and count when their sender is a
//! descendant of ours (the kernel tells its pid, SCM_CREDENTIALS). The words are those of `logic::notify::message`.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, lstat, stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use rustix::process::{geteuid, umask};

use crate::driver::http::socket_file::SocketFile;
use crate::driver::poll::{Epoll, Source};
use crate::driver::proc::procfs::{lineage, parent_and_birth};
use crate::error::{Error, reason};
use crate::logic::Pid;
use crate::logic::notify::address;
use crate::logic::notify::message;
use crate::logic::notify::message::Notification;
use crate::sys;

/// What systemd reads at most of one datagram; longer ones are dropped whole.
const LONGEST: usize = 4096;
/// So many datagrams are read before others get their turn.
const AT_ONCE: usize = 16;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    /// Removed when the socket is dropped; `None`: the address is abstract.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    variables: Vec<CString>,
}

impl NotifySocket {
    /// Bound to a path in the first folder of [`address::folders`] that kapo may write to and the command can
    /// reach: clients in another network namespace, and libraries that know paths only, cannot use an abstract address.
    /// That is for systems without such a folder. Registered as [`Source::Notify`]. `watchdog`: how often the command
    /// must ping.
    pub(crate) fn open(
        epoll: &Epoll,
        watchdog: Option<Duration>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<NotifySocket, Error> {
        let failed = |e: Errno| Error::setup("open", "a NOTIFY_SOCKET for the command", reason(&e.into()));
        let (socket, file) = match bind_to_a_path(variable).map_err(failed)? {
            Some((socket, file)) => (socket, Some(file)),
            None => (new_socket().map_err(failed)?, None),
        };
        let address = match &file {
            Some(file) => file.path().as_os_str().as_bytes().to_vec(),
            None => bind_to_an_abstract_address(&socket).map_err(failed)?,
        };
        let assignment = |name: &[u8], value: &[u8]| CString::new([name, b"=", value].concat());
        let mut variables = vec![assignment(b"NOTIFY_SOCKET", &address).map_err(|_| failed(Errno::INVAL))?];
        epoll
            .add(&socket, Source::Notify, EventFlags::IN)
            .map_err(|e| Error::setup("wait for", "the command's notifications", reason(&e.into())))?;
        if let Some(interval) = watchdog {
            let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
            variables.extend(assignment(b"WATCHDOG_USEC", micros.to_string().as_bytes()));
        }
        Ok(NotifySocket { _file: file, socket, variables })
    }

    /// `NAME=value` that tell the command of it.
    pub(crate) fn variables(&self) -> &[CString] {
        &self.variables
    }

    /// Reads what has come, hands over what counts, and says whether there may be more. Descriptors that come along are
    /// closed, which is the answer to `BARRIER=1`: all datagrams before it have been taken in by then.
    pub(crate) fn read(&self, run: Run, mut each: impl FnMut(Notification)) -> bool {
        for _ in 0..AT_ONCE {
            let mut bytes = [0; LONGEST];
            let datagram = match sys::datagram::receive(self.socket.as_fd(), &mut bytes) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            // Who is outside our PID namespace is no descendant.
            let sender = datagram.sender.and_then(Pid::new);
            if sender.is_some_and(|sender| datagram.whole && run.may_speak(sender)) {
                each(message::read(bytes.get(..datagram.length).unwrap_or_default()));
            }
        }
        true
    }
}

/// A socket that gets the credentials of each sender, set before anybody can send.
fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    Ok(socket)
}

/// `None`: there is no folder for it.
fn bind_to_a_path(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(OwnedFd, SocketFile)>, Errno> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    for folder in address::folders(variable) {
        if !is_reachable(&folder) {
            continue;
        }
        for path in address::paths(&folder, pid) {
            let socket = new_socket()?;
            // Any user may send, because the command may have changed its own; whose word counts is seen by the pid.
            let before = umask(Mode::from_raw_mode(0o111));
            let created = SocketFile::create(&path, &socket, |_| Ok(()));
            umask(before);
            match created {
                Ok(file) => return Ok(Some((socket, file))),
                // Another kapo's, or a file in the way that may not be removed.
                Err(Errno::ADDRINUSE | Errno::NOTSOCK | Errno::PERM | Errno::ACCESS)
                    if lstat(&path).is_ok() => {}
                Err(_) => break,
            }
        }
    }
    Ok(None)
}

/// Whether a command can get to the folder after a change of its user. Only root's can change it.
fn is_reachable(folder: &Path) -> bool {
    !geteuid().is_root()
        || folder.ancestors().all(|folder| {
            stat(folder).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::XOTH))
        })
}

/// Binds to an address that the kernel chooses; returns it as NOTIFY_SOCKET names it.
fn bind_to_an_abstract_address(socket: &OwnedFd) -> Result<Vec<u8>, Errno> {
    bind(socket, &SocketAddrUnix::new_unnamed())?;
    let address = getsockname(socket).and_then(SocketAddrUnix::try_from)?;
    Ok([b"@", address.abstract_name().unwrap_or_default()].concat())
}

/// A run of the command, as far as its processes can be told from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// The process that counts as the command.
    pub command: Pid,
    /// When the process that kapo started was born, in clock ticks; `None`: it is `command`.
    pub since: Option<u64>,
}

impl Run {
    /// Whether messages of this process count. They do if it belongs to the run, and if it is kapo: systemd-notify(1) sends
    /// its parent's pid if it is root, and the parent of an orphan is kapo. Only a privileged process can send a pid that
    /// is not its own.
    fn may_speak(self, sender: Pid) -> bool {
        sender.get() == rustix::process::getpid().as_raw_nonzero().get() || self.has(sender)
    }

    /// Whether `pid` belongs to the run: it is the command, or kapo is among its ancestors (orphans of the command become
    /// kapo's own children) and it is not older than the run, because older processes are left over from an earlier one.
    /// Without /proc only the command itself counts.
    pub(crate) fn has(self, pid: Pid) -> bool {
        if pid == self.command {
            return true;
        }
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let since = self.since.or_else(|| self.birth());
        let (Some(since), Some((parent, ticks))) = (since, parent_and_birth(pid)) else {
            return false;
        };
        let is_of_the_run = |ancestor: Pid| ancestor == self.command || ancestor.get() == own;
        ticks >= since && lineage(Pid::new(parent)).any(is_of_the_run)
    }

    /// When the command was born.
    pub(crate) fn birth(self) -> Option<u64> {
        parent_and_birth(self.command).map(|(_, ticks)| ticks)
    }
}
