//! The instances that `kapo ls` has found: their states, their order and the exit code. The output is in `table` and
//! `export`.

pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod names;
pub(crate) mod table;

use std::time::SystemTime;

use super::format::{cut, end, time};
use super::json::Json;
use super::status;
use crate::config::{InstanceState, ListOrder};
use crate::error::{EXIT_NO_ANSWER, EXIT_UNHEALTHY};

/// The maximum number of characters that are kept of a text in a document.
const LONGEST_TEXT: usize = 60;

/// One socket of the folder.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// The name of the socket file.
    pub file: Vec<u8>,
    /// The inode number of the socket file.
    pub inode: u64,
    /// The name that is shown; set by [`names::assign`].
    pub name: String,
    /// The state.
    pub state: InstanceState,
    /// The pid and user of the process that listens, as reported by the kernel.
    pub listener: Option<(i32, u32)>,
    /// Whether a kapo has answered.
    pub answers: bool,
    /// What the document says.
    pub facts: InstanceFacts,
}

/// The members of a document that the output shows. Times are `None` and all others are empty before a kapo answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstanceFacts {
    /// Command.
    pub command: String,
    /// Whether Mode is `watch`.
    pub watches: bool,
    /// Whether Status is `running`.
    pub running: bool,
    /// Ready.
    pub ready: bool,
    /// Flapping.
    pub flapping: bool,
    /// Restarts.
    pub restarts: u64,
    /// Pid.
    pub pid: u64,
    /// Resident memory of that process in bytes, if it was read.
    pub memory: Option<u64>,
    /// StartTime.
    pub start: Option<SystemTime>,
    /// NextStart.
    pub next: Option<SystemTime>,
    /// ExpiresAt.
    pub expires: Option<SystemTime>,
    /// EndTime of the last run that has ended.
    pub end: Option<SystemTime>,
    /// ExitCode of that run.
    pub code: u64,
    /// Reason of that run.
    pub reason: String,
    /// Reason and exit code of that run for people.
    pub last: String,
}

impl Instance {
    /// Returns a socket that was not queried yet.
    pub(crate) fn new(file: &[u8], inode: u64) -> Instance {
        Instance {
            file: file.to_vec(),
            inode,
            name: String::new(),
            state: InstanceState::Stuck,
            listener: None,
            answers: false,
            facts: InstanceFacts::default(),
        }
    }

    /// Sets state and facts from the body of an answer. Any other text than a status document is foreign.
    pub(crate) fn answered(&mut self, body: &[u8]) {
        let document = status::document(body);
        let objects = document.as_ref().map(Json::list).unwrap_or_default();
        // In watch mode, a name without a process is the trouble that matters.
        match objects.iter().find(|object| !is_running(object)).or(objects.first()) {
            Some(object) => {
                self.answers = true;
                self.state = state(object);
                self.facts = facts(object);
            }
            None => self.state = InstanceState::Foreign,
        }
    }
}

fn facts(object: &Json) -> InstanceFacts {
    let text = |object: &Json, name| cut(object.get(name).text(), LONGEST_TEXT);
    let number = |object: &Json, name| object.get(name).number().unwrap_or_default();
    let last = match object.get("LastRun") {
        // A kapo without LastRun shows the last run in the document itself.
        Json::Null => object,
        last => last,
    };
    let reason = text(last, "Reason");
    InstanceFacts {
        command: text(object, "Command"),
        watches: is_watch(object),
        running: is_running(object),
        ready: object.get("Ready").is_true(),
        flapping: object.get("Flapping").is_true(),
        restarts: number(object, "Restarts"),
        pid: number(object, "Pid"),
        memory: None,
        start: time(object, "StartTime"),
        next: time(object, "NextStart"),
        expires: time(object, "ExpiresAt"),
        end: time(last, "EndTime"),
        code: number(last, "ExitCode"),
        last: if reason.is_empty() { String::new() } else { cut(&end(last), LONGEST_TEXT) },
        reason,
    }
}

fn is_watch(object: &Json) -> bool {
    object.get("Mode").text() == "watch"
}

fn is_running(object: &Json) -> bool {
    object.get("Status").text() == "running"
}

/// Returns the state that a document describes.
fn state(object: &Json) -> InstanceState {
    let again = object.get("Mode").text() == "supervise";
    let success = match object.get("Reason").text() {
        "" => None,
        reason => Some(reason == "success"),
    };
    match (is_running(object), success) {
        (true, _) if is_watch(object) => InstanceState::Running,
        (false, _) if is_watch(object) => InstanceState::Gone,
        _ if object.get("Flapping").is_true() => InstanceState::Flapping,
        (true, _) if object.get("Ready").is_true() => InstanceState::Running,
        (true, _) if *object.get("StopSignalFrom") != Json::Null => InstanceState::Stopping,
        (true, _) => InstanceState::Unready,
        (false, None) => InstanceState::Starting,
        (false, Some(true)) if again => InstanceState::Pausing,
        (false, Some(true)) => InstanceState::Done,
        (false, Some(false)) if again => InstanceState::Failing,
        (false, Some(false)) => InstanceState::Failed,
    }
}

/// Sorts the instances.
pub(crate) fn sort(instances: &mut [Instance], order: ListOrder) {
    instances.sort_unstable_by(|a, b| {
        let by_state = a.state.cmp(&b.state);
        let by_start = b.facts.start.cmp(&a.facts.start);
        let by_name = a.file.cmp(&b.file);
        match order {
            ListOrder::State => by_state.then(by_start).then(by_name),
            ListOrder::Name => by_name,
            ListOrder::Start => by_start.then(by_name),
            ListOrder::Restarts => b.facts.restarts.cmp(&a.facts.restarts).then(by_name),
        }
    });
}

/// Returns the exit code: 0 if all are well, 1 if one is not, 3 if there is none.
pub(crate) fn exit_code(instances: &[Instance]) -> u8 {
    match instances.iter().all(|instance| instance.state.is_well()) {
        _ if instances.is_empty() => EXIT_NO_ANSWER,
        true => 0,
        false => EXIT_UNHEALTHY,
    }
}

#[cfg(test)]
mod tests;
