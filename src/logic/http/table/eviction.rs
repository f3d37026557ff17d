//! Room for connections: which one is closed when there are too many of them, too many that are held, too much output
//! that is not taken, or too many bytes of requests that are not complete. The bounds are in `logic::http::quota`.

use std::time::{Duration, Instant};

use super::{Entry, Table};
use crate::logic::Now;
use crate::logic::http::quota::Share;
use crate::logic::log::record::Record;

/// The log says at most once in this time that connections are closed to let others in, or that there is no room at
/// all, so that a flood of clients does not become a flood of records.
const TOLD: Duration = Duration::from_secs(60);

/// How long a listener rests when there is no room for the next peer and closing a connection would not make any.
const REST: Duration = Duration::from_secs(1);

/// The bound that a connection is closed for.
#[derive(Clone, Copy)]
enum Bound {
    /// That of connections.
    Connections,
    /// That of incomplete requests.
    Requests,
    /// That of output that is not taken.
    Output,
}

/// Why a connection that waits at a listener could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage<'a> {
    /// kapo has no descriptor left (EMFILE).
    Descriptors,
    /// The system has no descriptor or no memory left, in its words.
    System(&'a str),
}

/// What makes room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// The connection in this slot was evicted.
    Evicted(u32),
    /// Nothing does: the listener is left alone until then.
    Rest(Option<Instant>),
}

/// What is to be logged, and when it was last said that there is little room, or none.
#[derive(Debug, Default)]
pub(super) struct Notices {
    records: Vec<Record>,
    little: Option<Instant>,
    none: Option<Instant>,
}

impl Notices {
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Connections are closed for others.
    fn little_room(&mut self, now: Now, record: Record) {
        if is_news(&mut self.little, now) {
            self.records.push(record);
        }
    }

    /// Connections cannot be accepted.
    fn no_room(&mut self, now: Now, record: Record) {
        if is_news(&mut self.none, now) {
            self.records.push(record);
        }
    }
}

fn is_news(told: &mut Option<Instant>, now: Now) -> bool {
    let news = told.is_none_or(|at| now.mono.saturating_duration_since(at) >= TOLD);
    if news {
        *told = Some(now.mono);
    }
    news
}

impl Table {
    /// Finds room for a connection that could not be accepted. Room is made for one at a time; the listener stays ready
    /// for the others.
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
        self.notices.no_room(now, record);
        Relief::Rest(now.mono.checked_add(REST))
    }

    /// The connection in `slot` takes more or less than before: others must make room, or the one that owes most.
    /// Returns the slots of the evicted.
    pub(super) fn enforce_quota(&mut self, now: Now, slot: u32, before: Share, after: Share) -> Vec<u32> {
        let mut evicted = Vec::new();
        if after.held && !before.held && self.quota.holds_too_many() {
            let oldest = self.least(|other, entry| other != slot && entry.share().held);
            if let Some(oldest) = oldest {
                self.evict(now, oldest, Bound::Connections, "three quarters of all wait or follow");
                evicted.push(oldest);
            }
        }
        while self.quota.received_too_much() {
            let Some(least) = self.least(|_, entry| entry.facts.received > 0) else { break };
            self.evict(now, least, Bound::Requests, "4 MiB in all");
            evicted.push(least);
        }
        while self.quota.may_owe_too_much(before, after) {
            let most = self.places.iter().map(|(slot, entry)| (entry.facts.owed, slot)).max();
            let Some((_, slot)) = most.filter(|(owed, _)| self.quota.owes_too_much(*owed)) else { break };
            self.evict(now, slot, Bound::Output, "4 MiB in all");
            evicted.push(slot);
        }
        evicted
    }

    /// Closes the one that has the least to lose, for a newcomer. `None`: there is none.
    pub(super) fn make_room(&mut self, now: Now, why: &str) -> Option<u32> {
        let least = self.least(|_, _| true)?;
        self.evict(now, least, Bound::Connections, why);
        Some(least)
    }

    /// The first in the order of eviction of those that are `eligible`.
    fn least(&self, eligible: impl Fn(u32, &Entry) -> bool) -> Option<u32> {
        let eligible = self.places.iter().filter(|(slot, entry)| eligible(*slot, entry));
        eligible.min_by_key(|(_, entry)| entry.facts.rank).map(|(slot, _)| slot)
    }

    /// Closes a connection for the sake of others.
    fn evict(&mut self, now: Now, slot: u32, bound: Bound, why: &str) {
        self.remove(slot);
        let record = match bound {
            Bound::Connections => {
                Record::warn("connection evicted").with("why", why).number("limit", self.limit)
            }
            Bound::Requests => Record::warn("incomplete request evicted").with("why", why),
            Bound::Output => Record::warn("slow reader evicted").with("why", why),
        };
        self.notices.little_room(now, record);
    }
}
