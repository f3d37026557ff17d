//! Tests of invalid input: each error is one clear line with a documented exit code, and nothing is started.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use crate::harness::{
    Kapo, clean, kapo, kapo_after, kapo_on_a_free_port, run_to_the_end, unused_name, wait_for,
};

/// Runs kapo with `words` and a command that would leave a marker. Returns the error message, which must be the only
/// output.
fn refused(words: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let folder = TempDir::new().unwrap();
    let marker = folder.path().join("started");
    let mut command = kapo(words);
    command.envs(variables.iter().copied());
    if words.contains(&"run") {
        command.arg("touch").arg(&marker);
    }
    let (ended, stdout, stderr) = run_to_the_end(command);
    assert_eq!(ended, Some(code), "{words:?} {variables:?}: {stderr}");
    assert_eq!(stdout, "", "{words:?}");
    assert_eq!(stderr.lines().count(), 1, "{words:?}: {stderr}");
    assert!(stderr.starts_with("kapo: ") && stderr.ends_with('\n'), "{words:?}: {stderr}");
    assert!(!marker.exists(), "{words:?} started its command");
    stderr
}

/// Checks that the message of [`refused`] contains `part`.
fn misused(words: &[&str], part: &str) {
    let complaint = refused(words, &[], 2);
    assert!(complaint.contains(part), "{words:?}: {part:?} is not in {complaint}");
}

#[test]
fn unknown_modes_and_options_are_refused() {
    misused(&[], "no mode given");
    misused(&["frob"], "unknown mode 'frob'");
    misused(&["", "true"], "unknown mode ''");
    misused(&["--frob", "run"], "unknown option '--frob'");
    misused(&["-z", "run"], "unknown option '-z'");
    misused(&["-qz", "run"], "'-z'");
    misused(&["run", "--frob"], "unknown option '--frob'");
    misused(&["run", "--max-restarts", "3"], "--max-restarts");
}

#[test]
fn an_option_without_its_value_is_refused() {
    misused(&["--port"], "--port needs a value");
    misused(&["-p"], "-p");
    misused(&["--port=", "run"], "--port");
    misused(&["--port", "--quiet", "run"], "'--quiet' is not a port");
}

#[test]
fn invalid_ports_are_refused() {
    for port in ["65536", "-1", "abc", "", "6666.0", "0x10", "99999999999999999999", "+1", " 80", "٣"] {
        misused(&["--port", port, "run"], "is not a port");
        let complaint = refused(&["run"], &[("KAPO_PORT", if port.is_empty() { "x" } else { port })], 2);
        assert!(complaint.contains("KAPO_PORT"), "{complaint}");
    }
}

#[test]
fn invalid_addresses_are_refused() {
    for address in
        ["1.2.3.4.5", "256.0.0.1", "localhost", "relative/path", "@", "", "::1::", "127.0.0.1:80", "[::1"]
    {
        misused(&["--interface", address, "run"], "--interface");
    }
    let complaint = refused(&["--port", "0", "--interface", "192.0.2.1", "run"], &[], 125);
    assert_eq!(complaint, "kapo: cannot bind 192.0.2.1:0: Cannot assign requested address\n");
}

#[test]
fn invalid_times_are_refused() {
    for option in ["--ttl", "--wait", "--kill-after"] {
        for seconds in ["NaN", "-5", "inf", "-inf", "1e3", "abc", "", "5 m", "5x", "--", "0x10", "1,5", "."] {
            misused(&["run", option, seconds], option);
        }
    }
    misused(&["run", "--ttl", "30-1"], "the minimum 30s is longer than the maximum 1s");
    for range in ["-", "1-", "-1", "1-2-3", "a-b"] {
        misused(&["run", "--ttl", range], "--ttl");
    }
}

#[test]
fn overlong_seconds_mean_practically_never() {
    for seconds in ["18446744073709551615", "18446744073709551615.999999999", "99999999999999999999999999h"] {
        for option in ["--ttl", "--kill-after"] {
            let mut kapo = Kapo::start(["run", option, seconds, "sleep", "60"]);
            assert_eq!(kapo.status()["Status"], "running");
            kapo.signal(15);
            kapo.expect_exit(143);
        }
        let mut kapo = Kapo::start(["run", "--wait", seconds, "true"]);
        kapo.wait_for_status("the command has ended", |status| status["Status"] == "stopped");
        kapo.signal(15);
        kapo.expect_exit(0);
    }
}

#[test]
fn other_invalid_values_are_refused() {
    for signal in ["FROB", "0", "65", "", "RTMIN+31", "TERM TERM"] {
        misused(&["run", "--stop-signal", signal], "--stop-signal");
    }
    for rule in ["USR1", "USR1:FROB", "FROB:USR1", "KILL:TERM:INT", ":", "USR1:USR2,", ""] {
        misused(&["run", "--rewrite-signal", rule], "--rewrite-signal");
    }
    misused(&["--max-connections", "0", "run"], "--max-connections");
    misused(&["--tail", "1048577", "run"], "--tail");
    misused(&["run", "--success-exit", "256"], "--success-exit");
    misused(&["supervise", "--no-restart-on", "TTL"], "--no-restart-on");
    misused(&["run", "--ready-line", ""], "--ready-line");
    misused(&["run", "--ready-line", "two\nlines"], "--ready-line");
    misused(&["--stdlog", "run"], "--stdlog");
    misused(&["--sidebind", "--interface", "@x", "run"], "--sidebind");
}

