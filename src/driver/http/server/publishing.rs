//! Sends changes to the clients that wait for them: held requests, event streams, followers of the captured output.

use super::{Server, connection_at};
use crate::driver::http::connection::Connection;
use crate::driver::http::server::MetricsSource;
use crate::driver::poll::Epoll;
use crate::logic::Now;
use crate::logic::endpoints::StateFacts;
use crate::logic::http::conn::Feed;
use crate::logic::output::tail::Tail;

impl Server {
    /// Takes the new state, answers the held requests that it completes, and sends it to the event streams.
    pub(crate) fn publish(
        &mut self,
        now: Now,
        epoll: &Epoll,
        facts: StateFacts,
        metrics: &dyn MetricsSource,
    ) {
        self.unrendered = Some(facts);
        if self.table.has_waiting() {
            let changed = self.render(metrics);
            let event = if changed { self.page.event() } else { Vec::new() };
            self.publish_event(now, epoll, &event, metrics);
        }
    }

    /// Renders the present state if the page does not show it yet. Returns whether the document has changed.
    pub(super) fn render(&mut self, metrics: &dyn MetricsSource) -> bool {
        self.unrendered.take().is_some_and(|facts| self.page.update(metrics.objects(), facts))
    }

    /// Asks again for the held requests, and sends `event` to the event streams unless it is empty.
    pub(crate) fn publish_event(
        &mut self,
        now: Now,
        epoll: &Epoll,
        event: &[u8],
        metrics: &dyn MetricsSource,
    ) {
        for slot in self.table.slots() {
            match self.table.waits_for(slot) {
                Some(None) => self.attend(now, epoll, slot, metrics, Connection::resume),
                Some(Some(Feed::Events)) if !event.is_empty() => self.push(now, epoll, slot, event),
                Some(Some(Feed::Events | Feed::Logs(_))) | None => {}
            }
        }
    }

    /// Whether a client receives events.
    pub(crate) fn has_viewers(&self) -> bool {
        let views = |slot| self.table.waits_for(slot) == Some(Some(Feed::Events));
        self.table.has_waiting() && self.table.slots().any(views)
    }

    /// Whether a client follows the captured output.
    pub(crate) fn is_followed(&self) -> bool {
        self.table.is_followed()
    }

    /// Sends the output captured since the last call to the clients that follow it.
    pub(crate) fn publish_output(&mut self, now: Now, epoll: &Epoll, tail: &Tail) {
        // All followers of one stream are at the same position, except those that have just connected.
        let mut same = None;
        for slot in self.table.slots() {
            let Some((stream, position)) = self.table.follower(slot) else { continue };
            let (_, bytes, end) = match same.take() {
                Some(known @ (from, _, _)) if from == (position, stream) => same.insert(known),
                _ => {
                    let (bytes, end) = tail.since(position, stream);
                    same.insert(((position, stream), bytes, end))
                }
            };
            self.table.follow(slot, Some(*end));
            if !bytes.is_empty() {
                self.push(now, epoll, slot, bytes);
            }
        }
    }

    pub(super) fn push(&mut self, now: Now, epoll: &Epoll, slot: u32, bytes: &[u8]) {
        let Some(connection) = connection_at(&mut self.connections, slot) else { return };
        let fate = connection.push(now, bytes, &mut self.buffers);
        self.settle(now, epoll, slot, fate);
    }
}
