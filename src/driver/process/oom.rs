//! Follows the counter of out-of-memory kills from the first run on, and tells of them in the log. Where it is read is
//! found in `cgroup`; what it means is decided in `logic::oom`.

use std::cell::Cell;

use rustix::event::epoll::EventFlags;

use crate::driver::event_loop::LoopContext;
use crate::driver::poll::Source;
use crate::driver::process::cgroup::OomKillFile;
use crate::logic::history::Memory;
use crate::logic::log::record::Record;
use crate::logic::oom::Oom;
use crate::logic::{Exit, Now};

/// See the head of the file. Before the first run, and where the kernel does not count for us, nothing is followed.
#[derive(Debug, Default)]
pub(crate) struct OomCounter {
    followed: Option<(OomKillFile, Oom)>,
    /// A counter that wakes nobody (cgroup version 1) was seen, or may be expected, to have moved.
    moved: Cell<bool>,
}

impl OomCounter {
    /// A run has just started: the counter is looked for, if none is followed, and asked how it stands.
    pub(crate) fn run_started(&mut self, now: Now, stage: &mut LoopContext) {
        match &mut self.followed {
            Some((cgroup, oom)) => {
                if let Some(count) = cgroup.count() {
                    tell(now, oom.run_started(now.mono, count), stage);
                }
            }
            None => {
                self.followed = OomKillFile::find().map(|(cgroup, count)| {
                    let oom = Oom::new(count);
                    if let Some(source) = cgroup.source() {
                        let _ = stage.epoll.add(source, Source::Oom, EventFlags::PRI);
                    }
                    (cgroup, oom)
                });
            }
        }
    }

    /// The counter has moved, or may have.
    pub(crate) fn look(&mut self, now: Now, stage: &mut LoopContext) {
        let Some((cgroup, oom)) = &mut self.followed else { return };
        let Some(count) = cgroup.count() else {
            // The cgroup was removed: its file says so for ever, and would wake us for ever.
            if let Some(source) = cgroup.source() {
                stage.epoll.delete(source);
            }
            self.followed = None;
            return;
        };
        tell(now, oom.observed(now.mono, count), stage);
    }

    /// Somebody was killed, perhaps by the kernel: [`OomCounter::finish_turn`] looks.
    pub(crate) fn expect_kill(&self) {
        self.moved.set(true);
    }

    /// Looks, where this turn gave reason to.
    pub(crate) fn finish_turn(&mut self, now: Now, stage: &mut LoopContext) {
        if self.moved.take() {
            self.look(now, stage);
        }
    }

    /// Whether the kernel ended the command, which has ended like this; to be asked after [`OomCounter::look`].
    /// `ours`: kapo itself sent SIGKILL.
    pub(crate) fn is_cause(&self, now: Now, exit: Exit, ours: bool) -> bool {
        self.followed.as_ref().is_some_and(|(_, oom)| oom.is_cause(now.mono, exit, ours))
    }

    /// The memory of the cgroup; `None`: it cannot be read.
    pub(crate) fn memory(&self) -> Option<Memory> {
        self.followed.as_ref().map(|(cgroup, _)| cgroup.memory())
    }

    /// Those since kapo's start, for a scrape; what is new to us is told in the log before this turn ends.
    pub(crate) fn total(&self) -> Option<u64> {
        let (cgroup, oom) = self.followed.as_ref()?;
        let total = oom.total_at(cgroup.count());
        if total > oom.total_at(None) {
            self.expect_kill();
        }
        Some(total)
    }
}

/// Logs kills that were not known before.
fn tell(now: Now, kills: u64, stage: &mut LoopContext) {
    if kills > 0 {
        stage.log(now, &Record::warn("out-of-memory kill").number("kills", kills));
    }
}
