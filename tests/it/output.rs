//! Tests of raw capture: every byte arrives once and in order on every kind of sink, and only the command ever waits
//! for a reader.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{OFlags, fcntl_getfl};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Kapo, kapo, kapo_on_a_free_port, now, quiet_kapo, run_to_the_end, wait_for};
use crate::sinks::{
    STALLING, captured, compare, kapo_to, launch_to, pipe, random_file, read_all, terminal, volume,
    wait_until_stalled,
};

/// Writes the file in pieces of any size, as different programs do.
fn writer<'a>(block: &'a str, path: &'a str) -> [&'a str; 7] {
    ["run", "--", "dd", block, path, "status=none", "iflag=fullblock"]
}

#[test]
fn every_byte_arrives_on_every_kind_of_sink() {
    let folder = TempDir::new().unwrap();
    for (block, length) in [("bs=100", volume() / 10), ("bs=64K", volume()), ("bs=1M", volume())] {
        let file = random_file(folder.path(), block, length);
        let path = format!("if={}", file.display());
        for (name, pair) in STALLING {
            let (reader, ours) = pair();
            let came = compare(reader, &file);
            let words = [&["--stdout"][..], &writer(block, &path)].concat();
            launch_to(ours, kapo_on_a_free_port(words)).expect_exit(0);
            assert_eq!(came.join().unwrap(), length as u64, "{name}, {block}");
        }
    }
}

#[test]
fn the_master_side_of_a_terminal_gets_output_and_log() {
    // Opened again, it is the master side of another terminal, which has no reader.
    for capture in [&[][..], &["--stdout", "--stderr"]] {
        let (master, mut person) = terminal();
        let mut command = kapo_on_a_free_port([capture, &["run", "echo", "hello"]].concat());
        command.stdout(master.try_clone().unwrap()).stderr(master.try_clone().unwrap());
        Kapo::launch_with_its_outputs(command, TempDir::new().unwrap()).expect_exit(0);
        rustix::io::ioctl_fionbio(&person, true).unwrap();
        let mut shown = Vec::new();
        wait_for("the person at the terminal reads it all", || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = person.read(&mut buffer) {
                shown.extend_from_slice(&buffer[..length]);
            }
            let shown = String::from_utf8_lossy(&shown);
            // A stream that is left to the command although it was to be captured is logged once.
            let told = shown.matches("msg=\"stream not captured\"").count();
            assert!(told <= capture.len(), "{shown}");
            told == capture.len()
                && shown.contains("hello\n")
                && shown.contains("msg=\"listening\"")
                && shown.contains("msg=\"exited\"")
        });
    }
}

#[test]
fn a_file_is_written_at_the_offset_of_the_shell() {
    let folder = TempDir::new().unwrap();
    let file = random_file(folder.path(), "bytes", volume());
    let wanted = [b"before\n", &std::fs::read(&file).unwrap()[..], b"after\n"].concat();
    let path = format!("if={}", file.display());
    for append in [false, true] {
        for block in ["bs=1000", "bs=1M"] {
            let out = folder.path().join("out");
            let _ = std::fs::remove_file(&out);
            let mut out_file = OpenOptions::new().create(true).append(append).write(true).open(&out).unwrap();
            out_file.write_all(b"before\n").unwrap();
            let words = [&["--stdout"][..], &writer(block, &path)].concat();
            launch_to(out_file.try_clone().unwrap(), kapo_on_a_free_port(words)).expect_exit(0);
            out_file.write_all(b"after\n").unwrap();
            assert!(std::fs::read(&out).unwrap() == wanted, "append {append}, {block}");
        }
    }
}

#[test]
fn output_to_dev_null_is_counted() {
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut kapo =
        kapo_to(null, &["-S", "run", "--wait", "1m", "sh", "-c", "head -c 300000 /dev/zero; exit 3"]);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    let stdout = json!({"Bytes": 300_000, "Lines": 0, "DiscardedBytes": 0});
    assert_eq!(status["Output"]["Stdout"], stdout, "{status}");
    assert_eq!(status["Output"]["Stderr"], json!(null), "{status}");
    assert_eq!(captured(&kapo, "stdout"), 300_000);
    kapo.signal(15);
    kapo.expect_exit(3);
    assert!(!kapo.stderr().contains("level=error"), "{}", kapo.stderr());
}

