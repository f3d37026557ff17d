//! Runs one kapo under test on its own port, with requests, signals and waits. At the end of the test it and
//! everything that it has started is killed. A failing test prints the command line and its output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Whether the tests were built for an emulated machine (tests/real/kernels.sh), in which a program may take seconds
/// to start.
pub(crate) const EMULATED: bool = option_env!("KAPO_TEST_EMULATED").is_some();

/// The timeout of a condition. Only a failing test reaches it.
pub(crate) const LIMIT: Duration = Duration::from_secs(if EMULATED { 150 } else { 30 });

/// Returns the program: the one in `KAPO_BIN`, or the one that cargo has built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("KAPO_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kapo")), PathBuf::from)
}

/// Returns a command with the environment of all tests, which has no variable for kapo.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_of_ours = name.to_string_lossy();
        let for_kapo =
            ["KAPO_", "LISTEN_", "WATCHDOG_"].iter().any(|prefix| name_of_ours.starts_with(prefix));
        if for_kapo || name == "NOTIFY_SOCKET" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Returns kapo with these arguments and nothing else.
pub(crate) fn kapo<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(binary());
    command.args(words);
    command
}

/// Returns kapo on a port of 127.0.0.1 that the kernel chooses.
pub(crate) fn kapo_on_a_free_port<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(binary());
    command.args(on_a_free_port(words));
    command
}

/// Adds a port of 127.0.0.1 that the kernel chooses, unless the words name an interface.
fn on_a_free_port<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Vec<OsString> {
    let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    let named = words.iter().any(|word| word == "-i" || word == "--interface");
    let default = ["--port", "0", "--interface", "127.0.0.1"].map(OsString::from);
    default.into_iter().filter(|_| !named).chain(words).collect()
}

/// Returns the name of an abstract Unix socket that no other test uses.
pub(crate) fn unused_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("@kapo-it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns kapo that logs only warnings. It listens on a Unix socket, because kapo always logs a port that the kernel
/// has chosen.
pub(crate) fn quiet_kapo<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = kapo(["--quiet", "--interface", &unused_name()]);
    command.args(words);
    command
}

/// Returns `sh`, which runs `preparation` and then executes kapo in the same process.
pub(crate) fn kapo_after<S: AsRef<OsStr>>(preparation: &str, words: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean("sh");
    command.arg("-c").arg(format!("{preparation}\nexec \"$@\"")).arg("sh").arg(binary());
    command.args(on_a_free_port(words));
    command
}

/// Runs `what` in the new process right before it executes the program. `what` may only make system calls.
pub(crate) fn before_exec(
    command: &mut Command,
    what: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> &mut Command {
    // SAFETY: the closures of these tests only make system calls. They neither allocate nor lock.
    #[expect(unsafe_code, reason = "there is no safe way to begin a process with another mask or terminal")]
    unsafe {
        command.pre_exec(what)
    }
}

/// Waits until `condition` holds. Fails after [`LIMIT`].
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait")]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "tests see how long things take")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A parsed answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the fields.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Parses one whole answer.
    pub(crate) fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Returns the value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let wanted = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        let mut lines = self.head.lines().skip(1).filter(wanted);
        let value = lines.next()?.split_once(':')?.1.trim();
        assert_eq!(lines.next(), None, "{name} comes once in {}", self.head);
        Some(value)
    }
}

/// A running kapo.
pub(crate) struct Kapo {
    child: Child,
    pid: i32,
    folder: TempDir,
    words: String,
    ended: Option<ExitStatus>,
    address: Option<SocketAddr>,
}

impl Kapo {
    /// Starts `kapo WORDS` on a free port and returns once it listens.
    pub(crate) fn start<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Kapo {
        Kapo::launch(kapo_on_a_free_port(words)).listening()
    }

    /// Starts a command that may never listen.
    pub(crate) fn launch(mut command: Command) -> Kapo {
        let folder = TempDir::new().unwrap();
        command.stdout(File::create(folder.path().join("stdout")).unwrap());
        command.stderr(File::create(folder.path().join("stderr")).unwrap());
        Kapo::launch_with_its_outputs(command, folder)
    }

    /// Starts a command whose stdout and stderr the test has set up.
    pub(crate) fn launch_with_its_outputs(mut command: Command, folder: TempDir) -> Kapo {
        // The NOTIFY_SOCKET of a killed kapo must not stay in /run.
        let notified = command.get_args().any(|word| word == "--notify");
        if notified && !command.get_envs().any(|(name, _)| name == "RUNTIME_DIRECTORY") {
            command.env("RUNTIME_DIRECTORY", folder.path());
        }
        let child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        Kapo { child, pid, folder, words: format!("{command:?}"), ended: None, address: None }
    }

    /// Waits until the log names the address.
    pub(crate) fn listening(mut self) -> Kapo {
        let mut address = None;
        self.wait_for("it says where it listens", |kapo| {
            address = kapo.addresses().first().and_then(|address| address.parse().ok());
            address.is_some()
        });
        self.address = address;
        self
    }