#[test]
fn an_invalid_variable_is_named() {
    for (name, value) in [
        ("KAPO_QUIET", "maybe"),
        ("KAPO_TTL", "NaN"),
        ("KAPO_WAIT", "soon"),
        ("KAPO_INTERFACE", "nowhere.example"),
        ("KAPO_STOP_SIGNAL", "FROB"),
        ("KAPO_MAX_CONNECTIONS", "-1"),
        ("KAPO_SETSID", "yes"),
    ] {
        let complaint = refused(&["run"], &[(name, value)], 2);
        assert!(complaint.starts_with(&format!("kapo: {name}: ")), "{complaint}");
    }
    // Empty variables count as not set.
    let mut command = kapo_on_a_free_port(["run", "true"]);
    command.env("KAPO_TTL", "").env("KAPO_QUIET", "").env("KAPO_STOP_SIGNAL", "");
    assert_eq!(run_to_the_end(command).0, Some(0));
}

#[test]
fn a_misspelt_variable_is_a_warning() {
    let warned = |words: &[&str], name: &str, value: &str| {
        let mut command = kapo_on_a_free_port(words);
        command.env(name, value);
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(0), "{stderr}");
        stderr
            .lines()
            .filter_map(|line| line.split_once(" level=warn "))
            .map(|(_, rest)| rest.to_owned())
            .collect()
    };
    let warnings: Vec<String> = warned(&["--quiet", "run", "true"], "KAPO_KILLAFTER", "5");
    assert_eq!(
        warnings,
        ["msg=\"unknown variable\" variable=KAPO_KILLAFTER hint=\"did you mean KAPO_KILL_AFTER?\""]
    );
    for (name, value) in [
        ("KAPO_KILL_AFTER", "5"),
        ("KAPO_SERVICE_HOST", "10.0.0.1"),
        ("KAPO_PORT_6666_TCP", "tcp://10.0.0.1:6666"),
        ("KAPO_A_PORT", "tcp://10.0.0.1:80"),
    ] {
        let warnings: Vec<String> = warned(&["run", "true"], name, value);
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }
}

#[test]
fn no_command_is_refused() {
    for words in [&["supervise"][..], &["supervise", "--"], &["r", "--ttl", "5"], &["r", "--"]] {
        let complaint = refused(words, &[], 2);
        assert!(complaint.contains("needs a command"), "{complaint}");
    }
}

#[test]
fn arguments_that_are_not_utf_8_are_shown_in_part() {
    let folder = TempDir::new().unwrap();
    for words in [&[b"\xff".as_slice(), b"run"][..], &[b"--port", b"\xff\xfe", b"run"], &[b"--\xff", b"run"]]
    {
        let mut command = kapo(words.iter().map(|word| std::ffi::OsStr::from_bytes(word)));
        command.arg("touch").arg(folder.path().join("started"));
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains('\u{fffd}') || stderr.contains("\\x"), "{stderr}");
    }
    assert!(!folder.path().join("started").exists());
}

#[test]
fn without_path_the_usual_folders_are_searched() {
    let mut command = kapo_on_a_free_port(["run", "true"]);
    command.env_clear();
    assert_eq!(run_to_the_end(command).0, Some(0));
    // An empty entry means the working directory, as for execvp.
    let mut command = kapo_on_a_free_port(["run", "true"]);
    command.env("PATH", "").current_dir("/");
    assert_eq!(run_to_the_end(command).0, Some(127));
}

#[test]
fn the_whole_path_is_searched_despite_bad_entries() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = kapo_on_a_free_port(["run", "true"]);
    // A missing directory, a file, an empty name, then the real directory.
    command.env("PATH", format!("/missing:{}::{}", file.display(), std::env::var("PATH").unwrap()));
    command.current_dir(folder.path());
    assert_eq!(run_to_the_end(command).0, Some(0));
}

