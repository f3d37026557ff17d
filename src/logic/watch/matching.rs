//! Decides whether a process matches NAME: by the name of its executable, by its first argument, or by `comm`, the
//! name that the kernel keeps (at most 15 bytes, and a process can change it at any time).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The length of `comm`: TASK_COMM_LEN without the NUL.
const CUT: usize = 15;

/// Everything that the name of a process can be derived from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessNames<'a> {
    /// The name that the kernel keeps.
    pub comm: &'a [u8],
    /// Its arguments, each followed by NUL. At least the first three are complete unless they are very long.
    pub cmdline: &'a [u8],
    /// The target of its exe link; empty if kapo may not read the link.
    pub exe: &'a [u8],
}

/// NAME and the way in which processes are compared with it.
#[derive(Debug)]
pub(crate) struct Rule {
    name: Box<[u8]>,
    /// The path with symbolic links resolved, if NAME is a path. NAME itself is compared as well.
    resolved: Option<Box<[u8]>>,
}

impl Rule {
    /// Creates the rule from NAME and, if NAME is the path of a file, from that path with symbolic links resolved.
    pub(crate) fn new(name: &OsStr, resolved: Option<&OsStr>) -> Rule {
        Rule { name: name.as_bytes().into(), resolved: resolved.map(|path| path.as_bytes().into()) }
    }

    /// Whether `comm` alone is enough for a match. If not, [`Rule::matches`] decides.
    pub(crate) fn matches_comm(&self, comm: &[u8]) -> bool {
        *comm == *self.name
    }

    /// Whether the process matches.
    pub(crate) fn matches(&self, names: &ProcessNames<'_>) -> bool {
        // The kernel appends this to the path if the file was removed or replaced.
        let exe = names.exe.strip_suffix(b" (deleted)").unwrap_or(names.exe);
        let mut arguments = names.cmdline.split(|byte| *byte == 0);
        let program = arguments.next().unwrap_or_default();
        // The command line of a script is INTERPRETER [ARGUMENT] SCRIPT (execve(2)), and comm is the script's name.
        let mut scripts = [arguments.next(), arguments.next()]
            .into_iter()
            .flatten()
            .filter(|path| is_cut(names.comm, path));
        if self.name.contains(&b'/') {
            let named = |path: &[u8]| *path == *self.name || Some(path) == self.resolved.as_deref();
            return named(exe) || named(program) || named(first_word(program)) || scripts.any(named);
        }
        let named = |path: &[u8]| *base(path) == *self.name;
        self.matches_comm(names.comm) || named(exe) || self.is_title(program) || scripts.any(named)
    }

    /// Whether the first argument is NAME. Programs that rewrite it (`nginx: master process`, `chrome
    /// --type=renderer`) put their own name first.
    fn is_title(&self, program: &[u8]) -> bool {
        let first = first_word(program);
        if let Some(title) = first.strip_suffix(b":") {
            return *base(title) == *self.name;
        }
        *base(first) == *self.name || *base(program) == *self.name
    }
}

/// Whether `comm` is the file name of this path, in full or cut at 15 bytes.
fn is_cut(comm: &[u8], path: &[u8]) -> bool {
    let name = base(path);
    !name.is_empty() && comm == name.get(..CUT).unwrap_or(name)
}

/// Returns the part before the first space.
fn first_word(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b' ').next().unwrap_or_default()
}

