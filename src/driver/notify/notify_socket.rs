//! The NOTIFY_SOCKET that the command gets under `--notify`. A datagram counts if its sender, whose pid the kernel
//! adds (SCM_CREDENTIALS), belongs to the command. `logic::notify::message` parses the datagrams.

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
use rustix::process::geteuid;

use crate::driver::http::socket_access::SocketAccess;
use crate::driver::http::socket_file::SocketFile;
use crate::driver::poll::{Epoll, Source};
use crate::driver::proc::procfs::{lineage, parent_and_birth};
use crate::error::{Error, reason};
use crate::logic::ProcessId;
use crate::logic::notify::address;
use crate::logic::notify::message;
use crate::logic::notify::message::Notification;
use crate::sys;

/// The largest datagram that systemd reads. A longer one is dropped.
const LONGEST: usize = 4096;
/// The maximum number of datagrams that are read in one turn.
const AT_ONCE: usize = 16;

/// The socket, its address, and the environment variables for the command.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    /// The socket file, which is removed on drop; `None` if the address is abstract.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    variables: Vec<CString>,
}

impl NotifySocket {
    /// Binds the socket and registers it as [`Source::Notify`]. `watchdog` is the interval in which the command must
    /// ping.
    ///
    /// The path is in the first of [`address::folders`] that kapo may write to and the command can reach. A path is
    /// preferred because a client in another network namespace, or a library that supports only paths, cannot use an
    /// abstract address. If no directory is suitable, the address is abstract.
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

    /// Returns the `NAME=value` variables that announce the socket to the command.
    pub(crate) fn variables(&self) -> &[CString] {
        &self.variables
    }

    /// Reads the waiting datagrams and passes those that count to `each`. Returns whether there may be more.
    /// Descriptors that come with a datagram are closed, which is the answer to `BARRIER=1`: it confirms that all
    /// earlier datagrams were read.
    pub(crate) fn read(&self, run: NotifyingRun, mut each: impl FnMut(Notification)) -> bool {
        for _ in 0..AT_ONCE {
            let mut bytes = [0; LONGEST];
            let datagram = match sys::datagram::receive(self.socket.as_fd(), &mut bytes) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            // A sender outside of kapo's PID namespace has no pid here and cannot be a descendant.
            let sender = datagram.sender.and_then(ProcessId::new);
            if sender.is_some_and(|sender| datagram.whole && run.may_speak(sender)) {
                each(message::read(bytes.get(..datagram.length).unwrap_or_default()));
            }
        }
        true
    }
}

/// Creates a socket that receives credentials. The option is set before any process can send.
fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    Ok(socket)
}

/// Returns `None` if no directory is suitable.
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
            // Any user may send, because the command may have changed its user. The pid decides whether a datagram
            // counts.
            match SocketFile::create(&path, SocketAccess::EVERYONE, &socket, |_| Ok(())) {
                Ok(file) => return Ok(Some((socket, file))),
                // The name is taken by another kapo, or by a file that kapo may not remove.
                Err(Errno::ADDRINUSE | Errno::NOTSOCK | Errno::PERM | Errno::ACCESS)
                    if lstat(&path).is_ok() => {}
                Err(_) => break,
            }
        }
    }
    Ok(None)
}

/// Whether the command can reach the directory after a change of its user. Only a command that runs as root can change
/// it.
fn is_reachable(folder: &Path) -> bool {
    !geteuid().is_root()
        || folder.ancestors().all(|folder| {
            stat(folder).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::XOTH))
        })
}

/// Binds to an address that the kernel chooses. Returns it in the form that NOTIFY_SOCKET uses.
fn bind_to_an_abstract_address(socket: &OwnedFd) -> Result<Vec<u8>, Errno> {
    bind(socket, &SocketAddrUnix::new_unnamed())?;
    let address = getsockname(socket).and_then(SocketAddrUnix::try_from)?;
    Ok([b"@", address.abstract_name().unwrap_or_default()].concat())
}

/// A run of the command, with the facts by which kapo recognizes the processes of this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotifyingRun {
    /// The main process.
    pub command: ProcessId,
    /// The start time of the process that kapo started, in clock ticks; `None` if that process is `command`.
    pub since: Option<u64>,
}

impl NotifyingRun {
    /// Whether datagrams from this process count. They count from a process of the run and from kapo itself:
    /// systemd-notify(1) run by root sends the pid of its parent, and the parent of an orphan is kapo. Only a
    /// privileged process can send a pid that is not its own.
    fn may_speak(self, sender: ProcessId) -> bool {
        sender.get() == rustix::process::getpid().as_raw_nonzero().get() || self.has(sender)
    }

    /// Whether `pid` belongs to the run. It does if it is the command, or if kapo is one of its ancestors (orphans of
    /// the command become kapo's children) and it is not older than the run, because an older process belongs to an
    /// earlier run. Without /proc only the command itself belongs to the run.
    pub(crate) fn has(self, pid: ProcessId) -> bool {
        if pid == self.command {
            return true;
        }
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let since = self.since.or_else(|| self.birth());
        let (Some(since), Some((parent, ticks))) = (since, parent_and_birth(pid)) else {
            return false;
        };
        let is_of_the_run = |ancestor: ProcessId| ancestor == self.command || ancestor.get() == own;
        ticks >= since && lineage(ProcessId::new(parent)).any(is_of_the_run)
    }

    /// Returns the start time of the command.
    pub(crate) fn birth(self) -> Option<u64> {
        parent_and_birth(self.command).map(|(_, ticks)| ticks)
    }
}
