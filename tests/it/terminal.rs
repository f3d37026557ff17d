//! Tests with a terminal: the command gets the foreground, ^C and ^Z reach it, and kapo gives the terminal back.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

use crate::harness::{
    Kapo, before_exec, binary, clean, command_name, lives, process_state, signal_mask, unused_name, wait_for,
};

/// A session on a pseudo-terminal.
struct Session {
    kapo: Kapo,
    /// The master side. Reads do not block.
    master: std::fs::File,
    shown: Screen,
}

/// The displayed text that was not searched yet.
struct Screen(String);

impl Session {
    /// Runs `command` as the leader of a session on a new terminal.
    fn start(mut command: Command) -> Session {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || -> Stdio {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
            rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap().into()
        };
        command.stdin(open()).stdout(open()).stderr(open());
        command.env("PS1", "outer> ").env("TERM", "dumb").env_remove("PROMPT_COMMAND");
        before_exec(&mut command, || {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(kapo::sys::stdio::standard()[0])?;
            Ok(())
        });
        let kapo = Kapo::launch_with_its_outputs(command, TempDir::new().unwrap());
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        Session { kapo, master: std::fs::File::from(master), shown: Screen(String::new()) }
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is displayed, and drops the text up to it.
    fn shows(&mut self, text: &str) {
        wait_for(&format!("the terminal shows {text:?}"), || {
            let mut buffer = [0; 4096];
            // The read ends if there is no data, or with EIO if no process has the terminal open.
            while let Ok(length @ 1..) = self.master.read(&mut buffer) {
                self.shown.0.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            self.shown.0.contains(text)
        });
        let end = self.shown.0.find(text).unwrap() + text.len();
        self.shown.0.drain(..end);
    }

    /// Returns the foreground process group, from the master side.
    fn foreground(&self) -> i32 {
        kapo::sys::group::foreground_of(self.master.as_fd()).unwrap()
    }

    /// Closes the master side, which hangs up the terminal.
    fn hangs_up(self) -> Kapo {
        let Session { kapo, master, .. } = self;
        drop(master);
        kapo
    }

    fn waits_for_foreground(&self, wanted: i32) {
        wait_for(&format!("{wanted} has the terminal"), || self.foreground() == wanted);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the terminal shows {:?}", self.0);
        }
    }
}

/// Returns bash without start-up files.
fn shell() -> Command {
    let mut command = clean("bash");
    command.args(["--norc", "--noprofile", "--noediting", "-i"]);
    command
}

/// Returns the shell command line for kapo with these arguments.
fn line(words: &str) -> String {
    format!("{} -q -i {} {words}\n", binary().display(), unused_name())
}

/// Starts `kapo run WORDS` as the leader of its session.
fn leader(words: &[&str]) -> Session {
    let mut command = clean(binary());
    command.args(["-q", "-i", &unused_name(), "run"]).args(words);
    Session::start(command)
}

fn children_of(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn child_of(pid: i32) -> Option<i32> {
    children_of(pid).first().copied()
}

fn the_child_of(pid: i32) -> i32 {
    let mut child = None;
    wait_for(&format!("{pid} has a child"), || {
        child = child_of(pid);
        child.is_some()
    });
    child.unwrap()
}

#[test]
fn a_shell_under_kapo_does_job_control() {
    let mut session = leader(&["--", "bash", "--norc", "--noprofile", "--noediting", "-i"]);
    session.shows("outer> ");
    session.types("cat\n");
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x1a");
    session.shows("Stopped");
    session.shows("outer> ");
    session.types("jobs\n");
    session.shows("Stopped");
    session.shows("outer> ");
    session.types("fg\n");
    session.shows("fg\r\ncat\r\n");
    session.types("again\n");
    session.shows("again\r\nagain\r\n");
    session.types("\x03");
    session.shows("outer> ");
    session.types("echo $?\n");
    session.shows("\r\n130\r\n");
    session.types("exit 7\n");
    session.kapo.expect_exit(7);
}

#[test]
fn a_stop_of_a_pipeline_of_kapos_stops_every_command() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    let one = line("run -- sleep 1000").replace('\n', "");
    session.types(&format!("{one} | {}", line("run -- sleep 1001")));
    let mut kapos = Vec::new();
    wait_for("two kapos", || {
        kapos = children_of(session.kapo.pid());
        kapos.len() == 2
    });
    let commands: Vec<i32> = kapos.iter().map(|kapo| the_child_of(*kapo)).collect();
    wait_for("a command has the terminal", || commands.contains(&session.foreground()));
    wait_for("both run", || commands.iter().all(|pid| command_name(*pid) == "sleep"));
    for _ in 0..3 {
        session.types("\x1a");
        session.shows("Stopped");
        session.shows("outer> ");
        let all = || kapos.iter().chain(&commands);
        wait_for("all are stopped", || all().all(|pid| process_state(*pid) == Some('T')));
        session.types("fg\n");
        wait_for("all go on", || all().all(|pid| process_state(*pid) == Some('S')));
        wait_for("a command has the terminal", || commands.contains(&session.foreground()));
    }
    session.types("\x03");
    session.shows("outer> ");
}

/// The same holds without kapo: the kernel ignores ^Z for a session leader, because no process would continue it.
#[test]
fn a_stop_of_a_kapo_within_a_session_leader_does_nothing() {
    let (inner, name) = (binary(), unused_name());
    let words = ["-q", "-i", &name, "run", "--", "cat"];
    let mut session = leader(&[&["--", inner.to_str().unwrap()], &words[..]].concat());
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    for _ in 0..3 {
        session.types("\x1a");
        session.shows("^Z");
        session.types("again\n");
        session.shows("again\r\nagain\r\n");
    }
    session.types("\x04");
    session.kapo.expect_exit(0);
}

#[test]
fn interrupting_ends_command_and_kapo() {
    let mut session = leader(&["--", "cat"]);
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x03");
    session.kapo.expect_signal(2);
}

#[test]
fn quitting_ends_kapo_without_a_core_dump() {
    let folder = TempDir::new().unwrap();
    let mut command = clean("sh");
    let words = line("run -- cat").replace('\n', "");
    command.arg("-c").arg(format!("ulimit -S -c $(ulimit -H -c); exec {words}"));
    command.current_dir(folder.path());
    let mut session = Session::start(command);
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x1c");
    session.kapo.expect_signal(3);
}

#[test]
fn an_interrupt_breaks_the_loop_of_a_shell_around_kapo() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("script");
    for mode in ["run", "supervise"] {
        let body = format!(
            "for i in 1 2 3; do {}echo after $i; done\n",
            line(&format!("{mode} -- cat")).replace('\n', "; ")
        );
        std::fs::write(&script, &body).unwrap();
        let calls = ["bash", "sh"].map(|shell| format!("{shell} {}\n", script.display()));
        for typed in [&body, &calls[0], &calls[1]] {
            let mut session = Session::start(shell());
            session.shows("outer> ");
            session.types(typed);
            wait_for("the command has the terminal", || command_name(session.foreground()) == "cat");
            session.types("\x03");
            session.shows("outer> ");
            session.types("echo and $?\n");
            session.shows("\r\nand 130\r\n");
            session.types("exit 4\n");
            session.kapo.expect_exit(4);
        }
    }
}

