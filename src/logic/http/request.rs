//! A complete head -> a [`Request`], or the status it is refused with. Strict where RFC 9110 and RFC 9112 allow
//! leniency: what two programs read differently is how requests are smuggled.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::framing::Framing;
use super::head::{FIELD_LIMIT, is_token};
use super::response::Persist;
use super::{Method, Request};

/// Why a request is not answered; the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 405, 414, 431, 501 or 505.
    pub status: u16,
    /// One line for people, sent as the body.
    pub why: &'static str,
}

/// A request and what it means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// What is asked.
    pub request: Request<'a>,
    /// What becomes of the connection after the answer.
    pub persist: Persist,
    /// A body follows, which nobody reads.
    pub body: bool,
    /// How a stream is to be framed for this peer.
    pub framing: Framing,
}

/// The methods of [`Method`], as the Allow field lists them; all others are refused.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The IANA HTTP Method Registry, without those that are answered PRI (what HTTP/2 begins with) included.
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

/// The length of the longest method of all: UPDATEREDIRECTREF.
pub const METHOD_LIMIT: usize = 17;

/// Answers a method that is in no registry.
pub const UNKNOWN_METHOD: Refusal = Refusal { status: 501, why: "the method is unknown" };

/// Malformed.
pub const fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}

/// Reads a head that [`super::head::Search`] found complete: its lines end in CRLF, its request line has three words
/// and a version that is 1.0 or 1.1.
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
    let request = Request { method, path, query, accept: fields.accept, last_event_id: fields.last_event_id };
    let framing = if minor == 0 { Framing::UntilClose } else { Framing::Chunked };
    Ok(Parsed { request, persist, body: fields.body, framing })
}

/// A head that is longer is read anew each time: it is none of a health check.
const KNOWN_LIMIT: usize = 1024;

/// How many heads are remembered: as many as there are sorts of peers, a load balancer and a few probes.
const KNOWN_MOST: usize = 4;

/// The heads that were understood last. Who asks again and again (probes, load balancers, scrapers) sends the same bytes
/// each time, and the same bytes mean the same: they are compared, eight at once, instead of being read anew.
#[derive(Debug, Default)]
pub struct Memory {
    known: Vec<Known>,
    /// Who is forgotten next.
    oldest: usize,
}

impl Memory {
    /// Keeps a head and what it means, where it can be kept: an odd client does not push the others out.
    pub fn learn(&mut self, head: &[u8], parsed: &Parsed<'_>) {
        let Some(known) = Known::of(head, parsed) else { return };
        match self.known.get_mut(self.oldest) {
            Some(oldest) => *oldest = known,
            None => self.known.push(known),
        }
        self.oldest = (self.oldest + 1) % KNOWN_MOST;
    }

    /// What the head at the start of `bytes` means, and its length, if it is known.
    pub fn at_the_start_of(&self, bytes: &[u8]) -> Option<(Parsed<'_>, usize)> {
        self.known.iter().find_map(|known| known.at_the_start_of(bytes))
    }
}

#[derive(Debug)]
struct Known {
    head: String,
    method: Method,
    path: Place,
    query: Option<Place>,
    accept: Place,
    last_event_id: Place,
    persist: Persist,
    body: bool,
    framing: Framing,
}

/// Where in a head.
type Place = (u16, u16);

impl Known {
    /// `None`: it cannot be kept.
    fn of(head: &[u8], parsed: &Parsed<'_>) -> Option<Known> {
        // A part that does not lie in the head, as the path of a target without one, has no place there.
        let place = |part: &str| {
            if part.is_empty() {
                return Some(Place::default());
            }
            let from = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
            let to = from.checked_add(part.len()).filter(|to| *to <= head.len())?;
            Some((u16::try_from(from).ok()?, u16::try_from(to).ok()?))
        };
        let Parsed { request, persist, body, framing } = *parsed;
        Some(Known {
            head: str::from_utf8(head).ok().filter(|head| head.len() <= KNOWN_LIMIT)?.to_owned(),
            method: request.method,
            path: place(request.path)?,
            query: match request.query {
                Some(query) => Some(place(query)?),
                None => None,
            },
            accept: place(request.accept)?,
            last_event_id: place(request.last_event_id)?,
            persist,
            body,
            framing,
        })
    }

    fn at_the_start_of(&self, bytes: &[u8]) -> Option<(Parsed<'_>, usize)> {
        if !same(bytes.get(..self.head.len())?, self.head.as_bytes()) {
            return None;
        }
        let request = Request {
            method: self.method,
            path: self.part(self.path)?,
            query: match self.query {
                Some(query) => Some(self.part(query)?),
                None => None,
            },
            accept: self.part(self.accept)?,
            last_event_id: self.part(self.last_event_id)?,
        };
        let Known { persist, body, framing, .. } = *self;
        Some((Parsed { request, persist, body, framing }, self.head.len()))
    }

