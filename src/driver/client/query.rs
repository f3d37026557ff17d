//! One request to a Unix socket of the working directory: for the document, or for the stream of documents.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send};

use super::exchange::{Head, parse};
use crate::logic::client::body::Body;
use crate::logic::client::ls::events;

/// The maximum length of a head, in bytes. The head of a kapo is shorter.
const LONGEST_HEAD: usize = 8 << 10;
/// The maximum length of a document, in bytes.
const LONGEST: usize = 1 << 20;

/// HTTP/1.0, so that the stream is not divided into chunks.
const VERSION: &str = concat!(" HTTP/1.0\r\nUser-Agent: kapo/", env!("CARGO_PKG_VERSION"), "\r\n\r\n");

/// An open connection.
pub(super) struct Query {
    socket: OwnedFd,
    /// Whether the answer is the stream of documents.
    pub follows: bool,
    /// When the connection was made.
    pub began: Instant,
    received: Vec<u8>,
    /// How the body ends, when the head has been read. Only the body is left in `received` then.
    body: Option<Body>,
}

/// The result of a read.
pub(super) enum Reading {
    /// The document is not complete.
    More,
    /// A whole document.
    Document(Vec<u8>),
    /// The connection has ended without one.
    Ended,
    /// This kapo has no stream left.
    Busy,
    /// This is not the answer of a kapo.
    Foreign,
}

impl Query {
    /// Connects without waiting, and sends the request.
    pub(super) fn open(file: &[u8], follows: bool, began: Instant) -> Result<Query, Errno> {
        let socket = connect(file)?;
        let request = [if follows { "GET /events" } else { "GET /" }, VERSION].concat();
        // If the peer is gone already, the read reports it. The buffer of a new socket has room.
        let _ = send(&socket, request.as_bytes(), SendFlags::NOSIGNAL);
        Ok(Query { socket, follows, began, received: Vec::new(), body: None })
    }

    /// Reads once.
    pub(super) fn read(&mut self) -> Reading {
        let mut buffer = [0; 16_384];
        let bytes = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, length)) => buffer.get(..length).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Reading::More,
            Err(_) => &[],
        };
        let received = &mut self.received;
        received.extend_from_slice(bytes);
        if self.body.is_none() {
            match parse(received) {
                Ok(Some(Head { status: 200, body, end, .. })) => {
                    received.drain(..end);
                    self.body = Some(body);
                }
                Ok(Some(Head { status: 503, .. })) if self.follows => return Reading::Busy,
                // A kapo that exits may close a connection that it has not read.
                Ok(None) if received.is_empty() => return Reading::Ended,
                Ok(None) if !bytes.is_empty() && received.len() <= LONGEST_HEAD => return Reading::More,
                _ => return Reading::Foreign,
            }
        }
        let complete = match self.body {
            _ if self.follows => {
                let newest = events::newest(received);
                if newest.is_some() {
                    // Most streams are silent for a long time.
                    received.shrink_to_fit();
                }
                newest
            }
            Some(Body::Length(length)) if u64::try_from(received.len()).is_ok_and(|got| got >= length) => {
                Some(std::mem::take(received))
            }
            Some(Body::Connection) if bytes.is_empty() => Some(std::mem::take(received)),
            _ => None,
        };
        match complete {
            _ if received.len() > LONGEST => Reading::Foreign,
            Some(document) if document.len() <= LONGEST => Reading::Document(document),
            None if !bytes.is_empty() => Reading::More,
            None if self.follows => Reading::Ended,
            _ => Reading::Foreign,
        }
    }
}

impl AsFd for Query {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Connects without waiting to a socket of the working directory.
pub(super) fn connect(file: &[u8]) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(file)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    crate::sys::passrights::refuse(socket.as_fd());
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
