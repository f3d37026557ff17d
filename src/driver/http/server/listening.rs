//! The listeners: which of them are waited for, and what is accepted from them.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::driver::http::listener::{Accepted, Listener};
use crate::driver::poll::{Epoll, Source};
use crate::logic::Now;
use crate::logic::output::coalesce::{self, Coalescer};

struct Listening {
    listener: Listener,
    /// Until when it is not listened to.
    resting: Option<Instant>,
    /// It was bound by kapo, not inherited: the connections in its queue are lost with it.
    ours: bool,
}

/// All listeners, by place.
pub(super) struct Listeners {
    all: Vec<Listening>,
    /// The buffer for what is accepted at once.
    accepted: Vec<OwnedFd>,
    /// How clients come, and how many have in this turn; `None`: no listener was ready.
    pace: Coalescer,
    arrivals: Option<usize>,
}

impl Listeners {
    pub(super) fn new() -> Listeners {
        Listeners {
            all: Vec::new(),
            accepted: Vec::new(),
            pace: Coalescer::new(&coalesce::ARRIVALS),
            arrivals: None,
        }
    }

    /// Adds a listener and waits for it.
    pub(super) fn add(
        &mut self,
        epoll: &Epoll,
        listener: Listener,
        ours: bool,
    ) -> Result<(), rustix::io::Errno> {
        let place = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        epoll.add(&listener, Source::Listener(place), EventFlags::IN)?;
        self.all.push(Listening { listener, resting: None, ours });
        Ok(())
    }

    /// The listener at a place.
    pub(super) fn at(&self, place: u32) -> Option<&Listener> {
        Some(&self.all.get(usize::try_from(place).ok()?)?.listener)
    }

    /// The places of those that kapo has bound.
    pub(super) fn ours(&self) -> Vec<u32> {
        (0..).zip(&self.all).filter(|(_, listening)| listening.ours).map(|(place, _)| place).collect()
    }

    /// Accepts a batch. The buffer is given back by [`Listeners::recycle`].
    pub(super) fn accept(&mut self, place: u32) -> Option<Batch> {
        let listening = usize::try_from(place).ok().and_then(|place| self.all.get(place))?;
        let mut sockets = std::mem::take(&mut self.accepted);
        let verdict = listening.listener.accept(&mut sockets);
        Some(Batch { sockets, verdict, network: listening.listener.port().is_some() })
    }

    /// Takes the buffer of a batch back.
    pub(super) fn recycle(&mut self, sockets: Vec<OwnedFd>) {
        self.accepted = sockets;
    }

    /// Accepts what waits on inherited listeners until `accepted` holds `most`.
    pub(super) fn accept_inherited(&self, accepted: &mut Vec<OwnedFd>, most: usize) {
        for listening in self.all.iter().filter(|listening| !listening.ours) {
            // The loop meets and reports the other verdicts, because the listener stays ready.
            while accepted.len() < most && listening.listener.accept(accepted) == Accepted::More {}
        }
    }

    /// So many clients have come.
    pub(super) fn count_arrivals(&mut self, came: usize) {
        self.arrivals = Some(self.arrivals.unwrap_or(0) + came);
    }

    /// At the end of a turn: for how long clients that connect should gather.
    pub(super) fn gather(&mut self, now: Now) -> Option<Duration> {
        let arrivals = self.arrivals.take()?;
        self.pace.turn(now.mono, arrivals);
        self.pace.rest()
    }

    /// Stops waiting for a listener until then.
    pub(super) fn rest(&mut self, epoll: &Epoll, place: u32, until: Option<Instant>) {
        if let Some(listening) = usize::try_from(place).ok().and_then(|place| self.all.get_mut(place)) {
            let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::empty());
            listening.resting = until;
        }
    }

    /// When [`Listeners::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.iter().filter_map(|listening| listening.resting).min()
    }

    /// Waits again for the listeners that have rested.
    pub(super) fn expire(&mut self, now: Now, epoll: &Epoll) {
        for (listening, place) in self.all.iter_mut().zip(0..) {
            if listening.resting.is_some_and(|until| until <= now.mono) {
                listening.resting = None;
                let _ = epoll.modify(&listening.listener, Source::Listener(place), EventFlags::IN);
            }
        }
    }

    /// Closes all of them.
    pub(super) fn close(&mut self) {
        self.all.clear();
    }
}

/// What was accepted from a listener at once.
pub(super) struct Batch {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) verdict: Accepted,
    /// The listener is not a Unix socket.
    pub(super) network: bool,
}
