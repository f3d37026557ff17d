//! Parses the values of options and variables. On error each function returns the rest of a message that begins with
//! the name of the option or variable.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{InstanceState, Interface, LogFormat, Stream, Success, Ttl};
use crate::duration;
use crate::error::one_line;
use crate::signal::Signal;
use crate::target::Address;

/// The end of an error message, such as `'65536' is not a port (0 to 65535)`.
pub(super) type Wrong = String;

/// The maximum value of `--tail`: 1 MiB.
const TAIL_MAX: usize = 1 << 20;

/// The maximum length of the text of `--ready-line`.
const READY_LINE_MAX: usize = 1024;

/// The maximum length of a socket name. sun_path has 108 bytes (unix(7)), one of which is the NUL that ends a path or
/// begins an abstract name.
const SOCKET_NAME_MAX: usize = 107;

/// Formats a value for a message: in quotes, on one line, and limited in length.
pub(super) fn shown(text: &OsStr) -> String {
    const MOST: usize = 60;
    let lossy = text.to_string_lossy();
    let begin: String = lossy.chars().take(MOST).collect();
    let dots = if lossy.chars().nth(MOST).is_some() { "..." } else { "" };
    format!("'{}{dots}'", one_line(&begin))
}

fn not(text: &OsStr, what: &str) -> Wrong {
    format!("{} is not {what}", shown(text))
}

/// Returns the text if it consists of digits only, without sign or white space.
fn digits(text: &OsStr) -> Option<&str> {
    text.to_str().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
}

/// Parses a port, 0 to 65535.
pub(super) fn port(text: &OsStr) -> Result<u16, Wrong> {
    digits(text).and_then(|t| t.parse().ok()).ok_or_else(|| not(text, "a port (0 to 65535)"))
}

/// Parses a boolean. The accepted words are those of Go's strconv.ParseBool, which the original kapo used.
pub(super) fn boolean(text: &OsStr) -> Result<bool, Wrong> {
    match text.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(false),
        _ => Err(not(text, "a boolean (1, t, true, 0, f or false)")),
    }
}

/// Parses a number of connections, at least 1. A process cannot have more descriptors than the type can count.
pub(super) fn connections(text: &OsStr) -> Result<usize, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<u32>().ok()).filter(|n| *n > 0);
    number
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| not(text, &format!("a number of connections (1 to {})", u32::MAX)))
}

/// Parses a number of ended runs to keep; 0 keeps none.
pub(super) fn history(text: &OsStr) -> Result<usize, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<usize>().ok()).filter(|n| *n <= 100);
    number.ok_or_else(|| not(text, "a number of runs (up to 100; 0: off)"))
}

/// Parses a maximum number of restarts; 0 means no limit.
pub(super) fn restarts(text: &OsStr) -> Result<Option<u32>, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<u32>().ok());
    number
        .map(|n| Some(n).filter(|n| *n > 0))
        .ok_or_else(|| not(text, &format!("a number of restarts (up to {}; 0: no limit)", u32::MAX)))
}

/// Parses a number of bytes, optionally with the suffix K or M.
pub(super) fn tail(text: &OsStr) -> Result<usize, Wrong> {
    let (number, unit) = match text.as_bytes() {
        [number @ .., b'K' | b'k'] => (number, 1 << 10),
        [number @ .., b'M' | b'm'] => (number, 1 << 20),
        number => (number, 1),
    };
    let number =
        digits(OsStr::from_bytes(number)).ok_or_else(|| not(text, "a size (such as 4096, 64K or 1M)"))?;
    let bytes = number.parse::<usize>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n <= TAIL_MAX);
    bytes.ok_or_else(|| format!("{} is too large (at most {TAIL_MAX} bytes)", shown(text)))
}

/// Parses a process id. Whether the process exists is checked later.
pub(super) fn pid(text: &OsStr) -> Result<i32, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<i32>().ok()).filter(|n| *n > 0);
    number.ok_or_else(|| not(text, "a pid (1 or more)"))
}

/// The valid forms of a time, for error messages.
const TIMES: &str = "a number of seconds, or numbers with the units ms, s, m, h, d, w: 30, 0.5, 500ms, 1h30m";

