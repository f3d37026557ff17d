//! Runs `kapo watch` on the loop: publishes what the watcher finds and writes its notes to the log.

use std::time::{Instant, SystemTime};

use crate::config;
use crate::driver::event_loop::{LoopContext, LoopMode};
use crate::driver::http::server::MetricsSource;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::poll::{Ready, Source};
use crate::driver::proc::process_usage;
use crate::driver::watch::watcher::Watcher;
use crate::error::Error;
use crate::logic::endpoints::StateFacts;
use crate::logic::history::History;
use crate::logic::lifecycle::IgnoredAtStart;
use crate::logic::metrics::{Snapshot, Sources};
use crate::logic::notify::message;
use crate::logic::output::tail::Tail;
use crate::logic::status::{State, Status};
use crate::logic::watch::{Note, report};
use crate::logic::{Now, Sender, Stream};
use crate::signal::Signal;

/// The `watch` mode: a [`Watcher`], and the status that is published from it.
pub(crate) struct Watching {
    watcher: Watcher,
    manager: Option<ServiceManager>,
    told_ready: bool,
    sidebind_port: u16,
    name: &'static str,
    ignored_at_start: IgnoredAtStart,
    /// Whether the watcher has more work for the next turn.
    more: bool,
    /// The objects of the published status document.
    objects: Vec<Status>,
    started: SystemTime,
    closing: bool,
}

/// The values with which watching starts.
pub(crate) struct WatchSetup {
    /// The time of the start.
    pub now: Now,
    /// The service manager to notify.
    pub manager: Option<ServiceManager>,
    /// The TCP port of the status socket, for `SidebindPort`.
    pub sidebind_port: u16,
    /// The name of this kapo.
    pub name: &'static str,
    /// Which terminal signals were ignored when kapo started.
    pub ignored_at_start: IgnoredAtStart,
}

/// A watcher that is ready to scan, and the notes to log about its preparation.
pub(crate) struct OpenedWatcher {
    watcher: Watcher,
    notes: Vec<Note>,
}

impl OpenedWatcher {
    /// Opens the watcher. Fails if the process of `--pid` does not exist. `history` is the number of ended matches to
    /// keep.
    pub(crate) fn open(
        options: &config::WatchOptions,
        history: usize,
        now: Now,
    ) -> Result<OpenedWatcher, Error> {
        let mut notes = Vec::new();
        let watcher = Watcher::open(options, history, now, &mut |note| notes.push(note))?;
        Ok(OpenedWatcher { watcher, notes })
    }
}

impl Watching {
    /// Starts to serve the findings of `opened`. The first scan begins in the first turn.
    pub(crate) fn new(
        opened: OpenedWatcher,
        beginning: WatchSetup,
        stage: &mut LoopContext,
    ) -> Result<Watching, Error> {
        let WatchSetup { now, manager, sidebind_port, name, ignored_at_start } = beginning;
        let OpenedWatcher { watcher, notes } = opened;
        stage
            .epoll
            .add(&watcher, Source::Watch, rustix::event::epoll::EventFlags::IN)
            .map_err(|e| Error::setup("wait for", "processes", crate::error::reason(&e.into())))?;
        let mut watching = Watching {
            watcher,
            manager,
            told_ready: false,
            sidebind_port,
            name,
            ignored_at_start,
            more: true,
            objects: Vec::new(),
            started: now.wall,
            closing: false,
        };
        watching.tell_notes(now, notes, stage);
        // Publish before the first scan: an answer without a match is better than no answer.
        watching.publish(now, stage);
        Ok(watching)
    }

    fn tell_notes(&self, now: Now, notes: Vec<Note>, stage: &mut LoopContext) {
        for note in notes {
            stage.exit = report::exit_code(note).or(stage.exit);
            let record = report::record(note, self.watcher.table().command(note.name()));
            stage.log(now, &record);
        }
    }

    fn publish(&mut self, now: Now, stage: &mut LoopContext) {
        self.objects = self.watcher.status();
        for object in &mut self.objects {
            object.sidebind_port = self.sidebind_port;
            object.name = self.name;
        }
        let ended = report::ended(&self.objects, self.watcher.lives());
        let facts = StateFacts { stopping: self.closing, ended, ..StateFacts::default() };
        stage.server.publish(now, &stage.epoll, facts, self);
        if let Some(manager) = &mut self.manager {
            let table = self.watcher.table();
            let name = (!table.has_several_names()).then(|| table.command(0));
            let text = report::summary(&self.objects, name);
            manager.tell(now, message::status(&text));
        }
    }

