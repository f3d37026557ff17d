//! Sockets that kapo inherited. Each is taken over, or refused with its number, name and the reason, so that the
//! command inherits none of them.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};

use crate::driver::http::listener::Listener;
use crate::error::{Error, reason};
use crate::logic::http::activation;
use crate::logic::http::activation::{ActivationVariables, Inherited};
use crate::sys;
use crate::sys::stdio::InheritedFds;

/// The inherited sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Listening sockets with their names.
    pub listeners: Vec<(Listener, String)>,
    /// Connected sockets (Accept=yes of systemd.socket(5)) with their names.
    pub connections: Vec<(OwnedFd, String)>,
}

/// Takes over all sockets of LISTEN_FDS (sd_listen_fds(3)) or, if that is not set, a socket on stdin as inetd(8) passes
/// it. Call it before kapo opens any descriptor: otherwise one of kapo's own could have the number of an inherited
/// descriptor that was closed.
pub(crate) fn take_over(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Sockets, Error> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let (pid, fds, names) = (text("LISTEN_PID"), text("LISTEN_FDS"), text("LISTEN_FDNAMES"));
    let variables = ActivationVariables { pid: pid.as_deref(), fds: fds.as_deref(), names: names.as_deref() };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut sockets = Sockets::default();
    match activation::inherited(variables, own).map_err(Error::Setup)? {
        Some(inherited) => {
            let count = i32::try_from(inherited.len()).unwrap_or(i32::MAX);
            let taken = InheritedFds::take(activation::FIRST..activation::FIRST.saturating_add(count));
            for (Inherited { fd, name }, socket) in inherited.into_iter().zip(taken) {
                sockets.add(socket.map_err(|e| refused(fd, &name, &reason(&e)))?, fd, name)?;
            }
        }
        None => sockets.take_stdin()?,
    }
    Ok(sockets)
}

impl Sockets {
    fn add(&mut self, socket: OwnedFd, fd: i32, name: String) -> Result<(), Error> {
        match kind(socket.as_fd()) {
            Ok(SocketKind::Listening) => {
                fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|e| refused(fd, &name, &reason(&e.into())))?;
                self.listeners.push((Listener::adopt(socket)?, name));
            }
            Ok(SocketKind::Connected) => {
                fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|e| refused(fd, &name, &reason(&e.into())))?;
                // If this fails, only answers in several parts are slower.
                let _ = sockopt::set_tcp_nodelay(&socket, true);
                self.connections.push((socket, name));
            }
            Err(why) => return Err(refused(fd, &name, &why)),
        }
        Ok(())
    }

    /// Takes a socket that is both stdin and stdout, as inetd(8) passes it. /dev/null replaces it there, so that the
    /// command neither reads the request nor writes into the answer.
    fn take_stdin(&mut self) -> Result<(), Error> {
        let [stdin, ..] = sys::stdio::standard();
        let Some(inode) = socket_inode(stdin) else {
            return Err(Error::Setup(
                "--socket-activation: no socket was handed over: LISTEN_FDS is not set, and stdin is no socket"
                    .to_owned(),
            ));
        };
        let moved = fcntl_dupfd_cloexec(stdin, activation::FIRST)
            .map_err(|e| refused(stdin.as_raw_fd(), "stdin", &reason(&e.into())))?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok();
        for fd in sys::stdio::standard() {
            if socket_inode(fd) == Some(inode) {
                sys::stdio::replace(fd, null.as_ref().map(AsFd::as_fd))
                    .map_err(|e| refused(fd.as_raw_fd(), "stdin", &reason(&e)))?;
            }
        }
        self.add(moved, stdin.as_raw_fd(), "stdin".to_owned())
    }
}

enum SocketKind {
    Listening,
    Connected,
}

/// Returns the kind of a socket that can carry HTTP, or the reason why it cannot.
fn kind(fd: BorrowedFd<'_>) -> Result<SocketKind, String> {
    let stat = fstat(fd).map_err(|e| reason(&e.into()))?;
    let file = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => None,
        FileType::RegularFile => Some("a regular file"),
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a pipe"),
        FileType::CharacterDevice => Some("a character device"),
        FileType::BlockDevice => Some("a block device"),
        FileType::Symlink | FileType::Unknown => Some("an unnamed file"),
    };
    if let Some(file) = file {
        return Err(format!("it is {file}, not a socket"));
    }
    let family = sockopt::socket_domain(fd).map_err(|e| reason(&e.into()))?;
    if ![AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX].contains(&family) {
        return Err("it is neither a TCP nor a Unix socket".to_owned());
    }
    match sockopt::socket_type(fd).map_err(|e| reason(&e.into()))? {
        SocketType::STREAM => {}
        SocketType::DGRAM => return Err("it is a datagram socket; HTTP needs a stream".to_owned()),
        _ => return Err("it is not a stream socket".to_owned()),
    }
    if sockopt::socket_acceptconn(fd).map_err(|e| reason(&e.into()))? {
        return Ok(SocketKind::Listening);
    }
    match getpeername(fd) {
        Ok(_) => Ok(SocketKind::Connected),
        Err(_) => Err("it neither listens nor is connected".to_owned()),
    }
}

/// Returns the inode of a socket; `None` if the descriptor is not a socket.
fn socket_inode(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = fstat(fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(stat.st_ino)
}

fn refused(fd: i32, name: &str, why: &str) -> Error {
    Error::setup("serve on", format!("inherited descriptor {fd} ({name})"), why)
}
