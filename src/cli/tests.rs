//! Words and variables in, Config or message out: a line a promise.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::options::{Fallback, MODES, OPTIONS, Opt, Verb};
use super::{Order, parse};
use crate::config::{
    After, Capture, Check, Config, Interface, Job, Linger, Listen, Mode, Probe, Restart, Success, Ttl, Wait,
    Watch,
};
use crate::error::Error;
use crate::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);

fn parse_bytes(words: &[&[u8]], env: &[(&str, &[u8])]) -> Result<Order, Error> {
    let env: HashMap<&str, OsString> =
        env.iter().map(|(name, text)| (*name, OsString::from_vec(text.to_vec()))).collect();
    let words = words.iter().map(|word| OsString::from_vec(word.to_vec())).collect();
    parse(words, &|name| env.get(name).cloned())
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

/// Words parted by spaces.
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

fn job(words: &str) -> Job {
    match config(words).mode {
        Mode::Job(job) => *job,
        mode => panic!("{words}: {mode:?}"),
    }
}

/// What nobody asked anything of.
fn plain(mode: Mode) -> Config {
    Config {
        listen: Listen {
            port: 6666,
            interface: Interface::Ip("0.0.0.0".parse().unwrap()),
            sidebind: false,
            socket_activation: false,
        },
        capture: Capture::default(),
        hide_args: false,
        max_connections: 512,
        quiet: false,
        mode,
    }
}

fn plain_job(command: &str, arguments: &[&str], after: After) -> Job {
    Job {
        command: command.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        ttl: None,
        stop_signal: Signal::TERM,
        kill_after: None,
        single_child: false,
        setsid: false,
        rewrite_signal: Vec::new(),
        success_exit: Vec::new(),
        parent_death_signal: None,
        orphan_signal: Some(Signal::TERM),
        termination_log: None,
        notify: false,
        watchdog: None,
        after,
    }
}

fn plain_restart() -> Restart {
    Restart {
        wait: 5 * SECOND,
        backoff_max: None,
        stable: 60 * SECOND,
        max_restarts: None,
        within: 300 * SECOND,
        on_failure_only: false,
    }
}

#[test]
fn each_mode_has_the_defaults_of_the_contract() {
    let run = plain_job("sleep", &["60"], After::Once(Linger::Fixed(Duration::ZERO)));
    let supervise = plain_job("sleep", &["60"], After::Again(plain_restart()));
    let watch = Watch { name: "nginx".into(), pid: None, wait: 5 * SECOND, process_events: false };
    let check = Check { probe: Probe::Ready, url: None, timeout: 5 * SECOND };
    let wait = Wait { url: None, timeout: None };
    for (words, mode) in [
        ("run sleep 60", Mode::Job(Box::new(run.clone()))),
        ("r -- sleep 60", Mode::Job(Box::new(run))),
        ("supervise sleep 60", Mode::Job(Box::new(supervise.clone()))),
        ("-- s -- sleep 60", Mode::Job(Box::new(supervise))),
        ("watch nginx", Mode::Watch(watch.clone())),
        ("w -- nginx", Mode::Watch(watch)),
        ("check", Mode::Check(check)),
        ("wait", Mode::Wait(wait)),
    ] {
        assert_eq!(config(words), plain(mode), "{words}");
    }
}

#[test]
fn nothing_behind_the_command_is_ours() {
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
fn options_are_taken_in_every_written_form() {
    for words in [
        "--port 80 run x",
        "--port=80 run x",
        "-p 80 run x",
        "-p80 run x",
        "-p=80 run x",
        "run --port 80 x",
        "run --port=80 -- x",
        "--port 1 -p2 --port=80 run x",
        "--port 1 run --port 80 x",
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
        expected.capture = Capture { stdout: true, stderr: true, lines: true, tail: 0 };
        assert_eq!(config(words), expected, "{words}");
    }
}

#[test]
fn p_is_a_port_before_the_mode_and_a_pid_behind_watch() {
    let both = config("-p 80 watch -p 81 name");
    assert_eq!(both.listen.port, 80);
    let watch = Watch { name: "name".into(), pid: Some(81), wait: 5 * SECOND, process_events: false };
    assert_eq!(both.mode, Mode::Watch(watch));
    assert!(matches!(config("watch --pid 7").mode, Mode::Watch(w) if w.pid == Some(7) && w.name.is_empty()));
}

#[test]
fn words_and_values_need_not_be_utf_8() {
    let words: [&[u8]; 7] =
        [b"--interface=/run/\xff", b"run", b"--termination-log", b"/\xfe", b"--", b"\xc3(", b"\x80"];
    let Ok(Order::Do(config)) = parse_bytes(&words, &[]) else { panic!("refused") };
    let bytes = |b: &[u8]| OsString::from_vec(b.to_vec());
    assert_eq!(config.listen.interface, Interface::Path(bytes(b"/run/\xff").into()));
    let Mode::Job(job) = config.mode else { panic!("no job") };
    assert_eq!(job.termination_log, Some(bytes(b"/\xfe").into()));
    assert_eq!((job.command, job.arguments), (bytes(b"\xc3("), vec![bytes(b"\x80")]));
    let Ok(Order::Do(config)) = parse_bytes(&[b"run", b"x"], &[("KAPO_INTERFACE", b"@\xff")]) else {
        panic!("refused")
    };
    assert_eq!(config.listen.interface, Interface::Abstract(vec![0xff]));
}

#[test]
fn the_command_line_beats_the_environment_and_that_the_default() {
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
fn booleans_in_the_environment_are_the_listed_words_and_no_others() {
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
fn variables_of_other_modes_are_not_looked_at() {
    let env =
        [("KAPO_TTL", "x"), ("KAPO_WATCHPID", "x"), ("KAPO_RESTART", "x"), ("KAPO_PROCESS_EVENTS", "x")];
    assert_eq!(config_with("check", &env), config("check"));
    assert_eq!(
        message_with("run x", &env),
        "KAPO_TTL: 'x' is not a time or a range of times (such as 30, 5m or 30-60)"
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
fn a_health_check_lives_with_the_variables_of_the_main_process() {
    // The main process may have its --stdout on the command line; the check knows only the variables.
    let env = [("KAPO_STDLOG", "1"), ("KAPO_TAIL", "64K"), ("KAPO_PORT", "70")];
    assert_eq!(config_with("check", &env).listen.port, 70);
    assert_eq!(config_with("wait", &env).listen.port, 70);
}

#[test]
fn times_are_read_in_every_form_and_never_overflow() {
    for (text, time) in [
        ("30", 30 * SECOND),
        ("0.5", SECOND / 2),
        (".5", SECOND / 2),
        ("5.", 5 * SECOND),
        ("500ms", SECOND / 2),
        ("30s", 30 * SECOND),
        ("5m", 300 * SECOND),
        ("6h", 6 * 3600 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h0.25s", 5400 * SECOND + SECOND / 4),
        ("0", Duration::ZERO),
        ("0.000000001", Duration::from_nanos(1)),
        ("0.0000000019999999999999999999999999", Duration::from_nanos(1)),
        ("000030", 30 * SECOND),
        ("18446744073709551614", Duration::from_secs(u64::MAX - 1)),
        ("18446744073709551615", Duration::MAX),
        ("18446744073709551616", Duration::MAX),
        ("99999999999999999999999999999999999999999999999999", Duration::MAX),
        ("9999999999999999999999999999999999999999999999999h1ms", Duration::MAX),
    ] {
        assert_eq!(job(&format!("run --kill-after {text} x")).kill_after, Some(time), "{text}");
    }
    let long = "9".repeat(100_000);
    let ttl = job(&format!("run --ttl {long} x")).ttl;
    assert_eq!(ttl, Some(Ttl { min: Duration::MAX, max: Duration::MAX }));
    for text in [
        "", "-1", "+1", "NaN", "nan", "inf", "infinity", "1e3", "0x10", "1d", "1 s", " 1", "1s ", ".", "s",
        "ms", "1m30", "30x", "1..2", "1.2.3", "\u{0663}", "1us", "--",
    ] {
        let word = format!("--kill-after={text}");
        let said = try_config(&["run", &word, "x"], &[]).unwrap_err();
        assert_eq!(
            said,
            format!("--kill-after: '{text}' is not a time (such as 30, 0.5, 500ms, 5m or 1m30s)")
        );
    }
}

#[test]
fn a_ttl_is_a_time_or_a_range_and_zero_is_none() {
    let ttl = |min, max| Some(Ttl { min: SECOND * min, max: SECOND * max });
    for (text, expected) in [
        ("30", ttl(30, 30)),
        ("30-60", ttl(30, 60)),
        ("1m-1h", ttl(60, 3600)),
        ("5-5", ttl(5, 5)),
        ("0", None),
        ("0-0", None),
        ("0-9", ttl(0, 9)),
    ] {
        assert_eq!(job(&format!("run -t {text} x")).ttl, expected, "{text}");
    }
    assert_eq!(message("run --ttl 30-1 x"), "--ttl: '30-1' is an empty range (MIN is above MAX)");
    for text in ["-5", "5-", "-", "1-2-3", "NaN", "a-b", "-1-2"] {
        assert_eq!(
            message(&format!("run --ttl {text} x")),
            format!("--ttl: '{text}' is not a time or a range of times (such as 30, 5m or 30-60)")
        );
    }
}

#[test]
fn signals_are_rewritten_dropped_and_counted_as_success() {
    let rewritten = |words: &str| job(words).rewrite_signal;
    assert_eq!(
        rewritten("run --rewrite-signal TERM:INT,hup:0 --rewrite-signal 10:SIGRTMIN+3 x"),
        [(Signal::TERM, Some(Signal::INT)), (Signal::HUP, None), (Signal::USR1, Signal::new(37))]
    );
    assert_eq!(rewritten("run --rewrite-signal TERM:INT --rewrite-signal TERM:0 x"), [(Signal::TERM, None)]);
    assert_eq!(
        job("run --success-exit 143,TERM,0 x").success_exit,
        [Success::Code(143), Success::Signal(Signal::TERM), Success::Code(0)]
    );
    assert_eq!(job("run --orphan-signal 0 x").orphan_signal, None);
    assert_eq!(job("run --orphan-signal KILL x").orphan_signal, Some(Signal::KILL));
    assert_eq!(job("run --parent-death-signal INT x").parent_death_signal, Some(Signal::INT));
    assert_eq!(job("run --stop-signal RTMIN+3 x").stop_signal, Signal::new(37).unwrap());
}

#[test]
fn an_interface_is_an_address_a_path_or_an_abstract_name() {
    let ip = |text: &str| Interface::Ip(text.parse().unwrap());
    let path = format!("/{}", "p".repeat(106));
    for (text, expected) in [
        ("127.0.0.1", ip("127.0.0.1")),
        ("::", ip("::")),
        ("[::1]", ip("::1")),
        ("/run/kapo.sock", Interface::Path("/run/kapo.sock".into())),
        (path.as_str(), Interface::Path(path.clone().into())),
        ("@kapo", Interface::Abstract(b"kapo".to_vec())),
    ] {
        assert_eq!(config(&format!("-i {text} run x")).listen.interface, expected, "{text}");
    }
    let long = "p".repeat(107);
    let cut = "p".repeat(59);
    for (text, expected) in [
        (
            "localhost",
            "'localhost' is a name; give an address, not a name (127.0.0.1 or ::1, /path or @name)",
        ),
        ("a.b-c", "'a.b-c' is a name; give an address, not a name (127.0.0.1 or ::1, /path or @name)"),
        ("", "'' is not an address (IPv4 or IPv6), an absolute path or @name"),
        ("300.1.1.1", "'300.1.1.1' is not an address (IPv4 or IPv6), an absolute path or @name"),
        ("[127.0.0.1]", "'[127.0.0.1]' is not an address (IPv4 or IPv6), an absolute path or @name"),
        ("./sock", "'./sock' is not an address (IPv4 or IPv6), an absolute path or @name"),
        ("0.0.0.0:80", "'0.0.0.0:80' is an address with a port; give the port to --port"),
        ("@", "'@' is a socket without a name"),
        (&format!("/{long}"), &format!("'/{cut}...' is too long for a socket (108 bytes, at most 107)")),
        (&format!("@{long}p"), &format!("'@{cut}...' is too long for a socket (108 bytes, at most 107)")),
    ] {
        let word = format!("--interface={text}");
        assert_eq!(try_config(&[&word, "run", "x"], &[]), Err(format!("--interface: {expected}")), "{text}");
    }
}

#[test]
fn run_lingers_for_a_time_or_until_nobody_asks() {
    let linger = |words: &str, env: &[(&str, &str)]| match config_with(words, env).mode {
        Mode::Job(job) => job.after,
        mode => panic!("{mode:?}"),
    };
    let fixed = |n| After::Once(Linger::Fixed(SECOND * n));
    let idle = |n| After::Once(Linger::Idle(SECOND * n));
    assert_eq!(linger("run -w 3 x", &[]), fixed(3));
    assert_eq!(linger("run --idle-exit 3 x", &[]), idle(3));
    assert_eq!(linger("run --idle-exit 3 x", &[("KAPO_WAIT", "4")]), idle(3));
    assert_eq!(linger("run --wait 3 x", &[("KAPO_IDLE_EXIT", "4")]), fixed(3));
    let said = "--idle-exit stands instead of --wait: give one of them";
    assert_eq!(message("run --idle-exit 3 --wait 0 x"), said);
    assert_eq!(
        message_with("run x", &[("KAPO_IDLE_EXIT", "1"), ("KAPO_WAIT", "1")]),
        "KAPO_IDLE_EXIT stands instead of KAPO_WAIT: give one of them"
    );
}

#[test]
fn supervise_takes_all_of_its_options() {
    let words =
        "supervise -w 1 --backoff-max 1m --stable 2 --max-restarts 3 --within 4 --restart on-failure x";
    let expected = Restart {
        wait: SECOND,
        backoff_max: Some(60 * SECOND),
        stable: 2 * SECOND,
        max_restarts: Some(3),
        within: 4 * SECOND,
        on_failure_only: true,
    };
    assert_eq!(job(words).after, After::Again(expected));
    assert_eq!(job("supervise --max-restarts 0 --backoff-max 0 x").after, After::Again(plain_restart()));
}

#[test]
fn check_and_wait_take_an_address_and_a_time_limit() {
    let check = |words: &str| match config(words).mode {
        Mode::Check(check) => (check.probe, check.url, check.timeout),
        mode => panic!("{mode:?}"),
    };
    let url = |text: &str| Some(text.to_owned());
    assert_eq!(check("check --live"), (Probe::Live, None, 5 * SECOND));
    assert_eq!(check("check --health --health"), (Probe::Health, None, 5 * SECOND));
    assert_eq!(check("check --timeout 500ms http://a"), (Probe::Ready, url("http://a"), SECOND / 2));
    for text in ["http://a.b:1/x?y=z", "http://127.0.0.1", "http://[::1]:6666/", "http://a?x"] {
        assert_eq!(
            config(&format!("wait --timeout 0 {text}")).mode,
            Mode::Wait(Wait { url: url(text), timeout: Some(Duration::ZERO) })
        );
        assert_eq!(check(&format!("check -- {text}")).1, url(text));
    }
    for text in [
        "",
        "a",
        "localhost:6666",
        "https://a",
        "http://",
        "http://:80",
        "http://a:",
        "http://a:0",
        "http://a:65536",
        "http://a:b",
        "http://[::1",
        "http://[a]",
        "http://[::1]x",
        "http://u@a",
        "http://a b",
        "http://a/\u{e9}",
        "http://a/#x",
        "http://a\r\nX:y",
        "HTTP://a",
    ] {
        let said = try_config(&["check", text], &[]).unwrap_err();
        assert!(
            said.starts_with("URL: '") && said.ends_with("(http://HOST[:PORT][/PATH])"),
            "{text}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn wrong_words_are_named_with_what_was_expected() {
    let modes = "run, supervise, watch, check, wait or help (see kapo --help)";
    for (words, expected) in [
        ("", &*format!("a mode is expected: {modes}")),
        ("--", &format!("a mode is expected: {modes}")),
        ("-S --port 1", &format!("a mode is expected: {modes}")),
        ("sleep 60", &format!("unknown mode 'sleep'; expected {modes}")),
        ("x", &format!("unknown mode 'x'; expected {modes}")),
        ("rnu x", "unknown mode 'rnu'; did you mean run?"),
        ("sup x", "unknown mode 'sup'; did you mean supervise?"),
        ("Watch x", "unknown mode 'Watch'; did you mean watch?"),
        ("help me", &format!("unknown mode 'me'; expected {modes}")),
        ("help run x", "unexpected word 'x'; help takes one mode"),
        ("--prot 1 run x", "unknown option '--prot'; did you mean --port?"),
        ("run --sock x", "unknown option '--sock'; did you mean --socket-activation?"),
        ("run --frobnicate x", "unknown option '--frobnicate'"),
        ("run --frob=1 x", "unknown option '--frob'"),
        ("run -x y", "unknown option '-x'"),
        ("-Sx run y", "unknown option '-x' in '-Sx'"),
        ("-S=maybe run y", "--stdout: 'maybe' is not a boolean (1, t, true, 0, f or false)"),
        ("run -p 80 x", "unknown option '-p': it stands before the mode; behind it write --port"),
        ("-t 5 run x", "unknown option '-t': --ttl SECONDS|MIN-MAX stands behind the mode"),
        ("watch -t 5 x", "unknown option '-t': --ttl SECONDS|MIN-MAX is not an option of watch"),
        ("--ttl 5 run x", "--ttl stands behind the mode (run, supervise)"),
        ("watch --ttl 5 x", "--ttl is not an option of watch, but of run, supervise"),
        ("run --pid 5 x", "--pid is not an option of run, but of watch"),
        ("check --wait 5", "--wait is not an option of check, but of run, supervise, watch"),
        ("run --port", "--port needs a value (PORT)"),
        ("-p", "--port needs a value (PORT)"),
        ("-Sp", "--port needs a value (PORT)"),
        ("run --ttl", "--ttl needs a value (SECONDS|MIN-MAX)"),
        ("--help=1", "--help takes no value"),
        ("--version=", "--version takes no value"),
        ("run", "run needs a command: kapo run [OPTIONS] [--] COMMAND [ARG...]"),
        ("s --", "supervise needs a command: kapo supervise [OPTIONS] [--] COMMAND [ARG...]"),
        ("watch", "watch needs NAME or --pid"),
        ("watch a b", "unexpected word 'b': watch takes one NAME"),
        ("watch a --wait 3", "unexpected word '--wait': options stand before NAME"),
        ("check http://a http://b", "unexpected word 'http://b': check takes one URL"),
        ("wait http://a http://b", "unexpected word 'http://b': wait takes one URL"),
        ("--port 65536 run x", "--port: '65536' is not a port (0 to 65535)"),
        ("--port -1 run x", "--port: '-1' is not a port (0 to 65535)"),
        ("-p-1 run x", "--port: '-1' is not a port (0 to 65535)"),
        ("--port abc run x", "--port: 'abc' is not a port (0 to 65535)"),
        ("--port= run x", "--port: '' is not a port (0 to 65535)"),
        ("--port +80 run x", "--port: '+80' is not a port (0 to 65535)"),
        ("--port --quiet run x", "--port: '--quiet' is not a port (0 to 65535)"),
        ("--max-connections 0 run x", "--max-connections: '0' is not a number of connections (1 or more)"),
        ("--tail 1048577 run x", "--tail: '1048577' is too much (at most 1048576 bytes)"),
        ("--tail 2M run x", "--tail: '2M' is too much (at most 1048576 bytes)"),
        (
            "--tail 99999999999999999999K run x",
            "--tail: '99999999999999999999K' is too much (at most 1048576 bytes)",
        ),
        ("--tail K run x", "--tail: 'K' is not a size (such as 4096, 64K or 1M)"),
        ("--tail 64K run x", "--tail needs --stdout or --stderr"),
        ("--stdlog run x", "--stdlog needs --stdout or --stderr"),
        ("run --watchdog 5 x", "--watchdog needs --notify"),
        (
            "run --stop-signal FOO x",
            "--stop-signal: 'FOO' is not a signal (such as TERM, SIGTERM, 15 or RTMIN+3)",
        ),
        (
            "run --stop-signal 0 x",
            "--stop-signal: '0' is not a signal (such as TERM, SIGTERM, 15 or RTMIN+3)",
        ),
        (
            "run --orphan-signal FOO x",
            "--orphan-signal: 'FOO' is not a signal (such as TERM, SIGTERM, 15 or RTMIN+3), nor 0 for none",
        ),
        (
            "run --rewrite-signal KILL:0 x",
            "--rewrite-signal: SIGKILL cannot be rewritten: no process can catch it",
        ),
        (
            "run --rewrite-signal 19:2 x",
            "--rewrite-signal: SIGSTOP cannot be rewritten: no process can catch it",
        ),
        (
            "run --rewrite-signal CHLD:2 x",
            "--rewrite-signal: SIGCHLD cannot be rewritten: it is never passed on",
        ),
        (
            "run --rewrite-signal TERM x",
            "--rewrite-signal: 'TERM' is not FROM:TO (such as TERM:INT, or HUP:0 for none)",
        ),
        (
            "run --success-exit 256 x",
            "--success-exit: '256' is not an exit code (0 to 255) or the name of a signal",
        ),
        (
            "run --success-exit 1, x",
            "--success-exit: '' is not an exit code (0 to 255) or the name of a signal",
        ),
        ("supervise --restart never x", "--restart: 'never' is not always or on-failure"),
        ("supervise --max-restarts -1 x", "--max-restarts: '-1' is not a number of restarts (0: no limit)"),
        ("watch --pid 0 x", "--pid: '0' is not a pid (1 or more)"),
        ("watch --pid -1 x", "--pid: '-1' is not a pid (1 or more)"),
        ("watch -p abc x", "--pid: 'abc' is not a pid (1 or more)"),
        ("watch -p 2147483648 x", "--pid: '2147483648' is not a pid (1 or more)"),
        ("check --live --ready", "--ready: one of --live, --ready and --health can be given"),
        ("check --timeout 0", "--timeout: '0' leaves no time for an answer"),
        ("run --termination-log= x", "--termination-log: '' is not a path"),
    ] {
        assert_eq!(message(words), expected, "{words}");
    }
}

#[test]
fn wrong_variables_are_named_as_variables() {
    for (words, name, text, expected) in [
        ("run x", "KAPO_PORT", "65536", "KAPO_PORT: '65536' is not a port (0 to 65535)"),
        ("run x", "KAPO_WATCHDOG", "5", "KAPO_WATCHDOG needs --notify"),
        ("run x", "KAPO_STDLOG", "1", "KAPO_STDLOG needs --stdout or --stderr"),
        ("run x", "KAPO_TAIL", "1K", "KAPO_TAIL needs --stdout or --stderr"),
        ("watch", "KAPO_WATCHPID", "0", "KAPO_WATCHPID: '0' is not a pid (1 or more)"),
        ("run x", "KAPO_PORT", "8\n0", "KAPO_PORT: '8\\n0' is not a port (0 to 65535)"),
        ("run x", "KAPO_TERMINATION_LOG", "/a\0b", "KAPO_TERMINATION_LOG: '/a\\u{0}b' holds a NUL byte"),
    ] {
        assert_eq!(message_with(words, &[(name, text)]), expected);
    }
}

#[test]
fn a_nul_in_a_word_is_refused() {
    assert_eq!(message("run a\0b"), "'a\\u{0}b' holds a NUL byte, which nobody can be given");
    assert_eq!(message("run x a\0"), "'a\\u{0}' holds a NUL byte, which nobody can be given");
    assert_eq!(message("--interface /a\0b run x"), "--interface: '/a\\u{0}b' holds a NUL byte");
}

#[test]
fn wrong_usage_exits_with_2_but_check_knows_only_1() {
    let code = |words: &[&[u8]]| parse_bytes(words, &[]).unwrap_err().exit_code();
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&[b"wait", b"--bad"]), 2);
    assert_eq!(code(&[b"check", b"--bad"]), 1);
    assert_eq!(code(&[b"-p", b"80", b"check", b"--timeout", b"x"]), 1);
    assert_eq!(code(&[b"-p", b"x", b"check"]), 1);
}

#[test]
fn help_and_version_are_printed_wherever_options_may_stand() {
    let printed = |words: &[&[u8]]| match parse_bytes(words, &[("KAPO_PORT", b"rubbish")]) {
        Ok(Order::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    let version = concat!("kapo ", env!("CARGO_PKG_VERSION"), "\n");
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

/// A value of that option that is not its default.
fn sample(opt: &Opt) -> &'static str {
    match opt.value {
        None => "true",
        Some("ADDR") => "127.0.0.1",
        Some("SIGNAL") => "USR1",
        Some("FROM:TO") => "TERM:INT",
        Some("PATH") => "/log",
        Some("WHEN") => "on-failure",
        Some(_) => "7",
    }
}

#[test]
fn every_option_works_by_its_long_and_short_name_and_by_its_variable() {
    for opt in OPTIONS.iter().filter(|opt| !["help", "version"].contains(&opt.long)) {
        for row in MODES.iter().filter(|row| opt.serves(row.verb)) {
            // What some options need at their side.
            let job = matches!(row.verb, Verb::Run | Verb::Supervise);
            let mut base = vec![row.name];
            base.extend(
                job.then_some(["--stdout", "--notify"])
                    .into_iter()
                    .flatten()
                    .filter(|base| *base != format!("--{}", opt.long)),
            );
            if opt.long == "stdout" {
                base.push("--stderr");
            }
            let operands: &[&str] =
                if row.verb == Verb::Check || row.verb == Verb::Wait { &[] } else { &["x"] };
            let joined = |words: [&[&str]; 4]| -> Vec<String> {
                words.concat().iter().map(|w| w.to_string()).collect()
            };
            let with = |words: &[&str]| joined([&[], &base, words, operands]);
            let without = try_config(&with(&[]), &[]).unwrap();
            let long = format!("--{}={}", opt.long, sample(opt));
            let expected = try_config(&with(&[&long]), &[]).unwrap();
            // --ready is what check asks for anyway.
            assert_eq!(
                expected == without,
                opt.long == "ready",
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
fn every_default_of_the_table_is_what_holds_when_nothing_is_said() {
    for opt in OPTIONS {
        if let Fallback::Text(text) = opt.fallback {
            for row in MODES.iter().filter(|row| opt.serves(row.verb)) {
                let operands: &[&str] =
                    if row.verb == Verb::Check || row.verb == Verb::Wait { &[] } else { &["x"] };
                let word = format!("--{}={text}", opt.long);
                let given = try_config(&[&[row.name, &word], operands].concat(), &[]);
                assert_eq!(given, try_config(&[&[row.name], operands].concat(), &[]), "{word}");
            }
        }
    }
    let shown = OPTIONS.iter().find(|opt| opt.long == "kill-after").map(Opt::default);
    assert_eq!(shown, Some(&*crate::config::KILL_AFTER.as_secs().to_string()));
}

/// Numbers that look random and are the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

#[test]
fn arbitrary_words_are_answered_in_one_line_and_never_lose_the_command() {
    let mut dice = Dice(88_172_645_463_325_252);
    let mut pieces: Vec<Vec<u8>> = [
        "run", "r", "watch", "check", "help", "--", "-", "=", "x", "0", "9", "-1", ":", ",", "TERM", "ms",
        "http://", "@", "/", "[", "\n", "\u{e9}",
    ]
    .iter()
    .map(|piece| piece.as_bytes().to_vec())
    .collect();
    pieces.extend([vec![0xff], vec![b'-', 0xc3], vec![b'9'; 60]]);
    pieces.extend(OPTIONS.iter().map(|opt| format!("--{}", opt.long).into_bytes()));
    pieces.extend(OPTIONS.iter().filter_map(|opt| opt.short).map(|short| format!("-{short}").into_bytes()));
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut text = |most: usize| -> OsString {
            let many = 1 + dice.roll(most);
            OsString::from_vec((0..many).flat_map(|_| pieces[dice.roll(pieces.len())].clone()).collect())
        };
        let mut words: Vec<OsString> = (0..5).map(|_| text(2)).collect();
        let variable = text(3);
        let name = OPTIONS[dice.roll(OPTIONS.len())].env;
        if dice.roll(2) == 0 {
            words.insert(0, "run".into());
        }
        let last = OsString::from("the end");
        words.push(last.clone());
        match parse(words.clone(), &|wanted| (Some(wanted) == name).then(|| variable.clone())) {
            Ok(Order::Print(text)) => assert!(text.ends_with('\n')),
            Ok(Order::Do(config)) => {
                good += 1;
                if let Mode::Job(job) = config.mode {
                    let tail = [vec![job.command], job.arguments].concat();
                    assert!(
                        words.ends_with(&tail)
                            && tail.last().map(OsString::as_os_str) == Some(OsStr::new("the end")),
                        "{words:?}"
                    );
                }
            }
            Err(error) => {
                bad += 1;
                let line = error.to_string();
                assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
                assert!(line.len() < 400, "{line}");
            }
        }
    }
    assert!(good > 500 && bad > 5_000, "{good} {bad}");
}

#[test]
fn a_path_stays_a_path() {
    assert_eq!(
        job("run --termination-log /dev/termination-log x").termination_log,
        Some(PathBuf::from("/dev/termination-log"))
    );
}