#[test]
fn both_streams_at_once_keep_their_own_sinks() {
    let folder = TempDir::new().unwrap();
    let [one, two] = ["one", "two"].map(|name| random_file(folder.path(), name, volume()));
    let ((out_reader, out), (err_reader, err)) = (pipe(), pipe());
    let (out_came, err_came) = (compare(out_reader, &one), compare(err_reader, &two));
    let script = format!("cat {} & cat {} >&2; wait", one.display(), two.display());
    let mut command = quiet_kapo(["--stdout", "--stderr", "run", "sh", "-c", &script]);
    command.stdout(out).stderr(err);
    Kapo::launch_with_its_outputs(command, TempDir::new().unwrap()).expect_exit(0);
    assert_eq!(out_came.join().unwrap(), volume() as u64);
    assert_eq!(err_came.join().unwrap(), volume() as u64);
}

#[test]
fn both_streams_keep_their_order_on_one_pipe() {
    let (reader, ours) = pipe();
    let came = read_all(reader);
    // Digits on one stream and letters on the other, so that the streams can be separated again.
    let script = "seq 1 60000 & seq 1 60000 | tr 0-9 a-j >&2; wait";
    let mut command = quiet_kapo(["-SE", "run", "sh", "-c", script]);
    command.stderr(ours.try_clone().unwrap()).stdout(ours);
    Kapo::launch_with_its_outputs(command, TempDir::new().unwrap()).expect_exit(0);
    let came = came.join().unwrap();
    let digits: String = came.iter().filter(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
    let letters: String = came.iter().filter(|b| b.is_ascii_lowercase()).map(|b| char::from(*b)).collect();
    let wanted: String = (1..=60_000).map(|n: u32| n.to_string()).collect();
    assert!(digits == wanted, "{} of {} digits", digits.len(), wanted.len());
    assert!(
        letters.bytes().map(|b| char::from(b - b'a' + b'0')).eq(wanted.chars()),
        "{} letters",
        letters.len()
    );
    assert_eq!(came.len(), 2 * (wanted.len() + 60_000));
}

#[test]
fn the_pipe_has_the_mode_and_owner_of_the_sink() {
    for mode in [0o600, 0o622, 0o666] {
        let (reader, ours) = pipe();
        rustix::fs::fchmod(&ours, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
        let owner = if crate::tools::is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
        rustix::fs::fchown(&ours, Some(rustix::fs::Uid::from_raw(owner)), None).unwrap();
        let came = read_all(reader);
        let words = ["--quiet", "--stdout", "run", "stat", "-L", "-c", "%a %u", "/dev/stdout"];
        launch_to(ours, kapo_on_a_free_port(words)).expect_exit(0);
        assert_eq!(String::from_utf8(came.join().unwrap()).unwrap(), format!("{mode:o} {owner}\n"));
    }
}

#[test]
fn a_command_without_privileges_can_open_dev_stdout() {
    if !crate::tools::is_root() {
        return;
    }
    let (reader, ours) = pipe();
    rustix::fs::fchmod(&ours, rustix::fs::Mode::from_raw_mode(0o622)).unwrap();
    let came = read_all(reader);
    let drop = ["setpriv", "--reuid", "65534", "--clear-groups", "sh", "-c", "echo hello >/dev/stdout"];
    launch_to(ours, kapo_on_a_free_port([&["-q", "-S", "run"][..], &drop].concat())).expect_exit(0);
    assert_eq!(came.join().unwrap(), b"hello\n");
}

#[test]
fn a_stream_that_is_not_captured_is_inherited() {
    for (flag, captured, own) in [("--stdout", 1, 2), ("--stderr", 2, 1)] {
        // Under run, kapo closes the descriptors that it does not need after the start.
        let kapo = Kapo::start([flag, "supervise", "sleep", "60"]);
        let command = kapo.command_pid();
        let file = |pid: i32, number: i32| {
            let meta = std::fs::metadata(format!("/proc/{pid}/fd/{number}")).unwrap();
            (meta.dev(), meta.ino())
        };
        assert_eq!(file(command, own), file(kapo.pid(), own));
        assert_ne!(file(command, captured), file(kapo.pid(), captured));
        let stdin = |pid: i32| std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert_eq!(stdin(command), stdin(kapo.pid()));
    }
}

#[test]
fn a_stalled_reader_blocks_only_the_command() {
    let folder = TempDir::new().unwrap();
    let length = volume();
    let file = random_file(folder.path(), "bytes", length);
    let path = format!("if={}", file.display());
    for (name, pair) in STALLING {
        for block in ["bs=1000", "bs=1M"] {
            let (mut reader, ours) = pair();
            let keep = ours.try_clone().unwrap();
            let before = fcntl_getfl(&keep).unwrap();
            let words = [&["--stdout"][..], &writer(block, &path)].concat();
            let mut kapo = kapo_to(ours, &words);
            // Part of the output is read, so that the output stalls in the middle.
            let mut head = vec![0; 100_000];
            reader.read_exact(&mut head).unwrap();
            let stalled = wait_until_stalled(&kapo, "stdout");
            assert!(stalled < length as u64, "{name}: {stalled} bytes were taken with nobody to read them");
            for _ in 0..10 {
                let begin = now();
                assert_eq!(kapo.status()["Status"], "running");
                assert!(begin.elapsed().as_millis() < 1_000, "{name}: {:?}", begin.elapsed());
            }
            assert_eq!(fcntl_getfl(&keep).unwrap(), before, "{name}: flags of what kapo inherited");
            assert!(!before.contains(OFlags::NONBLOCK));
            drop(keep);
            let rest = read_all(reader);
            kapo.expect_exit(0);
            head.extend(rest.join().unwrap());
            assert!(head == std::fs::read(&file).unwrap(), "{name}, {block}: {} bytes", head.len());
        }
    }
}

#[test]
fn a_stalled_kapo_uses_no_cpu_time() {
    for (name, pair) in STALLING {
        let (mut reader, ours) = pair();
        let kapo = kapo_to(ours, &["--stdout", "run", "cat", "/dev/zero"]);
        reader.read_exact(&mut [0; 1000]).unwrap();
        wait_until_stalled(&kapo, "stdout");
        assert_sleeps(&kapo, name);
    }
}

/// Checks for half a second that kapo is not woken.
fn assert_sleeps(kapo: &Kapo, name: &str) {
    let naps = || crate::harness::proc_status(kapo.pid(), "voluntary_ctxt_switches").unwrap();
    let cpu = || {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", kapo.pid())).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // The connection of the last answer is still being closed.
    let mut last = String::new();
    wait_for("it has come to rest", || {
        let naps = naps();
        std::mem::replace(&mut last, naps.clone()) == naps
    });
    let (begin, cpu_before, naps_before) = (now(), cpu(), naps());
    wait_for("some time has passed", || begin.elapsed().as_millis() > 500);
    assert_eq!(naps(), naps_before, "{name}");
    assert!(cpu() - cpu_before < 20_000_000, "{name}: {} ns", cpu() - cpu_before);
}

#[test]
fn a_stalled_reader_that_closes_causes_no_busy_loop() {
    for (name, pair) in &STALLING[..3] {
        let (mut reader, ours) = pair();
        let script = "head -c 1000000 /dev/zero; exec sleep 60";
        let mut kapo = kapo_to(ours, &["--stdout", "run", "sh", "-c", script]);
        reader.read_exact(&mut [0; 1000]).unwrap();
        wait_until_stalled(&kapo, "stdout");
        drop(reader);
        kapo.wait_for("all was read", |kapo| captured(kapo, "stdout") == 1_000_000);
        assert_sleeps(&kapo, name);
        let said = kapo.stderr();
        assert_eq!(said.matches("output discarded").count(), 1, "{name}: {said}");
    }
}

#[test]
fn ttl_and_term_work_while_the_reader_stalls() {
    for (ttl, code) in [("300ms", 124), ("1h", 143)] {
        let folder = TempDir::new().unwrap();
        let side = folder.path().join("side");
        // Each line is first written and then recorded, so every recorded line was written.
        let script = "while :; do i=$((i+1)); echo line $i of many; echo $i >&3; done 3>\"$0\"";
        let (mut reader, ours) = pipe();
        let words = ["-S", "run", "--ttl", ttl, "sh", "-c", script, side.to_str().unwrap()];
        let mut kapo = kapo_to(ours, &words);
        reader.read_exact(&mut [0; 1]).unwrap();
        if code == 143 {
            wait_until_stalled(&kapo, "stdout");
            kapo.signal(15);
        }
        kapo.wait_for_status("the command was ended", |status| status["Status"] == "killed");
        let came = String::from_utf8(read_all(reader).join().unwrap()).unwrap();
        kapo.expect_exit(code);
        let noted = std::fs::read_to_string(&side).unwrap();
        let noted = noted.rsplit_once('\n').map_or(0, |(lines, _)| lines.lines().count());
        let lines: Vec<_> = format!("l{came}").lines().map(str::to_owned).collect();
        let whole =
            lines.iter().zip(1..).take_while(|(line, n)| **line == format!("line {n} of many")).count();
        assert!(whole >= noted && noted > 100, "{noted} lines were written, {whole} came");
        assert!(lines.len() <= whole + 1, "{:?} follows {whole} lines", &lines[whole..]);
    }
}

#[test]
fn all_output_of_a_killed_command_arrives() {
    let script = "while :; do i=$((i+1)); echo line $i of many; echo $i >&3; done 3>\"$0\"";
    for signal in [9, 15, 11] {
        let folder = TempDir::new().unwrap();
        let side = folder.path().join("side");
        let mut kapo = Kapo::start(["--stdout", "run", "sh", "-c", script, side.to_str().unwrap()]);
        let size = || std::fs::metadata(&side).map_or(0, |meta| meta.len());
        kapo.wait_for("it has written much", |_| size() > 50_000);
        kapo::sys::signal::send(kapo.command_pid(), signal).unwrap();
        kapo.expect_exit(128 + signal);
        let noted = std::fs::read_to_string(&side).unwrap();
        let noted = noted.rsplit_once('\n').map_or(0, |(lines, _)| lines.lines().count());
        let came = kapo.stdout();
        let lines: Vec<_> = came.lines().collect();
        let whole =
            lines.iter().zip(1..).take_while(|(line, n)| **line == format!("line {n} of many")).count();
        assert!(whole >= noted && noted > 1_000, "{noted} lines were written, {whole} came");
        assert!(lines.len() <= whole + 1, "{:?} follows {whole} lines", &lines[whole..]);
    }
}

#[test]
fn hundreds_of_short_runs_lose_no_line() {
    let rounds = std::env::var("KAPO_TEST_RUNS").map_or(300, |text| text.parse().unwrap());
    // There is no port, so that only the output can fail.
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let socket = socket.to_str().unwrap();
    for round in 0..rounds {
        // One stream goes through a pipe, the other to a file.
        let mut command = kapo(["-q", "-i", socket, "-SE", "run", "--", "sh", "-c", "echo x; echo y >&2"]);
        if round % 2 == 0 {
            let output = command.output().unwrap();
            assert_eq!(
                (output.status.code(), &output.stdout[..], &output.stderr[..]),
                (Some(0), &b"x\n"[..], &b"y\n"[..])
            );
        } else {
            assert_eq!(run_to_the_end(command), (Some(0), "x\n".to_owned(), "y\n".to_owned()));
        }
    }
}

#[test]
fn every_run_under_supervision_is_captured_and_counted_together() {
    let mut kapo = Kapo::start(["-S", "supervise", "--wait", "1ms", "--", "sh", "-c", "echo run; exit 1"]);
    kapo.wait_for("some runs have passed", |kapo| kapo.stdout().lines().count() >= 20);
    let status = kapo.status();
    let restarts = status["Restarts"].as_u64().unwrap();
    let bytes = status["Output"]["Stdout"]["Bytes"].as_u64().unwrap();
    assert!(bytes == 4 * restarts || bytes == 4 * (restarts + 1), "{status}");
    kapo.signal(15);
    wait_for("it ends", || kapo.try_wait().is_some());
    let stdout = kapo.stdout();
    assert!(stdout.lines().all(|line| line == "run"), "{stdout}");
}

#[test]
fn a_file_is_not_overwritten_from_its_start() {
    // A program that opens /dev/stdout again, to avoid blocking, would begin at offset 0.
    let mut out = tempfile::tempfile().unwrap();
    out.write_all(&[b'o'; 10_000]).unwrap();
    launch_to(out.try_clone().unwrap(), kapo_on_a_free_port(["-S", "run", "echo", "new"])).expect_exit(0);
    assert_eq!(out.stream_position().unwrap(), 10_004);
    out.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    File::read_to_string(&mut out, &mut text).unwrap();
    assert!(text.starts_with("ooo") && text.ends_with("onew\n") && text.len() == 10_004);
}
