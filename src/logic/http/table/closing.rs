//! The end of the table: how long each connection may stay once kapo closes.

use std::time::{Duration, Instant};

use super::{Table, TableEntry};
use crate::logic::Now;

/// The grace period of a client that has sent nothing or an unfinished request. The rest of a request arrives within
/// milliseconds, and a client that merely holds a connection open must not delay the exit.
const GRACE_SILENT: Duration = Duration::from_millis(250);
/// The grace period of an answer that is being sent.
const GRACE_BUSY: Duration = Duration::from_secs(2);
/// The grace period of a connection that kapo was started for and that has not sent a request yet.
const GRACE_GIVEN: Duration = Duration::from_secs(10);

/// When the grace period of each kind of connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    silent: Instant,
    busy: Instant,
    given: Instant,
    next: Instant,
}

/// How a connection is served when kapo closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingAction {
    /// Its stream is ended.
    EndStream,
    /// Its held request is answered, because the state that it waits for will not come.
    AnswerHeld,
    /// The requests that it has sent so far are answered.
    Serve,
}

impl Closing {
    /// Returns the earliest end of a grace period among the open connections.
    pub(super) fn next(self) -> Instant {
        self.next
    }

    fn until(self, now: Instant, entry: &TableEntry) -> Instant {
        match () {
            () if entry.facts.busy => self.busy,
            () if entry.admission.given && !entry.served => self.given,
            // A deadline without an unsent answer means an unfinished request or a lingering close.
            () if !entry.served || entry.facts.deadline.is_some() => self.silent,
            // The connection is between two requests.
            () => now,
        }
    }
}

impl Table {
    /// Starts the grace periods.
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

    /// Returns how to serve a connection when kapo closes; `None` for a free slot.
    pub fn closing_action(&self, slot: u32) -> Option<ClosingAction> {
        let facts = &self.slots.get(slot)?.facts;
        Some(match (facts.feed.is_some(), facts.held) {
            (true, _) => ClosingAction::EndStream,
            (false, true) => ClosingAction::AnswerHeld,
            (false, false) => ClosingAction::Serve,
        })
    }

    /// Removes the connections whose grace period is over and returns their slots.
    pub fn dismiss(&mut self, now: Now) -> Vec<u32> {
        let Some(mut closing) = self.closing else { return Vec::new() };
        closing.next = closing.given;
        let mut dismissed = Vec::new();
        for slot in self.slots() {
            let Some(entry) = self.slots.get(slot) else { continue };
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
