//! Tests of sd_notify in both directions: from kapo to the manager that started it, and from the command to kapo under
//! --notify.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Kapo, LIMIT, kapo_on_a_free_port, lives, now, run_to_the_end, wait_for};
use crate::tools::{Gate, Line, OtherProcess, expect_no_wakeup, is_root, unique};

/// The socket of a manager, and its address in the form of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _folder: Option<TempDir>,
}

impl Manager {
    fn of(socket: UnixDatagram, address: String, folder: Option<TempDir>) -> Manager {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, address, _folder: folder }
    }

    fn with_a_path() -> Manager {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::of(socket, path.to_str().unwrap().to_owned(), Some(folder))
    }

    fn abstract_one() -> Manager {
        let name = unique("kapo-test-");
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Manager::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), None)
    }

    /// Starts kapo with this manager.
    fn starts(&self, words: &[&str]) -> Kapo {
        let mut command = kapo_on_a_free_port(words);
        command.env("NOTIFY_SOCKET", &self.address);
        Kapo::launch(command)
    }

    /// Returns the next datagram.
    fn next(&self) -> String {
        let mut bytes = [0; 8192];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Returns all datagrams up to the one that contains this text.
    fn read_until_one_contains(&self, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        while !all.last().is_some_and(|one: &String| one.contains(text)) {
            all.push(self.next());
        }
        all
    }

    /// Returns all datagrams up to the one that begins with this text.
    fn read_until(&self, begin: &str) -> Vec<String> {
        let mut all = Vec::new();
        while all.last().is_none_or(|last: &String| !last.starts_with(begin)) {
            all.push(self.next());
        }
        all
    }

    /// Checks that no datagram is waiting.
    fn expect_silence(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let more = self.socket.recv(&mut [0; 8192]);
        assert!(more.is_err(), "{more:?}");
        self.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_manager_is_notified_of_start_state_and_end() {
    for manager in [Manager::with_a_path(), Manager::abstract_one()] {
        let mut gate = Gate::new();
        let mut kapo = manager
            .starts(&["run", "--wait", "200ms", "sh", "-c", "read x < \"$0\"; exit 3", gate.path()])
            .listening();
        let pid = kapo.command_pid();
        assert_eq!(manager.read_until("READY=1"), ["READY=1"]);
        assert_eq!(manager.next(), format!("STATUS=running, pid {pid}"));
        manager.expect_silence();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
        gate.open();
        let end = manager.read_until("STOPPING=1");
        assert!(end.contains(&"STATUS=ended: exit-code 3".to_owned()), "{end:?}");
        kapo.expect_exit(3);
        manager.expect_only_status();
    }
}

impl Manager {
    fn expect_only_status(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 8192];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            assert!(bytes[..length].starts_with(b"STATUS="), "{}", String::from_utf8_lossy(&bytes[..length]));
        }
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_never_ready() {
    let manager = Manager::with_a_path();
    let mut kapo = manager.starts(&["run", "/nonexistent/program"]);
    kapo.expect_exit(127);
    let heard = manager.read_until("STOPPING=1");
    assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
}

#[test]
fn a_supervisor_is_ready_once_and_stops_once() {
    let manager = Manager::with_a_path();
    let kapo = manager.starts(&["supervise", "--wait", "1ms", "sh", "-c", "exit 3"]);
    // Read all the time, because datagrams that do not fit into the queue of the manager are lost when kapo ends.
    let mut heard = manager.read_until_one_contains("flapping");
    kapo.signal(15);
    heard.extend(manager.read_until("STOPPING=1"));
    assert_eq!(heard[0], "READY=1");
    assert_eq!(heard.iter().filter(|one| !one.starts_with("STATUS=")).count(), 2, "{heard:?}");
    assert!(heard.iter().any(|one| one.contains(", 3 restarts")), "{heard:?}");
    assert!(heard.iter().any(|one| one.contains("flapping")), "{heard:?}");
}

#[test]
fn watch_notifies_the_number_of_processes() {
    let manager = Manager::with_a_path();
    let job = OtherProcess::shell("read x", &[]);
    let mut kapo = manager.starts(&["watch", "--pid", &job.pid().to_string(), "shown"]).listening();
    manager.read_until("READY=1");
    kapo.wait_for_status("it is found", |status| status["Pid"] == job.pid());
    drop(job);
    manager.read_until("STATUS=no process shown");
    kapo.signal(15);
    manager.read_until("STOPPING=1");
    kapo.expect_exit(0);
}

#[test]
fn the_manager_is_pinged_twice_in_each_interval() {
    let manager = Manager::with_a_path();
    let mut command = kapo_on_a_free_port(["run", "sleep", "60"]);
    command.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "400000");
    let kapo = Kapo::launch(command).listening();
    let pings: Vec<Instant> = (0..6)
        .map(|_| {
            manager.read_until("WATCHDOG=1");
            now()
        })
        .collect();
    // Five intervals of 200 ms. The first ping comes at the start.
    let lasted = pings[5] - pings[0];
    assert!(lasted >= Duration::from_millis(900), "{lasted:?}");
    let environment = std::fs::read(format!("/proc/{}/environ", kapo.command_pid())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("WATCHDOG_USEC"));
    // A stopped kapo cannot ping.
    kapo.signal(19);
    wait_for("kapo stands still", || crate::harness::process_state(kapo.pid()) == Some('T'));
    manager.expect_silence_after_draining();
    kapo.signal(18);
    manager.read_until("WATCHDOG=1");
}

impl Manager {
    /// Reads all waiting datagrams, and returns when none has come for a whole interval.
    fn expect_silence_after_draining(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 8192]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let more = self.socket.recv(&mut [0; 8192]);
        assert!(more.is_err(), "{more:?}");
        self.socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
}

#[test]
fn a_watchdog_of_another_process_is_not_pinged() {
    let manager = Manager::with_a_path();
    let mut command = kapo_on_a_free_port(["run", "sleep", "60"]);
    command.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "1");
    let kapo = Kapo::launch(command).listening();
    manager.read_until("STATUS=running");
    expect_no_wakeup(kapo.pid());
    manager.expect_silence();
}