    fn part(&self, (from, to): Place) -> Option<&str> {
        self.head.get(usize::from(from)..usize::from(to))
    }
}

/// The comparison of the C library of a static program goes byte by byte.
fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a, rest_of_a), (b, rest_of_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len()
        && rest_of_a.len() == rest_of_b.len()
        && a.iter().zip(b).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && rest_of_a.iter().zip(rest_of_b).all(|(a, b)| a == b)
}

/// What the fields say about host, framing and persistence.
#[derive(Default)]
struct Fields<'a> {
    close: bool,
    keep_alive: bool,
    body: bool,
    accept: &'a str,
    last_event_id: &'a str,
}

impl<'a> Fields<'a> {
    fn read(raw: &[httparse::Header<'a>], minor: u8) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        let (mut host, mut length) = (None, None);
        let (mut codings, mut accepts) = (Codings::default(), false);
        for field in raw {
            // The length tells most names apart, so a field costs few comparisons.
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                4 if is("Host") => once(&mut host, field.value, "more than one Host field")?,
                // Several would be one list (RFC 9110, section 5.3), which is not in one piece; who sends them gets
                // what is always acceptable.
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
                17 if is("Transfer-Encoding") => codings.read(field.value)?,
                _ => {}
            }
        }
        match host {
            None if minor == 1 => return Err(bad("no Host field")),
            // Empty where the target has no authority (RFC 9112, section 3.2).
            None | Some(b"") => {}
            Some(host) if authority(host).is_some() => {}
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
            // RFC 9110, section 8.6: a length that overflows must not be taken for another one.
            let length = text(length).parse::<u64>();
            fields.body = length.map_err(|_| bad("Content-Length is out of range"))? > 0;
        }
        Ok(fields)
    }
}

/// A field that may be there once.
fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], why: &'static str) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(why)),
    }
}

/// A field value as text; one that is not ASCII says nothing that we know.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// The transfer codings of one request, over all its Transfer-Encoding fields (RFC 9112, sections 6.1 and 7).
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

/// Origin-form, absolute-form and, for OPTIONS, `*`: path and query.
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
        // RFC 9112, section 3.2.4: OPTIONS for an absolute-form without a path means the server as a whole.
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

/// Authority-form, with its port (RFC 9112, section 3.2.3).
fn connect_target(target: &str) -> Result<(), Refusal> {
    match authority(target.as_bytes()) {
        Some((host, Some(port))) if !host.is_empty() && !port.is_empty() => Ok(()),
        _ => Err(bad("CONNECT wants host:port")),
    }
}

/// `host[:port]` of RFC 3986 without user information: name or IPv4 address, or an IPv6 address in brackets; the host
/// is not empty, the port may be.
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

    #[test]
    fn a_head_is_known_by_its_bytes_and_means_what_it_meant() {
        for (head, known) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), true),
            ("HEAD /a?b HTTP/1.1\r\nHost: a\r\nAccept: c\r\nLast-Event-ID: 7\r\n\r\n".to_owned(), true),
            ("GET /? HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), true),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".to_owned(), true),
            // Its path is none of its bytes.
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), false),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(1024)), false),
        ] {
            let parsed = parse(head.as_bytes()).unwrap();
            let mut memory = Memory::default();
            memory.learn(head.as_bytes(), &parsed);
            let expected = known.then_some((parsed, head.len()));
            assert_eq!(memory.at_the_start_of(head.as_bytes()), expected, "{head}");
            assert_eq!(memory.at_the_start_of(format!("{head}behind").as_bytes()), expected, "{head}");
            for at in 0..head.len() {
                assert_eq!(memory.at_the_start_of(&head.as_bytes()[..at]), None);
                let mut other = head.clone().into_bytes();
                other[at] ^= 1;
                assert_eq!(memory.at_the_start_of(&other), None);
            }
        }
    }

    #[test]
    fn the_heads_of_a_few_are_remembered_and_the_oldest_forgotten() {
        let head = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let mut memory = Memory::default();
        for n in 0..10 {
            let latest = head(n);
            memory.learn(&latest, &parse(&latest).unwrap());
            let known = (0..10).filter(|n| memory.at_the_start_of(&head(*n)).is_some()).collect::<Vec<_>>();
            assert_eq!(known, (n.saturating_sub(3)..=n).collect::<Vec<_>>());
        }
        // One that cannot be kept takes nobody's place.
        let odd = b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..10 {
            memory.learn(odd, &parse(odd).unwrap());
        }
        assert!((6..10).all(|n| memory.at_the_start_of(&head(n)).is_some()));
    }
}
