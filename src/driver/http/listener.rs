//! Listening sockets, TCP or Unix, bound by kapo or inherited. Only bind(2) tells whether an address is free.
//! Connections are accepted in batches, and each batch reports why it stopped, so that the loop neither spins nor
//! leaves a connection waiting.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, getsockname,
    listen, socket_with, sockopt,
};

use crate::config::{Contact, Interface};
use crate::driver::http::socket_access::SocketAccess;
use crate::driver::http::socket_file::SocketFile;
use crate::error::{Error, reason};
use crate::sys;

/// The backlog of a listener; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// The keepalive time: an idle TCP connection is probed after this time (TCP_KEEPIDLE, tcp(7)).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The time between two keepalive probes (TCP_KEEPINTVL).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection is closed after this many probes without an answer (TCP_KEEPCNT).
const KEEPALIVE_PROBES: u32 = 3;
/// A connection is closed if sent data stays unacknowledged for this time (TCP_USER_TIMEOUT).
const UNACKNOWLEDGED_MILLIS: u32 = 60_000;
/// The send buffer of a TCP connection; the kernel doubles the value for its own overhead (socket(7)).
const SEND_BUFFER: usize = 128 * 1024;
/// How many connections one call accepts. Signals and open connections are served between batches.
const BATCH: usize = 64;

/// Why [`Listener::accept`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The queue is empty.
    Drained,
    /// The batch is full; more connections may be waiting.
    More,
    /// The process has no free descriptor for the next connection, which stays in the queue. Closing a connection makes
    /// room.
    Starved,
    /// The system has no free file or no memory for the next connection. Closing one of our connections hardly helps,
    /// so the listener must rest: it stays ready meanwhile.
    Exhausted(Errno),
    /// The socket does not listen any more, for example because a process that shares it has shut it down.
    Broken,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// This field is dropped first, because the file of a closed socket looks dead to other processes.
    file: Option<SocketFile>,
    socket: OwnedFd,
    address: String,
    port: Option<u16>,
}

impl Listener {
    /// Binds an address, or a port of it, and listens. `access` applies to a path.
    pub(crate) fn bind(interface: &Interface, port: u16, access: SocketAccess) -> Result<Listener, Error> {
        match interface {
            Interface::Ip(ip) => {
                let address = SocketAddr::new(*ip, port);
                tcp(address).map_err(|e| Error::setup("bind", address, reason(&e.into())))
            }
            Interface::Path(path) => {
                unix_path(path, access).map_err(|why| Error::setup("bind", path.display(), why))
            }
            Interface::Abstract(name) => SocketAddrUnix::new_abstract_name(name)
                .and_then(|address| unix(&address))
                .and_then(Listener::adopt_socket)
                .map_err(|e| {
                    Error::setup("bind", format!("@{}", String::from_utf8_lossy(name)), reason(&e.into()))
                }),
            Interface::None => Err(Error::setup("bind", "a port", "the interface is none")),
        }
    }

    /// Binds the next free port above `port` on an IP interface, for `--sidebind`.
    pub(crate) fn sidebind(interface: &Interface, port: u16) -> Result<Listener, Error> {
        let Interface::Ip(ip) = interface else {
            return Err(Error::setup("bind", "a side port", "the interface is a Unix socket"));
        };
        for side in (port..=u16::MAX).skip(1) {
            let address = SocketAddr::new(*ip, side);
            match tcp(address) {
                Err(Errno::ADDRINUSE) => {}
                other => return other.map_err(|e| Error::setup("bind", address, reason(&e.into()))),
            }
        }
        Err(Error::setup("bind", format!("a port above {port} on {ip}"), "none is free"))
    }

    /// Serves on an inherited socket that listens already. The socket is made non-blocking, because accept(2) on a
    /// blocking one would block kapo if the client disconnects first.
    pub(crate) fn adopt(socket: OwnedFd) -> Result<Listener, Error> {
        Listener::adopt_socket(socket)
            .map_err(|e| Error::setup("serve on", "the inherited socket", reason(&e.into())))
    }

