//! Carries out the effects of [`Watch`]: scans in slices, pidfds, process events. All descriptors are in an epoll
//! instance of their own, so that the loop has one descriptor and one token, however many processes are watched.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Resource, getrlimit, pidfd_open};

use crate::config;
use crate::driver::proc::procfs;
use crate::driver::proc::procfs::{Listing, ProcView};
use crate::driver::watch::process_events::ProcessEvents;
use crate::error::{Error, reason};
use crate::logic::proc::stat;
use crate::logic::proc::stat::Stat;
use crate::logic::sorted::SortedMap;
use crate::logic::status::Status;
use crate::logic::watch::matching::Rule;
use crate::logic::watch::{Image, Note, ProcessNames, Watch, WatchEffect, WatchEvent};
use crate::logic::{Now, ProcessId};
use crate::sys::{clock, pidfd};

/// The budget of one turn, in units of about a microsecond.
const SLICE: u32 = 2_000;
// The cost of each step, measured with 5,000 processes.
const LISTED: u32 = 1;
const NAME: u32 = 8;
const ALL_NAMES: u32 = 25;
const OPEN: u32 = 60;

/// The epoll data of the process connector. A pidfd has its pid in the lower half, which is never 0.
const EVENTS: u64 = 0;

/// The pidfd of a watched process.
#[derive(Debug)]
struct WatchedPidfd {
    fd: OwnedFd,
    ticks: u64,
    /// Distinguishes this pidfd from an earlier one: an event may come after its pidfd was closed, and the pid may have been
    /// reused.
    serial: u32,
}

/// Connects [`Watch`] with /proc, pidfds and process events.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Watch,
    io: WatchIo,
    effects: Vec<WatchEffect>,
    listing: Option<Listing>,
}

/// The state that the effects work on.
#[derive(Debug)]
struct WatchIo {
    epoll: OwnedFd,
    events: Option<ProcessEvents>,
    guards: SortedMap<ProcessId, WatchedPidfd>,
    /// The maximum number of pidfds, because connections need descriptors too.
    most: usize,
    serial: u32,
    view: ProcView,
    /// The time of boot; read once a turn.
    boot: Option<SystemTime>,
    budget: u32,
    /// Whether a read failed because descriptors or memory ran out.
    starved: bool,
}

