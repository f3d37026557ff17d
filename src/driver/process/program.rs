//! The command in the form that execve(2) needs: the files to try, argv, the directory. It is prepared once and started
//! as often as needed.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, FileType, Mode, OFlags};

use crate::error::{Error, one_line};
use crate::signal::Signal;
use crate::sys::spawn;

/// The path that is searched if PATH is not set, as in execvp(3).
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// The interpreter of a script without a `#!` line.
const SHELL: &CStr = c"/bin/sh";

/// The first bytes of a program, as opposed to a script (elf(5)).
const ELF: [u8; 4] = *b"\x7fELF";

/// The variables that the service manager sets for kapo and not for the command.
const UNSET: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// The command, prepared for its starts.
#[derive(Debug)]
pub(crate) struct Program {
    paths: Vec<CString>,
    /// The files were found by searching PATH.
    searched: bool,
    arguments: Vec<CString>,
    /// The directory in which kapo was started, set once kapo has left it.
    directory: Option<CString>,
}

/// The values that may differ from start to start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The stdin of the command; `None`: kapo's own.
    pub stdin: Option<BorrowedFd<'a>>,
    /// The command's end of its stdout pipe.
    pub stdout: Option<BorrowedFd<'a>>,
    /// The command's end of its stderr pipe.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The terminal that becomes the command's controlling terminal.
    pub terminal: Option<BorrowedFd<'a>>,
    /// Proof that all signals are blocked. The command gets the signal mask that kapo was started with.
    pub blocked: crate::sys::signal::AllBlocked,
    /// CHLD was ignored when kapo was started.
    pub ignore_chld: bool,
    /// The RLIMIT_NOFILE that kapo was started with, if kapo has changed its own limit.
    pub open_files: Option<(u64, u64)>,
    /// Additional environment variables, as `NAME=value`.
    pub set: &'a [CString],
    /// The variable that is set to the command's pid.
    pub pid_variable: Option<&'a str>,
    /// Whether the command gets its own session; otherwise it gets its own process group.
    pub new_session: bool,
    /// The signal that the kernel sends to the command when kapo dies.
    pub death_signal: Option<Signal>,
}

impl Program {
    /// Prepares the command. Does not look for the files, because they may appear or disappear before each start.
    pub(crate) fn new(
        command: &OsStr,
        arguments: &[OsString],
        path: Option<&OsStr>,
    ) -> Result<Program, Error> {
        let arguments = arguments.iter().map(OsString::as_os_str);
        let words: Result<Vec<CString>, Error> =
            std::iter::once(command).chain(arguments).map(c_string).collect();
        let name = command.as_bytes();
        let paths = if name.is_empty() {
            // An empty command is not found, as in the shells.
            Vec::new()
        } else if name.contains(&b'/') {
            vec![c_string(command)?]
        } else {
            let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
            let in_folder = |folder: &[u8]| {
                // An empty element of PATH means the working directory.
                let folder = if folder.is_empty() { b"." } else { folder };
                c_string(OsStr::from_bytes(&[folder, b"/", name].concat()))
            };
            path.as_bytes().split(|b| *b == b':').map(in_folder).collect::<Result<_, _>>()?
        };
        Ok(Program { paths, searched: !name.contains(&b'/'), arguments: words?, directory: None })
    }

    /// Starts the command in `directory` from now on, because kapo has left it.
    pub(crate) fn starts_in(&mut self, directory: CString) {
        self.directory = Some(directory);
    }

    /// Returns the directory of the next start, if kapo has left it.
    pub(crate) fn directory(&self) -> Option<&CStr> {
        self.directory.as_deref()
    }

    /// Whether the file exists although the kernel reported ENOENT. Then the missing file is the interpreter in the
    /// first line of a script, or the dynamic loader of a program.
    pub(crate) fn file_exists(&self) -> bool {
        self.paths.iter().any(|path| rustix::fs::access(self.relative_path(path), Access::EXEC_OK).is_ok())
    }

    /// Returns a path of the command relative to kapo's present working directory.
    fn relative_path(&self, path: &CStr) -> Vec<u8> {
        match (&self.directory, path.to_bytes()) {
            (Some(directory), relative) if !relative.starts_with(b"/") => {
                [directory.to_bytes(), b"/", relative].concat()
            }
            (_, path) => path.to_vec(),
        }
    }

    /// Starts the command and returns its pid once the exec has succeeded. Otherwise returns the failed step and its
    /// errno. A search through PATH returns one errno, as execvp(3) does.
    pub(crate) fn start(&self, start: &Start<'_>) -> Result<i32, spawn::SpawnError> {
        let started = self.execute(start, &self.paths, &self.arguments);
        match &started {
            Err(failure) if failure.is_exec_format_error() => {
                let Some(script) = self.script() else { return started };
                let mut words = vec![SHELL.to_owned(), script];
                words.extend(self.arguments.iter().skip(1).cloned());
                // If there is no shell, report the error of the script itself.
                self.execute(start, &[SHELL.to_owned()], &words).or(started)
            }
            _ => started,
        }
    }

    /// Returns the file that the kernel refused to execute, if it may be a script without a `#!` line: execvp(3) runs
    /// such a file with the shell. A program for another architecture is not a script, and the error message of the
    /// shell would be misleading.
    fn script(&self) -> Option<CString> {
        let refused = self.paths.iter().find(|path| {
            let path = self.relative_path(path);
            let is_file = || rustix::fs::stat(&path).map(|stat| FileType::from_raw_mode(stat.st_mode));
            rustix::fs::access(&path, Access::EXEC_OK).is_ok() && is_file() == Ok(FileType::RegularFile)
        })?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.relative_path(refused), flags, Mode::empty()).ok()?;
        let mut head = [0; ELF.len()];
        let is_program = rustix::io::read(&file, &mut head) == Ok(ELF.len()) && head == ELF;
        (!is_program).then(|| refused.clone())
    }

    fn execute(
        &self,
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
            stdin: start.stdin,
            stdout: start.stdout,
            stderr: start.stderr,
            directory: self.directory.as_deref(),
            new_session: start.new_session,
            terminal: start.terminal,
            death_signal: start.death_signal.map_or(0, |signal| i32::from(signal.number())),
            blocked: start.blocked,
            ignore_chld: start.ignore_chld,
            open_files: start.open_files,
        })
    }
}

fn c_string(word: &OsStr) -> Result<CString, Error> {
    CString::new(word.as_bytes())
        .map_err(|_| Error::Usage(format!("'{}' contains a NUL byte", one_line(&word.to_string_lossy()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(command: &str, path: Option<&str>) -> Vec<String> {
        let program = Program::new(OsStr::new(command), &[], path.map(OsStr::new)).unwrap();
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
    fn a_nul_byte_in_the_command_is_rejected() {
        assert!(matches!(Program::new(OsStr::new("a\0b"), &[], None), Err(Error::Usage(_))));
    }
}
