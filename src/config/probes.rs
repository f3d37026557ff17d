//! The options of the probes of `--probe`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

/// kapo's own probes of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// `--probe`: 1 to 32 probes; no name occurs twice.
    pub probes: Vec<OwnProbe>,
    /// `--probe-interval`; not 0.
    pub interval: Duration,
    /// `--probe-timeout`; not 0.
    pub timeout: Duration,
    /// `--probe-failures`; not 0.
    pub failures: usize,
    /// `--probe-grace`.
    pub grace: Duration,
    /// `--unhealthy stop`; otherwise results are only reported.
    pub stop: bool,
}

/// A check of the command that kapo makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnProbe {
    /// The given name, not a number.
    pub name: Option<String>,
    /// What is checked.
    pub target: ProbeTarget,
}

impl OwnProbe {
    /// Returns the name or, without one, the index among all probes.
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| index.to_string())
    }
}

/// What a probe checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// A connection is possible.
    Connect(Contact),
    /// GET is answered with 200 to 399.
    Http {
        /// Where to connect.
        contact: Contact,
        /// The field Host.
        host: String,
        /// The path and the query.
        path: String,
    },
    /// A program exits with 0. The words are its name and its arguments; there is at least one.
    Exec(Vec<OsString>),
}

impl ProbeTarget {
    /// Returns where the probe connects to, if it does.
    pub fn contact(&self) -> Option<&Contact> {
        match self {
            ProbeTarget::Connect(contact) | ProbeTarget::Http { contact, .. } => Some(contact),
            ProbeTarget::Exec(_) => None,
        }
    }
}

/// Where a probe connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// An address, or localhost: 127.0.0.1 or, if that refuses, ::1.
    Tcp(Option<IpAddr>, u16),
    /// A Unix socket in the file system.
    Path(Vec<u8>),
    /// A Unix socket in the abstract name space, without the leading `@`.
    Abstract(Vec<u8>),
}
