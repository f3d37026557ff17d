//! Tests with real pipes. The test acts as the command and as the reader.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::{Instant, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::fcntl_getpipe_size;

use super::*;
use crate::config::LogFormat;
use crate::driver::output::sink::tests::{STALLING, fifo, pattern, plain_pipe, terminal};
use crate::logic::log::record::Style;
use crate::logic::output::policy::LARGE;

const PREFIX: &str = "time=1970-01-01T00:00:00.000000Z level=info stream=stdout msg=\"";

fn now() -> Now {
    #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
    let mono = Instant::now();
    Now { mono, wall: UNIX_EPOCH }
}

/// Waits for what the stream wants, as the loop does. Returns false on a timeout.
fn ready(output: &CapturedStream, sinks: &mut Sinks<'_>) -> bool {
    ready_within(10, output, sinks)
}

/// Whether what the stream wants becomes ready within `seconds`.
fn ready_within(seconds: i64, output: &CapturedStream, sinks: &mut Sinks<'_>) -> bool {
    let (source, flag) = match output.wants() {
        StreamInterest::Input => (output.pipe(), PollFlags::IN),
        StreamInterest::Room => (sinks.of(output.stream).source(), PollFlags::OUT),
        StreamInterest::Nothing => return true,
    };
    let timeout = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(source.unwrap(), flag)], Some(&timeout)).unwrap() > 0
}

/// Serves the stream until the run's output is closed.
fn pump(output: &mut CapturedStream, sinks: &mut Sinks<'_>, tail: &mut Tail) {
    loop {
        match output.on_ready(now(), sinks, tail) {
            StreamFate::Closed => break,
            StreamFate::Again => {}
            StreamFate::Wait => assert!(ready(output, sinks), "nothing came: {output:?}"),
        }
    }
    assert!(output.is_drained());
    assert_eq!(output.wants(), StreamInterest::Nothing);
}

/// Reads `length` bytes in another thread. A number is needed because terminals and FIFOs have no end of file here.
fn collect(mut reader: File, length: usize) -> thread::JoinHandle<(Vec<u8>, File)> {
    thread::spawn(move || {
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).unwrap();
        (bytes, reader)
    })
}

/// Writes `bytes` in another thread, in pieces of `block` bytes, and closes the pipe.
fn command(theirs: OwnedFd, bytes: Vec<u8>, block: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut theirs = File::from(theirs);
        bytes.chunks(block).for_each(|piece| theirs.write_all(piece).unwrap());
    })
}

#[test]
fn every_byte_arrives_on_every_kind_of_output() {
    for (name, pair) in STALLING {
        for block in [100, 65_536, 1_000_000] {
            let bytes = pattern(2_000_000);
            let (reader, writer) = pair();
            let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
            let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
            let command = command(output.begin().unwrap(), bytes.clone(), block);
            let reader = collect(reader, bytes.len());
            pump(&mut output, &mut sinks, &mut tail);
            command.join().unwrap();
            let (arrived, _) = reader.join().unwrap();
            assert!(arrived == bytes, "{name}, in blocks of {block}");
            assert_eq!(output.counters(), Counters { bytes: 2_000_000, lines: 0, discarded_bytes: 0 });
            assert!(output.take_records().is_empty());
        }
    }
}

#[test]
fn pages_are_moved_only_while_output_is_bulky() {
    for (name, pair) in [("pipe", plain_pipe as fn() -> (File, File)), ("fifo", fifo)] {
        let bytes = pattern(3_000_000);
        let (reader, writer) = pair();
        let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
        let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
        let mut theirs = File::from(output.begin().unwrap());
        let size = fcntl_getpipe_size(&theirs).unwrap();
        let reader = collect(reader, bytes.len());
        let mut turn = |output: &mut CapturedStream, sinks: &mut Sinks<'_>, piece: &[u8]| {
            theirs.write_all(piece).unwrap();
            loop {
                let fate = output.on_ready(now(), sinks, &mut tail);
                if fate == StreamFate::Wait && output.wants() == StreamInterest::Input {
                    break;
                }
                assert!(fate == StreamFate::Again || ready(output, sinks));
            }
            fcntl_getpipe_size(&theirs).unwrap()
        };
        let (small, rest) = bytes.split_at(100_000);
        for piece in small.chunks(100) {
            assert_eq!(turn(&mut output, &mut sinks, piece), size, "{name}");
        }
        assert!(!output.policy.moves(), "{name}: {output:?}");
        let (bulk, rest) = rest.split_at(2_000_000);
        let mut last = 0;
        for piece in bulk.chunks(65_536) {
            last = turn(&mut output, &mut sinks, piece);
        }
        assert!(output.policy.moves(), "{name}: {output:?}");
        assert_eq!(last, MOVE, "{name}");
        for piece in rest.chunks(1000) {
            turn(&mut output, &mut sinks, piece);
        }
        assert!(!output.policy.moves(), "{name}: {output:?}");
        drop(theirs);
        pump(&mut output, &mut sinks, &mut Tail::new(0));
        assert!(reader.join().unwrap().0 == bytes, "{name}");
    }
}

