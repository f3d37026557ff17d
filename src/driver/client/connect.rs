//! Connects to a peer: to a Unix socket, or to the first address of a name that accepts the connection. One deadline
//! covers everything.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::exchange::{ExchangeError, RequestDeadline};
use crate::error::reason;
use crate::sys::resolve::{self, IpFamily};
use crate::sys::thread;
use crate::target::Peer;

/// How long to wait for the addresses of the other family after one family has been resolved (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// The timeout for each address except the last one, if there is no deadline.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(10);

/// A connection over TCP or a Unix socket.
pub(super) enum Socket {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A Unix socket connection.
    Unix(UnixStream),
}

impl Socket {
    /// Sets the deadline for the next read or write.
    pub(super) fn limit(&self, deadline: RequestDeadline) -> Result<(), ExchangeError> {
        let left = deadline.left()?;
        let set = match self {
            Socket::Tcp(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
            Socket::Unix(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
        };
        set.map_err(|error| ExchangeError::Other(format!("cannot set a time-out: {}", reason(&error))))
    }

    /// See [`Write::write_all`].
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// See [`Read::read`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Connects to `peer`. An error is either [`ExchangeError::TimedOut`] or [`ExchangeError::Unreachable`].
pub(super) fn connect(peer: &Peer, deadline: RequestDeadline) -> Result<Socket, ExchangeError> {
    let cannot = |why: &str| ExchangeError::Unreachable(format!("cannot connect to {peer}: {why}"));
    let address = match peer {
        Peer::Tcp(name, port) => return Candidates::of(name, *port)?.connect(deadline, cannot),
        Peer::Loopback(port) => {
            // A listener on `::` accepts both families. If IPv6 is disabled, only IPv4 works.
            let both = [(Ipv6Addr::LOCALHOST, *port).into(), (Ipv4Addr::LOCALHOST, *port).into()];
            return Candidates::known(both.to_vec()).connect(deadline, cannot);
        }
        Peer::Path(path) => SocketAddrUnix::new(path.as_slice()),
        Peer::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
    };
    let errno = |error: rustix::io::Errno| match error {
        // The listener's backlog was full until the deadline.
        rustix::io::Errno::AGAIN => ExchangeError::TimedOut,
        error => cannot(&reason(&error.into())),
    };
    let address = address.map_err(errno)?;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(errno)?;
    crate::sys::passrights::refuse(socket.as_fd());
    // For Unix sockets the send timeout also limits connecting (unix(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, deadline.left()?).map_err(errno)?;
    rustix::net::connect(&socket, &address).map_err(errno)?;
    Ok(Socket::Unix(socket.into()))
}

/// The result of a resolver: the addresses of one family, or the reason why there are none.
type Resolved = Result<Vec<IpAddr>, String>;

/// The answers of the resolvers that were not taken yet.
struct Answers {
    /// An eventfd that counts the answers.
    count: OwnedFd,
    list: Mutex<Vec<Resolved>>,
}

impl Answers {
    /// Resolves the name for both families at the same time, in two threads, because the resolver of the C library has
    /// no deadline. A resolver that is late is abandoned and ends with the process.
    fn of(name: &CString) -> io::Result<Arc<Answers>> {
        let count = eventfd(0, EventfdFlags::SEMAPHORE | EventfdFlags::CLOEXEC)?;
        let answers = Arc::new(Answers { count, list: Mutex::new(Vec::new()) });
        for family in [IpFamily::V4, IpFamily::V6] {
            let (name, answers) = (name.clone(), Arc::clone(&answers));
            thread::detached(Box::new(move || answers.add(resolve::addresses(&name, family))))?;
        }
        Ok(answers)
    }

    fn add(&self, answer: Resolved) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        // Cannot fail: the counter is far below its limit.
        let _ = rustix::io::write(&self.count, &1_u64.to_ne_bytes());
    }

    /// Waits for one answer until `limit`. Returns `None` if there is none.
    fn wait(&self, limit: Option<Duration>) -> Option<Resolved> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        poll(&mut [PollFd::new(&self.count, PollFlags::IN)], limit.as_ref())
            .ok()
            .filter(|ready| *ready > 0)?;
        let _ = rustix::io::read(&self.count, &mut [0_u8; 8]);
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        (!list.is_empty()).then(|| list.remove(0))
    }
}

/// The addresses of a name. Resolvers may still add some.
struct Candidates {
    name: String,
    port: u16,
    known: Vec<SocketAddr>,
    resolvers: Option<Arc<Answers>>,
    /// The number of resolvers that have not answered.
    pending: usize,
    /// The reason why a resolver returned no address.
    refusal: Option<String>,
}

impl Candidates {
    fn known(known: Vec<SocketAddr>) -> Candidates {
        Candidates { name: String::new(), port: 0, known, resolvers: None, pending: 0, refusal: None }
    }

