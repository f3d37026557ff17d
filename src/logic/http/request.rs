//! Parses a complete head into a [`Request`], or refuses it with a status. It is strict also in cases in which RFC 9110
//! and RFC 9112 allow leniency, because request smuggling relies on two programs that read the same bytes differently.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::framing::Framing;
use super::head::{FIELD_LIMIT, is_token};
use super::refusal::{Refusal, UNKNOWN_METHOD, bad};
use super::{Method, Persist, Request};

/// A request and what it requires of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The request.
    pub request: Request<'a>,
    /// Whether the connection stays open after the answer.
    pub persist: Persist,
    /// A body follows the head; kapo discards it.
    pub body: bool,
    /// The framing of a stream that this peer understands.
    pub framing: Framing,
}

/// The value of the Allow field: the methods of [`Method`]. All others are refused.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The IANA HTTP Method Registry without the methods that are answered. It includes PRI, with which HTTP/2 begins.
const REGISTERED: [&str; 37] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// The length of the longest registered method, UPDATEREDIRECTREF.
pub const METHOD_LIMIT: usize = 17;

/// Parses a head that [`super::head::Search`] found complete: its lines end in CRLF, and its request line has three
/// words and version 1.0 or 1.1.
pub fn parse(head: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let mut room = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(head, &mut room) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::HeaderName) => return Err(bad("a field name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(bad("a field value is malformed")),
        _ => return Err(bad("the request head is malformed")),
    }
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(bad("the request head is malformed"));
    };
    let fields = Fields::read(raw.headers, minor)?;
    let (path, query) = match method {
        "CONNECT" => {
            connect_target(target)?;
            (target, None)
        }
        _ => split_target(target, method)?,
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        other if REGISTERED.contains(&other) => {
            return Err(Refusal { status: 405, why: "only GET, HEAD and OPTIONS are answered" });
        }
        _ => return Err(UNKNOWN_METHOD),
    };
    let persist = match (minor, fields.body || fields.close) {
        (_, true) => Persist::Close,
        (0, false) if fields.keep_alive => Persist::OpenAndSay,
        (0, false) => Persist::Close,
        _ => Persist::Open,
    };
    let Fields { host, accept, accept_encoding, last_event_id, navigates, .. } = fields;
    let request = Request { method, path, query, host, accept, accept_encoding, last_event_id, navigates };
    let framing = if minor == 0 { Framing::UntilClose } else { Framing::Chunked };
    Ok(Parsed { request, persist, body: fields.body, framing })
}

/// The fields that concern host, framing and persistence.
#[derive(Default)]
struct Fields<'a> {
    close: bool,
    keep_alive: bool,
    body: bool,
    host: &'a str,
    accept: &'a str,
    accept_encoding: &'a str,
    last_event_id: &'a str,
    navigates: bool,
}

impl<'a> Fields<'a> {
    fn read(raw: &[httparse::Header<'a>], minor: u8) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        let (mut host, mut length) = (None, None);
        let (mut codings, mut accepts) = (Codings::default(), false);
        for field in raw {
            // Most names differ in length, so comparing the length first saves comparisons.
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                4 if is("Host") => once(&mut host, field.value, "more than one Host field")?,
                // Several Accept fields form one list (RFC 9110, section 5.3). They are not joined: such a client gets
                // the default format.
                6 if is("Accept") => {
                    fields.accept = if accepts { "" } else { text(field.value) };
                    accepts = true;
                }
                10 if is("Connection") => {
                    for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        fields.close |= option.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                13 if is("Last-Event-ID") => fields.last_event_id = text(field.value),
                14 if is("Content-Length") => {
                    once(&mut length, field.value, "more than one Content-Length field")?;
                }
                15 if is("Accept-Encoding") => fields.accept_encoding = text(field.value),
                17 if is("Transfer-Encoding") => codings.read(field.value)?,
                25 if is("Upgrade-Insecure-Requests") => fields.navigates = field.value == b"1",
                _ => {}
            }
        }
        match host {
            None if minor == 1 => return Err(bad("no Host field")),
            // Host is empty if the target has no authority (RFC 9112, section 3.2).
            None | Some(b"") => {}
            Some(host) if authority(host).is_some() => fields.host = text(host),
            Some(_) => return Err(bad("the Host field is not a valid authority")),
        }
        if codings.present {
            if minor == 0 {
                return Err(bad("Transfer-Encoding in HTTP/1.0"));
            }
            if length.is_some() {
                return Err(bad("Content-Length beside Transfer-Encoding"));
            }
            if codings.unknown {
                return Err(Refusal { status: 501, why: "the transfer coding is unknown" });
            }
            fields.body = true;
        }
        if let Some(length) = length {
            if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
                return Err(bad("Content-Length is not a number"));
            }
            // RFC 9110, section 8.6: a length that overflows must not be read as another number.
            let length = text(length).parse::<u64>();
            fields.body = length.map_err(|_| bad("Content-Length is out of range"))? > 0;
        }
        Ok(fields)
    }
}

