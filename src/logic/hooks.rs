//! The hooks of `--on`: which changes are events, and which command runs when. One hook runs at a time, in the order of
//! the events. Later events wait. An event that already waits is replaced by the newer one, so that a crash loop cannot
//! fill the queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::HookEvent;

/// How many events wait at most. The end of kapo does not count.
const QUEUE: usize = 8;

/// The facts whose changes are events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookFacts {
    /// The number of runs whose command was executed.
    pub executed: u64,
    /// Whether the command is ready.
    pub ready: bool,
    /// The number of failed runs.
    pub failed: u64,
    /// The number of the last run that was stopped because its probes failed.
    pub unhealthy: u64,
    /// Whether the document shows Flapping.
    pub flapping: bool,
    /// Whether a signal has asked kapo to stop.
    pub stopping: bool,
    /// Whether no further start is tried although the command has not succeeded.
    pub gave_up: bool,
}

impl HookFacts {
    /// Returns the events that lead from `before` to these facts, in their order.
    pub(crate) fn since(self, before: HookFacts) -> impl Iterator<Item = HookEvent> {
        let started = self.executed != before.executed;
        [
            (HookEvent::Stop, self.stopping && !before.stopping),
            (HookEvent::Unhealthy, self.unhealthy != before.unhealthy),
            (HookEvent::Fail, self.failed != before.failed),
            (HookEvent::Flapping, self.flapping && !before.flapping),
            (HookEvent::Recovered, !self.flapping && before.flapping),
            (HookEvent::GiveUp, self.gave_up && !before.gave_up),
            (HookEvent::Start, started),
            (HookEvent::Ready, self.ready && (started || !before.ready)),
        ]
        .into_iter()
        .filter_map(|(event, happened)| happened.then_some(event))
    }
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HookAction<T> {
    /// Start the hook of this event. [`HookQueue::ended`] follows, also if the start fails.
    Run(HookEvent, T),
    /// Kill the hook that runs. [`HookQueue::ended`] follows.
    Kill,
    /// kapo may exit.
    Finish,
}

/// The hook that runs and the events that wait, each with what its hook gets.
#[derive(Debug)]
pub(crate) struct HookQueue<T> {
    waiting: VecDeque<(HookEvent, T)>,
    running: Option<HookEvent>,
    end: HookEnd<T>,
    /// `--on-timeout`.
    timeout: Duration,
}

/// The progress of kapo's own end.
#[derive(Debug)]
enum HookEnd<T> {
    /// kapo does not end yet.
    NotYet,
    /// kapo waits for the hooks of earlier events until this time.
    Earlier(Option<Instant>, Option<T>),
    /// kapo waits for the hook of [`HookEvent::End`] until this time. It was started if nothing is left to give to it.
    Own(Option<Instant>, Option<T>),
    /// kapo waits for no hook.
    Over,
}

impl<T> HookQueue<T> {
    /// Returns an empty queue.
    pub(crate) fn new(timeout: Duration) -> HookQueue<T> {
        HookQueue { waiting: VecDeque::new(), running: None, end: HookEnd::NotYet, timeout }
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, event: HookEvent, given: T) {
        self.waiting.retain(|(waiting, _)| *waiting != event);
        if self.waiting.len() == QUEUE {
            self.waiting.pop_front();
        }
        self.waiting.push_back((event, given));
    }

    /// Begins the end of kapo. `given` is for the hook of this event, if there is one.
    pub(crate) fn finish(&mut self, now: Instant, given: Option<T>) {
        self.end = HookEnd::Earlier(now.checked_add(self.timeout), given);
    }

    /// Whether no event waits, and kapo does not end.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_finishing()
    }

    /// Whether kapo ends.
    pub(crate) fn is_finishing(&self) -> bool {
        !matches!(self.end, HookEnd::NotYet)
    }

    /// Waits for no hook any more, because a stop signal arrived while the end of kapo waited.
    pub(crate) fn skip(&mut self) {
        self.end = HookEnd::Over;
    }

    /// Takes note of the end of the running hook, and returns its event.
    pub(crate) fn ended(&mut self) -> Option<HookEvent> {
        self.running.take()
    }

