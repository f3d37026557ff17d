//! Runs kapo's own probes beside the command, and tells the lifecycle their results.

use super::Job;

use crate::driver::event_loop::LoopContext;
use crate::driver::poll::Ready;
use crate::driver::probe::ProbeResult;
use crate::logic::Now;
use crate::logic::lifecycle::Event;

impl Job {
    /// Begins to probe another run of the command.
    pub(super) fn probe_run(&mut self, now: Now) {
        if let Some(prober) = &mut self.prober {
            prober.cancel(&mut self.children.helpers);
            prober.probes.run_started(now);
            self.life.set_probes(now, prober.probes.status(), &mut Vec::new());
        }
    }

    /// Gives up all attempts after the end of the run.
    pub(super) fn stop_probing(&mut self) {
        if let Some(prober) = &mut self.prober {
            prober.cancel(&mut self.children.helpers);
            prober.probes.run_ended();
        }
    }

    /// Takes the results of attempts that have ended, and begins those that are due.
    pub(super) fn serve_probes(&mut self, now: Now, ready: Option<Ready>, context: &mut LoopContext) {
        self.children.helpers.expire(now);
        let Some(prober) = &mut self.prober else { return };
        let ends = self.children.helpers.take_ends();
        let mut results = prober.turn(now, ready, &context.epoll, ends);
        let asked = context.server.take_needs_probes();
        if self.life.is_stopping() {
            prober.probes.run_stopping();
        } else {
            let surroundings = self.starter.surroundings();
            let helpers = &mut self.children.helpers;
            prober.begin(now, asked, &context.epoll, helpers, surroundings, &mut results);
        }
        context.deep |= asked;
        if !results.is_empty() {
            self.probes_finished(now, results, context);
        }
    }

    fn probes_finished(&mut self, now: Now, results: Vec<ProbeResult>, context: &mut LoopContext) {
        let counts = !self.life.is_stopping()
            && !self.suspended
            && self.life.pid().is_none_or(|pid| !self.is_stopped(pid));
        let Some(prober) = &mut self.prober else { return };
        let mut unhealthy = None;
        for (index, result) in results {
            unhealthy = unhealthy.or(prober.probes.finished(now, index, result, counts));
        }
        let mut effects = Vec::new();
        self.life.set_probes(now, prober.probes.status(), &mut effects);
        for effect in effects {
            self.perform(now, effect, context);
        }
        self.publish(now, context);
        if let Some(reason) = unhealthy {
            self.handle(now, Event::Unhealthy { run: self.life.starts(), reason }, context);
        }
    }
}