#[test]
fn a_reader_of_single_pages_does_not_end_the_moving_of_pages() {
    let (mut reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    let mut output = CapturedStream::new(Stream::Stdout, None);
    let mut theirs = File::from(output.begin().unwrap());
    let block = [b'x'; 65_536];
    // Only this test reads and writes, so a descriptor that is not ready now cannot become ready later.
    let mut pass_on = |output: &mut CapturedStream| {
        while ready_within(0, output, &mut sinks) {
            output.on_ready(now(), &mut sinks, &mut Tail::new(0));
        }
    };
    for _ in 0..8 {
        theirs.write_all(&block).unwrap();
        pass_on(&mut output);
        reader.read_exact(&mut block.clone()).unwrap();
    }
    assert!(output.policy.moves(), "{output:?}");
    while output.wants() != StreamInterest::Room {
        theirs.write_all(&block).unwrap();
        pass_on(&mut output);
    }
    for _ in 0..20 {
        reader.read_exact(&mut [0; 4096]).unwrap();
        pass_on(&mut output);
        assert!(output.policy.moves(), "{output:?}");
    }
}

#[test]
fn the_readers_pipe_is_enlarged_for_bulky_lines_too() {
    let (reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, Some(LogFormat::Logfmt)), Tail::new(0));
    let command = command(output.begin().unwrap(), b"a line of some length\n".repeat(100_000), 65_536);
    let reader = thread::spawn(move || io::copy(&mut { reader }, &mut io::sink()).unwrap());
    pump(&mut output, &mut sinks, &mut tail);
    command.join().unwrap();
    assert_eq!(fcntl_getpipe_size(&writer), Ok(MOVE));
    drop(writer);
    assert!(reader.join().unwrap() > 2_200_000);
}

#[test]
fn a_stalled_reader_stalls_the_command_and_loses_nothing() {
    for in_lines in [false, true] {
        let (mut reader, writer) = plain_pipe();
        let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
        let (mut output, mut tail) =
            (CapturedStream::new(Stream::Stdout, in_lines.then_some(LogFormat::Logfmt)), Tail::new(0));
        let text: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let command = command(output.begin().unwrap(), text.clone(), 5000);
        while output.wants() != StreamInterest::Room {
            assert!(ready(&output, &mut sinks));
            output.on_ready(now(), &mut sinks, &mut tail);
        }
        let held = output.counters().bytes;
        // The command's further output fills its pipe; kapo reads nothing meanwhile.
        for _ in 0..100 {
            assert_eq!(output.on_ready(now(), &mut sinks, &mut tail), StreamFate::Wait);
        }
        assert_eq!((output.counters().bytes, output.wants()), (held, StreamInterest::Room));
        let reader = thread::spawn(move || {
            let mut arrived = Vec::new();
            reader.read_to_end(&mut arrived).unwrap();
            arrived
        });
        pump(&mut output, &mut sinks, &mut tail);
        command.join().unwrap();
        drop(writer);
        let arrived = reader.join().unwrap();
        if in_lines {
            let wanted: String = (0..100_000).map(|n| format!("{PREFIX}line {n}\"\n")).collect();
            assert!(arrived == wanted.as_bytes());
            assert_eq!(output.counters().lines, 100_000);
        } else {
            assert!(arrived == text);
        }
    }
}

