//! Sends datagrams to the service manager that started kapo (NOTIFY_SOCKET, sd_notify(3)) without waiting for it.
//! `logic::notify::message` composes them.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

use crate::error::reason;
use crate::logic::Now;
use crate::logic::log::record::Record;
use crate::logic::notify::message;
use crate::logic::notify::outbox::{Outbox, SendOutcome};

/// The socket of the service manager and the datagrams for it.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: OwnedFd,
    address: SocketAddrUnix,
    outbox: Outbox,
}

impl ServiceManager {
    /// Opens the socket that NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID describe. `None` if no manager asks for
    /// notifications, or if the kind of address is unknown, which sd_notify(3) does not treat as an error either.
    pub(crate) fn of(now: Now, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<ServiceManager> {
        let name = variable("NOTIFY_SOCKET")?;
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok()?,
            path @ [b'/', ..] => SocketAddrUnix::new(path).ok()?,
            _ => return None,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let interval =
            message::watchdog(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), own);
        Some(ServiceManager { socket, address, outbox: Outbox::new(now, interval) })
    }

    /// Sends a datagram now, or later if the manager's queue is full; see [`Outbox`].
    pub(crate) fn tell(&mut self, now: Now, datagram: Vec<u8>) {
        self.outbox.push(datagram);
        self.flush(now);
    }

    fn flush(&mut self, now: Now) {
        while let Some(datagram) = self.outbox.first() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let delivery = match sendto(&self.socket, datagram, flags, &self.address) {
                Ok(_) => SendOutcome::Accepted,
                Err(Errno::AGAIN) => SendOutcome::Full,
                Err(errno) => SendOutcome::Failed(reason(&errno.into())),
            };
            if !self.outbox.sent(now, delivery) {
                break;
            }
        }
    }

    /// Returns when [`ServiceManager::turn`] must be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outbox.deadline()
    }

    /// Sends due pings and waiting datagrams. Returns a record for the log, if any.
    pub(crate) fn turn(&mut self, now: Now) -> Option<Record> {
        if self.outbox.turn(now) {
            self.flush(now);
        }
        self.outbox.take_record()
    }
}
