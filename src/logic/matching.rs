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