#[test]
fn a_manager_that_never_reads_does_not_block_kapo() {
    let manager = Manager::with_a_path();
    // The queue is full before kapo starts.
    let stuffing = UnixDatagram::unbound().unwrap();
    stuffing.set_nonblocking(true).unwrap();
    while stuffing.send_to(b"X=1", &manager.address).is_ok() {}
    let mut kapo = manager.starts(&["supervise", "--wait", "1ms", "sh", "-c", "exit 3"]).listening();
    let mut line = Line::to(&kapo);
    kapo.wait_for("many restarts", |_| {
        assert_eq!(line.ask("/livez").status, 200);
        serde_json::from_str::<serde_json::Value>(&line.ask("/").body).unwrap()[0]["Restarts"].as_u64()
            > Some(50)
    });
    kapo.signal(15);
    let start = now();
    wait_for("it ends", || kapo.try_wait().is_some());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_manager_that_reads_late_gets_ready() {
    let manager = Manager::with_a_path();
    let stuffing = UnixDatagram::unbound().unwrap();
    stuffing.set_nonblocking(true).unwrap();
    while stuffing.send_to(b"X=1", &manager.address).is_ok() {}
    let kapo = manager.starts(&["run", "sleep", "60"]).listening();
    assert_eq!(kapo.get("/readyz").status, 200);
    manager.read_until("READY=1");
}

#[test]
fn a_missing_manager_or_address_is_not_an_error() {
    for address in ["/nonexistent/socket", "@nobody-listens-here", "relative", "", "@", "vsock:2:1234"] {
        let mut command = kapo_on_a_free_port(["run", "sh", "-c", "exit 7"]);
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "abc");
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(7), "{address}: {stderr}");
        // The warning comes once. For an unknown kind of address there is none, as in sd_notify(3).
        let told = stderr.matches("level=warn msg=\"notify socket unreachable\" error=").count();
        assert_eq!(
            told,
            usize::from(["/nonexistent/socket", "@nobody-listens-here", "@"].contains(&address)),
            "{stderr}"
        );
    }
}

/// Returns a command in Python, in which `say(text)` sends to NOTIFY_SOCKET and `wait()` waits until the test opens
/// the gate.
fn speaks(gate: &Gate, script: &str) -> Vec<String> {
    let prelude = "import array, os, socket, sys, time
address = os.environ['NOTIFY_SOCKET']
address = '\\0' + address[1:] if address[0] == '@' else address
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    sock.sendto(text if isinstance(text, bytes) else text.encode(), address)
def say_with(text, fds):
    sock.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))], 0, address)
