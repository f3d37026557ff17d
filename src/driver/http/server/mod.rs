//! The HTTP side of kapo: listeners, connections, and the page that they show. Who is answered what is decided in
//! `logic::endpoints`, the life of a connection in `logic::http::conn`; here is the table of them all.

mod room;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::driver::http::connection::{Buffers, Connection, ConnectionFate};
use crate::driver::http::listener::{Accepted, Listener, prepare_tcp};
use crate::driver::poll::{Epoll, GENERATION_MASK, Key, Source};
use crate::error::reason;
use crate::logic::Now;
use crate::logic::endpoints::{Page, RequestContext, StateFacts};
use crate::logic::history::History;
use crate::logic::http::conn::Feed;
use crate::logic::http::heartbeat::{self, Heartbeat};
use crate::logic::http::quota::{Quota, Share};
use crate::logic::http::turn::{Budget, Queue};
use crate::logic::log::record::Record;
use crate::logic::metrics::{Counts, Measured, Snapshot, Sources};
use crate::logic::output::coalesce;
use crate::logic::output::coalesce::Coalescer;
use crate::logic::output::tail::{Position, Tail};
use crate::logic::status::Status;
use crate::sys;

/// How long a listener rests when there is no room for the next peer and closing a connection would not make any.
const REST: Duration = Duration::from_secs(1);

/// So many batches are accepted from each queue when kapo closes: what a queue holds.
const LAST_BATCHES: usize = 64;

/// A table of connections of this size is not worth shrinking.
const FEW: usize = 32;

/// Once kapo closes: for a peer that has connected and not said a word, or half a request. The rest of one that is
/// being sent is milliseconds away; who only holds the port open must not hold up the end.
const GRACE_SILENT: Duration = Duration::from_millis(250);
/// Once kapo closes: for an answer that is on its way.
const GRACE_BUSY: Duration = Duration::from_secs(2);
/// Once kapo closes: for a connection that kapo was started for and that has sent no request yet.
const GRACE_GIVEN: Duration = Duration::from_secs(10);

/// What only the rest of kapo knows.
pub(crate) trait MetricsSource {
    /// For /metrics and /debug/vars. What is not in `sources` need not be read.
    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot;
    /// The last captured output; `None` without `--tail`.
    fn tail(&self) -> Option<&Tail>;
    /// The runs that have ended; `None` with `--history 0`.
    fn history(&self) -> Option<&History>;
}

struct Entry {
    connection: Connection,
    generation: u32,
    /// Its place in `timers`.
    timer: Option<Instant>,
    /// What it takes of what all share. If it is held, a change of state concerns it.
    share: Share,
    /// It is not a Unix socket.
    network: bool,
    /// It is in the queue of those that wait for a turn.
    queued: bool,
    /// It has been answered at least once.
    served: bool,
    /// It was there before the command was started: handed to kapo, or in the queue of an inherited listener.
    given: bool,
    /// How far it was sent the captured output that it follows.
    followed: Option<Position>,
}

/// See the head of the file.
pub(crate) struct Server {
    listeners: Vec<Listening>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    generations: u32,
    limit: usize,
    timers: BTreeSet<(Instant, u32)>,
    quota: Quota,
    heartbeat: Heartbeat,
    /// What is left of the time of this turn; `None` outside of the loop.
    budget: Option<Budget>,
    /// When this turn began.
    turn: Option<Instant>,
    queue: Queue<Key>,
    /// Moves when nobody is let in any more.
    closing: Option<Closing>,
    buffers: Buffers,
    page: Page,
    counts: Counts,
    argv0: String,
    accepted: Vec<OwnedFd>,
    /// How clients come, and how many have in this turn; `None`: no listener was ready.
    pace: Coalescer,
    arrivals: Option<usize>,
    /// What /proc and the rest of kapo said in this turn: reading that is what costs, and one packet may hold hundreds
    /// of requests for it.
    measured: Option<(Instant, Measured)>,
    /// What is to be said in the log, and when it was last said that there is no room.
    notices: Vec<Record>,
    told: [Option<Instant>; 2],
}