/// Parses a time such as `30`, `0.5`, `500ms`, `1m30s`. A time that is too large for a Duration becomes the longest
/// Duration.
pub(super) fn seconds(text: &OsStr) -> Result<Duration, Wrong> {
    text.to_str().and_then(duration::parse).ok_or_else(|| not(text, &format!("a time ({TIMES})")))
}

/// The longest time between two probes. It keeps sums of times within the range of the clock.
const PROBE_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses a time that must not be 0.
pub(super) fn positive_seconds(text: &OsStr) -> Result<Duration, Wrong> {
    match seconds(text)? {
        Duration::ZERO => Err("the time must be longer than 0".to_owned()),
        time => Ok(time.min(PROBE_TIME_MAX)),
    }
}

/// Parses a number of failures, at least 1.
pub(super) fn failures(text: &OsStr) -> Result<usize, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<usize>().ok()).filter(|n| *n > 0);
    number.ok_or_else(|| not(text, "a number of failures (1 or more)"))
}

/// Parses what an unhealthy command leads to. Returns whether it is stopped.
pub(super) fn stops(text: &OsStr) -> Result<bool, Wrong> {
    match text.as_bytes() {
        b"report" => Ok(false),
        b"stop" => Ok(true),
        _ => Err(not(text, "report or stop; supervise starts a stopped command again")),
    }
}

/// Parses a time; zero means none.
pub(super) fn optional_seconds(text: &OsStr) -> Result<Option<Duration>, Wrong> {
    seconds(text).map(|time| Some(time).filter(|time| !time.is_zero()))
}

/// Parses a time or a range, such as `30` or `30-60`; zero means none.
pub(super) fn ttl(text: &OsStr) -> Result<Option<Ttl>, Wrong> {
    let wrong = || not(text, &format!("a time or a range of times such as 30-60 ({TIMES})"));
    let whole = text.to_str().ok_or_else(wrong)?;
    let texts = whole.split_once('-').unwrap_or((whole, whole));
    let (min, max) = duration::parse(texts.0).zip(duration::parse(texts.1)).ok_or_else(wrong)?;
    if min > max {
        return Err(empty_range(texts.0, texts.1));
    }
    Ok(Some(Ttl { min, max }).filter(|ttl| !ttl.max.is_zero()))
}

/// Returns the error for a range such as `50m-70`. It suggests `50m-70m`, because the unit of the maximum is probably
/// missing.
fn empty_range(min: &str, max: &str) -> Wrong {
    let unit = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').to_owned();
    let with_unit = |text: &str| if unit(text).is_empty() { format!("{text}s") } else { text.to_owned() };
    let meant = format!("{max}{}", unit(min));
    let one_unit = unit(min).bytes().all(|b| b.is_ascii_alphabetic());
    let fits = one_unit && unit(max).is_empty() && duration::parse(&meant) >= duration::parse(min);
    let hint = if fits { format!("; did you mean {min}-{meant}?") } else { String::new() };
    format!("the minimum {} is longer than the maximum {}{hint}", with_unit(min), with_unit(max))
}

const SIGNAL: &str = "a signal (such as TERM, SIGTERM, 15 or RTMIN+3)";

/// Parses a signal.
pub(super) fn signal(text: &OsStr) -> Result<Signal, Wrong> {
    text.to_str().and_then(|t| t.parse().ok()).ok_or_else(|| not(text, SIGNAL))
}

/// Parses a signal; 0 means none.
pub(super) fn optional_signal(text: &OsStr) -> Result<Option<Signal>, Wrong> {
    match text.as_bytes() {
        b"0" => Ok(None),
        _ => signal(text).map(Some).map_err(|wrong| format!("{wrong} or 0 (no signal)")),
    }
}

/// Parses the signal of a dump; 0 means none.
pub(super) fn dump_signal(text: &OsStr) -> Result<Option<Signal>, Wrong> {
    match optional_signal(text)? {
        Some(Signal::KILL | Signal::STOP) => Err(not(text, "a signal that a command can handle")),
        signal => Ok(signal),
    }
}

/// Parses signals that can request a stop, such as `TERM,RTMIN+3`.
pub(super) fn stop_signals(text: &OsStr) -> Result<Vec<Signal>, Wrong> {
    list(text).map(stop_signal).collect()
}

