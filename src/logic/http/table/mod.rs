//! The table of connections, without their sockets: which places are taken, when each connection has its turn, which
//! deadlines there are, and what all of them take together. `eviction` decides which connection is closed to make room
//! for others, `closing` how long each may stay once kapo ends.
//!
//! The driver keeps the sockets by slot in a vector of its own. It reports the [`Facts`] of a connection after each
//! thing that it has done with it. Methods that close connections return their slots: the places are free already, and
//! the driver has to drop the sockets before it admits the next one.

mod closing;
mod eviction;
mod places;
#[cfg(any(test, fuzzing))]
pub mod world;

use std::collections::BTreeSet;
use std::time::Instant;

pub use self::closing::Farewell;
pub use self::eviction::{Relief, Shortage};
pub use self::places::{FEW, GENERATION_MASK, Key};

use self::closing::Closing;
use self::eviction::Notices;
use self::places::Places;
use super::conn::{Facts, Feed};
use super::heartbeat::Heartbeat;
use super::quota::{Quota, Share};
use super::turn::{Budget, Queue};
use crate::logic::log::record::Record;
use crate::logic::output::tail::Position;
use crate::logic::{Now, Stream};

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// It is not a Unix socket.
    pub network: bool,
    /// It was there before the command was started: handed to kapo, or in the queue of an inherited listener.
    pub given: bool,
}

/// A connection that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its place.
    pub key: Key,
    /// The slot of the connection that was evicted for it; perhaps the same.
    pub evicted: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    admission: Admission,
    /// As the driver has reported them last. The deadline is in `timers` too.
    facts: Facts,
    /// It is in the queue of those that wait for a turn.
    queued: bool,
    /// It has been answered at least once.
    served: bool,
    /// How far it was sent the captured output that it follows.
    followed: Option<Position>,
}

impl Entry {
    fn share(&self) -> Share {
        self.facts.share(self.admission.network)
    }
}

/// A turn of the loop.
#[derive(Debug)]
struct Turn {
    began: Instant,
    budget: Budget,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Table {
    places: Places<Entry>,
    limit: usize,
    timers: BTreeSet<(Instant, u32)>,
    quota: Quota,
    heartbeat: Heartbeat,
    queue: Queue<Key>,
    /// `None` before the first turn: what is admitted then is served without a limit of time.
    turn: Option<Turn>,
    closing: Option<Closing>,
    notices: Notices,
}

impl Table {
    /// An empty table for at most `limit` connections.
    pub fn new(limit: usize) -> Table {
        Table {
            places: Places::new(),
            limit,
            timers: BTreeSet::new(),
            quota: Quota::new(limit),
            heartbeat: Heartbeat::default(),
            queue: Queue::default(),
            turn: None,
            closing: None,
            notices: Notices::default(),
        }
    }

    /// The most connections that may be open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.places.taken()
    }

    /// All slots, those that are free included.
    pub fn slots(&self) -> std::ops::Range<u32> {
        0..self.places.len()
    }

    /// The key of the connection in a slot.
    pub fn key(&self, slot: u32) -> Option<Key> {
        self.places.key(slot)
    }

    /// What is to be logged, since this was asked last.
    pub fn take_notices(&mut self) -> Vec<Record> {
        self.notices.take()
    }

    /// Adds a record to what is to be logged.
    pub fn note(&mut self, record: Record) {
        self.notices.push(record);
    }

    /// Takes a connection in. If the table is full, another one is evicted for it.
    pub fn admit(&mut self, now: Now, admission: Admission, facts: Facts) -> Admitted {
        let full = self.connections() >= self.limit;
        let evicted = if full { self.make_room(now, "as many as may be are open") } else { None };
        let entry = Entry { admission, facts, queued: false, served: false, followed: None };
        let share = entry.share();
        let key = self.places.insert(entry);
        self.quota.change(Share::default(), share);
        if let Some(at) = facts.deadline {
            self.timers.insert((at, key.slot));
        }
        Admitted { key, evicted }
    }

    /// Takes in what has become of a connection. Returns the slots of those that are evicted for it: the connection
    /// itself may be among them.
    pub fn settle(&mut self, now: Now, slot: u32, facts: &Facts) -> Vec<u32> {
        let Some(entry) = self.places.get_mut(slot) else { return Vec::new() };
        let before = entry.facts.deadline;
        if facts.deadline != before {
            if let Some(at) = before {
                self.timers.remove(&(at, slot));
            }
            if let Some(at) = facts.deadline {
                self.timers.insert((at, slot));
            }
        }
        // Most connections take nothing of what all share before and after a request.
        if facts.takes_as_much_as(&entry.facts) {
            entry.facts = *facts;
            return Vec::new();
        }
        let before = entry.share();
        entry.facts = *facts;
        let after = entry.share();
        self.quota.change(before, after);
        if after.heartbeat && !before.heartbeat && self.quota.heartbeats() == 1 {
            self.heartbeat.begin(now.mono);
        }
        self.enforce_quota(now, slot, before, after)
    }

