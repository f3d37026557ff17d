//! Tests with real pipes, FIFOs, sockets, terminals and files.
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat, open};
use rustix::io::ioctl_fionread;
use rustix::pipe::{SpliceFlags, pipe, splice};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::*;
use crate::driver::output::sink::relay::Relay;

/// Opens a terminal in raw mode. Returns the user's side, and the side that kapo writes to.
pub(crate) fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let ours = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut modes = tcgetattr(&ours).unwrap();
    modes.make_raw();
    tcsetattr(&ours, OptionalActions::Now, &modes).unwrap();
    (person.into(), ours.into())
}

pub(crate) fn fifo() -> (File, File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let read = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    let write = open(&path, OFlags::WRONLY, Mode::empty()).unwrap();
    fcntl_setfl(&read, OFlags::empty()).unwrap();
    (read.into(), write.into())
}

pub(crate) fn plain_pipe() -> (File, File) {
    let (read, write) = pipe().unwrap();
    (read.into(), write.into())
}

pub(crate) fn spliced_pipe() -> (File, File) {
    let (read, write) = pipe().unwrap();
    let relay = Relay::new().unwrap();
    rustix::io::write(&relay.write, b"x").unwrap();
    splice(&relay.read, None, &write, None, 1, SpliceFlags::NONBLOCK).unwrap();
    let mut read = File::from(read);
    read.read_exact(&mut [0]).unwrap();
    (read, write.into())
}

pub(crate) fn socket() -> (File, File) {
    let (read, write) = UnixStream::pair().unwrap();
    (OwnedFd::from(read).into(), OwnedFd::from(write).into())
}

pub(crate) type Pair = fn() -> (File, File);
pub(crate) const STALLING: [(&str, Pair); 5] = [
    ("pipe", plain_pipe),
    ("pipe that was spliced on", spliced_pipe),
    ("fifo", fifo),
    ("socket", socket),
    ("terminal", terminal),
];

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut seed = 1_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Writes `bytes` until all are taken, and reads from the other side whenever the sink is full.
fn pass(sink: &mut Sink<'_>, reader: &mut File, bytes: &[u8]) -> Vec<u8> {
    let (mut taken, mut arrived) = (0, Vec::new());
    let mut buffer = [0; 5000];
    while taken < bytes.len() || arrived.len() < bytes.len() {
        let written = sink.write(Stream::Stdout, &bytes[taken..]);
        match written {
            Written::All => taken = bytes.len(),
            Written::Part(n) => taken += n,
            Written::Full => {}
            Written::Failed(errno) => panic!("{errno}"),
        }
        if matches!(written, Written::Full | Written::All) {
            let n = reader.read(&mut buffer).unwrap();
            arrived.extend_from_slice(&buffer[..n]);
        }
    }
    arrived
}