fn stop_signal(word: &OsStr) -> Result<Signal, Wrong> {
    let signal = signal(word)?;
    match signal {
        Signal::KILL | Signal::STOP => {
            Err(format!("{signal} cannot ask kapo to stop: no process can catch it"))
        }
        Signal::CHLD | Signal::CONT | Signal::TSTP | Signal::TTIN | Signal::TTOU => {
            Err(format!("{signal} cannot ask kapo to stop: kapo uses this signal itself"))
        }
        signal => Ok(signal),
    }
}

/// Parses rewrite rules such as `TERM:INT,HUP:0`.
pub(super) fn rewrites(text: &OsStr) -> Result<Vec<(Signal, Option<Signal>)>, Wrong> {
    list(text).map(rewrite).collect()
}

/// Keeps only the last rule for each signal.
pub(super) fn last_of_each(all: Vec<(Signal, Option<Signal>)>) -> Vec<(Signal, Option<Signal>)> {
    let mut last: Vec<(Signal, Option<Signal>)> = Vec::new();
    for (from, to) in all {
        last.retain(|(known, _)| *known != from);
        last.push((from, to));
    }
    last
}

fn rewrite(pair: &OsStr) -> Result<(Signal, Option<Signal>), Wrong> {
    let whole = pair.to_str().and_then(|pair| pair.split_once(':'));
    let (from, to) = whole.ok_or_else(|| not(pair, "FROM:TO (such as TERM:INT, or HUP:0 to drop HUP)"))?;
    let from = signal(OsStr::new(from))?;
    if [Signal::KILL, Signal::STOP].contains(&from) {
        return Err(format!("{from} cannot be rewritten: no process can catch it"));
    }
    if from == Signal::CHLD {
        return Err(format!("{from} cannot be rewritten: it is never forwarded"));
    }
    Ok((from, optional_signal(OsStr::new(to))?))
}

/// Parses the ends that count as success, such as `143,TERM,TTL`.
pub(super) fn successes(text: &OsStr) -> Result<Vec<Success>, Wrong> {
    ends(text, true, "an exit code (0 to 255), the name of a signal or TTL")
}

/// Parses the ends after which `supervise` does not start again, such as `78,SEGV`.
pub(super) fn final_ends(text: &OsStr) -> Result<Vec<Success>, Wrong> {
    ends(text, false, "an exit code (0 to 255) or the name of a signal")
}

fn ends(text: &OsStr, by_ttl: bool, expected: &str) -> Result<Vec<Success>, Wrong> {
    let mut ends = Vec::new();
    for word in list(text) {
        let meant = match digits(word) {
            Some(code) => code.parse().ok().map(Success::Code),
            None if by_ttl && word.eq_ignore_ascii_case("TTL") => Some(Success::Ttl),
            None => signal(word).ok().map(Success::Signal),
        };
        ends.push(meant.ok_or_else(|| not(word, expected))?);
    }
    Ok(ends)
}

fn list(text: &OsStr) -> impl Iterator<Item = &OsStr> {
    text.as_bytes().split(|b| *b == b',').map(OsStr::from_bytes)
}

/// Parses the restart policy: true for `on-failure`, false for `always`.
pub(super) fn on_failure_only(text: &OsStr) -> Result<bool, Wrong> {
    match text.as_bytes() {
        b"always" => Ok(false),
        b"on-failure" => Ok(true),
        _ => Err(not(text, "always or on-failure")),
    }
}

/// Parses the output format: true for `json`, false for `text`.
pub(super) fn json(text: &OsStr) -> Result<bool, Wrong> {
    match text.as_bytes() {
        b"text" => Ok(false),
        b"json" => Ok(true),
        _ => Err(not(text, "text or json")),
    }
}

/// Whether kapo continues without an address that it cannot bind.
pub(super) fn bind_failure(text: &OsStr) -> Result<bool, Wrong> {
    match text.as_bytes() {
        b"exit" => Ok(false),
        b"warn" => Ok(true),
        _ => Err(not(text, "exit or warn")),
    }
}