    /// Accepts at most one batch of connections into `accepted`, non-blocking and close-on-exec. Connections that
    /// failed before they were accepted are skipped.
    pub(crate) fn accept(&self, accepted: &mut Vec<OwnedFd>) -> Accepted {
        let mut skipped = 0;
        for at in 0..BATCH {
            // There is mostly one connection, and an accept that fails takes ten times as long as this question.
            if at == 1 && !self.is_ready() {
                return Accepted::Drained;
            }
            match accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => accepted.push(socket),
                Err(Errno::AGAIN) => return Accepted::Drained,
                Err(Errno::MFILE) => return Accepted::Starved,
                Err(errno @ (Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    return Accepted::Exhausted(errno);
                }
                Err(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => return Accepted::Broken,
                // According to accept(2) these errors belong to the connection, not to the listener.
                Err(errno) => {
                    skipped += 1;
                    // Accepting more after a full batch of errors would only use CPU time, so the listener must rest.
                    if skipped == BATCH {
                        return Accepted::Exhausted(errno);
                    }
                }
            }
        }
        Accepted::More
    }

    /// Whether a connection may wait to be accepted.
    pub(crate) fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    /// Returns the bound address: `0.0.0.0:6666`, `[::]:6666`, `/run/x.sock` or `@name`. With port 0 it has the port
    /// that the kernel chose.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the bound TCP port; `None` for a Unix socket.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether a probe would ask kapo itself, which always answers.
    pub(crate) fn is_reached_by(&self, contact: &Contact) -> bool {
        match contact {
            Contact::Path(path) => self.address.as_bytes() == path,
            Contact::Abstract(name) => {
                self.address.strip_prefix('@').is_some_and(|own| own.as_bytes() == name)
            }
            Contact::Tcp(_, port) if self.port != Some(*port) => false,
            Contact::Tcp(ip, _) => self.address.parse::<SocketAddr>().is_ok_and(|own| {
                let own = own.ip();
                match ip.map(|ip| ip.to_canonical()) {
                    Some(ip) => own == ip || own.is_unspecified() && is_local(ip),
                    None => own.is_loopback() || own.is_unspecified(),
                }
            }),
        }
    }

    fn adopt_socket(socket: OwnedFd) -> Result<Listener, Errno> {
        ioctl_fionbio(&socket, true)?;
        let name = getsockname(&socket)?;
        let (address, port) = describe(&name);
        if port.is_some() {
            // Accepted sockets inherit these options. Without TCP_NODELAY the second of two answers waits for a delayed
            // acknowledgement.
            sockopt::set_tcp_nodelay(&socket, true)?;
            prepare_tcp(&socket)?;
        } else {
            // Accepted sockets inherit this option.
            sys::passrights::refuse(socket.as_fd());
        }
        Ok(Listener { socket, address, port, file: None })
    }
}

/// Sets the TCP options by which the kernel detects a vanished peer, so that kapo needs no timer. Keepalive probes
/// check idle connections and keep their NAT mapping. TCP_USER_TIMEOUT covers streams, because no probe is sent while
/// data is unacknowledged. The send buffer is limited because the kernel would let it grow to 4 MiB for each peer that
/// does not read.
pub(crate) fn prepare_tcp(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MILLIS)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a socket can be bound to this address, so that it is one of this machine.
fn is_local(ip: IpAddr) -> bool {
    let address = SocketAddr::new(ip, 0);
    new_socket(family(&address)).and_then(|socket| bind(&socket, &address)).is_ok()
}

fn family(address: &SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn tcp(address: SocketAddr) -> Result<Listener, Errno> {
    let socket = new_socket(family(&address))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // `::` must accept IPv4 as well, regardless of net.ipv6.bindv6only.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Listener::adopt_socket(socket)
}

fn unix(address: &impl SocketAddrArg) -> Result<OwnedFd, Errno> {
    let socket = new_socket(AddressFamily::UNIX)?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Binds a Unix socket to a path. The address is set here, because getsockname(2) returns the temporary name.
fn unix_path(path: &Path, access: SocketAccess) -> Result<Listener, String> {
    let text = |errno| match errno {
        Errno::NOTSOCK => "a file that is not a socket is in the way".to_owned(),
        Errno::PERM if let Some(group) = access.group() => {
            format!("Operation not permitted: --socket-group needs root or a member of group {group}")
        }
        errno => reason(&errno.into()),
    };
    let socket = new_socket(AddressFamily::UNIX).map_err(text)?;
    let file = SocketFile::create(path, access, &socket, |socket| listen(socket, BACKLOG)).map_err(text)?;
    let mut listener = Listener::adopt_socket(socket).map_err(text)?;
    listener.address = path.to_string_lossy().into_owned();
    listener.file = Some(file);
    Ok(listener)
}

fn describe(name: &SocketAddrAny) -> (String, Option<u16>) {
    if let Ok(v4) = SocketAddrV4::try_from(name.clone()) {
        return (v4.to_string(), Some(v4.port()));
    }
    if let Ok(v6) = SocketAddrV6::try_from(name.clone()) {
        return (v6.to_string(), Some(v6.port()));
    }
    let address = match SocketAddrUnix::try_from(name.clone()) {
        Ok(unix) => match (unix.path_bytes(), unix.abstract_name()) {
            (Some(path), _) => String::from_utf8_lossy(path).into_owned(),
            (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
            (None, None) => "an unnamed socket".to_owned(),
        },
        Err(_) => "a socket of another kind".to_owned(),
    };
    (address, None)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn loopback() -> Interface {
        Interface::Ip("127.0.0.1".parse().unwrap())
    }

    fn accept_one(listener: &Listener) -> OwnedFd {
        let mut accepted = Vec::new();
        assert_eq!(listener.accept(&mut accepted), Accepted::Drained);
        assert_eq!(accepted.len(), 1);
        accepted.pop().unwrap()
    }

    #[test]
    fn port_0_shows_the_chosen_port_and_sets_nodelay() {
        for (ip, shown) in [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")] {
            let listener =
                Listener::bind(&Interface::Ip(ip.parse().unwrap()), 0, SocketAccess::default()).unwrap();
            let port = listener.port().unwrap();
            assert_ne!(port, 0);
            assert_eq!(listener.address(), format!("{shown}{port}"));
            let _peer = TcpStream::connect((ip, port)).unwrap();
            let socket = accept_one(&listener);
            assert!(sockopt::tcp_nodelay(&socket).unwrap());
            assert!(sockopt::socket_keepalive(&socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&socket), Ok(KEEPALIVE_IDLE));
            assert_eq!(sockopt::tcp_keepintvl(&socket), Ok(KEEPALIVE_INTERVAL));
            assert_eq!(sockopt::tcp_keepcnt(&socket), Ok(KEEPALIVE_PROBES));
            assert_eq!(sockopt::tcp_user_timeout(&socket), Ok(UNACKNOWLEDGED_MILLIS));
            assert_eq!(sockopt::socket_send_buffer_size(&socket), Ok(2 * SEND_BUFFER));
        }
    }

    #[test]
    fn a_taken_port_is_a_one_line_error() {
        let first = Listener::bind(&loopback(), 0, SocketAccess::default()).unwrap();
        let port = first.port().unwrap();
        let error = Listener::bind(&loopback(), port, SocketAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot bind 127.0.0.1:{port}: Address already in use"));
    }

    #[test]
    fn a_foreign_address_is_a_one_line_error() {
        let unassigned = Interface::Ip("192.0.2.1".parse().unwrap());
        let error = Listener::bind(&unassigned, 6666, SocketAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind 192.0.2.1:6666: Cannot assign requested address");
    }

    #[test]
    fn the_side_port_is_the_next_free_one() {
        let main = Listener::bind(&loopback(), 0, SocketAccess::default()).unwrap();
        let port = main.port().unwrap();
        let first = Listener::sidebind(&loopback(), port).unwrap();
        let second = Listener::sidebind(&loopback(), port).unwrap();
        assert!(port < first.port().unwrap() && port < second.port().unwrap());
        assert_ne!(first.port(), second.port());
    }

    #[test]
    fn no_side_port_is_beyond_65535_or_on_a_unix_socket() {
        let error = Listener::sidebind(&loopback(), 65535).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind a port above 65535 on 127.0.0.1: none is free");
        let error = Listener::sidebind(&Interface::Abstract(b"x".to_vec()), 1).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind a side port: the interface is a Unix socket");
    }

    #[test]
    fn a_socket_file_is_made_served_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = Listener::bind(&Interface::Path(path.clone()), 0, SocketAccess::default()).unwrap();
        assert_eq!((listener.address(), listener.port()), (path.to_str().unwrap(), None));
        let _peer = UnixStream::connect(&path).unwrap();
        accept_one(&listener);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_file_of_another_process_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = Listener::bind(&Interface::Path(path.clone()), 0, SocketAccess::default()).unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener of std does not remove its file");
        let living = Listener::bind(&Interface::Path(path.clone()), 0, SocketAccess::default()).unwrap();
        let error = Listener::bind(&Interface::Path(path.clone()), 0, SocketAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot bind {}: Address already in use", path.display()));
        // The refused bind must not have removed the file.
        assert!(path.exists());
        drop(living);
    }

    #[test]
    fn a_path_that_cannot_be_a_socket_is_a_one_line_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        for (path, why) in [
            (file.clone(), "a file that is not a socket is in the way"),
            (folder.path().join("missing/s"), "No such file or directory"),
            (folder.path().join("x".repeat(120)), "File name too long"),
        ] {
            let error =
                Listener::bind(&Interface::Path(path.clone()), 0, SocketAccess::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot bind {}: {why}", path.display()));
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn an_abstract_name_is_bound_once() {
        let name = format!("kapo-listener-test-{}", std::process::id());
        let interface = Interface::Abstract(name.clone().into_bytes());
        let listener = Listener::bind(&interface, 0, SocketAccess::default()).unwrap();
        assert_eq!(listener.address(), format!("@{name}"));
        let error = Listener::bind(&interface, 0, SocketAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot bind @{name}: Address already in use"));
    }

    #[test]
    fn a_blocking_inherited_listener_is_drained_without_blocking() {
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = inherited.local_addr().unwrap();
        let listener = Listener::adopt(inherited.into()).unwrap();
        assert_eq!((listener.address(), listener.port()), (&*address.to_string(), Some(address.port())));
        let mut accepted = Vec::new();
        assert_eq!(listener.accept(&mut accepted), Accepted::Drained);
        let _peer = TcpStream::connect(address).unwrap();
        accept_one(&listener);
    }

    #[test]
    fn many_connections_are_accepted_in_batches() {
        let listener = Listener::bind(&loopback(), 0, SocketAccess::default()).unwrap();
        let clients = BATCH + 1;
        let _peers: Vec<_> = (0..clients)
            .map(|_| TcpStream::connect(("127.0.0.1", listener.port().unwrap())).unwrap())
            .collect();
        let mut accepted = Vec::new();
        assert_eq!(listener.accept(&mut accepted), Accepted::More);
        assert_eq!(accepted.len(), BATCH);
        assert_eq!(listener.accept(&mut accepted), Accepted::Drained);
        assert_eq!(accepted.len(), clients);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_broken() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let listener = Listener::adopt(socket.into()).unwrap();
        assert_eq!(listener.accept(&mut Vec::new()), Accepted::Broken);
    }

    /// Runs in a process of its own because the limit applies to all threads of a process.
    #[test]
    fn without_descriptors_a_connection_waits_in_the_queue() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        use std::os::fd::AsRawFd;

        const NAME: &str =
            "driver::http::listener::tests::without_descriptors_a_connection_waits_in_the_queue";
        if std::env::var_os("KAPO_TEST_STARVED").is_none() {
            let own = std::env::current_exe().unwrap();
            let child = std::process::Command::new(own)
                .args(["--exact", NAME, "--nocapture"])
                .env("KAPO_TEST_STARVED", "1")
                .output()
                .unwrap();
            assert!(child.status.success(), "{child:?}");
            assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
            return;
        }
        let listener = Listener::bind(&loopback(), 0, SocketAccess::default()).unwrap();
        let _peer = TcpStream::connect(("127.0.0.1", listener.port().unwrap())).unwrap();
        let free = listener.socket.try_clone().unwrap();
        let lowest = u64::try_from(free.as_raw_fd()).unwrap();
        drop(free);
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lowest), maximum: before.maximum }).unwrap();
        assert_eq!(listener.accept(&mut Vec::new()), Accepted::Starved);
        setrlimit(Resource::Nofile, before).unwrap();
        accept_one(&listener);
    }
}