#[test]
fn impossible_socket_paths_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let missing = path("missing/socket");
    let complaint = refused(&["--interface", &missing, "run"], &[], 125);
    assert_eq!(complaint, format!("kapo: cannot bind {missing}: No such file or directory\n"));
    let long = path(&"a".repeat(200));
    misused(&["--interface", &long, "run"], "too long");
    let file = path("file");
    std::fs::write(&file, "precious").unwrap();
    let complaint = refused(&["--interface", &file, "run"], &[], 125);
    assert_eq!(complaint, format!("kapo: cannot bind {file}: a file that is not a socket is in the way\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let complaint = refused(&["--interface", &path(""), "run"], &[], 125);
    assert!(complaint.starts_with("kapo: cannot bind "), "{complaint}");
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let text = path.to_str().unwrap();
    let living = UnixListener::bind(&path).unwrap();
    let complaint = refused(&["--interface", text, "run"], &[], 125);
    assert_eq!(complaint, format!("kapo: cannot bind {text}: Address already in use\n"));
    drop(living);
    assert!(path.exists());
    let mut kapo = Kapo::launch(kapo(["--interface", text, "run", "sleep", "60"]));
    kapo.wait_for("it listens", |kapo| kapo.addresses() == [text]);
    // A second kapo does not take the socket from the first.
    refused(&["--interface", text, "run"], &[], 125);
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(!path.exists(), "it is removed at the end");
}

#[test]
fn closed_standard_descriptors_do_not_prevent_the_start() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let mut kapo = Kapo::launch(kapo_after(&format!("exec {closed}"), ["run", "sh", "-c", "exit 6"]));
        kapo.expect_exit(6);
    }
}

#[test]
fn with_16_descriptors_kapo_answers() {
    let kapo = Kapo::launch(kapo_after("ulimit -n 16", ["run", "sleep", "60"])).listening();
    for _ in 0..3 {
        // More silent connections than there can be descriptors.
        let _silent: Vec<_> = (0..32).map(|_| kapo.connect()).collect();
        for _ in 0..5 {
            assert_eq!(kapo.get("/livez").status, 200);
        }
    }
    let status = kapo.status();
    assert_eq!(status["Status"], "running");
}

#[test]
fn without_a_free_descriptor_kapo_reports_an_error() {
    // epoll, signalfd and socket need three descriptors besides the standard ones. A dynamic build needs one for its
    // loader.
    for limit in 4..8 {
        let (code, _, stderr) = run_to_the_end(kapo_after(
            &format!("ulimit -n {limit}"),
            ["-q", "-i", &unused_name(), "run", "true"],
        ));
        let expected = if limit < 6 { Some(125) } else { Some(0) };
        assert_eq!(code, expected, "{limit}: {stderr}");
        assert_eq!(stderr.starts_with("kapo: "), limit < 6, "{limit}: {stderr}");
        assert_eq!(stderr.lines().count(), usize::from(limit < 6), "{limit}: {stderr}");
    }
}

#[test]
fn a_full_stderr_does_not_stop_the_work() {
    for target in ["/dev/full", "/dev/null"] {
        let mut command = clean("sh");
        command.arg("-c").arg(format!("exec \"$@\" 2>{target}")).arg("sh").arg(crate::harness::binary());
        command.args(["-i", "127.0.0.1", "-p", "0", "run", "sh", "-c", "exit 8"]);
        assert_eq!(run_to_the_end(command).0, Some(8), "{target}");
    }
    // The pipe has no reader any more.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = kapo_on_a_free_port(["run", "sh", "-c", "exit 8"]);
    command.stderr(writer).stdout(std::process::Stdio::null());
    let mut kapo = Kapo::launch_with_its_outputs(command, TempDir::new().unwrap());
    kapo.expect_exit(8);
}

#[test]
fn help_that_cannot_be_written_is_an_error_except_sigpipe() {
    for words in ["--help", "--version", "run --help", "help"] {
        let printing_to = |stdout: std::process::Stdio| {
            let mut command = kapo(words.split(' '));
            let done = command.stdout(stdout).stderr(std::process::Stdio::piped()).output().unwrap();
            (done.status.code(), String::from_utf8(done.stderr).unwrap())
        };
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let complaint = "kapo: cannot write to stdout: No space left on device\n".to_owned();
        assert_eq!(printing_to(full.into()), (Some(125), complaint), "{words}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // The process dies of SIGPIPE, as any program that prints.
        assert_eq!(printing_to(writer.into()), (None, String::new()), "{words}");
    }
}

#[test]
fn a_stderr_without_a_reader_does_not_stall_kapo() {
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // The pipe is full, so that not even one line fits.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut room = true;
    wait_for("the pipe is full", || {
        room = room && std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok();
        !room
    });
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = kapo_on_a_free_port(["run", "--ttl", "100ms", "sleep", "60"]);
    command.stderr(writer).stdout(std::process::Stdio::null());
    let mut kapo = Kapo::launch_with_its_outputs(command, TempDir::new().unwrap());
    kapo.expect_exit(124);
}

#[test]
fn a_line_feed_in_a_name_does_not_split_a_message() {
    for words in [
        vec!["-i", "/nonexist\nfoo/x", "run", "true"],
        vec!["-i", "/nonexist\nfoo/x", "check"],
        vec!["-i", "/nonexist\nfoo/x", "wait"],
    ] {
        let (_, stdout, stderr) = run_to_the_end(kapo(&words));
        let said = stdout + &stderr;
        assert!(said.lines().count() == 1 && said.contains("/nonexist\\nfoo/x"), "{words:?}: {said:?}");
    }
}
