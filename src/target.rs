//! The address of the kapo that a client queries, from a URL or from the options that also configure where kapo
//! listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;

use crate::config::{Interface, Listen, Probe};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host name or an IP address, and a port.
    Tcp(String, u16),
    /// This machine, over IPv6 or, if that fails, over IPv4.
    Loopback(u16),
    /// A Unix socket in the file system.
    Path(Vec<u8>),
    /// A Unix socket in the abstract name space.
    Abstract(Vec<u8>),
}

/// The address and the path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where to connect.
    pub peer: Peer,
    /// The value of the header field Host.
    pub authority: String,
    /// The path and the query.
    pub path: String,
}

impl Address {
    /// Returns the address of the kapo that the same options start on this machine.
    pub fn of(listen: &Listen, path: &str) -> Result<Address, String> {
        let peer = match &listen.interface {
            Interface::Path(path) => Peer::Path(path.as_os_str().as_bytes().to_vec()),
            Interface::Abstract(name) => Peer::Abstract(name.clone()),
            Interface::None => {
                return Err("--interface none is no address to query; give a URL".to_owned());
            }
            Interface::Ip(_) if listen.port == 0 => {
                return Err("port 0 cannot be queried; give a port or a URL".to_owned());
            }
            // The unspecified address is for listening only, so connect to the loopback address.
            Interface::Ip(IpAddr::V4(ip)) if ip.is_unspecified() => {
                Peer::Tcp(Ipv4Addr::LOCALHOST.to_string(), listen.port)
            }
            Interface::Ip(IpAddr::V6(ip)) if ip.is_unspecified() => Peer::Loopback(listen.port),
            Interface::Ip(ip) => Peer::Tcp(ip.to_string(), listen.port),
        };
        Ok(Address { authority: authority(&peer), peer, path: path.to_owned() })
    }

    /// Parses `http://HOST[:PORT][/PATH]`, `unix:/PATH` or `unix:@NAME`. The default port is 80, as in any URL. `path`
    /// is used if the URL has no path or only `/`, because `/` is answered with 200 in every state. The error is the
    /// rest of a sentence that begins with the URL.
    pub fn parse(url: &str, path: &str) -> Result<Address, &'static str> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err("contains a character that kapo does not accept in a URL");
        }
        if let Some(name) = url.strip_prefix("unix:") {
            let peer = match name.strip_prefix('@') {
                Some("") => return Err("names no socket"),
                Some(name) => Peer::Abstract(name.into()),
                None if name.starts_with('/') => Peer::Path(name.into()),
                None => return Err("has no absolute path"),
            };
            return Ok(Address { authority: authority(&peer), peer, path: path.to_owned() });
        }
        let Some(rest) = url.strip_prefix("http://") else {
            return Err("does not begin with http:// or unix:");
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, named) = rest.split_at(end);
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((name, port)) if name.parse::<Ipv6Addr>().is_ok() => (name, port),
            Some(_) => return Err("has no IPv6 address in its brackets"),
            None if host.starts_with('[') => return Err("has an unclosed bracket"),
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => 80,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err("has no port from 1 to 65535 after the colon"),
            },
            _ => return Err("has no port from 1 to 65535 after the colon"),
        };
        if name.is_empty() {
            return Err("names no host");
        }
        // Reject user names, escapes and unmatched brackets.
        if host.contains(['@', '\\', '%']) || (!host.starts_with('[') && host.contains(['[', ']'])) {
            return Err("contains a character that kapo does not accept in a URL");
        }
        let path = match named {
            "" | "/" => path.to_owned(),
            query if query.starts_with('?') => format!("{path}{query}"),
            named => named.to_owned(),
        };
        Ok(Address { peer: Peer::Tcp(name.to_owned(), port), authority: host.to_owned(), path })
    }

    /// Returns the probe that the path names, also by one of its aliases; `None` for any other page.
    pub fn probe(&self) -> Option<Probe> {
        let path = self.path.split('?').next().unwrap_or_default();
        match path.strip_suffix('/').unwrap_or(path) {
            "/livez" | "/live" => Some(Probe::Live),
            "/readyz" | "/ready" => Some(Probe::Ready),
            "/healthz" | "/health" => Some(Probe::Health),
            _ => None,
        }
    }

    /// Returns the address with another path and the same query.
    pub fn at(mut self, path: &str) -> Address {
        let query = self.path.find('?').and_then(|at| self.path.get(at..)).unwrap_or_default();
        self.path = format!("{path}{query}");
        self
    }

    /// Returns the address with a parameter in front of the query, because the first of several parameters with one
    /// name counts.
    pub fn with(mut self, parameter: &str) -> Address {
        self.path = match self.path.split_once('?') {
            Some((path, query)) => format!("{path}?{parameter}&{query}"),
            None => format!("{}?{parameter}", self.path),
        };
        self
    }
}

fn authority(peer: &Peer) -> String {
    match peer {
        Peer::Tcp(name, port) if name.contains(':') => format!("[{name}]:{port}"),
        Peer::Tcp(name, port) => format!("{name}:{port}"),
        Peer::Loopback(port) => format!("[{}]:{port}", Ipv6Addr::LOCALHOST),
        Peer::Path(_) | Peer::Abstract(_) => "localhost".to_owned(),
    }
}