/// A connection that is to be taken in.
struct Admission {
    socket: OwnedFd,
    /// It is not a Unix socket.
    network: bool,
    /// kapo was started for it.
    given: bool,
}

struct Listening {
    listener: Listener,
    /// Until when it is not listened to.
    resting: Option<Instant>,
    /// It was bound by us, not inherited: who waits in its queue is lost with it.
    ours: bool,
}

#[derive(Clone, Copy)]
struct Closing {
    silent: Instant,
    busy: Instant,
    given: Instant,
    /// When the first of those who are still here has had its time.
    next: Instant,
}

impl Server {
    /// Nobody listens yet. At most `limit` connections are kept open.
    pub(crate) fn new(limit: usize, argv0: String, first_event: u64) -> Server {
        Server {
            listeners: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            generations: 0,
            limit,
            timers: BTreeSet::new(),
            quota: Quota::new(limit),
            heartbeat: Heartbeat::default(),
            budget: None,
            turn: None,
            queue: Queue::default(),
            closing: None,
            buffers: Buffers::new(),
            page: Page::new(first_event),
            counts: Counts::default(),
            argv0,
            accepted: Vec::new(),
            pace: Coalescer::new(&coalesce::ARRIVALS),
            arrivals: None,
            measured: None,
            notices: Vec::new(),
            told: [None; 2],
        }
    }

    /// Serves on a listener. `ours`: bound by kapo, so that those who wait in its queue at the end are accepted still;
    /// with an inherited one they start the next instance.
    pub(crate) fn listen(
        &mut self,
        epoll: &Epoll,
        listener: Listener,
        ours: bool,
    ) -> Result<(), rustix::io::Errno> {
        let place = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        epoll.add(&listener, Source::Listener(place), EventFlags::IN)?;
        self.listeners.push(Listening { listener, resting: None, ours });
        Ok(())
    }

    /// Accepts the connections that wait on inherited listeners into `accepted`, as far as there is room for them. One of
    /// them is why a service manager has started kapo: it must be answered even if the command ends at once or cannot be
    /// executed, because a connection that stays in the queue starts kapo again.
    pub(crate) fn accept_queued(&self, accepted: &mut Vec<OwnedFd>) {
        for listening in self.listeners.iter().filter(|listening| !listening.ours) {
            // The loop meets and reports the other verdicts, because the listener stays ready.
            while accepted.len() < self.limit && listening.listener.accept(accepted) == Accepted::More {}
        }
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.total()
    }

    /// A listener has somebody waiting.
    pub(crate) fn on_listener(&mut self, now: Now, epoll: &Epoll, place: u32, subject: &dyn MetricsSource) {
        let Some(listening) = listening_at(&mut self.listeners, place) else { return };
        let mut accepted = std::mem::take(&mut self.accepted);
        let verdict = listening.listener.accept(&mut accepted);
        if verdict == Accepted::Broken {
            // Its hang-up would be told again and again, whatever is waited for.
            epoll.delete(&listening.listener);
            let record = Record::error("nobody can connect any more");
            self.notices.push(record.with("address", listening.listener.address()));
        }
        let came = accepted.len();
        let network = listening.listener.port().is_some();
        for socket in accepted.drain(..) {
            self.admit(now, epoll, Admission { socket, network, given: false }, subject);
        }
        self.accepted = accepted;
        self.arrivals = Some(self.arrivals.unwrap_or(0) + came);
        match verdict {
            // Room is made for one peer at a time; the listener stays ready for the others.
            Accepted::Starved if came == 0 && !self.make_room(now, "no descriptor left") => {
                self.tell_of_room(now, true, Record::warn("no descriptor left for a connection"));
                self.rest(now, epoll, place);
            }
            Accepted::Exhausted(errno) => {
                let record = Record::warn("the system has no room for a connection");
                self.tell_of_room(now, true, record.with("error", reason(&errno.into())));
                self.rest(now, epoll, place);
            }
            Accepted::Starved | Accepted::Drained | Accepted::More | Accepted::Broken => {}
        }
    }

