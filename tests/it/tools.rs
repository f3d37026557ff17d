//! What the tests of the modes share: connections that stay, streams of events, gates that commands wait at, programs
//! with names of their own, and what /proc tells of a running kapo.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, Kapo, LIMIT, clean, now, process_state, wait_for};

/// A connection that is kept for one request after the other.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    /// Connects.
    pub(crate) fn to(kapo: &Kapo) -> Line {
        Line::of(kapo.connect())
    }

    /// Takes a connection over.
    pub(crate) fn of(stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Line(BufReader::new(stream))
    }

    /// Asks and does not wait for the answer.
    pub(crate) fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The next answer, as long as its Content-Length says.
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

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, path: &str) -> Answer {
        self.send(path);
        self.answer()
    }

    /// Whether nothing has come so far.
    pub(crate) fn is_silent(&mut self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        nothing
    }

    /// All that comes until the end.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}

/// The documents of /events, one after the other: nothing that happens between two questions is missed.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    /// Begins with the document of now.
    pub(crate) fn of(kapo: &Kapo) -> Events {
        let mut stream = kapo.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        Events(BufReader::new(stream))
    }

    /// The first object of the next document; `None` once the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let (mut line, start) = (String::new(), now());
        loop {
            line.clear();
            // The comments of a silent stream keep the time-out of the socket from passing.
            assert!(start.elapsed() < LIMIT, "waited in vain for a document");
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let mut document: Value = serde_json::from_str(data).unwrap();
                return Some(document[0].take());
            }
        }
    }

    /// The next one that is as wanted.
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

/// Where commands wait, one line each, until the test lets one pass: `read x < "$0"` in a shell.
pub(crate) struct Gate {
    _folder: TempDir,
    path: String,
    file: File,
}

impl Gate {
    /// A pipe that is open at both ends, so that nobody is held up by opening it.
    pub(crate) fn new() -> Gate {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("gate");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Gate { _folder: folder, path: path.to_str().unwrap().to_owned(), file }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Lets one pass.
    pub(crate) fn open(&mut self) {
        self.file.write_all(b"\n").unwrap();
    }
}

/// A folder of programs whose names nobody else's processes have.
pub(crate) struct Programs(TempDir);

impl Programs {
    /// Empty.
    pub(crate) fn new() -> Programs {
        Programs(TempDir::new().unwrap())
    }

    /// A program under another name. It is a link: a copy that this process writes could not be executed while another
    /// thread's child has it open.
    pub(crate) fn named(&self, program: &str, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::os::unix::fs::symlink(program, &path).unwrap();
        path
    }

    /// A script, written by another process for the same reason.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        assert!(Command::new("sh").arg("-c").arg(write).arg(&path).arg(text).status().unwrap().success());
        path
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// A name that no other process has: short enough that the kernel keeps it whole.
pub(crate) fn unique(tag: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{tag}{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A process beside kapo, which ends with the test, and its whole group with it.
pub(crate) struct Stranger {
    child: Child,
    say: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Stranger {
    /// Starts it in a group of its own.
    pub(crate) fn start(mut command: Command) -> Stranger {
        use std::os::unix::process::CommandExt;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // spawn returns before the kernel has set the new name and arguments, and a scan in between would not know it.
        wait_for("its exec is complete", || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
                || process_state(pid) == Some('Z')
        });
        let (say, hear) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Stranger { child, say, hear }
    }

    /// `sh -c SCRIPT WORDS`
    pub(crate) fn shell(script: &str, words: &[&str]) -> Stranger {
        let mut command = clean("sh");
        command.args(["-c", script]).args(words);
        Stranger::start(command)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Reads a line of its stdout.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until it has ended, and reaps it.
    pub(crate) fn reap(&mut self) -> std::process::ExitStatus {
        drop(self.say.take());
        self.child.wait().unwrap()
    }

    /// Kills it and all that it started.
    pub(crate) fn kill_all(&self) {
        // Whoever is gone already needs no signal.
        let _ = kapo::sys::signal::send(-self.pid(), 9);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.kill_all();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the open descriptors of a process are.
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

/// KiB of memory that are a process's own.
pub(crate) fn private_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How often a process has gone to sleep, which is as often as it was woken.
pub(crate) fn sleeps(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Fails when a process wakes within a second. What it was doing before may come to its end first.
#[expect(clippy::disallowed_methods, reason = "that nothing happens can only be seen in time")]
pub(crate) fn sees_no_wake_up(pid: i32) {
    let mut before = sleeps(pid);
    wait_for("it sleeps", || {
        std::thread::sleep(Duration::from_millis(100));
        let resting = process_state(pid) == Some('S') && sleeps(pid) == before;
        before = sleeps(pid);
        resting
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sleeps(pid), before, "nobody wakes it");
}

/// Seconds since 1970, with their fraction, of a time in the document.
pub(crate) fn seconds(time: &Value) -> f64 {
    let text = time.as_str().unwrap();
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days before the month, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let whole = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    let fraction = text[19..].trim_end_matches('Z');
    let fraction = if fraction.is_empty() { 0.0 } else { format!("0{fraction}").parse().unwrap() };
    #[expect(clippy::cast_precision_loss, reason = "53 bits hold them to the microsecond")]
    let whole = whole as f64;
    whole + fraction
}

/// Whether this kernel tells how a process ended that is not one's own child (Linux 6.15).
pub(crate) fn kernel_tells_of_strangers() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// Whether the tests may become other users and make namespaces.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `unshare WORDS` works on this machine; says so when it does not.
pub(crate) fn can_unshare(words: &[&str]) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(words).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let works = probe.status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: `unshare {} true` does not work here", words.join(" "));
    }
    works
}