/// The format of the log.
pub(super) fn log_format(text: &OsStr) -> Result<LogFormat, Wrong> {
    match text.as_bytes() {
        b"logfmt" => Ok(LogFormat::Logfmt),
        b"json" => Ok(LogFormat::Json),
        _ => Err(not(text, "logfmt or json")),
    }
}

/// Parses a number of lines.
pub(super) fn lines(text: &OsStr) -> Result<usize, Wrong> {
    let number = digits(text).and_then(|t| t.parse::<u32>().ok()).and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| not(text, &format!("a number of lines (up to {})", u32::MAX)))
}

/// Parses the name of a captured stream.
pub(super) fn stream(text: &OsStr) -> Result<Stream, Wrong> {
    let stream = [Stream::Stdout, Stream::Stderr].into_iter().find(|stream| text == stream.name());
    stream.ok_or_else(|| not(text, "stdout or stderr"))
}

/// Parses one of `words` and returns its index.
pub(super) fn word(text: &OsStr, words: &[&str]) -> Result<usize, Wrong> {
    let place = words.iter().position(|word| text == *word);
    place.ok_or_else(|| not(text, &format!("one of {}", words.join(", "))))
}

/// Parses an address to which another program will connect. Only its form is checked.
pub(super) fn host_and_port(text: &OsStr) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let parts = text.to_str().and_then(|text| text.rsplit_once(':'));
    match parts {
        Some((host, port))
            if !host.is_empty()
                && host.bytes().all(plain)
                && port.parse().is_ok_and(|port: u16| port > 0) =>
        {
            Ok([host, ":", port].concat())
        }
        _ => Err(not(text, "HOST:PORT")),
    }
}

/// Parses states of `kapo ls`, such as `failing,flapping`, to a set of bits.
pub(super) fn states(text: &OsStr) -> Result<usize, Wrong> {
    list(text).try_fold(0, |states, state| Ok(states | 1 << word(state, InstanceState::WORDS)?))
}

/// Parses a path, which must not be empty.
pub(super) fn path(text: &OsStr) -> Result<OsString, Wrong> {
    if text.is_empty() { Err(not(text, "a path")) } else { Ok(text.to_owned()) }
}

/// Parses the path of a file that node_exporter reads.
pub(super) fn textfile(text: &OsStr) -> Result<OsString, Wrong> {
    match text.as_bytes().ends_with(b".prom") {
        true => Ok(text.to_owned()),
        false => Err(not(text, "a path that ends in .prom, as node_exporter expects")),
    }
}

/// Parses the text of `--ready-line`.
pub(super) fn ready_line(text: &OsStr) -> Result<OsString, Wrong> {
    match text.as_bytes() {
        bytes @ [_, ..] if bytes.len() <= READY_LINE_MAX && !bytes.contains(&b'\n') => Ok(text.to_owned()),
        _ => Err(not(text, "a text of 1 to 1024 bytes on one line")),
    }
}

/// Parses the path of a folder, which must be absolute because `watch` changes the working directory.
pub(super) fn folder(text: &OsStr) -> Result<PathBuf, Wrong> {
    if text.as_bytes().starts_with(b"/") {
        Ok(PathBuf::from(text))
    } else {
        Err(not(text, "an absolute path"))
    }
}

/// Parses the mode of a file in octal, without the bits for set-user-ID, set-group-ID and sticky.
pub(super) fn socket_mode(text: &OsStr) -> Result<u16, Wrong> {
    let mode = digits(text).and_then(|text| u16::from_str_radix(text, 8).ok()).filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| not(text, "an octal mode (0 to 0777, such as 0660)"))
}

/// Parses the name or the number of a group. Whether the name exists is checked later.
pub(super) fn group(text: &OsStr) -> Result<String, Wrong> {
    let whole = text.to_str().filter(|text| !text.is_empty() && !text.contains([':', '\n']));
    // The highest number means "no group" in chown(2).
    let fits =
        |text: &&str| digits(OsStr::new(text)).is_none() || text.parse().is_ok_and(|id: u32| id < u32::MAX);
    whole.filter(fits).map(str::to_owned).ok_or_else(|| not(text, "the name or the number of a group"))
}

/// The longest name of a kapo.
const NAME_MAX: usize = 64;

