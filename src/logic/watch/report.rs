//! Turns the watched processes into log records, the summary for the service manager, the exit code that answers
//! `/wait`, and kapo's own exit code.

use crate::error::EXIT_SETUP;
use crate::logic::Exit;
use crate::logic::log::record::Record;
use crate::logic::status::{State, Status};
use crate::logic::watch::event::Note;

/// Returns the log record for `note`. `command` is the watched name.
pub(crate) fn record(note: Note, command: &str) -> Record {
    match note {
        Note::Found(_, pid) => Record::info("found").with("command", command).number("pid", pid),
        Note::Ended(_, pid, exit) => {
            let record = Record::info("exited").with("command", command).number("pid", pid);
            match exit {
                None => record,
                Some(Exit::Code(code)) => record.number("code", code),
                Some(Exit::Signal { signal, .. }) => record.with("signal", signal),
            }
        }
        Note::Absent(pid) => Record::error("no such process").number("pid", pid),
        Note::Scanning(why) => Record::warn("process events unavailable").with("error", why),
    }
}

/// Returns the code with which kapo exits because of `note`; `None` if it keeps running.
pub(crate) fn exit_code(note: Note) -> Option<u8> {
    match note {
        // This happens only if kapo had no free descriptor to check the process before the loop started.
        Note::Absent(_) => Some(EXIT_SETUP),
        Note::Found(..) | Note::Ended(..) | Note::Scanning(_) => None,
    }
}

/// Returns the exit code of the process that ended last; `None` while a process of any name lives.
pub(crate) fn ended(objects: &[Status], lives: bool) -> Option<u8> {
    let ended = objects.iter().filter(|object| !lives && object.end_time.is_some());
    ended.max_by_key(|object| object.end_time).map(|object| object.exit_code)
}

/// Returns the text of `STATUS=`. `name` is the only name.
pub(crate) fn summary(objects: &[Status], name: Option<&str>) -> String {
    let running = objects.iter().filter(|object| object.state == State::Running).count();
    let Some(name) = name else {
        let plural = if running == 1 { "" } else { "es" };
        return format!("{running} process{plural}, {} names without", objects.len() - running);
    };
    match running {
        0 => format!("no process {name}"),
        1 => format!("1 process {name}"),
        many => format!("{many} processes {name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::logic::ProcessId;
    use crate::logic::status::ModeName;
    use crate::signal::Signal;

    fn pid() -> ProcessId {
        ProcessId::new(7).unwrap()
    }

    #[test]
    fn each_note_becomes_one_record() {
        let named = |record: Record| record.with("command", "job").number("pid", pid());
        let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
        for (note, wanted, code) in [
            (Note::Found(0, pid()), named(Record::info("found")), None),
            (Note::Ended(0, pid(), None), named(Record::info("exited")), None),
            (
                Note::Ended(0, pid(), Some(Exit::Code(3))),
                named(Record::info("exited")).number("code", 3),
                None,
            ),
            (
                Note::Ended(0, pid(), Some(killed)),
                named(Record::info("exited")).with("signal", Signal::KILL),
                None,
            ),
            (Note::Absent(pid()), Record::error("no such process").number("pid", pid()), Some(EXIT_SETUP)),
            (
                Note::Scanning("it is off"),
                Record::warn("process events unavailable").with("error", "it is off"),
                None,
            ),
        ] {
            assert_eq!((record(note, "job"), exit_code(note)), (wanted, code));
        }
    }

    #[test]
    fn the_last_exit_code_is_shown_while_no_process_lives() {
        let blank = Status::blank(ModeName::Watch);
        let over = Status { end_time: Some(UNIX_EPOCH), exit_code: 3, ..blank.clone() };
        assert_eq!(ended(&[], false), None);
        assert_eq!(ended(std::slice::from_ref(&blank), false), None);
        assert_eq!(ended(std::slice::from_ref(&over), false), Some(3));
        assert_eq!(ended(&[over], true), None);
    }

    #[test]
    fn the_summary_counts_running_processes() {
        let running = Status { state: State::Running, ..Status::blank(ModeName::Watch) };
        for (count, wanted) in [(0, "no process job"), (1, "1 process job"), (3, "3 processes job")] {
            assert_eq!(summary(&vec![running.clone(); count], Some("job")), wanted);
        }
        assert_eq!(summary(&[Status::blank(ModeName::Watch)], Some("job")), "no process job");
    }
}
