use super::*;
use crate::config::{OwnProbe, ProbeTarget};

const SECOND: Duration = Duration::from_secs(1);

/// Two probes with the defaults of the options, or under `--unhealthy stop`, and a clock.
struct World {
    probes: Probes,
    now: Now,
}

impl World {
    fn with(change: impl FnOnce(&mut ProbeOptions)) -> World {
        let probe = |name: Option<&str>| OwnProbe {
            name: name.map(str::to_owned),
            target: ProbeTarget::Exec(vec!["true".into()]),
        };
        let mut options = ProbeOptions {
            probes: vec![probe(None), probe(Some("db"))],
            interval: 10 * SECOND,
            timeout: 5 * SECOND,
            failures: 3,
            grace: Duration::ZERO,
            stop: false,
        };
        change(&mut options);
        let now = crate::logic::tests::epoch();
        let mut probes = Probes::new(Rc::new(options));
        probes.run_started(now);
        World { probes, now }
    }

    fn stopping() -> World {
        World::with(|options| {
            options.stop = true;
            options.probes.truncate(1);
        })
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall + time };
    }

    /// Lets time pass up to the next deadline, and answers all attempts that begin there at once.
    fn tick(&mut self, result: Result<(), &str>) -> Option<String> {
        let at = self.probes.deadline().unwrap();
        self.pass(at.saturating_duration_since(self.now.mono));
        let begun = self.probes.begin(self.now, false);
        assert!(!begun.is_empty());
        begun.into_iter().filter_map(|index| self.finish(index, result)).next()
    }

    fn ask(&mut self) -> Vec<usize> {
        self.probes.begin(self.now, true)
    }

    fn finish(&mut self, index: usize, result: Result<(), &str>) -> Option<String> {
        self.probes.finished(self.now, index, result.map_err(str::to_owned), true)
    }

    fn reason(&self, index: usize) -> String {
        self.probes.status()[index].reason.clone()
    }

    fn wait(&self) -> Option<Duration> {
        self.probes.wait(self.now).map(|at| at - self.now.mono)
    }
}

#[test]
fn under_report_nothing_is_due_until_somebody_asks() {
    let mut world = World::with(|_| {});
    assert_eq!(world.probes.deadline(), None);
    assert_eq!(world.probes.begin(world.now, false), [0; 0]);
    assert_eq!(world.wait(), Some(5 * SECOND));
    assert_eq!(world.ask(), [0, 1]);
    world.pass(SECOND);
    // A request that arrives now waits for the same attempts, and not longer than they last.
    assert_eq!((world.ask(), world.wait()), (vec![], Some(4 * SECOND)));
    world.finish(0, Ok(()));
    assert_eq!(world.wait(), Some(4 * SECOND));
    world.finish(1, Ok(()));
    assert_eq!((world.wait(), world.probes.deadline()), (None, None));
    assert!(world.probes.status().iter().all(|probe| probe.up && probe.last_check == Some(world.now.wall)));
}

#[test]
fn a_result_is_good_for_an_interval_after_the_first_success() {
    let mut world = World::with(|_| {});
    world.ask();
    world.finish(0, Ok(()));
    world.finish(1, Err("no"));
    world.pass(SECOND);
    assert_eq!(world.ask(), [1]);
    world.finish(1, Ok(()));
    world.pass(9 * SECOND);
    assert_eq!(world.ask(), [0]);
    world.pass(SECOND);
    assert_eq!(world.ask(), [1]);
}

#[test]
fn an_attempt_without_an_end_expires_and_nobody_waits_longer() {
    let mut world = World::with(|_| {});
    world.ask();
    world.pass(5 * SECOND);
    assert_eq!((world.wait(), world.probes.expired(world.now)), (None, vec![0, 1]));
    world.finish(0, Err("timed out"));
    assert_eq!(world.reason(0), "timed out, 1 of 3");
    // An end that comes later is that of no attempt.
    assert_eq!(world.finish(0, Ok(())), None);
    assert_eq!(world.reason(0), "timed out, 1 of 3");
}

