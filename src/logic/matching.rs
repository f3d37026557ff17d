//! Is this process the one that NAME means? The kernel keeps 15 bytes of a name (`comm`); where that may be a cut
//! one, the words of the command line and the exe link tell the rest.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::watch::Words;

/// TASK_COMM_LEN without its NUL.
const CUT: usize = 15;

/// NAME.
#[derive(Debug)]
pub struct Rule {
    name: Box<[u8]>,
}

/// What `comm` alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByComm {
    /// It matches.
    Yes,
    /// It does not.
    No,
    /// The name may be cut: [`Rule::matches`] must say.
    Ask,
}

impl Rule {
    /// NAME as given.
    pub fn new(name: &OsStr) -> Rule {
        Rule { name: name.as_bytes().into() }
    }

    /// What can be said without reading more than the name that the kernel keeps.
    pub fn by_comm(&self, comm: &[u8]) -> ByComm {
        if *comm == *self.name {
            ByComm::Yes
        } else if self.name.len() > CUT || comm.len() == CUT {
            ByComm::Ask
        } else {
            ByComm::No
        }
    }

    /// The whole truth.
    pub fn matches(&self, words: &Words<'_>) -> bool {
        match self.by_comm(words.comm) {
            ByComm::Yes => true,
            ByComm::No => false,
            ByComm::Ask => self.by_words(words),
        }
    }

    fn by_words(&self, words: &Words<'_>) -> bool {
        let mut arguments = words.cmdline.split(|b| *b == 0);
        let program = base(arguments.next().unwrap_or_default());
        // The kernel says so behind the name of a file that was removed or replaced.
        let exe = base(words.exe.strip_suffix(b" (deleted)").unwrap_or(words.exe));
        // A script is INTERPRETER [ONE ARGUMENT] SCRIPT (execve(2)), and comm is the script's name.
        let script = [arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default()].map(base);
        let named = [program, exe, script[0], script[1]];
        if words.comm.len() == CUT && named.iter().any(|n| n.starts_with(words.comm)) {
            // What was cut is found: that is its name, and not, for a script, the interpreter's.
            return named.iter().any(|n| **n == *self.name && n.starts_with(words.comm));
        }
        *program == *self.name || *exe == *self.name
    }
}

/// What follows the last slash.
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
        let words = Words { comm: comm.as_bytes(), cmdline: cmdline.as_bytes(), exe: exe.as_bytes() };
        Rule::new(OsStr::new(name)).matches(&words)
    }

    #[test]
    fn names_match_as_a_user_of_pgrep_expects() {
        const LONG: &str = "kube-controller-manager";
        const SCRIPT: &str = "a_very_long_script.sh";
        for (name, comm, cmdline, exe, expected) in [
            ("sleep", "sleep", "sleep\x00100\0", "/usr/bin/sleep", true),
            // A short name is the whole name, whatever the program calls itself or is called.
            ("sleep", "sleeper", "sleep\0", "/usr/bin/sleep", false),
            ("sleep", "sleep", "", "", true),
            ("bash", "puppet", "/bin/bash\0/usr/bin/puppet\0", "/bin/bash", false),
            ("puppet", "puppet", "/usr/bin/ruby\0/usr/bin/puppet\0agent\0", "/usr/bin/ruby", true),
            ("a b) (c\n", "a b) (c\n", "", "", true),
            // Cut at 15 bytes.
            (LONG, "kube-controller", "/usr/local/bin/kube-controller-manager\0-v\0", "", true),
            (LONG, "kube-controller", "", "/x/kube-controller-manager", true),
            (LONG, "kube-controller", "", "/x/kube-controller-manager (deleted)", true),
            (LONG, "kube-controller", "kube-controller-other\0", "/x/kube-controller-other", false),
            (LONG, "kube-controller", "", "", false),
            ("kube-controller", "kube-controller", "kube-controller-manager\0", "", true),
            // A script has its interpreter's words before its own.
            (SCRIPT, "a_very_long_scr", "/bin/sh\0./a_very_long_script.sh\0", "/bin/dash", true),
            (SCRIPT, "a_very_long_scr", "/bin/sh\0-e\0/x/a_very_long_script.sh\0", "/bin/dash", true),
            (SCRIPT, "a_very_long_scr", "/bin/sh\0-e\0-x\0a_very_long_script.sh\0", "/bin/dash", false),
            ("dash", "a_very_long_scr", "dash\0./a_very_long_script.sh\0", "/bin/dash", false),
            // A process that gave itself a long name is still its program.
            ("mysqld", "my own long nam", "mysqld\0", "/usr/sbin/mysqld", true),
            (LONG, "worker", "worker\0", "/x/kube-controller-manager", true),
            // A kernel thread of a work queue shows more than 15 bytes.
            ("kworker/u8:2-events_unbound", "kworker/u8:2-events_unbound", "", "", true),
            ("", "", "", "", true),
        ] {
            assert_eq!(matches(name, comm, cmdline, exe), expected, "{name} {comm} {cmdline} {exe}");
        }
    }
}
