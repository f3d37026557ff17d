//! Tests of sinks that are closed, full or without a reader, of commands that leave processes behind, and of endless
//! lines.

use std::fs::{File, OpenOptions};
use std::io::Read;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Kapo, kapo_after, kapo_on_a_free_port, lives, proc_status, wait_for};
use crate::sinks::{STALLING, captured, kapo_to, metric, pipe, read_all, wait_until_stalled};

const COMPLAINT: &str = "level=error msg=\"output discarded\"";

fn discarded(kapo: &Kapo, stream: &str) -> u64 {
    metric(kapo, &format!("kapo_output_discarded_bytes_total{{stream=\"{stream}\"}}")).unwrap()
}

/// The command writes a megabyte and keeps running. The loss is logged once and then only counted.
fn outlives_its_outlet(mut kapo: Kapo, why: &str, least: u64) {
    kapo.wait_for("all was read", |kapo| captured(kapo, "stdout") == 1_000_000);
    kapo.wait_for("the command goes on", |kapo| kapo.stderr().contains("still here"));
    let lost = discarded(&kapo, "stdout");
    assert!((least..=1_000_000).contains(&lost), "{lost} were discarded");
    assert_eq!(kapo.status()["Status"], "running");
    kapo.signal(15);
    wait_for("it ends", || kapo.try_wait().is_some());
    kapo.expect_exit(143);
    let said = kapo.stderr();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains(COMPLAINT)).collect();
    assert_eq!(complaints.len(), 1, "{said}");
    assert!(complaints[0].ends_with(&format!("stream=stdout error=\"{why}\"")), "{complaints:?}");
}

const MEGABYTE: &str = "head -c 1000000 /dev/zero; echo still here >&2; exec sleep 60";

#[test]
fn the_command_survives_a_closed_stdout() {
    for lines in [&[][..], &["--stdlog"]] {
        let words = [&["--stdout"], lines, &["run", "sh", "-c", MEGABYTE]].concat();
        let kapo = Kapo::launch(kapo_after("exec 1>&-", words)).listening();
        outlives_its_outlet(kapo, "Bad file descriptor", 900_000);
    }
}

#[test]
fn the_command_survives_a_full_disk() {
    for lines in [&[][..], &["--stdlog"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let words = [&["--stdout"], lines, &["run", "sh", "-c", MEGABYTE]].concat();
        outlives_its_outlet(kapo_to(full, &words), "No space left on device", 900_000);
    }
}

#[test]
fn the_command_survives_the_end_of_the_reader() {
    for (_, pair) in &STALLING[..3] {
        for lines in [&[][..], &["--stdlog"]] {
            let (mut reader, ours) = pair();
            let words = [&["--stdout"], lines, &["run", "sh", "-c", MEGABYTE]].concat();
            let kapo = kapo_to(ours, &words);
            reader.read_exact(&mut [0; 100]).unwrap();
            drop(reader);
            outlives_its_outlet(kapo, "Broken pipe", 500_000);
        }
    }
}

#[test]
fn the_document_counts_discarded_bytes() {
    let (reader, ours) = pipe();
    drop(reader);
    let kapo = kapo_to(ours, &["-S", "run", "--wait", "1m", "sh", "-c", "echo nobody hears"]);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    let stdout = json!({"Bytes": 13, "Lines": 0, "DiscardedBytes": 13});
    assert_eq!(status["Output"]["Stdout"], stdout, "{status}");
}

#[test]
fn both_streams_continue_without_their_shared_reader() {
    // One stream stalls in the middle of a write and the other waits for it. Neither may be forgotten.
    for lines in [&[][..], &["--stdlog"]] {
        let (mut reader, ours) = pipe();
        let script = "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait; exit 3";
        let words = [&["-SE"], lines, &["run", "--wait", "1m", "sh", "-c", script]].concat();
        // The log uses the same pipe, and must name the address before the pipe stalls.
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let mut command = crate::harness::kapo(["-i", socket.to_str().unwrap()]);
        command.args(&words).stderr(ours.try_clone().unwrap()).stdout(ours);
        let mut kapo = Kapo::launch_with_its_outputs(command, TempDir::new().unwrap());
        let ask = |path: &str| {
            use std::io::Write;
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).ok()?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        };
        reader.read_exact(&mut [0; 1000]).unwrap();
        let mut last = String::new();
        let mut calm = 0;
        wait_for("all stands still", || {
            let metrics = ask("/metrics").unwrap_or_default();
            let bytes: String =
                metrics.lines().filter(|line| line.starts_with("kapo_output_bytes_total")).collect();
            calm = if bytes == last { calm + 1 } else { 0 };
            last = bytes;
            calm > 20
        });
        drop(reader);
        wait_for("the command has ended", || ask("/").is_some_and(|text| text.contains("\"exit-code\"")));
        let text = ask("/").unwrap();
        let document: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(document[0]["Output"]["Stdout"]["Bytes"], 1_000_000, "{text}");
        assert_eq!(document[0]["Output"]["Stderr"]["Bytes"], 1_000_000, "{text}");
        kapo.signal(15);
        kapo.expect_exit(3);
    }
}

