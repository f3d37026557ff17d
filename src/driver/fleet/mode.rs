//! The mode of the loop: signals, deadlines, and the time without a connection.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::site::Site;
use crate::config::FleetOptions;
use crate::driver::event_loop::{LoopContext, LoopMode};
use crate::driver::http::server::MetricsSource;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::poll::{Ready, Source};
use crate::error::{Error, reason};
use crate::logic::history::History;
use crate::logic::http::Handler;
use crate::logic::lifecycle::IgnoredAtStart;
use crate::logic::metrics::{Snapshot, Sources};
use crate::logic::output::tail::Tail;
use crate::logic::status::Status;
use crate::logic::{Now, Sender, Stream};
use crate::signal::Signal;

/// The `fleet` mode.
pub(crate) struct Fleet {
    site: RefCell<Site>,
    manager: Option<ServiceManager>,
    told_ready: bool,
    ignored_at_start: IgnoredAtStart,
    idle_exit: Option<Duration>,
    /// Since when no connection is open.
    idle_since: Option<Instant>,
    closing: bool,
}

/// The values with which fleet starts.
pub(crate) struct FleetSetup {
    /// The time of the start.
    pub now: Now,
    /// The service manager to notify.
    pub manager: Option<ServiceManager>,
    /// Which terminal signals were ignored when kapo started.
    pub ignored_at_start: IgnoredAtStart,
    /// The folder of sockets.
    pub folder: PathBuf,
    /// Whether browsers get a page.
    pub ui: bool,
    /// The limit of open connections.
    pub connections: usize,
}

impl Fleet {
    /// Opens the folder and makes it the working directory. All paths of the options are absolute.
    pub(crate) fn open(
        options: &FleetOptions,
        setup: FleetSetup,
        context: &LoopContext,
    ) -> Result<Fleet, Error> {
        let FleetSetup { now, manager, ignored_at_start, folder, ui, connections } = setup;
        let reserve = u64::try_from(connections + super::DESCRIPTORS).unwrap_or(u64::MAX);
        let site = Site::open(&folder, options.timeout, ui, reserve).and_then(|site| {
            context.epoll.add(&site.proxy, Source::Proxy, EventFlags::IN)?;
            Ok(site)
        });
        let site = site.map_err(|errno| Error::setup("open", folder.display(), reason(&errno.into())))?;
        Ok(Fleet {
            site: RefCell::new(site),
            manager,
            told_ready: false,
            ignored_at_start,
            idle_exit: options.idle_exit,
            idle_since: Some(now.mono),
            closing: false,
        })
    }

    fn close(&mut self, now: Now, context: &mut LoopContext) {
        if std::mem::replace(&mut self.closing, true) {
            // A second stop signal means not to wait for clients.
            context.exit = Some(0);
            return;
        }
        if let Some(manager) = &mut self.manager {
            manager.tell(now, b"STOPPING=1".to_vec());
        }
        context.server.close(now, &context.epoll, self);
    }
}

impl LoopMode for Fleet {
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, context: &mut LoopContext) {
        if context.is_stopped_by(now, signal, sender, self.ignored_at_start) {
            self.close(now, context);
        }
    }

    fn on_child(&mut self, _: Now, _: &mut LoopContext) {
        // As PID 1 of a container, kapo inherits orphans and must reap them.
        while crate::sys::wait::next_change(false).is_some() {}
    }

    fn on_resumed(&mut self, _: Now, _: &mut LoopContext) {}

    fn on_sources(&mut self, now: Now, ready: Ready, _: &mut LoopContext) {
        let site = self.site.get_mut();
        site.proxy.turn(now, ready.has(Source::Proxy));
        if ready.has(Source::Folder) {
            site.on_folder(now);
        }
    }

    fn on_request(&mut self, _: Now, _: &mut LoopContext) {}

    fn finish_turn(&mut self, now: Now, context: &mut LoopContext) {
        if let Some(manager) = &mut self.manager {
            if !self.told_ready {
                self.told_ready = true;
                manager.tell(now, b"READY=1".to_vec());
            }
            if let Some(record) = manager.turn(now) {
                context.log(now, &record);
            }
        }
        let viewed = context.server.has_viewers();
        let news = self.site.get_mut().turn(now, viewed, &context.epoll);
        if let Some(event) = news {
            context.server.publish_event(now, &context.epoll, &event, self);
        }
        let site = self.site.get_mut();
        site.answered(viewed);
        if context.server.connections() > 0 || site.proxy.open() > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now.mono);
        }
        let idle = self.idle_end().is_some_and(|end| end <= now.mono);
        if idle || self.closing && context.server.is_closed(now) {
            context.exit = Some(0);
        }
    }

    fn deadline(&self, _: Now) -> Option<Instant> {
        let site = self.site.borrow();
        let manager = self.manager.as_ref().and_then(ServiceManager::deadline);
        [self.idle_end(), site.deadline(), manager].into_iter().flatten().min()
    }

    fn wants_room(&self, _: Stream) -> bool {
        false
    }
}

impl Fleet {
    /// Returns when fleet exits if no client connects before.
    fn idle_end(&self) -> Option<Instant> {
        self.idle_since?.checked_add(self.idle_exit?)
    }
}

impl MetricsSource for Fleet {
    fn objects(&self) -> &[Status] {
        &[]
    }

    fn snapshot(&self, _: usize, _: Sources) -> Snapshot {
        unreachable!("fleet has a site of its own, without metrics")
    }

    fn site(&self) -> Option<&RefCell<dyn Handler>> {
        Some(&self.site)
    }

    fn hand_over(&self, now: Now, socket: OwnedFd, unsent: Vec<u8>) {
        self.site.borrow_mut().take_over(now, socket, unsent);
    }

    fn tail(&self) -> Option<&Tail> {
        None
    }

    fn history(&self) -> Option<&History> {
        None
    }
}
