//! Tests of invalid arguments and the one line that reports them.

use super::{message, message_with, parse_bytes};
use crate::cli::tests::try_config;

fn no_endpoint(word: &str) -> String {
    format!(
        "--listen: '{word}' is not an address with a port (127.0.0.1:6666 or [::1]:6666), an absolute path or @name"
    )
}

fn no_name(word: &str) -> String {
    format!(
        "--name: '{word}' is not a name (1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', no '.' at the beginning)"
    )
}

fn no_capture(option: &str) -> String {
    let why = "kapo can capture only the output of a command that it has started";
    format!("--{option} cannot be used with watch: {why}")
}

#[test]
fn invalid_arguments_are_reported_with_what_was_expected() {
    let modes = "run, supervise, watch, check, wait, status, logs, ls, fleet or help (see kapo --help)";
    for (words, expected) in [
        ("", &*format!("no mode given; expected {modes}")),
        ("--", &format!("no mode given; expected {modes}")),
        ("-S --port 1", &format!("no mode given; expected {modes}")),
        ("sleep 60", &format!("unknown mode 'sleep'; expected {modes}")),
        ("x", &format!("unknown mode 'x'; expected {modes}")),
        ("rnu x", "unknown mode 'rnu'; did you mean run?"),
        ("sup x", "unknown mode 'sup'; did you mean supervise?"),
        ("Watch x", "unknown mode 'Watch'; did you mean watch?"),
        ("-p run", &format!("no mode given; expected {modes}; 'run' was read as the value of --port")),
        (
            "check http://[::1",
            "URL: 'http://[::1' has an unclosed bracket (http://HOST[:PORT][/PATH], unix:/PATH or \
             unix:@NAME)",
        ),
        ("--port tcp://a:1 run x", "--port: 'tcp://a:1' is not a port (0 to 65535)"),
        (
            "-p run true",
            &format!("unknown mode 'true'; expected {modes}; 'run' was read as the value of --port"),
        ),
        ("help me", &format!("unknown mode 'me'; expected {modes}")),
        ("help run x", "unexpected argument 'x': help takes only one mode"),
        ("--prot 1 run x", "unknown option '--prot'; did you mean --port?"),
        ("run --sock x", "unknown option '--sock'; did you mean --socket-mode?"),
        ("run --frobnicate x", "unknown option '--frobnicate'"),
        ("run --xyzzy=1 x", "unknown option '--xyzzy'"),
        ("run -x y", "unknown option '-x'"),
        ("-Sx run y", "unknown option '-x' in '-Sx'"),
        ("-S=maybe run y", "--stdout: 'maybe' is not a boolean (1, t, true, 0, f or false)"),
        ("run -p 80 x", "unknown option '-p': it must come before the mode; after the mode use --port"),
        ("-t 5 run x", "unknown option '-t': --ttl SECONDS|MIN-MAX must come after the mode"),
        ("watch -t 5 x", "unknown option '-t': --ttl SECONDS|MIN-MAX is not an option of watch"),
        ("--ttl 5 run x", "--ttl must come after the mode (run, supervise)"),
        ("watch --ttl 5 x", "--ttl is not an option of watch; it belongs to run, supervise"),
        ("run --pid 5 x", "--pid is not an option of run; it belongs to watch"),
        ("check --wait 5", "--wait is not an option of check; it belongs to run, supervise, watch"),
        ("run --port", "--port needs a value (PORT)"),
        ("-p", "--port needs a value (PORT)"),
        ("-Sp", "--port needs a value (PORT)"),
        ("run --ttl", "--ttl needs a value (SECONDS|MIN-MAX)"),
        ("--help=1", "--help takes no value"),
        ("--version=", "--version takes no value"),
        ("run", "run needs a command: kapo run [OPTIONS] [--] COMMAND [ARG...]"),
        ("s --", "supervise needs a command: kapo supervise [OPTIONS] [--] COMMAND [ARG...]"),
        ("run --stop-on TERM,KILL x", "--stop-on: SIGKILL cannot ask kapo to stop: no process can catch it"),
        ("run --stop-on TSTP x", "--stop-on: SIGTSTP cannot ask kapo to stop: kapo uses this signal itself"),
        ("run --stop-on TERM, x", "--stop-on: '' is not a signal (such as TERM, SIGTERM, 15 or RTMIN+3)"),
        ("watch", "watch needs NAME or --pid"),
        ("--stdout watch a", &no_capture("stdout")),
        ("watch --stderr a", &no_capture("stderr")),
        ("-S -E --tail 1K watch a", &no_capture("stdout")),
        ("-L watch a", &no_capture("stdlog")),
        ("--tail 1K w a", &no_capture("tail")),
        ("watch a b a", "NAME 'a' is given twice"),
        ("watch a b -x", "unexpected argument '-x': options must come before NAME"),
        ("watch -p 1 a b", "--pid takes only one NAME"),
        ("watch a --wait 3", "unexpected argument '--wait': options must come before NAME"),
        ("check http://a http://b", "unexpected argument 'http://b': check takes only one URL"),
        ("wait http://a http://b", "unexpected argument 'http://b': wait takes only one URL"),
        ("status http://a:1/runs", "URL: unexpected path /runs: status takes an address without a path"),
        (
            "logs http://a:1/logs?stream=stdout",
            "URL: unexpected path /logs?stream=stdout: logs takes an address without a path",
        ),
        ("logs --lines -1", "--lines: '-1' is not a number of lines (up to 4294967295)"),
        ("logs --stream both", "--stream: 'both' is not stdout or stderr"),
        ("status --output xml", "--output: 'xml' is not text or json"),
        ("status --timeout 0", "--timeout: the time must be longer than 0"),
        (
            "check http://localhost:99999",
            "URL: 'http://localhost:99999' has no port from 1 to 65535 after the colon \
             (http://HOST[:PORT][/PATH], unix:/PATH or unix:@NAME)",
        ),
        ("--port 65536 run x", "--port: '65536' is not a port (0 to 65535)"),
        ("--port -1 run x", "--port: '-1' is not a port (0 to 65535)"),
        ("-p-1 run x", "--port: '-1' is not a port (0 to 65535)"),
        ("--port abc run x", "--port: 'abc' is not a port (0 to 65535)"),
        ("--port= run x", "--port: '' is not a port (0 to 65535)"),
        ("--port +80 run x", "--port: '+80' is not a port (0 to 65535)"),
        ("--port --quiet run x", "--port: '--quiet' is not a port (0 to 65535)"),
        (
            "-i 127.0.0.1 -i ::1 run x",
            "--interface is given twice ('127.0.0.1' and '::1'), but takes only one value; --listen adds listeners",
        ),
        (
            "-p 1 run --port 2 x",
            "--port is given twice ('1' and '2'), but takes only one value; --listen adds listeners",
        ),
        ("run --ttl -- x", "--ttl needs a value (SECONDS|MIN-MAX)"),
        ("run --dump-signal KILL x", "--dump-signal: 'KILL' is not a signal that a command can handle"),
        (
            "run --textfile /x x",
            "--textfile: '/x' is not a path that ends in .prom, as node_exporter expects",
        ),
        ("run --silence 5 x", "--silence needs --stdout or --stderr"),
        ("run --wait 1 -w 1 x", "--wait is given twice ('1' and '1'), but takes only one value"),
        ("--listen localhost:80 run x", &no_endpoint("localhost:80")),
        ("--listen 127.0.0.1 run x", &no_endpoint("127.0.0.1")),
        ("--listen 127.0.0.1:80,::1:80 run x", &no_endpoint("::1:80")),
        ("--listen /a,,@b run x", &no_endpoint("")),
        ("--listen @ run x", "--listen: '@' is an abstract socket without a name"),
        ("--run-dir run run x", "--run-dir: 'run' is not an absolute path"),
        ("--name= run x", &no_name("")),
        ("--name a/b run x", &no_name("a/b")),
        ("--name .a run x", &no_name(".a")),
        (&format!("--name {} run x", "x".repeat(65)), &no_name(&format!("{}...", "x".repeat(60)))),
        ("--socket-mode 1777 run x", "--socket-mode: '1777' is not an octal mode (0 to 0777, such as 0660)"),
        ("--socket-mode u=rw run x", "--socket-mode: 'u=rw' is not an octal mode (0 to 0777, such as 0660)"),
        ("--socket-mode 0680 run x", "--socket-mode: '0680' is not an octal mode (0 to 0777, such as 0660)"),
        ("--socket-group= run x", "--socket-group: '' is not the name or the number of a group"),
        ("--socket-group a:b run x", "--socket-group: 'a:b' is not the name or the number of a group"),
        (
            "--socket-group 4294967295 run x",
            "--socket-group: '4294967295' is not the name or the number of a group",
        ),
        ("--history 101 run x", "--history: '101' is not a number of runs (up to 100; 0: off)"),
        (
            "--max-connections 0 run x",
            "--max-connections: '0' is not a number of connections (1 to 4294967295)",
        ),
        ("--tail 1048577 run x", "--tail: '1048577' is too large (at most 1048576 bytes)"),
        ("--tail 2M run x", "--tail: '2M' is too large (at most 1048576 bytes)"),
        (
            "--tail 99999999999999999999K run x",
            "--tail: '99999999999999999999K' is too large (at most 1048576 bytes)",
        ),
        ("--tail K run x", "--tail: 'K' is not a size (such as 4096, 64K or 1M)"),
        ("--tail 64K run x", "--tail needs --stdout or --stderr"),
        ("--stdlog run x", "--stdlog needs --stdout or --stderr"),
        ("run --watchdog 5 x", "--watchdog needs --notify"),
        ("-b -i @x w y", "--sidebind needs an IP address in --interface: a Unix socket has no port"),
        ("-b -i none w y", "--sidebind needs an IP address in --interface: none has no port"),
        ("-s -i none w y", "--socket-activation and --interface none cannot be combined"),
        (
            "run --on failed=x y",
            "--on: 'failed' is not an event (start, ready, fail, flapping, recovered, give-up, unhealthy, stop, end)",
        ),
        ("run --on fail x", "--on: fail has no command (fail=COMMAND)"),
        ("run --on fail= x", "--on: fail has no command (fail=COMMAND)"),
        ("run --on end=x --on end=y z", "--on: end has two commands"),
        ("run --on-timeout 0 x", "--on-timeout: the time must be longer than 0"),
        ("--bind-failure x w y", "--bind-failure: 'x' is not exit or warn"),
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
            "--orphan-signal: 'FOO' is not a signal (such as TERM, SIGTERM, 15 or RTMIN+3) or 0 (no signal)",
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
            "--rewrite-signal: SIGCHLD cannot be rewritten: it is never forwarded",
        ),
        ("run --probe-interval 0 --probe exec:a x", "--probe-interval: the time must be longer than 0"),
        ("run --probe-timeout 0ms x", "--probe-timeout: the time must be longer than 0"),
        ("run --probe-failures 0 x", "--probe-failures: '0' is not a number of failures (1 or more)"),
        (
            "run --unhealthy kill x",
            "--unhealthy: 'kill' is not report or stop; supervise starts a stopped command again",
        ),
        ("run --unhealthy stop x", "--unhealthy needs --probe"),
        ("run --probe a=exec:a --probe exec:b --probe a=exec:c x", "--probe: two probes have the same name"),
        (
            "run --probe https://127.0.0.1/ x",
            "--probe: 'https://127.0.0.1/' does not begin with http://, tcp://, unix: or exec: \
             (http://IP:PORT/PATH, tcp://IP:PORT, unix:/SOCKET[:/PATH] or exec:WORDS; localhost is an IP, too)",
        ),
        (
            "run --rewrite-signal TERM x",
            "--rewrite-signal: 'TERM' is not FROM:TO (such as TERM:INT, or HUP:0 to drop HUP)",
        ),
        (
            "run --success-exit 256 x",
            "--success-exit: '256' is not an exit code (0 to 255), the name of a signal or TTL",
        ),
        (
            "run --success-exit 1, x",
            "--success-exit: '' is not an exit code (0 to 255), the name of a signal or TTL",
        ),
        (
            "supervise --no-restart-on 1,TTL x",
            "--no-restart-on: 'TTL' is not an exit code (0 to 255) or the name of a signal",
        ),
        (
            "supervise --no-restart-on 256 x",
            "--no-restart-on: '256' is not an exit code (0 to 255) or the name of a signal",
        ),
        (
            "supervise --no-restart-on= x",
            "--no-restart-on: '' is not an exit code (0 to 255) or the name of a signal",
        ),
        ("-S run --ready-line= x", "--ready-line: '' is not a text of 1 to 1024 bytes on one line"),
        ("run --ready-line up x", "--ready-line needs --stdout or --stderr"),
        ("-S run --ready-line up --notify x", "--ready-line and --notify cannot be combined"),
        ("supervise --restart never x", "--restart: 'never' is not always or on-failure"),
        (
            "supervise --max-restarts 3 --within 0 x",
            "--within: with --max-restarts the time must be longer than 0",
        ),
        (
            "supervise --max-restarts 4294967296 x",
            "--max-restarts: '4294967296' is not a number of restarts (up to 4294967295; 0: no limit)",
        ),
        ("watch --pid 0 x", "--pid: '0' is not a pid (1 or more)"),
        ("watch --pid -1 x", "--pid: '-1' is not a pid (1 or more)"),
        ("watch -p abc x", "--pid: 'abc' is not a pid (1 or more)"),
        ("watch -p 2147483648 x", "--pid: '2147483648' is not a pid (1 or more)"),
        ("check --live http://a/healthz", "URL: its path is /healthz, but the option asks for /livez"),
        ("check --live --ready", "--ready: only one of --live, --ready and --health may be given"),
        ("check --timeout 0", "--timeout: the time must be longer than 0"),
        ("wait --ready --healthy", "--healthy: only one of --ready and --healthy may be given"),
        ("run --termination-log= x", "--termination-log: '' is not a path"),
    ] {
        assert_eq!(message(words), expected, "{words}");
    }
}

