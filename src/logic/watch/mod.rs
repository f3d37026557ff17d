//! Keeps the table of the processes that `watch` reports on. The driver reports what scans of /proc and pidfds show;
//! the table decides which processes to read next and builds the status document.
//!
//! A process is found in three steps. A scan lists it ([`WatchEvent::Listed`]). If [`ScanCache`] does not know it, its
//! name is read ([`WatchEvent::Named`]); if that name is new and is not NAME, its arguments and executable are read
//! too ([`WatchEvent::AllNames`]). The first scan reads all of this at once, and the age of each process. A match is
//! opened ([`WatchEvent::Opened`]), and only what is read while a pidfd protects the pid from reuse counts.
//!
//! From then on, pid and start time identify the process, and the pidfd reports its end. Without a pidfd, every scan
//! reads the process again. A match ends if it executes a program that does not match, but not if it changes its name.

mod document;
pub(crate) mod event;
pub(crate) mod matching;
mod names;
pub(crate) mod report;
pub(crate) mod scan_cache;
mod scan_schedule;

use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

use super::history::History;
use super::{Exit, Now, ProcessId};
use crate::config;
use crate::logic::sorted::SortedMap;
pub(crate) use crate::logic::watch::event::{Image, Note, WatchEffect, WatchEvent};
pub(crate) use crate::logic::watch::matching::ProcessNames;
use crate::logic::watch::matching::Rule;
use crate::logic::watch::names::WatchedName;
use crate::logic::watch::scan_cache::ScanCache;

/// A living process that matches.
#[derive(Clone, Copy, Debug)]
struct Match {
    /// The index of the name that it matches.
    name: usize,
    ticks: u64,
    /// The program that it executed at the last match; `None` if unknown.
    image: Option<Image>,
    start: SystemTime,
    guarded: bool,
    /// Whether the running scan has listed it.
    listed: bool,
}

/// The process of a name that ended last.
#[derive(Clone, Copy, Debug)]
struct LastEnd {
    pid: ProcessId,
    start: SystemTime,
    end: SystemTime,
    exit: Option<Exit>,
    /// Whether its pidfd is still open, because it may still report the exit.
    open: bool,
    /// Whether the exit became known after the end.
    corrected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanPhase {
    /// No scan is due until an event asks for one.
    Resting,
    /// The next scan, or the next check of the `--pid` process, is due at this time.
    Waiting(Instant),
    Scanning,
}

/// The table of watched processes.
#[derive(Debug)]
pub(crate) struct Watch {
    names: Vec<WatchedName>,
    only: Option<ProcessId>,
    own: Option<ProcessId>,
    wait: Duration,
    events: bool,
    born: Instant,
    all_read: Option<Instant>,
    comm_read: Option<Instant>,
    /// Whether the scan that has begun must list all processes.
    whole: bool,
    /// The pids that were given out last when the previous scan began, and the one before it.
    last_pids: [Option<ProcessId>; 2],
    /// When the pause after the last scan ends.
    rested: Option<Instant>,
    /// Whether an event has asked for a scan.
    wanted: bool,
    phase: ScanPhase,
    seen: ScanCache,
    living: SortedMap<ProcessId, Match>,
    unguarded: usize,
    /// The ended processes of all names, if there are several.
    all: History,
    changed: bool,
}

impl Watch {
    /// Creates an empty table. `own` is the pid of kapo in /proc, which never matches; `rules` compare processes
    /// with the names.
    pub(crate) fn new(
        config: &config::WatchOptions,
        rules: Vec<Rule>,
        own: Option<ProcessId>,
        history: usize,
        now: Now,
    ) -> Watch {
        let named = |(at, rule): (usize, Rule)| {
            let command = config
                .names
                .get(at)
                .map_or_else(String::new, |name: &OsString| name.to_string_lossy().into_owned());
            WatchedName::new(rule, command, history)
        };
        Watch {
            names: rules.into_iter().enumerate().map(named).collect(),
            only: config.pid.and_then(ProcessId::new),
            own,
            wait: config.wait,
            events: config.process_events,
            born: now.mono,
            all_read: None,
            comm_read: None,
            whole: true,
            last_pids: [None; 2],
            rested: None,
            wanted: false,
            phase: ScanPhase::Resting,
            seen: ScanCache::default(),
            living: SortedMap::new(),
            unguarded: 0,
            all: History::new(history),
            changed: true,
        }
    }

