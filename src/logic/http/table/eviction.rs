//! Eviction: which connection is closed if too many are open or held, or if unsent output or unfinished requests take
//! too much memory. The limits are in `logic::http::quota`.

use std::time::{Duration, Instant};

use super::{Table, TableEntry};
use crate::logic::Now;
use crate::logic::http::quota::Share;
use crate::logic::log::record::Record;

/// The minimum time between two log records about evictions, and between two about connections that cannot be accepted,
/// so that a flood of clients does not flood the log.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How long a listener rests if there is no room for the next connection and closing one would not make room.
const REST: Duration = Duration::from_secs(1);

/// The limit that made an eviction necessary.
#[derive(Clone, Copy)]
enum Bound {
    /// The number of open or held connections.
    Connections,
    /// The memory for unfinished requests.
    Requests,
    /// The memory for unsent output.
    Output,
}

/// Why a listener could not accept a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage<'a> {
    /// kapo has no free descriptor (EMFILE).
    Descriptors,
    /// The system has no free file or no memory; the text of the error.
    System(&'a str),
}

/// The measure against a shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// The connection in this slot was evicted.
    Evicted(u32),
    /// No eviction would help. The listener is not polled until this time; `None` lies beyond the range of the clock.
    Rest(Option<Instant>),
}

/// The records to log, and when each kind of shortage was last logged.
#[derive(Debug, Default)]
pub(super) struct Notices {
    records: Vec<Record>,
    last_eviction: Option<Instant>,
    last_shortage: Option<Instant>,
}

impl Notices {
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Logs that a connection was evicted, unless it was logged recently.
    fn log_eviction(&mut self, now: Now, record: Record) {
        if is_log_due(&mut self.last_eviction, now) {
            self.records.push(record);
        }
    }

    /// Logs that connections cannot be accepted, unless it was logged recently.
    fn log_shortage(&mut self, now: Now, record: Record) {
        if is_log_due(&mut self.last_shortage, now) {
            self.records.push(record);
        }
    }
}

fn is_log_due(logged: &mut Option<Instant>, now: Now) -> bool {
    let due = logged.is_none_or(|at| now.mono.saturating_duration_since(at) >= LOG_INTERVAL);
    if due {
        *logged = Some(now.mono);
    }
    due
}

impl Table {
    /// Makes room for a connection that could not be accepted, one at a time: the listener stays ready for the others.
    pub fn relieve(&mut self, now: Now, shortage: Shortage<'_>) -> Relief {
        let record = match shortage {
            Shortage::Descriptors => {
                if let Some(slot) = self.make_room(now, "no descriptor left") {
                    return Relief::Evicted(slot);
                }
                Record::warn("cannot accept connections").with("why", "no descriptor left")
            }
            Shortage::System(error) => Record::warn("cannot accept connections").with("error", error),
        };
        self.notices.log_shortage(now, record);
        Relief::Rest(now.mono.checked_add(REST))
    }

    /// Evicts connections if the changed share of the connection in `slot` exceeds a limit. Another held connection, an
    /// unfinished request or the connection with the most unsent output has to go. Returns their slots.
    pub(super) fn enforce_quota(&mut self, now: Now, slot: u32, before: Share, after: Share) -> Vec<u32> {
        let mut evicted = Vec::new();
        if after.held && !before.held && self.quota.exceeds_held_limit() {
            let oldest = self.least(|other, entry| other != slot && entry.share().held);
            if let Some(oldest) = oldest {
                self.evict(now, oldest, Bound::Connections, "three quarters of all wait or follow");
                evicted.push(oldest);
            }
        }
        while self.quota.exceeds_input_limit() {
            let Some(least) = self.least(|_, entry| entry.facts.received > 0) else { break };
            self.evict(now, least, Bound::Requests, "4 MiB in all");
            evicted.push(least);
        }
        while self.quota.may_exceed_output_limit(before, after) {
            let most = self.slots.iter().map(|(slot, entry)| (entry.facts.unsent, slot)).max();
            let Some((_, slot)) = most.filter(|(unsent, _)| self.quota.exceeds_output_limit(*unsent)) else {
                break;
            };
            self.evict(now, slot, Bound::Output, "4 MiB in all");
            evicted.push(slot);
        }
        evicted
    }

    /// Evicts the connection with the lowest rank so that a new one can be admitted. Returns `None` if there is none.
    pub(super) fn make_room(&mut self, now: Now, why: &str) -> Option<u32> {
        let least = self.least(|_, _| true)?;
        self.evict(now, least, Bound::Connections, why);
        Some(least)
    }

    /// Returns the slot with the lowest rank among the `eligible` connections.
    fn least(&self, eligible: impl Fn(u32, &TableEntry) -> bool) -> Option<u32> {
        let eligible = self.slots.iter().filter(|(slot, entry)| eligible(*slot, entry));
        eligible.min_by_key(|(_, entry)| entry.facts.rank).map(|(slot, _)| slot)
    }

    /// Evicts a connection and logs it.
    fn evict(&mut self, now: Now, slot: u32, bound: Bound, why: &str) {
        self.remove(slot);
        let record = match bound {
            Bound::Connections => {
                Record::warn("connection evicted").with("why", why).number("limit", self.limit)
            }
            Bound::Requests => Record::warn("incomplete request evicted").with("why", why),
            Bound::Output => Record::warn("slow reader evicted").with("why", why),
        };
        self.notices.log_eviction(now, record);
    }
}
