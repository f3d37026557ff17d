//! Parses the values of `--probe`.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use super::settings::Settings;
use super::values::{self, Wrong, shown};
use crate::config::{Contact, Interface, OwnProbe, ProbeOptions, ProbeTarget};
use crate::error::Error;
use crate::target::{Address, Peer};

/// The maximum number of probes.
const MOST: usize = 32;

/// The maximum length of a given name, which is part of the document and of metrics.
const NAME_MAX: usize = 40;

const FORMS: &str =
    " (http://IP:PORT/PATH, tcp://IP:PORT, unix:/SOCKET[:/PATH] or exec:WORDS; localhost is an IP, too)";

/// Reads `--probe` and the options that belong to it; `None` without a probe.
pub(super) fn options(settings: &mut Settings<'_>) -> Result<Option<Rc<ProbeOptions>>, Error> {
    let probes = settings.all("probe", probes)?;
    let options = ProbeOptions {
        interval: settings.value("probe-interval", values::positive_seconds)?,
        timeout: settings.value("probe-timeout", values::positive_seconds)?,
        failures: settings.value("probe-failures", values::failures)?,
        grace: settings.value("probe-grace", values::seconds)?,
        stop: settings.value("unhealthy", values::stops)?,
        probes,
    };
    if options.probes.is_empty() {
        return if options.stop { Err(settings.needs("unhealthy", &["probe"])) } else { Ok(None) };
    }
    let mut probes = options.probes.iter().enumerate();
    let same =
        |at, name: &Option<String>| options.probes.iter().skip(at + 1).any(|other| other.name == *name);
    let why = if options.probes.len() > MOST {
        "at most 32 probes are possible"
    } else if probes.any(|(at, probe)| probe.name.is_some() && same(at, &probe.name)) {
        "two probes have the same name"
    } else {
        return Ok(Some(Rc::new(options)));
    };
    Err(Error::Usage(format!("{}: {why}", settings.label("probe"))))
}

/// Parses one probe in each line.
fn probes(text: &OsStr) -> Result<Vec<OwnProbe>, Wrong> {
    let mut probes = Vec::new();
    for line in text.as_bytes().split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if !line.is_empty() || text.is_empty() {
            probes
                .push(probe(line).map_err(|why| format!("{} {why}{FORMS}", shown(OsStr::from_bytes(line))))?);
        }
    }
    Ok(probes)
}

fn probe(line: &[u8]) -> Result<OwnProbe, &'static str> {
    let mut parts = line.splitn(2, |byte| *byte == b'=');
    let name = parts.next().and_then(|name| str::from_utf8(name).ok()).unwrap_or_default();
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let Some(url) = parts.next().filter(|_| is_name) else {
        return Ok(OwnProbe { name: None, target: target(line)? });
    };
    if name.len() > NAME_MAX || name.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has a name that is a number or longer than 40 bytes");
    }
    Ok(OwnProbe { name: Some(name.to_owned()), target: target(url)? })
}