/// Returns the part after the last slash.
fn base(path: &[u8]) -> &[u8] {
    match memchr::memrchr(b'/', path) {
        Some(at) => path.get(at + 1..).unwrap_or_default(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(name: &str, comm: &str, cmdline: &str, exe: &str) -> bool {
        let names = ProcessNames { comm: comm.as_bytes(), cmdline: cmdline.as_bytes(), exe: exe.as_bytes() };
        // The path that the symbolic link of the test resolves to.
        let resolved = (name == "/bin/sleep").then_some(OsStr::new("/usr/bin/sleep"));
        Rule::new(OsStr::new(name), resolved).matches(&names)
    }

    const LONG: &str = "kube-controller-manager";
    const SCRIPT: &str = "a_very_long_script.sh";

    #[test]
    fn name_matches_the_executable_first_argument_or_comm() {
        for (name, comm, cmdline, exe, expected) in [
            ("sleep", "sleep", "sleep\x00100\0", "/usr/bin/sleep", true),
            ("sleep", "sleep", "", "", true),
            ("a b) (c\n", "a b) (c\n", "", "", true),
            // The main thread has its own name, but the process has the program's name (Node.js 24, prctl(2)).
            ("node", "MainThread", "node\0server.js\0", "/usr/bin/node", true),
            ("node", "MainThread", "server\0", "/usr/bin/node", true),
            ("MainThread", "MainThread", "node\0server.js\0", "/usr/bin/node", true),
            // kapo cannot read the executable of another user's process.
            ("node", "MainThread", "/usr/bin/node\0server.js\0", "", true),
            // `exec -a`, wrappers, and programs with many links.
            ("worker", "python3", "worker\0-c\0pass\0", "/usr/bin/python3.11", true),
            ("sleep", "busybox", "sleep\x00100\0", "/bin/busybox", true),
            ("two words", "sleep", "/x/two words\x00100\0", "/usr/bin/sleep", true),
            // Rewritten arguments.
            ("nginx", "x", "nginx: master process /usr/sbin/nginx -g daemon off;\0", "", true),
            ("chrome", "x", "/opt/chrome/chrome --type=renderer --lang=en\0", "", true),
            ("conf", "x", "nginx: worker /etc/nginx/conf\0", "", false),
            // A replaced executable.
            ("sleep", "x", "", "/usr/bin/sleep (deleted)", true),
            // A prefix does not match, and neither does another argument.
            ("sleep", "sleeper", "sleeper\0", "/usr/bin/sleeper", false),
            ("python3", "x", "python3.11\0", "/usr/bin/python3.11", false),
            ("nginx", "vim", "vim\0nginx\0", "/usr/bin/vim", false),
            ("nginx", "tail", "tail\0-f\0/var/log/nginx\0", "/usr/bin/tail", false),
            ("nginx", "sh", "sh\0-c\0nginx\0", "/bin/dash", false),
            ("bin", "sleep", "/usr/bin/sleep\0", "/usr/bin/sleep", false),
            ("x", "", "", "", false),
            // A kernel thread has neither arguments nor an executable.
            ("kworker/u8:2-events_unbound", "kworker/u8:2-events_unbound", "", "", false),
            ("kthreadd", "kthreadd", "", "", true),
        ] {
            assert_eq!(matches(name, comm, cmdline, exe), expected, "{name} {comm} {cmdline} {exe}");
        }
    }

    #[test]
    fn a_script_matches_its_own_and_its_interpreters_name() {
        for (name, comm, cmdline, exe, expected) in [
            ("gunicorn", "gunicorn", "/usr/bin/python3\0/usr/bin/gunicorn\0", "/usr/bin/python3.11", true),
            ("python3", "gunicorn", "/usr/bin/python3\0/usr/bin/gunicorn\0", "/usr/bin/python3.11", true),
            ("puppet", "bash", "/bin/bash\0/usr/bin/puppet\0", "/bin/bash", false),
            // `comm` is cut at 15 bytes.
            (SCRIPT, "a_very_long_scr", "/bin/sh\0./a_very_long_script.sh\0", "/bin/dash", true),
            (SCRIPT, "a_very_long_scr", "/bin/sh\0-e\0/x/a_very_long_script.sh\0", "/bin/dash", true),
            (SCRIPT, "a_very_long_scr", "/bin/sh\0-e\0-x\0a_very_long_script.sh\0", "/bin/dash", false),
            (SCRIPT, "a_very_long_scr", "/bin/sh\0./a_very_long_scribble\0", "/bin/dash", false),
            (SCRIPT, "sh", "/bin/sh\0./a_very_long_script.sh\0", "/bin/dash", false),
            (LONG, "kube-controller", "/usr/local/bin/kube-controller-manager\0-v\0", "", true),
            (LONG, "kube-controller", "", "/x/kube-controller-manager", true),
            (LONG, "kube-controller", "kube-controller-other\0", "/x/kube-controller-other", false),
            (LONG, "kube-controller", "", "", false),
            ("kube-controller", "kube-controller", "kube-controller-manager\0", "", true),
        ] {
            assert_eq!(matches(name, comm, cmdline, exe), expected, "{name} {comm} {cmdline} {exe}");
        }
    }

    #[test]
    fn a_name_with_a_slash_matches_the_executable_path() {
        for (name, comm, cmdline, exe, expected) in [
            ("/usr/bin/sleep", "x", "sleep\x00100\0", "/usr/bin/sleep", true),
            ("/usr/bin/sleep", "x", "", "/usr/bin/sleep (deleted)", true),
            ("/usr/bin/sleep", "sleep", "sleep\x00100\0", "/opt/bin/sleep", false),
            // A symbolic link.
            ("/bin/sleep", "sleep", "sleep\x00100\0", "/usr/bin/sleep", true),
            ("/bin/slee", "sleep", "sleep\x00100\0", "/usr/bin/sleep", false),
            // kapo cannot read the executable of another user's process.
            ("/usr/bin/sleep", "sleep", "/usr/bin/sleep\x00100\0", "", true),
            ("/usr/bin/sleep", "sleep", "sleep\x00100\0", "", false),
            ("./worker", "worker", "./worker\0", "/srv/worker", true),
            // A script matches by the path with which it was started.
            ("/usr/bin/gunicorn", "gunicorn", "/usr/bin/python3\0/usr/bin/gunicorn\0", "/x/python3", true),
            ("/usr/bin/gunicorn", "vim", "vim\0/usr/bin/gunicorn\0", "/usr/bin/vim", false),
        ] {
            assert_eq!(matches(name, comm, cmdline, exe), expected, "{name} {comm} {cmdline} {exe}");
        }
    }
}