#[test]
fn a_broken_output_is_logged_once_and_the_command_goes_on() {
    for in_lines in [false, true] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (reader, gone) = plain_pipe();
        drop(reader);
        for writer in [full, gone] {
            let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
            let (mut output, mut tail) =
                (CapturedStream::new(Stream::Stdout, in_lines.then_some(LogFormat::Logfmt)), Tail::new(20));
            for run in 1..=2 {
                let command =
                    command(output.begin().unwrap(), [&[b'x'; 999][..], b"\n"].concat().repeat(1000), 7000);
                pump(&mut output, &mut sinks, &mut tail);
                command.join().unwrap();
                assert_eq!(output.take_records().len(), usize::from(run == 1));
                let lines = if in_lines { run * 1000 } else { 0 };
                assert_eq!(
                    output.counters(),
                    Counters { bytes: run * 1_000_000, lines, discarded_bytes: run * 1_000_000 }
                );
            }
            assert_eq!(tail.contents(None), [&[b'x'; 19][..], b"\n"].concat());
        }
    }
}

#[test]
fn a_reader_that_closes_during_bulk_does_not_stop_the_command() {
    let (reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
    let command = command(output.begin().unwrap(), vec![b'x'; 8_000_000], 65_536);
    let reader = collect(reader, 2_000_000);
    let leave = thread::spawn(move || drop(reader.join().unwrap()));
    pump(&mut output, &mut sinks, &mut tail);
    command.join().unwrap();
    leave.join().unwrap();
    let counters = output.counters();
    assert_eq!(counters.bytes, 8_000_000);
    assert!(counters.discarded_bytes > 0 && counters.discarded_bytes <= 6_000_000, "{counters:?}");
    let mut logged = Vec::new();
    output.take_records()[0].render(Style::default(), UNIX_EPOCH, &mut logged);
    assert!(
        logged.ends_with(b"stream=stdout error=\"Broken pipe\"\n"),
        "{}",
        String::from_utf8_lossy(&logged)
    );
}

#[test]
fn a_pipe_left_open_belongs_to_the_run_until_it_is_silent() {
    for in_lines in [false, true] {
        let (mut reader, writer) = plain_pipe();
        let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
        let (mut output, mut tail) =
            (CapturedStream::new(Stream::Stdout, in_lines.then_some(LogFormat::Logfmt)), Tail::new(0));
        // The test acts as a leftover process: it holds the pipe until the end.
        let mut theirs = File::from(output.begin().unwrap());
        theirs.write_all(b"before\nunfinished").unwrap();
        let end = now();
        let at = |milliseconds| Now { mono: end.mono + Duration::from_millis(milliseconds), ..end };
        output.end(end);
        assert_eq!(output.on_ready(end, &mut sinks, &mut tail), StreamFate::Wait);
        assert!(!output.complete(at(499)) && !output.is_drained());
        theirs.write_all(b" end\nlast").unwrap();
        assert_eq!(output.on_ready(at(499), &mut sinks, &mut tail), StreamFate::Wait);
        assert_eq!(output.deadline(), Some(at(999).mono));
        assert!(!output.complete(at(998)) && !output.is_drained());
        assert!(output.complete(at(999)));
        assert_eq!(output.on_ready(at(999), &mut sinks, &mut tail), StreamFate::Wait);
        assert!(output.is_drained() && output.deadline().is_none());
        // Later output is forwarded like any other, and the last line is not reopened.
        theirs.write_all(b"much later\n").unwrap();
        assert_eq!(output.on_ready(at(5_000), &mut sinks, &mut tail), StreamFate::Wait);
        drop(theirs);
        assert_eq!(output.on_ready(at(5_000), &mut sinks, &mut tail), StreamFate::Closed);
        drop(writer);
        let wanted = if in_lines {
            ["before", "unfinished end", "last", "much later"]
                .map(|text| format!("{PREFIX}{text}\"\n"))
                .concat()
        } else {
            "before\nunfinished end\nlastmuch later\n".to_owned()
        };
        let mut arrived = String::new();
        reader.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, wanted);
    }
}

