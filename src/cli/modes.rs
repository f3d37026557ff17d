//! The modes: their names, and the texts of the overview and of their help.

/// The first word that is not a global option: what kapo is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "MODES describes each")]
pub enum Verb {
    Run,
    Supervise,
    Watch,
    Check,
    Wait,
    Status,
    Logs,
}

/// One mode and its texts.
#[derive(Debug)]
pub struct ModeRow {
    /// The mode.
    pub verb: Verb,
    /// The word.
    pub name: &'static str,
    /// Its one-letter form.
    pub alias: Option<&'static str>,
    /// The words after its options.
    pub operands: &'static str,
    /// One line for the overview.
    pub brief: &'static str,
    /// What it does, for its own help and the man page.
    pub full: &'static str,
}

/// Every mode, in the order of the help.
pub static MODES: &[ModeRow] = &[
    ModeRow {
        verb: Verb::Run,
        name: "run",
        alias: Some("r"),
        operands: "[--] COMMAND [ARG...]",
        brief: "run a command once and answer for it",
        full: "Listens, starts COMMAND and answers for it. When it has ended kapo goes on answering for --wait or \
               --idle-exit and then exits with the command's code.",
    },
    ModeRow {
        verb: Verb::Supervise,
        name: "supervise",
        alias: Some("s"),
        operands: "[--] COMMAND [ARG...]",
        brief: "run a command again and again",
        full: "As run, but starts COMMAND again --wait after each end, for ever or as --restart and --max-restarts \
               say. A stop signal to kapo stops the command and then kapo; nothing is started after one.",
    },
    ModeRow {
        verb: Verb::Watch,
        name: "watch",
        alias: Some("w"),
        operands: "[--] NAME",
        brief: "report on processes that others started",
        full: "Reports on every process that NAME means, or on the one of --pid. NAME is the name of the executable, \
               of the first argument up to a space, or the one that the kernel keeps (comm); a NAME with a slash is \
               the path of the executable, or of the script as it was started. A process that changes its name is still the same. The \
               end of a process is noticed at once, a new one by the next scan.",
    },
    ModeRow {
        verb: Verb::Check,
        name: "check",
        alias: None,
        operands: "[URL]",
        brief: "ask a kapo for its health: exit 0 or 1",
        full: "Asks the kapo at URL, or where --port and --interface say, and exits 0 when the answer is good and \
               1 in every other case. Meant for HEALTHCHECK in images without curl.",
    },
    ModeRow {
        verb: Verb::Wait,
        name: "wait",
        alias: None,
        operands: "[URL]",
        brief: "wait for the end of a job: exits with its code",
        full: "Waits until the run of the kapo at URL, or where --port and --interface say, has ended, and exits \
               with the code of that job; 124 when --timeout passed first, 125 when nothing answers.",
    },
    ModeRow {
        verb: Verb::Status,
        name: "status",
        alias: None,
        operands: "[URL]",
        brief: "show what a command does and why it ended",
        full: "Asks the kapo at URL, or where --port and --interface say, and shows in at most 24 lines what the command \
               does now, how its last runs ended, and what it said last. Exits with 0 when it is well (/healthz), with 1 \
               when it is not, and with 3 when no kapo answers.",
    },
    ModeRow {
        verb: Verb::Logs,
        name: "logs",
        alias: None,
        operands: "[URL]",
        brief: "show the last output of a command",
        full: "Copies the captured output that the kapo at URL, or where --port and --interface say, keeps by its --tail. \
               Exits with 0 at the end of it, with 1 when that kapo keeps none or the stream is cut off, and with 3 \
               when no kapo answers. On a terminal control characters other than newlines, tabs and colours are \
               escaped; a pipe and a file get the bytes.",
    },
];

impl Verb {
    /// Its line in MODES.
    pub fn row(self) -> &'static ModeRow {
        match MODES.iter().find(|row| row.verb == self) {
            Some(row) => row,
            None => unreachable!("MODES names every mode; a test looks"),
        }
    }

    /// Whether it asks a running kapo instead of being one.
    pub fn is_client(self) -> bool {
        matches!(self, Verb::Check | Verb::Wait | Verb::Status | Verb::Logs)
    }

    /// The mode of that word, by name or alias.
    pub fn named(word: &str) -> Option<Verb> {
        MODES.iter().find(|row| row.name == word || row.alias == Some(word)).map(|row| row.verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_its_row() {
        for verb in
            [Verb::Run, Verb::Supervise, Verb::Watch, Verb::Check, Verb::Wait, Verb::Status, Verb::Logs]
        {
            assert_eq!(Verb::named(verb.row().name), Some(verb));
        }
    }
}