gate = open(sys.argv[1], 'rb', buffering=0)
def wait():
    return gate.read(1)
";
    ["python3", "-c", &format!("{prelude}{script}"), gate.path()].map(str::to_owned).to_vec()
}

fn notifying(options: &[&str], command: Vec<String>) -> Command {
    let words = ["run", "--notify"].iter().chain(options).map(|&word| word.to_owned()).chain(command);
    kapo_on_a_free_port(words)
}

#[test]
fn the_command_is_ready_when_it_sends_ready() {
    let mut gate = Gate::new();
    let manager = Manager::with_a_path();
    let script = "
wait(); say('STATUS=warming up')
wait(); say('READY=1\\nSTATUS=serving\\nUNKNOWN=x\\nEXTEND_TIMEOUT_USEC=5')
wait(); say('RELOADING=1\\nMONOTONIC_USEC=1')
wait(); say('READY=1')
wait(); say('STOPPING=1\\nSTATUS=good\\tbye')
wait()
";
    let mut command = notifying(&["--wait", "1m"], speaks(&gate, script));
    command.env("NOTIFY_SOCKET", &manager.address);
    let kapo = Kapo::launch(command).listening();
    let pid = kapo.command_pid();
    let ready = kapo.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "has not said READY=1\n"));
    assert_eq!((kapo.get("/healthz").status, kapo.get("/livez").status), (200, 200));
    gate.open();
    let status = kapo.wait_for_status("its words", |status| status["StatusText"] == "warming up");
    assert_eq!((&status["Ready"], &status["Status"]), (&json!(false), &json!("running")));
    let heard = manager.read_until(&format!("STATUS=starting, pid {pid}: warming up"));
    assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
    gate.open();
    kapo.wait_for_status("it is ready", |s| s["Ready"] == true && s["StatusText"] == "serving");
    assert_eq!(kapo.get("/readyz").status, 200);
    let heard = manager.read_until(&format!("STATUS=running, pid {pid}: serving"));
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
    assert!(heard.contains(&"EXTEND_TIMEOUT_USEC=5".to_owned()), "{heard:?}");
    assert!(!heard.concat().contains("UNKNOWN"), "{heard:?}");
    gate.open();
    kapo.wait_for_status("it reloads", |status| status["Ready"] == false);
    assert_eq!(kapo.get("/readyz").status, 503);
    manager.read_until("RELOADING=1\nMONOTONIC_USEC=1");
    gate.open();
    kapo.wait_for_status("it is ready again", |status| status["Ready"] == true);
    manager.read_until("READY=1");
    gate.open();
    let status = kapo.wait_for_status("its farewell", |status| status["StatusText"] == "good bye");
    assert_eq!(status["Ready"], false);
    gate.open();
    kapo.wait_for_status("its end", |status| status["Reason"] == "success");
}

#[test]
fn the_manager_gets_ready_when_the_ready_line_came() {
    let (mut gate, manager) = (Gate::new(), Manager::with_a_path());
    let script = "exec 3< \"$0\"; read -r x <&3; echo up; read -r x <&3; exit 1";
    let options = ["-S", "supervise", "--wait", "1ms", "--ready-line", "up", "sh", "-c", script, gate.path()];
    let kapo = manager.starts(&options).listening();
    assert_eq!(manager.next(), format!("STATUS=starting, pid {}", kapo.command_pid()));
    manager.expect_silence();
    gate.open();
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(manager.next(), format!("STATUS=running, pid {}", kapo.command_pid()));
    gate.open();
    let end = manager.read_until_one_contains("starting, pid");
    assert!(end.iter().all(|one| one.starts_with("STATUS=")), "the unit stays active: {end:?}");
}

#[test]
fn without_notify_there_is_no_notify_socket() {
    let script = "echo [$NOTIFY_SOCKET$WATCHDOG_USEC$WATCHDOG_PID]";
    let mut command = kapo_on_a_free_port(["run", "sh", "-c", script]);
    command.env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "1").env("NOTIFY_SOCKET", "/tmp/none");
    let (code, stdout, _) = run_to_the_end(command);
    assert_eq!((code, stdout.as_str()), (Some(0), "[]\n"));
}

