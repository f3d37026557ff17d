//! Tests of `--stdlog`: any output of the command can be restored from its log, byte for byte.

use std::fs::File;
use std::io::{Read, Write};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Kapo, kapo_on_a_free_port, quiet_kapo, run_to_the_end};
use crate::sinks::{STALLING, kapo_to, launch_to, pipe, random_file, read_all, volume, wait_until_stalled};

/// A parsed line of the log.
struct Line {
    time: String,
    stream: String,
    text: Vec<u8>,
    partial: bool,
}

impl Line {
    /// Parses a line. Fails if it is not exactly as documented.
    fn parse(line: &[u8]) -> Line {
        let shown = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        let rest = line.strip_prefix(b"time=").unwrap_or_else(|| panic!("{}", shown()));
        let (time, rest) = rest.split_at(27);
        let rest = rest.strip_prefix(b" level=info stream=").unwrap_or_else(|| panic!("{}", shown()));
        let (stream, rest) = rest.split_at(6);
        let rest = rest.strip_prefix(b" msg=\"").unwrap_or_else(|| panic!("{}", shown()));
        let (rest, partial) = match rest.strip_suffix(b" partial=true") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let text = rest.strip_suffix(b"\"").unwrap_or_else(|| panic!("{}", shown()));
        let [time, stream] = [time, stream].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert!(time.starts_with("20") && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{}", shown());
        Line { time, stream, text: unescape(text), partial }
    }
}

/// Decodes the documented escapes: those of JSON, and lone surrogates for bytes that are not UTF-8.
fn unescape(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("the log is UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        assert!(!letter.is_control() && letter != '"', "{letter:?} stands in the log");
        if letter != '\\' {
            out.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        match letters.next().unwrap() {
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'u' => {
                let digits: String = letters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).unwrap();
                match code {
                    0xdc80..=0xdcff => out.push(u8::try_from(code & 0xff).unwrap()),
                    _ => out.extend(char::from_u32(code).unwrap().encode_utf8(&mut [0; 4]).bytes()),
                }
            }
            itself @ ('"' | '\\') => out.push(u8::try_from(itself).unwrap()),
            other => panic!("\\{other} is no escape of ours"),
        }
    }
    out
}

/// Returns the output of `stream` and the number of whole lines.
fn read_back(log: &[u8], stream: &str) -> (Vec<u8>, u64) {
    let (mut all, mut whole, mut last) = (Vec::new(), 0, String::new());
    let log = log.strip_suffix(b"\n").expect("the log ends with a newline");
    for line in log.split(|&b| b == b'\n').map(Line::parse).filter(|line| line.stream == stream) {
        assert!(line.time >= last, "{} comes after {last}", line.time);
        last = line.time;
        all.extend(line.text);
        if !line.partial {
            all.push(b'\n');
            whole += 1;
        }
    }
    (all, whole)
}

fn cat<'a>(block: &'a str, path: &'a str) -> [&'a str; 9] {
    ["--stdout", "--stdlog", "run", "--", "dd", block, path, "status=none", "iflag=fullblock"]
}

#[test]
fn random_bytes_can_be_restored_on_every_kind_of_sink() {
    let folder = TempDir::new().unwrap();
    let file = random_file(folder.path(), "bytes", volume() / 3);
    let mut wanted = std::fs::read(&file).unwrap();
    if wanted.last() != Some(&b'\n') {
        wanted.push(b'\n');
    }
    let path = format!("if={}", file.display());
    for block in ["bs=777", "bs=1M"] {
        for (name, pair) in STALLING {
            let (reader, ours) = pair();
            let came = read_all(reader);
            launch_to(ours, kapo_on_a_free_port(cat(block, &path))).expect_exit(0);
            let (back, whole) = read_back(&came.join().unwrap(), "stdout");
            assert!(back == wanted, "{name}, {block}");
            assert_eq!(whole, wanted.iter().filter(|&&b| b == b'\n').count() as u64);
        }
    }
}

/// Returns the log lines of an output, and the output restored from them.
fn logged(output: &[u8]) -> (Vec<String>, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bytes");
    std::fs::write(&path, output).unwrap();
    let command = kapo_on_a_free_port(["--stdout", "--stdlog", "run", "cat", path.to_str().unwrap()]);
    let (code, stdout, _) = run_to_the_end(command);
    assert_eq!(code, Some(0));
    let back = if stdout.is_empty() { Vec::new() } else { read_back(stdout.as_bytes(), "stdout").0 };
    (stdout.lines().map(|line| line.split_once(" msg=").unwrap().1.to_owned()).collect(), back)
}

#[test]
fn each_kind_of_line_is_written_as_documented() {
    for (output, wanted) in [
        (&b""[..], &[][..]),
        (b"\n", &["\"\""]),
        (b"\n\n", &["\"\"", "\"\""]),
        (b"plain\n", &["\"plain\""]),
        (b"no newline", &["\"no newline\""]),
        (b"dos\r\nunix\n", &["\"dos\\r\"", "\"unix\""]),
        (b"say \"hi\" C:\\\n", &["\"say \\\"hi\\\" C:\\\\\""]),
        (
            b"nul\0 tab\t bell\x07 esc\x1b[1m del\x7f\n",
            &["\"nul\\u0000 tab\\t bell\\u0007 esc\\u001b[1m del\\u007f\""],
        ),
        ("grüße 世界 🦀\n".as_bytes(), &["\"grüße 世界 🦀\""]),
        (b"latin-1 \xe9t\xe9\n", &["\"latin-1 \\udce9t\\udce9\""]),
        (b"cut letter \xe4\xb8", &["\"cut letter \\udce4\\udcb8\""]),
        ("c1 \u{9b}31m\n".as_bytes(), &["\"c1 \\u009b31m\""]),
        (b"level=error msg=\"forged\"\n", &["\"level=error msg=\\\"forged\\\"\""]),
    ] {
        let (lines, back) = logged(output);
        assert_eq!(lines, wanted);
        let missing = if output.ends_with(b"\n") || output.is_empty() { &b""[..] } else { b"\n" };
        assert_eq!(back, [output, missing].concat());
    }
}