    /// The connection in a slot has ended.
    pub fn remove(&mut self, slot: u32) {
        let Some(entry) = self.places.get(slot) else { return };
        let (deadline, share) = (entry.facts.deadline, entry.share());
        self.places.remove(slot);
        if let Some(at) = deadline {
            self.timers.remove(&(at, slot));
        }
        self.quota.change(share, Share::default());
    }

    /// A turn of the loop begins: connections have some time again.
    pub fn begin_turn(&mut self, now: Now) {
        self.turn = Some(Turn { began: now.mono, budget: Budget::default() });
    }

    /// A connection is ready for what it waits for. Returns its slot if it is to be served now, because none waits
    /// before it and the turn has time left; otherwise it is queued. Nothing happens if the key is out of date.
    pub fn ready(&mut self, key: Key, clock: impl FnOnce() -> Instant) -> Option<u32> {
        let entry = self.places.of_key(key).filter(|entry| !entry.queued)?;
        let left_over = entry.facts.crowded;
        if !left_over && self.queue.has_no_fresh() && may_go_on(&mut self.turn, clock) {
            return Some(key.slot);
        }
        entry.queued = true;
        self.queue.push(key, left_over);
        None
    }

    /// The next of those that wait for a turn, as long as this one has time. `left_over_served`: see [`Queue::next`].
    pub fn next_queued(&mut self, left_over_served: &mut bool, clock: impl Fn() -> Instant) -> Option<u32> {
        loop {
            let turn = &mut self.turn;
            let key = self.queue.next(left_over_served, || may_go_on(turn, &clock))?;
            if let Some(entry) = self.places.of_key(key) {
                entry.queued = false;
                return Some(key.slot);
            }
        }
    }

    /// A request of the connection has been answered.
    pub fn answered(&mut self, slot: u32) {
        if let Some(entry) = self.places.get_mut(slot) {
            entry.served = true;
        }
    }

    /// Whether there is a connection that a change of state concerns.
    pub fn has_waiting(&self) -> bool {
        self.quota.held() > 0
    }

    /// What a connection waits for: `Some(None)` for a held request, `Some(Some(feed))` for a stream.
    pub fn waits_for(&self, slot: u32) -> Option<Option<Feed>> {
        let entry = self.places.get(slot)?;
        entry.share().held.then_some(entry.facts.feed)
    }

    /// Whether a connection follows the captured output.
    pub fn is_followed(&self) -> bool {
        self.has_waiting() && self.places.iter().any(|(_, entry)| entry.followed.is_some())
    }

    /// The stream of captured output that a connection follows (`None`: both), and how far it was sent.
    pub fn follower(&self, slot: u32) -> Option<(Option<Stream>, Position)> {
        let entry = self.places.get(slot)?;
        let Some(Feed::Logs(stream)) = entry.facts.feed else { return None };
        Some((stream, entry.followed?))
    }

    /// How far a connection was sent the captured output.
    pub fn followed(&self, slot: u32) -> Option<Position> {
        self.places.get(slot)?.followed
    }

    /// The connection was sent the captured output up to this.
    pub fn follow(&mut self, slot: u32, position: Option<Position>) {
        if let Some(entry) = self.places.get_mut(slot) {
            entry.followed = position;
        }
    }

    /// When something is due: a connection's deadline, a sign of life, the next turn for those that are queued, or the
    /// end of a connection's time once kapo closes. `None`: nothing, as things stand.
    pub fn deadline(&self) -> Option<Instant> {
        let connections = self.timers.first().map(|(at, _)| *at);
        let closing = self.closing.map(|closing| closing.next());
        let heartbeat = self.heartbeat.deadline(self.quota.heartbeats());
        let queued = self.turn.as_ref().filter(|_| !self.queue.is_empty()).map(|turn| turn.began);
        [connections, closing, heartbeat, queued].into_iter().flatten().min()
    }

    /// The connection whose deadline has passed first, and that deadline.
    pub fn due(&self, now: Now) -> Option<(Instant, u32)> {
        self.timers.first().copied().filter(|(at, _)| *at <= now.mono)
    }

    /// Whether a connection still has the deadline that was served just now: it would be served for ever.
    pub fn is_stuck(&self, due: (Instant, u32)) -> bool {
        self.timers.contains(&due)
    }

    /// True once for each sign of life that is due. Those that [`Table::is_silent`] names get it.
    pub fn beat(&mut self, now: Now) -> bool {
        self.heartbeat.is_due(now.mono, self.quota.heartbeats())
    }

    /// Whether a stream gets a sign of life: one that still has something to take is not silent.
    pub fn is_silent(&self, slot: u32) -> bool {
        self.places.get(slot).is_some_and(|entry| entry.share().heartbeat && !entry.facts.busy)
    }
}

fn may_go_on(turn: &mut Option<Turn>, clock: impl FnOnce() -> Instant) -> bool {
    turn.as_mut().is_none_or(|turn| turn.budget.allows(clock))
}

#[cfg(test)]
mod tests;
