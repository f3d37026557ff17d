//! Helpers that several tests share: persistent connections, event streams, gates at which commands wait, programs
//! with unique names, and facts about a running kapo from /proc.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, Kapo, LIMIT, clean, now, process_state, wait_for};

/// A persistent connection for several requests.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    /// Opens a connection.
    pub(crate) fn to(kapo: &Kapo) -> Line {
        Line::of(kapo.connect())
    }

    /// Wraps an open connection.
    pub(crate) fn of(stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Line(BufReader::new(stream))
    }

    /// Sends a request without waiting for the answer.
    pub(crate) fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Reads the next answer up to its Content-Length.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let read = self.0.read_until(b'\n', &mut bytes).unwrap();
            assert_ne!(read, 0, "the end after {:?}", String::from_utf8_lossy(&bytes));
        }
        let mut answer = Answer::parse(&bytes);
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Sends a request and reads the answer.
    pub(crate) fn ask(&mut self, path: &str) -> Answer {
        self.send(path);
        self.answer()
    }

    /// Whether nothing has arrived so far.
    pub(crate) fn is_silent(&mut self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        nothing
    }

    /// Reads everything up to the end.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}

/// The documents of /events. No change between two reads is missed.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens the stream, which begins with the current document.
    pub(crate) fn of(kapo: &Kapo) -> Events {
        let mut stream = kapo.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        Events(BufReader::new(stream))
    }

    /// Returns the first object of the next document; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let (mut line, start) = (String::new(), now());
        loop {
            line.clear();
            // The comments of a silent stream keep the read timeout from expiring.
            assert!(start.elapsed() < LIMIT, "timed out waiting for a document");
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let mut document: Value = serde_json::from_str(data).unwrap();
                return Some(document[0].take());
            }
        }
    }

    /// Returns the next document that meets the condition.
    pub(crate) fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let start = now();
        loop {
            let status = self.next().unwrap_or_else(|| panic!("the stream ended before {what}"));
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "waited in vain until {what}: {status}");
        }
    }
}

/// A gate at which commands wait, in a shell with `read x < "$0"`. Each opening lets one command pass.
pub(crate) struct Gate {
    _folder: TempDir,
    path: String,
    file: File,
}

impl Gate {
    /// Creates a FIFO that is open at both ends, so that opening it never blocks.
    pub(crate) fn new() -> Gate {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("gate");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Gate { _folder: folder, path: path.to_str().unwrap().to_owned(), file }
    }

    /// Returns the path of the FIFO.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Lets one command pass.
    pub(crate) fn open(&mut self) {
        self.file.write_all(b"\n").unwrap();
    }
}

/// A directory of programs whose names no process outside of the tests has.
pub(crate) struct Programs(TempDir);

impl Programs {
    /// Creates an empty directory.
    pub(crate) fn new() -> Programs {
        Programs(TempDir::new().unwrap())
    }

    /// Adds a program under another name. It is a link, because a copy that this process has written could not be
    /// executed while a child of another thread holds it open.
    pub(crate) fn named(&self, program: &str, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::os::unix::fs::symlink(program, &path).unwrap();
        path
    }

    /// Adds a script. Another process writes it, for the same reason.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        assert!(Command::new("sh").arg("-c").arg(write).arg(&path).arg(text).status().unwrap().success());
        path
    }

    /// Returns the directory.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// Returns a name that no other process has, and that is short enough for comm.
pub(crate) fn unique(tag: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{tag}{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A process beside kapo. At the end of the test its whole process group is killed.
pub(crate) struct OtherProcess {
    child: Child,
    say: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl OtherProcess {
    /// Starts the process in its own process group.
    pub(crate) fn start(mut command: Command) -> OtherProcess {
        use std::os::unix::process::CommandExt;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // spawn returns before the kernel has set the new name and arguments, so a scan at that moment would not
        // match.
        wait_for("its exec is complete", || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
                || process_state(pid) == Some('Z')
        });
        let (say, hear) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        OtherProcess { child, say, hear }
    }

    /// Starts `sh -c SCRIPT WORDS`.
    pub(crate) fn shell(script: &str, words: &[&str]) -> OtherProcess {
        let mut command = clean("sh");
        command.args(["-c", script]).args(words);
        OtherProcess::start(command)
    }

    /// Returns its pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Reads a line of its stdout.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for its end and reaps it.
    pub(crate) fn reap(&mut self) -> std::process::ExitStatus {
        drop(self.say.take());
        self.child.wait().unwrap()
    }

    /// Kills the process group.
    pub(crate) fn kill_all(&self) {
        // A process that is gone needs no signal.
        let _ = kapo::sys::signal::send(-self.pid(), 9);
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        self.kill_all();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the targets of the open descriptors of a process.
pub(crate) fn descriptors(pid: i32) -> Vec<String> {
    let names = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = names.filter_map(|name| {
        let path = name.unwrap().path();
        let number = path.file_name()?.to_str()?.parse::<u32>().ok()?;
        Some((number, fs::read_link(&path).ok()?.to_string_lossy().into_owned()))
    });
    let mut links: Vec<_> = links.collect();
    links.sort();
    links.into_iter().map(|(number, link)| format!("{number} {link}")).collect()
}

/// Returns the private memory of a process in KiB.
pub(crate) fn private_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns how often a process has gone to sleep, which is once after each wake-up.
pub(crate) fn sleeps(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Checks that a process is not woken for a second, once its current work is finished.
#[expect(clippy::disallowed_methods, reason = "that nothing happens can only be seen in time")]
pub(crate) fn expect_no_wakeup(pid: i32) {
    let mut before = sleeps(pid);
    wait_for("it sleeps", || {
        std::thread::sleep(Duration::from_millis(100));
        let resting = process_state(pid) == Some('S') && sleeps(pid) == before;
        before = sleeps(pid);
        resting
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sleeps(pid), before, "the process was woken");
}

/// Converts a time in the document to seconds since 1970.
pub(crate) fn seconds(time: &Value) -> f64 {
    let text = time.as_str().unwrap();
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // The days before the month, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let whole = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    let fraction = text[19..].trim_end_matches('Z');
    let fraction = if fraction.is_empty() { 0.0 } else { format!("0{fraction}").parse().unwrap() };
    #[expect(clippy::cast_precision_loss, reason = "53 bits hold them to the microsecond")]
    let whole = whole as f64;
    whole + fraction
}

/// Whether this kernel reports the exit of a process that is not a child (Linux 6.15).
pub(crate) fn kernel_reports_exit_of_others() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// Whether the tests may change users and create namespaces.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `unshare WORDS` works on this machine. Prints a note if it does not.
pub(crate) fn can_unshare(words: &[&str]) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(words).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let works = probe.status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: `unshare {} true` does not work here", words.join(" "));
    }
    works
}

/// Requests /livez on a connection and returns the whole answer.
pub(crate) fn ask_livez(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until all but one of six kapos on one path have exited with 125, and returns the one that serves.
pub(crate) fn the_one_that_serves(mut kapos: Vec<Child>, round: usize) -> Child {
    let mut refused = Vec::new();
    wait_for("five are refused", || {
        kapos.retain_mut(|kapo| match kapo.try_wait().unwrap() {
            Some(ended) => {
                refused.push(ended.code());
                false
            }
            None => true,
        });
        refused.len() >= 5
    });
    assert_eq!((kapos.len(), refused), (1, vec![Some(125); 5]), "round {round}");
    kapos.pop().unwrap()
}