    /// What is to be said in the log, since this was asked last.
    pub(crate) fn take_notices(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.notices)
    }

    /// At the end of a turn: for how long clients that connect should gather, see [`crate::logic::output::coalesce`].
    pub(crate) fn gather(&mut self, now: Now) -> Option<Duration> {
        let arrivals = self.arrivals.take()?;
        self.pace.turn(now.mono, arrivals);
        self.pace.rest()
    }

    fn rest(&mut self, now: Now, epoll: &Epoll, place: u32) {
        if let Some(listening) = listening_at(&mut self.listeners, place) {
            let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::empty());
            listening.resting = now.mono.checked_add(REST);
        }
    }

    /// Takes in a connection that was there before the command was started.
    pub(crate) fn admit_given(
        &mut self,
        now: Now,
        epoll: &Epoll,
        socket: OwnedFd,
        subject: &dyn MetricsSource,
    ) {
        // A Unix socket refuses the options of TCP.
        let network = prepare_tcp(&socket).is_ok();
        self.admit(now, epoll, Admission { socket, network, given: true }, subject);
    }

    /// Takes a connection in and serves it at once, if the turn has time for it: the request is often there already, and
    /// a client that asks once and closes never costs a registration.
    fn admit(&mut self, now: Now, epoll: &Epoll, admission: Admission, subject: &dyn MetricsSource) {
        let Admission { socket, network, given } = admission;
        if self.connections() >= self.limit {
            self.make_room(now, "as many as may be are open");
        }
        self.generations = self.generations.wrapping_add(1) & GENERATION_MASK;
        let entry = Entry {
            connection: Connection::new(now, socket),
            generation: self.generations,
            timer: None,
            share: Share::default(),
            network,
            queued: false,
            served: false,
            given,
            followed: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = usize::try_from(slot).ok().and_then(|place| self.slots.get_mut(place)) {
            *place = Some(entry);
        }
        self.on_connection(now, epoll, Key { slot, generation: self.generations }, subject);
    }

    /// A turn of the loop begins: connections have some time again.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.turn = Some(now.mono);
        self.budget = Some(Budget::default());
    }

    /// A connection is ready for what it waits for. It is served now if none waits before it and the turn has time left,
    /// else by [`Server::serve_queued`].
    pub(crate) fn on_connection(&mut self, now: Now, epoll: &Epoll, key: Key, subject: &dyn MetricsSource) {
        let Some(entry) =
            entry_at(&mut self.slots, key.slot).filter(|entry| entry.generation == key.generation)
        else {
            return;
        };
        if entry.queued {
            return;
        }
        let left_over = entry.connection.is_crowded();
        if !left_over && self.queue.has_no_fresh() && may_go_on(&mut self.budget) {
            return self.attend(now, epoll, key.slot, subject, Connection::on_ready);
        }
        entry.queued = true;
        self.queue.push(key, left_over);
    }

    /// Serves those that wait for a turn, as long as this one has time.
    pub(crate) fn serve_queued(&mut self, now: Now, epoll: &Epoll, subject: &dyn MetricsSource) {
        let mut left_over_served = false;
        loop {
            let budget = &mut self.budget;
            let Some(key) = self.queue.next(&mut left_over_served, || may_go_on(budget)) else { return };
            if let Some(entry) =
                entry_at(&mut self.slots, key.slot).filter(|entry| entry.generation == key.generation)
            {
                entry.queued = false;
                self.attend(now, epoll, key.slot, subject, Connection::on_ready);
            }
        }
    }

    /// Does `what` with a connection and sees to what has changed for it.
    fn attend(
        &mut self,
        now: Now,
        epoll: &Epoll,
        slot: u32,
        subject: &dyn MetricsSource,
        what: impl FnOnce(
            &mut Connection,
            Now,
            &mut Buffers,
            &mut dyn crate::logic::http::Handler,
        ) -> ConnectionFate,
    ) {
        let connections = self.connections();
        let Some(entry) = entry_at(&mut self.slots, slot) else { return };
        let before = self.counts.total();
        let tail = subject.tail();
        let mut measured =
            self.measured.take().filter(|(at, _)| *at == now.mono).map(|(_, measured)| measured);
        if let Some(measured) = &mut measured {
            measured.snapshot.connections = connections;
        }
        let mut view = RequestContext {
            page: &self.page,
            counts: &mut self.counts,
            argv0: &self.argv0,
            tail,
            history: subject.history(),
            measured,
            lacking: None,
        };
        let mut fate = what(&mut entry.connection, now, &mut self.buffers, &mut view);
        // Each snapshot has more sources than the one before, so this ends.
        while fate == ConnectionFate::Wait
            && let Some(wanted) = view.lacking.take()
        {
            let sources = view.measured.as_ref().map_or(wanted, |before| before.sources.and(wanted));
            let snapshot = subject.snapshot(connections, sources);
            view.measured = Some(Measured { sources, snapshot });
            fate = entry.connection.resume(now, &mut self.buffers, &mut view);
        }
        self.measured = view.measured.take().map(|measured| (now.mono, measured));
        entry.served |= self.counts.total() != before;
        if let Some(Feed::Logs(_)) = entry.connection.feed()
            && entry.followed.is_none()
        {
            entry.followed = tail.map(Tail::end);
        }
        self.settle(now, epoll, slot, fate);
    }

    /// After anything was done with a connection: registration, timer, and its share of what all have; or its end.
    fn settle(&mut self, now: Now, epoll: &Epoll, slot: u32, fate: ConnectionFate) {
        let Some(entry) = entry_at(&mut self.slots, slot) else { return };
        let key = Key { slot, generation: entry.generation };
        let token = Source::Connection(key).token();
        if fate == ConnectionFate::Gone || entry.connection.register(epoll.as_fd(), token).is_err() {
            return self.drop_slot(slot);
        }
        let timer = entry.connection.deadline();
        if timer != entry.timer {
            if let Some(before) = std::mem::replace(&mut entry.timer, timer) {
                self.timers.remove(&(before, slot));
            }
            if let Some(timer) = timer {
                self.timers.insert((timer, slot));
            }
        }
        let share = entry.connection.share(entry.network);
        if share != entry.share {
            let before = std::mem::replace(&mut entry.share, share);
            self.quota.change(before, share);
            self.enforce_quota(now, slot, before, share);
        }
    }

    /// Drops it, whatever it is about.
    fn give_up(&mut self, slot: u32) {
        if let Some(entry) = entry_at(&mut self.slots, slot) {
            entry.connection.give_up();
        }
        self.drop_slot(slot);
    }

    fn drop_slot(&mut self, slot: u32) {
        let place = usize::try_from(slot).ok().and_then(|place| self.slots.get_mut(place));
        let Some(entry) = place.and_then(Option::take) else { return };
        if let Some(timer) = entry.timer {
            self.timers.remove(&(timer, slot));
        }
        self.quota.change(entry.share, Share::default());
        self.free.push(slot);
        // After a storm the table gives its memory back down to the last slot in use. Generation numbers go on counting.
        if self.slots.len() >= 2 * FEW && self.free.len() >= self.slots.len() / 4 * 3 {
            let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.slots.truncate(used);
            self.slots.shrink_to(FEW);
            self.free.retain(|slot| usize::try_from(*slot).is_ok_and(|slot| slot < used));
            self.free.shrink_to(FEW);
        }
    }

    /// Takes in a new state and tells those whom it concerns.
    pub(crate) fn publish(
        &mut self,
        now: Now,
        epoll: &Epoll,
        objects: &[Status],
        facts: StateFacts,
        subject: &dyn MetricsSource,
    ) {
        let changed = self.page.update(objects, facts);
        if self.quota.held() == 0 {
            return;
        }
        let event = if changed { self.page.event() } else { Vec::new() };
        for slot in self.all_slots() {
            let Some(entry) = self.entry(slot).filter(|entry| entry.share.held) else { continue };
            match entry.connection.feed() {
                None => self.attend(now, epoll, slot, subject, Connection::resume),
                Some(Feed::Events) if changed => self.push(now, epoll, slot, &event),
                Some(Feed::Events | Feed::Logs(_)) => {}
            }
        }
    }

    /// Whether anybody follows the captured output.
    pub(crate) fn is_followed(&self) -> bool {
        self.quota.held() > 0 && self.slots.iter().flatten().any(|entry| entry.followed.is_some())
    }

    /// Sends on what was captured since the last time to those who follow it.
    pub(crate) fn publish_output(&mut self, now: Now, epoll: &Epoll, tail: &Tail) {
        // All that follow the same stream are at the same place, except those that have just come.
        let mut same = None;
        for slot in self.all_slots() {
            let Some(entry) = entry_at(&mut self.slots, slot) else { continue };
            let (Some(Feed::Logs(stream)), Some(position)) = (entry.connection.feed(), entry.followed) else {
                continue;
            };
            let (_, bytes, end) = match same.take() {
                Some(known @ (from, _, _)) if from == (position, stream) => same.insert(known),
                _ => {
                    let (bytes, end) = tail.since(position, stream);
                    same.insert(((position, stream), bytes, end))
                }
            };
            entry.followed = Some(*end);
            if !bytes.is_empty() {
                self.push(now, epoll, slot, bytes);
            }
        }
    }

    fn push(&mut self, now: Now, epoll: &Epoll, slot: u32, bytes: &[u8]) {
        let Some(entry) = entry_at(&mut self.slots, slot) else { return };
        let fate = entry.connection.push(now, bytes, &mut self.buffers);
        self.settle(now, epoll, slot, fate);
    }

    /// When [`Server::serve_queued`] or [`Server::expire`] has something to do; `None`: not as things stand.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connections = self.timers.first().map(|(at, _)| *at);
        let resting = self.listeners.iter().filter_map(|listening| listening.resting).min();
        let closing = self.closing.map(|closing| closing.next);
        let heartbeat = self.heartbeat.deadline(self.quota.heartbeats());
        let queued = self.turn.filter(|_| !self.queue.is_empty());
        [connections, resting, closing, heartbeat, queued].into_iter().flatten().min()
    }

    /// Sees to what is due.
    pub(crate) fn expire(&mut self, now: Now, epoll: &Epoll, subject: &dyn MetricsSource) {
        while let Some((at, slot)) = self.timers.first().copied()
            && at <= now.mono
        {
            self.attend(now, epoll, slot, subject, Connection::expire);
            // A connection that names the same moment again would keep us here for ever.
            if self.timers.contains(&(at, slot)) {
                self.drop_slot(slot);
            }
        }
        if self.heartbeat.is_due(now.mono, self.quota.heartbeats()) {
            for slot in self.all_slots() {
                // One that still has something to take is not silent.
                let silent = |entry: &Entry| entry.share.heartbeat && !entry.connection.is_busy();
                if self.entry(slot).is_some_and(silent) {
                    self.push(now, epoll, slot, heartbeat::LINE);
                }
            }
        }
        for place in 0..u32::try_from(self.listeners.len()).unwrap_or(u32::MAX) {
            if let Some(listening) = listening_at(&mut self.listeners, place)
                && listening.resting.is_some_and(|until| until <= now.mono)
            {
                listening.resting = None;
                let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::IN);
            }
        }
    }

    /// Lets nobody in any more; who is in gets an answer, within bounds. [`Server::is_closed`] tells when that is done.
    pub(crate) fn close(&mut self, now: Now, epoll: &Epoll, subject: &dyn MetricsSource) {
        if self.closing.is_some() {
            return;
        }
        for place in 0..self.listeners.len() {
            // Whoever the kernel has let in already believes to be connected. Bounded, as others may go on connecting.
            for _ in 0..LAST_BATCHES {
                let Some(listening) = self.listeners.get(place).filter(|listening| listening.ours) else {
                    break;
                };
                let mut accepted = std::mem::take(&mut self.accepted);
                let verdict = listening.listener.accept(&mut accepted);
                let network = listening.listener.port().is_some();
                for socket in accepted.drain(..) {
                    self.admit(now, epoll, Admission { socket, network, given: false }, subject);
                }
                self.accepted = accepted;
                if verdict != Accepted::More {
                    break;
                }
            }
        }
        self.listeners.clear();
        let after = |grace| now.mono.checked_add(grace).unwrap_or(now.mono);
        self.closing = Some(Closing {
            silent: after(GRACE_SILENT),
            busy: after(GRACE_BUSY),
            given: after(GRACE_GIVEN),
            next: now.mono,
        });
        for slot in self.all_slots() {
            let Some(entry) = self.entry(slot) else { continue };
            match (entry.connection.feed().is_some(), entry.connection.is_held()) {
                (true, _) => self.attend(now, epoll, slot, subject, |connection, now, buffers, _| {
                    connection.end_of_stream(now, buffers)
                }),
                // The end that it waits for will not come any more: it learns how things stand.
                (false, true) => self.attend(now, epoll, slot, subject, Connection::give_up_waiting),
                // What has been sent to us by now is answered.
                (false, false) => self.attend(now, epoll, slot, subject, Connection::on_ready),
            }
        }
    }

    /// Whether all who were connected when [`Server::close`] was called have their answer or have had their time.
    pub(crate) fn is_closed(&mut self, now: Now) -> bool {
        let Some(mut closing) = self.closing else { return false };
        closing.next = closing.given;
        for slot in self.all_slots() {
            let Some(entry) = self.entry(slot) else { continue };
            let until = match () {
                () if entry.connection.is_busy() => closing.busy,
                () if entry.given && !entry.served => closing.given,
                // A deadline without an answer under way: half a request, or the close of a peer that still sends.
                () if !entry.served || entry.connection.deadline().is_some() => closing.silent,
                // Between two requests.
                () => now.mono,
            };
            if until <= now.mono {
                self.give_up(slot);
            } else {
                closing.next = closing.next.min(until);
            }
        }
        self.closing = Some(closing);
        self.connections() == 0
    }

    /// Kapo ends at once: who has not all of an answer or a stream is told so.
    pub(crate) fn abandon(&mut self) {
        for slot in self.all_slots() {
            self.give_up(slot);
        }
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        usize::try_from(slot).ok().and_then(|place| self.slots.get(place)).and_then(Option::as_ref)
    }

    fn all_slots(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

// Not methods of the server: what they lend is used beside its other parts.

fn entry_at(slots: &mut [Option<Entry>], slot: u32) -> Option<&mut Entry> {
    usize::try_from(slot).ok().and_then(|place| slots.get_mut(place)).and_then(Option::as_mut)
}

fn may_go_on(budget: &mut Option<Budget>) -> bool {
    budget.as_mut().is_none_or(|budget| budget.allows(sys::clock::monotonic))
}

fn listening_at(listeners: &mut [Listening], place: u32) -> Option<&mut Listening> {
    usize::try_from(place).ok().and_then(|place| listeners.get_mut(place))
}

#[cfg(test)]
mod tests;
