//! A cache of the request heads that were parsed last. A client that repeats a request sends the same bytes, and
//! comparing them is cheaper than parsing them again.

use super::framing::Framing;
use super::request::Parsed;
use super::{Method, Persist, Request};

/// The longest head that is cached, in bytes. Health checks send shorter ones.
const LONGEST_HEAD: usize = 1024;

/// How many heads are cached: enough for a load balancer and a few probes.
const CAPACITY: usize = 4;

/// The heads that were parsed last and what they mean. Probes, load balancers and scrapers send the same bytes each
/// time, so a comparison of eight bytes at a time replaces the parser.
#[derive(Debug, Default)]
pub struct HeadCache {
    heads: Vec<CachedHead>,
    /// The entry that is replaced next.
    oldest: usize,
}

impl HeadCache {
    /// Caches a parsed head if possible. A head that cannot be cached replaces none.
    pub fn insert(&mut self, head: &[u8], parsed: &Parsed<'_>) {
        let Some(entry) = CachedHead::new(head, parsed) else { return };
        match self.heads.get_mut(self.oldest) {
            Some(oldest) => *oldest = entry,
            None => self.heads.push(entry),
        }
        self.oldest = (self.oldest + 1) % CAPACITY;
    }

    /// Returns the meaning and the length of the head at the start of `bytes` if it is cached.
    pub fn find(&self, bytes: &[u8]) -> Option<(Parsed<'_>, usize)> {
        self.heads.iter().find_map(|entry| entry.find(bytes))
    }
}

#[derive(Debug)]
struct CachedHead {
    head: String,
    method: Method,
    path: Span,
    query: Option<Span>,
    host: Span,
    accept: Span,
    accept_encoding: Span,
    last_event_id: Span,
    navigates: bool,
    persist: Persist,
    body: bool,
    framing: Framing,
}

/// The start and the end of a part of the head.
type Span = (u16, u16);

impl CachedHead {
    /// Returns a cache entry; `None` if the head cannot be cached.
    fn new(head: &[u8], parsed: &Parsed<'_>) -> Option<CachedHead> {
        // A part may lie outside the head, for example the `/` that is the path of a target without a path. Such a head
        // is not cached.
        let span = |part: &str| {
            if part.is_empty() {
                return Some(Span::default());
            }
            let from = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
            let to = from.checked_add(part.len()).filter(|to| *to <= head.len())?;
            Some((u16::try_from(from).ok()?, u16::try_from(to).ok()?))
        };
        let Parsed { request, persist, body, framing } = *parsed;
        Some(CachedHead {
            head: str::from_utf8(head).ok().filter(|head| head.len() <= LONGEST_HEAD)?.to_owned(),
            method: request.method,
            path: span(request.path)?,
            query: match request.query {
                Some(query) => Some(span(query)?),
                None => None,
            },
            host: span(request.host)?,
            accept: span(request.accept)?,
            accept_encoding: span(request.accept_encoding)?,
            last_event_id: span(request.last_event_id)?,
            navigates: request.navigates,
            persist,
            body,
            framing,
        })
    }

    fn find(&self, bytes: &[u8]) -> Option<(Parsed<'_>, usize)> {
        if !equal(bytes.get(..self.head.len())?, self.head.as_bytes()) {
            return None;
        }
        let request = Request {
            method: self.method,
            path: self.part(self.path)?,
            query: match self.query {
                Some(query) => Some(self.part(query)?),
                None => None,
            },
            host: self.part(self.host)?,
            accept: self.part(self.accept)?,
            accept_encoding: self.part(self.accept_encoding)?,
            last_event_id: self.part(self.last_event_id)?,
            navigates: self.navigates,
        };
        let CachedHead { persist, body, framing, .. } = *self;
        Some((Parsed { request, persist, body, framing }, self.head.len()))
    }

    fn part(&self, (from, to): Span) -> Option<&str> {
        self.head.get(usize::from(from)..usize::from(to))
    }
}

/// Compares eight bytes at a time, because memcmp of musl compares byte by byte.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let ((a, rest_of_a), (b, rest_of_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len()
        && rest_of_a.len() == rest_of_b.len()
        && a.iter().zip(b).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && rest_of_a.iter().zip(rest_of_b).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::http::request::parse;

    #[test]
    fn a_cached_head_has_the_same_meaning() {
        for (head, known) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), true),
            ("HEAD /a?b HTTP/1.1\r\nHost: a\r\nAccept: c\r\nLast-Event-ID: 7\r\n\r\n".to_owned(), true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br, gzip\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"
                    .to_owned(),
                true,
            ),
            ("GET /? HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), true),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".to_owned(), true),
            // The path `/` is not part of the bytes of this head.
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), false),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(1024)), false),
        ] {
            let parsed = parse(head.as_bytes()).unwrap();
            let mut cache = HeadCache::default();
            cache.insert(head.as_bytes(), &parsed);
            let expected = known.then_some((parsed, head.len()));
            assert_eq!(cache.find(head.as_bytes()), expected, "{head}");
            assert_eq!(cache.find(format!("{head}behind").as_bytes()), expected, "{head}");
            for at in 0..head.len() {
                assert_eq!(cache.find(&head.as_bytes()[..at]), None);
                let mut other = head.clone().into_bytes();
                other[at] ^= 1;
                assert_eq!(cache.find(&other), None);
            }
        }
    }

    #[test]
    fn the_cache_replaces_its_oldest_head() {
        let head = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let mut cache = HeadCache::default();
        for n in 0..10 {
            let latest = head(n);
            cache.insert(&latest, &parse(&latest).unwrap());
            let known = (0..10).filter(|n| cache.find(&head(*n)).is_some()).collect::<Vec<_>>();
            assert_eq!(known, (n.saturating_sub(3)..=n).collect::<Vec<_>>());
        }
        // A head that cannot be cached replaces no entry.
        let odd = b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..10 {
            cache.insert(odd, &parse(odd).unwrap());
        }
        assert!((6..10).all(|n| cache.find(&head(n)).is_some()));
    }
}