#[test]
fn a_script_with_an_interrupt_trap_keeps_background_jobs() {
    let daemon = line("supervise --wait 0 -- sleep 60").replace('\n', " &\n");
    let mut command = clean("bash");
    let body = line("run -- cat");
    command.arg("-c").arg(format!("trap 'echo interrupted' INT\n{daemon}{body}echo and $?; read line"));
    let mut session = Session::start(command);
    wait_for("the command has the terminal", || command_name(session.foreground()) == "cat");
    let daemons = || -> Vec<i32> {
        let kapos = children_of(session.kapo.pid()).into_iter();
        kapos.filter(|kapo| child_of(*kapo).is_some_and(|child| command_name(child) == "sleep")).collect()
    };
    wait_for("the daemon runs", || daemons().len() == 1);
    let daemon = daemons()[0];
    let first = the_child_of(daemon);
    session.types("\x03");
    session.shows("interrupted");
    session.shows("and 130");
    wait_for("it has heard of it", || signal_mask(daemon, "ShdPnd") == 0);
    kapo::sys::signal::send(daemon, 10).unwrap();
    wait_for("it started its command again", || {
        child_of(daemon).is_some_and(|child| child != first && command_name(child) == "sleep")
    });
    kapo::sys::signal::send(daemon, 15).unwrap();
    session.types("end\n");
    session.kapo.expect_exit(0);
}

