//! Tests that cover every row of the table and arbitrary arguments.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::super::options::{Fallback, MODES, Opt, Verb, options};
use super::super::{Order, parse};
use super::try_config;
use crate::config::Mode;

/// Returns a value of that option that is not its default.
fn sample(opt: &Opt) -> &'static str {
    match opt.value {
        None => "true",
        Some("ADDRS") => "127.0.0.1:7,@x",
        Some("MODE") => "0640",
        Some("DIR") => "/run",
        Some("ADDR") => "127.0.0.2",
        Some("SIGNAL") => "USR1",
        Some("FROM:TO") => "TERM:INT",
        Some("PATH") => "/log.prom",
        Some("WHEN") => "on-failure",
        Some("EVENT=COMMAND") => "give-up=mail -s down root",
        Some("WHAT") => "warn",
        Some("FORMAT") => "json",
        Some("STREAM") => "stderr",
        Some("KEY") => "name",
        Some("STATES") => "failing,dead",
        Some("HOST:PORT") => "host1:6670",
        Some("PROBE") => "exec:true",
        Some("ACTION") => "stop",
        Some(_) => "7",
    }
}

#[test]
fn every_option_works_by_long_name_short_name_and_variable() {
    for opt in options().filter(|opt| !["help", "version"].contains(&opt.long)) {
        for row in MODES.iter().filter(|row| opt.is_taken_by(row.verb)) {
            // Some options need another option.
            let job = matches!(row.verb, Verb::Run | Verb::Supervise);
            let mut base = vec![row.name];
            base.extend(
                job.then_some(["--stdout", "--notify", "--probe=tcp://127.0.0.1:1"])
                    .into_iter()
                    .flatten()
                    .filter(|base| base.split('=').next() != Some(&format!("--{}", opt.long)))
                    .filter(|base| opt.long != "ready-line" || *base != "--notify"),
            );
            if opt.long == "stdout" {
                base.push("--stderr");
            }
            if opt.long == "fleet" {
                base.push("--output=file-sd");
            }
            let operands: &[&str] = if row.verb.is_client() { &[] } else { &["x"] };
            let joined = |words: [&[&str]; 4]| -> Vec<String> {
                words.concat().iter().map(|w| w.to_string()).collect()
            };
            let with = |words: &[&str]| joined([&[], &base, words, operands]);
            let without = try_config(&with(&[]), &[]).unwrap();
            let long = format!("--{}={}", opt.long, sample(opt));
            let expected = try_config(&with(&[&long]), &[]).unwrap();
            // --ready is the default of check.
            assert_eq!(
                expected == without,
                opt.long == "ready" && row.verb == Verb::Check,
                "--{} changes nothing in {}",
                opt.long,
                row.name
            );
            if let Some(env) = opt.env {
                assert_eq!(try_config(&with(&[]), &[(env, sample(opt))]), Ok(expected.clone()), "{env}");
            }
            if let Some(short) = opt.short {
                let short = format!("-{short}{}", opt.value.map_or("", |_| sample(opt)));
                let words =
                    if opt.is_global() { joined([&[&short], &base, &[], operands]) } else { with(&[&short]) };
                assert_eq!(try_config(&words, &[]), Ok(expected), "{short}");
            }
        }
    }
}

#[test]
fn every_default_of_the_table_is_the_effective_value() {
    for opt in options() {
        if let Fallback::Text(text) = opt.fallback {
            for row in MODES.iter().filter(|row| opt.serves(row.verb)) {
                // fleet listens elsewhere.
                if row.verb == Verb::Fleet && ["port", "interface"].contains(&opt.long) {
                    continue;
                }
                let operands: &[&str] = if row.verb.is_client() { &[] } else { &["x"] };
                let word = format!("--{}={text}", opt.long);
                let given = try_config(&[&[row.name, &word], operands].concat(), &[]);
                assert_eq!(given, try_config(&[&[row.name], operands].concat(), &[]), "{word}");
            }
        }
    }
    let shown = options().find(|opt| opt.long == "kill-after").map(Opt::default);
    assert_eq!(shown, Some(&*crate::config::KILL_AFTER.as_secs().to_string()));
}

/// A pseudo-random sequence that is the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// Checks that nothing panics, that an error is one line, and that the command is unchanged. Returns whether the
/// arguments were valid.
fn promises_hold(words: Vec<OsString>, env: &[(OsString, OsString)]) -> bool {
    match parse(words.clone(), env) {
        Ok(Order::Print(text)) => assert!(text.ends_with('\n')),
        Ok(Order::Do(config)) => {
            if let Mode::Job(job) = config.mode {
                let tail = [std::slice::from_ref(&job.command), &job.arguments].concat();
                assert!(words.ends_with(&tail), "{words:?}");
            }
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains(char::is_control) && line.len() < 1000, "{line:?}");
            return false;
        }
    }
    true
}

#[test]
fn the_fuzzing_seeds_keep_the_promises() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/argv");
    // The published crate does not include the seeds.
    let Ok(seeds) = std::fs::read_dir(folder) else { return };
    let mut good = 0;
    for seed in seeds {
        let input = std::fs::read(seed.unwrap().path()).unwrap();
        let lines = input.split(|b| *b == b'\n').map(|line| OsString::from_vec(line.to_vec()));
        let (env, words): (Vec<_>, Vec<_>) = lines.partition(|line| line.as_bytes().starts_with(b"KAPO_"));
        let variable = |line: &OsString| {
            let at = line.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = line.as_bytes().split_at(at);
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value[1..].to_vec())))
        };
        let env: Vec<_> = env.iter().filter_map(variable).collect();
        good += usize::from(promises_hold(words, &env));
    }
    assert!(good >= 4, "{good}");
}

#[test]
fn arbitrary_arguments_never_panic_or_change_the_command() {
    let mut dice = Dice(88_172_645_463_325_252);
    let mut pieces: Vec<Vec<u8>> = [
        "run", "r", "watch", "check", "help", "--", "-", "=", "x", "0", "9", "-1", ":", ",", "TERM", "ms",
        "http://", "@", "/", "[", "\n", "\u{e9}",
    ]
    .iter()
    .map(|piece| piece.as_bytes().to_vec())
    .collect();
    pieces.extend([vec![0xff], vec![b'-', 0xc3], vec![b'9'; 60]]);
    pieces.extend(options().map(|opt| format!("--{}", opt.long).into_bytes()));
    pieces.extend(options().filter_map(|opt| opt.short).map(|short| format!("-{short}").into_bytes()));
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut text = |most: usize| -> OsString {
            let many = 1 + dice.roll(most);
            OsString::from_vec((0..many).flat_map(|_| pieces[dice.roll(pieces.len())].clone()).collect())
        };
        let mut words: Vec<OsString> = (0..5).map(|_| text(2)).collect();
        let variable = text(3);
        let name = options().nth(dice.roll(options().count())).unwrap().env;
        if dice.roll(2) == 0 {
            words.insert(0, "run".into());
        }
        let env: Vec<_> = name.map(|name| (name.into(), variable)).into_iter().collect();
        match promises_hold(words, &env) {
            true => good += 1,
            false => bad += 1,
        }
    }
    assert!(good > 500 && bad > 5_000, "{good} {bad}");
}