#[test]
fn a_leftover_process_that_writes_on_cannot_delay_the_drain() {
    let (reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
    let mut theirs = File::from(output.begin().unwrap());
    let never_stops = thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
    let sip = thread::spawn(move || {
        let mut reader = reader;
        let mut buffer = [0; 65_536];
        while reader.read(&mut buffer).unwrap() > 0 {}
    });
    while output.counters().bytes < 1_000_000 {
        assert!(ready(&output, &mut sinks));
        output.on_ready(now(), &mut sinks, &mut tail);
    }
    let end = now();
    output.end(end);
    let limit = Now { mono: end.mono + Duration::from_secs(2), ..end };
    while !output.is_drained() {
        // The limit has passed, but what was in the pipe at the end must still be read.
        output.on_ready(limit, &mut sinks, &mut tail);
        output.complete(limit);
    }
    drop(output);
    never_stops.join().unwrap();
    drop(writer);
    sip.join().unwrap();
}

#[test]
fn an_endless_line_uses_bounded_memory() {
    let (mut reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, Some(LogFormat::Logfmt)), Tail::new(0));
    let command = command(output.begin().unwrap(), vec![0; 3_000_000], 65_536);
    let reader = thread::spawn(move || {
        let mut parts = Vec::new();
        reader.read_to_end(&mut parts).unwrap();
        parts.split(|&b| b == b'\n').filter(|part| part.ends_with(b" partial=true")).count()
    });
    while output.on_ready(now(), &mut sinks, &mut tail) != StreamFate::Closed {
        assert!(
            output.input.bytes.capacity() <= 3 * LARGE && output.rendered.lines.capacity() <= 16 * LARGE,
            "{output:?}"
        );
        assert!(ready(&output, &mut sinks));
    }
    command.join().unwrap();
    drop(writer);
    assert_eq!(reader.join().unwrap(), 3_000_000 / (crate::logic::output::lines::LONGEST / 6));
    assert_eq!(output.counters().lines, 1);
}

#[test]
fn little_output_uses_little_memory() {
    let (_reader, writer) = plain_pipe();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    for in_lines in [false, true] {
        let (mut output, mut tail) =
            (CapturedStream::new(Stream::Stdout, in_lines.then_some(LogFormat::Logfmt)), Tail::new(0));
        let mut theirs = File::from(output.begin().unwrap());
        assert_eq!(output.input.bytes.capacity() + output.rendered.lines.capacity(), 0);
        theirs.write_all(&vec![b'\n'; if in_lines { 200 } else { 20_000 }]).unwrap();
        while output.on_ready(now(), &mut sinks, &mut tail) == StreamFate::Again {}
        theirs.write_all(b"little\n").unwrap();
        output.on_ready(now(), &mut sinks, &mut tail);
        assert!(output.input.bytes.capacity() <= SMALL, "{}", output.input.bytes.capacity());
        assert!(output.rendered.lines.capacity() <= 16 * SMALL, "{}", output.rendered.lines.capacity());
    }
}

#[test]
fn lines_and_records_stay_whole_on_a_shared_pipe_or_terminal() {
    for (name, pair) in [("pipe", plain_pipe as fn() -> (File, File)), ("terminal", terminal)] {
        let (reader, writer) = pair();
        let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
        sinks.share();
        let mut tail = Tail::new(1 << 20);
        let mut outputs = Stream::BOTH.map(|stream| CapturedStream::new(stream, Some(LogFormat::Logfmt)));
        let commands: Vec<_> = outputs
            .iter_mut()
            .map(|output| {
                let text = format!("{:0100}\n", 0).repeat(5000).into_bytes();
                command(output.begin().unwrap(), text, 4000)
            })
            .collect();
        let reader = thread::spawn(move || {
            let (mut reader, mut text) = (reader, Vec::new());
            let mut buffer = [0; 10_000];
            while !text.ends_with(b"msg=\"end\"\n") {
                let read = reader.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..read]);
            }
            (String::from_utf8(text).unwrap(), reader)
        });
        let mut turns = 0;
        while !outputs.iter().all(CapturedStream::is_drained) {
            for output in &mut outputs {
                if output.wants() != StreamInterest::Nothing {
                    output.on_ready(now(), &mut sinks, &mut tail);
                    turns += 1;
                    if turns % 50 == 1 {
                        sinks.log(UNIX_EPOCH, &Record::info("turn"));
                    }
                }
            }
        }
        commands.into_iter().for_each(|command| command.join().unwrap());
        while !sinks.of(Stream::Stderr).flush() {}
        sinks.log(UNIX_EPOCH, &Record::info("end"));
        let (text, _reader) = reader.join().unwrap();
        let ours = text.lines().filter(|line| line.ends_with(" msg=\"turn\"")).count();
        for stream in Stream::BOTH {
            let line = PREFIX.replace("stdout", stream.name()) + &"0".repeat(100) + "\"";
            assert_eq!(text.lines().filter(|each| *each == line).count(), 5000, "{name}");
        }
        assert_eq!(text.lines().filter(|line| line.ends_with(" msg=\"end\"")).count(), 1, "{name}");
        let torn = text.lines().count() - 10_001 - ours;
        let notes = text.lines().filter(|line| line.contains("records dropped")).count();
        assert_eq!(torn, notes, "{name}");
        assert!(ours > 0, "{name}");
        assert_eq!(tail.contents(Some(Stream::Stderr)).len(), 505_000, "{name}");
    }
}

