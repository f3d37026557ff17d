//! A table, clients with arbitrary behaviour, and a model of the guarantees: the number of connections is limited, a
//! key reaches only its own connection, eviction takes the connection that docs/http.md names, shared memory is
//! limited, and no deadline stays in the past.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Admission, Key, Relief, Shortage, Table};
use crate::logic::Now;
use crate::logic::http::conn::{Class, Facts, Feed, Rank};
use crate::logic::http::heartbeat;
use crate::logic::http::quota::{INPUT_LIMIT, OUTPUT_LIMIT};

/// The model of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer {
    key: Key,
    admission: Admission,
    facts: Facts,
    served: bool,
    queued: bool,
}

impl Peer {
    fn is_held(&self) -> bool {
        self.facts.held || self.facts.feed.is_some()
    }
}

struct World<'a> {
    table: Table,
    limit: usize,
    now: Now,
    peers: BTreeMap<u32, Peer>,
    /// The keys of removed connections.
    left: Vec<Key>,
    closed: Option<Instant>,
    /// When the log last had a record about evictions, and about connections that cannot be accepted.
    logged: [Option<Instant>; 2],
    pick: &'a mut dyn FnMut(u64) -> u64,
}

/// Runs one table through events that `pick` chooses; `pick(n)` returns a number below n.
///
/// # Panics
/// Panics if a guarantee is broken.
pub fn any_table(epoch: Now, pick: &mut dyn FnMut(u64) -> u64) {
    let limit = match pick(4) {
        0 => 100,
        _ => 1 + usize::try_from(pick(12)).unwrap_or_default(),
    };
    let mut world = World {
        table: Table::new(limit),
        limit,
        now: epoch,
        peers: BTreeMap::new(),
        left: Vec::new(),
        closed: None,
        logged: [None; 2],
        pick,
    };
    for _ in 0..world.choose(200) {
        match world.choose(16) {
            0..=2 => world.admit(),
            3 => (0..world.choose(100)).for_each(|_| world.admit()),
            4..=7 => world.settle_any(),
            8 => world.leave(),
            9 => (0..world.choose(100)).for_each(|_| world.leave()),
            10 | 11 => world.ready(),
            12 => _ = world.turn(),
            13 | 14 => world.pass_time(),
            _ => match world.choose(4) {
                0 => world.close(),
                _ => world.relieve(),
            },
        }
        world.check();
    }
    world.close();
    world.now = after(world.now, Duration::from_secs(10));
    world.dismiss();
    assert!(world.peers.is_empty(), "every connection is gone after the last grace period");
    world.check();
}

fn after(now: Now, passed: Duration) -> Now {
    Now { mono: now.mono + passed, wall: now.wall + passed }
}