#[test]
fn invalid_variables_are_reported_as_variables() {
    for (words, name, text, expected) in [
        ("run x", "KAPO_PORT", "65536", "KAPO_PORT: '65536' is not a port (0 to 65535)"),
        (
            "run x",
            "KAPO_PORT",
            "tcp://10.0.0.1:6666",
            "KAPO_PORT: 'tcp://10.0.0.1:6666' is not a port (0 to 65535); Kubernetes sets this variable for a \
             Service named kapo: set enableServiceLinks: false",
        ),
        ("run x", "KAPO_WATCHDOG", "5", "KAPO_WATCHDOG needs KAPO_NOTIFY"),
        ("run x", "KAPO_STDLOG", "1", "KAPO_STDLOG needs KAPO_STDOUT or KAPO_STDERR"),
        ("run x", "KAPO_TAIL", "1K", "KAPO_TAIL needs KAPO_STDOUT or KAPO_STDERR"),
        ("watch", "KAPO_WATCHPID", "0", "KAPO_WATCHPID: '0' is not a pid (1 or more)"),
        ("run x", "KAPO_PORT", "8\n0", "KAPO_PORT: '8\\n0' is not a port (0 to 65535)"),
        ("run x", "KAPO_TERMINATION_LOG", "/a\0b", "KAPO_TERMINATION_LOG: '/a\\u{0}b' contains a NUL byte"),
    ] {
        assert_eq!(message_with(words, &[(name, text)]), expected);
    }
}

