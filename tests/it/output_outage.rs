//! Tests of sinks that fail for a while: a full file system, a system call that is not available.

use std::io::Read;

use tempfile::TempDir;

use crate::harness::{Kapo, before_exec, binary, clean, kapo_on_a_free_port};
use crate::sinks::{Pair, fifo, pipe, read_all};
use crate::tools::can_unshare;

#[test]
fn output_to_a_full_disk_continues_when_there_is_space() {
    if !can_unshare(&["--mount"]) {
        return;
    }
    for flags in ["-S", "-SL"] {
        let folder = TempDir::new().unwrap();
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let disk = disk.to_str().unwrap();
        let preparation = format!("mount -t tmpfs -o size=64k none {disk} && exec \"$@\" >{disk}/out");
        // The command fills the disk, writes lines, and frees space once kapo has logged that output is lost.
        let script = format!(
            "cat /dev/zero >{disk}/filler 2>{disk}/full; echo lost
             until grep -q 'output discarded' /proc/self/fd/2; do :; done; rm {disk}/filler
             until grep -q found {disk}/out; do echo found; sleep 0.01; done"
        );
        let mut command = clean("unshare");
        command.args(["--mount", "sh", "-c", &preparation, "sh"]).arg(binary());
        command.args(["-i", "127.0.0.1", "-p", "0", flags, "run", "--", "sh", "-c", &script]);
        let mut kapo = Kapo::launch(command);
        kapo.expect_exit(0);
        let said = kapo.stderr();
        let full = "msg=\"output discarded\" stream=stdout error=\"No space left on device\"";
        assert_eq!(said.matches(full).count(), 1, "{said}");
        let again: Vec<&str> = said.lines().filter(|line| line.contains("msg=\"output resumed\"")).collect();
        assert_eq!(again.len(), 1, "{said}");
        let lost = again[0].rsplit_once(" discarded_bytes=").unwrap().1.parse::<u64>().unwrap();
        assert!(again[0].contains(" level=warn ") && again[0].contains(" stream=stdout "), "{said}");
        // The line "lost" is lost, and those that came within the second before the next attempt.
        assert!(lost >= 5 && (lost - 5).is_multiple_of(6), "{said}");
    }
}

#[test]
fn the_log_continues_when_there_is_space() {
    if !can_unshare(&["--mount"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let disk = folder.path().to_str().unwrap();
    let preparation = format!("mount -t tmpfs -o size=64k none {disk} && exec \"$@\" 2>{disk}/log");
    // The first run fills the disk and the last page of the log, the second one loses records, the later ones free
    // space and check.
    let script = format!(
        "mkdir {disk}/one 2>/dev/null && {{ cat /dev/zero >{disk}/filler; cat /dev/zero >&2; exit 1; }}
         mkdir {disk}/two 2>/dev/null && exit 1
         rm -f {disk}/filler; grep -qa dropped {disk}/log && cat {disk}/log && exit 0; exit 1"
    );
    let mut command = clean("unshare");
    command.args(["--mount", "sh", "-c", &preparation, "sh"]).arg(binary());
    let words =
        ["supervise", "--log-repeats", "--wait", "0", "--restart", "on-failure", "--", "sh", "-c", &script];
    command.args(["-i", "127.0.0.1", "-p", "0"]).args(words);
    let mut kapo = Kapo::launch(command);
    kapo.expect_exit(0);
    let said = kapo.stdout();
    let count =
        said.lines().find_map(|line| line.split_once("msg=\"log records dropped\" count=")).unwrap().1;
    assert!(count.parse::<u64>().unwrap() >= 1, "{said}");
}

/// Makes the kernel refuse these system calls with EPERM, as old seccomp profiles do.
fn refuse(command: &mut std::process::Command, calls: [i64; 2]) {
    let calls = calls.map(|call| u32::try_from(call).unwrap());
    before_exec(command, move || {
        let statement = |code: u32, k: u32, jt, jf| libc::sock_filter {
            code: u16::try_from(code).unwrap_or(0),
            jt,
            jf,
            k,
        };
        let filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls[0], 2, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls[1], 1, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        ];
        let program = libc::sock_fprog { len: 5, filter: filter.as_ptr().cast_mut() };
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: the call reads the program and its filter, which live until it returns.
        #[expect(unsafe_code, reason = "filters of system calls are set by prctl alone")]
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
}

#[test]
fn a_system_call_that_is_forbidden_loses_nothing() {
    let never = i64::from(u32::MAX);
    let wanted: String = (1..=20_000).map(|n: u32| format!("line {n}\n")).collect();
    for (name, pair) in [("pipe", pipe as Pair), ("FIFO", fifo)] {
        for refused in
            [[libc::SYS_pwritev2, never], [libc::SYS_pwritev2, libc::SYS_splice], [never, libc::SYS_splice]]
        {
            let (reader, ours) = pair();
            let came = read_all(reader);
            let mut command = kapo_on_a_free_port(["-S", "run", "--", "seq", "-f", "line %.0f", "20000"]);
            refuse(&mut command, refused);
            let (mut log_reader, log) = pipe();
            command.stdout(ours).stderr(log);
            let mut kapo = Kapo::launch_with_its_outputs(command, TempDir::new().unwrap());
            kapo.expect_exit(0);
            let mut log = String::new();
            log_reader.read_to_string(&mut log).unwrap();
            assert!(String::from_utf8(came.join().unwrap()).unwrap() == wanted, "{name}, {refused:?}: {log}");
            for record in ["msg=\"listening\"", "msg=\"started\"", "msg=\"exited\""] {
                assert!(log.contains(record), "{name}, {refused:?}: {log}");
            }
        }
    }
}