fn target(url: &[u8]) -> Result<ProbeTarget, &'static str> {
    if let Some(line) = url.strip_prefix(b"exec:") {
        let mut words: Vec<OsString> = Vec::new();
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            words.push(OsStr::from_bytes(word).to_owned());
        }
        return if words.is_empty() { Err("names no program") } else { Ok(ProbeTarget::Exec(words)) };
    }
    // Bytes that are not UTF-8 are not valid in a URL either.
    let url = str::from_utf8(url).unwrap_or_default();
    let contact;
    let (mut host, path) = if let Some(socket) = url.strip_prefix("unix:") {
        let (socket, path) = match socket.split_once(":/") {
            Some((socket, path)) => (socket, Some(path)),
            None => (socket, None),
        };
        contact = match values::interface(OsStr::new(socket)) {
            Ok(Interface::Path(path)) => Contact::Path(path.into_os_string().into_vec()),
            Ok(Interface::Abstract(name)) => Contact::Abstract(name),
            _ => return Err("has no absolute path of at most 107 bytes"),
        };
        let Some(path) = path else { return Ok(ProbeTarget::Connect(contact)) };
        ("localhost".to_owned(), path)
    } else {
        let (tcp, rest) = match (url.strip_prefix("http://"), url.strip_prefix("tcp://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("does not begin with http://, tcp://, unix: or exec:"),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = Address::parse(&["http://", host].concat(), "/")?;
        let Peer::Tcp(name, port) = address.peer else { return Err("names no host") };
        contact = Contact::Tcp(ip(&name)?, port);
        if tcp {
            // The default port of HTTP means nothing here.
            let has_port = path.is_empty() && host.ends_with(|c: char| c.is_ascii_digit());
            let has_port = has_port && host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            return if has_port { Ok(ProbeTarget::Connect(contact)) } else { Err("has no port at its end") };
        }
        (address.authority, path)
    };
    let path = Address::parse(&["http://x/", path].concat(), "/")?.path;
    host.shrink_to_fit();
    Ok(ProbeTarget::Http { contact, host, path })
}

/// Returns the address of a host; `None` for localhost. Other names are refused, because a look-up may block for
/// seconds, and kapo answers all its clients from the same thread.
fn ip(host: &str) -> Result<Option<IpAddr>, &'static str> {
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err("names an address that is for listening only"),
        Ok(ip) => Ok(Some(ip)),
        Err(_) if host == "localhost" => Ok(None),
        Err(_) => Err("has a host name other than localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<OwnProbe>, Wrong> {
        probes(OsStr::new(text))
    }

    fn tcp(ip: &str, port: u16) -> Contact {
        Contact::Tcp(Some(ip.parse().unwrap()), port)
    }

    fn http(contact: Contact, host: &str, path: &str) -> ProbeTarget {
        ProbeTarget::Http { contact, host: host.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn each_form_of_a_probe_is_parsed() {
        let socket = || Contact::Path(b"/run/a.sock".to_vec());
        for (text, name, target) in [
            (
                "http://127.0.0.1:8080/health?x=y",
                None,
                http(tcp("127.0.0.1", 8080), "127.0.0.1:8080", "/health?x=y"),
            ),
            ("web=http://[::1]:81", Some("web"), http(tcp("::1", 81), "[::1]:81", "/")),
            ("http://localhost/", None, http(Contact::Tcp(None, 80), "localhost", "/")),
            ("unix:/run/a.sock", None, ProbeTarget::Connect(socket())),
            ("unix:/run/a.sock:/healthz", None, http(socket(), "localhost", "/healthz")),
            ("unix:@a", None, ProbeTarget::Connect(Contact::Abstract(b"a".to_vec()))),
            ("db=tcp://10.0.0.1:5432", Some("db"), ProbeTarget::Connect(tcp("10.0.0.1", 5432))),
            (
                "exec:test  -e /x=y",
                None,
                ProbeTarget::Exec(["test", "-e", "/x=y"].map(OsString::from).to_vec()),
            ),
        ] {
            let probe = OwnProbe { name: name.map(str::to_owned), target };
            assert_eq!(parsed(text), Ok(vec![probe]), "{text}");
        }
        assert_eq!(parsed("\n"), Ok(Vec::new()));
        assert_eq!(parsed("exec:a\n\n  exec:b c \n").unwrap().len(), 2);
    }

    #[test]
    fn a_wrong_probe_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "does not begin with"),
            ("ftp://127.0.0.1", "does not begin with"),
            ("127.0.0.1:80", "does not begin with"),
            ("https://127.0.0.1/", "does not begin with"),
            ("http://127.0.0.1/a\nX: y", "does not begin with"),
            ("a.b=exec:true", "does not begin with"),
            ("exec:", "names no program"),
            ("exec: ", "names no program"),
            ("http://0.0.0.0:80/", "names an address that is for listening only"),
            ("tcp://[::]:80", "names an address that is for listening only"),
            ("http://web:80/", "has a host name other than localhost"),
            ("http://127.0.0.1:0/", "has no port from 1"),
            ("tcp://127.0.0.1", "has no port at its end"),
            ("tcp://[::1]", "has no port at its end"),
            ("tcp://127.0.0.1:80/x", "has no port at its end"),
            ("unix:x", "has no absolute path"),
            ("unix:127.0.0.1", "has no absolute path"),
            ("unix:/a:/b c", "contains a character"),
            ("http://127.0.0.1/a\rb", "contains a character"),
            ("7=exec:true", "has a name that is a number"),
        ] {
            let wrong = parsed(text).map(|_| ()).unwrap_err();
            assert!(wrong.contains(why) && wrong.ends_with(FORMS), "{text}: {wrong}");
        }
        assert!(parsed(&format!("{}=exec:a", "n".repeat(41))).is_err());
    }
}