    /// Returns when [`HookQueue::next`] has something to do. `free`: no process of a hook is left.
    pub(crate) fn deadline(&self, now: Instant, free: bool) -> Option<Instant> {
        let can_start = free && self.running.is_none();
        match &self.end {
            HookEnd::NotYet => (can_start && !self.waiting.is_empty()).then_some(now),
            HookEnd::Earlier(..) | HookEnd::Own(..) if can_start => Some(now),
            HookEnd::Earlier(until, _) | HookEnd::Own(until, _) => *until,
            HookEnd::Over => Some(now),
        }
    }

    /// Returns what to do now.
    pub(crate) fn next(&mut self, now: Instant, free: bool) -> Option<HookAction<T>> {
        let can_start = free && self.running.is_none();
        let is_late = |until: &Option<Instant>| until.is_some_and(|until| until <= now);
        if let HookEnd::Earlier(until, given) = &mut self.end {
            let late = is_late(until);
            if late {
                self.waiting.clear();
            }
            if late || (can_start && self.waiting.is_empty()) {
                self.end = HookEnd::Own(now.checked_add(self.timeout), given.take());
                if !can_start {
                    return Some(HookAction::Kill);
                }
            }
        }
        match &mut self.end {
            HookEnd::Own(until, _) if is_late(until) => self.end = HookEnd::Over,
            HookEnd::Own(_, given) if can_start => {
                if let Some(given) = given.take() {
                    self.running = Some(HookEvent::End);
                    return Some(HookAction::Run(HookEvent::End, given));
                }
                self.end = HookEnd::Over;
            }
            HookEnd::NotYet | HookEnd::Earlier(..) if can_start => {
                let (event, given) = self.waiting.pop_front()?;
                self.running = Some(event);
                return Some(HookAction::Run(event, given));
            }
            HookEnd::NotYet | HookEnd::Earlier(..) | HookEnd::Own(..) | HookEnd::Over => {}
        }
        matches!(self.end, HookEnd::Over).then_some(HookAction::Finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue() -> (HookQueue<u32>, Instant) {
        (HookQueue::new(10 * SECOND), crate::logic::tests::epoch().mono)
    }

    fn run(event: HookEvent, given: u32) -> Option<HookAction<u32>> {
        Some(HookAction::Run(event, given))
    }

    #[test]
    fn each_change_is_one_event_in_order() {
        use HookEvent as E;
        let idle = HookFacts::default();
        let running = HookFacts { executed: 1, ready: true, ..idle };
        let failed = HookFacts { ready: false, failed: 1, ..running };
        let flapping = HookFacts { flapping: true, ..failed };
        for (before, after, events) in [
            (idle, idle, &[][..]),
            (idle, running, &[E::Start, E::Ready]),
            (idle, HookFacts { executed: 1, ..idle }, &[E::Start]),
            (running, running, &[]),
            (running, HookFacts { ready: false, ..running }, &[]),
            (HookFacts { ready: false, ..running }, running, &[E::Ready]),
            (running, failed, &[E::Fail]),
            (running, flapping, &[E::Fail, E::Flapping]),
            (flapping, HookFacts { failed: 2, ..flapping }, &[E::Fail]),
            (flapping, failed, &[E::Recovered]),
            (running, HookFacts { gave_up: true, ..failed }, &[E::Fail, E::GiveUp]),
            (running, HookFacts { stopping: true, ..running }, &[E::Stop]),
            (running, HookFacts { unhealthy: 1, ..running }, &[E::Unhealthy]),
            // A run ended and the next one started before the facts were read.
            (running, HookFacts { executed: 2, failed: 1, ..running }, &[E::Fail, E::Start, E::Ready]),
        ] {
            assert_eq!(after.since(before).collect::<Vec<_>>(), events, "{before:?} {after:?}");
        }
    }

    #[test]
    fn one_hook_runs_at_a_time_in_the_order_of_events() {
        let (mut hooks, now) = queue();
        assert_eq!((hooks.next(now, true), hooks.deadline(now, true)), (None, None));
        hooks.push(HookEvent::Start, 1);
        hooks.push(HookEvent::Fail, 2);
        assert_eq!(hooks.deadline(now, true), Some(now));
        assert_eq!(hooks.next(now, true), run(HookEvent::Start, 1));
        assert_eq!((hooks.next(now, true), hooks.deadline(now, true)), (None, None));
        assert_eq!(hooks.ended(), Some(HookEvent::Start));
        // The process was killed, but the kernel has not ended it yet.
        assert_eq!((hooks.next(now, false), hooks.deadline(now, false)), (None, None));
        assert_eq!(hooks.next(now, true), run(HookEvent::Fail, 2));
    }

    #[test]
    fn a_waiting_event_is_replaced_by_the_newer_one() {
        let (mut hooks, now) = queue();
        hooks.push(HookEvent::Fail, 0);
        assert_eq!(hooks.next(now, true), run(HookEvent::Fail, 0));
        for number in 1..1000 {
            hooks.push(HookEvent::Fail, number);
            hooks.push(HookEvent::Start, number);
            assert!(hooks.waiting.len() <= 2);
        }
        hooks.ended();
        assert_eq!(hooks.next(now, true), run(HookEvent::Fail, 999));
        hooks.ended();
        assert_eq!(hooks.next(now, true), run(HookEvent::Start, 999));
        hooks.ended();
        assert_eq!(hooks.next(now, true), None);
    }

    #[test]
    fn at_most_eight_events_wait() {
        let (mut hooks, now) = queue();
        HookEvent::ALL.into_iter().zip(0..).for_each(|(event, number)| hooks.push(event, number));
        assert_eq!(hooks.waiting.len(), QUEUE);
        assert_eq!(hooks.next(now, true), run(HookEvent::Ready, 1), "the oldest was dropped");
    }

    #[test]
    fn the_end_waits_for_earlier_hooks_and_then_for_its_own() {
        let (mut hooks, now) = queue();
        hooks.push(HookEvent::Fail, 1);
        hooks.push(HookEvent::GiveUp, 2);
        hooks.finish(now, Some(3));
        for (event, number) in [(HookEvent::Fail, 1), (HookEvent::GiveUp, 2), (HookEvent::End, 3)] {
            assert_eq!(hooks.next(now, true), run(event, number));
            assert_eq!((hooks.next(now, true), hooks.deadline(now, true)), (None, Some(now + 10 * SECOND)));
            hooks.ended();
        }
        assert_eq!(hooks.next(now, true), Some(HookAction::Finish));
    }

    #[test]
    fn without_hooks_the_end_does_not_wait() {
        let (mut hooks, now) = queue();
        hooks.finish(now, None);
        assert_eq!((hooks.deadline(now, true), hooks.next(now, true)), (Some(now), Some(HookAction::Finish)));
    }

    #[test]
    fn hooks_that_hang_delay_the_end_by_two_timeouts_at_most() {
        let (mut hooks, now) = queue();
        hooks.push(HookEvent::Fail, 1);
        hooks.push(HookEvent::GiveUp, 2);
        hooks.next(now, true);
        hooks.finish(now + SECOND, Some(3));
        let later = now + 11 * SECOND;
        assert_eq!(hooks.next(later - Duration::from_nanos(1), false), None);
        assert_eq!(hooks.next(later, false), Some(HookAction::Kill));
        hooks.ended();
        // The kernel has not ended the process yet.
        assert_eq!(
            (hooks.next(later, false), hooks.deadline(later, false)),
            (None, Some(later + 10 * SECOND))
        );
        assert_eq!(hooks.next(later + SECOND, true), run(HookEvent::End, 3), "the others were dropped");
        assert_eq!(hooks.next(later + 10 * SECOND, false), Some(HookAction::Finish));
    }

    #[test]
    fn a_stop_signal_during_the_end_skips_all_hooks() {
        let (mut hooks, now) = queue();
        hooks.push(HookEvent::Stop, 1);
        hooks.push(HookEvent::Fail, 2);
        hooks.finish(now, Some(3));
        hooks.next(now, true);
        assert!(hooks.is_finishing());
        hooks.skip();
        hooks.ended();
        assert_eq!(
            (hooks.deadline(now, false), hooks.next(now, false)),
            (Some(now), Some(HookAction::Finish))
        );
    }
}
