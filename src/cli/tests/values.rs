//! Tests of the forms of values: times, ranges, signals, addresses, URLs.

use std::time::Duration;

use super::{SECOND, config, job, message, try_config};
use crate::config::{Interface, Mode, Probe, Success, Ttl, WaitOptions};
use crate::signal::{Signal, SignalSet};

const TIMES: &str = "a number of seconds, or numbers with the units ms, s, m, h, d, w: 30, 0.5, 500ms, 1h30m";

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
    assert_eq!(
        job(&format!("run --kill-after 0.{long}h x")).kill_after,
        Some(3600 * SECOND - Duration::from_nanos(1))
    );
    let ttl = job(&format!("run --ttl {long} x")).ttl;
    assert_eq!(ttl, Some(Ttl { min: Duration::MAX, max: Duration::MAX }));
    for text in [
        "", "-1", "+1", "NaN", "nan", "inf", "infinity", "1e3", "0x10", "1y", "1 s", " 1", "1s ", ".", "s",
        "ms", "1m30", "30x", "1..2", "1.2.3", "\u{0663}", "1us", "--",
    ] {
        let word = format!("--kill-after={text}");
        let said = try_config(&["run", &word, "x"], &[]).unwrap_err();
        assert_eq!(said, format!("--kill-after: '{text}' is not a time ({TIMES})"));
    }
}

#[test]
fn a_ttl_is_a_time_or_a_range_and_zero_means_none() {
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
    assert_eq!(message("run --ttl 30-1 x"), "--ttl: the minimum 30s is longer than the maximum 1s");
    assert_eq!(
        message("run --ttl 50m-70 x"),
        "--ttl: the minimum 50m is longer than the maximum 70s; did you mean 50m-70m?"
    );
    assert_eq!(message("run --ttl 50m-40 x"), "--ttl: the minimum 50m is longer than the maximum 40s");
    assert_eq!(message("run --ttl 1h30m-100 x"), "--ttl: the minimum 1h30m is longer than the maximum 100s");
    for text in ["-5", "5-", "-", "1-2-3", "NaN", "a-b", "-1-2"] {
        assert_eq!(
            message(&format!("run --ttl {text} x")),
            format!("--ttl: '{text}' is not a time or a range of times such as 30-60 ({TIMES})")
        );
    }
}

#[test]
fn listeners_are_added_by_lists_and_repetition() {
    let ip = |text: &str| Interface::Ip(text.parse().unwrap());
    let words = "--listen 127.0.0.1:80,[::1]:0 --listen /a,@b run x";
    let expected = [
        (ip("127.0.0.1"), 80),
        (ip("::1"), 0),
        (Interface::Path("/a".into()), 0),
        (Interface::Abstract(b"b".to_vec()), 0),
    ];
    assert_eq!(config(words).listen.further, expected);
    assert_eq!(config("run x").listen.further, []);
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
        job("run --success-exit 143,TERM --success-exit 0,ttl x").success_exit,
        [Success::Code(143), Success::Signal(Signal::TERM), Success::Code(0), Success::Ttl]
    );
    assert_eq!(job("run x").stop_on, SignalSet::of(&[Signal::TERM, Signal::INT, Signal::QUIT]));
    assert_eq!(
        job("run --stop-on WINCH,SIGRTMIN+3 --stop-on 15 x").stop_on,
        SignalSet::of(&[Signal::WINCH, Signal::new(37).unwrap(), Signal::TERM])
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
        ("none", Interface::None),
        ("@kapo", Interface::Abstract(b"kapo".to_vec())),
    ] {
        assert_eq!(config(&format!("-i {text} run x")).listen.interface, expected, "{text}");
    }
    let long = "p".repeat(107);
    let cut = "p".repeat(59);
    for (text, expected) in [
        ("localhost", "'localhost' is a host name; use an address (127.0.0.1 or ::1, /path or @name)"),
        ("a.b-c", "'a.b-c' is a host name; use an address (127.0.0.1 or ::1, /path or @name)"),
        ("", "'' is not an address (IPv4 or IPv6), an absolute path, @name or none"),
        ("300.1.1.1", "'300.1.1.1' is not an address (IPv4 or IPv6), an absolute path, @name or none"),
        ("[127.0.0.1]", "'[127.0.0.1]' is not an address (IPv4 or IPv6), an absolute path, @name or none"),
        ("./sock", "'./sock' is not an address (IPv4 or IPv6), an absolute path, @name or none"),
        ("0.0.0.0:80", "'0.0.0.0:80' is an address with a port; use --port for the port"),
        ("@", "'@' is an abstract socket without a name"),
        (&format!("/{long}"), &format!("'/{cut}...' is too long for a socket (108 bytes, at most 107)")),
        (&format!("@{long}p"), &format!("'@{cut}...' is too long for a socket (108 bytes, at most 107)")),
    ] {
        let word = format!("--interface={text}");
        assert_eq!(try_config(&[&word, "run", "x"], &[]), Err(format!("--interface: {expected}")), "{text}");
    }
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
            Mode::Wait(WaitOptions {
                url: url(text),
                timeout: Some(Duration::ZERO),
                ..WaitOptions::default()
            })
        );
    }
    for (words, until) in [("wait --ready", Probe::Ready), ("wait --healthy", Probe::Health)] {
        assert_eq!(
            config(words).mode,
            Mode::Wait(WaitOptions { until: Some(until), ..WaitOptions::default() })
        );
    }
    for words in ["wait -v --retry 1m", "wait --verbose --retry=60"] {
        let expected = WaitOptions { retry: 60 * SECOND, verbose: true, ..WaitOptions::default() };
        assert_eq!(config(words).mode, Mode::Wait(expected));
    }
    for (text, probe) in [
        ("http://a.b:1/livez?y=z", Probe::Live),
        ("http://127.0.0.1", Probe::Ready),
        ("http://[::1]:6666/", Probe::Ready),
        ("http://a?x", Probe::Ready),
        ("http://a/health/", Probe::Health),
    ] {
        let (named, asked, _) = check(&format!("check -- {text}"));
        assert_eq!((named, asked), (probe, url(text)));
    }
    for path in ["/foo", "/healthy", "/readyz/x"] {
        let said = try_config(&["check", &format!("http://a{path}?verbose")], &[]).unwrap_err();
        assert_eq!(said, format!("URL: {path} is not a probe; use /livez, /readyz or /healthz"));
    }
    for text in [
        "",
        ".a",
        "a/b",
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
        "unix:",
        "unix:@",
        "unix:relative",
    ] {
        let said = try_config(&["check", text], &[]).unwrap_err();
        assert!(said.starts_with("URL: '") && said.ends_with("unix:/PATH or unix:@NAME)"), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_name_means_a_socket_in_the_run_folder() {
    for mode in ["check", "wait", "status", "logs"] {
        for (variables, url) in
            [(&[][..], "unix:/run/kapo/worker-7.sock"), (&[("KAPO_RUN_DIR", "/r")], "unix:/r/worker-7.sock")]
        {
            assert_eq!(try_config(&[mode, "worker-7"], variables), try_config(&[mode, url], variables));
        }
        assert_eq!(try_config(&[mode, "/r/x.sock"], &[]), try_config(&[mode, "unix:/r/x.sock"], &[]));
    }
    let said = try_config(&["status", "worker"], &[("KAPO_RUN_DIR", "/a b")]).unwrap_err();
    assert!(said.starts_with("URL: 'unix:/a b/worker.sock' contains a character that"), "{said}");
}