    /// Handles one event and appends the resulting effects to `out`.
    pub(crate) fn handle(&mut self, now: Now, event: WatchEvent<'_>, out: &mut Vec<WatchEffect>) {
        match event {
            WatchEvent::Start => self.begin(now, out),
            WatchEvent::Deadline => {
                if self.deadline().is_some_and(|at| at <= now.mono) {
                    self.begin(now, out);
                }
            }
            WatchEvent::Listed { pid, mark } => self.listed(pid, mark, out),
            WatchEvent::Scanned => self.scanned(now, out),
            WatchEvent::ScanFailed => {
                self.seen.abort();
                // Processes that were listed but not read count as seen, so everything must be read again.
                self.all_read = None;
                self.wanted = true;
                self.phase = ScanPhase::Resting;
                self.schedule(now);
            }
            WatchEvent::Named { pid, comm } => {
                // This call also stores the name, so it comes before the comparison.
                let kept = self.seen.has_kept_its_name(pid, comm, 0);
                if self.accepts(pid, &|rule| rule.matches_comm(comm)) {
                    self.candidate(pid, out);
                } else if !kept {
                    out.push(WatchEffect::ReadAllNames { pid, age: false });
                }
            }
            WatchEvent::AllNames { pid, age, names } => {
                self.seen.has_kept_its_name(pid, names.comm, age);
                if self.accepts(pid, &|rule| rule.matches(&names)) {
                    self.candidate(pid, out);
                } else if self.living.contains_key(&pid) {
                    // The program that it executes now decides.
                    out.push(WatchEffect::Open(pid));
                } else if names.cmdline.is_empty() && !names.exe.is_empty() {
                    // The process is in the middle of an exec, and its new arguments are not there yet.
                    self.seen.forget(pid);
                }
            }
            WatchEvent::Opened { pid, ticks, image, start, guarded, names } => {
                let process = Match { name: 0, ticks, image, start, guarded, listed: true };
                self.opened(now, pid, process, &names, out);
            }
            WatchEvent::Vanished { pid } => {
                if let Some(process) = self.living.get(&pid) {
                    // A guarded process has a pidfd, which will report the end and how the process ended.
                    if !process.guarded {
                        self.end(now, pid, None, true, out);
                    }
                } else if self.only == Some(pid) && !self.has_found() {
                    // A later process with this pid is a different process.
                    out.push(WatchEffect::Note(Note::Absent(pid)));
                }
            }
            WatchEvent::Ended { pid, exit, reaped } => self.ended(now, pid, exit, reaped, out),
            // A forked child is read although it equals its parent, because the parent may have ended unread (a daemon).
            WatchEvent::Forked { pid } | WatchEvent::Executed { pid } => self.look(pid, out),
            WatchEvent::Renamed { pid } => {
                if !self.living.contains_key(&pid) {
                    self.look(pid, out);
                }
            }
            WatchEvent::Missed => {
                // A lost event may be the renaming of a process that has been known for long.
                self.all_read = None;
                self.wanted = true;
                if self.phase == ScanPhase::Resting {
                    // Scan at once, but keep the pause between scans if forks come faster than their events can be
                    // read.
                    self.phase = ScanPhase::Waiting(self.rested.map_or(now.mono, |at| at.max(now.mono)));
                }
            }
            WatchEvent::EventsUnavailable => {
                self.events = false;
                if self.phase == ScanPhase::Resting {
                    self.schedule(now);
                }
            }
        }
    }

