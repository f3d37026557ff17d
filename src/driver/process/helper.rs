//! Programs that kapo starts beside the command: the checks of `--probe exec:`.
//!
//! A helper has a process group of its own, the environment and the working directory of the command, and a time limit,
//! after which its group gets SIGKILL. It is reaped like any child of kapo, but is neither logged nor counted as an
//! orphan, and its usage is not part of the command's. The end of the helper is the end of its process: what it has
//! left in its group is killed then, and its pipe is closed.
//!
//! 1. [`Helpers::start`] starts one under a key that the caller chooses; `is_running` says whether the last one with
//!    this key is still there, because a process in an uninterruptible sleep outlives its time limit.
//! 2. The job calls [`Helpers::read`] if [`Source::Helper`] is ready, [`Helpers::reaped`] for each child that has
//!    ended, and [`Helpers::expire`] at [`Helpers::deadline`].
//! 3. [`Helpers::take_ends`] returns the result of each helper once.
//! 4. [`Helpers::kill_keys`] ends some of them early, and [`Helpers::kill_all`] ends them together with kapo. A helper that must outlive kapo uses setsid(1).
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::driver::poll::{Epoll, Source};
use crate::driver::process::program::{Program, Start};
use crate::error::reason;
use crate::logic::output::last_line::LastLine;
use crate::logic::{Exit, Now};
use crate::signal::Signal;
use crate::sys;

/// The longest time limit.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// The size of one read, and how many reads one turn makes, so that a helper that never stops writing does not starve
/// the other sources.
const CHUNK: usize = 4 * 1024;
const READS: usize = 16;

/// The properties that each child of kapo gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// Proof that all signals are blocked.
    pub blocked: sys::signal::AllBlocked,
    /// CHLD was ignored when kapo was started.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE before kapo changed its own limit.
    pub open_files: Option<(u64, u64)>,
    /// The working directory of the command, if kapo has left it.
    pub directory: Option<&'a CStr>,
}

/// A helper to start.
#[derive(Debug)]
pub(crate) struct HelperRequest<'a> {
    /// The program, which is searched in PATH, and its arguments.
    pub words: &'a [OsString],
    /// Additional environment variables, as `NAME=value`.
    pub set: &'a [CString],
    /// What the helper reads from stdin.
    pub input: &'a [u8],
    /// Whether the last line of the output is kept; otherwise the output goes to kapo's stderr.
    pub keep_output: bool,
    /// How long the helper may run.
    pub timeout: Duration,
}

/// The result of a helper.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HelperEnd {
    /// The key given to [`Helpers::start`].
    pub key: usize,
    /// `None`: the time limit has passed.
    pub exit: Option<Exit>,
    /// The last line of the output, if it is kept.
    pub last_line: String,
}

#[derive(Debug)]
struct Helper {
    key: usize,
    pid: i32,
    /// When its time is up; `None` once it was killed.
    deadline: Option<Instant>,
    /// The read end of its output.
    output: Option<OwnedFd>,
    last_line: LastLine,
}

/// All helpers that are not reaped yet.
#[derive(Debug, Default)]
pub(crate) struct Helpers {
    running: Vec<Helper>,
    ends: Vec<HelperEnd>,
    /// The last hook of `--on`.
    hook: Option<i32>,
    /// The CPU time of the helpers that were reaped.
    cpu: Duration,
}

impl Helpers {
    /// The key of the hooks of `--on`.
    pub(crate) const HOOK: usize = usize::MAX;

    /// Starts a helper. Returns the reason if that is not possible.
    pub(crate) fn start(
        &mut self,
        now: Now,
        epoll: &Epoll,
        surroundings: Surroundings<'_>,
        key: usize,
        request: &HelperRequest<'_>,
    ) -> Result<(), String> {
        let (pid, output) = spawn(surroundings, request)?;
        if key == Helpers::HOOK {
            self.hook = Some(pid);
        }
        if let Some(output) = &output {
            // Without this registration the output is read at the end only, and a full pipe stops the helper until its
            // time limit.
            let _ = epoll.add(output, Source::Helper, EventFlags::IN);
        }
        // A helper without a deadline counts as killed, so a time beyond the range of the clock becomes 136 years.
        let deadline = now.mono.checked_add(request.timeout).or(now.mono.checked_add(LONGEST));
        self.running.push(Helper { key, pid, deadline, output, last_line: LastLine::default() });
        Ok(())
    }

    /// Kills the helpers with these keys; they have no result.
    pub(crate) fn kill_keys(&mut self, keys: Range<usize>) {
        self.ends.retain(|end| !keys.contains(&end.key));
        self.running.iter_mut().filter(|helper| keys.contains(&helper.key)).for_each(Helper::kill);
    }

    /// Whether the process of the last helper with this key still exists.
    pub(crate) fn is_running(&self, key: usize) -> bool {
        self.running.iter().any(|helper| helper.key == key)
    }