impl World<'_> {
    fn choose(&mut self, n: u64) -> u64 {
        (self.pick)(n)
    }

    fn flip(&mut self) -> bool {
        self.choose(2) == 1
    }

    /// Returns a taken slot, unless all are free.
    fn any_slot(&mut self) -> Option<u32> {
        let count = u64::try_from(self.peers.len()).unwrap_or_default();
        let nth = self.choose(count.max(1));
        self.peers.keys().copied().nth(usize::try_from(nth).ok()?)
    }

    fn any_facts(&mut self) -> Facts {
        let class = match self.choose(4) {
            0 => Class::Unfinished,
            1 => Class::HalfClosed,
            2 => Class::Idle,
            _ => Class::Waiting,
        };
        let since = self.now.mono - Duration::from_secs(self.choose(30));
        let deadline = match self.choose(3) {
            0 => Some(self.now.mono + Duration::from_secs(self.choose(20))),
            _ => None,
        };
        let feed = match self.choose(6) {
            0 => Some(Feed::Events),
            1 => Some(Feed::Logs(None)),
            _ => None,
        };
        let any_size = |pick: u64| usize::try_from(pick.saturating_sub(6) << 20).unwrap_or_default();
        Facts {
            deadline,
            rank: Rank { class, since },
            feed,
            held: feed.is_none() && self.choose(6) == 0,
            deferred: self.choose(4) == 0,
            busy: self.flip(),
            unsent: any_size(self.choose(12)),
            received: any_size(self.choose(10)),
        }
    }

    fn idle(&self) -> Facts {
        Facts {
            deadline: None,
            rank: Rank { class: Class::Idle, since: self.now.mono },
            feed: None,
            held: false,
            deferred: false,
            busy: false,
            unsent: 0,
            received: 0,
        }
    }

    /// Returns the slot with the lowest eviction rank.
    fn least(&self, eligible: impl Fn(&Peer) -> bool) -> Option<u32> {
        let eligible = self.peers.values().filter(|peer| eligible(peer));
        eligible.min_by_key(|peer| (peer.facts.rank.class, peer.facts.rank.since)).map(|peer| peer.key.slot)
    }

    fn forget(&mut self, slot: u32) {
        let peer = self.peers.remove(&slot);
        assert!(peer.is_some(), "only an open connection is removed");
        self.left.extend(peer.map(|peer| peer.key));
    }

    fn admit(&mut self) {
        if self.closed.is_some() {
            return;
        }
        let admission = Admission { network: self.flip(), given: self.choose(8) == 0 };
        let facts = self.idle();
        let expected = if self.peers.len() == self.limit { self.least(|_| true) } else { None };
        let admitted = self.table.admit(self.now, admission, facts);
        assert_eq!(
            admitted.evicted, expected,
            "the first in the order is evicted, and only from a full table"
        );
        if let Some(slot) = admitted.evicted {
            self.forget(slot);
        }
        let key = admitted.key;
        assert!(!self.left.contains(&key), "a key is not used twice");
        let before =
            self.peers.insert(key.slot, Peer { key, admission, facts, served: false, queued: false });
        assert!(before.is_none(), "a slot is not taken twice");
    }

    fn settle_any(&mut self) {
        if let Some(slot) = self.any_slot() {
            if self.flip() {
                self.table.answered(slot);
                self.peers.entry(slot).and_modify(|peer| peer.served = true);
            }
            let facts = self.any_facts();
            self.settle(slot, facts);
        }
    }

    fn settle(&mut self, slot: u32, facts: Facts) {
        let was_held = self.peers.get(&slot).is_some_and(Peer::is_held);
        self.peers.entry(slot).and_modify(|peer| peer.facts = facts);
        let evicted = self.table.settle(self.now, slot, &facts);
        let mut evicted = evicted.into_iter();
        let mut gone = |world: &mut Self, expected: Option<u32>, why: &str| {
            assert_eq!(evicted.next(), expected, "{why}");
            if let Some(slot) = expected {
                world.forget(slot);
            }
        };
        let is_held = self.peers.get(&slot).is_some_and(Peer::is_held);
        if is_held && !was_held && self.held() > self.most_held() {
            let oldest = self.least(|peer| peer.is_held() && peer.key.slot != slot);
            gone(self, oldest, "the oldest held connection is evicted for a new one");
        }
        while self.sum(|facts| facts.received) > INPUT_LIMIT {
            let least = self.least(|peer| peer.facts.received > 0);
            gone(self, least, "the unfinished request with the lowest rank is evicted");
        }
        while self.unsent_except_most() > OUTPUT_LIMIT {
            let most = self.peers.values().max_by_key(|peer| (peer.facts.unsent, peer.key.slot));
            let most = most.map(|peer| peer.key.slot);
            gone(self, most, "the connection with the most unsent output is evicted");
        }
        assert_eq!(evicted.next(), None, "no connection is evicted within the limits");
    }

    fn leave(&mut self) {
        if let Some(slot) = self.any_slot() {
            self.table.remove(slot);
            self.forget(slot);
        }
    }

    fn ready(&mut self) {
        let clock = self.now.mono + Duration::from_millis(self.choose(4));
        if !self.left.is_empty() && self.flip() {
            let nth = self.choose(u64::try_from(self.left.len()).unwrap_or(1));
            let stale = usize::try_from(nth).ok().and_then(|nth| self.left.get(nth)).copied();
            let served = stale.and_then(|key| self.table.ready(key, || clock));
            assert_eq!(served, None, "a stale key reaches no connection");
        } else if let Some(slot) = self.any_slot()
            && let Some(peer) = self.peers.get_mut(&slot)
        {
            match self.table.ready(peer.key, || clock) {
                Some(served) => assert!(served == slot && !peer.queued && !peer.facts.deferred),
                None => peer.queued = true,
            }
        }
    }

    /// Runs one turn with time for one connection or for all. Returns whether it had time for all.
    fn turn(&mut self) -> bool {
        self.table.begin_turn(self.now);
        let hurry = self.flip();
        let clock = std::cell::Cell::new(self.now.mono);
        let read =
            || clock.replace(clock.get() + if hurry { Duration::from_secs(1) } else { Duration::ZERO });
        let queued = self.peers.values().filter(|peer| peer.queued).count();
        let (mut left_over_served, mut served) = (false, 0);
        while let Some(slot) = self.table.next_queued(&mut left_over_served, read) {
            let queued = self.peers.get_mut(&slot).map(|peer| std::mem::take(&mut peer.queued));
            assert_eq!(queued, Some(true), "only those that are queued are served, once each");
            served += 1;
        }
        assert!(hurry || served == queued, "all connections are served if there is time");
        !hurry
    }

    fn pass_time(&mut self) {
        let steps = self.choose(60) * self.choose(60);
        self.now = after(self.now, Duration::from_millis(10 * steps));
        while let Some(due) = self.table.due(self.now) {
            let (at, slot) = due;
            let first =
                self.peers.values().filter_map(|peer| Some((peer.facts.deadline?, peer.key.slot))).min();
            assert!(Some(due) == first && at <= self.now.mono, "the earliest deadline is handled first");
            let mut facts = self.any_facts();
            if self.choose(4) == 0 {
                facts.deadline = Some(at);
            }
            self.settle(slot, facts);
            let stuck = self.peers.get(&slot).is_some_and(|peer| peer.facts.deadline == Some(at));
            assert_eq!(self.table.is_stuck(due), stuck);
            if stuck {
                self.table.remove(slot);
                self.forget(slot);
            }
        }
        let due = self.table.is_heartbeat_due(self.now);
        let streams = self.peers.values().filter(|peer| needs_heartbeat(peer)).count();
        assert!(streams > 0 || !due, "no heartbeat is due without a stream");
        for (slot, peer) in &self.peers {
            assert_eq!(self.table.is_silent(*slot), needs_heartbeat(peer) && !peer.facts.busy);
        }
        let all_served = self.turn();
        self.dismiss();
        let deadline = self.table.deadline();
        let closed = self.closed.is_some() && self.peers.is_empty();
        assert!(
            !all_served || closed || deadline.is_none_or(|at| at > self.now.mono),
            "no deadline is left in the past"
        );
        if streams > 0 && self.peers.values().any(needs_heartbeat) {
            assert!(deadline.is_some_and(|at| at <= self.now.mono + heartbeat::INTERVAL));
        }
    }

    fn relieve(&mut self) {
        let descriptors = self.flip();
        let shortage = if descriptors { Shortage::Descriptors } else { Shortage::System("no memory") };
        let expected = if descriptors { self.least(|_| true) } else { None };
        match self.table.relieve(self.now, shortage) {
            Relief::Evicted(slot) => {
                assert_eq!(
                    Some(slot),
                    expected,
                    "the connection with the lowest rank is evicted for a descriptor"
                );
                self.forget(slot);
            }
            Relief::Rest(until) => {
                assert_eq!(expected, None, "nothing is evicted if that makes no room");
                assert!(until.is_some_and(|until| until == self.now.mono + Duration::from_secs(1)));
            }
        }
    }

    fn close(&mut self) {
        if self.closed.is_none() {
            self.table.close(self.now);
            self.closed = Some(self.now.mono);
        }
    }

    /// Removes exactly the connections whose grace period is over.
    fn dismiss(&mut self) {
        let dismissed = self.table.dismiss(self.now);
        let Some(closed) = self.closed else {
            return assert!(dismissed.is_empty(), "no grace period ends before kapo closes");
        };
        let passed = self.now.mono - closed;
        let grace = |peer: &Peer| match peer.facts {
            Facts { busy: true, .. } => 2000,
            _ if peer.admission.given && !peer.served => 10_000,
            Facts { deadline, .. } if !peer.served || deadline.is_some() => 250,
            _ => 0,
        };
        let over = self.peers.values().filter(|peer| passed >= Duration::from_millis(grace(peer)));
        let over: Vec<u32> = over.map(|peer| peer.key.slot).collect();
        assert_eq!(dismissed, over, "connections stay until their grace period is over");
        over.into_iter().for_each(|slot| self.forget(slot));
    }

    fn sum(&self, part: impl Fn(&Facts) -> usize) -> usize {
        self.peers.values().map(|peer| part(&peer.facts)).sum()
    }

    fn unsent_except_most(&self) -> usize {
        let most = self.peers.values().map(|peer| peer.facts.unsent).max();
        self.sum(|facts| facts.unsent) - most.unwrap_or_default()
    }

    fn held(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_held()).count()
    }

    fn most_held(&self) -> usize {
        (self.limit * 3 / 4).max(1)
    }

    /// Checks what must hold between any two events.
    fn check(&mut self) {
        assert!(self.peers.len() <= self.limit, "the number of connections is limited");
        assert_eq!(self.table.connections(), self.peers.len());
        let slots = self.table.slots().end;
        assert!(usize::try_from(slots).is_ok_and(|slots| slots <= self.limit), "slots are reused");
        for slot in self.table.slots() {
            assert_eq!(self.table.key(slot), self.peers.get(&slot).map(|peer| peer.key));
            let waits = self.peers.get(&slot).filter(|peer| peer.is_held()).map(|peer| peer.facts.feed);
            assert_eq!(self.table.waits_for(slot), waits);
        }
        assert!(self.held() <= self.most_held(), "at most three quarters of the connections are held");
        assert!(self.sum(|facts| facts.received) <= INPUT_LIMIT && self.unsent_except_most() <= OUTPUT_LIMIT);
        let first = self.peers.values().filter_map(|peer| peer.facts.deadline).min();
        let asleep = first.is_some_and(|first| self.table.deadline().is_none_or(|at| at > first));
        assert!(!asleep, "the table returns the earliest deadline");
        for record in self.table.take_notices() {
            let evicted = format!("{record:?}").contains("evicted");
            let [eviction, shortage] = &mut self.logged;
            let logged = if evicted { eviction } else { shortage };
            let before = logged.replace(self.now.mono);
            assert!(
                before.is_none_or(|before| self.now.mono - before >= Duration::from_secs(60)),
                "evictions are logged at most once a minute"
            );
        }
    }
}

fn needs_heartbeat(peer: &Peer) -> bool {
    peer.admission.network && peer.facts.feed == Some(Feed::Events)
}
