//! One request and its answer, with one deadline for the whole: resolving, connecting, sending, reading.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::error::reason;
use crate::sys::clock;
use crate::target::{Peer, Target};

/// A head longer than this is no answer of a kapo, nor is a body worth reading further.
const MOST: usize = 64 << 10;
/// The most fields in a head, as many as kapo itself takes.
const FIELDS: usize = 128;

/// What of an answer is of interest.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599, or what somebody made up above.
    pub status: u16,
    /// The field Kapo-Exit-Code.
    pub kapo_exit_code: Option<u8>,
    /// As much as came, where it was asked for.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The deadline has passed.
    TimedOut,
    /// Anything else, in one line.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Other(line) => f.write_str(line),
        }
    }
}

/// The moment when the whole must be over; `None`: never.
#[derive(Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    /// What is left, never zero, which as a time-out would mean for ever.
    fn left(self) -> Result<Option<Duration>, Failure> {
        let Some(end) = self.0 else { return Ok(None) };
        let (now, _) = clock::now();
        match end.checked_duration_since(now) {
            Some(left) if left > Duration::ZERO => Ok(Some(left)),
            _ => Err(Failure::TimedOut),
        }
    }
}

/// Sends `GET` and reads the answer; the body only when `body` is set and the answer is a failure, whose reason it is, and
/// no longer than there is time.
pub fn exchange(target: &Target, timeout: Option<Duration>, body: bool) -> Result<Answer, Failure> {
    // A moment beyond the clock's range is never.
    let deadline = Deadline(timeout.and_then(|timeout| clock::now().0.checked_add(timeout)));
    let mut stream = connect(&target.peer, deadline)?;
    let Target { authority, path, peer } = target;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: kapo/{}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Other(format!("cannot talk to {peer}: {}", reason(&error))),
    };
    stream.limit(deadline)?;
    // The answer may have come already where the request is not taken to its end.
    let sent = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let late = loop {
        match parse(&text) {
            Err(Malformed) => return Err(Failure::Other(format!("no HTTP answer from {peer}"))),
            Ok(Some((answer, length))) => {
                let whole = length.is_some_and(|length| answer.body.len() >= length) || text.len() > MOST;
                if !body || whole || (200..300).contains(&answer.status) {
                    return Ok(answer);
                }
            }
            Ok(None) if text.len() > MOST => {
                return Err(Failure::Other(format!("the head of {peer}'s answer has no end")));
            }
            Ok(None) => {}
        }
        if let Err(late) = stream.limit(deadline) {
            break late;
        }
        let mut buffer = [0; 2_048];
        match stream.read(&mut buffer) {
            Ok(0) => break Failure::Other(format!("{peer} closed the connection without an answer")),
            Ok(n) => text.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break failed(error),
        }
    };
    match (parse(&text), sent) {
        // What came of a failure's reason is better than none.
        (Ok(Some((answer, _))), _) => Ok(answer),
        (_, Err(error)) => Err(failed(error)),
        _ => Err(late),
    }
}

struct Malformed;

/// The answer and the length of its body where that is said; `None` while the head is not complete.
fn parse(text: &[u8]) -> Result<Option<(Answer, Option<usize>)>, Malformed> {
    let mut rest = text;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(parsed) = head.parse(rest) else { return Err(Malformed) };
        let httparse::Status::Complete(end) = parsed else { return Ok(None) };
        let status = head.code.ok_or(Malformed)?;
        let body = rest.get(end..).unwrap_or_default();
        if status < 100 {
            return Err(Malformed);
        }
        // An interim answer; the final one follows (RFC 9110, 15.2).
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let answer = Answer {
            status,
            kapo_exit_code: field("Kapo-Exit-Code").and_then(|code| code.trim().parse().ok()),
            body: match field("Transfer-Encoding") {
                // Not worth a decoder: a kapo sends none, and for others the status is enough.
                Some(_) => Vec::new(),
                None => body.to_vec(),
            },
        };
        let length = match (status, field("Transfer-Encoding")) {
            (204 | 304, _) | (_, Some(_)) => Some(0),
            _ => field("Content-Length").and_then(|length| length.trim().parse().ok()),
        };
        return Ok(Some((answer, length)));
    }
}

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// The next read or write ends with the deadline.
    fn limit(&self, deadline: Deadline) -> Result<(), Failure> {
        let left = deadline.left()?;
        let set = match self {
            Stream::Tcp(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
            Stream::Unix(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
        };
        set.map_err(|error| Failure::Other(format!("cannot set a time-out: {}", reason(&error))))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

fn connect(peer: &Peer, deadline: Deadline) -> Result<Stream, Failure> {
    let cannot = |why: &str| Failure::Other(format!("cannot connect to {peer}: {why}"));
    let address = match peer {
        Peer::Tcp(name, port) => return connect_tcp(name, *port, deadline, cannot),
        Peer::Path(path) => SocketAddrUnix::new(path.as_slice()),
        Peer::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
    };
    let errno = |error: rustix::io::Errno| match error {
        // A listener's queue that stays full.
        rustix::io::Errno::AGAIN => Failure::TimedOut,
        error => cannot(&reason(&error.into())),
    };
    let address = address.map_err(errno)?;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(errno)?;
    // For Unix sockets the time to send also limits the time to connect (unix(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, deadline.left()?).map_err(errno)?;
    rustix::net::connect(&socket, &address).map_err(errno)?;
    Ok(Stream::Unix(socket.into()))
}

fn connect_tcp(
    name: &str,
    port: u16,
    deadline: Deadline,
    cannot: impl Fn(&str) -> Failure,
) -> Result<Stream, Failure> {
    let addresses = resolve(name, port, deadline)?;
    let mut last = cannot("the name has no address");
    for address in addresses {
        let connected = match deadline.left()? {
            Some(left) => TcpStream::connect_timeout(&address, left),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => {
                keep_alive(&stream);
                return Ok(Stream::Tcp(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && deadline.left().is_err() => {
                return Err(Failure::TimedOut);
            }
            Err(error) => last = cannot(&reason(&error)),
        }
    }
    Err(last)
}

/// A wait may last for days: a peer that vanished without a word is noticed, and what stands between does not forget
/// the connection. Where it cannot be set, nothing is lost but that.
fn keep_alive(stream: &TcpStream) {
    let socket = stream.as_fd();
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(socket, Duration::from_secs(20));
}

fn resolve(name: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    // In an image without /etc/hosts nobody else knows this name (RFC 6761, 6.3).
    if name.eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let cannot = |why: &str| Failure::Other(format!("cannot resolve {name}: {why}"));
    // The resolver knows no deadline of ours; when it is late, it is left behind and ends with the process.
    let (answer, answered) = mpsc::channel();
    let host = name.to_owned();
    let resolver = std::thread::Builder::new().spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more when it was late.
        let _ = answer.send(addresses);
    });
    resolver.map_err(|error| cannot(&reason(&error)))?;
    let resolved = match deadline.left()? {
        Some(left) => answered.recv_timeout(left).map_err(|_| Failure::TimedOut)?,
        None => answered.recv().map_err(|_| cannot("the resolver ended without an answer"))?,
    };
    resolved.map_err(|error| cannot(&reason(&error)))
}