    /// Whether a process of the last hook still exists. What a hook has left in its group was killed and becomes a child
    /// of kapo, but the kernel may need some time to end it.
    pub(crate) fn is_hook_running(&self) -> bool {
        self.is_running(Helpers::HOOK) || self.hook.is_some_and(sys::wait::group_has_child)
    }

    /// Reads the output that is available.
    pub(crate) fn read(&mut self) {
        self.running.iter_mut().for_each(Helper::read);
    }

    /// Takes note of a child that was reaped. Returns false if it was not a helper.
    pub(crate) fn reaped(&mut self, pid: i32, exit: Exit, cpu: Duration) -> bool {
        let Some(at) = self.running.iter().position(|helper| helper.pid == pid) else { return false };
        let mut helper = self.running.swap_remove(at);
        self.cpu += cpu;
        // Its number is not reused while it names a group that has members, so only the helper's group can be hit.
        if sys::wait::group_has_child(pid) {
            let _ = sys::signal::send(-pid, i32::from(Signal::KILL.number()));
        }
        if helper.deadline.is_some() {
            helper.read();
            self.ends.push(helper.end(Some(exit)));
        }
        true
    }

    /// Returns when [`Helpers::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.running.iter().filter_map(|helper| helper.deadline).min()
    }

    /// Kills the helpers whose time is up. They have ended for the caller, even if the kernel cannot end them yet.
    pub(crate) fn expire(&mut self, now: Now) {
        for helper in &mut self.running {
            if helper.deadline.is_some_and(|at| at <= now.mono) {
                helper.read();
                helper.kill();
                self.ends.push(helper.end(None));
            }
        }
    }

    /// Returns the helpers that have ended since the last call.
    pub(crate) fn take_ends(&mut self) -> Vec<HelperEnd> {
        self.ends.extract_if(.., |end| end.key != Helpers::HOOK).collect()
    }

    /// Returns a hook that has ended.
    pub(crate) fn take_hook_end(&mut self) -> Option<HelperEnd> {
        let at = self.ends.iter().position(|end| end.key == Helpers::HOOK)?;
        Some(self.ends.swap_remove(at))
    }

    /// Ends the time limit of a helper now.
    pub(crate) fn cut_short(&mut self, now: Now, key: usize) {
        for helper in self.running.iter_mut().filter(|helper| helper.key == key) {
            helper.deadline = helper.deadline.map(|at| at.min(now.mono));
        }
    }

    /// Kills all helpers, because kapo ends.
    pub(crate) fn kill_all(&mut self) {
        self.running.iter_mut().for_each(Helper::kill);
    }

    /// Whether this process belongs to a helper, so that it does not count as a process of the command.
    pub(crate) fn has(&self, pid: i32) -> bool {
        !self.running.is_empty() && {
            let group = sys::group::of(pid);
            self.running.iter().any(|helper| helper.pid == pid || Some(helper.pid) == group)
        }
    }

    /// Returns the CPU time of all helpers that were reaped.
    pub(crate) fn cpu(&self) -> Duration {
        self.cpu
    }
}

