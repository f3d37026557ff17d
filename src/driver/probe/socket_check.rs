//! One attempt of a probe over a socket: connects and, if the probe has a path, sends a request and reads the head of
//! the answer. Never blocks. The peer may be any program, so nothing that it does makes kapo keep more than one head.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername,
    getsockname, recv, send, socket_with, sockopt,
};

use crate::config::Contact;
use crate::driver::poll::{Epoll, Source};
use crate::error::reason;
use crate::logic::probe::answer;

/// The size of one read.
const CHUNK: usize = 4 * 1024;

/// An attempt in progress.
#[derive(Debug)]
pub(crate) struct SocketCheck {
    socket: OwnedFd,
    /// The port on ::1 that is tried if 127.0.0.1 refuses.
    second: Option<u16>,
    /// The request; empty if the connection alone is the check.
    request: Vec<u8>,
    sent: usize,
    connected: bool,
    input: Vec<u8>,
}

/// The progress of an attempt: the status code of an answer, 0 for a connection that needs none, or the reason why
/// there is none.
pub(crate) type CheckProgress = Result<Option<u16>, String>;

impl SocketCheck {
    /// Begins an attempt.
    pub(crate) fn begin(epoll: &Epoll, contact: &Contact, request: Vec<u8>) -> Result<SocketCheck, String> {
        let mut second = None;
        let socket = match contact {
            Contact::Tcp(Some(ip), port) => open_tcp(epoll, *ip, *port),
            Contact::Tcp(None, port) => {
                second = Some(*port);
                open_tcp(epoll, Ipv4Addr::LOCALHOST.into(), *port)
            }
            Contact::Path(path) => {
                SocketAddrUnix::new(path.as_slice()).and_then(|address| open(epoll, &address.into()))
            }
            Contact::Abstract(name) => {
                SocketAddrUnix::new_abstract_name(name).and_then(|address| open(epoll, &address.into()))
            }
        };
        let socket = socket.map_err(told)?;
        Ok(SocketCheck { socket, second, request, sent: 0, connected: false, input: Vec::new() })
    }

    /// Goes on after an event.
    pub(crate) fn step(&mut self, epoll: &Epoll) -> CheckProgress {
        self.try_step(epoll).map_err(told)?;
        if !self.connected || !self.request.is_empty() {
            return answer::status(&self.input).map_err(str::to_owned);
        }
        Ok(Some(0))
    }

    fn try_step(&mut self, epoll: &Epoll) -> Result<(), Errno> {
        if !self.connected {
            match (sockopt::socket_error(&self.socket)?, self.second.take()) {
                (Ok(()), second) => self.second = second,
                (Err(errno), Some(port)) => {
                    // Without IPv6, the error of 127.0.0.1 is the one that explains the failure.
                    self.socket = open_tcp(epoll, Ipv6Addr::LOCALHOST.into(), port).map_err(|_| errno)?;
                    return Ok(());
                }
                (Err(errno), None) => return Err(errno),
            }
            // The event may be that of another socket.
            let Ok(peer) = getpeername(&self.socket) else { return Ok(()) };
            // The kernel can connect a socket to itself if there is no listener and it chose the same port.
            if peer == getsockname(&self.socket).ok() {
                return Err(Errno::CONNREFUSED);
            }
            self.connected = true;
        }
        let rest = self.request.get(self.sent..).unwrap_or_default();
        if !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::AGAIN) => {}
                sent => self.sent += sent?,
            }
            if self.sent == self.request.len() {
                epoll.modify(&self.socket, Source::Probe, EventFlags::IN)?;
            }
        } else if self.sent > 0 {
            let mut chunk = [0; CHUNK];
            match recv(&self.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => {}
                // As if the connection was reset: there is no whole answer.
                Ok((_, 0)) => return Err(Errno::CONNRESET),
                received => self.input.extend_from_slice(chunk.get(..received?.1).unwrap_or_default()),
            }
        }
        Ok(())
    }
}

fn told(errno: Errno) -> String {
    reason(&errno.into())
}

fn open_tcp(epoll: &Epoll, ip: IpAddr, port: u16) -> Result<OwnedFd, Errno> {
    open(epoll, &SocketAddr::new(ip, port).into())
}

fn open(epoll: &Epoll, address: &SocketAddrAny) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(address.address_family(), SocketType::STREAM, flags, None)?;
    match connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    epoll.add(&socket, Source::Probe, EventFlags::OUT)?;
    Ok(socket)
}