#[test]
fn under_stop_one_timer_runs_the_probes_each_interval() {
    let mut world = World::with(|options| options.stop = true);
    assert_eq!((world.wait(), world.ask()), (None, vec![]));
    let begin = world.now.mono;
    let mut at = Vec::new();
    for _ in 0..4 {
        assert_eq!(world.tick(Ok(())), None);
        at.push((world.now.mono - begin).as_secs());
    }
    assert_eq!(at, [1, 2, 12, 22]);
}

#[test]
fn a_stop_ends_the_timer() {
    let mut world = World::stopping();
    world.tick(Ok(()));
    world.probes.run_stopping();
    assert_eq!(world.probes.deadline(), None);
    world.probes.run_started(world.now);
    assert_eq!(world.tick(Ok(())), None);
}

#[test]
fn failures_in_a_row_make_the_command_unhealthy_once() {
    let mut world = World::stopping();
    world.tick(Ok(()));
    assert_eq!(world.tick(Err("a")), None);
    assert_eq!(world.tick(Err("b")), None);
    assert_eq!((world.tick(Ok(())), world.reason(0)), (None, String::new()));
    assert_eq!(world.tick(Err("a")), None);
    assert_eq!(world.tick(Err("b")), None);
    assert_eq!(world.tick(Err("c")), Some("c, 3 of 3".to_owned()));
    assert_eq!((world.tick(Err("d")), world.reason(0)), (None, "d, 3 of 3".to_owned()));
}

#[test]
fn before_the_first_success_failures_count_once_an_interval() {
    let mut world = World::stopping();
    let begin = world.now.mono;
    let reason = loop {
        if let Some(reason) = world.tick(Err("refused")) {
            break reason;
        }
    };
    assert_eq!((reason.as_str(), (world.now.mono - begin).as_secs()), ("refused, 3 of 3", 21));
}

#[test]
fn in_the_grace_period_failures_do_not_count() {
    let mut world = World::stopping();
    world.probes =
        Probes::new(Rc::new(ProbeOptions { grace: 60 * SECOND, ..world.probes.options().clone() }));
    world.probes.run_started(world.now);
    for _ in 0..59 {
        assert_eq!(world.tick(Err("refused")), None);
        let status = &world.probes.status()[0];
        assert_eq!((status.failures, status.reason.as_str()), (0, "refused, in the grace period"));
    }
    world.tick(Err("refused"));
    assert_eq!(world.reason(0), "refused, 1 of 3");
}

#[test]
fn what_kapo_itself_has_missed_is_no_failure() {
    let mut world = World::stopping();
    world.tick(Ok(()));
    // The timer is late.
    world.pass(30 * SECOND);
    assert_eq!(world.probes.begin(world.now, false), [0]);
    world.finish(0, Err("refused"));
    assert_eq!((world.reason(0), world.probes.status()[0].up), (String::new(), true));
    // The time-out is late.
    world.pass(10 * SECOND);
    assert_eq!(world.probes.begin(world.now, false), [0]);
    world.pass(5 * SECOND + LATE + SECOND);
    world.finish(0, Err("timed out"));
    assert!(world.probes.status()[0].up);
    // The command was stopped.
    world.pass(20 * SECOND);
    world.probes.begin(world.now, false);
    world.probes.finished(world.now, 0, Err("timed out".to_owned()), false);
    assert!(world.probes.status()[0].up);
}

#[test]
fn a_result_of_an_earlier_run_is_ignored() {
    let mut world = World::with(|_| {});
    world.ask();
    world.probes.run_ended();
    assert_eq!((world.wait(), world.ask(), world.finish(0, Ok(()))), (None, vec![], None));
    world.probes.run_started(world.now);
    world.finish(0, Ok(()));
    assert_eq!((world.reason(0).as_str(), world.probes.deadline()), (UNKNOWN, None));
    assert_eq!(world.ask(), [0, 1]);
}