impl Watcher {
    /// Opens what watching needs. The caller should raise the limit of open files first, and call [`Watcher::turn`] at
    /// once afterwards, because that call starts the first scan.
    pub(crate) fn open(
        config: &config::WatchOptions,
        history: usize,
        now: Now,
        note: &mut dyn FnMut(Note),
    ) -> Result<Watcher, Error> {
        let view = procfs::view()?;
        let own = ProcessId::from(rustix::process::getpid().as_raw_nonzero());
        if let Some(pid) = config.pid.and_then(ProcessId::new)
            && Some(pid) == view.own.or(Some(own))
        {
            return Err(Error::Usage(format!("--pid {pid} is kapo itself")));
        }
        let refused = |errno: Errno| Error::setup("watch", "processes", reason(&errno.into()));
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut io = WatchIo {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused)?,
            events: None,
            guards: SortedMap::new(),
            most: usize::try_from(limit / 2).unwrap_or(usize::MAX),
            serial: 0,
            view,
            boot: None,
            budget: 0,
            starved: false,
        };
        // With --pid alone, no NAME is compared.
        let names = if config.names.is_empty() { &[OsString::new()] } else { config.names.as_slice() };
        let rules = names.iter().map(|name| rule(name)).collect();
        let mut watch = Watch::new(config, rules, view.own, history, now);
        let mut effects = Vec::new();
        if config.process_events && config.pid.is_none() {
            match io.subscribe() {
                Ok(()) => {}
                Err(why) => {
                    note(Note::Scanning(why));
                    watch.handle(now, WatchEvent::EventsUnavailable, &mut effects);
                }
            }
        }
        watch.handle(now, WatchEvent::Start, &mut effects);
        let mut watcher = Watcher { watch, io, effects, listing: None };
        if let Some(pid) = config.pid {
            // kapo does not wait for the process of `--pid`: a later process with this pid is a different one.
            let mut absent = false;
            watcher.work(now, &mut |found| match found {
                Note::Absent(_) => absent = true,
                found => note(found),
            });
            if absent {
                return Err(Error::setup("watch", format!("--pid {pid}"), "No such process"));
            }
        }
        Ok(watcher)
    }

    /// Returns the table of the processes.
    pub(crate) fn table(&self) -> &Watch {
        &self.watch
    }

    /// Does the work that is due, for a few milliseconds at most. Call this when [`Watcher::as_fd`] is readable, when
    /// [`Watcher::deadline`] has passed, and again in the next turn, without waiting, if it returned `true`. A call
    /// without a reason does no harm.
    pub(crate) fn turn(&mut self, now: Now, note: &mut dyn FnMut(Note)) -> bool {
        (self.io.budget, self.io.boot) = (SLICE, None);
        let more = self.listen(now, note);
        self.watch.handle(now, WatchEvent::Deadline, &mut self.effects);
        self.work(now, note);
        if self.listing.is_none() && std::mem::take(&mut self.io.starved) {
            // A process event for a process that could not be read is treated as lost.
            self.watch.handle(now, WatchEvent::Missed, &mut self.effects);
        }
        self.scan(now, note);
        more || self.listing.is_some()
    }

    /// Returns when [`Watcher::turn`] must be called next; `None` if there is no deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.watch.deadline()
    }

    /// Whether [`Watcher::status`] has changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        self.watch.take_changed()
    }

    /// Returns the status document; see [`Watch::status`].
    pub(crate) fn status(&self) -> Vec<Status> {
        self.watch.status()
    }

    /// Whether at least one process matches, which is the answer to the probes.
    pub(crate) fn lives(&self) -> bool {
        self.watch.lives()
    }

    /// Reads process events and pidfds. Process events come first, so that a fork is handled before the end of the
    /// parent.
    fn listen(&mut self, now: Now, note: &mut dyn FnMut(Note)) -> bool {
        let mut more = false;
        if let Some(events) = self.io.events.take() {
            more = !events.drain(64, |event| self.watch.handle(now, event, &mut self.effects));
            self.io.events = Some(events);
            self.work(now, note);
        }
        let mut batch = [const { MaybeUninit::uninit() }; 64];
        // The registrations are edge-triggered, because the pidfd of a zombie stays readable until it is reaped.
        let Ok((ready, room)) = epoll::wait(&self.io.epoll, &mut batch, Some(&Timespec::default())) else {
            return more;
        };
        more |= room.is_empty();
        for event in ready.iter() {
            let (data, flags) = (event.data.u64(), event.flags);
            if let Some((pid, ended)) = self.io.ended(data, flags) {
                let event = WatchEvent::Ended { pid, exit: ended.0, reaped: ended.1 };
                self.watch.handle(now, event, &mut self.effects);
            }
        }
        self.work(now, note);
        more
    }

    /// Carries out effects until none is left.
    fn work(&mut self, now: Now, note: &mut dyn FnMut(Note)) {
        let mut at = 0;
        while let Some(effect) = self.effects.get(at).copied() {
            at += 1;
            match effect {
                // If the list cannot be opened, the next slice reports a failed scan.
                WatchEffect::Scan => {
                    let range = self.watch.pids_to_list(self.io.last_pid());
                    self.listing = Some(Listing::of(range));
                }
                WatchEffect::Note(text) => note(text),
                WatchEffect::Close(pid) => drop(self.io.guards.remove(&pid)),
                WatchEffect::ReadName(pid) => self.io.read_name(pid, |event| {
                    self.watch.handle(now, event, &mut self.effects);
                }),
                WatchEffect::ReadAllNames { pid, age } => self.io.read_all_names(pid, age, |event| {
                    self.watch.handle(now, event, &mut self.effects);
                }),
                WatchEffect::Open(pid) => self.io.open(pid, |event| {
                    self.watch.handle(now, event, &mut self.effects);
                }),
            }
        }
        self.effects.clear();
        self.effects.shrink_to(64);
    }

    /// Runs one slice of the scan.
    fn scan(&mut self, now: Now, note: &mut dyn FnMut(Note)) {
        let Some(mut listing) = self.listing.take() else { return };
        let walked = listing.walk(|pid, mark| {
            self.io.spend(LISTED);
            self.watch.handle(now, WatchEvent::Listed { pid, mark }, &mut self.effects);
            if !self.effects.is_empty() {
                self.work(now, note);
            }
            self.io.budget > 0 && !self.io.starved
        });
        let starved = std::mem::take(&mut self.io.starved);
        match walked {
            Ok(false) if !starved => {
                self.listing = Some(listing);
                return;
            }
            Ok(true) if !starved => self.watch.handle(now, WatchEvent::Scanned, &mut self.effects),
            _ => self.watch.handle(now, WatchEvent::ScanFailed, &mut self.effects),
        }
        self.work(now, note);
    }
}