#[test]
fn a_nul_in_an_argument_is_refused() {
    assert_eq!(message("run a\0b"), "'a\\u{0}b' contains a NUL byte, which an argument cannot contain");
    assert_eq!(message("run x a\0"), "'a\\u{0}' contains a NUL byte, which an argument cannot contain");
    assert_eq!(message("--interface /a\0b run x"), "--interface: '/a\\u{0}b' contains a NUL byte");
}

#[test]
fn wrong_usage_exits_with_2_but_check_exits_with_1() {
    let code = |words: &[&[u8]]| parse_bytes(words, &[]).unwrap_err().exit_code();
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&[b"wait", b"--bad"]), 2);
    assert_eq!(code(&[b"check", b"--bad"]), 1);
    assert_eq!(code(&[b"-p", b"80", b"check", b"--timeout", b"x"]), 1);
    assert_eq!(code(&[b"-p", b"x", b"check"]), 1);
}

#[test]
fn check_exits_with_1_wherever_the_mistake_is() {
    for (words, code) in [
        ("check --frob", 1),
        ("--frob check", 1),
        ("-x check", 1),
        ("--frob --quiet check http://a", 1),
        ("--live check", 1),
        ("-p x check", 1),
        ("check -p", 1),
        ("--frob run", 2),
        ("--frob run check", 2),
        ("frob check", 2),
        ("--frob", 2),
    ] {
        let words = words.split(' ').map(std::ffi::OsString::from).collect();
        assert_eq!(crate::cli::parse(words, &[]).unwrap_err().exit_code(), code);
    }
}

#[test]
fn more_than_32_probes_are_refused() {
    let words = |n| [vec!["run"], vec!["--probe=exec:a"; n], vec!["x"]].concat();
    assert!(try_config(&words(32), &[]).is_ok());
    let wrong = try_config(&words(33), &[]).unwrap_err();
    assert!(format!("{wrong:?}").contains("--probe: at most 32 probes are possible"), "{wrong:?}");
    let lines = "exec:a\n".repeat(33);
    let wrong = try_config(&["run", "x"], &[("KAPO_PROBE", &lines)]).unwrap_err();
    assert!(format!("{wrong:?}").contains("KAPO_PROBE: at most 32 probes are possible"), "{wrong:?}");
}