/// Stores the value of a field that may occur only once.
fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], why: &'static str) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(why)),
    }
}

/// Returns a field value as text; empty if it is not UTF-8, because no value that kapo knows needs more than ASCII.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// The transfer codings of a request from all its Transfer-Encoding fields (RFC 9112, sections 6.1 and 7).
#[derive(Default)]
struct Codings {
    present: bool,
    chunked: bool,
    unknown: bool,
}

impl Codings {
    fn read(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.present = true;
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if self.chunked {
                return Err(bad("chunked is not the last transfer coding, or is there twice"));
            }
            let mut parts = coding.splitn(2, |byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            if name.is_empty() || !name.iter().copied().all(is_token) {
                return Err(bad("Transfer-Encoding is malformed"));
            }
            if !name.eq_ignore_ascii_case(b"chunked") {
                self.unknown = true;
            } else if parts.next().is_some() {
                return Err(bad("chunked has no parameters"));
            } else {
                self.chunked = true;
            }
        }
        Ok(())
    }
}

/// Splits a target into path and query: origin-form, absolute-form or, for OPTIONS, `*`.
fn split_target<'a>(target: &'a str, method: &str) -> Result<(&'a str, Option<&'a str>), Refusal> {
    if target == "*" {
        return match method {
            "OPTIONS" => Ok((target, None)),
            _ => Err(bad("* is a target for OPTIONS only")),
        };
    }
    let origin = if target.starts_with('/') {
        target
    } else {
        let rest = scheme(target).ok_or(bad("the request target is malformed"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, origin) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if host.is_empty() || authority(host.as_bytes()).is_none() {
            return Err(bad("the request target has no valid authority"));
        }
        origin
    };
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    };
    Ok(match path {
        // RFC 9112, section 3.2.4: OPTIONS with an absolute-form target without a path refers to the whole server.
        "" if method == "OPTIONS" && query.is_none() => ("*", None),
        "" => ("/", query),
        path => (path, query),
    })
}

fn scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then_some(rest)
}

/// Checks the target of CONNECT: authority-form with a port (RFC 9112, section 3.2.3).
fn connect_target(target: &str) -> Result<(), Refusal> {
    match authority(target.as_bytes()) {
        Some((host, Some(port))) if !host.is_empty() && !port.is_empty() => Ok(()),
        _ => Err(bad("CONNECT wants host:port")),
    }
}

/// Splits `host[:port]` (RFC 3986, without user information). The host is a name, an IPv4 address, or an IPv6 address
/// in brackets. It must not be empty; the port may be.
fn authority(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (host, rest) = match text.strip_prefix(b"[") {
        Some(inner) => {
            let end = inner.iter().position(|byte| *byte == b']')?;
            let (address, rest) = inner.split_at_checked(end)?;
            Ipv6Addr::from_str(std::str::from_utf8(address).ok()?).ok()?;
            (address, rest.strip_prefix(b"]")?)
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (name, rest) = text.split_at_checked(end)?;
            (name, is_reg_name(name).then_some(rest)?)
        }
    };
    let port = match rest {
        [] => None,
        [b':', port @ ..] => Some(is_port(port).then_some(port)?),
        _ => return None,
    };
    Some((host, port))
}

fn is_reg_name(name: &[u8]) -> bool {
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => {
                bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
                    && bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !fine {
            return false;
        }
    }
    !name.is_empty()
}

fn is_port(port: &[u8]) -> bool {
    let value = port.iter().try_fold(0u16, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
        _ => None,
    });
    value.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_registered_method_is_longer_than_the_limit() {
        assert_eq!(REGISTERED.iter().map(|method| method.len()).max(), Some(METHOD_LIMIT));
    }
}