#[test]
fn every_kind_takes_bytes_in_order_and_reports_that_it_is_full() {
    let bytes = pattern(1_000_000);
    for (name, pair) in STALLING {
        let (mut reader, writer) = pair();
        let flags = fcntl_getfl(&writer).unwrap();
        let mut sink = Sink::open(writer.as_fd());
        assert!(sink.can_capture(), "{name}");
        // A blocking call would make this test hang.
        let mut full = false;
        let mut taken = 0;
        while !full {
            match sink.write(Stream::Stdout, &bytes[taken..]) {
                Written::Part(n) => taken += n,
                Written::Full => full = true,
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(sink.source().is_some(), "{name}");
        let mut first = vec![0; taken];
        reader.read_exact(&mut first).unwrap();
        assert!(first == bytes[..taken], "{name}: the first {taken} bytes differ");
        assert!(pass(&mut sink, &mut reader, &bytes[taken..]) == bytes[taken..], "{name}: the rest differs");
        assert_eq!(fcntl_getfl(&writer).unwrap(), flags, "{name}: shared flags were changed");
    }
}

#[test]
fn the_master_side_of_a_terminal_never_blocks() {
    let (master, mut person) = terminal();
    let flags = fcntl_getfl(&master).unwrap();
    let mut sink = Sink::open(master.as_fd());
    assert!(!sink.can_capture(), "only kapo's log is written byte by byte");
    let bytes = pattern(100_000);
    // A read may find nothing while the kernel still transfers what was written.
    fcntl_setfl(&person, OFlags::NONBLOCK).unwrap();
    let (mut taken, mut full, mut arrived) = (0, false, Vec::new());
    let mut buffer = [0; 5000];
    while arrived.len() < bytes.len() {
        // A blocking call would make this test hang.
        match sink.write(Stream::Stderr, &bytes[taken..]) {
            Written::Part(n) => taken += n,
            Written::All => taken = bytes.len(),
            Written::Full => full = true,
            Written::Failed(errno) => panic!("{errno}"),
        }
        if full && let Ok(n) = person.read(&mut buffer) {
            arrived.extend_from_slice(&buffer[..n]);
        }
    }
    assert!(arrived == bytes);
    assert_eq!(fcntl_getfl(&master).unwrap(), flags, "shared flags were changed");
}

#[test]
fn a_file_is_written_at_the_shared_offset() {
    let mut file = tempfile::tempfile().unwrap();
    let mut other = file.try_clone().unwrap();
    other.write_all(b"one ").unwrap();
    let mut sink = Sink::open(file.as_fd());
    assert_eq!(sink.write(Stream::Stdout, b"two "), Written::All);
    other.write_all(b"three").unwrap();
    other.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one two three");
}

#[test]
fn a_failed_write_returns_the_error() {
    let (reader, writer) = plain_pipe();
    assert_eq!(Sink::open(reader.as_fd()).write(Stream::Stdout, b"x"), Written::Failed(Errno::BADF));
    let mut sink = Sink::open(writer.as_fd());
    assert_eq!(sink.write(Stream::Stdout, b"x"), Written::All);
    drop(reader);
    assert_eq!(sink.write(Stream::Stdout, b"x"), Written::Failed(Errno::PIPE));
    assert!(sink.source().is_some(), "a waiting writer must see the error");
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(Sink::open(full.as_fd()).write(Stream::Stdout, b"x"), Written::Failed(Errno::NOSPC));
}

#[test]
fn a_datagram_socket_gets_what_fits_into_one_datagram() {
    let (reader, writer) = UnixDatagram::pair().unwrap();
    let mut sink = Sink::open(writer.as_fd());
    let Written::Part(taken) = sink.write(Stream::Stdout, &[7; 1 << 20]) else {
        panic!("all bytes were written")
    };
    assert_eq!(reader.recv(&mut vec![0; 1 << 20]).unwrap(), taken);
}

#[test]
fn records_wait_for_room_and_dropped_ones_are_counted() {
    // Use a socket, not a pipe: a pipe that refuses RWF_NOWAIT, as on Linux 6.1, gets a relay, which has extra room.
    let (mut reader, writer) = socket();
    let mut sink = Sink::open(writer.as_fd());
    while sink.write(Stream::Stderr, &[b'x'; 4096]) == Written::All {}
    let filled = usize::try_from(ioctl_fionread(&reader).unwrap()).unwrap();
    for number in 0..1000 {
        sink.log(UNIX_EPOCH, &Record::info("event").with("number", number));
    }
    assert!(sink.wants_room());
    reader.read_exact(&mut vec![0; filled]).unwrap();
    assert!(sink.flush());
    sink.log(UNIX_EPOCH, &Record::info("last"));
    let mut text = vec![0; usize::try_from(ioctl_fionread(&reader).unwrap()).unwrap()];
    reader.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [events @ .., note, last] = lines.as_slice() else { panic!("{text}") };
    for (number, line) in events.iter().enumerate() {
        assert!(line.ends_with(&format!(" level=info msg=\"event\" number={number}")), "{line}");
    }
    assert!(note.ends_with(&format!(" msg=\"log records dropped\" count={}", 1000 - events.len())), "{note}");
    assert!(last.ends_with(" msg=\"last\""), "{last}");
    assert!(!sink.wants_room());
}

#[test]
fn streams_and_records_do_not_tear_each_others_lines() {
    for (name, pair) in STALLING {
        let (mut reader, writer) = pair();
        let mut sink = Sink::open(writer.as_fd());
        let out = vec![b'o'; 300_000];
        let mut taken = 0;
        loop {
            match sink.write(Stream::Stdout, &out[taken..]) {
                Written::Part(n) => taken += n,
                Written::Full => break,
                other => panic!("{name}: {other:?}"),
            }
        }
        sink.log(UNIX_EPOCH, &Record::info("between"));
        let mut text = vec![0; 4096];
        let n = reader.read(&mut text).unwrap();
        text.truncate(n);
        // There is room now, but the short write of stdout is still pending.
        assert_eq!(sink.write(Stream::Stderr, b"e"), Written::Full, "{name}");
        assert!(!sink.flush() && !sink.wants_room(), "{name}");
        let rest = pass(&mut sink, &mut reader, &out[taken..]);
        text.extend(rest);
        // `pass` reads as many bytes as it wrote, so what the sink held before is still in the pipe.
        while text.len() < out.len() {
            let mut more = vec![0; out.len() - text.len()];
            let n = reader.read(&mut more).unwrap();
            text.extend_from_slice(&more[..n]);
        }
        assert!(text == out, "{name}: stdout was cut");
        assert!(sink.flush(), "{name}");
        assert_eq!(sink.write(Stream::Stderr, b"!"), Written::All, "{name}");
        let mut record = Vec::new();
        while record.last() != Some(&b'!') {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            record.push(byte[0]);
        }
        assert!(record.ends_with(b"msg=\"between\"\n!"), "{name}");
    }
}

#[test]
fn streams_share_a_sink_only_if_both_go_to_one_pipe_or_terminal() {
    let (_reader, writer) = plain_pipe();
    let (_other_reader, other) = plain_pipe();
    let file = tempfile::tempfile().unwrap();
    for (stdout, stderr, shared) in
        [(&writer, &writer, true), (&writer, &other, false), (&file, &file, false)]
    {
        let mut sinks = Sinks::open(stdout.as_fd(), stderr.as_fd());
        sinks.share();
        assert_eq!(sinks.shared, shared);
    }
}

#[test]
fn a_failed_file_is_retried_after_a_second() {
    // This file accepts only numbers and fails with EINVAL for anything else.
    let score = File::options().write(true).open("/proc/self/oom_score_adj").unwrap();
    let mut sink = Sink::open(score.as_fd());
    #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
    let start = Instant::now();
    let turn =
        |sink: &mut Sink<'_>, milliseconds| sink.now = Some(start + Duration::from_millis(milliseconds));
    turn(&mut sink, 0);
    assert_eq!(sink.write(Stream::Stdout, b"word\n"), Written::Failed(Errno::INVAL));
    turn(&mut sink, 999);
    assert_eq!(
        sink.write(Stream::Stdout, b"0\n"),
        Written::Failed(Errno::INVAL),
        "no attempt before the pause is over"
    );
    turn(&mut sink, 1_000);
    assert_eq!(sink.write(Stream::Stdout, b"0\n"), Written::All);
    for (time, dropped) in [(1_000, 1), (1_500, 2), (2_000, 3), (2_500, 4), (3_500, 5)] {
        turn(&mut sink, time);
        sink.log(UNIX_EPOCH, &Record::info("event"));
        assert_eq!((sink.dropped, sink.queue.len()), (dropped, 0));
    }
    turn(&mut sink, 5_000);
    assert_eq!(sink.write(Stream::Stdout, b"0\n"), Written::All);
}

#[test]
fn a_piece_is_written_whole_or_not_at_all() {
    for (name, pair) in &STALLING[..3] {
        let (mut reader, writer) = pair();
        let mut sink = Sink::open(writer.as_fd());
        let line = [&[b'x'; 299][..], b"\n"].concat();
        let lines = line.repeat(1_000);
        let mut taken = 0;
        loop {
            match sink.write(Stream::Stdout, &lines[taken..]) {
                Written::Part(length) => taken += length,
                Written::Full => break,
                other => panic!("{name}: {other:?}"),
            }
        }
        let came = usize::try_from(ioctl_fionread(&reader).unwrap()).unwrap();
        assert_eq!((came % 300, taken), (0, came), "{name}");
        let mut buffer = vec![0; came];
        reader.read_exact(&mut buffer).unwrap();
        assert!(buffer == lines[..came], "{name}");
    }
}