#[test]
fn output_shortly_after_the_end_is_not_lost() {
    if crate::harness::EMULATED {
        return eprintln!(
            "skipped: kapo waits 0.5 s for such output, in which an emulated machine does not start tee"
        );
    }
    // The shell ends before tee has written. Without kapo, a terminal or file would get the output all the same.
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let script = format!("exec > >(tee {}); echo last words", log.display());
    for _ in 0..20 {
        let mut kapo = Kapo::launch(kapo_on_a_free_port(["-S", "run", "--", "bash", "-c", &script]));
        kapo.expect_exit(0);
        assert_eq!(kapo.stdout(), "last words\n");
    }
}

#[test]
fn an_open_pipe_does_not_delay_the_end_in_the_document() {
    let mut kapo =
        Kapo::start(["-S", "run", "--wait", "1m", "sh", "-c", "setsid sleep 60 & echo $!; exit 4"]);
    let asked = crate::harness::now();
    let answer = kapo.get("/wait");
    assert_eq!(answer.field("kapo-exit-code"), Some("4"));
    let is_quick = asked.elapsed() < std::time::Duration::from_millis(400);
    assert!(is_quick || crate::harness::EMULATED, "{:?}", asked.elapsed());
    kapo.wait_for_stdout("\n");
    kapo::sys::signal::send(kapo.stdout().trim().parse().unwrap(), 9).unwrap();
    kapo.signal(15);
    kapo.expect_exit(4);
}

#[test]
fn the_output_of_a_daemon_is_read_while_kapo_lives() {
    for mode in [&["run", "--wait", "1m"][..], &["supervise", "--wait", "1m", "--single-child"]] {
        for lines in ["-S", "-SL"] {
            let folder = TempDir::new().unwrap();
            let gate = folder.path().join("gate");
            rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
            let script = format!(
                "setsid sh -c 'read x <{}; echo heard; echo still alive >&2' & echo first",
                gate.display()
            );
            let words = [&[lines][..], mode, &["sh", "-c", &script]].concat();
            let mut kapo = Kapo::start(words);
            kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
            // This is longer than kapo waits for the output of a run.
            let ended = crate::harness::now();
            wait_for("the run is over in every respect", || {
                ended.elapsed() > std::time::Duration::from_millis(700)
            });
            std::fs::write(&gate, "go\n").unwrap();
            kapo.wait_for_stdout("heard");
            kapo.wait_for("the daemon lives on", |kapo| kapo.stderr().contains("still alive"));
            assert_eq!(captured(&kapo, "stdout"), 12);
            kapo.signal(15);
            kapo.expect_exit(0);
        }
    }
}

#[test]
fn daemons_of_earlier_runs_are_read_in_limited_number() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display();
    // Each run leaves a daemon that waits at the gate. The last one opens the gate for all.
    let script = format!(
        "n=$(ls {path} | grep -c run); mkdir {path}/run$n; [ $n = 12 ] && mkdir {path}/gate
         setsid sh -c 'until [ -e {path}/gate ]; do sleep 0.05; done; echo daemon '$n &
         [ $n = 12 ] && sleep 60; exit 1"
    );
    let mut kapo = Kapo::start(["-S", "supervise", "--wait", "1ms", "--single-child", "sh", "-c", &script]);
    kapo.wait_for("the youngest are heard", |kapo| {
        (4..=12).all(|n| kapo.stdout().contains(&format!("daemon {n}\n")))
    });
    let heard = kapo.stdout();
    assert!((0..=3).all(|n| !heard.contains(&format!("daemon {n}\n"))), "{heard}");
    assert_eq!(captured(&kapo, "stdout"), heard.len() as u64);
}

