//! Follows the counter of out-of-memory kills from the first run on, and logs each increase. `cgroup` reads the
//! counter, and `logic::oom` interprets it.

use std::cell::Cell;

use rustix::event::epoll::EventFlags;

use crate::driver::event_loop::LoopContext;
use crate::driver::poll::Source;
use crate::driver::process::cgroup::OomKillFile;
use crate::logic::history::CgroupMemory;
use crate::logic::log::record::Record;
use crate::logic::oom::Oom;
use crate::logic::{Exit, Now};

/// The counter of out-of-memory kills. Empty before the first run, and if the cgroup has no counter.
#[derive(Debug, Default)]
pub(crate) struct OomCounter {
    followed: Option<(OomKillFile, Oom)>,
    /// A cgroup v1 counter, which does not make epoll ready, may have changed.
    may_have_changed: Cell<bool>,
}

impl OomCounter {
    /// Finds the counter if there is none yet, and reads its value at the start of a run.
    pub(crate) fn run_started(&mut self, now: Now, context: &mut LoopContext) {
        match &mut self.followed {
            Some((cgroup, oom)) => {
                if let Some(count) = cgroup.count() {
                    log_kills(now, oom.run_started(now.mono, count), context);
                }
            }
            None => {
                self.followed = OomKillFile::find().map(|(cgroup, count)| {
                    let oom = Oom::new(count);
                    if let Some(source) = cgroup.source() {
                        let _ = context.epoll.add(source, Source::Oom, EventFlags::PRI);
                    }
                    (cgroup, oom)
                });
            }
        }
    }

    /// Reads the counter and logs an increase.
    pub(crate) fn update(&mut self, now: Now, context: &mut LoopContext) {
        let Some((cgroup, oom)) = &mut self.followed else { return };
        let Some(count) = cgroup.count() else {
            // The cgroup was removed. Its file stays ready from now on, so remove it from epoll.
            if let Some(source) = cgroup.source() {
                context.epoll.delete(source);
            }
            self.followed = None;
            return;
        };
        log_kills(now, oom.observed(now.mono, count), context);
    }

    /// Records that a process was killed, perhaps by the kernel, so that [`OomCounter::finish_turn`] reads the counter.
    pub(crate) fn expect_kill(&self) {
        self.may_have_changed.set(true);
    }

    /// Reads the counter if a kill was recorded in this turn.
    pub(crate) fn finish_turn(&mut self, now: Now, context: &mut LoopContext) {
        if self.may_have_changed.take() {
            self.update(now, context);
        }
    }

    /// Whether the kernel's OOM killer ended the command, given its `exit`. Must be called after
    /// [`OomCounter::update`]. `ours`: kapo itself has sent SIGKILL.
    pub(crate) fn is_cause(&self, now: Now, exit: Exit, ours: bool) -> bool {
        self.followed.as_ref().is_some_and(|(_, oom)| oom.is_cause(now.mono, exit, ours))
    }

    /// Returns the memory of the cgroup, or `None` if it cannot be read. Must be called after [`OomCounter::update`].
    pub(crate) fn memory(&self) -> Option<CgroupMemory> {
        self.followed.as_ref().map(|(cgroup, oom)| cgroup.memory(oom.count()))
    }

    /// Returns the kills since kapo started that were observed so far.
    pub(crate) fn observed(&self) -> Option<u64> {
        Some(self.followed.as_ref()?.1.total_at(None))
    }

    /// Returns the kills since kapo started, for a scrape. An increase is logged before this turn ends.
    pub(crate) fn total(&self) -> Option<u64> {
        let (cgroup, oom) = self.followed.as_ref()?;
        let total = oom.total_at(cgroup.count());
        if total > oom.total_at(None) {
            self.expect_kill();
        }
        Some(total)
    }
}

/// Logs new kills.
fn log_kills(now: Now, kills: u64, context: &mut LoopContext) {
    if kills > 0 {
        context.log(now, &Record::warn("out-of-memory kill").number("kills", kills));
    }
}
