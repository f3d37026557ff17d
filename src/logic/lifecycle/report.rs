//! Describes the state and the last end as text, for the service manager and the termination log.

use std::time::SystemTime;

use super::readiness::STARTING;
use super::{Lifecycle, MachineState};
use crate::logic::status::reason_name;

impl Lifecycle {
    /// Returns the text that `systemctl status` shows.
    pub(super) fn headline(&self, wall: SystemTime) -> String {
        let mut text = match self.state {
            MachineState::Running(process) if self.document.status.ready => {
                format!("running, pid {}", process.pid)
            }
            MachineState::Running(process) => format!("{}, pid {}", self.readiness.unready, process.pid),
            MachineState::Draining(process, drain) => {
                let left = drain.until.duration_since(wall).unwrap_or_default();
                format!("draining for {} s, pid {}", left.as_secs(), process.pid)
            }
            MachineState::Dumping(process, _) | MachineState::Stopping(process, _) => {
                format!("stopping, pid {}", process.pid)
            }
            MachineState::Pausing => {
                let pause = self.document.status.next_start.and_then(|at| at.duration_since(wall).ok());
                format!("{}, next start in {} s", self.last_end(), pause.unwrap_or_default().as_secs())
            }
            MachineState::Starting => STARTING.to_owned(),
            MachineState::Clearing => format!("{}, waiting for what it left behind", self.last_end()),
            MachineState::Lingering
            | MachineState::Finishing
            | MachineState::Closing
            | MachineState::Done => self.last_end(),
        };
        if self.document.status.restarts > 0 {
            text.push_str(&format!(", {} restarts", self.document.status.restarts));
        }
        if self.document.status.flapping {
            text.push_str(", flapping");
        }
        if !self.document.status.status_text.is_empty() {
            text.push_str(": ");
            text.push_str(&self.document.status.status_text);
        }
        text
    }

    /// Returns the last end, for example `ended: exit-code 3`.
    pub(super) fn last_end(&self) -> String {
        match self.document.status.signal {
            Some(signal) => format!("ended: {} {signal}", reason_name(self.document.status.reason)),
            None => format!(
                "ended: {} {}",
                reason_name(self.document.status.reason),
                self.document.status.exit_code
            ),
        }
    }

    /// Returns the first line of the termination log, about the end that the document shows.
    pub(super) fn termination_message(&self) -> String {
        let mut text = format!(
            "reason={} code={}",
            reason_name(self.document.status.reason),
            self.document.status.exit_code
        );
        if let Some(signal) = self.document.status.signal {
            text.push_str(&format!(" signal={signal}"));
        }
        text.push('\n');
        text
    }
}

/// Appends the last lines of the output to a termination message, as many as fit.
pub(super) fn with_output(mut termination_message: String, last_output: &[String]) -> Vec<u8> {
    /// The kubelet reads at most this many bytes.
    const LENGTH: usize = 4096;
    let output: String = last_output.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let from = output.ceil_char_boundary((termination_message.len() + output.len()).saturating_sub(LENGTH));
    termination_message.push_str(output.get(from..).unwrap_or_default());
    termination_message.into_bytes()
}