#[test]
fn a_missed_ping_ends_the_command() {
    let mut gate = Gate::new();
    let script = "
assert os.environ['WATCHDOG_USEC'] == '500000'
assert os.environ['WATCHDOG_PID'] == str(os.getpid())
wait(); say('READY=1')
for _ in range(15):
    time.sleep(0.1); say('WATCHDOG=1')
wait()
";
    let mut kapo = Kapo::launch(notifying(&["--watchdog", "500ms", "--wait", "1m"], speaks(&gate, script)));
    kapo = kapo.listening();
    // The command need not ping before it is ready.
    let start = now();
    wait_for("longer than the interval", || start.elapsed() > Duration::from_millis(800));
    assert_eq!(kapo.status()["Status"], "running");
    gate.open();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
    let start = now();
    let status = kapo.wait_for_status("its end", |status| status["Status"] != "running");
    assert!(start.elapsed() > Duration::from_millis(1_500), "the pings kept it alive: {:?}", start.elapsed());
    assert_eq!((&status["Reason"], &status["Signal"]), (&json!("watchdog"), &json!("SIGTERM")));
    assert_eq!(kapo.get("/healthz").status, 503);
    assert!(kapo.stderr().contains("watchdog timed out"), "{}", kapo.stderr());
    kapo.signal(15);
    kapo.expect_exit(143);
}

#[test]
fn a_watchdog_may_be_triggered_and_its_interval_changed() {
    let gate = Gate::new();
    let script = "say('READY=1'); say('WATCHDOG=trigger'); wait()";
    let mut kapo = Kapo::launch(notifying(&["--watchdog", "1h", "-k", "1"], speaks(&gate, script)));
    kapo.expect_exit(143);
    assert!(kapo.stderr().contains("reason=watchdog"), "{}", kapo.stderr());
    let script = "say('READY=1\\nWATCHDOG_USEC=100000'); wait()";
    let mut kapo = Kapo::launch(notifying(&["--watchdog", "1h"], speaks(&gate, script)));
    kapo.expect_exit(143);
    assert!(kapo.stderr().contains("reason=watchdog"), "{}", kapo.stderr());
    // An exit code of 0 after a missed ping is not a success.
    let script = "
import signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
say('READY=1'); wait()";
    let mut kapo = Kapo::launch(notifying(&["--watchdog", "100ms"], speaks(&gate, script)));
    kapo.expect_exit(1);
}

#[test]
fn a_barrier_is_answered() {
    let mut gate = Gate::new();
    let script = "
reader, writer = os.pipe()
say('STATUS=before the barrier')
say_with('BARRIER=1', [writer])
os.close(writer)
assert os.read(reader, 1) == b''
print('answered', flush=True)
wait()
";
    let mut kapo = Kapo::launch(notifying(&[], speaks(&gate, script))).listening();
    kapo.wait_for_stdout("answered\n");
    assert_eq!(kapo.status()["StatusText"], "before the barrier", "all earlier datagrams were read");
    gate.open();
    kapo.expect_exit(0);
    if Command::new("systemd-notify").arg("--version").output().is_ok() {
        let script = "systemd-notify --ready --status='by a child' && echo said && read x < \"$0\"";
        let words = ["run", "--notify", "sh", "-c", script, gate.path()];
        let mut kapo = Kapo::launch(kapo_on_a_free_port(words)).listening();
        // systemd-notify waits for its barrier.
        kapo.wait_for_stdout("said\n");
        let status = kapo.status();
        assert_eq!((&status["StatusText"], &status["Ready"]), (&json!("by a child"), &json!(true)));
    } else {
        eprintln!("skipped: there is no systemd-notify");
    }
}

#[test]
fn descriptors_in_datagrams_are_closed() {
    let mut gate = Gate::new();
    let script = "
for n in range(200):
    fds = [os.dup(0) for _ in range(100)]
    say_with('FDSTORE=1\\nSTATUS=%d' % n, fds)
    for fd in fds: os.close(fd)
print('sent', flush=True)
wait()
";
    let mut kapo = Kapo::launch(notifying(&[], speaks(&gate, script))).listening();
    let before = crate::tools::descriptors(kapo.pid()).len();
    kapo.wait_for_stdout("sent\n");
    kapo.wait_for_status("the last words", |status| status["StatusText"] == "199");
    let after = crate::tools::descriptors(kapo.pid()).len();
    // 20,000 were sent. At the first count the command may not run yet, which takes a few.
    assert!(after <= before + 10, "{before} descriptors have become {after}");
    gate.open();
    kapo.expect_exit(0);
}

