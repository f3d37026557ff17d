//! The table of connections without their sockets: which slots are taken, when each connection is served, which
//! deadlines there are, and how much of the shared limits is used. `eviction` decides which connection is closed to
//! make room for others, `closing` how long each may stay while kapo closes.
//!
//! The driver keeps the sockets by slot in a vector of its own and reports the [`Facts`] of a connection after each
//! call on it. Methods that close connections return their slots, which are free already: the driver must drop those
//! sockets before it admits the next connection.

mod closing;
mod eviction;
mod slots;
#[cfg(any(test, fuzzing))]
pub mod world;

use std::time::Instant;

pub use self::closing::ClosingAction;
pub use self::eviction::{Relief, Shortage};
pub use self::slots::{FEW, GENERATION_MASK, Key};

use self::closing::Closing;
use self::eviction::Notices;
use self::slots::Slots;
use super::conn::{Facts, Feed};
use super::heartbeat::Heartbeat;
use super::quota::{Quota, Share};
use super::turn::{Budget, Queue};
use crate::logic::log::record::Record;
use crate::logic::output::tail::Position;
use crate::logic::sorted::SortedMap;
use crate::logic::{Now, Stream};

/// How a connection reached kapo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The socket is not a Unix socket.
    pub network: bool,
    /// It connected before the command was started: its socket was inherited, or it waited in the queue of an inherited
    /// listener.
    pub given: bool,
}

/// An admitted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The key of the connection.
    pub key: Key,
    /// The slot of the connection that was evicted for it; it may be the same slot.
    pub evicted: Option<u32>,
}

#[derive(Debug)]
struct TableEntry {
    admission: Admission,
    /// The facts that the driver reported last. Their deadline is also in `timers`.
    facts: Facts,
    /// The connection waits in the queue for a turn.
    queued: bool,
    /// At least one request was answered.
    served: bool,
    /// The position up to which this connection was sent the captured output that it follows.
    followed: Option<Position>,
}

impl TableEntry {
    fn share(&self) -> Share {
        self.facts.share(self.admission.network)
    }
}

/// The start and the time budget of a turn of the loop.
#[derive(Debug)]
struct Turn {
    began: Instant,
    budget: Budget,
}

/// The table of connections; see the head of the file.
#[derive(Debug)]
pub struct Table {
    slots: Slots<TableEntry>,
    limit: usize,
    timers: SortedMap<(Instant, u32), ()>,
    quota: Quota,
    heartbeat: Heartbeat,
    queue: Queue<Key>,
    /// `None` before the first turn: connections admitted then have no time limit.
    turn: Option<Turn>,
    closing: Option<Closing>,
    notices: Notices,
}

impl Table {
    /// Returns an empty table for at most `limit` connections.
    pub fn new(limit: usize) -> Table {
        Table {
            slots: Slots::new(),
            limit,
            timers: SortedMap::new(),
            quota: Quota::new(limit),
            heartbeat: Heartbeat::default(),
            queue: Queue::default(),
            turn: None,
            closing: None,
            notices: Notices::default(),
        }
    }

