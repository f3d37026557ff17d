//! The NOTIFY_SOCKET that the command gets under `--notify`: datagrams come in, and count when their sender is a
//! descendant of ours (the kernel tells its pid, SCM_CREDENTIALS). The words are those of `logic::notify`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

use super::poll::{Epoll, Source};
use super::procfs::{GENERATIONS, parent_and_birth};
use crate::error::{Error, reason};
use crate::logic::Pid;
use crate::logic::notify::{self, Told};
use crate::sys;

/// What systemd reads at most of one datagram; longer ones are dropped whole.
const LONGEST: usize = 4096;
/// So many datagrams are read before others get their turn.
const AT_ONCE: usize = 16;

/// See the head of the file.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    variables: Vec<CString>,
}

impl NotifySocket {
    /// Bound to an abstract address that the kernel chooses: it needs no folder to write to and leaves nothing behind.
    /// Registered as [`Source::Notify`]. `watchdog`: how often the command must ping.
    pub fn open(epoll: &Epoll, watchdog: Option<Duration>) -> Result<NotifySocket, Error> {
        let failed = |e: Errno| Error::setup("open", "a NOTIFY_SOCKET for the command", reason(&e.into()));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(failed)?;
        // Before anybody can send: else the first datagrams would come without credentials.
        sockopt::set_socket_passcred(&socket, true).map_err(failed)?;
        bind(&socket, &SocketAddrUnix::new_unnamed()).map_err(failed)?;
        let address = getsockname(&socket).and_then(SocketAddrUnix::try_from).map_err(failed)?;
        let name = address.abstract_name().unwrap_or_default();
        let variable = CString::new([b"NOTIFY_SOCKET=@", name].concat()).map_err(|_| failed(Errno::INVAL))?;
        epoll
            .add(&socket, Source::Notify, EventFlags::IN)
            .map_err(|e| Error::setup("wait for", "the command's notifications", reason(&e.into())))?;
        let mut variables = vec![variable];
        if let Some(interval) = watchdog {
            let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
            // WATCHDOG_PID is left out: whichever process of the command pings, it is meant (sd_watchdog_enabled(3)).
            variables.extend(CString::new(format!("WATCHDOG_USEC={micros}")));
        }
        Ok(NotifySocket { socket, variables })
    }

    /// `NAME=value` that tell the command of it.
    pub fn variables(&self) -> &[CString] {
        &self.variables
    }

    /// Reads what has come, hands over what counts, and says whether there may be more. Descriptors that come along are
    /// closed, which is the answer to `BARRIER=1`: all datagrams before it have been taken in by then.
    pub fn read(&self, command: Pid, mut each: impl FnMut(Told)) -> bool {
        for _ in 0..AT_ONCE {
            let mut bytes = [0; LONGEST];
            let datagram = match sys::datagram::receive(self.socket.as_fd(), &mut bytes) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            // Who is outside our PID namespace is no descendant.
            let sender = datagram.sender.and_then(Pid::new);
            if sender.is_some_and(|sender| datagram.whole && descends(sender, command)) {
                each(notify::read(bytes.get(..datagram.length).unwrap_or_default()));
            }
        }
        true
    }
}

/// Whether `pid` belongs to this run of the command: it is the command, or kapo is among its ancestors (orphans of the
/// command become kapo's own children) and it is not older than the command, because older processes are left over from
/// an earlier run. kapo's own pid counts, too: systemd-notify(1) sends its parent's pid if it is root, and the parent of
/// an orphan is kapo. Only a privileged process can send a pid that is not its own. Without /proc only the command
/// itself and kapo count.
fn descends(pid: Pid, command: Pid) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    if pid == command || pid.get() == own {
        return true;
    }
    let (Some((_, born)), Some((mut parent, ticks))) = (parent_and_birth(command), parent_and_birth(pid))
    else {
        return false;
    };
    if ticks < born {
        return false;
    }
    for _ in 0..GENERATIONS {
        if parent == command.get() || parent == own {
            return true;
        }
        match Pid::new(parent).filter(|parent| parent.get() > 1).and_then(parent_and_birth) {
            Some((next, _)) => parent = next,
            None => return false,
        }
    }
    false
}
