//! `kapo ls --watch`: follows the stream /events of each socket of a folder, and the folder itself with inotify. While
//! nothing changes, nothing is done.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::exchange::{Head, parse};
use super::sweep::{LONGEST, LONGEST_HEAD, PAUSE, TRIES, connect};
use crate::config::InstanceState;
use crate::logic::client::ls::{Instance, events};
use crate::sys::clock;

/// The user data of the folder.
const FOLDER: u64 = u64::MAX;
/// The least time between two scans of the folder, and between two outputs.
const LEAST: Duration = Duration::from_millis(100);

/// HTTP/1.0, so that the stream is not divided into chunks.
const REQUEST: &[u8] =
    concat!("GET /events HTTP/1.0\r\nUser-Agent: kapo/", env!("CARGO_PKG_VERSION"), "\r\n\r\n").as_bytes();

/// One socket that is followed.
struct Followed {
    instance: Instance,
    /// The stream, if it is open.
    socket: Option<OwnedFd>,
    received: Vec<u8>,
    headed: bool,
    tries: u8,
    /// When to connect again, or to give up waiting for the first event.
    due: Option<Instant>,
    changed: bool,
}

/// The folder and its sockets.
pub(super) struct Follower {
    epoll: OwnedFd,
    inotify: OwnedFd,
    slots: Vec<Option<Followed>>,
    /// The slots that are free.
    free: Vec<usize>,
    timeout: Duration,
    /// When the folder must be read again.
    scan: Option<Instant>,
    /// When the changes must be shown.
    draw: Option<Instant>,
}

impl Follower {
    /// Follows the folder, which is the working directory. The instances were queried before.
    pub(super) fn new(instances: Vec<Instance>, timeout: Duration) -> Result<Follower, Errno> {
        // Each stream needs a descriptor.
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let changes = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&inotify, ".", changes)?;
        epoll::add(&epoll, &inotify, EventData::new_u64(FOLDER), EventFlags::IN)?;
        let now = clock::monotonic();
        let (slots, free, scan, draw) = (Vec::new(), Vec::new(), None, None);
        let mut follower = Follower { epoll, inotify, slots, free, timeout, scan, draw };
        for instance in instances {
            follower.follow(now, instance);
        }
        Ok(follower)
    }

    fn follow(&mut self, now: Instant, instance: Instance) {
        let followed = Followed {
            instance,
            socket: None,
            received: Vec::new(),
            headed: false,
            tries: 0,
            due: Some(now),
            changed: true,
        };
        self.draw = self.draw.or(Some(now + LEAST));
        match self.free.pop().and_then(|slot| self.slots.get_mut(slot)) {
            Some(slot) => *slot = Some(followed),
            None => self.slots.push(Some(followed)),
        }
    }

    /// Waits until there is something to show. `scan` reads the folder; its error ends the wait.
    pub(super) fn wait(&mut self, scan: &dyn Fn() -> Result<Vec<Instance>, Errno>) -> Result<(), Errno> {
        loop {
            let now = clock::monotonic();
            if self.scan.is_some_and(|at| at <= now) {
                self.scan = None;
                self.compare(now, scan()?);
            }
            for slot in 0..self.slots.len() {
                self.turn(now, slot);
            }
            if self.draw.is_some_and(|at| at <= now) {
                self.draw = None;
                return Ok(());
            }
            self.sleep(now);
        }
    }

    /// Returns the instances, and whether each has changed since the last call.
    pub(super) fn instances(&mut self) -> Vec<(Instance, bool)> {
        let all = self.slots.iter_mut().flatten();
        all.map(|followed| (followed.instance.clone(), std::mem::take(&mut followed.changed))).collect()
    }

    /// Returns how many kapos answer but cannot be followed.
    pub(super) fn not_followed(&self) -> usize {
        let lost = |followed: &&Followed| followed.instance.answers && followed.socket.is_none();
        self.slots.iter().flatten().filter(lost).count()
    }

    /// Compares the folder with the sockets that are followed.
    fn compare(&mut self, now: Instant, mut found: Vec<Instance>) {
        let key = |instance: &Instance| (instance.file.clone(), instance.inode);
        found.sort_unstable_by_key(key);
        let mut known = vec![false; found.len()];
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let Some(followed) = slot else { continue };
            let same = found.binary_search_by_key(&key(&followed.instance), key).ok();
            match same.and_then(|same| known.get_mut(same)) {
                Some(known) => {
                    *known = true;
                    // Its mode may have changed, or it may be about to listen.
                    if followed.socket.is_none() {
                        followed.due = Some(now);
                    }
                }
                None => {
                    *slot = None;
                    self.free.push(place);
                    self.draw = self.draw.or(Some(now + LEAST));
                }
            }
        }
        for (instance, known) in found.into_iter().zip(known) {
            if !known {
                self.follow(now, instance);
            }
        }
    }

    /// Handles the deadline of one socket.
    fn turn(&mut self, now: Instant, slot: usize) {
        let Some(Some(followed)) = self.slots.get_mut(slot) else { return };
        if followed.due.is_none_or(|due| due > now) {
            return;
        }
        followed.due = None;
        let before = followed.instance.state;
        if followed.socket.is_some() {
            // The stream stays open: it tells when a suspended kapo continues.
            followed.instance.state = InstanceState::Stuck;
        } else {
            followed.connect(now, &self.epoll, slot, self.timeout);
        }
        if followed.instance.state != before {
            followed.changed = true;
            self.draw = self.draw.or(Some(now + LEAST));
        }
    }

    /// Waits for events, or for the earliest deadline.
    fn sleep(&mut self, now: Instant) {
        let due = self.slots.iter().flatten().filter_map(|followed| followed.due).min();
        let until = [due, self.scan, self.draw].into_iter().flatten().min();
        let left = until.and_then(|until| Timespec::try_from(until.saturating_duration_since(now)).ok());
        let mut buffer = [MaybeUninit::<Event>::uninit(); 64];
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut buffer, left.as_ref()) else { return };
        let now = clock::monotonic();
        for event in ready {
            let token = event.data.u64();
            if token == FOLDER {
                self.folder_changed(now);
                continue;
            }
            let slot = usize::try_from(token).ok().and_then(|slot| self.slots.get_mut(slot));
            if let Some(Some(followed)) = slot
                && followed.read(now)
            {
                followed.changed = true;
                self.draw = self.draw.or(Some(now + LEAST));
            }
        }
    }

    /// Reads the changes of the folder. Which ones does not matter, because the folder is read again.
    fn folder_changed(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok() {}
        self.scan = self.scan.or(Some(now + LEAST));
    }
}

