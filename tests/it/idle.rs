//! Tests that kapo is not woken while nothing happens.

use std::io::Write;

use crate::harness::{Kapo, now, proc_status, wait_for};

/// Returns how often the process has gone to sleep, which is once after each wake-up.
pub(crate) fn naps(pid: i32) -> u64 {
    proc_status(pid, "voluntary_ctxt_switches").unwrap().parse().unwrap()
}

/// Returns utime plus stime in ticks.
pub(crate) fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Checks that `count` does not change for this long.
pub(crate) fn stays(what: &str, milliseconds: u128, mut count: impl FnMut() -> u64) {
    let before = count();
    let begin = now();
    wait_for(what, || {
        assert_eq!(count(), before, "{what}, after {:?}", begin.elapsed());
        begin.elapsed().as_millis() > milliseconds
    });
}

#[test]
fn an_idle_kapo_is_not_woken() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    // One idle connection that was answered, and one that never sent anything.
    let mut asked = kapo.connect();
    asked.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 16];
    std::io::Read::read_exact(&mut asked, &mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    let _silent = kapo.connect();
    wait_for("kapo sleeps", || crate::harness::process_state(kapo.pid()) == Some('S'));
    // Pending work is finished when two values a moment apart are equal.
    let mut last = u64::MAX;
    wait_for("it has come to rest", || {
        let naps = naps(kapo.pid());
        std::mem::replace(&mut last, naps) == naps
    });
    stays("kapo sleeps on", 2_000, || naps(kapo.pid()));
}

#[test]
fn the_memory_of_requests_is_given_back() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    wait_for("the command runs", || kapo.status()["Status"] == "running");
    let memory = || crate::tools::private_memory(kapo.pid());
    wait_for("kapo sleeps", || crate::harness::process_state(kapo.pid()) == Some('S'));
    let before = memory();
    for path in ["/metrics", "/metrics", "/", "/healthz?verbose"] {
        kapo.get(path);
    }
    // The last answer arrives before kapo has returned the memory. Tables that stay take 12 KiB.
    wait_for("the memory is given back", || memory() <= before + 16);
}

#[test]
fn an_idle_kapo_makes_no_system_call() {
    let strace = || std::process::Command::new("strace");
    if !strace().arg("-V").stdout(std::process::Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let kapo = Kapo::start(["run", "--ttl", "1h", "sleep", "60"]);
    let _idle = kapo.connect();
    assert_eq!(kapo.status()["Status"], "running");
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut tracer = strace();
    tracer.arg("-o").arg(log.path()).args(["-p", &kapo.pid().to_string()]);
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut tracer = tracer.stderr(said.reopen().unwrap()).spawn().unwrap();
    let attached = || {
        let traced = proc_status(kapo.pid(), "TracerPid").is_some_and(|pid| pid != "0");
        traced && std::fs::read_to_string(log.path()).unwrap().contains("epoll_")
    };
    wait_for("strace is attached, or may not", || attached() || tracer.try_wait().unwrap().is_some());
    if tracer.try_wait().unwrap().is_some() {
        eprintln!("skipped: {}", std::fs::read_to_string(said.path()).unwrap());
        return;
    }
    let begin = now();
    wait_for("some time has passed", || begin.elapsed().as_millis() > 2_000);
    kapo::sys::signal::send(i32::try_from(tracer.id()).unwrap(), 2).unwrap();
    tracer.wait().unwrap();
    let mut seen = std::fs::read_to_string(log.path()).unwrap();
    // Attaching interrupts the wait, and kapo then reads the clock. On a machine whose clock the vDSO cannot read, for
    // example an emulated one, that is a system call.
    seen = seen.split_inclusive('\n').filter(|line| !line.starts_with("clock_gettime(")).collect();
    // The only other call is the wait, which attaching and detaching interrupt.
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert!(seen.contains("<detached") || seen.contains("<unfinished"), "{seen}");
}

#[test]
fn stalled_connections_cost_no_cpu_time() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let stalled: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = kapo.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    assert_eq!(kapo.get("/livez").status, 200);
    let mut last = u64::MAX;
    wait_for("it has come to rest", || {
        let naps = naps(kapo.pid());
        std::mem::replace(&mut last, naps) == naps
    });
    // The connections time out after 10 s. Until then nothing wakes kapo.
    stays("kapo sleeps on", 1_500, || naps(kapo.pid()) + cpu_ticks(kapo.pid()));
    drop(stalled);
}
