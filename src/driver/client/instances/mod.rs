//! The kapos of a folder, each queried once or followed. Nothing here waits: an epoll instance of its own tells when
//! [`Instances::on_ready`] has something to do, and [`Instances::deadline`] when [`Instances::expire`] has. While
//! nothing changes, neither has. A turn costs as much as what has happened, however many sockets there are.

mod queries;

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::folder;
use super::query::Query;
use crate::config::InstanceState;
use crate::logic::client::ls::Instance;
use crate::sys::clock;

/// How often a socket is queried if it refuses. A living kapo refuses between bind and listen, up to 30 ms were seen.
const TRIES: u8 = 6;
/// The least time between two scans of the folder.
const RESCAN: Duration = Duration::from_millis(100);
/// A time limit that the clock cannot express.
const NEVER: Duration = Duration::from_secs(1 << 31);
/// The user data of the folder.
const FOLDER: u64 = u64::MAX;

/// What a socket waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QueryPhase {
    /// Nothing is due: its state is known.
    Settled,
    /// To be queried, when there is room.
    Queued,
    /// To be queried again after a pause.
    Pausing,
    /// The answer, which counts against the limit of queries at once.
    Asked,
    /// The answer, which does not count any more.
    Slow,
    /// To be queried again after a long time, because its backlog is full. Its state is known.
    Backlog,
}

/// One socket, or a free place.
struct Slot {
    instance: Instance,
    /// The connection. If it is open although the phase is settled, it is a stream that is followed.
    query: Option<Box<Query>>,
    /// The number of the last query, so that what belongs to an earlier one is told apart.
    serial: u32,
    phase: QueryPhase,
    /// How often the socket was queried in a row without an answer.
    tries: u8,
    /// Whether the state was set at all.
    known: bool,
    /// Whether it is in the list of changes.
    changed: bool,
    /// Whether it cannot be followed, because there is no stream or no descriptor left.
    lost: bool,
}

/// A time, and the place and number of a query that is due then. An entry is dead if the slot has another number or phase.
type Due = (Instant, u64);

impl Slot {
    fn new(instance: Instance) -> Slot {
        Slot {
            instance,
            query: None,
            serial: 0,
            phase: QueryPhase::Settled,
            tries: 0,
            known: false,
            changed: false,
            lost: false,
        }
    }
}

/// Returns the user data of a query.
fn join(place: usize, serial: u32) -> u64 {
    u64::from(serial) << 32 | u64::try_from(place).unwrap_or(u64::MAX >> 32)
}

/// Returns the place and number of a query.
#[expect(clippy::cast_possible_truncation, reason = "extracts the parts of 32 bits")]
fn split(token: u64) -> (usize, u32) {
    (token as u32 as usize, (token >> 32) as u32)
}

/// All sockets of a folder, which is the working directory.
pub(crate) struct Instances {
    folder: OwnedFd,
    epoll: OwnedFd,
    /// The changes of the folder, while its sockets are followed.
    inotify: Option<OwnedFd>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    at_once: usize,
    timeout: Duration,
    /// When all queries end, if the sockets are queried once.
    deadline: Option<Instant>,
    /// When the folder must be read again.
    rescan: Option<Instant>,
    /// No slot before this place is queued.
    next: usize,
    /// The times of those asked, slow (or with a full backlog), and pausing. In each, the earliest is first.
    dues: [VecDeque<Due>; 3],
    /// How many are asked.
    asked: usize,
    /// How many have no state yet.
    pending: usize,
    serial: u32,
    changed: Vec<usize>,
    removed: Vec<Instance>,
    /// Descriptors from this number on are left for other purposes.
    reserved: u64,
}

const ASKED: usize = 0;
const SLOWER: usize = 1;
const PAUSING: usize = 2;

