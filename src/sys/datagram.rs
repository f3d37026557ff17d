//! Receives one datagram with its sender's pid (recvmsg(2), SCM_CREDENTIALS). A sender outside kapo's PID namespace
//! has pid 0, which the type of a pid in rustix cannot hold.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::passrights;

/// Maximum number of descriptors in one datagram; the kernel has the same limit (SCM_MAX_FD).
pub(crate) const DESCRIPTORS: usize = 253;
/// Room for these descriptors and the credentials, each with its header, in 8-byte words because headers must be
/// aligned.
const CONTROL: usize = (DESCRIPTORS * size_of::<RawFd>() + size_of::<libc::ucred>()) / 8 + 8;

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Number of bytes.
    pub length: usize,
    /// Whether the whole datagram fitted into the buffer.
    pub whole: bool,
    /// The sender's pid; 0 if it is outside kapo's PID namespace, `None` if the socket has no SO_PASSCRED.
    pub sender: Option<i32>,
}

/// Receives the next datagram without blocking, and closes all descriptors in it after switching SO_LINGER off. If
/// they were not received, the kernel would close them, and would block kapo if one is a socket that lingers.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Datagram> {
    let mut control = [const { MaybeUninit::<u64>::uninit() }; CONTROL];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr: nothing to read into, and no control data.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a small constant, whose type differs between glibc and musl"
    )]
    {
        message.msg_controllen = size_of_val(&control) as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all pointers in the message are to memory of this function that has the given length and outlives the
    // call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut sender = None;
    // SAFETY: the kernel has filled the control data and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: the pointer is not null, so a whole, aligned header lies within the control data.
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { *header };
        // SAFETY: the data after the header lies within the control data or begins one past its end.
        let data = unsafe { libc::CMSG_DATA(header) };
        let inside = (header as usize).saturating_add(size(cmsg_len)).saturating_sub(data as usize);
        match (cmsg_level, cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if inside >= size_of::<libc::ucred>() => {
                // SAFETY: the length was checked above, and the type holds plain integers.
                sender = Some(unsafe { ptr::read_unaligned(data.cast::<libc::ucred>()) }.pid);
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for place in 0..inside / size_of::<RawFd>() {
                    close(data.cast::<RawFd>(), place);
                }
            }
            _ => {}
        }
        // SAFETY: the header belongs to this message.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Datagram { length, whole: message.msg_flags & libc::MSG_TRUNC == 0, sender })
}

/// Closes the received descriptor at `place`.
fn close(descriptors: *const RawFd, place: usize) {
    // SAFETY: the caller has counted how many there are.
    let at = unsafe { descriptors.add(place) };
    // SAFETY: the address is within what the kernel has written; CMSG_DATA need not be aligned for this type.
    let fd = unsafe { ptr::read_unaligned(at) };
    // SAFETY: the kernel has just created this descriptor for kapo, and nothing else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
    passrights::switch_linger_off(descriptor.as_fd());
}

/// Converts `cmsg_len`, which is a size_t in glibc and a socklen_t in musl.
fn size(length: impl TryInto<usize>) -> usize {
    length.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

    use super::*;

    #[test]
    fn bytes_and_sender_come_and_descriptors_are_closed() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        sockopt::set_socket_passcred(&ours, true).unwrap();
        let (kept, given) = rustix::pipe::pipe().unwrap();
        let many = [given.as_fd(); DESCRIPTORS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(&theirs, &[IoSlice::new(b"READY=1")], &mut control, SendFlags::empty()).unwrap();
        drop(given);
        let mut bytes = [0; 64];
        let got = receive(ours.as_fd(), &mut bytes).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(got, Datagram { length: 7, whole: true, sender: Some(own) });
        assert_eq!(&bytes[..7], b"READY=1");
        assert_eq!(rustix::io::read(&kept, &mut [0; 8]), Ok(0), "the other end is closed");
        theirs.send(&[b'x'; 100]).unwrap();
        assert_eq!(
            receive(ours.as_fd(), &mut bytes).unwrap(),
            Datagram { length: 64, whole: false, sender: Some(own) }
        );
        let nothing = receive(ours.as_fd(), &mut bytes).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
