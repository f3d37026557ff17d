//! Reads the kernel's process connector (`--process-events`). It reports forks, execs and changes of names, so that
//! kapo need not scan while no process starts. It reports pids of the initial PID namespace, only to listeners in the
//! initial network namespace, and filters (since Linux 6.6) only for listeners in the initial user namespace. In other
//! namespaces [`ProcessEvents::open`] fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with,
};

use crate::logic::ProcessId;
use crate::logic::watch::WatchEvent;

/// CN_IDX_PROC and CN_VAL_PROC of <linux/connector.h>. The multicast group has the same number.
const PROC: u32 = 1;
/// The message type that cn_proc.c expects: NLMSG_DONE of <linux/netlink.h>.
const NLMSG_DONE: u16 = 3;
/// PROC_CN_MCAST_LISTEN of <linux/cn_proc.h>.
const LISTEN: u32 = 1;
/// The size of struct nlmsghdr and struct cn_msg.
const HEADS: usize = 16 + 20;

// The kinds of struct proc_event.
const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const COMM: u32 = 0x200;

/// The inode numbers of the initial namespaces, which are fixed: PROC_PID_INIT_INO and PROC_USER_INIT_INO of the
/// kernel.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// A subscription to the process connector.
#[derive(Debug)]
pub(crate) struct ProcessEvents {
    socket: OwnedFd,
}

impl ProcessEvents {
    /// Subscribes. The error is the reason for the log.
    pub(crate) fn open() -> Result<ProcessEvents, &'static str> {
        let namespace = |path| rustix::fs::stat(path).map(|s| s.st_ino).unwrap_or(0);
        if namespace(c"/proc/self/ns/pid") != FIRST_PID_NAMESPACE {
            return Err("not in the first PID namespace");
        }
        if namespace(c"/proc/self/ns/user") != FIRST_USER_NAMESPACE {
            return Err("not in the first user namespace");
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR))
            .map_err(|_| "this kernel has no connector")?;
        bind(&socket, &SocketAddrNetlink::new(0, PROC)).map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => "no permission (before Linux 6.6 it takes CAP_NET_ADMIN)",
            _ => "the connector cannot be bound",
        })?;
        let events = ProcessEvents { socket };
        // Subscribe without a filter first, because a filter would also drop the answer to the subscription. A kernel
        // older than 6.6 ignores the longer message that carries the filter.
        events.listen(&[LISTEN])?;
        if !events.is_accepted()? {
            return Err("the connector does not answer");
        }
        events.listen(&[LISTEN, FORK | EXEC | COMM])?;
        Ok(events)
    }

    fn listen(&self, words: &[u32]) -> Result<(), &'static str> {
        let message = message(words);
        match sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)) {
            Ok(_) => Ok(()),
            Err(Errno::CONNREFUSED) => {
                Err("not in the first network namespace, or the kernel has no process connector")
            }
            Err(_) => Err("the connector takes no subscription"),
        }
    }

    /// Whether the subscription was accepted. The kernel handles it while the message is sent, so its answer is
    /// already in the socket, among events for earlier listeners.
    fn is_accepted(&self) -> Result<bool, &'static str> {
        loop {
            match self.receive(&mut [0; 256], |kind, body| (kind == NONE).then(|| word(body, 0) == Some(0))) {
                Ok(Some(true)) => return Ok(true),
                Ok(Some(false)) => return Err("no permission"),
                Ok(None) => {}
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => return Ok(false),
            }
        }
    }

    /// Passes at most `budget` received events to `each`. Returns whether all were read.
    pub(crate) fn drain(&self, budget: usize, mut each: impl FnMut(WatchEvent<'static>)) -> bool {
        let mut buffer = [0; 256];
        for _ in 0..budget {
            match self.receive(&mut buffer, read) {
                Ok(Some(event)) => each(event),
                Ok(None) | Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => each(WatchEvent::Missed),
                Err(_) => return true,
            }
        }
        false
    }

    /// Receives one event and returns its kind and the data after the time stamp.
    fn receive<T>(
        &self,
        buffer: &mut [u8; 256],
        read: impl FnOnce(u32, &[u8]) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        let (_, len, from) = recvfrom(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        // Only the kernel sends from port 0.
        let kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        let event = buffer.get(HEADS..len).filter(|_| kernel).unwrap_or_default();
        Ok(word(event, 0).and_then(|kind| read(kind, event.get(16..).unwrap_or_default())))
    }
}

impl AsFd for ProcessEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns the n-th 32-bit word of a message.
fn word(bytes: &[u8], n: usize) -> Option<u32> {
    let (bytes, _) = bytes.get(4 * n..)?.split_first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// Converts an event; `None` for events of threads.
fn read(kind: u32, body: &[u8]) -> Option<WatchEvent<'static>> {
    let pid = |n| word(body, n).and_then(|pid| i32::try_from(pid).ok()).and_then(ProcessId::new);
    // The event names a thread and its process. They are equal for the main thread.
    let process = |n| pid(n).filter(|thread| pid(n + 1) == Some(*thread));
    match kind {
        // The ids of the child follow the two of the parent.
        FORK => Some(WatchEvent::Forked { pid: process(2)? }),
        EXEC => Some(WatchEvent::Executed { pid: process(0)? }),
        COMM => Some(WatchEvent::Renamed { pid: process(0)? }),
        _ => None,
    }
}

/// Builds a message to the process connector, with both headers.
fn message(words: &[u32]) -> Vec<u8> {
    let body = u16::try_from(4 * words.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADS + 8);
    bytes.extend_from_slice(&(36 + u32::from(body)).to_ne_bytes());
    bytes.extend_from_slice(&NLMSG_DONE.to_ne_bytes());
    bytes.extend_from_slice(&[0; 10]);
    for word in [PROC, PROC, 0, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&body.to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn the_subscription_has_the_layout_the_kernel_expects() {
        let bytes = message(&[LISTEN, 0x203]);
        let words: Vec<u32> = (0..bytes.len() / 4).map_while(|n| word(&bytes, n)).collect();
        // Length, type and flags, sequence, sender; PROC twice, sequence, acknowledgement, length and flags; payload.
        assert_eq!(words, [44, 3, 0, 0, 1, 1, 0, 0, 8, 1, 0x203]);
        assert_eq!(message(&[LISTEN]).len(), 40);
    }

    #[test]
    fn events_of_threads_are_ignored() {
        let pid = |n| ProcessId::new(n).unwrap();
        for (kind, words, expected) in [
            (FORK, &[1, 1, 7, 7][..], Some(WatchEvent::Forked { pid: pid(7) })),
            (FORK, &[2, 1, 7, 7], Some(WatchEvent::Forked { pid: pid(7) })),
            (FORK, &[1, 1, 8, 7], None),
            (EXEC, &[7, 7], Some(WatchEvent::Executed { pid: pid(7) })),
            (COMM, &[7, 7, 0, 0, 0, 0], Some(WatchEvent::Renamed { pid: pid(7) })),
            (COMM, &[8, 7, 0, 0, 0, 0], None),
            (NONE, &[7, 7], None),
            (0x8000_0000, &[7, 7], None),
            (EXEC, &[0, 0], None),
            (EXEC, &[u32::MAX, u32::MAX], None),
            (FORK, &[1, 1, 7], None),
            (EXEC, &[], None),
        ] {
            assert_eq!(read(kind, &body(words)), expected, "{kind} {words:?}");
        }
    }
}
