//! Room for connections: which one is closed when there are too many of them, too many that are held, too much output
//! that is not taken, or too many bytes of requests that are not complete. The bounds are in `logic::http::quota`.

use std::time::Duration;

use crate::driver::http::server::{Entry, Server};
use crate::logic::Now;
use crate::logic::http::quota::Share;
use crate::logic::log::record::Record;

/// The log says at most once in this time that connections are closed to let others in, or that there is no room at
/// all, so that a flood of clients does not become a flood of records.
const TOLD: Duration = Duration::from_secs(60);

const FOR_OTHERS: &str = "closing connections to let new ones in";
const UNFINISHED: &str = "closing connections whose requests are not complete";
const UNTAKEN: &str = "closing connections that do not take their output";

impl Server {
    /// The connection in `slot` takes more or less than before: others must make room, or the one that owes most.
    pub(super) fn enforce_quota(&mut self, now: Now, slot: u32, before: Share, after: Share) {
        if after.heartbeat && !before.heartbeat && self.quota.heartbeats() == 1 {
            self.heartbeat.begin(now.mono);
        }
        if after.held && !before.held && self.quota.holds_too_many() {
            let others = self.entries().filter(|(entry, other)| entry.share.held && *other != slot);
            let oldest = others.min_by_key(|(entry, _)| entry.connection.rank()).map(|(_, other)| other);
            if let Some(oldest) = oldest {
                self.evict(now, oldest, FOR_OTHERS, "three quarters of all wait or follow");
            }
        }
        while self.quota.received_too_much() {
            let unfinished = self.entries().filter(|(entry, _)| entry.share.received > 0);
            let least = unfinished.min_by_key(|(entry, _)| entry.connection.rank()).map(|(_, slot)| slot);
            let Some(slot) = least else { break };
            self.evict(now, slot, UNFINISHED, "4 MiB in all");
        }
        while self.quota.may_owe_too_much(before, after) {
            let most = self.entries().map(|(entry, slot)| (entry.share.owed, slot)).max();
            match most {
                Some((owed, slot)) if self.quota.owes_too_much(owed) => {
                    self.evict(now, slot, UNTAKEN, "4 MiB in all");
                }
                _ => return,
            }
        }
    }

    /// Closes the one that has the least to lose, for a newcomer. False: there is none.
    pub(super) fn make_room(&mut self, now: Now, why: &str) -> bool {
        let least = self.entries().min_by_key(|(entry, _)| entry.connection.rank()).map(|(_, slot)| slot);
        least.inspect(|slot| self.evict(now, *slot, FOR_OTHERS, why)).is_some()
    }

    /// Closes a connection for the sake of others.
    fn evict(&mut self, now: Now, slot: u32, what: &'static str, why: &str) {
        self.give_up(slot);
        self.counts.evicted();
        let record = Record::warn(what).with("why", why);
        let record = if what == FOR_OTHERS { record.number("limit", self.limit) } else { record };
        self.tell_of_room(now, false, record);
    }

    /// Notes for the log that there is little room, or (`none`) none at all, unless that was said a moment ago.
    pub(super) fn tell_of_room(&mut self, now: Now, none: bool, record: Record) {
        let [little, nothing] = &mut self.told;
        let told = if none { nothing } else { little };
        if told.is_none_or(|at| now.mono.saturating_duration_since(at) >= TOLD) {
            *told = Some(now.mono);
            self.notices.push(record);
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&Entry, u32)> {
        self.slots.iter().zip(0..).filter_map(|(entry, slot)| Some((entry.as_ref()?, slot)))
    }
}
