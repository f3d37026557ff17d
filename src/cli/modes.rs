//! The modes: their names, and their texts in the general help and in their own help.

/// The mode: the first argument that is not a global option.
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
    Ls,
    Fleet,
}

/// One mode and its texts.
#[derive(Debug)]
pub struct ModeRow {
    /// The mode.
    pub verb: Verb,
    /// The name of the mode on the command line.
    pub name: &'static str,
    /// The short name, of one letter.
    pub alias: Option<&'static str>,
    /// The arguments that follow the options of the mode, as the help shows them.
    pub operands: &'static str,
    /// The line that describes the mode in the general help.
    pub brief: &'static str,
    /// The description of the mode in its own help and in the man page.
    pub full: &'static str,
}

/// Every mode, in the order of the help.
pub static MODES: &[ModeRow] = &[
    ModeRow {
        verb: Verb::Run,
        name: "run",
        alias: Some("r"),
        operands: "[--] COMMAND [ARG...]",
        brief: "run a command once and serve its status",
        full: "Listens, starts COMMAND and serves its status. When COMMAND has ended, kapo keeps \
               answering for --wait or --idle-exit, and then exits with the command's exit code.",
    },
    ModeRow {
        verb: Verb::Supervise,
        name: "supervise",
        alias: Some("s"),
        operands: "[--] COMMAND [ARG...]",
        brief: "run a command and restart it after each end",
        full: "Works like run, but starts COMMAND again --wait after each end. This continues \
               without a limit, unless --restart or --max-restarts sets one. A stop signal to kapo \
               stops the command and then kapo. After a stop signal, kapo starts no new run.",
    },
    ModeRow {
        verb: Verb::Watch,
        name: "watch",
        alias: Some("w"),
        operands: "[--] NAME...",
        brief: "report on processes that kapo did not start",
        full: "Reports on every process that matches one of at most 200 names, or on the process of --pid. NAME is \
               compared with the name of the executable, with the name of the first argument \
               (argv[0]) up to a space, and with the name that the kernel stores (comm). A NAME \
               with a slash is compared with the path of the executable, or with the path by which \
               a script was started. A process that changes its name remains the same process. kapo \
               notices the end of a process at once, and a new process at the next scan.",
    },
    ModeRow {
        verb: Verb::Check,
        name: "check",
        alias: None,
        operands: "[URL|NAME]",
        brief: "query the health of a running kapo: exit 0 or 1",
        full: "Queries the kapo at URL, or at the address of --port and --interface. Exits with 0 \
               if the answer is good, and with 1 in every other case. It is meant for HEALTHCHECK \
               in images without curl.",
    },
    ModeRow {
        verb: Verb::Wait,
        name: "wait",
        alias: None,
        operands: "[URL|NAME]",
        brief: "wait for the end of a job, exit with its code",
        full: "Waits until the run of the kapo at URL, or at the address of --port and --interface, \
               has ended, or with --ready or --healthy until that probe passes. Exits with the exit \
               code of the run (0 when the probe passes), with 124 if --timeout passes first, and \
               with 125 if no kapo answers.",
    },
    ModeRow {
        verb: Verb::Status,
        name: "status",
        alias: None,
        operands: "[URL|NAME]",
        brief: "show the state of a command and why it ended",
        full: "Queries the kapo at URL, or at the address of --port and --interface. Shows in at \
               most 24 lines the state of the command, how its last runs ended, and its last \
               output. Exits with 0 if the command is healthy (/healthz), with 1 if it is not, and \
               with 3 if no kapo answers.",
    },
    ModeRow {
        verb: Verb::Logs,
        name: "logs",
        alias: None,
        operands: "[URL|NAME]",
        brief: "show the last output of a command",
        full: "Prints the captured output that the kapo at URL, or at the address of --port and \
               --interface, keeps with --tail. Exits with 0 after all output, with 1 if that kapo \
               keeps no output or if the stream is cut off, and with 3 if no kapo answers. On a \
               terminal, control characters other than newlines, tabs and colours are escaped. A \
               pipe or a file gets the bytes unchanged.",
    },
    ModeRow {
        verb: Verb::Ls,
        name: "ls",
        alias: None,
        operands: "[DIR]",
        brief: "list the kapos of a folder, trouble first",
        full: "Queries every Unix socket in DIR (default: $KAPO_RUN_DIR, otherwise /run/kapo if it \
               exists, otherwise $XDG_RUNTIME_DIR/kapo) and lists the state of each kapo. \
               Exits with 0 if all commands are healthy, with 1 if one is not or a socket does not \
               answer like a kapo, and with 3 if there is no socket.",
    },
    ModeRow {
        verb: Verb::Fleet,
        name: "fleet",
        alias: None,
        operands: "[DIR]",
        brief: "serve a page of all kapos of a folder",
        full: "Serves the list of the kapos in DIR (default: as for ls) as a page, as JSON and as \
               text, and each of them at /i/NAME/. /sd has the targets for Prometheus. Unless \
               other addresses are given, fleet listens on 127.0.0.1:6670. A stop signal ends it \
               with exit code 0.",
    },
];

impl Verb {
    /// Returns the row of the mode in MODES.
    pub fn row(self) -> &'static ModeRow {
        match MODES.iter().find(|row| row.verb == self) {
            Some(row) => row,
            None => unreachable!("MODES names every mode; a test looks"),
        }
    }

    /// Whether the mode is a client that queries a running kapo.
    pub fn is_client(self) -> bool {
        matches!(self, Verb::Check | Verb::Wait | Verb::Status | Verb::Logs | Verb::Ls)
    }

    /// Returns the mode with this name or alias.
    pub fn named(word: &str) -> Option<Verb> {
        MODES.iter().find(|row| row.name == word || row.alias == Some(word)).map(|row| row.verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_its_row() {
        let clients = [Verb::Check, Verb::Wait, Verb::Status, Verb::Logs, Verb::Ls];
        for verb in [Verb::Run, Verb::Supervise, Verb::Watch, Verb::Fleet].into_iter().chain(clients) {
            assert_eq!(Verb::named(verb.row().name), Some(verb));
            assert_eq!(verb.is_client(), clients.contains(&verb));
        }
    }
}
