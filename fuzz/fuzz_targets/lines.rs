//! Checks that the output of the command can be restored from its log lines, however it was divided into reads. The
//! first byte of the input is the size of the pieces.
#![no_main]

use std::time::UNIX_EPOCH;

use kapo::config::LogFormat;
use kapo::logic::Stream;
use kapo::logic::output::batch::Batch;
use kapo::logic::output::lines::{BATCH, LONGEST, Lines};
use libfuzzer_sys::fuzz_target;

const PREFIX: &[u8] = b"time=1970-01-01T00:00:00.000000Z level=info stream=stdout msg=\"";

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else { return };
    // One input in sixteen is repeated, because a line of more than 64 KiB must be possible but takes long.
    let text = data.repeat(if size & 15 == 15 { 1 + 2 * LONGEST / data.len().max(1) } else { 1 });
    let piece = 1 + usize::from(size >> 1) * text.len() / 128;

    let mut lines = Lines::new(Stream::Stdout, LogFormat::Logfmt);
    let (mut held, mut log, mut count) = (Vec::new(), Vec::new(), 0);
    let mut out = Batch::default();
    let mut step = |held: &mut Vec<u8>, ended| {
        loop {
            out.clear();
            let done = lines.render(UNIX_EPOCH, held, ended, &mut out);
            assert!(out.len() <= BATCH + 6 * LONGEST + 100);
            held.drain(..done.consumed);
            count += done.lines;
            log.extend_from_slice(out.as_bytes());
            if done.consumed == 0 {
                break;
            }
        }
        assert!(held.len() <= LONGEST);
    };
    for piece in text.chunks(piece) {
        held.extend_from_slice(piece);
        step(&mut held, false);
    }
    step(&mut held, true);
    assert!(held.is_empty());

    let log = std::str::from_utf8(&log).expect("a log is UTF-8");
    let (mut back, mut ends) = (Vec::new(), 0);
    for line in log.split_terminator('\n') {
        let quoted = line.as_bytes().strip_prefix(PREFIX).expect("the prefix");
        if let Some(part) = quoted.strip_suffix(b"\" partial=true") {
            unescape(part, &mut back);
        } else {
            unescape(quoted.strip_suffix(b"\"").expect("the closing quote"), &mut back);
            back.push(b'\n');
            ends += 1;
        }
    }
    assert_eq!(ends, count);
    if !text.is_empty() && !text.ends_with(b"\n") {
        assert_eq!(back.pop(), Some(b'\n'));
    }
    assert!(back == text);
});

fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        assert!(byte >= 0x20 && byte != b'"' && byte != 0x7f);
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().expect("an escape") {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let digits: Vec<u8> = bytes.by_ref().take(4).collect();
                let digits = std::str::from_utf8(&digits).expect("ASCII");
                match u32::from_str_radix(digits, 16).expect("hexadecimal") {
                    byte @ 0xdc80..=0xdcff => out.push((byte & 0xff) as u8),
                    control => out.extend(char::from_u32(control).expect("a control").to_string().bytes()),
                }
            }
            plain @ (b'"' | b'\\') => out.push(plain),
            other => panic!("escape {other}"),
        }
    }
}
