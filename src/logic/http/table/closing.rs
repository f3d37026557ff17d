//! The end of the table: how long each connection may stay once kapo closes.

use std::time::{Duration, Instant};

use super::{Entry, Table};
use crate::logic::Now;

/// For a client that has connected and sent nothing, or half a request. The rest of a request that is being sent is
/// milliseconds away, and a client that only holds the port open must not delay the end.
const GRACE_SILENT: Duration = Duration::from_millis(250);
/// For an answer that is on its way.
const GRACE_BUSY: Duration = Duration::from_secs(2);
/// For a connection that kapo was started for and that has sent no request yet.
const GRACE_GIVEN: Duration = Duration::from_secs(10);

/// The moments at which each kind of connection has had its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    silent: Instant,
    busy: Instant,
    given: Instant,
    next: Instant,
}

/// What a connection is sent when kapo closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The end of its stream.
    EndStream,
    /// The answer to its held request: what that waits for will not happen any more.
    AnswerHeld,
    /// The answers to what it has sent by now.
    Serve,
}

impl Closing {
    /// When the first of those that are still connected has had its time.
    pub(super) fn next(self) -> Instant {
        self.next
    }

    fn until(self, now: Instant, entry: &Entry) -> Instant {
        match () {
            () if entry.facts.busy => self.busy,
            () if entry.admission.given && !entry.served => self.given,
            // A deadline without an answer under way: half a request, or the close of a peer that still sends.
            () if !entry.served || entry.facts.deadline.is_some() => self.silent,
            // Between two requests.
            () => now,
        }
    }
}

impl Table {
    /// The time of grace begins.
    pub fn close(&mut self, now: Now) {
        let after = |grace| now.mono.checked_add(grace).unwrap_or(now.mono);
        self.closing = Some(Closing {
            silent: after(GRACE_SILENT),
            busy: after(GRACE_BUSY),
            given: after(GRACE_GIVEN),
            next: now.mono,
        });
    }

    /// Whether [`Table::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// How a connection is told that kapo closes.
    pub fn farewell(&self, slot: u32) -> Option<Farewell> {
        let facts = &self.places.get(slot)?.facts;
        Some(match (facts.feed.is_some(), facts.held) {
            (true, _) => Farewell::EndStream,
            (false, true) => Farewell::AnswerHeld,
            (false, false) => Farewell::Serve,
        })
    }

    /// Removes the connections that have had their time, and returns their slots.
    pub fn dismiss(&mut self, now: Now) -> Vec<u32> {
        let Some(mut closing) = self.closing else { return Vec::new() };
        closing.next = closing.given;
        let mut dismissed = Vec::new();
        for slot in self.slots() {
            let Some(entry) = self.places.get(slot) else { continue };
            let until = closing.until(now.mono, entry);
            if until <= now.mono {
                self.remove(slot);
                dismissed.push(slot);
            } else {
                closing.next = closing.next.min(until);
            }
        }
        self.closing = Some(closing);
        dismissed
    }
}
