//! The HTTP server: listeners, connections, and the pages that it serves. It owns the sockets and carries out
//! decisions. `logic::endpoints` decides the answer to a request, `logic::http::conn` the state of one connection, and
//! `logic::http::table` which connection is served next, reaches its deadline or is evicted.

mod listening;
mod publishing;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use self::listening::{AcceptedBatch, Listeners};
use crate::driver::http::connection::{Buffers, Connection, ConnectionFate};
use crate::driver::http::listener::{Accepted, Listener, prepare_tcp};
use crate::driver::poll::{Epoll, Source};
use crate::error::reason;
use crate::logic::Now;
use crate::logic::endpoints::{Page, RequestContext, StateFacts};
use crate::logic::history::History;
use crate::logic::http::Handler;
use crate::logic::http::conn::Feed;
use crate::logic::http::heartbeat;
use crate::logic::http::table::{Admission, ClosingAction, FEW, Key, Relief, Shortage, Table};
use crate::logic::log::record::Record;
use crate::logic::metrics::{Counts, Measured, Snapshot, Sources};
use crate::logic::output::tail::Tail;
use crate::logic::status::Status;
use crate::sys;

/// How many batches are accepted from each queue when kapo closes. This bounds the work if clients keep connecting.
const LAST_BATCHES: usize = 64;

/// Facts for the endpoints that only the rest of kapo knows.
pub(crate) trait MetricsSource {
    /// Returns the objects of the status document.
    fn objects(&self) -> &[Status];
    /// Reads the values for /metrics and /debug/vars. Values that are not in `sources` need not be read.
    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot;
    /// Returns the handler of a mode with paths of its own. It answers instead of the endpoints of one kapo.
    fn site(&self) -> Option<&RefCell<dyn Handler>> {
        None
    }
    /// Takes the socket of the request for which [`MetricsSource::site`] has just returned [`Next::HandOver`], and the
    /// bytes that must be sent before the answer.
    ///
    /// [`Next::HandOver`]: crate::logic::http::Next::HandOver
    fn hand_over(&self, now: Now, socket: OwnedFd, unsent: Vec<u8>) {
        let _ = (now, socket, unsent);
    }
    /// Returns the tail of the captured output; `None` without `--tail`.
    fn tail(&self) -> Option<&Tail>;
    /// Returns the runs that have ended; `None` with `--history 0`.
    fn history(&self) -> Option<&History>;
    /// Returns when requests that need the results of probes must be answered; `None`: now.
    fn probed_at(&self, now: Now) -> Option<Instant> {
        let _ = now;
        None
    }
}

/// A method of a connection. As a pointer, so that [`Server::attend`] exists once: 2 KB less.
type Action = fn(&mut Connection, Now, &mut Buffers, &mut dyn Handler) -> ConnectionFate;

/// The listeners, the connections and the pages; see the head of the file.
pub(crate) struct Server {
    listeners: Listeners,
    table: Table,
    /// The connections of `table`, by slot.
    connections: Vec<Option<Connection>>,
    buffers: Buffers,
    page: Page,
    /// The facts of a state that `page` does not show yet. Most states are over before a client asks for them.
    unrendered: Option<StateFacts>,
    counts: Counts,
    argv0: String,
    /// The values read from /proc and from the rest of kapo in this turn. They are reused within the turn because
    /// reading them is expensive and one packet may hold hundreds of requests for them.
    measured: Option<(Instant, Box<Measured>)>,
    /// A request waits for the results of probes.
    needs_probes: bool,
}

impl Server {
    /// Returns a server without listeners. At most `limit` connections are kept open.
    pub(crate) fn new(limit: usize, argv0: String, page: Page) -> Server {
        Server {
            listeners: Listeners::new(),
            table: Table::new(limit),
            connections: Vec::new(),
            buffers: Buffers::new(),
            page,
            unrendered: None,
            counts: Counts::default(),
            argv0,
            measured: None,
            needs_probes: false,
        }
    }

    /// Adds a listener. `ours` means that kapo bound it: connections in its queue are then still accepted when kapo
    /// closes. Connections in the queue of an inherited listener are left to the next instance.
    pub(crate) fn listen(
        &mut self,
        epoll: &Epoll,
        listener: Listener,
        ours: bool,
    ) -> Result<(), rustix::io::Errno> {
        self.listeners.add(epoll, listener, ours)
    }