impl Instances {
    /// Queries at most `at_once` sockets at the same time, besides those that are slow.
    pub(crate) fn new(folder: OwnedFd, at_once: usize, timeout: Duration) -> Result<Instances, Errno> {
        Ok(Instances {
            folder,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            inotify: None,
            slots: Vec::new(),
            free: Vec::new(),
            at_once,
            timeout,
            deadline: None,
            rescan: None,
            next: 0,
            dues: [const { VecDeque::new() }; 3],
            asked: 0,
            pending: 0,
            serial: 0,
            changed: Vec::new(),
            removed: Vec::new(),
            reserved: u64::MAX,
        })
    }

    /// Reads the folder and queries each socket once. One that has not answered within the time limit, which is the
    /// same for all, is stuck.
    pub(crate) fn query(&mut self, now: Instant) -> Result<(), Errno> {
        self.rest();
        self.deadline = Some(self.limit(now));
        self.scan(0)?;
        self.begin(now);
        Ok(())
    }

    /// Follows the stream /events of each socket, and the folder. The time limit is for each first answer. `reserve`
    /// descriptors, at most half of all, are left for other purposes.
    pub(crate) fn follow(&mut self, now: Instant, reserve: u64) -> Result<(), Errno> {
        self.rest();
        // Each stream needs a descriptor.
        let limit = getrlimit(Resource::Nofile);
        self.reserved = limit.maximum.map_or(u64::MAX, |most| most - reserve.min(most / 2));
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB;
        inotify::add_watch(&inotify, ".", changes)?;
        epoll::add(&self.epoll, &inotify, EventData::new_u64(FOLDER), EventFlags::IN)?;
        self.inotify = Some(inotify);
        self.scan(0)?;
        self.begin(now);
        Ok(())
    }

    /// Ends all queries and streams. The last states stay; after that, nothing is due.
    pub(crate) fn rest(&mut self) {
        (self.inotify, self.deadline, self.rescan) = (None, None, None);
        for place in 0..self.slots.len() {
            self.hang_up(place);
            self.enter(place, QueryPhase::Settled);
        }
        self.dues = [const { VecDeque::new() }; 3];
    }