    /// Returns when [`WatchEvent::Deadline`] is due; `None` if there is no deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            ScanPhase::Waiting(at) => Some(at),
            ScanPhase::Resting | ScanPhase::Scanning => None,
        }
    }

    /// Whether at least one process matches, which is the answer to the probes.
    pub(crate) fn lives(&self) -> bool {
        !self.living.is_empty()
    }

    /// Whether [`Watch::status`] has changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn listed(&mut self, pid: ProcessId, mark: u32, out: &mut Vec<WatchEffect>) {
        if Some(pid) == self.own {
            return;
        }
        let read = self.seen.must_read(pid, mark);
        if self.unguarded > 0
            && let Some(process) = self.living.get_mut(&pid).filter(|p| !p.guarded)
        {
            process.listed = true;
            out.push(WatchEffect::Open(pid));
        } else if read {
            let age = self.seen.is_first();
            let all = self.seen.reads_everything();
            out.push(if all { WatchEffect::ReadAllNames { pid, age } } else { WatchEffect::ReadName(pid) });
        }
    }

    fn scanned(&mut self, now: Now, out: &mut Vec<WatchEffect>) {
        self.seen.finish();
        if self.unguarded > 0 {
            let gone: Vec<ProcessId> =
                self.living.iter().filter(|(_, p)| !p.guarded && !p.listed).map(|(pid, _)| *pid).collect();
            for pid in gone {
                self.end(now, pid, None, true, out);
            }
        }
        self.schedule(now);
    }

    fn candidate(&mut self, pid: ProcessId, out: &mut Vec<WatchEffect>) {
        if Some(pid) != self.own && !self.living.contains_key(&pid) {
            out.push(WatchEffect::Open(pid));
        }
    }

    /// Reads the process that a process event names.
    fn look(&self, pid: ProcessId, out: &mut Vec<WatchEffect>) {
        if self.only.is_none() && Some(pid) != self.own {
            out.push(WatchEffect::ReadAllNames { pid, age: false });
        }
    }

    fn opened(
        &mut self,
        now: Now,
        pid: ProcessId,
        process: Match,
        names: &ProcessNames<'_>,
        out: &mut Vec<WatchEffect>,
    ) {
        let known = self.living.get(&pid).copied();
        if known.is_some_and(|k| k.ticks != process.ticks) {
            self.end(now, pid, None, true, out);
        }
        match known.filter(|k| k.ticks == process.ticks) {
            Some(before) => {
                let matches = self.only.is_some() || self.has_rule(before.name, &|rule| rule.matches(names));
                // A pidfd that was opened earlier is still open.
                let guarded = process.guarded || before.guarded;
                self.unguarded -= usize::from(!before.guarded);
                self.unguarded += usize::from(!guarded);
                let image = if matches { process.image } else { before.image };
                self.living.insert(pid, Match { name: before.name, image, guarded, ..process });
                let executed = before.image.zip(process.image).is_some_and(|(old, new)| old != new);
                if !matches && executed {
                    self.end(now, pid, None, true, out);
                }
            }
            // The pid of `--pid` now belongs to another process.
            None if self.only.is_some() && self.has_found() => out.push(WatchEffect::Close(pid)),
            None => match self.matching(names) {
                Some(name) => self.adopt(pid, Match { name, ..process }, names, out),
                None => out.push(WatchEffect::Close(pid)),
            },
        }
        if self.phase == ScanPhase::Resting {
            self.schedule(now);
        }
    }

    fn adopt(
        &mut self,
        pid: ProcessId,
        process: Match,
        names: &ProcessNames<'_>,
        out: &mut Vec<WatchEffect>,
    ) {
        for (at, name) in self.names.iter_mut().enumerate() {
            // The last one is no longer shown. Its pidfd stays if its pid now belongs to the new process.
            if let Some(last) = &mut name.last
                && (at == process.name || last.pid == pid)
                && std::mem::take(&mut last.open)
                && last.pid != pid
            {
                out.push(WatchEffect::Close(last.pid));
            }
        }
        if let Some(name) = self.names.get_mut(process.name) {
            if name.command.is_empty() {
                name.command = String::from_utf8_lossy(names.comm).into_owned();
            }
            name.found += 1;
            name.living += 1;
        }
        self.unguarded += usize::from(!process.guarded);
        self.living.insert(pid, process);
        self.changed = true;
        out.push(WatchEffect::Note(Note::Found(process.name, pid)));
    }

    fn ended(
        &mut self,
        now: Now,
        pid: ProcessId,
        exit: Option<Exit>,
        reaped: bool,
        out: &mut Vec<WatchEffect>,
    ) {
        if self.living.contains_key(&pid) {
            self.end(now, pid, exit, reaped, out);
            return;
        }
        let open = |name: &WatchedName| name.last.is_some_and(|last| last.open && last.pid == pid);
        let Some(at) = self.names.iter().position(open) else { return };
        let Some(last) = self.names.get_mut(at).and_then(|name| name.last.as_mut()) else { return };
        let told = exit.is_some() && last.exit != exit;
        if told {
            (last.exit, last.corrected) = (exit, true);
            self.changed = true;
        }
        if reaped {
            last.open = false;
            out.push(WatchEffect::Close(pid));
        }
        let last = *last;
        if told {
            self.record(at, last);
        }
        if reaped {
            self.look_again(pid, out);
        }
    }

    /// Removes the process from the table. `over` means that no further event can come for it.
    fn end(&mut self, now: Now, pid: ProcessId, exit: Option<Exit>, over: bool, out: &mut Vec<WatchEffect>) {
        let Some(process) = self.living.remove(&pid) else { return };
        self.unguarded -= usize::from(!process.guarded);
        // Keep at most one pidfd of a name open after the end, that of the process that is shown, so that thousands of zombies
        // cost nothing.
        let Some(name) = self.names.get_mut(process.name) else { return };
        name.living -= 1;
        let open = process.guarded && !over && name.living == 0;
        if process.guarded && !open {
            out.push(WatchEffect::Close(pid));
        }
        if let Some(last) = name.last.filter(|last| last.open && last.pid != pid) {
            out.push(WatchEffect::Close(last.pid));
        }
        let last = LastEnd { pid, start: process.start, end: now.wall, exit, open, corrected: false };
        name.last = Some(last);
        self.record(process.name, last);
        self.changed = true;
        out.push(WatchEffect::Note(Note::Ended(process.name, pid, exit)));
        self.look_again(pid, out);
    }

    /// Adds an end to the histories that show it, or corrects its entry there.
    fn record(&mut self, at: usize, last: LastEnd) {
        let Some(name) = self.names.get(at) else { return };
        let mut run = self.past_run(name, last);
        run.command = self.has_several_names().then(|| name.command.as_str().into());
        let all = self.has_several_names().then_some(&mut self.all);
        for history in self.names.get_mut(at).map(|name| &mut name.history).into_iter().chain(all) {
            match history.last() {
                Some(newest)
                    if last.corrected && newest.pid == run.pid && newest.end_time == run.end_time =>
                {
                    history.correct_last(run.clone());
                }
                // Another name has had an end since.
                _ if last.corrected => {}
                _ => history.ended(run.clone(), document::episode_effect(last.exit)),
            }
        }
    }

    /// Whether any process has matched so far.
    fn has_found(&self) -> bool {
        self.names.iter().any(|name| name.found > 0)
    }

    /// Reads the pid again: it may already belong to a new process, whose scan entry or process event came while the
    /// table still had the old one.
    fn look_again(&mut self, pid: ProcessId, out: &mut Vec<WatchEffect>) {
        self.seen.forget(pid);
        if self.events {
            self.look(pid, out);
        }
    }
}

#[cfg(test)]
mod tests;