#[test]
fn the_end_of_input_reaches_the_command() {
    let mut session = leader(&["--", "cat"]);
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x04");
    session.kapo.expect_exit(0);
}

#[test]
fn a_shell_stops_and_resumes_kapo_like_any_job() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    session.types(&line("run -- cat"));
    let kapo = the_child_of(session.kapo.pid());
    let cat = the_child_of(kapo);
    session.waits_for_foreground(cat);
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    for _ in 0..3 {
        session.types("\x1a");
        session.shows("Stopped");
        session.shows("outer> ");
        assert_eq!(session.foreground(), session.kapo.pid());
        wait_for("both are stopped", || [kapo, cat].iter().all(|pid| process_state(*pid) == Some('T')));
        session.types("fg\n");
        session.waits_for_foreground(cat);
        session.types("again\n");
        session.shows("again\r\nagain\r\n");
    }
    session.types("\x03");
    session.shows("outer> ");
    assert_eq!(session.foreground(), session.kapo.pid());
    session.types("echo $?\n");
    session.shows("\r\n130\r\n");
    session.types("exit\n");
    session.kapo.expect_exit(0);
}

#[test]
fn kapo_gives_the_terminal_back_at_the_end() {
    // A shell without job control does not take the terminal back by itself.
    let mut command = clean("sh");
    command.arg("-c").arg(format!("{}read line; echo got $line", line("run -- true")));
    let mut session = Session::start(command);
    session.types("typed\n");
    session.shows("got typed");
    session.kapo.expect_exit(0);
    let mut command = clean("sh");
    command.arg("-c").arg(format!("{}read line; echo got $line", line("run -- no-such-command")));
    let mut session = Session::start(command);
    session.shows("cannot execute");
    session.types("typed\n");
    session.shows("got typed");
    session.kapo.expect_exit(0);
}

#[test]
fn in_the_background_kapo_leaves_the_terminal_alone() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    let background = line("supervise --wait 10ms -- sh -c 'exit 1'").replace('\n', " &\n");
    session.types(&background);
    session.shows("outer> ");
    let kapo = the_child_of(session.kapo.pid());
    // The command is started again and again, and the shell keeps the terminal.
    for _ in 0..200 {
        assert_eq!(session.foreground(), session.kapo.pid());
        wait_for("it has been looked at", || process_state(kapo).is_some());
    }
    session.types("echo still here\n");
    session.shows("\r\nstill here");
    session.types("kill %1; wait; exit 3\n");
    session.kapo.expect_exit(3);
}

