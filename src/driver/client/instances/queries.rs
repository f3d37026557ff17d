//! What happens to each socket: it is queued, queried, queried again, and its state is set.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::super::query::{Query, Reading};
use super::{ASKED, Instances, PAUSING, QueryPhase, SLOWER, TRIES, join, split};
use crate::config::InstanceState;
use crate::logic::client::ls::InstanceFacts;
use crate::sys::peer;

/// After this time a socket is slow. Stopped processes must not keep the others waiting.
const SLOW: Duration = Duration::from_millis(100);
/// The pause before a socket that refused a connection is queried again.
const PAUSE: Duration = Duration::from_millis(10);
/// A stream that was open for this time is opened again as often as a new one.
const STABLE: Duration = Duration::from_secs(1);

impl Instances {
    pub(super) fn enter(&mut self, place: usize, phase: QueryPhase) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let before = std::mem::replace(&mut slot.phase, phase);
        let is_pending = |phase| usize::from(!matches!(phase, QueryPhase::Settled | QueryPhase::Backlog));
        self.pending = self.pending + is_pending(phase) - is_pending(before);
        let is_asked = |phase| usize::from(phase == QueryPhase::Asked);
        self.asked = self.asked + is_asked(phase) - is_asked(before);
    }

    /// Sets the state of a socket on which no kapo answers.
    pub(super) fn settle(&mut self, place: usize, state: InstanceState) {
        self.enter(place, QueryPhase::Settled);
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.lost = false;
        if slot.instance.state != state || !slot.known {
            slot.instance.state = state;
            (slot.instance.answers, slot.instance.facts) = (false, InstanceFacts::default());
            self.change(place);
        }
    }

    pub(super) fn change(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.known = true;
        if !std::mem::replace(&mut slot.changed, true) {
            self.changed.push(place);
        }
    }

    pub(super) fn hang_up(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place) {
            slot.query = None;
        }
    }

    /// Opens connections, up to the limit.
    pub(super) fn begin(&mut self, now: Instant) {
        while let Some(place) = self.due(ASKED, Some(now)) {
            self.enter(place, QueryPhase::Slow);
            self.wait_until(SLOWER, self.limit(now), place);
        }
        while let Some(place) = self.due(SLOWER, Some(now)) {
            let backlog = self.slots.get(place).is_some_and(|slot| slot.phase == QueryPhase::Backlog);
            // A stream stays open: it tells when a suspended kapo continues.
            self.settle(place, InstanceState::Stuck);
            if backlog {
                self.pause(now, place);
            }
        }
        while self.asked < self.at_once {
            let again = self.due(PAUSING, Some(now));
            let Some(place) = again.or_else(|| self.queued()) else { break };
            self.connect(now, place);
        }
        if self.is_complete() {
            self.deadline = None;
        }
    }

    /// Removes the first entry of a list if it is due; without `now`, in any case. Dead entries before it are removed,
    /// so that nothing wakes up for them.
    pub(super) fn due(&mut self, list: usize, now: Option<Instant>) -> Option<usize> {
        let list_of = |phase| match phase {
            QueryPhase::Asked => ASKED,
            QueryPhase::Slow | QueryPhase::Backlog => SLOWER,
            QueryPhase::Pausing => PAUSING,
            QueryPhase::Settled | QueryPhase::Queued => usize::MAX,
        };
        let dues = self.dues.get_mut(list)?;
        while let Some((due, token)) = dues.front() {
            let (place, serial) = split(*token);
            let live = self
                .slots
                .get(place)
                .is_some_and(|slot| slot.serial == serial && list_of(slot.phase) == list);
            if live && now.is_some_and(|now| *due > now) {
                return None;
            }
            dues.pop_front();
            if live {
                return Some(place);
            }
        }
        None
    }

    pub(super) fn queued(&mut self) -> Option<usize> {
        let rest = self.slots.get(self.next..)?;
        let place = rest.iter().position(|slot| slot.phase == QueryPhase::Queued);
        self.next = place.map_or(self.slots.len(), |place| self.next + place);
        place.map(|_| self.next)
    }

    /// Adds an entry to a list, as the last one.
    pub(super) fn wait_until(&mut self, list: usize, due: Instant, place: usize) {
        if let (Some(dues), Some(slot)) = (self.dues.get_mut(list), self.slots.get(place)) {
            dues.push_back((due, join(place, slot.serial)));
        }
    }

    pub(super) fn pause(&mut self, now: Instant, place: usize) {
        self.enter(place, QueryPhase::Pausing);
        self.wait_until(PAUSING, now + PAUSE, place);
    }

    /// Queries a socket again after a pause or, after the last try, sets its state.
    pub(super) fn retry(&mut self, now: Instant, place: usize, otherwise: InstanceState) {
        let follows = self.inotify.is_some();
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.query = None;
        slot.tries = slot.tries.saturating_add(1);
        if slot.tries < TRIES {
            self.pause(now, place);
        } else if follows && otherwise == InstanceState::Foreign && slot.instance.answers && !slot.lost {
            // A kapo that closes each stream soon, or was killed.
            slot.lost = true;
            self.pause(now, place);
        } else {
            self.settle(place, otherwise);
        }
    }

    /// Keeps the last state of a socket that cannot be followed.
    pub(super) fn lose(&mut self, place: usize) {
        self.enter(place, QueryPhase::Settled);
        let Some(slot) = self.slots.get_mut(place) else { return };
        (slot.lost, slot.query) = (true, None);
        self.change(place);
    }

    pub(super) fn connect(&mut self, now: Instant, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        self.serial = self.serial.wrapping_add(1);
        slot.serial = self.serial;
        let token = join(place, slot.serial);
        // A kapo that has no stream left may still answer.
        let follows = self.inotify.is_some() && !slot.lost;
        let query = Query::open(&slot.instance.file, follows, now);
        // The kernel gives out the lowest number that is free.
        let reserved = |query: &Query| {
            u64::try_from(query.as_fd().as_raw_fd()).is_ok_and(|number| number >= self.reserved)
        };
        if query.as_ref().is_ok_and(reserved) {
            // The others are queried once, one after the other.
            (self.at_once, slot.lost) = (1, true);
            if follows || self.asked > 0 {
                return self.pause(now, place);
            }
        }
        // The kernel reports the process that has called listen. A name can be planted, this cannot.
        slot.instance.listener = query.as_ref().ok().and_then(|query| peer::listener(query.as_fd()));
        let query = query.and_then(|query| {
            epoll::add(&self.epoll, &query, EventData::new_u64(token), EventFlags::IN).map(|()| query)
        });
        match query {
            Ok(query) => {
                slot.query = Some(Box::new(query));
                self.enter(place, QueryPhase::Asked);
                self.wait_until(ASKED, now + SLOW, place);
            }
            Err(Errno::CONNREFUSED) => self.retry(now, place, InstanceState::Dead),
            // The backlog is full. The kernel does not report when there is room again.
            Err(Errno::AGAIN) if self.inotify.is_some() => {
                self.settle(place, InstanceState::Stuck);
                self.enter(place, QueryPhase::Backlog);
                self.wait_until(SLOWER, self.limit(now), place);
            }
            Err(Errno::AGAIN) => self.pause(now, place),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC) => {
                if self.inotify.is_some() && !slot.known && self.asked > 0 {
                    (self.at_once, slot.lost) = (1, true);
                    return self.pause(now, place);
                }
                if self.inotify.is_some() {
                    return self.lose(place);
                }
                if let Some(oldest) = self.due(SLOWER, None) {
                    self.hang_up(oldest);
                    self.settle(oldest, InstanceState::Stuck);
                }
                self.pause(now, place);
            }
            Err(Errno::NOENT) => self.remove(place),
            Err(Errno::ACCESS | Errno::PERM) => self.settle(place, InstanceState::Denied),
            Err(_) => self.settle(place, InstanceState::Foreign),
        }
    }

    pub(super) fn read(&mut self, now: Instant, place: usize) {
        let follows = self.inotify.is_some();
        let Some(slot) = self.slots.get_mut(place) else { return };
        let Some(query) = &mut slot.query else { return };
        match query.read() {
            Reading::More => {}
            Reading::Document(document) => {
                slot.instance.answered(&document);
                if !query.follows || slot.instance.state == InstanceState::Foreign {
                    slot.query = None;
                }
                self.enter(place, QueryPhase::Settled);
                self.change(place);
            }
            Reading::Busy => {
                (slot.lost, slot.query) = (true, None);
                self.pause(now, place);
            }
            Reading::Ended => {
                if follows && now.saturating_duration_since(query.began) >= STABLE {
                    slot.tries = 0;
                }
                self.retry(now, place, InstanceState::Foreign);
            }
            Reading::Foreign => {
                slot.query = None;
                self.settle(place, InstanceState::Foreign);
            }
        }
    }
}
