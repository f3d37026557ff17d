//! Parses arbitrary arguments and variables: no panic, errors on one line, and the command is in the Config unchanged.
//!
//! Each line of the input is an argument; lines such as `KAPO_X=text` are variables.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use kapo::cli::{Order, parse};
use kapo::config::Mode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut words: Vec<OsString> = Vec::new();
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for line in input.split(|b| *b == b'\n') {
        let at = line.iter().position(|b| *b == b'=');
        match at.filter(|_| line.starts_with(b"KAPO_")) {
            Some(at) => {
                let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
                env.push((text(&line[..at]), text(&line[at + 1..])));
            },
            None => words.push(OsString::from_vec(line.to_vec())),
        }
    }
    match parse(words.clone(), &env) {
        Ok(Order::Print(text)) => assert!(text.ends_with('\n')),
        Ok(Order::Do(config)) => {
            assert!(config.max_connections > 0 && config.capture.tail <= 1 << 20);
            if let Mode::Job(job) = config.mode {
                let tail = [std::slice::from_ref(&job.command), &job.arguments].concat();
                assert!(words.ends_with(&tail));
                assert!(job.ttl.is_none_or(|ttl| ttl.min <= ttl.max));
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(char::is_control) && text.len() < 1000, "{text:?}");
            assert!([1, 2].contains(&error.exit_code()));
        }
    }
});