impl Helper {
    fn read(&mut self) {
        let mut chunk = [0; CHUNK];
        for _ in 0..READS {
            let Some(output) = &self.output else { return };
            match rustix::io::read(output, &mut chunk) {
                Ok(0) => self.output = None,
                Ok(length) => self.last_line.push(chunk.get(..length).unwrap_or_default()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn kill(&mut self) {
        // The process is not reaped yet, so its number belongs to it. It may have changed its group.
        for whom in [-self.pid, self.pid] {
            let _ = sys::signal::send(whom, i32::from(Signal::KILL.number()));
        }
        self.deadline = None;
        self.output = None;
    }

    fn end(&self, exit: Option<Exit>) -> HelperEnd {
        HelperEnd { key: self.key, exit, last_line: self.last_line.text() }
    }
}

/// Starts the program. Returns its pid and the read end of its output.
fn spawn(
    surroundings: Surroundings<'_>,
    request: &HelperRequest<'_>,
) -> Result<(i32, Option<OwnedFd>), String> {
    let path = sys::environment::value("PATH");
    let (command, arguments) = request.words.split_first().ok_or("no program")?;
    let mut program = Program::new(command, arguments, path.as_deref()).map_err(|error| error.to_string())?;
    if let Some(directory) = surroundings.directory {
        program.starts_in(directory.to_owned());
    }
    let failed = |errno: rustix::io::Errno| reason(&errno.into());
    let stdin = input(request.input).map_err(failed)?;
    let (read, write) = match request.keep_output {
        true => pipe().map(|(read, write)| (Some(read), Some(write))).map_err(failed)?,
        false => (None, None),
    };
    let output = write.as_ref().map_or(rustix::stdio::stderr(), AsFd::as_fd);
    let pid = program.start(&Start {
        stdin: Some(stdin.as_fd()),
        stdout: Some(output),
        stderr: Some(output),
        terminal: None,
        blocked: surroundings.blocked,
        ignore_chld: surroundings.ignore_chld,
        open_files: surroundings.open_files,
        set: request.set,
        pid_variable: None,
        new_session: false,
        death_signal: Some(Signal::KILL),
    });
    pid.map(|pid| (pid, read)).map_err(|failure| match failure.error.kind() {
        io::ErrorKind::NotFound => format!("{} not found", OsStr::to_string_lossy(command)),
        _ => reason(&failure.error),
    })
}

/// Returns a pipe whose read end does not block.
fn pipe() -> Result<(OwnedFd, OwnedFd), rustix::io::Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// Returns a file to read `bytes` from. Writing them to a pipe could block.
fn input(bytes: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    if bytes.is_empty() {
        return rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    }
    let file = rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::event_loop::clock;
    use crate::sys::wait::{WaitStatus, next_change};

    /// Runs `script` with this time limit in seconds, and returns its end and the helpers after it.
    fn run(script: &str, input: &[u8], limit: u64) -> (HelperEnd, Helpers) {
        let words: Vec<OsString> = ["sh", "-c", script].map(OsString::from).to_vec();
        let request = HelperRequest {
            words: &words,
            set: &[c"EVENT=ended".to_owned()],
            input,
            keep_output: true,
            timeout: Duration::from_secs(limit),
        };
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut epoll = Epoll::new().unwrap();
        let mut helpers = Helpers::default();
        let surroundings = Surroundings {
            blocked: sys::signal::block_all().unwrap(),
            ignore_chld: false,
            open_files: None,
            directory: Some(c"/tmp"),
        };
        helpers.start(clock(), &epoll, surroundings, 7, &request).unwrap();
        assert!(helpers.is_running(7) && !helpers.is_running(8));
        let mut events = mio::Events::with_capacity(8);
        loop {
            epoll.wait(&mut events, Some(Duration::from_millis(5)));
            helpers.read();
            helpers.expire(clock());
            if let Some(end) = reap(&mut helpers).or_else(|| helpers.take_ends().pop()) {
                return (end, helpers);
            }
        }
    }

    fn reap(helpers: &mut Helpers) -> Option<HelperEnd> {
        while let Some(change) = next_change(false) {
            let exit = match change.status {
                WaitStatus::Exited(code) => Exit::Code(u8::try_from(code).unwrap()),
                _ => Exit::Signal { signal: Signal::KILL, core_dumped: false },
            };
            helpers.reaped(change.pid, exit, change.user);
        }
        helpers.take_ends().pop()
    }

    fn ended(code: u8, line: &str) -> HelperEnd {
        HelperEnd { key: 7, exit: Some(Exit::Code(code)), last_line: line.to_owned() }
    }

    #[test]
    fn a_time_limit_beyond_the_clock_is_no_end() {
        assert_eq!(run("echo done", b"", u64::MAX).0, ended(0, "done"));
    }

    #[test]
    fn a_helper_has_its_group_directory_variable_and_input() {
        let (end, _) = run("test $(cut -d' ' -f5 /proc/$$/stat) = $$; echo $? $PWD $EVENT $(cat)", b"in", 60);
        assert_eq!(end, ended(0, "0 /tmp ended in"));
        assert_eq!(run("cat; echo bad >&2; exit 3", b"", 60).0, ended(3, "bad"));
    }

    #[test]
    fn ten_megabytes_of_output_neither_block_nor_stay() {
        let (end, _) = run("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo last", b"", 60);
        assert_eq!(end, ended(0, "last"));
    }

    #[test]
    fn a_hanging_helper_is_killed_and_ends_once() {
        let (end, mut helpers) = run("echo slow; sleep 1000", b"", 0);
        assert_eq!((end.key, end.exit), (7, None));
        // The first process is gone when the kill of its group has been carried out.
        while helpers.is_running(7) {
            assert_eq!(reap(&mut helpers), None);
        }
        assert_eq!(helpers.deadline(), None);
    }

    #[test]
    fn what_a_helper_leaves_is_killed_and_its_pipe_closed() {
        let (end, helpers) = run("sleep 1000 & echo $!", b"", 60);
        let left: i32 = end.last_line.parse().unwrap();
        assert_eq!((end, helpers.running.len()), (ended(0, &left.to_string()), 0));
        // It may have been reaped already, together with the helper.
        let left = rustix::process::Pid::from_raw(left).unwrap();
        while rustix::process::test_kill_process(left).is_ok() {
            next_change(false);
        }
    }

    #[test]
    fn a_missing_program_is_a_reason() {
        let request = HelperRequest {
            words: &["no-such".into()],
            set: &[],
            input: b"",
            keep_output: true,
            timeout: Duration::ZERO,
        };
        let surroundings = Surroundings {
            blocked: sys::signal::block_all().unwrap(),
            ignore_chld: false,
            open_files: None,
            directory: None,
        };
        let epoll = Epoll::new().unwrap();
        let failure = Helpers::default().start(clock(), &epoll, surroundings, 1, &request);
        assert_eq!(failure, Err("no-such not found".to_owned()));
    }
}
