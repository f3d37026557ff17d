//! The service manager that started kapo: datagrams to its NOTIFY_SOCKET (sd_notify(3)), never waiting for it. The
//! words are those of `logic::notify::message`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

use crate::error::reason;
use crate::logic::Now;
use crate::logic::log::record::Record;
use crate::logic::notify::message;
use crate::logic::notify::outbox::NotifyQueue;

/// After a datagram was refused, as nobody has read for a while, the next try is made this much later.
const RETRY: Duration = Duration::from_secs(1);
/// The number of tries; after them only state messages wait, without a timer, for the next datagram.
const TRIES: u32 = 30;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// Half of WATCHDOG_USEC.
    interval: Option<Duration>,
    next_ping: Option<Instant>,
    waiting: NotifyQueue,
    tries: u32,
    retry: Option<Instant>,
    /// Why nobody hears us; said once.
    deaf: Option<Errno>,
    said: bool,
}

impl ServiceManager {
    /// Out of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; `None`: nobody wants to hear of us, or the address is of
    /// a kind that is not known here, which sd_notify(3) treats as no error either.
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
        let interval = interval.map(|interval| interval / 2);
        let next_ping = interval.map(|_| now.mono);
        Some(ServiceManager {
            socket,
            address,
            interval,
            next_ping,
            waiting: NotifyQueue::default(),
            tries: 0,
            retry: None,
            deaf: None,
            said: false,
        })
    }

    /// Sends a datagram. If the manager's queue is full, kapo tries again every second for a while; what waits then is
    /// the decision of [`NotifyQueue`].
    pub(crate) fn tell(&mut self, now: Now, datagram: Vec<u8>) {
        self.waiting.push(datagram);
        self.flush(now);
    }

    fn flush(&mut self, now: Now) {
        while let Some(datagram) = self.waiting.first() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendto(&self.socket, datagram, flags, &self.address) {
                Err(Errno::AGAIN) if self.tries < TRIES => {
                    // Counted by time, not by how much there is to say.
                    if self.retry.is_none_or(|at| at <= now.mono) {
                        self.tries += 1;
                        self.retry = now.mono.checked_add(RETRY);
                    }
                    return;
                }
                Err(Errno::AGAIN) => {
                    self.waiting.keep_states();
                    self.retry = None;
                    return;
                }
                // Any other error is final for this datagram: the socket is gone or not ours to use.
                sent => {
                    self.deaf = self.deaf.or(sent.err());
                    self.waiting.remove_first();
                }
            }
        }
        (self.tries, self.retry) = (0, None);
    }

    /// When [`ServiceManager::turn`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.next_ping, self.retry].into_iter().flatten().min()
    }

    /// Pings, as the loop turns, and tries again. What is to be said in the log, once: a service that systemd waits for
    /// in vain would end without an explanation.
    pub(crate) fn turn(&mut self, now: Now) -> Option<Record> {
        if let Some(interval) = self.interval
            && self.next_ping.is_some_and(|at| at <= now.mono)
        {
            self.next_ping = now.mono.checked_add(interval);
            self.tell(now, b"WATCHDOG=1".to_vec());
        }
        if self.retry.is_some_and(|at| at <= now.mono) {
            self.flush(now);
        }
        let errno = self.deaf.filter(|_| !self.said)?;
        self.said = true;
        Some(Record::warn("NOTIFY_SOCKET cannot be reached").with("error", reason(&errno.into())))
    }
}