    /// Accepts the connections that wait on inherited listeners into `accepted`, up to the connection limit. One of
    /// them is the reason why a service manager started kapo. It must be answered even if the command exits at once or
    /// cannot be executed, because a connection that stays in the queue starts kapo again.
    pub(crate) fn accept_queued(&self, accepted: &mut Vec<OwnedFd>) {
        self.listeners.accept_inherited(accepted, self.table.limit());
    }

    /// Frees what only requests need: the buffers that all connections share, and the values of the last scrape. The
    /// next request allocates them again.
    pub(crate) fn free_buffers(&mut self) {
        self.buffers = Buffers::new();
        self.measured = None;
    }

    /// Returns the number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.table.connections()
    }

    /// Returns the number of requests answered so far.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.total()
    }

    /// Accepts connections from a listener that is ready.
    pub(crate) fn on_listener(&mut self, now: Now, epoll: &Epoll, place: u32, metrics: &dyn MetricsSource) {
        let Some(batch) = self.listeners.accept(place) else { return };
        let verdict = batch.verdict;
        if verdict == Accepted::Broken
            && let Some(listener) = self.listeners.at(place)
        {
            // epoll would report the hang-up of this listener again and again, regardless of the requested events.
            epoll.delete(listener);
            let record = Record::error("listener failed");
            self.table.note(record.with("address", listener.address()));
        }
        let arrivals = self.admit_batch(now, epoll, batch, metrics);
        self.listeners.count_arrivals(arrivals);
        match verdict {
            Accepted::Starved if arrivals == 0 => self.relieve(now, epoll, place, Shortage::Descriptors),
            Accepted::Exhausted(errno) => {
                self.relieve(now, epoll, place, Shortage::System(&reason(&errno.into())));
            }
            Accepted::Starved | Accepted::Drained | Accepted::More | Accepted::Broken => {}
        }
    }

    fn relieve(&mut self, now: Now, epoll: &Epoll, place: u32, shortage: Shortage<'_>) {
        match self.table.relieve(now, shortage) {
            Relief::Evicted(slot) => self.evict(slot),
            Relief::Rest(until) => self.listeners.rest(epoll, place, until),
        }
    }

    /// Returns the log records that have been added since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<Record> {
        self.table.take_notices()
    }

    /// Returns how long the loop should wait so that incoming connections coalesce; call it at the end of a turn. See
    /// [`crate::logic::output::coalesce`].
    pub(crate) fn gather(&mut self, now: Now) -> Option<Duration> {
        self.listeners.gather(now)
    }

    /// Adds a connection that was accepted before the command was started.
    pub(crate) fn admit_given(
        &mut self,
        now: Now,
        epoll: &Epoll,
        socket: OwnedFd,
        metrics: &dyn MetricsSource,
    ) {
        // On a Unix socket setting the TCP options fails.
        let network = prepare_tcp(&socket).is_ok();
        self.admit(now, epoll, socket, Admission { network, given: true }, metrics);
    }

    /// Adds the connections of an accepted batch and returns how many there were.
    fn admit_batch(
        &mut self,
        now: Now,
        epoll: &Epoll,
        batch: AcceptedBatch,
        metrics: &dyn MetricsSource,
    ) -> usize {
        let AcceptedBatch { mut sockets, network, .. } = batch;
        let arrivals = sockets.len();
        for socket in sockets.drain(..) {
            self.admit(now, epoll, socket, Admission { network, given: false }, metrics);
        }
        self.listeners.recycle(sockets);
        arrivals
    }

    /// Adds a connection and serves it at once if the turn has time for it. The request is often readable already, and
    /// then a client that sends one request and closes costs no epoll registration.
    fn admit(
        &mut self,
        now: Now,
        epoll: &Epoll,
        socket: OwnedFd,
        admission: Admission,
        metrics: &dyn MetricsSource,
    ) {
        let connection = Connection::new(now, socket);
        let admitted = self.table.admit(now, admission, connection.facts());
        if let Some(slot) = admitted.evicted {
            self.evict(slot);
        }
        let Ok(place) = usize::try_from(admitted.key.slot) else { return };
        if place >= self.connections.len() {
            self.connections.resize_with(place + 1, || None);
        }
        if let Some(place) = self.connections.get_mut(place) {
            *place = Some(connection);
        }
        self.on_connection(now, epoll, admitted.key, metrics);
    }

    /// Starts a turn of the loop, with a new time budget for connections.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.table.begin_turn(now);
    }

    /// Handles the readiness of a connection. It is served now if no other connection is queued and the turn has time
    /// left, otherwise by [`Server::serve_queued`].
    pub(crate) fn on_connection(&mut self, now: Now, epoll: &Epoll, key: Key, metrics: &dyn MetricsSource) {
        if let Some(slot) = self.table.ready(key, sys::clock::monotonic) {
            self.attend(now, epoll, slot, metrics, Connection::on_ready);
        }
    }

    /// Serves the queued connections as long as this turn has time.
    pub(crate) fn serve_queued(&mut self, now: Now, epoll: &Epoll, metrics: &dyn MetricsSource) {
        let mut left_over_served = false;
        while let Some(slot) = self.table.next_queued(&mut left_over_served, sys::clock::monotonic) {
            self.attend(now, epoll, slot, metrics, Connection::on_ready);
        }
    }

    /// Calls `action` on a connection, then updates its registration and its row in the table.
    fn attend(&mut self, now: Now, epoll: &Epoll, slot: u32, metrics: &dyn MetricsSource, action: Action) {
        self.render(metrics);
        let connections = self.connections();
        let Some(connection) = connection_at(&mut self.connections, slot) else { return };
        let before = self.counts.total();
        let tail = metrics.tail();
        let mut measured =
            self.measured.take().filter(|(at, _)| *at == now.mono).map(|(_, measured)| measured);
        if let Some(measured) = &mut measured {
            measured.snapshot.connections = connections;
        }
        let mut context = RequestContext {
            site: metrics.site().map(RefCell::borrow_mut),
            page: &self.page,
            counts: &mut self.counts,
            argv0: &self.argv0,
            tail,
            history: metrics.history(),
            measured,
            lacking: None,
            probed_at: metrics.probed_at(now),
            needs_probes: false,
        };
        let mut fate = action(connection, now, &mut self.buffers, &mut context);
        // The loop ends because each snapshot has more sources than the one before.
        while fate == ConnectionFate::Wait
            && let Some(wanted) = context.lacking.take()
        {
            let sources = context.measured.as_ref().map_or(wanted, |before| before.sources.and(wanted));
            let snapshot = metrics.snapshot(connections, sources);
            context.measured = Some(Box::new(Measured { sources, snapshot }));
            fate = connection.resume(now, &mut self.buffers, &mut context);
        }
        self.needs_probes |= context.needs_probes;
        self.measured = context.measured.take().map(|measured| (now.mono, measured));
        drop(context);
        if self.counts.total() != before {
            self.table.answered(slot);
        }
        if let Some(Feed::Logs(_)) = connection.feed()
            && self.table.followed(slot).is_none()
        {
            self.table.follow(slot, tail.map(Tail::end));
        }
        if fate == ConnectionFate::HandOver {
            let place = usize::try_from(slot).ok().and_then(|place| self.connections.get_mut(place));
            if let Some(connection) = place.and_then(Option::take) {
                // The registration belongs to the socket, which stays open.
                epoll.delete(&connection);
                let (socket, unsent) = connection.into_parts();
                metrics.hand_over(now, socket, unsent);
            }
            return self.drop_slot(slot);
        }
        self.settle(now, epoll, slot, fate);
    }

    /// Updates the registration and the table after a call on a connection, or removes the connection if it has ended.
    fn settle(&mut self, now: Now, epoll: &Epoll, slot: u32, fate: ConnectionFate) {
        let Some(connection) = connection_at(&mut self.connections, slot) else { return };
        let Some(key) = self.table.key(slot) else { return };
        let token = Source::Connection(key).token();
        if fate == ConnectionFate::Gone || connection.register(epoll.as_fd(), token).is_err() {
            return self.drop_slot(slot);
        }
        for slot in self.table.settle(now, slot, &connection.facts()) {
            self.evict(slot);
        }
    }

    /// Closes a connection that the table has evicted.
    fn evict(&mut self, slot: u32) {
        self.counts.evicted();
        self.give_up(slot);
    }

    /// Resets or closes the socket of a connection that the table has removed.
    fn give_up(&mut self, slot: u32) {
        if let Some(connection) = connection_at(&mut self.connections, slot) {
            connection.give_up();
        }
        self.drop_socket(slot);
    }

    /// Removes a connection that has ended.
    fn drop_slot(&mut self, slot: u32) {
        self.table.remove(slot);
        self.drop_socket(slot);
    }

    /// Drops a socket. The vector shrinks together with the table, but only if no socket is left beyond the table's
    /// last slot, because the table may have removed several connections at once.
    fn drop_socket(&mut self, slot: u32) {
        let Some(place) = usize::try_from(slot).ok().and_then(|place| self.connections.get_mut(place)) else {
            return;
        };
        *place = None;
        let slots = usize::try_from(self.table.slots().end).unwrap_or(usize::MAX);
        let beyond = self.connections.get(slots..).unwrap_or_default();
        if !beyond.is_empty() && beyond.iter().all(Option::is_none) {
            self.connections.truncate(slots);
            self.connections.shrink_to(FEW);
        }
    }

    /// Whether a request has begun to wait for the results of probes since the last call.
    pub(crate) fn take_needs_probes(&mut self) -> bool {
        std::mem::take(&mut self.needs_probes)
    }

    /// Returns when [`Server::serve_queued`] or [`Server::expire`] is due; `None` if neither is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.table.deadline(), self.listeners.deadline()].into_iter().flatten().min()
    }

    /// Handles all deadlines that have passed.
    pub(crate) fn expire(&mut self, now: Now, epoll: &Epoll, metrics: &dyn MetricsSource) {
        while let Some(due @ (_, slot)) = self.table.due(now) {
            self.attend(now, epoll, slot, metrics, Connection::expire);
            // A connection that returns the same deadline again would keep kapo in this loop for ever.
            if self.table.is_stuck(due) {
                self.drop_slot(slot);
            }
        }
        if self.table.is_heartbeat_due(now) {
            for slot in self.table.slots() {
                if self.table.is_silent(slot) {
                    self.push(now, epoll, slot, heartbeat::LINE);
                }
            }
        }
        self.listeners.expire(now, epoll);
    }

    /// Closes the listeners, answers the held requests and ends the streams. [`Server::is_closed`] reports when all
    /// connections have ended.
    pub(crate) fn close(&mut self, now: Now, epoll: &Epoll, metrics: &dyn MetricsSource) {
        if self.table.is_closing() {
            return;
        }
        for place in self.listeners.ours() {
            // The kernel has completed the handshake of these clients, so they believe that they are connected. The
            // loop is bounded because clients may keep connecting.
            for _ in 0..LAST_BATCHES {
                if !self.listeners.at(place).is_some_and(Listener::is_ready) {
                    break;
                }
                let Some(batch) = self.listeners.accept(place) else { break };
                let verdict = batch.verdict;
                self.admit_batch(now, epoll, batch, metrics);
                if verdict != Accepted::More {
                    break;
                }
            }
        }
        self.listeners.close();
        self.table.close(now);
        for slot in self.table.slots() {
            match self.table.closing_action(slot) {
                Some(ClosingAction::EndStream) => {
                    self.attend(now, epoll, slot, metrics, |connection, now, buffers, _| {
                        connection.end_of_stream(now, buffers)
                    });
                }
                Some(ClosingAction::AnswerHeld) => {
                    self.attend(now, epoll, slot, metrics, Connection::give_up_waiting);
                }
                Some(ClosingAction::Serve) => self.attend(now, epoll, slot, metrics, Connection::on_ready),
                None => {}
            }
        }
    }

    /// Whether each connection that was open at [`Server::close`] has received its answer or reached its deadline.
    pub(crate) fn is_closed(&mut self, now: Now) -> bool {
        for slot in self.table.dismiss(now) {
            self.give_up(slot);
        }
        self.table.is_closing() && self.connections() == 0
    }

    /// Closes all connections at once. A connection with an unfinished answer or stream is reset, so that the client
    /// notices.
    pub(crate) fn abandon(&mut self) {
        for slot in self.table.slots() {
            self.table.remove(slot);
            self.give_up(slot);
        }
    }
}

// This is not a method of the server, because its result is borrowed together with other fields.
fn connection_at(connections: &mut [Option<Connection>], slot: u32) -> Option<&mut Connection> {
    usize::try_from(slot).ok().and_then(|place| connections.get_mut(place)).and_then(Option::as_mut)
}

#[cfg(test)]
mod tests;