impl AsFd for Watcher {
    /// Returns a descriptor that is readable (level-triggered) while [`Watcher::turn`] has events to read. It never
    /// changes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.epoll.as_fd()
    }
}

impl WatchIo {
    fn spend(&mut self, cost: u32) {
        self.budget = self.budget.saturating_sub(cost);
    }

    /// Returns the pid that was given out last in the PID namespace of the list.
    fn last_pid(&self) -> Option<ProcessId> {
        if self.view.ours { procfs::last_pid() } else { None }
    }

    fn subscribe(&mut self) -> Result<(), &'static str> {
        if !self.view.ours {
            return Err("/proc belongs to another PID namespace");
        }
        let events = ProcessEvents::open()?;
        epoll::add(&self.epoll, &events, epoll::EventData::new_u64(EVENTS), epoll::EventFlags::IN)
            .map_err(|_| "the connector cannot be waited for")?;
        self.events = Some(events);
        Ok(())
    }

    fn read_name(&mut self, pid: ProcessId, report: impl FnOnce(WatchEvent<'_>)) {
        self.spend(NAME);
        if let Some(comm) = self.take(procfs::comm(pid, &mut [0; 80])) {
            report(WatchEvent::Named { pid, comm });
        }
    }

    /// The age is in stat, which also contains comm. Reading comm alone is 3 us cheaper.
    fn read_all_names(&mut self, pid: ProcessId, age: bool, report: impl FnOnce(WatchEvent<'_>)) {
        self.spend(ALL_NAMES);
        let mut line = [0; 1024];
        let (comm, age) = if age {
            let Some(stat) = self.take(procfs::stat(pid, &mut line)).and_then(Stat::parse) else { return };
            let [_, (up, _)] = clock::real_and_boot();
            (stat.comm, stat::age(stat.ticks, up))
        } else {
            let Some(comm) = self.take(procfs::comm(pid, &mut line)) else { return };
            (comm, 0)
        };
        let (mut line, mut link) = ([0; 1024], [MaybeUninit::uninit(); 1024]);
        let names = all_names(pid, comm, &mut line, &mut link);
        report(WatchEvent::AllNames { pid, age, names });
    }

    /// Returns what was read. A process that is gone or that kapo may not read counts as absent.
    fn take<'a>(&mut self, read: rustix::io::Result<&'a [u8]>) -> Option<&'a [u8]> {
        if let Err(error) = read {
            self.starved |= procfs::is_resource_exhaustion(error);
        }
        read.ok()
    }

    /// Opens a pidfd and reads the process. The pid cannot be reused before the pidfd reports the end of its process.
    /// So if the pidfd reports no end after the reads, they all describe the same process.
    fn open(&mut self, pid: ProcessId, report: impl FnOnce(WatchEvent<'_>)) {
        self.spend(OPEN);
        let fd = match self.pidfd(pid) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return report(WatchEvent::Vanished { pid }),
            // Without a pidfd (refused, or no free descriptor), scans watch the process.
            Err(_) => None,
        };
        let mut line = [0; 1024];
        let read = procfs::stat(pid, &mut line);
        let unknown = read.is_err_and(procfs::is_resource_exhaustion);
        let Some(stat) = self.take(read).and_then(Stat::parse).filter(Stat::lives) else {
            if !unknown {
                report(WatchEvent::Vanished { pid });
            }
            return;
        };
        let (mut line, mut link) = ([0; 1024], [MaybeUninit::uninit(); 1024]);
        let names = all_names(pid, stat.comm, &mut line, &mut link);
        if fd.as_ref().is_some_and(has_ended) {
            return report(WatchEvent::Vanished { pid });
        }
        let guarded = fd.is_some_and(|fd| self.guard(pid, fd, stat.ticks));
        let boot = *self.boot.get_or_insert_with(procfs::boot_time);
        report(WatchEvent::Opened {
            pid,
            ticks: stat.ticks,
            image: Image::of(stat.start_stack, names.cmdline),
            start: stat::start_time(boot, stat.ticks),
            guarded,
            names,
        });
    }

    fn pidfd(&self, pid: ProcessId) -> Result<Option<OwnedFd>, Errno> {
        // Replace an existing pidfd, because it may belong to an earlier process with the same pid.
        if !self.view.ours || (self.guards.len() >= self.most && !self.guards.contains_key(&pid)) {
            return Ok(None);
        }
        match rustix::process::Pid::from_raw(pid.get()) {
            Some(pid) => pidfd_open(pid, PidfdFlags::empty()).map(Some),
            None => Ok(None),
        }
    }

    fn guard(&mut self, pid: ProcessId, fd: OwnedFd, ticks: u64) -> bool {
        self.serial = self.serial.wrapping_add(1);
        let data = u64::from(self.serial) << 32 | u64::from(pid.get().unsigned_abs());
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        if epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(data), flags).is_err() {
            return false;
        }
        self.guards.insert(pid, WatchedPidfd { fd, ticks, serial: self.serial });
        true
    }

    /// Converts a pidfd event: the process, its exit, and whether this was the last event.
    fn ended(
        &self,
        data: u64,
        flags: epoll::EventFlags,
    ) -> Option<(ProcessId, (Option<crate::logic::Exit>, bool))> {
        let pid = i32::try_from(data & 0xffff_ffff).ok().and_then(ProcessId::new)?;
        let guard = self.guards.get(&pid).filter(|g| u64::from(g.serial) == data >> 32)?;
        let reaped = flags.contains(epoll::EventFlags::HUP);
        match pidfd::exit_status(guard.fd.as_fd()) {
            Ok(Some(status)) => Some((pid, (stat::exit(status), true))),
            Ok(None) if reaped => Some((pid, (None, true))),
            told => {
                // The process was not reaped yet: a zombie shows its wait status to processes that may trace it.
                let mut line = [0; 1024];
                let stat = procfs::stat(pid, &mut line).ok().and_then(Stat::parse);
                let exit = stat.filter(|stat| stat.ticks == guard.ticks).and_then(|stat| stat.exit());
                Some((pid, (exit, reaped || told.is_err())))
            }
        }
    }
}

/// Returns the rule for NAME. If it is a path, its symbolic links are resolved, as they are in the exe link of a
/// process.
fn rule(name: &OsStr) -> Rule {
    let path = std::path::Path::new(name);
    let resolved = if name.as_bytes().contains(&b'/') { path.canonicalize().ok() } else { None };
    Rule::new(name, resolved.as_deref().map(std::path::Path::as_os_str))
}

/// Reads the arguments and the executable of the process with this `comm`.
fn all_names<'a>(
    pid: ProcessId,
    comm: &'a [u8],
    line: &'a mut [u8; 1024],
    link: &'a mut [MaybeUninit<u8>; 1024],
) -> ProcessNames<'a> {
    ProcessNames { comm, cmdline: procfs::cmdline(pid, line), exe: procfs::exe(pid, link) }
}

/// Whether the process has ended, reaped or not.
fn has_ended(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests;