    fn of(name: &str, port: u16) -> Result<Candidates, ExchangeError> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(Candidates::known(vec![(ip, port).into()]));
        }
        // In an image without /etc/hosts, the resolver does not know this name (RFC 6761, section 6.3).
        if name.eq_ignore_ascii_case("localhost") {
            let both = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
            return Ok(Candidates::known(both.to_vec()));
        }
        let cannot = |why: &str| ExchangeError::Other(format!("cannot resolve {name}: {why}"));
        let text = CString::new(name).map_err(|_| cannot("it contains a NUL byte"))?;
        let resolvers = Answers::of(&text).map_err(|error| cannot(&reason(&error)))?;
        let (name, known) = (name.to_owned(), Vec::new());
        Ok(Candidates { name, port, known, resolvers: Some(resolvers), pending: 2, refusal: None })
    }

    /// Returns the addresses that are known and were not returned yet. Waits for a resolver if there are none. Returns
    /// an empty list at the end.
    fn next(&mut self, deadline: RequestDeadline) -> Result<Vec<SocketAddr>, ExchangeError> {
        while self.known.is_empty() && self.pending > 0 {
            self.wait(deadline.left()?, deadline)?;
        }
        if self.pending > 0 {
            let left = deadline.left()?.unwrap_or(RESOLUTION_DELAY);
            self.wait(Some(left.min(RESOLUTION_DELAY)), deadline)?;
        }
        Ok(std::mem::take(&mut self.known))
    }

    /// Waits for one resolver until `limit`. Reaching it is an error only if the deadline has passed too.
    fn wait(&mut self, limit: Option<Duration>, deadline: RequestDeadline) -> Result<(), ExchangeError> {
        let Some(resolvers) = &self.resolvers else { return Ok(()) };
        match resolvers.wait(limit) {
            Some(Ok(mut addresses)) => {
                // Try IPv4 first, because kapo listens on all IPv4 addresses by default.
                let at = if addresses.first().is_some_and(IpAddr::is_ipv4) { 0 } else { self.known.len() };
                addresses.reverse();
                addresses.iter().for_each(|ip| self.known.insert(at, SocketAddr::from((*ip, self.port))));
            }
            Some(Err(why)) => self.refusal = self.refusal.take().or(Some(why)),
            None => return deadline.left().map(|_| ()),
        }
        self.pending -= 1;
        Ok(())
    }

    /// Connects to the first address that accepts. The remaining time is divided among the addresses that were not
    /// tried yet.
    fn connect(
        mut self,
        deadline: RequestDeadline,
        cannot: impl Fn(&str) -> ExchangeError,
    ) -> Result<Socket, ExchangeError> {
        let mut last = None;
        loop {
            let batch = self.next(deadline)?;
            if batch.is_empty() {
                let why = self.refusal.as_deref().unwrap_or("the resolver ended without an answer");
                let unknown = ExchangeError::Unreachable(format!("cannot resolve {}: {why}", self.name));
                return Err(last.unwrap_or(unknown));
            }
            for (tried, address) in batch.iter().enumerate() {
                let others = batch.len() - tried - 1 + self.pending;
                let connected = match share(deadline.left()?, others) {
                    Some(limit) => TcpStream::connect_timeout(address, limit),
                    None => TcpStream::connect(address),
                };
                match connected {
                    Ok(stream) => {
                        keep_alive(&stream);
                        return Ok(Socket::Tcp(stream));
                    }
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        deadline.left()?;
                        last = last.or(Some(cannot("Connection timed out")));
                    }
                    Err(error) => last = Some(cannot(&reason(&error))),
                }
            }
        }
    }
}

/// Returns the share of the remaining time for one address if `others` follow it.
fn share(left: Option<Duration>, others: usize) -> Option<Duration> {
    match (left, u32::try_from(others).unwrap_or(u32::MAX)) {
        (None, 0) => None,
        (None, _) => Some(ONE_OF_SEVERAL),
        (Some(left), others) => Some((left / others.saturating_add(1)).max(Duration::from_millis(1))),
    }
}

/// Enables TCP keepalive, because a wait may last for days: kapo then notices that the peer has vanished, and a NAT or
/// firewall keeps the connection. Errors are ignored, because the connection works without keepalive.
fn keep_alive(stream: &TcpStream) {
    let socket = stream.as_fd();
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(socket, Duration::from_secs(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_is_divided_among_addresses() {
        let seconds = Duration::from_secs;
        for (left, others, expected) in [
            (None, 0, None),
            (None, 1, Some(ONE_OF_SEVERAL)),
            (Some(seconds(6)), 0, Some(seconds(6))),
            (Some(seconds(6)), 1, Some(seconds(3))),
            (Some(seconds(6)), 2, Some(seconds(2))),
            (Some(Duration::from_nanos(1)), 5, Some(Duration::from_millis(1))),
        ] {
            assert_eq!(share(left, others), expected, "{left:?} {others}");
        }
    }
}