#[test]
fn huge_and_binary_messages_do_no_harm() {
    let mut gate = Gate::new();
    let script = "
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
say(b'READY=1\\n' + b'x' * 100000)
say(b'STATUS=' + b'y' * 3000)
wait(); say(bytes(range(256)) * 10)
say(b''); say(b'\\n\\n'); say(b'='); say(b'\\0'); say(b'READY=1\\0'); say(b'READY=10'); say(b' READY=1')
say(b'WATCHDOG_USEC=99999999999999999999999\\nWATCHDOG_USEC=-1\\nWATCHDOG_USEC=')
say(b'STATUS=\\xff\\x1b[31m\\r\"<script>\\xe4')
wait(); say('STATUS=\\nREADY=1'); wait()
";
    let kapo = Kapo::launch(notifying(&[], speaks(&gate, script))).listening();
    let status = kapo.wait_for_status("a long text", |s| s["StatusText"].as_str().unwrap().starts_with('y'));
    assert_eq!(status["StatusText"], "y".repeat(1024));
    assert_eq!(status["Ready"], false, "a datagram of more than 4096 bytes is dropped");
    gate.open();
    let text = "\u{fffd} [31m \"<script>\u{fffd}";
    let status = kapo.wait_for_status("a text that is none", |status| status["StatusText"] == text);
    assert_eq!((&status["Ready"], &status["Status"]), (&json!(false), &json!("running")));
    gate.open();
    kapo.wait_for_status("it is ready", |s| s["Ready"] == true && s["StatusText"] == "");
}

/// Sends to the NOTIFY_SOCKET of another process.
const STRANGER: &str = "
import os, socket, sys
address = '\\0' + sys.argv[1][1:] if sys.argv[1][0] == '@' else sys.argv[1]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if len(sys.argv) > 2: os.setgid(65534); os.setuid(65534)
for _ in range(20): sock.sendto(b'READY=1\\nSTATUS=lies\\nWATCHDOG=trigger', address)
";

#[test]
fn only_datagrams_of_descendants_count() {
    let mut gate = Gate::new();
    let script = "
print(os.environ['NOTIFY_SOCKET'], flush=True)
wait(); say('STATUS=true')
wait()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        # Its parent ends: an orphan of the command.
        while os.getppid() != int(sys.argv[2]): time.sleep(0.01)
        say('STATUS=by an orphan\\nREADY=1')
        time.sleep(60)
    os._exit(0)
os.wait()
wait()
";
    let mut words = vec![
        "--".to_owned(),
        "sh".to_owned(),
        "-c".to_owned(),
        "exec \"$@\" $PPID".to_owned(),
        "sh".to_owned(),
    ];
    words.extend(speaks(&gate, script));
    let mut kapo = Kapo::launch(notifying(&["--watchdog", "1h"], words)).listening();
    kapo.wait_for_stdout("\n");
    let address = kapo.stdout().trim().to_owned();
    let lies = |more: &[&str]| {
        let mut stranger = Command::new("python3");
        assert!(stranger.args(["-c", STRANGER, &address]).args(more).status().unwrap().success());
    };
    lies(&[]);
    if is_root() {
        lies(&["as nobody"]);
    }
    // Datagrams that were sent earlier are read earlier.
    gate.open();
    let status = kapo.wait_for_status("a true word", |status| status["StatusText"] != "");
    assert_eq!((&status["StatusText"], &status["Ready"]), (&json!("true"), &json!(false)));
    assert_eq!(status["Status"], "running");
    gate.open();
    let status = kapo.wait_for_status("the orphan's word", |status| status["StatusText"] != "true");
    assert_eq!((&status["StatusText"], &status["Ready"]), (&json!("by an orphan"), &json!(true)));
    assert!(lives(kapo.command_pid()));
    gate.open();
}

