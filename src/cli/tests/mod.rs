//! Tests of arguments and variables against the resulting Config or message.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::time::Duration;

use super::{Order, parse};
use crate::config::{
    After, CaptureOptions, CheckOptions, Config, Interface, JobOptions, Linger, LogFormat, Mode, Probe,
    Restart, Success, WaitOptions, WatchOptions,
};
use crate::error::Error;
use crate::signal::Signal;

mod every;
mod values;
mod wrong;

const SECOND: Duration = Duration::from_secs(1);

fn parse_bytes(words: &[&[u8]], env: &[(&str, &[u8])]) -> Result<Order, Error> {
    let env: Vec<_> =
        env.iter().map(|(name, text)| (OsString::from(*name), OsString::from_vec(text.to_vec()))).collect();
    let words = words.iter().map(|word| OsString::from_vec(word.to_vec())).collect();
    parse(words, &env)
}

fn try_config<W: AsRef<[u8]>>(words: &[W], env: &[(&str, &str)]) -> Result<Config, String> {
    let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
    let env: Vec<(&str, &[u8])> = env.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    match parse_bytes(&words, &env) {
        Ok(Order::Do(config)) => Ok(config),
        Ok(Order::Print(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses arguments that are separated by spaces.
fn config(words: &str) -> Config {
    config_with(words, &[])
}

fn config_with(words: &str, env: &[(&str, &str)]) -> Config {
    let list: Vec<&str> = words.split(' ').collect();
    try_config(&list, env).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn message(words: &str) -> String {
    message_with(words, &[])
}

fn message_with(words: &str, env: &[(&str, &str)]) -> String {
    let list: Vec<&str> = words.split_ascii_whitespace().collect();
    match try_config(&list, env) {
        Ok(config) => panic!("{words}: {config:?}"),
        Err(text) => text,
    }
}

fn job(words: &str) -> JobOptions {
    match config(words).mode {
        Mode::Job(job) => Rc::unwrap_or_clone(job),
        mode => panic!("{words}: {mode:?}"),
    }
}

/// Returns the Config without any option.
fn plain(name: &str, mode: Mode) -> Config {
    Config {
        listen: crate::config::tests::listen(Interface::Ip("0.0.0.0".parse().unwrap()), 6666),
        name: name.to_owned(),
        log_name: false,
        capture: CaptureOptions::default(),
        hide_args: false,
        ui: true,
        max_connections: 512,
        history: 5,
        quiet: false,
        log_format: LogFormat::Logfmt,
        misspelt: Vec::new(),
        mode,
    }
}

fn plain_job(command: &str, arguments: &[&str], after: After) -> JobOptions {
    let arguments = arguments.iter().map(OsString::from).collect();
    JobOptions { command: command.into(), arguments, after, ..crate::config::tests::job() }
}

#[test]
fn each_mode_has_the_defaults_of_the_contract() {
    let run = plain_job("sleep", &["60"], After::Once(Linger::Fixed(Duration::ZERO)));
    let supervise = plain_job("sleep", &["60"], After::Again(crate::config::tests::restart()));
    let watch =
        WatchOptions { names: vec!["nginx".into()], pid: None, wait: 5 * SECOND, process_events: false };
    let check = CheckOptions { probe: Probe::Ready, url: None, timeout: 5 * SECOND };
    let wait = WaitOptions::default();
    for (words, name, mode) in [
        ("run sleep 60", "sleep", Mode::Job(Rc::new(run.clone()))),
        ("r -- sleep 60", "sleep", Mode::Job(Rc::new(run))),
        ("supervise sleep 60", "sleep", Mode::Job(Rc::new(supervise.clone()))),
        ("-- s -- sleep 60", "sleep", Mode::Job(Rc::new(supervise))),
        ("watch nginx", "nginx", Mode::Watch(watch.clone())),
        ("w -- nginx", "nginx", Mode::Watch(watch)),
        ("check", "", Mode::Check(check)),
        ("wait", "", Mode::Wait(wait)),
    ] {
        assert_eq!(config(words), plain(name, mode), "{words}");
    }
}

#[test]
fn the_name_is_given_or_the_base_name_of_the_command() {
    let long = "x".repeat(64);
    for (words, name) in [
        ("--name web-1.a_B run sleep", "web-1.a_B"),
        (&format!("--name {long} check"), &long),
        ("run /usr/bin/sleep", "sleep"),
        ("run ./a/b.sh/", "b.sh"),
        ("run .hidden", "_hidden"),
        ("run ..", "_."),
        ("run /", "_"),
        ("run a:b@\u{fc}\n", "a_b____"),
        (&format!("supervise /bin/{long}yy"), &long),
        ("watch /usr/sbin/nginx", "nginx"),
        ("watch --pid 17", "pid-17"),
        ("watch --pid 17 db", "db"),
    ] {
        assert_eq!(config(words).name, name, "{words}");
    }
    for (words, shown) in [("run x", false), ("--name x run x", true), ("--run-dir /r run x", true)] {
        assert_eq!(config(words).log_name, shown, "{words}");
    }
}

#[test]
fn clients_ignore_the_run_dir() {
    let long = format!("/{}", "x".repeat(200));
    let env = [("KAPO_RUN_DIR", long.as_str()), ("KAPO_PORT", "70")];
    assert_eq!(config_with("check", &env).listen.port, 70);
    assert_eq!(
        message_with("run x", &env),
        format!("KAPO_RUN_DIR: '{}...' is too long for a socket (208 bytes, at most 107)", &long[..60])
    );
}

#[test]
fn nothing_after_the_command_is_an_option_of_kapo() {
    for (words, command, arguments) in [
        ("run sleep --port 5", "sleep", vec!["--port", "5"]),
        ("run --wait 1 sleep --wait 2 -h --help", "sleep", vec!["--wait", "2", "-h", "--help"]),
        ("run -- --odd -- x", "--odd", vec!["--", "x"]),
        ("run - -x", "-", vec!["-x"]),
        ("run --port 1 -- -p 2", "-p", vec!["2"]),
        ("run run run", "run", vec!["run"]),
        ("run sh -- -h", "sh", vec!["--", "-h"]),
    ] {
        let job = job(words);
        assert_eq!(
            (job.command.to_str().unwrap(), job.arguments),
            (command, arguments.iter().map(OsString::from).collect()),
            "{words}"
        );
    }
    assert_eq!(config("run sleep --port 5").listen.port, 6666);
}

#[test]
fn options_are_read_in_every_written_form() {
    for words in [
        "--port 80 run x",
        "--port=80 run x",
        "-p 80 run x",
        "-p80 run x",
        "-p=80 run x",
        "run --port 80 x",
        "run --port=80 -- x",
    ] {
        let mut expected = config("run x");
        expected.listen.port = 80;
        assert_eq!(config(words), expected, "{words}");
    }
    for words in [
        "-SELp8080 run x",
        "-SEL -p 8080 run x",
        "-SELp 8080 run x",
        "-S -E --stdlog -p8080 run x",
        "--stdout --stderr --stdlog --port 8080 run x",
        "run --stdout=true --stderr=1 --stdlog=T --port=8080 x",
        "-q=false -SELp=8080 run x",
    ] {
        let mut expected = config("run x");
        expected.listen.port = 8080;
        expected.capture = CaptureOptions { stdout: true, stderr: true, lines: true, tail: 0 };
        assert_eq!(config(words), expected, "{words}");
    }
}

#[test]
fn p_is_a_port_before_the_mode_and_a_pid_after_watch() {
    let both = config("-p 80 watch -p 81 name");
    assert_eq!(both.listen.port, 80);
    let watch =
        WatchOptions { names: vec!["name".into()], pid: Some(81), wait: 5 * SECOND, process_events: false };
    assert_eq!(both.mode, Mode::Watch(watch));
    assert!(matches!(config("watch --pid 7").mode, Mode::Watch(w) if w.pid == Some(7) && w.names.is_empty()));
}

#[test]
fn arguments_and_values_need_not_be_utf_8() {
    let words: [&[u8]; 7] =
        [b"--interface=/run/\xff", b"run", b"--termination-log", b"/\xfe", b"--", b"\xc3(", b"\x80"];
    let Ok(Order::Do(config)) = parse_bytes(&words, &[]) else { panic!("refused") };
    let bytes = |b: &[u8]| OsString::from_vec(b.to_vec());
    assert_eq!(config.listen.interface, Interface::Path(bytes(b"/run/\xff").into()));
    let Mode::Job(job) = config.mode else { panic!("no job") };
    assert_eq!(job.termination_log, Some(bytes(b"/\xfe").into()));
    assert_eq!((&job.command, &job.arguments), (&bytes(b"\xc3("), &vec![bytes(b"\x80")]));
    let Ok(Order::Do(config)) = parse_bytes(&[b"run", b"x"], &[("KAPO_INTERFACE", b"@\xff")]) else {
        panic!("refused")
    };
    assert_eq!(config.listen.interface, Interface::Abstract(vec![0xff]));
}

#[test]
fn the_command_line_overrides_environment_and_default() {
    let port = |words: &str, env: &[(&str, &str)]| config_with(words, env).listen.port;
    assert_eq!(port("run x", &[("KAPO_PORT", "70")]), 70);
    assert_eq!(port("--port 80 run x", &[("KAPO_PORT", "70")]), 80);
    assert_eq!(port("run --port 80 x", &[("KAPO_PORT", "rubbish")]), 80);
    assert_eq!(port("run x", &[("KAPO_PORT", "")]), 6666);
    assert!(!config_with("run --quiet=false x", &[("KAPO_QUIET", "1")]).quiet);
    let rewrite =
        config_with("run --rewrite-signal HUP:0 x", &[("KAPO_REWRITE_SIGNAL", "TERM:INT,USR1:0")]).mode;
    assert!(matches!(rewrite, Mode::Job(job) if job.rewrite_signal == [(Signal::HUP, None)]));
}

#[test]
fn booleans_in_the_environment_are_only_the_listed_words() {
    for (text, on) in [
        ("1", true),
        ("t", true),
        ("T", true),
        ("true", true),
        ("TRUE", true),
        ("True", true),
        ("0", false),
        ("f", false),
        ("F", false),
        ("false", false),
        ("FALSE", false),
        ("False", false),
        ("", false),
    ] {
        assert_eq!(config_with("run x", &[("KAPO_QUIET", text)]).quiet, on, "{text}");
    }
    for text in ["yes", "on", "2", "tRUE", " 1", "-"] {
        assert_eq!(
            message_with("run x", &[("KAPO_QUIET", text)]),
            format!("KAPO_QUIET: '{text}' is not a boolean (1, t, true, 0, f or false)")
        );
    }
}

#[test]
fn variables_of_other_modes_are_ignored() {
    let env =
        [("KAPO_TTL", "x"), ("KAPO_WATCHPID", "x"), ("KAPO_RESTART", "x"), ("KAPO_PROCESS_EVENTS", "x")];
    assert_eq!(config_with("check", &env), config("check"));
    assert_eq!(
        message_with("run x", &env),
        "KAPO_TTL: 'x' is not a time or a range of times such as 30-60 (a number of seconds, or numbers with \
         the units ms, s, m, h, d, w: 30, 0.5, 500ms, 1h30m)"
    );
    assert_eq!(config_with("wait", &[("KAPO_WAIT", "x")]), config("wait"));
    for mode in ["run", "supervise", "watch"] {
        assert!(
            message_with(&format!("{mode} x"), &[("KAPO_WAIT", "x")]).starts_with("KAPO_WAIT: 'x'"),
            "{mode}"
        );
    }
}

#[test]
fn a_health_check_accepts_variables_of_the_main_process() {
    // The main process may have --stdout on its command line, but the check sees only the variables.
    let env = [("KAPO_STDLOG", "1"), ("KAPO_TAIL", "64K"), ("KAPO_PORT", "70")];
    let socket = [("KAPO_SIDEBIND", "1"), ("KAPO_INTERFACE", "/run/x")];
    assert_eq!(config_with("check", &socket).listen.interface, Interface::Path("/run/x".into()));
    assert_eq!(config_with("check", &env).listen.port, 70);
    assert_eq!(config_with("wait", &env).listen.port, 70);
}

#[test]
fn run_lingers_for_a_time_or_until_no_request_comes() {
    let linger = |words: &str, env: &[(&str, &str)]| match config_with(words, env).mode {
        Mode::Job(job) => job.after.clone(),
        mode => panic!("{mode:?}"),
    };
    let fixed = |n| After::Once(Linger::Fixed(SECOND * n));
    let idle = |n| After::Once(Linger::Idle(SECOND * n));
    assert_eq!(linger("run -w 3 x", &[]), fixed(3));
    assert_eq!(linger("run --idle-exit 3 x", &[]), idle(3));
    assert_eq!(linger("run --idle-exit 3 x", &[("KAPO_WAIT", "4")]), idle(3));
    assert_eq!(linger("run --wait 3 x", &[("KAPO_IDLE_EXIT", "4")]), fixed(3));
    let said = "--idle-exit and --wait cannot be combined";
    assert_eq!(message("run --idle-exit 3 --wait 0 x"), said);
    assert_eq!(
        message_with("run x", &[("KAPO_IDLE_EXIT", "1"), ("KAPO_WAIT", "1")]),
        "KAPO_IDLE_EXIT and KAPO_WAIT cannot be combined"
    );
}

#[test]
fn supervise_takes_all_of_its_options() {
    let words = "supervise -w 1 --backoff-max 1m --stable 2 --max-restarts 3 --within 4 --restart on-failure --no-restart-on 78,segv x";
    let expected = Restart {
        wait: SECOND,
        backoff_max: Some(60 * SECOND),
        stable: 2 * SECOND,
        max_restarts: Some(3),
        within: 4 * SECOND,
        on_failure_only: true,
        no_restart_on: vec![Success::Code(78), Success::Signal(Signal::SEGV)],
        log_repeats: false,
    };
    assert_eq!(job(words).after, After::Again(expected));
    assert_eq!(
        job("supervise --max-restarts 0 --backoff-max 0 x").after,
        After::Again(crate::config::tests::restart())
    );
}

#[test]
fn help_and_version_work_wherever_options_may_be() {
    let printed = |words: &[&[u8]]| match parse_bytes(words, &[("KAPO_PORT", b"rubbish")]) {
        Ok(Order::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    let version = super::help::version();
    for words in [&[&b"-v"[..]][..], &[b"--version"], &[b"-Sv"], &[b"run", b"--version"]] {
        assert_eq!(printed(words), version);
    }
    for words in [&[&b"--help"[..]][..], &[b"help"], &[b"-S", b"--help", b"nonsense"], &[b"help", b"--help"]]
    {
        assert!(printed(words).starts_with("Usage: kapo [OPTIONS] MODE"), "{words:?}");
    }
    for words in [&[&b"run"[..], b"--help"][..], &[b"r", b"-t5", b"-h"], &[b"help", b"r"]] {
        assert!(printed(words).starts_with("Usage: kapo [OPTIONS] run [OPTIONS] [--] COMMAND"), "{words:?}");
    }
}

#[test]
fn fleet_listens_on_loopback_and_reads_the_run_dir() {
    let fleet = |words: &str, env: &[(&str, &str)]| match config_with(words, env) {
        Config { listen, mode: Mode::Fleet(fleet), .. } => (listen, fleet.folder.unwrap_or_default()),
        config => panic!("{config:?}"),
    };
    let local = Interface::Ip("127.0.0.1".parse().unwrap());
    let (listen, folder) = fleet("fleet", &[("KAPO_RUN_DIR", "/run/x")]);
    assert_eq!((listen.port, listen.interface, listen.run_dir), (6670, local.clone(), None));
    assert_eq!(folder.to_str(), Some("/run/x"));
    let (listen, folder) = fleet("-p 6670 fleet /y", &[("KAPO_INTERFACE", "::"), ("KAPO_RUN_DIR", "/run/x")]);
    assert_eq!((listen.port, listen.interface), (6670, Interface::Ip("::".parse().unwrap())));
    assert_eq!((folder.to_str(), listen.run_dir), (Some("/y"), None));
    assert_eq!(fleet("-p 6666 fleet", &[]).0.port, 6666);
    assert_eq!(message("fleet ''x y"), "unexpected argument 'y': fleet takes only one DIR");
    assert!(message("--stdout fleet x").starts_with("--stdout cannot be used with fleet: "));
}