    /// When [`Instances::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // Without room, a pause that is over changes nothing.
        let lists = if self.asked < self.at_once { PAUSING } else { SLOWER };
        let dues = self.dues.iter().take(lists + 1).filter_map(VecDeque::front);
        dues.map(|(due, _)| *due).chain(self.deadline).chain(self.rescan).min()
    }

    /// Handles what is due. Fails if the folder cannot be read any more.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<(), Errno> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            for place in 0..self.slots.len() {
                if self.slots.get(place).is_some_and(|slot| slot.phase != QueryPhase::Settled) {
                    self.hang_up(place);
                    self.settle(place, InstanceState::Stuck);
                }
            }
        }
        if self.rescan.is_some_and(|at| at <= now) {
            self.rescan = None;
            // Its mode may have changed, or it may be about to listen.
            self.scan(TRIES - 1)?;
        }
        self.begin(now);
        Ok(())
    }

    /// Handles what has arrived.
    pub(crate) fn on_ready(&mut self, now: Instant) {
        let mut buffer = [MaybeUninit::<Event>::uninit(); 64];
        let left = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut buffer, Some(&left)) else { return };
        for event in ready {
            let token = event.data.u64();
            let (place, serial) = split(token);
            if let (FOLDER, Some(inotify)) = (token, &self.inotify) {
                // Which changes does not matter, because the folder is read again.
                let mut buffer = [0; 4096];
                while rustix::io::read(inotify, &mut buffer).is_ok() {}
                self.rescan = self.rescan.or(Some(now + RESCAN));
            } else if self.slots.get(place).is_some_and(|slot| slot.serial == serial) {
                self.read(now, place);
            }
        }
        self.begin(now);
    }

    /// Waits until something has arrived or `until` has come, and handles it.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Result<(), Errno> {
        let until = self.deadline().into_iter().chain(until).min();
        let left = until.map(|until| until.saturating_duration_since(clock::monotonic()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], left.as_ref());
        let now = clock::monotonic();
        self.on_ready(now);
        self.expire(now)
    }

    /// Whether the state of each socket is known.
    pub(crate) fn is_complete(&self) -> bool {
        self.pending == 0
    }

    /// Returns a copy of all sockets whose state is known.
    pub(crate) fn copy(&self) -> Vec<Instance> {
        self.slots.iter().filter(|slot| slot.known).map(|slot| slot.instance.clone()).collect()
    }

    /// Removes the files of dead sockets.
    pub(crate) fn prune(&mut self) {
        let instances = self.slots.iter_mut().map(|slot| &mut slot.instance);
        folder::prune(&self.folder, instances);
    }

    /// Returns the socket at a place, if its state is known.
    pub(crate) fn at(&self, place: usize) -> Option<&Instance> {
        self.slots.get(place).filter(|slot| slot.known).map(|slot| &slot.instance)
    }

    /// Returns all sockets whose state is known, and ends all queries.
    pub(crate) fn into_all(self) -> Vec<Instance> {
        self.slots.into_iter().filter_map(|slot| slot.known.then_some(slot.instance)).collect()
    }

    /// Returns the places of the sockets that have changed since the last call. A place stays the same until its
    /// socket is removed from the folder.
    pub(crate) fn changed(&mut self) -> Vec<usize> {
        let changed = std::mem::take(&mut self.changed);
        for place in &changed {
            if let Some(slot) = self.slots.get_mut(*place) {
                slot.changed = false;
            }
        }
        changed
    }

    /// Whether [`Instances::changed`] or [`Instances::removed`] has something to return.
    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty()
    }

    /// Returns the sockets that were removed from the folder since the last call. The places of these may be those of
    /// other sockets now, so they are to be handled before the changes.
    pub(crate) fn removed(&mut self) -> Vec<Instance> {
        std::mem::take(&mut self.removed)
    }

    /// Returns how many kapos cannot be followed, because there is no descriptor or no stream left.
    pub(crate) fn not_followed(&self) -> usize {
        self.slots.iter().filter(|slot| slot.lost).count()
    }

    fn limit(&self, now: Instant) -> Instant {
        now.checked_add(self.timeout).unwrap_or(now + NEVER)
    }

    /// Reads the folder, adds new sockets, removes those that are gone, and queues all that have no stream.
    fn scan(&mut self, tries: u8) -> Result<(), Errno> {
        let found = folder::sockets(&self.folder)?;
        let mut known = vec![false; found.len()];
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place).filter(|slot| !slot.instance.file.is_empty()) else {
                continue;
            };
            let key = (slot.instance.file.as_slice(), slot.instance.inode);
            let same = found.binary_search_by(|(file, inode)| (file.as_slice(), *inode).cmp(&key)).ok();
            match same.and_then(|same| known.get_mut(same)) {
                Some(known) => {
                    *known = true;
                    if slot.query.is_none() && matches!(slot.phase, QueryPhase::Settled | QueryPhase::Backlog)
                    {
                        (slot.tries, slot.lost) = (tries, false);
                        self.enter(place, QueryPhase::Queued);
                    }
                }
                None => self.remove(place),
            }
        }
        for ((file, inode), _) in found.iter().zip(known).filter(|(_, known)| !known) {
            let instance = Instance::new(file, *inode);
            let place = self.free.pop().unwrap_or(self.slots.len());
            match self.slots.get_mut(place) {
                // It may still be in the list of changes.
                Some(free) => free.instance = instance,
                None => self.slots.push(Slot::new(instance)),
            }
            self.enter(place, QueryPhase::Queued);
        }
        self.next = 0;
        Ok(())
    }

    fn remove(&mut self, place: usize) {
        self.enter(place, QueryPhase::Settled);
        if let Some(slot) = self.slots.get_mut(place) {
            let old = std::mem::replace(slot, Slot::new(Instance::new(b"", 0)));
            slot.changed = old.changed;
            if old.known {
                self.removed.push(old.instance);
            }
            self.free.push(place);
        }
    }
}

impl AsFd for Instances {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