fn may_be_in_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Parses the name of a kapo. A name with a dot at its beginning is refused, because the socket file would be hidden.
pub(super) fn name(text: &OsStr) -> Result<String, Wrong> {
    let whole = text.to_str().filter(|text| text.bytes().all(may_be_in_a_name));
    let fits = |text: &&str| (1..=NAME_MAX).contains(&text.len()) && !text.starts_with('.');
    whole.filter(fits).map(str::to_owned).ok_or_else(|| {
        not(text, "a name (1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', no '.' at the beginning)")
    })
}

/// Returns the base name of a command as a name of a kapo.
pub(super) fn as_name(command: &OsStr) -> String {
    let base = command.as_bytes().rsplit(|byte| *byte == b'/').find(|part| !part.is_empty());
    let fit = |(at, byte): (usize, &u8)| match *byte {
        b'.' if at == 0 => '_',
        byte if may_be_in_a_name(byte) => char::from(byte),
        _ => '_',
    };
    base.unwrap_or(b"_").iter().take(NAME_MAX).enumerate().map(fit).collect()
}

/// Checks the length of a path or of an abstract name.
pub(super) fn socket_name(text: &OsStr, length: usize) -> Result<(), Wrong> {
    match length {
        0 => Err(format!("{} is an abstract socket without a name", shown(text))),
        1..=SOCKET_NAME_MAX => Ok(()),
        n => Err(format!("{} is too long for a socket ({n} bytes, at most {SOCKET_NAME_MAX})", shown(text))),
    }
}

/// Parses an IP address, an absolute path, `@name` or `none`.
pub(super) fn interface(text: &OsStr) -> Result<Interface, Wrong> {
    match text.as_bytes() {
        [b'@', name @ ..] => socket_name(text, name.len()).map(|()| Interface::Abstract(name.to_vec())),
        b"none" => Ok(Interface::None),
        whole @ [b'/', ..] => socket_name(text, whole.len()).map(|()| Interface::Path(PathBuf::from(text))),
        _ => address(text).map(Interface::Ip),
    }
}

/// Parses a list of addresses such as `127.0.0.1:80,[::1]:80,/path,@name`.
pub(super) fn endpoints(text: &OsStr) -> Result<Vec<(Interface, u16)>, Wrong> {
    list(text).map(endpoint).collect()
}

fn endpoint(word: &OsStr) -> Result<(Interface, u16), Wrong> {
    if let [b'@' | b'/', ..] = word.as_bytes() {
        return Ok((interface(word)?, 0));
    }
    let address: Option<SocketAddr> = word.to_str().and_then(|word| word.parse().ok());
    let address = address.ok_or_else(|| {
        not(word, "an address with a port (127.0.0.1:6666 or [::1]:6666), an absolute path or @name")
    })?;
    Ok((Interface::Ip(address.ip()), address.port()))
}

fn address(text: &OsStr) -> Result<IpAddr, Wrong> {
    let Some(whole) = text.to_str() else { return Err(no_address(text)) };
    let bare = whole.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let found = match bare {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => whole.parse().ok(),
    };
    found.ok_or_else(|| {
        let label = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if whole.parse::<SocketAddr>().is_ok() {
            format!("{} is an address with a port; use --port for the port", shown(text))
        } else if whole.bytes().all(label) && whole.bytes().any(|b| b.is_ascii_alphabetic()) {
            format!("{} is a host name; use an address (127.0.0.1 or ::1, /path or @name)", shown(text))
        } else {
            no_address(text)
        }
    })
}

fn no_address(text: &OsStr) -> Wrong {
    not(text, "an address (IPv4 or IPv6), an absolute path, @name or none")
}

/// A URL that the client understands. Whether a kapo answers there is not checked here.
pub(super) fn url(text: &OsStr) -> Result<String, Wrong> {
    let url = text.to_string_lossy();
    // Bytes that are not UTF-8 have become U+FFFD, which is not valid in a URL.
    Address::parse(&url, "/")
        .map(|_| url.into_owned())
        .map_err(|why| format!("{} {why} (http://HOST[:PORT][/PATH], unix:/PATH or unix:@NAME)", shown(text)))
}