    /// Returns all addresses in the log.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let log = self.stderr();
        let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let named = complete.lines().filter_map(|line| line.split_once("msg=\"listening\" address="));
        // A name may follow the address: `socket=sidebind`.
        let word = |text: &str| text.split(' ').next().unwrap_or_default().trim_matches('"').to_owned();
        named.map(|(_, address)| word(address)).collect()
    }

    /// Returns the pid of kapo.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sets the pid of kapo, if the launched command only leads to it.
    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Waits until kapo answers at `address`, if the log does not name it.
    pub(crate) fn at(mut self, address: &str) -> Kapo {
        let address: SocketAddr = address.parse().unwrap();
        self.wait_for("it listens", |_| TcpStream::connect(address).is_ok());
        self.address = Some(address);
        self
    }

    /// Returns the address on which kapo listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("the address is known after listening()")
    }

    /// Opens a new connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends `request` on a new connection. Returns everything up to the end of the connection.
    pub(crate) fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|e| panic!("{e} after {answer:?}"));
        answer
    }

    /// Requests `GET path`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path)
    }

    /// Makes a request with any method.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        Answer::parse(&self.exchange(request.as_bytes()))
    }

    /// Returns the only object of the status document.
    pub(crate) fn status(&self) -> Value {
        let answer = self.get("/");
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut document: Value = serde_json::from_str(&answer.body).unwrap();
        document[0].take()
    }

    /// Waits until the status document meets the condition, and returns it.
    pub(crate) fn wait_for_status(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        wait_for(what, || {
            status = self.status();
            wanted(&status)
        });
        status
    }

    /// Returns the pid of the command from the status document.
    pub(crate) fn command_pid(&self) -> i32 {
        let status = self.wait_for_status("the command runs", |status| status["Pid"] != 0);
        i32::try_from(status["Pid"].as_i64().unwrap()).unwrap()
    }

    /// Sends a signal to kapo.
    pub(crate) fn signal(&self, signal: i32) {
        kapo::sys::signal::send(self.pid, signal).unwrap();
    }

    /// Waits as [`wait_for`] does, but fails at once if kapo ends.
    pub(crate) fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&Kapo) -> bool) {
        wait_for(what, || {
            let ended = self.try_wait();
            let holds = condition(self);
            assert!(holds || ended.is_none(), "kapo ended ({ended:?}) before {what}");
            holds
        });
    }

    /// Waits for a text on stdout.
    pub(crate) fn wait_for_stdout(&mut self, text: &str) {
        self.wait_for(&format!("stdout has {text:?}"), |kapo| kapo.stdout().contains(text));
    }

    /// Returns the exit status if kapo has ended.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for the end and compares the exit code.
    pub(crate) fn expect_exit(&mut self, code: i32) {
        let mut ended = None;
        wait_for("kapo ends", || {
            ended = self.try_wait();
            ended.is_some()
        });
        let ended = ended.unwrap();
        assert_eq!(ended.code(), Some(code), "signal {:?}", ended.signal());
    }

    /// Waits for the end, which must be caused by this signal, without a core dump.
    pub(crate) fn expect_signal(&mut self, signal: i32) {
        wait_for("kapo ends", || self.try_wait().is_some());
        let ended = self.ended.unwrap();
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(signal), false), "{ended:?}");
    }

    /// Returns the current stdout.
    pub(crate) fn stdout(&self) -> String {
        self.said("stdout")
    }

    /// Returns the current stderr.
    pub(crate) fn stderr(&self) -> String {
        self.said("stderr")
    }

    /// Returns the current stdout as bytes.
    pub(crate) fn stdout_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("stdout")).unwrap()
    }

    fn said(&self, stream: &str) -> String {
        let bytes = fs::read(self.folder.path().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Kapo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ran: {}\nended: {:?}", self.words, self.ended);
            eprintln!("--- stdout\n{}--- stderr\n{}---", self.stdout(), self.stderr());
        }
        if self.try_wait().is_none() {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid));
            for child in children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let child: i32 = child;
                // A child that is gone needs no signal.
                let _ = kapo::sys::signal::send(-child, 9);
                let _ = kapo::sys::signal::send(child, 9);
            }
            let _ = kapo::sys::signal::send(self.pid, 9);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end. Returns exit code, stdout and stderr.
pub(crate) fn run_to_the_end(command: Command) -> (Option<i32>, String, String) {
    let mut kapo = Kapo::launch(command);
    let mut ended = None;
    wait_for("it ends", || {
        ended = kapo.try_wait();
        ended.is_some()
    });
    (ended.unwrap().code(), kapo.stdout(), kapo.stderr())
}

/// Returns the value of a line of /proc/PID/status.
pub(crate) fn proc_status(pid: i32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Returns a signal mask of /proc/PID/status, in which bit n-1 is signal n.
pub(crate) fn signal_mask(pid: i32, name: &str) -> u64 {
    let text = proc_status(pid, name).unwrap_or_else(|| panic!("{pid} has no {name}"));
    u64::from_str_radix(&text, 16).unwrap()
}

/// Returns the letter of the state: R, S, T, Z; `None` if there is no such process.
pub(crate) fn process_state(pid: i32) -> Option<char> {
    proc_status(pid, "State")?.chars().next()
}

/// Whether the process exists and has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    process_state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Returns the name that the kernel keeps.
pub(crate) fn command_name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