impl Followed {
    /// Opens the stream.
    fn connect(&mut self, now: Instant, epoll: &OwnedFd, slot: usize, timeout: Duration) {
        match connect(&self.instance.file) {
            Ok(socket) => {
                self.instance.listener = crate::sys::peer::listener(socket.as_fd());
                let _ = send(&socket, REQUEST, SendFlags::NOSIGNAL);
                let token = u64::try_from(slot).unwrap_or(FOLDER - 1);
                if epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN).is_ok() {
                    self.received.clear();
                    self.headed = false;
                    self.socket = Some(socket);
                    self.due = now.checked_add(timeout);
                }
            }
            Err(Errno::CONNREFUSED) if self.tries < TRIES => {
                self.tries += 1;
                self.due = Some(now + PAUSE);
            }
            Err(Errno::CONNREFUSED) => self.lost(InstanceState::Dead),
            // The backlog is full, or no descriptor is left.
            Err(Errno::AGAIN) => {
                self.instance.state = InstanceState::Stuck;
                self.due = now.checked_add(timeout);
            }
            Err(Errno::ACCESS | Errno::PERM) => self.lost(InstanceState::Denied),
            // The folder is read again. Without a descriptor, the state is that of the last answer.
            Err(Errno::NOENT | Errno::MFILE | Errno::NFILE) => {}
            Err(_) => self.lost(InstanceState::Foreign),
        }
    }

    /// Sets the state of a socket on which no kapo answers.
    fn lost(&mut self, state: InstanceState) {
        self.instance = Instance { state, ..Instance::new(&self.instance.file, self.instance.inode) };
    }

    /// Reads once. Returns whether something has changed.
    fn read(&mut self, now: Instant) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut buffer = [0; 16_384];
        let bytes = match recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, length)) => buffer.get(..length).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(_) => &[],
        };
        if bytes.is_empty() {
            // The kapo has ended, or closes the stream. The next connection tells.
            self.socket = None;
            (self.tries, self.due) = (0, Some(now + PAUSE));
            return false;
        }
        self.received.extend_from_slice(bytes);
        if !self.headed {
            match parse(&self.received) {
                Ok(Some(Head { status: 200, end, .. })) => {
                    self.headed = true;
                    self.received.drain(..end);
                }
                // This kapo has no stream left. The state is that of the first answer.
                Ok(Some(Head { status: 503, .. })) => {
                    (self.socket, self.due) = (None, None);
                    return true;
                }
                Ok(None) if self.received.len() <= LONGEST_HEAD => return false,
                _ => {
                    (self.socket, self.due) = (None, None);
                    self.lost(InstanceState::Foreign);
                    return true;
                }
            }
        }
        if let Some(document) = events::newest(&mut self.received) {
            self.due = None;
            self.instance.answered(&document);
            return true;
        }
        if self.received.len() > LONGEST {
            (self.socket, self.due) = (None, None);
            self.lost(InstanceState::Foreign);
            return true;
        }
        false
    }
}