    /// Returns how many connections may be open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.slots.taken()
    }

    /// Returns all slots, including the free ones.
    pub fn slots(&self) -> std::ops::Range<u32> {
        0..self.slots.len()
    }

    /// Returns the key of the connection in a slot.
    pub fn key(&self, slot: u32) -> Option<Key> {
        self.slots.key(slot)
    }

    /// Returns the log records that have been added since the last call.
    pub fn take_notices(&mut self) -> Vec<Record> {
        self.notices.take()
    }

    /// Adds a log record.
    pub fn note(&mut self, record: Record) {
        self.notices.push(record);
    }

    /// Admits a connection. If the table is full, another one is evicted.
    pub fn admit(&mut self, now: Now, admission: Admission, facts: Facts) -> Admitted {
        let full = self.connections() >= self.limit;
        let evicted = if full { self.make_room(now, "as many as may be are open") } else { None };
        let entry = TableEntry { admission, facts, queued: false, served: false, followed: None };
        let share = entry.share();
        let key = self.slots.insert(entry);
        self.quota.change(Share::default(), share);
        if let Some(at) = facts.deadline {
            self.timers.insert((at, key.slot), ());
        }
        Admitted { key, evicted }
    }

    /// Takes the new facts of a connection. Returns the slots of the connections that are evicted because of them; the
    /// connection itself may be one of them.
    pub fn settle(&mut self, now: Now, slot: u32, facts: &Facts) -> Vec<u32> {
        let Some(entry) = self.slots.get_mut(slot) else { return Vec::new() };
        let before = entry.facts.deadline;
        if facts.deadline != before {
            if let Some(at) = before {
                self.timers.remove(&(at, slot));
            }
            if let Some(at) = facts.deadline {
                self.timers.insert((at, slot), ());
            }
        }
        // Before and after a request most connections use nothing of the shared limits.
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

    /// Removes the connection in a slot.
    pub fn remove(&mut self, slot: u32) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (deadline, share) = (entry.facts.deadline, entry.share());
        self.slots.remove(slot);
        if let Some(at) = deadline {
            self.timers.remove(&(at, slot));
        }
        self.quota.change(share, Share::default());
    }

    /// Starts a turn of the loop, with a new time budget for connections.
    pub fn begin_turn(&mut self, now: Now) {
        self.turn = Some(Turn { began: now.mono, budget: Budget::default() });
    }

    /// Handles the readiness of a connection. Returns its slot if it must be served now, because no other connection is
    /// queued and the turn has time left; otherwise it is queued. An outdated key has no effect.
    pub fn ready(&mut self, key: Key, clock: impl FnOnce() -> Instant) -> Option<u32> {
        let entry = self.slots.of_key(key).filter(|entry| !entry.queued)?;
        let left_over = entry.facts.deferred;
        if !left_over && self.queue.has_no_fresh() && may_go_on(&mut self.turn, clock) {
            return Some(key.slot);
        }
        entry.queued = true;
        self.queue.push(key, left_over);
        None
    }

    /// Returns the next queued connection as long as this turn has time. For `left_over_served` see [`Queue::next`].
    pub fn next_queued(&mut self, left_over_served: &mut bool, clock: impl Fn() -> Instant) -> Option<u32> {
        loop {
            let turn = &mut self.turn;
            let key = self.queue.next(left_over_served, || may_go_on(turn, &clock))?;
            if let Some(entry) = self.slots.of_key(key) {
                entry.queued = false;
                return Some(key.slot);
            }
        }
    }

    /// Records that a request of the connection was answered.
    pub fn answered(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.served = true;
        }
    }

    /// Whether a change of state may concern any connection.
    pub fn has_waiting(&self) -> bool {
        self.quota.held() > 0
    }

    /// Returns what a connection waits for: `Some(None)` for a held request, `Some(Some(feed))` for a stream.
    pub fn waits_for(&self, slot: u32) -> Option<Option<Feed>> {
        let entry = self.slots.get(slot)?;
        entry.share().held.then_some(entry.facts.feed)
    }

    /// Whether a connection follows the captured output.
    pub fn is_followed(&self) -> bool {
        self.has_waiting() && self.slots.iter().any(|(_, entry)| entry.followed.is_some())
    }

    /// Returns the output stream that a connection follows (`None`: both) and up to which position it was sent.
    pub fn follower(&self, slot: u32) -> Option<(Option<Stream>, Position)> {
        let entry = self.slots.get(slot)?;
        let Some(Feed::Logs(stream)) = entry.facts.feed else { return None };
        Some((stream, entry.followed?))
    }

    /// Returns up to which position a connection was sent the captured output.
    pub fn followed(&self, slot: u32) -> Option<Position> {
        self.slots.get(slot)?.followed
    }

    /// Records up to which position a connection was sent the captured output.
    pub fn follow(&mut self, slot: u32, position: Option<Position>) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.followed = position;
        }
    }

    /// Returns the earliest of all deadlines: those of connections, the next heartbeat, the next turn if a connection
    /// is queued, and the end of a grace period once kapo closes. `None` if there is none.
    pub fn deadline(&self) -> Option<Instant> {
        let connections = self.timers.first().map(|(at, _)| at);
        let closing = self.closing.map(|closing| closing.next());
        let heartbeat = self.heartbeat.deadline(self.quota.heartbeats());
        let queued = self.turn.as_ref().filter(|_| !self.queue.is_empty()).map(|turn| turn.began);
        [connections, closing, heartbeat, queued].into_iter().flatten().min()
    }

    /// Returns the earliest deadline that has passed, and its connection.
    pub fn due(&self, now: Now) -> Option<(Instant, u32)> {
        self.timers.first().filter(|(at, _)| *at <= now.mono)
    }

    /// Whether a connection still has the deadline that was just handled. The driver drops such a connection, because
    /// its deadline would be handled for ever.
    pub fn is_stuck(&self, due: (Instant, u32)) -> bool {
        self.timers.contains_key(&due)
    }

    /// Whether a heartbeat is due. Returns true once for each heartbeat; the streams that [`Table::is_silent`] selects
    /// get it.
    pub fn is_heartbeat_due(&mut self, now: Now) -> bool {
        self.heartbeat.is_due(now.mono, self.quota.heartbeats())
    }

    /// Whether a stream gets a heartbeat. A stream with unsent bytes gets none, because it is not silent.
    pub fn is_silent(&self, slot: u32) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.share().heartbeat && !entry.facts.busy)
    }
}

fn may_go_on(turn: &mut Option<Turn>, clock: impl FnOnce() -> Instant) -> bool {
    turn.as_mut().is_none_or(|turn| turn.budget.allows(clock))
}

#[cfg(test)]
mod tests;