    fn close(&mut self, now: Now, stage: &mut LoopContext) {
        if std::mem::replace(&mut self.closing, true) {
            // A second stop signal means not to wait for clients.
            stage.exit = Some(0);
            return;
        }
        if let Some(manager) = &mut self.manager {
            manager.tell(now, b"STOPPING=1".to_vec());
        }
        self.publish(now, stage);
        stage.server.close(now, &stage.epoll, self);
    }
}

impl LoopMode for Watching {
    /// Handles a signal to kapo. No signal is forwarded, because the watched processes are not children of kapo.
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, stage: &mut LoopContext) {
        if stage.is_stopped_by(now, signal, sender, self.ignored_at_start) {
            self.close(now, stage);
        }
    }

    fn on_child(&mut self, _: Now, _: &mut LoopContext) {
        // As PID 1 of a container, kapo inherits orphans and must reap them.
        while crate::sys::wait::next_change(false).is_some() {}
    }

    fn on_resumed(&mut self, _: Now, _: &mut LoopContext) {}

    fn on_sources(&mut self, _: Now, ready: Ready, _: &mut LoopContext) {
        self.more |= ready.has(Source::Watch);
    }

    fn on_request(&mut self, _: Now, _: &mut LoopContext) {}

    fn finish_turn(&mut self, now: Now, stage: &mut LoopContext) {
        if self.more || self.watcher.deadline().is_some_and(|at| at <= now.mono) {
            let mut notes = Vec::new();
            self.more = self.watcher.turn(now, &mut |note| notes.push(note));
            self.tell_notes(now, notes, stage);
            if !self.more && !self.told_ready {
                self.told_ready = true;
                if let Some(manager) = &mut self.manager {
                    manager.tell(now, b"READY=1".to_vec());
                }
            }
        }
        if self.watcher.take_changed() {
            self.publish(now, stage);
        }
        if let Some(record) = self.manager.as_mut().and_then(|manager| manager.turn(now)) {
            stage.log(now, &record);
        }
        if self.closing && stage.server.is_closed(now) {
            stage.exit = Some(0);
        }
    }

    fn deadline(&self, now: Now) -> Option<Instant> {
        let at_once = self.more.then_some(now.mono);
        let manager = self.manager.as_ref().and_then(ServiceManager::deadline);
        [at_once, self.watcher.deadline(), manager].into_iter().flatten().min()
    }

    fn wants_room(&self, _: Stream) -> bool {
        false
    }
}

impl MetricsSource for Watching {
    fn objects(&self) -> &[Status] {
        &self.objects
    }

    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot {
        let table = self.watcher.table();
        let mut snapshot = self.of_name(connections, sources, &self.objects).with_last_run(table.history());
        if table.has_several_names() {
            let groups = self.objects.chunk_by(|one, other| one.command == other.command).enumerate();
            let of_name = |(at, group): (usize, &[Status])| {
                let of_name = self.of_name(connections, Sources { own: false, ..sources }, group);
                let history = table.history_of(at).unwrap_or(table.history());
                (table.command(at).to_owned(), of_name.with_last_run(history))
            };
            snapshot.watched = groups.map(of_name).collect();
        }
        snapshot
    }

    fn tail(&self) -> Option<&Tail> {
        None
    }

    fn history(&self) -> Option<&History> {
        Some(self.watcher.table().history()).filter(|history| history.is_on())
    }
}

impl Watching {
    /// Returns the values for the metrics of these objects.
    fn of_name(&self, connections: usize, sources: Sources, objects: &[Status]) -> Snapshot {
        let up = objects.iter().all(|object| object.state == State::Running);
        let first = objects.first();
        Snapshot {
            name: self.name,
            started: self.started,
            up,
            ready: up,
            watched: Vec::new(),
            start_time: first.and_then(|object| object.start_time),
            starts: None,
            exits: None,
            last_exit_code: first.and_then(|object| object.end_time.map(|_| object.exit_code)),
            flapping: None,
            oom_kills: None,
            orphans_reaped: None,
            output: [None; 2],
            connections,
            last_end: None,
            last_success: None,
            last_lasted: None,
            tree: match sources.tree {
                true => process_usage::listed(objects.iter().filter_map(|object| object.pid)),
                false => None,
            },
            own: if sources.own { process_usage::own(None) } else { None },
            // The watched processes need not be in kapo's cgroup.
            cgroup: None,
            probes: Vec::new(),
        }
    }
}