#[test]
fn a_record_during_a_short_write_repeats_nothing() {
    // The FIFO has room for one page, so the rest of the write is in the relay when the record is logged.
    let (mut reader, writer) = fifo();
    let mut filled = 0;
    while poll(
        &mut [PollFd::from_borrowed_fd(writer.as_fd(), PollFlags::OUT)],
        Some(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 }),
    )
    .unwrap()
        > 0
    {
        filled += rustix::io::write(&writer, &[b'-'; 4096]).unwrap();
    }
    reader.read_exact(&mut vec![0; 4096]).unwrap();
    let text = [&[b'x'; 6_000][..], b"\n", &[b'y'; 10]].concat();
    let mut sinks = Sinks::open(writer.as_fd(), writer.as_fd());
    sinks.share();
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
    File::from(output.begin().unwrap()).write_all(&text).unwrap();
    assert_eq!(output.on_ready(now(), &mut sinks, &mut tail), StreamFate::Wait);
    assert_eq!(output.wants(), StreamInterest::Room);
    sinks.log(UNIX_EPOCH, &Record::info("between"));
    reader.read_exact(&mut vec![0; filled - 4096]).unwrap();
    pump(&mut output, &mut sinks, &mut tail);
    drop(sinks);
    drop(writer);
    let mut came = Vec::new();
    reader.read_to_end(&mut came).unwrap();
    let record = b"time=1970-01-01T00:00:00.000000Z level=info msg=\"between\"\n";
    assert_eq!(String::from_utf8(came).unwrap(), String::from_utf8([&text[..], record].concat()).unwrap());
}

#[test]
fn refused_bytes_are_offered_again_without_the_next_line() {
    let (mut reader, mut writer) = fifo();
    let target = writer.try_clone().unwrap();
    let mut sinks = Sinks::open(target.as_fd(), target.as_fd());
    let (mut output, mut tail) = (CapturedStream::new(Stream::Stdout, None), Tail::new(0));
    let mut theirs = File::from(output.begin().unwrap());
    // Lines of 200 bytes: the first read ends in the middle of the 21st.
    let line = [&[b'x'; 199][..], b"\n"].concat();
    let lines = line.repeat(25);
    theirs.write_all(&lines).unwrap();
    let size = fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'\n'; size]).unwrap();
    assert_eq!(output.on_ready(now(), &mut sinks, &mut tail), StreamFate::Wait);
    assert_eq!(output.wants(), StreamInterest::Room);
    // With one page of room, another writer can only write after the end of a line.
    reader.read_exact(&mut vec![0; SMALL]).unwrap();
    assert_eq!(output.on_ready(now(), &mut sinks, &mut tail), StreamFate::Wait);
    assert_eq!(output.wants(), StreamInterest::Room);
    let mut filled = vec![0; size - SMALL + 20 * line.len()];
    reader.read_exact(&mut filled).unwrap();
    assert_eq!(ioctl_fionread(&reader).unwrap(), 0, "the beginning of a line");
    assert!(filled.ends_with(&line));
    drop(theirs);
    pump(&mut output, &mut sinks, &mut tail);
    let mut rest = vec![0; 5 * line.len()];
    reader.read_exact(&mut rest).unwrap();
    assert!(rest == line.repeat(5));
}