#[test]
fn in_the_background_of_a_script_the_script_keeps_the_terminal() {
    // In a script, both share a process group, so kapo seems to be in the foreground.
    let folder = TempDir::new().unwrap();
    let flag = folder.path().join("flag");
    let daemon = line("supervise --wait 0 -- sleep 60").replace('\n', " &\n");
    let script = format!(
        "trap 'echo interrupted' INT; {daemon}until [ -e {} ]; do sleep 0.01; done; read line; echo got $line; \
         echo daemon $!; read line",
        flag.display()
    );
    let mut command = clean("bash");
    command.arg("-c").arg(script);
    let mut session = Session::start(command);
    let mut kapo = 0;
    wait_for("kapo runs its command", || {
        let children = children_of(session.kapo.pid());
        kapo = children.into_iter().find(|pid| command_name(*pid) == "kapo").unwrap_or(0);
        child_of(kapo).is_some_and(|child| command_name(child) == "sleep")
    });
    assert_eq!(session.foreground(), session.kapo.pid());
    // ^C must not reach a background job.
    session.types("\x03");
    session.shows("interrupted");
    std::fs::write(flag, "").unwrap();
    session.types("typed\n");
    session.shows("got typed");
    session.shows(&format!("daemon {kapo}"));
    assert!(child_of(kapo).is_some_and(|child| command_name(child) == "sleep"));
    kapo::sys::signal::send(kapo, 15).unwrap();
    wait_for("kapo is gone", || !lives(kapo));
    session.types("end\n");
    session.kapo.expect_exit(0);
}

#[test]
fn the_next_run_of_a_background_kapo_has_no_terminal() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    session.types(&line("supervise --wait 10ms -- sleep 0.2"));
    let kapo = the_child_of(session.kapo.pid());
    wait_for("the command runs", || child_of(kapo).is_some_and(|child| command_name(child) == "sleep"));
    session.types("\x1a");
    session.shows("Stopped");
    session.shows("outer> ");
    session.types("bg\n");
    session.shows("outer> ");
    // Wait until the command was started several times.
    let begun = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (mut last, mut changes) = (String::new(), 0);
    wait_for("it was started five times more", || {
        assert_eq!(session.foreground(), session.kapo.pid());
        let child = child_of(kapo).map(begun).unwrap_or_default();
        let start = child.split(' ').next().unwrap_or_default().to_owned();
        if !start.is_empty() && start != last {
            changes += 1;
            last = start;
        }
        changes > 5
    });
    session.types("kill %1; wait; exit 3\n");
    session.kapo.expect_exit(3);
}

#[test]
fn a_terminal_that_hangs_up_ends_command_and_kapo() {
    // There is no new run, because the terminal is gone.
    let mut command = clean(binary());
    command.args(["-q", "-i", &unused_name(), "supervise", "--wait", "0", "sleep", "60"]);
    let session = Session::start(command);
    the_child_of(session.kapo.pid());
    let mut kapo = session.hangs_up();
    kapo.expect_exit(129);
}

#[test]
fn a_terminal_that_hangs_up_ends_kapo_under_a_shell_as_well() {
    // The kernel sends HUP to the shell, and the shell sends it to its jobs.
    for background in ["\n", " &\n"] {
        let mut session = Session::start(shell());
        session.shows("outer> ");
        session.types(&line("supervise --wait 0 -- sleep 60").replace('\n', background));
        let kapo = the_child_of(session.kapo.pid());
        the_child_of(kapo);
        let mut shell = session.hangs_up();
        wait_for("kapo is gone", || !lives(kapo));
        wait_for("the shell is gone", || shell.try_wait().is_some());
    }
}

#[test]
fn a_terminal_that_hangs_up_ends_kapo_in_a_script_as_well() {
    // The shell sends HUP to its jobs, but it did not start this kapo. kapo can reach the terminal only by its name.
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("script");
    for silent in ["", " </dev/null >/dev/null 2>&1"] {
        let body = line("supervise --wait 0 -- sleep 60").replace('\n', silent);
        std::fs::write(&script, format!("{body}\n:\n")).unwrap();
        let mut session = Session::start(shell());
        session.shows("outer> ");
        session.types(&format!("sh {}\n", script.display()));
        let kapo = the_child_of(the_child_of(session.kapo.pid()));
        let command = the_child_of(kapo);
        session.waits_for_foreground(command);
        let mut shell = session.hangs_up();
        wait_for("kapo is gone", || !lives(kapo));
        wait_for("the shell is gone", || shell.try_wait().is_some());
    }
}