#[test]
fn datagrams_right_before_the_end_are_read() {
    for _ in 0..20 {
        let gate = Gate::new();
        let script = "
for n in range(40): say('STATUS=%d' % n)
say('STATUS=last words\\nERRNO=5')
os._exit(9)
";
        let manager = Manager::with_a_path();
        let mut command = notifying(&["--wait", "1m"], speaks(&gate, script));
        command.env("NOTIFY_SOCKET", &manager.address);
        let kapo = Kapo::launch(command).listening();
        let drain = std::thread::spawn(move || manager.read_until("ERRNO=5"));
        let status = kapo.wait_for_status("its end", |status| status["ExitCode"] == 9);
        assert_eq!(status["StatusText"], "last words");
        drain.join().unwrap();
    }
}

#[test]
fn ready_survives_many_datagrams_to_a_slow_manager() {
    let gate = Gate::new();
    let manager = Manager::with_a_path();
    let stuffing = UnixDatagram::unbound().unwrap();
    stuffing.set_nonblocking(true).unwrap();
    while stuffing.send_to(b"X=1", &manager.address).is_ok() {}
    let script = "
for n in range(100): say('STATUS=%d' % n)
say('READY=1'); say('STATUS=last'); wait()
";
    let mut command = notifying(&[], speaks(&gate, script));
    command.env("NOTIFY_SOCKET", &manager.address);
    let kapo = Kapo::launch(command).listening();
    kapo.wait_for_status("its last words", |status| status["StatusText"] == "last");
    let pid = kapo.command_pid();
    let heard = manager.read_until(&format!("STATUS=running, pid {pid}: last"));
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
}

#[test]
fn each_run_begins_unready_and_without_status_text() {
    let mut gate = Gate::new();
    let script = "wait(); say('READY=1\\nSTATUS=hello'); wait(); os._exit(1)";
    let words = ["supervise", "--notify", "--wait", "10ms"].map(str::to_owned);
    let kapo = Kapo::start(words.into_iter().chain(speaks(&gate, script)));
    for run in 0..3 {
        let status = kapo.wait_for_status("a run", |s| s["Restarts"] == run && s["Status"] == "running");
        assert_eq!((&status["Ready"], &status["StatusText"]), (&json!(false), &json!("")));
        gate.open();
        kapo.wait_for_status("it is ready", |s| s["Ready"] == true && s["StatusText"] == "hello");
        gate.open();
    }
}

#[test]
fn ready_is_not_dropped_for_other_messages() {
    let gate = Gate::new();
    let manager = Manager::with_a_path();
    let stuffing = UnixDatagram::unbound().unwrap();
    stuffing.set_nonblocking(true).unwrap();
    while stuffing.send_to(b"X=1", &manager.address).is_ok() {}
    let script = "
for n in range(40): say('ERRNO=%d' % n)
say('READY=1\\nSTATUS=up'); wait()
";
    let mut command = notifying(&[], speaks(&gate, script));
    command.env("NOTIFY_SOCKET", &manager.address);
    let kapo = Kapo::launch(command).listening();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
    let pid = kapo.command_pid();
    let heard = manager.read_until(&format!("STATUS=running, pid {pid}: up"));
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
}

#[test]
fn a_message_with_kapo_s_own_pid_is_accepted() {
    if !is_root() {
        eprintln!("skipped: only root can send the pid of another process");
        return;
    }
    // The datagram of systemd-notify if it runs as root and its parent is kapo.
    let script = "
import struct
ready = struct.pack('3i', int(sys.argv[2]), os.getuid(), os.getgid())
sock.sendmsg([b'READY=1'], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ready)], 0, address)
wait()
";
    let gate = Gate::new();
    let mut words = ["--", "sh", "-c", "exec \"$@\" $PPID", "sh"].map(str::to_owned).to_vec();
    words.extend(speaks(&gate, script));
    let kapo = Kapo::launch(notifying(&[], words)).listening();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
}

#[test]
fn a_long_status_is_cut_at_a_character_boundary() {
    let gate = Gate::new();
    let script = "say('STATUS=x' + 'é' * 1000); wait()";
    let kapo = Kapo::launch(notifying(&[], speaks(&gate, script))).listening();
    let status = kapo.wait_for_status("its text", |status| status["StatusText"] != "");
    assert_eq!(status["StatusText"], format!("x{}", "é".repeat(511)));
}
