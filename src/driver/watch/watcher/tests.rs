//! Tests with real processes and the real /proc. The watched names are those of files in a temporary directory, so
//! that processes outside of the tests never match.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::logic::reason::Reason;
use crate::logic::status::State;
use crate::signal::Signal;

#[expect(clippy::disallowed_methods, reason = "the one place where these tests read the clock")]
fn now() -> Now {
    Now { mono: Instant::now(), wall: SystemTime::now() }
}

/// A watcher with a loop of its own.
struct Rig {
    watcher: Watcher,
    notes: Vec<Note>,
}

fn config(name: &str) -> config::WatchOptions {
    let wait = Duration::from_millis(100);
    config::WatchOptions { names: vec![name.into()], pid: None, wait, process_events: false }
}

fn only(pid: u32) -> config::WatchOptions {
    config::WatchOptions { pid: Some(i32::try_from(pid).unwrap()), ..config("shown") }
}

impl Rig {
    fn new(config: &config::WatchOptions) -> Rig {
        let mut notes = Vec::new();
        let watcher = Watcher::open(config, 5, now(), &mut |note| notes.push(note)).unwrap();
        let mut rig = Rig { watcher, notes };
        rig.turn();
        rig
    }

    fn turn(&mut self) -> bool {
        self.watcher.turn(now(), &mut |note| self.notes.push(note))
    }

    /// Waits for the descriptor or the deadline, as the loop does, until the condition holds.
    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&Watcher) -> bool) {
        let end = now().mono + Duration::from_secs(20);
        while !condition(&self.watcher) {
            assert!(now().mono < end, "{what}: {:?} {:?}", self.watcher.status(), self.notes);
            if !self.turn() && !condition(&self.watcher) {
                self.wait();
            }
        }
    }

    fn wait(&self) {
        let limit = Duration::from_secs(1);
        let wait =
            self.watcher.deadline().map_or(limit, |at| at.saturating_duration_since(now().mono).min(limit));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos().min(999_999_999).try_into().unwrap() };
        let _ = poll(&mut [PollFd::new(&self.watcher, PollFlags::IN)], Some(&wait));
    }

    /// Runs turns until the scan has ended.
    fn finish_scan(&mut self) {
        while self.turn() {}
    }

    fn pids(&self) -> Vec<u32> {
        self.watcher.status().iter().filter_map(|s| s.pid).map(|pid| pid.get().unsigned_abs()).collect()
    }

    fn shown(&self) -> (State, u8, Option<Signal>, Option<Reason>) {
        let status = self.watcher.status();
        assert_eq!(status.len(), 1);
        (status[0].state, status[0].exit_code, status[0].signal, status[0].reason)
    }
}

fn lives(watcher: &Watcher) -> bool {
    watcher.lives()
}

fn is_gone(watcher: &Watcher) -> bool {
    !watcher.lives()
}

