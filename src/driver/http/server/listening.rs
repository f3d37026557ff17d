//! The listeners: which of them are registered with epoll, and what is accepted from them.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::driver::http::listener::{Accepted, Listener};
use crate::driver::poll::{Epoll, Source};
use crate::logic::Now;
use crate::logic::output::coalesce::{self, Coalescer};

struct OpenListener {
    listener: Listener,
    /// Until when it is not polled.
    resting: Option<Instant>,
    /// It was bound by kapo, not inherited: the connections in its queue are lost when it is closed.
    ours: bool,
}

/// The listeners; a place is an index into `all`.
pub(super) struct Listeners {
    all: Vec<OpenListener>,
    /// A reusable buffer for accepted sockets.
    accepted: Vec<OwnedFd>,
    /// Measures how fast connections arrive, so that they can be accepted together.
    coalescer: Coalescer,
    arrivals: Option<usize>,
}

impl Listeners {
    pub(super) fn new() -> Listeners {
        Listeners {
            all: Vec::new(),
            accepted: Vec::new(),
            coalescer: Coalescer::new(&coalesce::ARRIVALS),
            arrivals: None,
        }
    }

    /// Adds a listener and registers it with epoll.
    pub(super) fn add(
        &mut self,
        epoll: &Epoll,
        listener: Listener,
        ours: bool,
    ) -> Result<(), rustix::io::Errno> {
        let place = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        epoll.add(&listener, Source::Listener(place), EventFlags::IN)?;
        self.all.push(OpenListener { listener, resting: None, ours });
        Ok(())
    }

    /// Returns the listener at a place.
    pub(super) fn at(&self, place: u32) -> Option<&Listener> {
        Some(&self.all.get(usize::try_from(place).ok()?)?.listener)
    }

    /// Returns the places of the listeners that kapo has bound.
    pub(super) fn ours(&self) -> Vec<u32> {
        (0..).zip(&self.all).filter(|(_, listening)| listening.ours).map(|(place, _)| place).collect()
    }

    /// Accepts a batch. Return its buffer with [`Listeners::recycle`].
    pub(super) fn accept(&mut self, place: u32) -> Option<AcceptedBatch> {
        let listening = usize::try_from(place).ok().and_then(|place| self.all.get(place))?;
        let mut sockets = std::mem::take(&mut self.accepted);
        let verdict = listening.listener.accept(&mut sockets);
        Some(AcceptedBatch { sockets, verdict, network: listening.listener.port().is_some() })
    }

    /// Takes back the buffer of a batch.
    pub(super) fn recycle(&mut self, sockets: Vec<OwnedFd>) {
        self.accepted = sockets;
    }

    /// Accepts connections from the inherited listeners until `accepted` holds `most`.
    pub(super) fn accept_inherited(&self, accepted: &mut Vec<OwnedFd>, most: usize) {
        for listening in self.all.iter().filter(|listening| !listening.ours) {
            // Other verdicts are ignored here: the listener stays ready, so the loop meets and reports them.
            while accepted.len() < most && listening.listener.accept(accepted) == Accepted::More {}
        }
    }

    /// Counts accepted connections.
    pub(super) fn count_arrivals(&mut self, accepted: usize) {
        self.arrivals = Some(self.arrivals.unwrap_or(0) + accepted);
    }

    /// Returns how long the loop should wait so that incoming connections coalesce; call it at the end of a turn.
    pub(super) fn gather(&mut self, now: Now) -> Option<Duration> {
        let arrivals = self.arrivals.take()?;
        self.coalescer.turn(now.mono, arrivals);
        self.coalescer.rest()
    }

    /// Stops polling a listener until `until`.
    pub(super) fn rest(&mut self, epoll: &Epoll, place: u32, until: Option<Instant>) {
        if let Some(listening) = usize::try_from(place).ok().and_then(|place| self.all.get_mut(place)) {
            let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::empty());
            listening.resting = until;
        }
    }

    /// Returns when [`Listeners::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.iter().filter_map(|listening| listening.resting).min()
    }

    /// Resumes polling of the listeners whose rest is over.
    pub(super) fn expire(&mut self, now: Now, epoll: &Epoll) {
        for (listening, place) in self.all.iter_mut().zip(0..) {
            if listening.resting.is_some_and(|until| until <= now.mono) {
                listening.resting = None;
                let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::IN);
            }
        }
    }

    /// Closes all listeners.
    pub(super) fn close(&mut self) {
        self.all.clear();
    }
}

/// The sockets that one call accepted from a listener.
pub(super) struct AcceptedBatch {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) verdict: Accepted,
    /// The listener is not a Unix socket.
    pub(super) network: bool,
}
