//! The command as the kernel wants it: files to try, argv, directory. Prepared once, started as often as needed.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, FileType, Mode, OFlags};

use crate::config::Job;
use crate::error::Error;
use crate::sys::spawn;

/// What execvp(3) searches when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// What runs a script without a `#!` line.
const SHELL: &CStr = c"/bin/sh";

/// How a program begins, as opposed to a script (elf(5)).
const ELF: [u8; 4] = *b"\x7fELF";

/// What the service manager told kapo is not meant for the command.
const UNSET: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Program {
    paths: Vec<CString>,
    /// PATH was searched for them.
    searched: bool,
    arguments: Vec<CString>,
    /// Where kapo was started, once kapo itself is elsewhere.
    directory: Option<CString>,
}

/// What differs from start to start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The command's ends of its pipes.
    pub stdout: Option<BorrowedFd<'a>>,
    /// The same for stderr.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The terminal that becomes the command's.
    pub terminal: Option<BorrowedFd<'a>>,
    /// All signals are blocked; the command gets the mask of before.
    pub blocked: crate::sys::signal::AllBlocked,
    /// CHLD was ignored when kapo was started.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE that kapo was started with, where kapo has changed its own.
    pub open_files: Option<(u64, u64)>,
    /// `NAME=value` in addition.
    pub set: &'a [CString],
    /// The variable whose value is the command's pid.
    pub pid_variable: Option<&'a str>,
}

impl Program {
    /// Looks up nothing: which of the files exists is seen at the start, as it may change until the next.
    pub(crate) fn new(job: &Job, path: Option<&OsStr>) -> Result<Program, Error> {
        let words: Result<Vec<CString>, Error> =
            std::iter::once(&job.command).chain(&job.arguments).map(|word| c_string(word)).collect();
        let name = job.command.as_bytes();
        let paths = if name.is_empty() {
            // As the shells say: not found.
            Vec::new()
        } else if name.contains(&b'/') {
            vec![c_string(&job.command)?]
        } else {
            let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
            let in_folder = |folder: &[u8]| {
                // An empty element means the working directory.
                let folder = if folder.is_empty() { b"." } else { folder };
                c_string(OsStr::from_bytes(&[folder, b"/", name].concat()))
            };
            path.as_bytes().split(|b| *b == b':').map(in_folder).collect::<Result<_, _>>()?
        };
        Ok(Program { paths, searched: !name.contains(&b'/'), arguments: words?, directory: None })
    }

    /// From now on it is started in `directory`, as kapo has left it.
    pub(crate) fn starts_in(&mut self, directory: CString) {
        self.directory = Some(directory);
    }

    /// Where it is started, once kapo is elsewhere.
    pub(crate) fn directory(&self) -> Option<&CStr> {
        self.directory.as_deref()
    }

    /// Whether there is such a file, after the kernel has said that there is not: then what it misses is the interpreter
    /// that the first line of a script names, or the dynamic loader of a program.
    pub(crate) fn is_there(&self) -> bool {
        self.paths.iter().any(|path| rustix::fs::access(self.seen_from_here(path), Access::EXEC_OK).is_ok())
    }

    /// A path of the command as kapo must name it, which is in another directory by now.
    fn seen_from_here(&self, path: &CStr) -> Vec<u8> {
        match (&self.directory, path.to_bytes()) {
            (Some(directory), relative) if !relative.starts_with(b"/") => {
                [directory.to_bytes(), b"/", relative].concat()
            }
            (_, path) => path.to_vec(),
        }
    }

    /// Starts it; its pid once it has been executed, else which step failed and with what errno. What a search through
    /// PATH has met is one errno in the end, as with execvp(3).
    pub(crate) fn start(&self, job: &Job, start: &Start<'_>) -> Result<i32, spawn::SpawnError> {
        let started = self.execute(job, start, &self.paths, &self.arguments);
        match &started {
            Err(failure) if failure.is_exec_format_error() => {
                let Some(script) = self.script() else { return started };
                let mut words = vec![SHELL.to_owned(), script];
                words.extend(self.arguments.iter().skip(1).cloned());
                // Without a shell what the kernel said of the script is what is wrong.
                self.execute(job, start, &[SHELL.to_owned()], &words).or(started)
            }
            _ => started,
        }
    }

    /// The file that the kernel has refused to execute, if it may be a script without a `#!` line: execvp(3) has it run by
    /// the shell. A program for another machine is no script, and the shell's complaint about it would only mislead.
    fn script(&self) -> Option<CString> {
        let refused = self.paths.iter().find(|path| {
            let path = self.seen_from_here(path);
            let is_file = || rustix::fs::stat(&path).map(|stat| FileType::from_raw_mode(stat.st_mode));
            rustix::fs::access(&path, Access::EXEC_OK).is_ok() && is_file() == Ok(FileType::RegularFile)
        })?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.seen_from_here(refused), flags, Mode::empty()).ok()?;
        let mut head = [0; ELF.len()];
        let is_program = rustix::io::read(&file, &mut head) == Ok(ELF.len()) && head == ELF;
        (!is_program).then(|| refused.clone())
    }

    fn execute(
        &self,
        job: &Job,
        start: &Start<'_>,
        paths: &[CString],
        arguments: &[CString],
    ) -> Result<i32, spawn::SpawnError> {
        spawn::spawn(&spawn::ExecRequest {
            paths,
            searched: self.searched,
            arguments,
            unset: &UNSET,
            set: start.set,
            pid_variable: start.pid_variable,
            stdout: start.stdout,
            stderr: start.stderr,
            directory: self.directory.as_deref(),
            new_session: job.setsid,
            terminal: start.terminal,
            death_signal: job.orphan_signal.map_or(0, |signal| i32::from(signal.number())),
            blocked: start.blocked,
            ignore_chld: start.ignore_chld,
            open_files: start.open_files,
        })
    }
}

fn c_string(word: &OsStr) -> Result<CString, Error> {
    CString::new(word.as_bytes()).map_err(|_| {
        Error::Usage(format!(
            "a word of the command has a NUL byte: {:?}",
            OsString::from(word).to_string_lossy()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(command: &str, path: Option<&str>) -> Vec<String> {
        let job = Job { command: command.into(), ..crate::config::tests::job() };
        let program = Program::new(&job, path.map(OsStr::new)).unwrap();
        program.paths.iter().map(|p| p.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn path_is_searched_as_execvp_does() {
        assert_eq!(paths("true", Some("/bin:/usr/bin")), ["/bin/true", "/usr/bin/true"]);
        assert_eq!(paths("true", Some(":/x:")), ["./true", "/x/true", "./true"]);
        assert_eq!(paths("true", None), ["/usr/local/bin/true", "/bin/true", "/usr/bin/true"]);
        assert_eq!(paths("./true", Some("/bin")), ["./true"]);
        assert_eq!(paths("", Some("/bin")), [""; 0]);
    }

    #[test]
    fn a_nul_byte_in_a_word_is_refused() {
        let job = Job { command: "a\0b".into(), ..crate::config::tests::job() };
        assert!(matches!(Program::new(&job, None), Err(Error::Usage(_))));
    }
}