#[test]
fn a_grandchild_that_keeps_writing_causes_no_delay() {
    let script = "(echo $$ >&2; while :; do echo more; done) & echo first; exit 4";
    let mut kapo = Kapo::start(["-S", "run", "sh", "-c", script]);
    kapo.expect_exit(4);
    let stdout = kapo.stdout();
    assert!(stdout.lines().any(|line| line == "first"), "{stdout}");
}

#[test]
fn a_silent_grandchild_causes_no_delay() {
    let mut kapo = Kapo::start(["-SE", "run", "sh", "-c", "sleep 60 & echo $!; echo no newline >&2"]);
    kapo.expect_exit(0);
    let left: i32 = kapo.stdout().trim().parse().unwrap();
    assert!(lives(left), "it was left behind on purpose");
    kapo::sys::signal::send(left, 9).unwrap();
    assert!(kapo.stderr().contains("no newline\n"), "{}", kapo.stderr());
}

#[test]
fn earlier_output_of_a_grandchild_arrives() {
    let script = "(seq 1 20000; exec sleep 60) & sleep 60 & wait $!";
    let (reader, ours) = pipe();
    let came = read_all(reader);
    let mut kapo = kapo_to(ours, &["-S", "run", "sh", "-c", script]);
    let wanted: String = (1..=20_000).map(|n: u32| format!("{n}\n")).collect();
    kapo.wait_for("all was written", |kapo| captured(kapo, "stdout") == wanted.len() as u64);
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(came.join().unwrap() == wanted.as_bytes());
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let length: u64 = std::env::var("KAPO_TEST_LINE").map_or(64 << 20, |text| text.parse().unwrap());
    let script = format!("echo begin; head -c {length} /dev/zero | tr '\\0' x; exec sleep 60");
    for flags in [&["-S"][..], &["-S", "--stdlog"], &["-S", "--tail", "65536"]] {
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let words = [flags, &["run", "sh", "-c", &script]].concat();
        let mut kapo = kapo_to(null, &words);
        kapo.wait_for("all has passed", |kapo| captured(kapo, "stdout") == length + 6);
        let peak = proc_status(kapo.pid(), "VmHWM").unwrap();
        let peak: u64 = peak.trim_end_matches(" kB").trim().parse().unwrap();
        let base = std::fs::metadata(crate::harness::binary()).unwrap().len() / 1024;
        assert!(peak < base.min(8_000) + 3_000, "{flags:?}: {peak} KiB");
    }
}

#[test]
fn a_command_that_closes_its_stdout_keeps_running() {
    let script = "echo first; exec >&-; read line < \"$0\"; echo \"$line\" >&2";
    let folder = TempDir::new().unwrap();
    let gate = folder.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let mut kapo = Kapo::start(["-SE", "run", "sh", "-c", script, gate.to_str().unwrap()]);
    kapo.wait_for_stdout("first\n");
    assert_eq!(kapo.status()["Status"], "running");
    use std::io::Write;
    File::options().write(true).open(&gate).unwrap().write_all(b"last\n").unwrap();
    kapo.expect_exit(0);
    assert!(kapo.stderr().contains("last\n"));
}

#[test]
fn a_second_stop_signal_does_not_wait_for_a_stalled_reader() {
    // The command has ended and its output has no reader. Ending kapo must not need KILL.
    let (reader, ours) = pipe();
    let mut kapo = kapo_to(ours, &["-S", "run", "head", "-c", "1000000", "/dev/zero"]);
    wait_until_stalled(&kapo, "stdout");
    kapo.signal(15);
    kapo.wait_for_status("the command was ended", |status| status["Status"] == "killed");
    assert!(kapo.try_wait().is_none(), "what the command said may still be wanted");
    kapo.signal(15);
    kapo.expect_exit(143);
    drop(reader);
}

#[test]
fn stalled_output_does_not_hide_the_port() {
    let (reader, ours) = pipe();
    let mut command = kapo_on_a_free_port(["-SE", "run", "cat", "/dev/zero"]);
    let folder = TempDir::new().unwrap();
    command.stdout(ours).stderr(File::create(folder.path().join("stderr")).unwrap());
    let kapo = Kapo::launch_with_its_outputs(command, folder).listening();
    wait_until_stalled(&kapo, "stdout");
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(kapo.get(path).status, 200);
    }
    drop(reader);
}