/// Formats `127.0.0.1:6666`, `/run/kapo.sock` or `@kapo`.
impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(..) | Peer::Loopback(_) => f.write_str(&authority(self)),
            Peer::Path(path) => f.write_str(&String::from_utf8_lossy(path)),
            Peer::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn tcp(name: &str, port: u16) -> Peer {
        Peer::Tcp(name.to_owned(), port)
    }

    #[test]
    fn a_url_names_host_port_and_path() {
        for (url, peer, authority, path) in [
            ("http://web", tcp("web", 80), "web", "/readyz"),
            ("http://web:6666/", tcp("web", 6666), "web:6666", "/readyz"),
            ("http://10.0.0.1:1/livez?verbose", tcp("10.0.0.1", 1), "10.0.0.1:1", "/livez?verbose"),
            ("http://[::1]:6666?a=b", tcp("::1", 6666), "[::1]:6666", "/readyz?a=b"),
            ("http://[::1]", tcp("::1", 80), "[::1]", "/readyz"),
            ("unix:/run/kapo.sock", Peer::Path(b"/run/kapo.sock".to_vec()), "localhost", "/readyz"),
            ("unix:@kapo", Peer::Abstract(b"kapo".to_vec()), "localhost", "/readyz"),
        ] {
            let target = Address { peer, authority: authority.to_owned(), path: path.to_owned() };
            assert_eq!(Address::parse(url, "/readyz"), Ok(target), "{url}");
        }
    }

    #[test]
    fn an_invalid_url_is_rejected_with_the_reason() {
        for (url, why) in [
            ("", "does not begin with http:// or unix:"),
            ("localhost:6666", "does not begin with http:// or unix:"),
            ("https://web", "does not begin with http:// or unix:"),
            ("HTTP://web", "does not begin with http:// or unix:"),
            ("http://web/#x", "contains a character that kapo does not accept in a URL"),
            ("http://web]", "contains a character that kapo does not accept in a URL"),
            ("http://%41", "contains a character that kapo does not accept in a URL"),
            ("http://web:", "has no port from 1 to 65535 after the colon"),
            ("http://", "names no host"),
            ("http://:80/", "names no host"),
            ("http://web:0", "has no port from 1 to 65535 after the colon"),
            ("http://web:65536", "has no port from 1 to 65535 after the colon"),
            ("http://web:+1", "has no port from 1 to 65535 after the colon"),
            ("http://::1:80", "has no port from 1 to 65535 after the colon"),
            ("http://[::1]80", "has no port from 1 to 65535 after the colon"),
            ("http://[::1", "has an unclosed bracket"),
            ("http://[web]:80", "has no IPv6 address in its brackets"),
            ("http://a b/", "contains a character that kapo does not accept in a URL"),
            ("http://a/\r\nX: y", "contains a character that kapo does not accept in a URL"),
            ("http://user@web/", "contains a character that kapo does not accept in a URL"),
            ("http://\u{e9}/", "contains a character that kapo does not accept in a URL"),
            ("unix:relative", "has no absolute path"),
            ("unix:@", "names no socket"),
        ] {
            assert_eq!(Address::parse(url, "/"), Err(why), "{url}");
        }
    }

    #[test]
    fn a_probe_is_named_by_its_path_or_an_alias() {
        for (path, probe) in [
            ("/livez", Some(Probe::Live)),
            ("/live/", Some(Probe::Live)),
            ("/readyz?verbose", Some(Probe::Ready)),
            ("/ready", Some(Probe::Ready)),
            ("/healthz/?verbose&exclude=flapping", Some(Probe::Health)),
            ("/health", Some(Probe::Health)),
            ("/healthy", None),
            ("/healthz//", None),
            ("/x/healthz", None),
            ("/HEALTHZ", None),
            ("/metrics", None),
        ] {
            let target = Address::parse(&format!("http://a{path}"), "/").unwrap();
            assert_eq!(target.probe(), probe, "{path}");
        }
        let at = |url| Address::parse(url, "/").unwrap().at("/livez").path;
        assert_eq!((at("http://a/live/?x").as_str(), at("http://a/live").as_str()), ("/livez?x", "/livez"));
    }

    #[test]
    fn without_a_url_the_address_is_the_one_kapo_listens_on() {
        let of = |interface, port| {
            let listen = crate::config::tests::listen(interface, port);
            Address::of(&listen, "/wait").map(|target| (target.peer, target.authority))
        };
        let ip = |text: &str| Interface::Ip(text.parse().unwrap());
        let local = |name: &str, authority: &str| Ok((tcp(name, 6666), authority.to_owned()));
        assert_eq!(of(ip("0.0.0.0"), 6666), local("127.0.0.1", "127.0.0.1:6666"));
        assert_eq!(of(ip("::"), 6666), Ok((Peer::Loopback(6666), "[::1]:6666".to_owned())));
        assert_eq!(of(ip("10.1.2.3"), 6666), local("10.1.2.3", "10.1.2.3:6666"));
        assert_eq!(of(ip("0.0.0.0"), 0), Err("port 0 cannot be queried; give a port or a URL".to_owned()));
        assert_eq!(
            of(Interface::None, 1),
            Err("--interface none is no address to query; give a URL".to_owned())
        );
        let path = Interface::Path(PathBuf::from("/run/k"));
        assert_eq!(of(path, 0), Ok((Peer::Path(b"/run/k".to_vec()), "localhost".to_owned())));
        let name = Interface::Abstract(b"k".to_vec());
        assert_eq!(of(name, 6666), Ok((Peer::Abstract(b"k".to_vec()), "localhost".to_owned())));
    }
}
