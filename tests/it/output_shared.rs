//! Tests of several writers on one pipe: a line of one is never divided by another, however slow the reader is.

use std::fs::File;
use std::io::Read;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::harness::{Kapo, kapo_on_a_free_port};
use crate::sinks::{fifo, pipe};

/// The number of lines of each writer.
const LINES: usize = 20_000;

/// Writes numbered lines of 200 bytes that begin with `letter`, each with one write(2).
fn writer(letter: char) -> String {
    let filler = letter.to_string().repeat(192);
    format!("i=10000; while [ $i -lt {} ]; do echo \"{letter}$i {filler}\"; i=$((i+1)); done", 10_000 + LINES)
}

/// Reads less at a time than one write brings, so that the pipe is full nearly all the time.
fn read_slowly(mut reader: File) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 777]);
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..length]);
        }
        bytes
    })
}

/// Returns how many received lines differ from every line that was written.
fn torn(came: &[u8], logged: bool) -> usize {
    let text = String::from_utf8_lossy(came);
    let whole = |line: &&str| {
        let text = if logged {
            let logged = line
                .strip_prefix("time=")
                .and_then(|line| line.split_once(" level=info stream=stdout msg=\""));
            logged.filter(|(time, _)| time.len() == 27).and_then(|(_, text)| text.strip_suffix('"'))
        } else {
            Some(*line)
        };
        text.is_some_and(|text| {
            let filler = text.get(7..).unwrap_or_default();
            text.len() == 199 && filler.bytes().all(|b| Some(&b) == text.as_bytes().first())
        })
    };
    // kapo logs the port that the kernel has chosen, even with --quiet.
    text.lines().filter(|line| !line.contains(" msg=\"listening\" ") && !whole(line)).count()
}

/// Returns the number of `listening` records.
fn listening(came: &[u8]) -> usize {
    String::from_utf8_lossy(came).matches(" msg=\"listening\" ").count()
}

fn kapo_on(pipe: &File, flags: &[&str], letter: char) -> Kapo {
    let script = writer(letter);
    let words = [&["--quiet"], flags, &["run", "sh", "-c", &script]].concat();
    let mut command = kapo_on_a_free_port(words);
    command.stdout(pipe.try_clone().unwrap()).stderr(pipe.try_clone().unwrap());
    Kapo::launch_with_its_outputs(command, TempDir::new().unwrap())
}

#[test]
fn two_kapos_on_one_pipe_do_not_mix_their_lines() {
    for (name, pair) in [("pipe", pipe as fn() -> (File, File)), ("FIFO", fifo)] {
        for flags in [&["--stdout", "--stdlog"][..], &["--stdout"]] {
            let (reader, ours) = pair();
            let came = read_slowly(reader);
            let mut kapos = ['a', 'b'].map(|letter| kapo_on(&ours, flags, letter));
            drop(ours);
            kapos.iter_mut().for_each(|kapo| kapo.expect_exit(0));
            let came = came.join().unwrap();
            let logged = flags.contains(&"--stdlog");
            assert_eq!(torn(&came, logged), 0, "{name}, {flags:?}");
            assert_eq!(
                came.iter().filter(|&&b| b == b'\n').count(),
                2 * LINES + listening(&came),
                "{name}, {flags:?}"
            );
        }
    }
}