/// A directory for programs with unique names.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn copy(&self, program: &str, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::copy(program, &path).unwrap();
        path
    }

    fn script(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, "#!/bin/sh -e\nread x\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Returns a unique name that is short enough not to be cut.
fn unique(tag: &str) -> String {
    format!("{tag}-{}", std::process::id())
}

/// A child that ends when its stdin is closed. It is killed and reaped when dropped.
struct Job(Child);

impl Job {
    fn start(program: &Path, arguments: &[&str]) -> Job {
        Job::spawn(Command::new(program).args(arguments))
    }

    fn spawn(command: &mut Command) -> Job {
        Job(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn say(&mut self, line: &str) {
        self.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until the process is a zombie.
fn until_zombie(pid: u32) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
}

/// Waits until the process has this name: a shell prints the pid of its child before the child has executed the
/// program.
#[track_caller]
fn until_named(pid: u32, name: &str) {
    let end = now().mono + Duration::from_secs(20);
    let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    while !comm().trim_end().starts_with(name.get(..15).unwrap_or(name)) {
        assert!(now().mono < end, "{pid} is {:?}, not {name}", comm());
    }
}

/// Whether this kernel reports the exit of a process that is not a child.
fn kernel_reports_exit() -> bool {
    kernel_is_at_least((6, 15))
}

fn kernel_is_at_least(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

#[test]
fn the_signal_of_a_killed_process_is_reported_at_once() {
    let (folder, name) = (Folder::new(), unique("kill"));
    let sleep = folder.copy("/bin/sleep", &name);
    // The shell is the parent and reaps it.
    let mut shell = Job::start(
        Path::new("/bin/sh"),
        &["-c", r#""$0" 100 & echo $!; wait; read x"#, sleep.to_str().unwrap()],
    );
    let pid: u32 = shell.hear().parse().unwrap();
    until_named(pid, &name);
    let mut rig = Rig::new(&config::WatchOptions { wait: Duration::from_secs(3_600), ..config(&name) });
    rig.until("found", lives);
    rig.finish_scan();
    assert_eq!((rig.pids(), rig.shown()), (vec![pid], (State::Running, 0, None, None)));
    kill(pid, rustix::process::Signal::KILL);
    // The next scan is an hour away, so only the descriptor can report the end.
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&rig.watcher, PollFlags::IN)], Some(&limit)), Ok(1));
    rig.until("its end", is_gone);
    assert!(rig.watcher.deadline().is_some_and(|at| at > now().mono + Duration::from_secs(3_000)));
    if kernel_reports_exit() {
        rig.until("its signal", |w| w.status()[0].signal.is_some());
        assert_eq!(rig.shown(), (State::Killed, 137, Some(Signal::KILL), Some(Reason::Signal)));
        // A zombie shows its signal before it is reaped. No event follows after that.
        rig.until("the pidfd is closed", |w| w.io.guards.is_empty());
    }
}

#[test]
fn a_zombie_has_ended_and_its_code_follows_when_reaped() {
    let (folder, name) = (Folder::new(), unique("zomb"));
    let shell = folder.copy("/bin/sh", &name);
    for (code, at_once) in [(7, Some(Reason::ExitCode)), (0, None)] {
        let mut job = Job::start(&shell, &["-c", &format!("read x; exit {code}")]);
        let mut rig = Rig::new(&config::WatchOptions { wait: Duration::from_secs(3_600), ..config(&name) });
        rig.until("found", lives);
        job.say("\n");
        until_zombie(job.pid());
        rig.until("its end", is_gone);
        // Exit code 0 could also mean that kapo may not read the wait status.
        assert_eq!(rig.shown(), (State::Stopped, code, None, at_once));
        rig.finish_scan();
        for _ in 0..3 {
            assert!(!rig.turn(), "a zombie does not keep the loop busy");
            let mut fds = [PollFd::new(&rig.watcher, PollFlags::IN)];
            assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(0));
        }
        job.0.wait().unwrap();
        if kernel_reports_exit() {
            rig.until("the last word", |w| w.io.guards.is_empty());
            assert_eq!(rig.shown().3, Some(if code == 0 { Reason::Success } else { Reason::ExitCode }));
        }
    }
}

#[test]
fn every_kind_of_name_is_found() {
    let folder = Folder::new();
    let id = std::process::id();
    for name in [
        format!("n{id}"),
        format!("a {id} b"),
        format!(") (({id}"),
        format!("x\n{id}\n"),
        format!("a-name-of-more-than-15-bytes-{id}"),
        format!("b\n-name-of-more-than 15 bytes)-{id}"),
    ] {
        let job = Job::start(&folder.copy("/bin/sleep", &name), &["100"]);
        let mut rig = Rig::new(&config(&name));
        rig.until(&name, lives);
        assert_eq!(rig.pids(), [job.pid()], "{name:?}");
    }
    for name in [format!("s{id}"), format!("a-script-of-more-than-15-bytes-{id}")] {
        let job = Job::start(&folder.script(&name), &[]);
        let mut rig = Rig::new(&config(&name));
        rig.until(&name, lives);
        assert_eq!(rig.pids(), [job.pid()], "{name:?}");
    }
    // The two names differ after the 15th byte.
    let (one, two) = (format!("same-beginning-of-{id}-1"), format!("same-beginning-of-{id}-2"));
    let _one = Job::start(&folder.copy("/bin/sleep", &one), &["100"]);
    let two_job = Job::start(&folder.copy("/bin/sleep", &two), &["100"]);
    let mut rig = Rig::new(&config(&two));
    rig.until("the second", lives);
    rig.finish_scan();
    assert_eq!(rig.pids(), [two_job.pid()]);
}

#[test]
fn a_kernel_thread_is_found_by_its_name() {
    if std::fs::read("/proc/2/comm").is_ok_and(|comm| comm == b"kthreadd\n") {
        let mut rig = Rig::new(&config("kthreadd"));
        rig.until("found", lives);
        assert_eq!(rig.pids(), [2]);
    }
}

#[test]
fn a_process_that_takes_its_name_by_exec_is_found() {
    let (folder, name) = (Folder::new(), unique("exec"));
    let sleep = folder.copy("/bin/sleep", &name);
    let mut rig = Rig::new(&config(&name));
    let mut job =
        Job::start(Path::new("/bin/sh"), &["-c", r#"echo; read x; exec "$0" 100"#, sleep.to_str().unwrap()]);
    job.hear();
    rig.finish_scan();
    rig.until("a scan", |w| w.deadline().is_some());
    let at = rig.watcher.deadline();
    rig.until("the next scan", |w| w.deadline() > at);
    assert!(!rig.watcher.lives());
    job.say("\n");
    rig.until("found", lives);
    assert_eq!(rig.pids(), [job.pid()]);
}

#[test]
fn the_start_time_equals_that_of_ps() {
    let (folder, name) = (Folder::new(), unique("start"));
    let job = Job::start(&folder.copy("/bin/sleep", &name), &["100"]);
    let mut rig = Rig::new(&config(&name));
    rig.until("found", lives);
    let start = rig.watcher.status()[0].start_time.unwrap();
    let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let script = r#"date -d "$(LC_ALL=C ps -o lstart= -p "$0")" +%s"#;
    let ps = Command::new("sh").args(["-c", script, &job.pid().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8(ps.stdout).unwrap().trim(), since.as_secs().to_string());
    assert_eq!(since.subsec_nanos() % 10_000_000, 0, "a tick is 10 ms");
}

#[test]
fn a_thousand_matches_work_with_few_descriptors() {
    let (folder, name) = (Folder::new(), unique("many"));
    let sleep = folder.copy("/bin/sleep", &name);
    let script = r#"i=0; while [ $i -lt 1000 ]; do "$0" 1000 & i=$((i+1)); done; echo ready; wait"#;
    let mut command = Command::new("/bin/sh");
    let mut shell = Job::spawn(command.args(["-c", script, sleep.to_str().unwrap()]).process_group(0));
    shell.hear();
    let mut rig = Rig::new(&config(&name));
    rig.watcher.io.most = 100;
    assert!(rig.turn(), "one turn does not read a thousand processes");
    rig.until("all", |w| w.status().len() == 1_000);
    rig.finish_scan();
    assert_eq!(rig.watcher.status()[0].restarts, 999);
    assert!(rig.watcher.status().is_sorted_by_key(|s| (s.start_time, s.pid)));
    assert_eq!(rig.watcher.io.guards.len(), 100);
    let group = rustix::process::Pid::from_raw(i32::try_from(shell.pid()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    rig.until("none", is_gone);
    assert!(rig.watcher.io.guards.len() <= 1);
}

#[test]
fn running_out_of_descriptors_delays_the_scan_and_loses_nothing() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let inside = "running_out_of_descriptors_delays_the_scan_and_loses_nothing";
    // This part needs its own process, because the limit applies to the whole process.
    if !is_inside() {
        return run_inside(inside, &["env"]);
    }
    let (folder, name) = (Folder::new(), unique("fds"));
    let sleep = folder.copy("/bin/sleep", &name);
    let mut rig = Rig::new(&config(&name));
    rig.finish_scan();
    let job = Job::start(&sleep, &["100"]);
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(3), ..before }).unwrap();
    let own = rustix::process::getpid().as_raw_nonzero();
    assert!(
        procfs::is_resource_exhaustion(procfs::comm(own.into(), &mut [0; 80]).unwrap_err()),
        "it says nothing about the process"
    );
    let at = rig.watcher.deadline();
    rig.until("a scan that fails", |w| w.deadline() > at);
    assert!(!rig.watcher.lives());
    setrlimit(Resource::Nofile, before).unwrap();
    rig.until("found", lives);
    assert_eq!(rig.pids(), [job.pid()]);
}

#[test]
fn watching_one_pid_needs_no_wakeup() {
    // Use a process of another user if the test runs as root.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read x; exit 5"]);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let mut job = Job::spawn(&mut command);
    let mut rig = Rig::new(&only(job.pid()));
    assert_eq!((rig.pids(), rig.watcher.deadline()), (vec![job.pid()], None));
    assert_eq!(rig.watcher.status()[0].command, "shown");
    assert!(!rig.turn());
    job.say("\n");
    rig.until("its end", is_gone);
    job.0.wait().unwrap();
    if kernel_reports_exit() {
        rig.until("its code", |w| w.status()[0].exit_code == 5);
    }
    let gone = Watcher::open(&only(job.pid()), 5, now(), &mut |_| ()).unwrap_err();
    assert_eq!(gone, Error::Setup(format!("cannot watch --pid {}: No such process", job.pid())));
}

#[test]
fn kapo_does_not_watch_itself() {
    let refused = Watcher::open(&only(std::process::id()), 5, now(), &mut |_| ()).unwrap_err();
    assert_eq!(refused, Error::Usage(format!("--pid {} is kapo itself", std::process::id())));
}

/// Whether this is the copy of the test that runs in the changed environment.
fn is_inside() -> bool {
    std::env::var_os("KAPO_TEST_INSIDE").is_some()
}

/// Runs one test of this file again, after a command that changes its environment. Prints a note if that is not
/// permitted.
#[track_caller]
fn run_inside(test: &str, behind: &[&str]) {
    let mut probe = Command::new(behind[0]);
    if !probe.args(&behind[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: `{} true` does not work here", behind.join(" "));
    }
    let test = format!("driver::watch::watcher::tests::{test}");
    let mut command = Command::new(behind[0]);
    command.args(&behind[1..]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env("KAPO_TEST_INSIDE", "1");
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    eprint!("{text}");
}

#[test]
fn a_reused_pid_is_not_the_old_process() {
    if !is_inside() {
        return run_inside("a_reused_pid_is_not_the_old_process", &["unshare", "-pf", "--mount-proc"]);
    }
    // Since Linux 6.14 each PID namespace has its own limit. Before that, the limit applies to the whole machine.
    let namespaced = kernel_is_at_least((6, 14)) && std::fs::write("/proc/sys/kernel/pid_max", "400").is_ok();
    if !namespaced {
        return eprintln!("skipped: a PID namespace has no pid_max of its own before Linux 6.14");
    }
    let (folder, name) = (Folder::new(), "job");
    let sleep = folder.copy("/bin/sleep", name);
    for most in [usize::MAX, 0] {
        // After the highest pid the kernel continues with 300, so only pids above that are reused.
        let mut old = (0..400).map(|_| Job::start(&sleep, &["100"])).find(|job| job.pid() > 300).unwrap();
        let mut rig = Rig::new(&config(name));
        rig.watcher.io.most = most;
        rig.until("the old one", lives);
        rig.finish_scan();
        let (pid, before) = (old.pid(), rig.watcher.status()[0].start_time);
        old.0.kill().unwrap();
        old.0.wait().unwrap();
        // Fork until the pid comes again. The watcher does not turn meanwhile.
        let new = (0..100_000).map(|_| Job::start(&sleep, &["100"])).find(|job| job.pid() == pid).unwrap();
        rig.until("the new one", |w| w.status()[0].restarts == 1 && w.lives());
        assert_eq!(rig.pids(), [new.pid()]);
        assert_eq!(new.pid(), pid);
        assert!(rig.watcher.status()[0].start_time > before);
        assert_eq!(rig.notes.len(), 3, "found, ended, found: {:?}", rig.notes);
    }
}

#[test]
fn pids_in_the_proc_of_another_namespace_are_not_opened() {
    if !is_inside() {
        let test = "pids_in_the_proc_of_another_namespace_are_not_opened";
        return run_inside(test, &["unshare", "-pf"]);
    }
    let (folder, name) = (Folder::new(), unique("ns"));
    let job = Job::start(&folder.copy("/bin/sleep", &name), &["100"]);
    let mut rig = Rig::new(&config(&name));
    rig.until("found", lives);
    rig.finish_scan();
    assert_ne!(rig.pids(), [job.pid()], "it is shown as /proc names it");
    assert!(rig.watcher.io.guards.is_empty() && rig.watcher.deadline().is_some());
    drop(job);
    rig.until("its end", is_gone);
}

#[test]
fn a_process_hidden_by_hidepid_does_not_exist() {
    if !is_inside() {
        let hide = "mount -t proc -o hidepid=2 proc /proc && setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; exit $?";
        return run_inside(
            "a_process_hidden_by_hidepid_does_not_exist",
            &["unshare", "-mpf", "sh", "-c", hide, "sh"],
        );
    }
    // The shell that runs this copy belongs to root.
    let hidden = Watcher::open(&only(1), 5, now(), &mut |_| ()).unwrap_err();
    assert_eq!(hidden, Error::Setup("cannot watch --pid 1: No such process".to_owned()));
    let mut ours = Rig::new(&config("cat"));
    let job = Job::start(Path::new("/bin/cat"), &[]);
    ours.until("found", lives);
    assert_eq!(ours.pids(), [job.pid()]);
}

#[test]
fn the_start_fails_without_proc() {
    if !is_inside() {
        let cover = "mount -t tmpfs none /proc && exec \"$@\"";
        return run_inside("the_start_fails_without_proc", &["unshare", "-m", "sh", "-c", cover, "sh"]);
    }
    let refused = Watcher::open(&config("any"), 5, now(), &mut |_| ()).unwrap_err();
    assert_eq!(refused.to_string(), "cannot read /proc: not mounted");
}

fn with_events(name: &str) -> config::WatchOptions {
    config::WatchOptions { process_events: true, ..config(name) }
}

#[test]
fn process_events_find_a_start_without_a_scan() {
    let (folder, name) = (Folder::new(), unique("ev"));
    let sleep = folder.copy("/bin/sleep", &name);
    let mut rig = Rig::new(&with_events(&name));
    if let [Note::Scanning(why)] = rig.notes[..] {
        return eprintln!("skipped: {why}");
    }
    rig.finish_scan();
    assert_eq!(rig.watcher.deadline(), None);
    let mut job =
        Job::start(Path::new("/bin/sh"), &["-c", r#"read x; exec "$0" 100"#, sleep.to_str().unwrap()]);
    job.say("\n");
    rig.until("found", lives);
    assert_eq!((rig.pids(), rig.watcher.deadline()), (vec![job.pid()], None));
    drop(job);
    rig.until("its end", is_gone);
    assert_eq!(rig.watcher.deadline(), None);
}

#[test]
fn a_scan_follows_lost_process_events() {
    let (folder, name) = (Folder::new(), unique("lost"));
    let sleep = folder.copy("/bin/sleep", &name);
    let mut rig = Rig::new(&with_events(&name));
    let Some(events) = &rig.watcher.io.events else { return eprintln!("skipped: {:?}", rig.notes) };
    rustix::net::sockopt::set_socket_recv_buffer_size(events, 1).unwrap();
    rig.finish_scan();
    for _ in 0..30 {
        Job::start(Path::new("/bin/true"), &[]);
    }
    let job = Job::start(&sleep, &["100"]);
    let events = rig.watcher.io.events.as_ref().unwrap();
    let mut missed = false;
    while !events.drain(64, |heard| missed |= heard == WatchEvent::Missed) {}
    assert!(missed);
    // The events were read without the watcher, so only a scan can find the process.
    rig.watcher.watch.handle(now(), WatchEvent::Missed, &mut rig.watcher.effects);
    rig.until("found", lives);
    assert_eq!(rig.pids(), [job.pid()]);
}

#[test]
fn unusable_process_events_are_refused_with_a_reason() {
    let test = "unusable_process_events_are_refused_with_a_reason";
    if !is_inside() {
        for (flags, why) in [
            (&["-pf", "--mount-proc"][..], "not in the first PID namespace"),
            (&["-Ur"], "not in the first user namespace"),
            (&["-n"], "not in the first network namespace"),
        ] {
            let why = format!("KAPO_TEST_WHY={why}");
            run_inside(test, &[&["unshare"], flags, &["env", &why]].concat());
        }
        return;
    }
    let rig = Rig::new(&with_events("any"));
    let [Note::Scanning(why)] = rig.notes[..] else { panic!("{:?}", rig.notes) };
    assert!(why.starts_with(&std::env::var("KAPO_TEST_WHY").unwrap()), "{why}");
    assert!(rig.watcher.io.events.is_none());
}