#[test]
fn a_hang_up_ends_kapo_while_the_command_has_the_terminal() {
    let mut command = clean(binary());
    command.args(["-q", "-i", &unused_name(), "supervise", "--setsid", "--wait", "0", "sleep", "60"]);
    let session = Session::start(command);
    let child = the_child_of(session.kapo.pid());
    session.waits_for_foreground(child);
    let mut kapo = session.hangs_up();
    kapo.expect_exit(129);
}

#[test]
fn under_setsid_the_command_has_the_terminal_for_itself() {
    let mut session = leader(&["--setsid", "--", "bash", "--norc", "--noprofile", "--noediting", "-i"]);
    session.shows("outer> ");
    session.types("cat\n");
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x1a");
    session.shows("Stopped");
    session.types("exit\n");
    session.shows("stopped jobs");
    session.types("exit 5\n");
    session.kapo.expect_exit(5);
}

#[test]
fn in_a_pid_namespace_the_command_gets_the_terminal() {
    // unshare keeps the process group, whose number is not valid inside the namespace.
    let mut probe = Command::new("unshare");
    let probed = probe.args(["--fork", "--pid", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    if !probed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no PID namespace can be made here");
        return;
    }
    let mut session = Session::start(shell());
    session.shows("outer> ");
    session.types(&format!("unshare --fork --pid --mount-proc {}", line("run -- cat")));
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x03");
    session.shows("outer> ");
    session.types("echo $?\n");
    session.shows("\r\n130\r\n");
    session.types("exit\n");
    session.kapo.expect_exit(0);
}

#[test]
fn the_command_regains_a_terminal_that_was_not_given_back() {
    // The inner shell has made its own group the foreground group. kapo leads the session, and there is no parent that
    // would react.
    let script = "bash --norc -ic 'kill -9 $$'; echo reading; read line; echo got $line";
    let mut session = leader(&["--", "bash", "-c", script]);
    session.shows("reading");
    session.types("typed\n");
    session.shows("got typed");
    session.kapo.expect_exit(0);
}

#[test]
fn a_stopped_command_stays_stopped_if_no_parent_reacts() {
    let mut session = leader(&["--", "cat"]);
    let (kapo, cat) = (session.kapo.pid(), the_child_of(session.kapo.pid()));
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    kapo::sys::signal::send(cat, 19).unwrap();
    wait_for("it is stopped", || process_state(cat) == Some('T'));
    let told = 1 << (17 - 1);
    wait_for("kapo has heard of it", || {
        signal_mask(kapo, "ShdPnd") & told == 0 && process_state(kapo) == Some('S')
    });
    for _ in 0..200 {
        assert_eq!(process_state(cat), Some('T'));
        wait_for("it has been looked at", || lives(kapo));
    }
    kapo::sys::signal::send(cat, 18).unwrap();
    session.types("again\n");
    session.shows("again\r\nagain\r\n");
    session.types("\x03");
    session.kapo.expect_signal(2);
}

#[test]
fn a_stopped_command_on_a_terminal_ends_by_the_stop_signal() {
    // A session leader is not stopped with its command, and has already read the stop event.
    for continued in [false, true] {
        let script = "trap 'echo continued' CONT; trap 'echo term; exit 5' TERM; echo up;
                      while :; do sleep 0.01; done";
        let mut session = leader(&["bash", "-c", script]);
        session.shows("up");
        let command = the_child_of(session.kapo.pid());
        kapo::sys::signal::send(command, 19).unwrap();
        wait_for("it is stopped", || process_state(command) == Some('T'));
        if continued {
            kapo::sys::signal::send(command, 18).unwrap();
            session.shows("continued");
        }
        session.kapo.signal(15);
        session.shows("term");
        session.kapo.expect_exit(5);
    }
}

#[test]
fn started_in_the_background_kapo_gets_the_terminal_with_fg() {
    let folder = TempDir::new().unwrap();
    let mut session = Session::start(shell());
    session.shows("outer> ");
    // A command that reads the terminal while the shell has it, and is stopped for that.
    session.types(&line("run -- cat").replace('\n', " &\n"));
    session.shows("outer> ");
    let kapo = the_child_of(session.kapo.pid());
    let cat = the_child_of(kapo);
    wait_for("both are stopped", || [kapo, cat].iter().all(|pid| process_state(*pid) == Some('T')));
    session.types("fg\n");
    session.waits_for_foreground(cat);
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x03");
    session.shows("outer> ");
    // A command that reads the terminal only after kapo is in the foreground.
    let flag = folder.path().join("flag");
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exec cat", flag.display());
    session.types(&line(&format!("run -- sh -c '{script}'")).replace('\n', " &\n"));
    session.shows("outer> ");
    let kapo = the_child_of(session.kapo.pid());
    // When the command exists, it is in the background as kapo is.
    the_child_of(kapo);
    session.types("fg\n");
    session.waits_for_foreground(kapo);
    std::fs::write(flag, "").unwrap();
    session.types("again\n");
    session.shows("again\r\nagain\r\n");
    session.types("\x03");
    session.shows("outer> ");
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn kapo_is_not_stopped_again_by_its_own_stop_of_the_command() {
    // Children come and go all the time, so that TSTP and CHLD often arrive together.
    let script = "while :; do (sleep 0.001 &); (sleep 0.002 &); sleep 0.001; done";
    let mut session = Session::start(shell());
    session.shows("outer> ");
    session.types(&line(&format!("run -- sh -c '{script}'")));
    let kapo = the_child_of(session.kapo.pid());
    let command = the_child_of(kapo);
    session.waits_for_foreground(command);
    for round in 0..60 {
        kapo::sys::signal::send(kapo, 20).unwrap();
        // The command may be in the middle of a vfork, and then it does not show as stopped.
        wait_for("kapo is stopped", || process_state(kapo) == Some('T'));
        kapo::sys::signal::send(kapo, 18).unwrap();
        wait_for(&format!("both go on, round {round}"), || {
            [kapo, command].iter().all(|pid| process_state(*pid) != Some('T'))
        });
    }
    kapo::sys::signal::send(kapo, 15).unwrap();
    wait_for("kapo is gone", || !lives(kapo));
}

#[test]
fn a_script_that_calls_kapo_is_stopped_and_resumed_with_it() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, format!("#!/bin/sh\n{}echo after $?\n", line("run -- cat"))).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut session = Session::start(shell());
    session.shows("outer> ");
    session.types(&format!("{}\n", script.display()));
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    let cat = session.foreground();
    session.types("\x1a");
    session.shows("Stopped");
    session.shows("outer> ");
    session.types("fg\n");
    session.waits_for_foreground(cat);
    session.types("again\n");
    session.shows("again\r\nagain\r\n");
    session.types("\x04");
    session.shows("after 0");
    session.shows("outer> ");
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn an_interrupt_in_the_pause_after_a_handled_one_ends_kapo() {
    let mut command = clean(binary());
    let script = "trap 'exit 0' INT; echo ready; while :; do sleep 0.01; done";
    command.args(["-q", "-i", &unused_name(), "supervise", "--wait", "2", "bash", "-c", script]);
    let mut session = Session::start(command);
    for _ in 0..2 {
        session.shows("ready");
        session.types("\x03");
        session.waits_for_foreground(session.kapo.pid());
    }
    session.types("\x03");
    session.kapo.expect_signal(2);
}

/// Lets a script continue that runs `read go <PATH`. If it waited in a loop, TSTP could reach the shell in the middle
/// of a vfork, and it would never stop.
struct Gate {
    path: std::path::PathBuf,
    fifo: std::fs::File,
}

impl Gate {
    fn new(folder: &TempDir, name: &str) -> Gate {
        let path = folder.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        // Open for reading and writing, so that the open does not block.
        let fifo = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        Gate { path, fifo }
    }

    fn wait(&self) -> String {
        format!("read go <{}", self.path.display())
    }

    fn open(&mut self) {
        self.fifo.write_all(b"go\n").unwrap();
    }
}

#[test]
fn a_pager_beside_kapo_in_a_pipeline_gets_the_terminal() {
    let folder = TempDir::new().unwrap();
    let gates = ["first", "second", "third", "fourth"].map(|name| Gate::new(&folder, name));
    let [mut first, mut second, mut third, mut fourth] = gates;
    let mut session = Session::start(shell());
    session.shows("outer> ");
    // Both read the terminal, one after the other.
    let read = "read line </dev/tty; echo";
    let command = format!("{}; {read} command $line >/dev/tty; {}", second.wait(), fourth.wait());
    let pager = format!("{}; {read} pager $line; {}; {read} pager $line; cat", first.wait(), third.wait());
    let piped = format!(" | sh -c '{pager}'\n");
    session.types(&line(&format!("run -- sh -c '{command}'")).replace('\n', &piped));
    let mut kapo = 0;
    wait_for("kapo runs its command", || {
        let children = children_of(session.kapo.pid());
        kapo = children.into_iter().find(|pid| command_name(*pid) == "kapo").unwrap_or(0);
        child_of(kapo).is_some()
    });
    let command = the_child_of(kapo);
    session.waits_for_foreground(command);
    first.open();
    session.waits_for_foreground(kapo);
    session.types("one\n");
    session.shows("pager one");
    // ^Z and fg still work for the whole job, and the terminal stays where it was.
    session.types("\x1a");
    session.shows("Stopped");
    session.shows("outer> ");
    wait_for("all are stopped", || [kapo, command].iter().all(|pid| process_state(*pid) == Some('T')));
    session.types("fg\n");
    session.waits_for_foreground(kapo);
    wait_for("all go on", || [kapo, command].iter().all(|pid| process_state(*pid) != Some('T')));
    assert_eq!(session.foreground(), kapo);
    second.open();
    session.waits_for_foreground(command);
    session.types("two\n");
    session.shows("command two");
    third.open();
    session.waits_for_foreground(kapo);
    session.types("three\n");
    session.shows("pager three");
    fourth.open();
    session.shows("outer> ");
    session.types("echo and $?\n");
    session.shows("\r\nand 0\r\n");
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn a_script_with_a_pager_beside_kapo_continues() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    // The shell would see the script as stopped, and would take the terminal before kapo could give it back.
    let pager = " | sh -c 'read line </dev/tty; echo pager $line; cat'; echo script $?";
    let script = line("run -- sh -c 'sleep 0.01; echo output'").replace('\n', pager);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("script");
    std::fs::write(&path, script).unwrap();
    for _ in 0..5 {
        session.types(&format!("bash {}\n", path.display()));
        session.types("one\n");
        session.shows("pager one");
        session.shows("output");
        session.shows("script 0");
        session.shows("outer> ");
    }
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn in_a_pipeline_a_grandchild_that_reads_gets_the_terminal() {
    let read = "sh -c 'read line </dev/tty; echo got $line'";
    let nested = line(&format!("run -- {read}"));
    let through = [
        line(&format!("run -- timeout --foreground 60 {read}")),
        line(&format!("run -- {}", nested.trim_end())),
    ];
    let mut session = Session::start(shell());
    session.shows("outer> ");
    for words in &through {
        for typed in [
            words.replace('\n', " | cat\n"),
            format!("echo | {words}"),
            format!("x=$({}); echo $x\n", words.trim_end()),
        ] {
            session.types(&typed);
            wait_for("the shell has given it away", || session.foreground() != session.kapo.pid());
            session.types("hello\n");
            session.shows("got hello");
            session.shows("outer> ");
        }
    }
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn a_command_with_ignored_interrupts_gets_the_terminal() {
    let read = line("run -- sh -c 'read line </dev/tty; echo got $line'");
    // A login script that ignores interrupts, and a job that asks for a password.
    for script in [format!("trap '' INT QUIT\n{read}"), read.replace('\n', " &\nwait\n")] {
        let mut command = clean("bash");
        command.arg("-c").arg(script);
        let mut session = Session::start(command);
        session.types("typed\n");
        session.shows("got typed");
        session.kapo.expect_exit(0);
    }
}

#[test]
fn a_background_sibling_that_reads_stops_the_whole_job() {
    let mut session = Session::start(shell());
    session.shows("outer> ");
    let folder = TempDir::new().unwrap();
    let mut gate = Gate::new(&folder, "gate");
    let kapo_cat = line("run -- cat").replace('\n', " &\n");
    session.types(&format!("sh -c '{}; cat; exit' | {kapo_cat}", gate.wait()));
    let mut both = Vec::new();
    wait_for("kapo runs its command", || {
        both = children_of(session.kapo.pid());
        both.get(1).is_some_and(|kapo| child_of(*kapo).is_some())
    });
    let command = the_child_of(both[1]);
    gate.open();
    wait_for("all are stopped", || both.iter().chain([&command]).all(|pid| process_state(*pid) == Some('T')));
    session.types("jobs\n");
    session.shows("Stopped");
    // The typed text is displayed in front of the prompt.
    session.shows("outer> ");
    session.types("fg\n");
    session.shows("fg\r\nsh -c");
    session.shows("\r\n");
    session.types("typed\n");
    session.shows("typed\r\ntyped\r\n");
    session.types("\x04");
    session.shows("outer> ");
    session.types("exit 4\n");
    session.kapo.expect_exit(4);
}

#[test]
fn interrupting_a_command_that_handles_it_ends_supervise() {
    let mut command = clean(binary());
    let script = "trap 'exit 130' INT; echo ready; while :; do sleep 0.01; done";
    command.args(["-q", "-i", &unused_name(), "supervise", "--wait", "0", "bash", "-c", script]);
    let mut session = Session::start(command);
    session.shows("ready");
    session.types("\x03");
    session.kapo.expect_exit(130);
}

#[test]
fn the_logs_on_a_terminal_have_colours_and_no_other_sequences() {
    let script = "printf 'one\\n\\033[2J\\033[31mred\\033[m\\r\\377\\n'; exec sleep 60";
    let kapo = Kapo::start(["-S", "--tail", "4K", "run", "sh", "-c", script]);
    wait_for("it has spoken", || kapo.get("/logs").body.contains("red"));
    let url = format!("http://{}", kapo.address());
    for words in [&["logs"][..], &["logs", "--follow"]] {
        let mut command = clean(binary());
        command.args(words).arg(&url);
        let mut session = Session::start(command);
        session.shows("one\r\n\\u{1b}[2J\u{1b}[31mred\u{1b}[m\\r\\xff\r\n");
        if words.len() == 1 {
            session.shows("\u{1b}[0m");
        }
    }
}

#[test]
fn the_verdict_has_a_colour_unless_no_color_is_set() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let url = format!("http://{}", kapo.address());
    for (no_color, shown) in [("", "\u{1b}[32msleep: running for "), ("1", "sleep: running for ")] {
        let mut command = clean(binary());
        command.args(["status", &url]).env("NO_COLOR", no_color);
        let mut session = Session::start(command);
        session.shows(shown);
        if no_color == "1" {
            session.shows("state");
            assert!(!session.shown.0.contains('\u{1b}'));
        }
    }
}
