//! Resolves a host name with the C library, one address family at a time: if both are requested at once, musl reports
//! a failure even if only one of the two queries fails.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Returns the addresses of that family, at least one, or the reason why there is none. Blocks for as long as the
/// resolver does, which has no deadline (getaddrinfo(3)).
pub(crate) fn addresses(name: &CStr, family: IpFamily) -> Result<Vec<IpAddr>, String> {
    // SAFETY: all zeros is a valid addrinfo: null pointers, and 0 for "any".
    let mut hints: libc::addrinfo = unsafe { MaybeUninit::zeroed().assume_init() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match family {
        IpFamily::V4 => libc::AF_INET,
        IpFamily::V6 => libc::AF_INET6,
    };
    let mut list = ptr::null_mut();
    // SAFETY: `name` ends with NUL, `hints` and `list` live until the call returns.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code == libc::EAI_SYSTEM {
        return Err(io::Error::last_os_error().to_string());
    }
    if code != 0 {
        // SAFETY: gai_strerror accepts any code.
        let text = unsafe { libc::gai_strerror(code) };
        // SAFETY: gai_strerror returned a string that ends with NUL and is never freed or changed.
        let text = unsafe { CStr::from_ptr(text) };
        return Err(text.to_string_lossy().into_owned());
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the pointer is not null and refers to an entry of the list, which is not freed yet.
        let entry = unsafe { &*next };
        found.extend(address(entry));
        next = entry.ai_next;
    }
    // SAFETY: getaddrinfo made the list, and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(list) };
    if found.is_empty() { Err("no address".to_owned()) } else { Ok(found) }
}

fn address(entry: &libc::addrinfo) -> Option<IpAddr> {
    let size = usize::try_from(entry.ai_addrlen).ok()?;
    match entry.ai_family {
        libc::AF_INET if size >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: an address of this family is a sockaddr_in of at least that size.
            let address = unsafe { ptr::read_unaligned(entry.ai_addr.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 if size >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: an address of this family is a sockaddr_in6 of at least that size.
            let address = unsafe { ptr::read_unaligned(entry.ai_addr.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_address_has_one_family() {
        let (v4, v6) = ([127, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into());
        assert_eq!(addresses(c"127.0.0.1", IpFamily::V4), Ok(vec![v4]));
        assert_eq!(addresses(c"::1", IpFamily::V6), Ok(vec![v6]));
        assert!(addresses(c"127.0.0.1", IpFamily::V6).is_err());
        assert!(addresses(c"::1", IpFamily::V4).is_err());
    }
}