#[test]
fn a_long_line_comes_in_parts_that_join() {
    for (length, parts) in [(32_690, 0), (32_691, 1), (65_380, 1), (65_381, 2), (1_000_000, 30)] {
        let line = vec![b'x'; length];
        let (lines, back) = logged(&[&line, &b"\nnext\n"[..]].concat());
        assert_eq!(lines.len(), parts + 2);
        assert!(lines[..parts].iter().all(|line| line.ends_with("\" partial=true")));
        assert!(lines.iter().all(|line| {
            "time=2026-11-22T06:45:30.123456Z level=info stream=stdout msg=\n".len() + line.len() <= 32_768
        }));
        assert!(!lines[parts].contains("partial") && lines[parts + 1] == "\"next\"");
        assert!(back == [&line, &b"\nnext\n"[..]].concat());
    }
}

#[test]
fn a_line_is_logged_only_when_it_is_complete() {
    let folder = TempDir::new().unwrap();
    let gate = folder.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let mut kapo = Kapo::start(["-S", "--stdlog", "run", "cat", gate.to_str().unwrap()]);
    let mut gate = File::options().write(true).open(&gate).unwrap();
    gate.write_all(b"first\nbegin ").unwrap();
    kapo.wait_for_stdout("msg=\"first\"\n");
    kapo.wait_for("the beginning was read", |kapo| crate::sinks::captured(kapo, "stdout") == 12);
    assert_eq!(kapo.stdout().lines().count(), 1);
    gate.write_all(b"end\nrest").unwrap();
    kapo.wait_for_stdout("msg=\"begin end\"\n");
    drop(gate);
    kapo.expect_exit(0);
    assert!(kapo.stdout().ends_with("msg=\"rest\"\n"), "{}", kapo.stdout());
}

#[test]
fn lines_of_both_streams_stay_whole_on_one_pipe() {
    let (reader, ours) = pipe();
    let came = read_all(reader);
    let script = "seq -f 'out %.0f' 1 30000 & seq -f 'err %.0f' 1 30000 >&2; wait";
    let mut command = quiet_kapo(["-SEL", "run", "sh", "-c", script]);
    command.stderr(ours.try_clone().unwrap()).stdout(ours);
    Kapo::launch_with_its_outputs(command, TempDir::new().unwrap()).expect_exit(0);
    let came = came.join().unwrap();
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let wanted: String = (1..=30_000).map(|n: u32| format!("{word} {n}\n")).collect();
        let (back, whole) = read_back(&came, stream);
        assert!(back == wanted.as_bytes(), "{stream}: {} of {} bytes", back.len(), wanted.len());
        assert_eq!(whole, 30_000);
    }
}

#[test]
fn lines_are_counted() {
    let words = ["-SEL", "run", "--wait", "1m", "sh", "-c", "printf 'a\\nb\\nc'; echo d >&2"];
    let kapo = Kapo::start(words);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    let wanted = json!({
        "Stdout": {"Bytes": 5, "Lines": 3, "DiscardedBytes": 0},
        "Stderr": {"Bytes": 2, "Lines": 1, "DiscardedBytes": 0},
    });
    assert_eq!(status["Output"], wanted);
    let lines =
        |stream| crate::sinks::metric(&kapo, &format!("kapo_output_lines_total{{stream=\"{stream}\"}}"));
    assert_eq!((lines("stdout"), lines("stderr")), (Some(3), Some(1)));
}

#[test]
fn a_stalled_reader_loses_no_line() {
    let (mut reader, ours) = pipe();
    let mut kapo = kapo_to(ours, &["-SL", "run", "seq", "-f", "line %.0f of many", "200000"]);
    let mut head = vec![0; 1000];
    reader.read_exact(&mut head).unwrap();
    wait_until_stalled(&kapo, "stdout");
    assert_eq!(kapo.status()["Status"], "running");
    let rest = read_all(reader);
    kapo.expect_exit(0);
    head.extend(rest.join().unwrap());
    let wanted: String = (1..=200_000).map(|n: u32| format!("line {n} of many\n")).collect();
    assert!(read_back(&head, "stdout").0 == wanted.as_bytes());
}

#[test]
fn kapos_records_never_divide_a_line() {
    let (reader, ours) = pipe();
    let came = read_all(reader);
    let script = "trap 'exit 0' USR1; seq 1 20000; kill -USR1 $$; while :; do echo more; done";
    let mut command = kapo_on_a_free_port(["-S", "run", "sh", "-c", script]);
    command.stderr(ours.try_clone().unwrap()).stdout(ours);
    Kapo::launch_with_its_outputs(command, TempDir::new().unwrap()).expect_exit(0);
    let came = String::from_utf8(came.join().unwrap()).unwrap();
    let mut numbers = 0;
    for line in came.lines() {
        let number = line.parse::<u32>().is_ok();
        assert!(number || line == "more" || line.starts_with("time=20"), "{line:?}");
        numbers += u32::from(number);
    }
    assert_eq!(numbers, 20_000);
    assert!(came.matches("msg=\"").count() >= 3, "{came}");
}

#[test]
fn stdlog_without_a_stream_is_an_error() {
    let (code, _, stderr) = run_to_the_end(kapo_on_a_free_port(["--stdlog", "run", "echo"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--stdlog"), "{stderr}");
}
