//! Tests of whole lifecycles: named scenarios, and two thousand random ones.

use std::rc::Rc;
use std::time::Duration;

use super::world::{Behaviour, Leaves, OTHER_PROCESS, World, any_life};
use super::{Effect, Event, ForegroundOwner, IgnoredAtStart, JobContext, SignalTarget, SpawnErrorKind};
use crate::config::tests::{job as run, restart as again};
use crate::config::{After, JobOptions, Linger, Restart, Success, Ttl};
use crate::logic::log::record::{Record, Style};
use crate::logic::random::Random;
use crate::logic::reason::Reason;
use crate::logic::status::State;
use crate::logic::tests::epoch;
use crate::logic::{Exit, ProcessId, Sender};
use crate::signal::{Signal, SignalSet};

mod before_stop;
mod repeats;

const SECOND: Duration = Duration::from_secs(1);

fn supervise() -> JobOptions {
    JobOptions { after: After::Again(again()), ..run() }
}

fn context() -> JobContext {
    JobContext {
        history: 5,
        hide_args: false,
        sidebind_port: 0,
        name: "",
        manager: false,
        ignored_at_start: IgnoredAtStart::default(),
        piped: false,
        is_init: false,
        seed: 1,
    }
}

/// Returns a simulation that has started and whose children have the given behaviour.
fn begun(job: JobOptions, behaviour: Behaviour) -> World {
    begun_in(context(), job, behaviour)
}

fn begun_in(context: JobContext, job: JobOptions, behaviour: Behaviour) -> World {
    let mut world = World::new(epoch(), job, context);
    world.behaviour = behaviour;
    world.start();
    world
}

fn ttl(seconds: u32) -> Option<Ttl> {
    Some(Ttl { min: seconds * SECOND, max: seconds * SECOND })
}

fn killed_by(signal: Signal) -> Exit {
    Exit::Signal { signal, core_dumped: false }
}

/// Returns the pid of the first child of a simulation.
fn child() -> ProcessId {
    ProcessId::new(101).unwrap()
}

fn kill(signal: Signal) -> Effect {
    Effect::Kill { signal, to: SignalTarget::Group(child()), log: None }
}

/// Returns the effects since the last call, without log records and checks.
fn done(world: &mut World) -> Vec<Effect> {
    let mut effects = world.effects();
    effects.retain(|effect| !matches!(effect, Effect::Log(_) | Effect::CheckStopped(_)));
    for effect in &mut effects {
        if let Effect::Kill { log, .. } = effect {
            *log = None;
        }
    }
    effects
}

/// Returns the datagrams that were sent to the service manager since the last call, without `STATUS=`.
fn notifications(world: &mut World) -> Vec<String> {
    let datagrams = world.effects().into_iter().filter_map(|effect| match effect {
        Effect::Notify(datagram) => String::from_utf8(datagram).ok(),
        _ => None,
    });
    datagrams.filter(|text| !text.starts_with("STATUS=")).collect()
}

#[test]
fn random_lifecycles_keep_every_invariant() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        any_life(epoch(), seed, &mut |n| random.bits() % n);
    }
}

#[test]
fn a_year_of_crashes_keeps_every_invariant() {
    let restart = Restart { backoff_max: Some(3_600 * SECOND), ..again() };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(SECOND, Exit::Code(3)));
    for _day in 0..365 {
        world.run_for(86_400 * SECOND);
        world.history.clear();
    }
    let restarts = world.life.status().restarts;
    assert!((8_700..8_800).contains(&restarts), "{restarts}");
    assert_eq!(world.leave(), 3);
}

#[test]
fn a_run_ends_with_the_code_of_its_command() {
    let mut world = begun(run(), Behaviour::ends(SECOND, Exit::Code(7)));
    assert_eq!(world.run_to_the_end(), 7);
    let log = |record: Record| Effect::Log(record.with("command", "command").number("pid", 101));
    let ended = log(Record::warn("exited"));
    let Effect::Log(ended) = ended else { panic!() };
    assert_eq!(
        world.effects(),
        [
            Effect::Spawn,
            log(Record::info("started")),
            Effect::Log(ended.with("reason", "exit-code").number("code", 7).with("lasted", "1.000s")),
            Effect::Drain { run: 1 },
            Effect::Close,
            Effect::Exit(7),
        ]
    );
    let status = world.life.status();
    assert_eq!((status.exit_code, status.reason, status.state), (7, Some(Reason::ExitCode), State::Stopped));
    assert_eq!(status.start_time, Some(epoch().wall));
    assert_eq!(status.end_time, Some(epoch().wall + SECOND));
}

/// Returns the runs that are kept: exit code, seconds, number of lines, and whether it is the first failure.
fn kept(world: &World) -> Vec<(u64, f64, usize, bool)> {
    let runs: Vec<serde_json::Value> = serde_json::from_slice(&world.life.history().render()).unwrap();
    let kept = runs.iter().map(|run| {
        let lines = run["LastOutput"].as_array().unwrap().len();
        let lasted = run["LastedSeconds"].as_f64().unwrap();
        (run["ExitCode"].as_u64().unwrap(), lasted, lines, run["First"] == true)
    });
    kept.collect()
}

#[test]
fn a_requested_end_is_no_failure() {
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(2)));
    // Three failures are tolerated; a fourth one would be flapping.
    world.run_for(SECOND * 31 / 2);
    world.behaviour = Behaviour::until_signalled();
    world.run_for(7 * SECOND);
    assert_eq!(kept(&world).iter().map(|run| run.3).collect::<Vec<_>>(), [false, false, true]);
    world.signal(Signal::TERM);
    assert_eq!(world.run_to_the_end(), 143);
    assert!(!world.life.status().flapping);
    assert!(kept(&world).iter().all(|run| !run.3), "the episode is over: {:?}", kept(&world));
}

#[test]
fn the_first_failure_of_a_crash_loop_is_kept() {
    let restart = Restart { wait: SECOND, ..again() };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(2 * SECOND, Exit::Code(7)));
    assert_eq!(world.life.status().last_run, None);
    world.run_for(SECOND * 5 / 2);
    let last = world.life.status().last_run.clone().unwrap();
    assert_eq!((last.exit_code, last.reason, last.lasted), (7, Some(Reason::ExitCode), 2 * SECOND));
    assert_eq!((last.pid, last.end_time), (Some(child()), Some(epoch().wall + 2 * SECOND)));
    assert_eq!(kept(&world), [(7, 2.0, 0, true)]);
    world.behaviour = Behaviour::ends(SECOND, Exit::Code(1));
    world.run_for(100 * SECOND);
    let first = (7, 2.0, 0, true);
    assert_eq!(kept(&world), [vec![(1, 1.0, 0, false); 5], vec![first]].concat());
    // A run that lasts for --stable ends the series of failures, whether or not it fails.
    world.behaviour = Behaviour::ends(60 * SECOND, Exit::Code(2));
    world.run_for(70 * SECOND);
    assert_eq!(kept(&world).iter().filter(|run| run.3).collect::<Vec<_>>(), [&(2, 60.0, 0, true)]);
    assert_eq!(world.life.history().last_success(), None);
}

#[test]
fn the_last_run_is_shown_while_the_next_one_runs() {
    let mut world = begun(supervise(), Behaviour::ends(SECOND, killed_by(Signal::KILL)));
    world.behaviour = Behaviour::until_signalled();
    world.run_for(7 * SECOND);
    let status = world.life.status();
    assert_eq!((status.state, status.reason), (State::Running, None));
    let last = status.last_run.as_ref().unwrap();
    assert_eq!((last.exit_code, last.signal, last.reason), (137, Some(Signal::KILL), Some(Reason::Signal)));
}

#[test]
fn each_kind_of_end_has_its_reason_and_exit_code() {
    let dumped = Exit::Signal { signal: Signal::SEGV, core_dumped: true };
    let codes = vec![Success::Code(143), Success::Code(9), Success::Signal(Signal::USR1)];
    for (exit, oom_killed, success_exit, reason, code) in [
        (Exit::Code(0), false, vec![], Reason::Success, 0),
        (Exit::Code(3), true, vec![], Reason::ExitCode, 3),
        (killed_by(Signal::TERM), true, vec![], Reason::Signal, 143),
        (killed_by(Signal::KILL), true, vec![], Reason::OomKill, 137),
        (killed_by(Signal::KILL), false, vec![], Reason::Signal, 137),
        (dumped, false, vec![], Reason::CoreDump, 139),
        (killed_by(Signal::TERM), false, codes.clone(), Reason::Success, 0),
        (Exit::Code(9), false, codes.clone(), Reason::Success, 0),
        (killed_by(Signal::USR1), false, codes.clone(), Reason::Success, 0),
        (Exit::Code(138), false, codes, Reason::ExitCode, 138),
    ] {
        let behaviour = Behaviour { oom_killed, ..Behaviour::ends(SECOND, exit) };
        let mut world = begun(JobOptions { success_exit, ..run() }, behaviour);
        assert_eq!(world.run_to_the_end(), code, "{exit:?}");
        let status = world.life.status();
        assert_eq!((status.reason, status.exit_code), (Some(reason), exit.code()), "{exit:?}");
        assert_eq!(status.state == State::Killed, matches!(exit, Exit::Signal { .. }));
    }
}

#[test]
fn a_child_that_ignores_the_stop_signal_is_killed_after_its_ttl() {
    let mut world = begun(JobOptions { ttl: ttl(60), ..run() }, Behaviour::ignoring_signals());
    world.run_for(60 * SECOND - Duration::from_millis(1));
    assert_eq!(done(&mut world), [Effect::Spawn]);
    world.run_for(Duration::from_millis(1));
    assert_eq!(done(&mut world), [kill(Signal::TERM), kill(Signal::CONT)]);
    world.run_for(10 * SECOND - Duration::from_millis(1));
    assert_eq!(done(&mut world), []);
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(
        done(&mut world),
        [
            kill(Signal::KILL),
            Effect::CountGroup { group: child(), exactly: false },
            Effect::Drain { run: 1 },
            Effect::Close,
            Effect::Exit(124)
        ]
    );
    assert_eq!((world.life.status().reason, world.life.status().exit_code), (Some(Reason::Timeout), 137));
}

#[test]
fn a_clean_exit_after_the_ttl_is_still_a_timeout() {
    let obedient = Behaviour { exit_on_signal: Some(Exit::Code(0)), ..Behaviour::until_signalled() };
    let mut world = begun(JobOptions { ttl: ttl(60), stop_signal: Signal::USR1, ..run() }, obedient);
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!((world.life.status().reason, world.life.status().exit_code), (Some(Reason::Timeout), 0));
    let is_end = |record: &&Record| format!("{record:?}").contains("exited");
    let effects = world.effects();
    let records = effects.iter().filter_map(|effect| match effect {
        Effect::Log(record) => Some(record),
        _ => None,
    });
    let levels: Vec<_> = records.filter(is_end).map(Record::level).collect();
    assert_eq!(levels, [crate::logic::log::record::Level::Info], "a planned end is no warning");
}

#[test]
fn an_end_by_ttl_can_count_as_success() {
    let job = JobOptions { ttl: ttl(60), success_exit: vec![Success::Ttl], ..run() };
    let mut world = begun(job.clone(), Behaviour::until_signalled());
    assert_eq!(world.run_to_the_end(), 0);
    assert_eq!((world.life.status().reason, world.life.status().exit_code), (Some(Reason::Success), 143));
    let log = logged(&mut world);
    assert!(log.iter().all(|line| line.starts_with("level=info ")), "{log:#?}");
    let mut world = begun(job.clone(), Behaviour::ends(SECOND, killed_by(Signal::TERM)));
    assert_eq!(world.run_to_the_end(), 143, "only an end by TTL is a success");
    let restart = Restart { on_failure_only: true, ..again() };
    let mut world = begun(JobOptions { after: After::Again(restart), ..job }, Behaviour::until_signalled());
    assert_eq!((world.run_to_the_end(), world.life.starts()), (0, 1));
}

#[test]
fn a_run_of_stable_ends_flapping_while_it_lasts() {
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(20 * SECOND);
    world.behaviour = Behaviour::until_signalled();
    world.run_for(4 * SECOND + 60 * SECOND - Duration::from_millis(1));
    assert!(world.life.status().flapping);
    world.run_for(Duration::from_millis(1));
    assert!(!world.life.status().flapping, "the run has lasted for a minute");
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn a_kill_after_of_zero_never_kills() {
    let job = JobOptions { ttl: ttl(60), kill_after: Some(Duration::ZERO), ..run() };
    let mut world = begun(job, Behaviour::ignoring_signals());
    world.run_for(1_000_000 * SECOND);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::TERM), kill(Signal::CONT)]);
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn each_run_draws_its_own_ttl() {
    let job = JobOptions { ttl: Some(Ttl { min: 10 * SECOND, max: 20 * SECOND }), ..supervise() };
    let mut world = begun(job, Behaviour::until_signalled());
    let mut ttls = Vec::new();
    for _ in 0..20 {
        ttls.extend(world.life.status().ttl);
        world.run_for(25 * SECOND);
    }
    ttls.dedup();
    assert!(ttls.len() > 10, "{ttls:?}");
    assert!(!world.life.status().flapping, "an end by TTL is not a failure");
}

#[test]
fn a_stop_from_outside_is_not_cut_short_without_kill_after() {
    let mut world = begun(run(), Behaviour::ignoring_signals());
    world.signal(Signal::TERM);
    world.run_for(1_000_000 * SECOND);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::TERM)]);
    let mut world =
        begun(JobOptions { kill_after: Some(3 * SECOND), ..run() }, Behaviour::ignoring_signals());
    world.signal(Signal::INT);
    assert_eq!(world.run_to_the_end(), 137);
    assert_eq!(world.now(), 3 * SECOND);
    assert_eq!(done(&mut world)[..3], [Effect::Spawn, kill(Signal::INT), kill(Signal::KILL)]);
    let from = world.life.status().stop_signal_from.unwrap();
    assert_eq!((from.signal, from.sender), (Signal::INT, OTHER_PROCESS));
}

/// A child that ends at once when it is signalled, and leaves these processes in its group.
fn ends_at_once(leaves: Leaves) -> Behaviour {
    Behaviour { leaves: Some(leaves), ..Behaviour::until_signalled() }
}

#[test]
fn after_a_stop_kapo_waits_for_the_rest_of_the_group() {
    let kill_rest =
        Effect::Kill { signal: Signal::KILL, to: SignalTarget::LeftoverGroup(child()), log: None };
    let one_second = Leaves::obedient(SECOND);
    for (kill_after, leaves, ends_at, killed) in [
        (None, one_second.clone(), SECOND, false),
        (None, Leaves { is_child: false, ..one_second.clone() }, Duration::from_millis(1_270), false),
        (None, Leaves { members: None, ..one_second.clone() }, SECOND, false),
        (None, Leaves::ignoring_signals(), 10 * SECOND, true),
        (Some(30 * SECOND), Leaves::obedient(29 * SECOND), 29 * SECOND, false),
        (Some(3 * SECOND), Leaves::ignoring_signals(), 3 * SECOND, true),
        (Some(3 * SECOND), Leaves { stuck: true, ..Leaves::ignoring_signals() }, 4 * SECOND, true),
        (Some(Duration::ZERO), Leaves::obedient(3_000 * SECOND), 3_000 * SECOND, false),
    ] {
        let context = format!("{kill_after:?} {leaves:?}");
        let mut world = begun(JobOptions { kill_after, ..run() }, ends_at_once(leaves));
        world.signal(Signal::TERM);
        world.run_for(Duration::ZERO);
        assert_eq!(world.life.status().reason, Some(Reason::Signal), "the end is published at once");
        assert_eq!((world.life.ended_with(), world.exited()), (Some(143), None), "{context}");
        assert_eq!(world.run_to_the_end(), 143);
        assert_eq!(world.now(), ends_at, "{context}");
        assert_eq!(world.life.status().end_time, Some(epoch().wall), "{context}");
        assert_eq!(done(&mut world).contains(&kill_rest), killed, "{context}");
    }
}

#[test]
fn a_second_stop_signal_kills_the_rest_of_the_group() {
    for kill_after in [None, Some(Duration::ZERO), Some(60 * SECOND)] {
        let mut world = begun(JobOptions { kill_after, ..run() }, ends_at_once(Leaves::ignoring_signals()));
        world.signal(Signal::TERM);
        world.run_for(2 * SECOND);
        world.effects();
        world.signal(Signal::TERM);
        let kill_rest =
            Effect::Kill { signal: Signal::KILL, to: SignalTarget::LeftoverGroup(child()), log: None };
        assert_eq!(done(&mut world), [kill_rest, Effect::Close]);
        assert_eq!((world.run_to_the_end(), world.now()), (143, 2 * SECOND));
    }
}

#[test]
fn a_run_that_ends_by_itself_leaves_its_group_alone() {
    for single_child in [false, true] {
        let behaviour =
            Behaviour { leaves: Some(Leaves::ignoring_signals()), ..Behaviour::ends(SECOND, Exit::Code(0)) };
        let mut world = begun(JobOptions { single_child, ..run() }, behaviour);
        assert_eq!((world.run_to_the_end(), world.now()), (0, SECOND));
    }
    let mut world =
        begun(JobOptions { single_child: true, ..run() }, ends_at_once(Leaves::ignoring_signals()));
    world.signal(Signal::TERM);
    assert_eq!((world.run_to_the_end(), world.now()), (143, Duration::ZERO));
}

#[test]
fn supervise_ends_the_leftover_group_before_the_next_start() {
    let after = |kill_after, leaves| {
        let behaviour = Behaviour { leaves: Some(leaves), ..Behaviour::ends(SECOND, Exit::Code(3)) };
        let mut world = begun(JobOptions { kill_after, ..supervise() }, behaviour);
        world.run_for(SECOND);
        world.behaviour = Behaviour::until_signalled();
        logged(&mut world);
        world
    };
    // The pause is 5 s, so a process that ends within it does not delay the next start.
    let mut world = after(None, Leaves::obedient(2 * SECOND));
    world.run_for(5 * SECOND - Duration::from_millis(1));
    assert_eq!(world.life.starts(), 1);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.life.starts(), 2);
    let mut world = after(None, Leaves::ignoring_signals());
    world.run_for(10 * SECOND - Duration::from_millis(1));
    assert_eq!((world.life.starts(), world.life.ended_with()), (1, Some(3)));
    assert_eq!(world.life.status().next_start, None, "the pause is over");
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.life.starts(), 2);
    let mut world = after(Some(Duration::ZERO), Leaves::ignoring_signals());
    world.run_for(1_000 * SECOND);
    assert_eq!(world.life.starts(), 1, "the group is never killed");
    world.signal(Signal::TERM);
    assert_eq!(world.exited(), None);
    world.signal(Signal::TERM);
    assert_eq!((world.run_to_the_end(), world.now()), (3, 1_001 * SECOND));
}

#[test]
fn the_log_shows_how_many_processes_were_left_behind() {
    let behaviour =
        Behaviour { leaves: Some(Leaves::ignoring_signals()), ..Behaviour::ends(SECOND, Exit::Code(3)) };
    let mut world = begun(supervise(), behaviour);
    world.run_for(11 * SECOND);
    let log = logged(&mut world);
    assert_eq!(
        log.get(2..4).unwrap_or_default(),
        [
            "level=warn msg=\"stopping leftover processes\" signal=SIGTERM group=101 processes=2",
            "level=warn msg=\"killing leftover processes\" group=101",
        ],
        "{log:#?}"
    );
}

#[test]
fn output_that_outlasts_its_run_delays_only_the_end_of_kapo() {
    let behaviour = Behaviour {
        drains_after: 2 * SECOND,
        last_output: vec!["last words".to_owned()],
        ..Behaviour::ends(SECOND, Exit::Code(3))
    };
    let mut world = begun(run(), behaviour.clone());
    world.run_for(SECOND);
    assert_eq!((world.life.ended_with(), world.life.status().reason), (Some(3), Some(Reason::ExitCode)));
    assert_eq!((world.run_to_the_end(), world.now()), (3, 3 * SECOND));
    assert_eq!(world.life.status().last_output, ["last words"]);
    let mut world = begun(supervise(), behaviour);
    world.run_for(SECOND);
    assert_eq!(world.life.status().next_start, Some(epoch().wall + 6 * SECOND));
}

#[test]
fn only_a_stopped_command_is_continued_after_a_stop_signal() {
    let stopped = Behaviour { stopped: true, ..Behaviour::until_signalled() };
    let mut world = begun(run(), stopped.clone());
    world.signal(Signal::USR1);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::USR1)]);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [kill(Signal::TERM), kill(Signal::CONT)]);
    assert_eq!(world.run_to_the_end(), 138, "the first pending signal ends it");
    let mut world = begun(run(), Behaviour::until_signalled());
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::TERM)], "the command is not stopped");
    let rewrite_signal = vec![(Signal::TERM, None)];
    let mut world = begun(JobOptions { rewrite_signal, ..run() }, stopped);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [Effect::Spawn], "no signal is pending");
}

#[test]
fn only_the_signals_of_stop_on_stop_kapo() {
    let [rtmin_3, pwr] = [37, 30].map(|number| Signal::new(number).unwrap());
    let stop_on = SignalSet::of(&[Signal::WINCH, pwr, rtmin_3]);
    for signal in [Signal::WINCH, pwr, rtmin_3] {
        let mut world = begun(JobOptions { stop_on, ..supervise() }, Behaviour::ignoring_signals());
        for other in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
            world.signal(other);
            assert_eq!(world.life.status().stop_signal_from, None, "{other}");
        }
        assert!(world.life.status().ready);
        world.effects();
        world.signal(signal);
        assert_eq!(done(&mut world), [kill(signal)]);
        assert_eq!(world.life.status().stop_signal_from.map(|from| from.signal), Some(signal));
    }
    // A change of the window size does not stop kapo, but the loss of the terminal does.
    let mut world = begun(JobOptions { stop_on, ..supervise() }, Behaviour::ignoring_signals());
    world.kernel(Signal::WINCH);
    assert!(!world.life.is_stopping());
    world.kernel(Signal::HUP);
    assert!(world.life.is_stopping());
    let jvm = JobOptions { stop_on: SignalSet::of(&[Signal::TERM, Signal::INT]), ..supervise() };
    let mut world = begun(jvm, Behaviour::ignoring_signals());
    world.kernel(Signal::QUIT);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::QUIT)]);
    assert!(world.life.status().ready, "the command handles the signal");
}

#[test]
fn a_signal_is_forwarded_before_it_is_logged() {
    let mut world = begun(JobOptions { ttl: ttl(60), ..run() }, Behaviour::ignoring_signals());
    world.effects();
    world.signal(Signal::TERM);
    let effects = world.effects();
    let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted);
    let killed = place(|effect| matches!(effect, Effect::Kill { signal: Signal::TERM, .. }));
    let logged = place(|effect| matches!(effect, Effect::Log(_)));
    assert!(killed.is_some() && killed < logged, "{effects:?}");
    let mut world = begun(JobOptions { ttl: ttl(60), ..run() }, Behaviour::ignoring_signals());
    world.effects();
    world.run_for(60 * SECOND);
    let effects = world.effects();
    assert!(matches!(effects.first(), Some(Effect::Kill { signal: Signal::TERM, .. })), "{effects:?}");
}

#[test]
fn a_failure_to_signal_is_logged_once_in_each_run() {
    let unreachable = Behaviour { unreachable: true, ..Behaviour::ends(8 * SECOND, Exit::Code(0)) };
    let mut world = begun(JobOptions { ttl: ttl(1), kill_after: Some(SECOND), ..supervise() }, unreachable);
    world.run_for(20 * SECOND);
    let failure = "level=warn msg=\"cannot send signal\" signal=SIGTERM error=\"for a reason\"";
    let log = logged(&mut world);
    assert_eq!(log.iter().filter(|line| *line == failure).count(), 2, "{log:#?}");
}

#[test]
fn a_stopped_run_does_not_linger() {
    let job = JobOptions { after: After::Once(Linger::Fixed(60 * SECOND)), ..run() };
    let mut world = begun(job, Behaviour::until_signalled());
    world.signal(Signal::TERM);
    assert_eq!(world.run_to_the_end(), 143);
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn further_signals_are_forwarded_and_do_not_delay_the_kill() {
    let mut world =
        begun(JobOptions { kill_after: Some(3 * SECOND), ..run() }, Behaviour::ignoring_signals());
    world.signal(Signal::TERM);
    world.run_for(2 * SECOND);
    world.signal(Signal::TERM);
    world.signal(Signal::USR1);
    world.run_for(SECOND);
    let all = [Signal::TERM, Signal::TERM, Signal::USR1, Signal::KILL].map(kill);
    assert_eq!(done(&mut world)[1..5], all);
}

#[test]
fn a_second_stop_signal_skips_the_drain_and_a_third_the_clients() {
    let stalled = Behaviour { drains_after: 3_600 * SECOND, ..Behaviour::ends(SECOND, Exit::Code(3)) };
    let job = JobOptions { termination_log: Some("/log".into()), ..run() };
    let mut world = begun(job, stalled);
    world.closes_after = 3_600 * SECOND;
    world.run_for(SECOND);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [Effect::Spawn, Effect::Drain { run: 1 }]);
    world.signal(Signal::TERM);
    let termination_message = Effect::TerminationLog(b"reason=exit-code code=3\n".to_vec());
    assert_eq!(done(&mut world), [termination_message, Effect::Close]);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [Effect::Exit(3)]);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), []);
}

#[test]
fn clients_get_their_answers_after_the_first_stop_signal() {
    let mut world = begun(run(), Behaviour::ends(SECOND, Exit::Code(0)));
    world.closes_after = 10 * SECOND;
    world.run_for(SECOND);
    world.signal(Signal::TERM);
    assert_eq!(world.exited(), None);
    assert_eq!(world.run_to_the_end(), 0);
    assert_eq!(world.now(), 11 * SECOND);
}

#[test]
fn a_stop_signal_before_the_start_prevents_it() {
    let mut world = World::new(epoch(), supervise(), context());
    world.signal(Signal::TERM);
    world.start();
    assert_eq!(world.run_to_the_end(), 143);
    assert_eq!(done(&mut world), [Effect::Close, Effect::Exit(143)]);
}

#[test]
fn hup_stops_kapo_only_if_the_terminal_is_gone() {
    let mut world = begun(run(), Behaviour::ignoring_signals());
    world.signal(Signal::HUP);
    assert_eq!(world.life.status().stop_signal_from, None);
    let nohup =
        JobContext { ignored_at_start: IgnoredAtStart { hang_up: true, interrupt: false }, ..context() };
    let mut world = begun_in(nohup, run(), Behaviour::ignoring_signals());
    world.kernel(Signal::HUP);
    assert_eq!(world.life.status().stop_signal_from, None);
    let mut world = begun(run(), Behaviour::until_signalled());
    world.kernel(Signal::HUP);
    assert_eq!(world.run_to_the_end(), 129);
    assert_eq!(world.life.status().stop_signal_from.unwrap().sender, Sender::Kernel);
}

#[test]
fn a_hang_up_that_only_the_command_gets_ends_kapo_as_well() {
    let hung_up = Behaviour { hung_up: true, ..Behaviour::ends(SECOND, killed_by(Signal::HUP)) };
    let mut world = begun(supervise(), hung_up.clone());
    assert_eq!(world.run_to_the_end(), 129);
    let from = world.life.status().stop_signal_from.unwrap();
    assert_eq!((from.signal, from.sender, world.life.starts()), (Signal::HUP, Sender::Kernel, 1));
    let nohup =
        JobContext { ignored_at_start: IgnoredAtStart { hang_up: true, interrupt: false }, ..context() };
    for mut world in [
        begun_in(nohup, supervise(), hung_up.clone()),
        begun(supervise(), Behaviour { hung_up: false, ..hung_up }),
    ] {
        world.run_for(20 * SECOND);
        assert_eq!((world.exited(), world.life.starts()), (None, 4));
    }
}

#[test]
fn an_interrupt_does_not_stop_a_background_job_of_a_script() {
    let background =
        JobContext { ignored_at_start: IgnoredAtStart { hang_up: false, interrupt: true }, ..context() };
    for signal in [Signal::INT, Signal::QUIT] {
        let mut world = begun_in(background.clone(), supervise(), Behaviour::ignoring_signals());
        world.kernel(signal);
        // Without kapo the command would have received the signal, and it may have a handler for it.
        assert_eq!(done(&mut world), [Effect::Spawn, kill(signal)]);
        assert!(!world.life.is_stopping());
        world.signal(signal);
        assert!(world.life.is_stopping(), "a signal from a process always stops kapo");
        let mut world = begun(supervise(), Behaviour::ignoring_signals());
        world.kernel(signal);
        assert!(world.life.is_stopping());
    }
}

#[test]
fn a_rewritten_stop_signal_still_stops_kapo() {
    let rewrite_signal = vec![(Signal::TERM, Some(Signal::QUIT)), (Signal::INT, None)];
    let mut world = begun(JobOptions { rewrite_signal, ..supervise() }, Behaviour::ignoring_signals());
    world.signal(Signal::INT);
    assert_eq!(done(&mut world), [Effect::Spawn]);
    world.signal(Signal::TERM);
    assert_eq!(done(&mut world), [kill(Signal::QUIT)]);
    world.kill_command();
    assert_eq!(world.run_to_the_end(), 137);
}

#[test]
fn a_job_is_suspended_with_its_command_and_continued_once() {
    let mut world = begun(run(), Behaviour::until_signalled());
    world.signal(Signal::TSTP);
    world.signal(Signal::CONT);
    let give = Effect::GiveTerminal(child());
    assert_eq!(
        done(&mut world),
        [
            Effect::Spawn,
            kill(Signal::TSTP),
            Effect::Suspend { signal: Signal::TSTP, all: false },
            give,
            kill(Signal::CONT)
        ]
    );
    world.handle(Event::Stopped { signal: Signal::TSTP });
    assert_eq!(done(&mut world), [Effect::Suspend { signal: Signal::TSTP, all: true }]);
    let mut world = begun(JobOptions { setsid: true, ..run() }, Behaviour::until_signalled());
    world.signal(Signal::TTIN);
    assert_eq!(
        done(&mut world),
        [Effect::Spawn, kill(Signal::STOP), Effect::Suspend { signal: Signal::TTIN, all: false }]
    );
}

#[test]
fn a_signal_that_the_kernel_raises_for_kapo_is_not_forwarded() {
    for signal in [Signal::PIPE, Signal::TTIN, Signal::TTOU, Signal::SEGV, Signal::SYS] {
        let mut world = begun(run(), Behaviour::until_signalled());
        world.kernel(signal);
        assert_eq!(done(&mut world), [Effect::Spawn], "{signal}");
        world.signal(signal);
        assert_eq!(done(&mut world)[0], kill(signal), "{signal}");
    }
}

#[test]
fn an_alarm_set_before_the_exec_of_kapo_is_forwarded() {
    let mut world = begun(run(), Behaviour::until_signalled());
    world.kernel(Signal::ALRM);
    assert_eq!(done(&mut world), [Effect::Spawn, kill(Signal::ALRM)]);
}

#[test]
fn under_single_child_only_the_command_is_signalled() {
    let mut world =
        begun(JobOptions { single_child: true, setsid: true, ..run() }, Behaviour::until_signalled());
    world.signal(Signal::TERM);
    world.run_to_the_end();
    let alone = Effect::Kill { signal: Signal::TERM, to: SignalTarget::Process(child()), log: None };
    assert_eq!(
        done(&mut world),
        [Effect::Spawn, alone, Effect::Drain { run: 1 }, Effect::Close, Effect::Exit(143)]
    );
}

#[test]
fn under_setsid_the_leftover_group_gets_term() {
    let mut world = begun(JobOptions { setsid: true, ..run() }, Behaviour::ends(SECOND, Exit::Code(0)));
    world.run_to_the_end();
    let rest = Effect::Kill { signal: Signal::TERM, to: SignalTarget::LeftoverGroup(child()), log: None };
    assert_eq!(
        done(&mut world),
        [Effect::Spawn, rest, Effect::Drain { run: 1 }, Effect::Close, Effect::Exit(0)]
    );
}

#[test]
fn a_command_that_cannot_be_executed_ends_run_at_once() {
    for (kind, code, verb) in [
        (SpawnErrorKind::NotFound, 127, "execute"),
        (SpawnErrorKind::NotExecutable, 126, "execute"),
        (SpawnErrorKind::Setup, 125, "start"),
    ] {
        let job = JobOptions { after: After::Once(Linger::Fixed(60 * SECOND)), ..run() };
        let mut world = begun(job, Behaviour { start: Err(kind), ..Behaviour::until_signalled() });
        assert_eq!(world.run_to_the_end(), code);
        assert_eq!(world.now(), Duration::ZERO);
        let complaint = Effect::PrintError(format!("cannot {verb} command: for a reason"));
        assert_eq!(done(&mut world), [Effect::Spawn, complaint, Effect::Close, Effect::Exit(code)]);
        assert_eq!(world.life.status().reason, Some(Reason::ExecFailed));
    }
}

#[test]
fn a_failed_exec_is_retried_after_at_least_a_second() {
    let job = JobOptions { after: After::Again(Restart { wait: Duration::ZERO, ..again() }), ..run() };
    let mut world =
        begun(job, Behaviour { start: Err(SpawnErrorKind::NotFound), ..Behaviour::until_signalled() });
    world.run_for(10 * SECOND);
    assert_eq!(world.life.starts(), 11);
    assert!(world.life.status().flapping);
    assert_eq!(world.leave(), 127);
}

#[test]
fn a_run_lingers_for_a_fixed_time_or_until_it_is_idle() {
    let ends = Behaviour::ends(SECOND, Exit::Code(4));
    let job = JobOptions { after: After::Once(Linger::Fixed(9 * SECOND)), ..run() };
    let mut world = begun(job, ends.clone());
    world.run_for(5 * SECOND);
    world.handle(Event::RequestAnswered);
    assert_eq!(world.run_to_the_end(), 4);
    assert_eq!(world.now(), 10 * SECOND);
    let job = JobOptions { after: After::Once(Linger::Idle(9 * SECOND)), ..run() };
    let mut world = begun(job, ends);
    world.run_for(5 * SECOND);
    world.handle(Event::RequestAnswered);
    assert_eq!(world.run_to_the_end(), 4);
    assert_eq!(world.now(), 14 * SECOND);
}

#[test]
fn a_stop_in_the_pause_before_a_restart_ends_kapo_at_once() {
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(2 * SECOND);
    let status = world.life.status();
    assert_eq!((status.exit_code, status.restarts, status.ready), (3, 0, false));
    assert_eq!(status.next_start, Some(epoch().wall + 6 * SECOND));
    world.run_for(4 * SECOND);
    assert_eq!((world.life.status().restarts, world.life.status().pid), (1, ProcessId::new(102)));
    world.run_for(2 * SECOND);
    world.signal(Signal::TERM);
    assert_eq!(world.run_to_the_end(), 3);
    assert_eq!(world.now(), 8 * SECOND);
}

#[test]
fn an_interrupt_on_the_command_s_terminal_also_stops_kapo() {
    // The command may end by the signal, or handle it and exit with 128+n.
    for (exit, code) in [
        (killed_by(Signal::INT), 130),
        (killed_by(Signal::QUIT), 131),
        (Exit::Code(130), 130),
        (Exit::Code(131), 131),
    ] {
        let interrupted = Behaviour::ends(SECOND, exit);
        let mut world = begun(supervise(), Behaviour { on_terminal: true, ..interrupted.clone() });
        world.run_for(2 * SECOND);
        assert_eq!(world.exited(), Some(code));
        let mut world = begun(supervise(), interrupted);
        world.run_for(2 * SECOND);
        assert_eq!(world.exited(), None, "without the terminal the signal was not meant for kapo");
    }
    let mut world =
        begun(supervise(), Behaviour { on_terminal: true, ..Behaviour::ends(SECOND, Exit::Code(3)) });
    world.run_for(2 * SECOND);
    assert_eq!(world.exited(), None);
}

#[test]
fn siblings_get_the_terminal_until_the_command_asks_for_it() {
    let wanted = |foreground_owner| Event::SiblingStopped { signal: Signal::TTIN, foreground_owner };
    let mut world = begun(run(), Behaviour::until_signalled());
    assert!(world.life.gives_terminal());
    world.handle(wanted(ForegroundOwner::Command));
    // CONT continues the command, and does not give it the terminal.
    world.signal(Signal::CONT);
    world.handle(wanted(ForegroundOwner::Own));
    let wake = Effect::WakeSiblings;
    assert_eq!(done(&mut world), [Effect::Spawn, wake.clone(), kill(Signal::CONT), wake]);
    assert!(!world.life.gives_terminal());
    for _ in 0..10 {
        assert!(world.life.lends_terminal());
        world.handle(wanted(ForegroundOwner::Command));
    }
    assert!(world.life.lends_terminal());
    world.handle(wanted(ForegroundOwner::Command));
    assert!(!world.life.lends_terminal(), "the number of reclaims is limited");
    world.signal(Signal::CONT);
    assert!(world.life.lends_terminal());
}

#[test]
fn siblings_that_want_the_shell_s_terminal_stop_the_whole_job() {
    let wanted = Event::SiblingStopped { signal: Signal::TTOU, foreground_owner: ForegroundOwner::Other };
    let mut world = begun(run(), Behaviour::until_signalled());
    world.handle(wanted.clone());
    world.signal(Signal::CONT);
    let give = Effect::GiveTerminal(child());
    assert_eq!(
        done(&mut world),
        [
            Effect::Spawn,
            kill(Signal::TTOU),
            Effect::Suspend { signal: Signal::TTOU, all: false },
            give,
            kill(Signal::CONT)
        ]
    );
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(2 * SECOND);
    done(&mut world);
    world.handle(wanted);
    assert_eq!(done(&mut world), [Effect::Suspend { signal: Signal::TTOU, all: false }]);
}

#[test]
fn kapo_dies_by_an_interrupt_of_its_terminal() {
    let end = |world: &mut World| {
        world.run_to_the_end();
        let mut effects = done(world);
        effects.retain(|effect| matches!(effect, Effect::DieBy { .. } | Effect::Exit(_)));
        effects
    };
    for (signal, code) in [(Signal::INT, 130), (Signal::QUIT, 131)] {
        let interrupted = |exit| Behaviour { on_terminal: true, ..Behaviour::ends(SECOND, exit) };
        let died = [Effect::DieBy { signal, all: true }, Effect::Exit(code)];
        for job in [run(), supervise()] {
            assert_eq!(end(&mut begun(job, interrupted(killed_by(signal)))), died);
        }
        let dumped = Exit::Signal { signal, core_dumped: true };
        assert_eq!(end(&mut begun(run(), interrupted(dumped))), died);
        // A command that handles the signal exits with a code, and so does kapo.
        assert_eq!(end(&mut begun(run(), interrupted(Exit::Code(code)))), [Effect::Exit(code)]);
        let elsewhere = Behaviour::ends(SECOND, killed_by(signal));
        assert_eq!(end(&mut begun(run(), elsewhere)), [Effect::Exit(code)]);
        let content = JobOptions { success_exit: vec![Success::Signal(signal)], ..run() };
        assert_eq!(end(&mut begun(content, interrupted(killed_by(signal)))), [Effect::Exit(0)]);
        let init = JobContext { is_init: true, ..context() };
        assert_eq!(end(&mut begun_in(init, run(), interrupted(killed_by(signal)))), [Effect::Exit(code)]);
        // If kapo's own group had the terminal, the whole group has already received the signal.
        let mut world = begun(run(), Behaviour::until_signalled());
        world.kernel(signal);
        assert_eq!(end(&mut world), [Effect::DieBy { signal, all: false }, Effect::Exit(code)]);
        let mut world = begun(run(), Behaviour::until_signalled());
        world.signal(signal);
        assert_eq!(end(&mut world), [Effect::Exit(code)]);
    }
}

#[test]
fn supervise_ends_after_max_restarts_or_a_success() {
    let restart = Restart { max_restarts: Some(2), ..again() };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(SECOND, Exit::Code(3)));
    assert_eq!(world.run_to_the_end(), 3);
    assert_eq!(world.life.starts(), 3);
    let restart = Restart { on_failure_only: true, ..again() };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(2 * SECOND);
    world.behaviour = Behaviour::ends(SECOND, Exit::Code(0));
    assert_eq!(world.run_to_the_end(), 0);
    assert_eq!(world.life.starts(), 2);
}

#[test]
fn no_restart_on_means_the_command_s_own_end() {
    let job = |codes: &[Success]| JobOptions {
        after: After::Again(Restart { no_restart_on: codes.to_vec(), ..again() }),
        ..run()
    };
    let codes = [Success::Code(78), Success::Code(127), Success::Signal(Signal::TERM), Success::Code(124)];
    let failing = Behaviour { start: Err(SpawnErrorKind::NotFound), ..Behaviour::until_signalled() };
    for (behaviour, code) in [
        (Behaviour::ends(SECOND, Exit::Code(78)), 78),
        (Behaviour::ends(SECOND, killed_by(Signal::TERM)), 143),
        (failing, 127),
    ] {
        let mut world = begun(job(&codes), behaviour);
        assert_eq!((world.run_to_the_end(), world.life.status().restarts), (code, 0));
        let log = logged(&mut world);
        let expected =
            format!("level=info msg=\"not restarting\" code={code} why=\"--no-restart-on lists it\"");
        assert_eq!(log.iter().filter(|line| **line == expected).count(), 1, "{log:#?}");
    }
    // A success that is final.
    let success = JobOptions { success_exit: vec![Success::Code(78)], ..job(&codes) };
    let mut world = begun(success, Behaviour::ends(SECOND, Exit::Code(78)));
    assert_eq!((world.run_to_the_end(), world.life.starts()), (0, 1));
    // kapo's own stop at the TTL is no end of the command's own, whatever its code.
    let mut world = begun(JobOptions { ttl: ttl(5), ..job(&codes) }, Behaviour::until_signalled());
    world.run_for(60 * SECOND);
    assert!(world.life.starts() > 5, "{}", world.life.starts());
}

#[test]
fn flapping_begins_at_the_fourth_failure_and_ends_by_itself() {
    let restart = Restart { stable: 1_000 * SECOND, ..again() };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(18 * SECOND);
    assert!(!world.life.status().flapping);
    world.behaviour = Behaviour::until_signalled();
    world.run_for(SECOND);
    assert!(world.life.status().flapping, "it has failed at 1, 7, 13 and 19 s");
    world.run_for(282 * SECOND - Duration::from_millis(1));
    assert!(world.life.status().flapping);
    world.run_for(Duration::from_millis(1));
    assert!(!world.life.status().flapping);
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn mainpid_replaces_the_process_of_the_command() {
    let mut world = begun(JobOptions { notify: true, ..run() }, Behaviour::until_signalled());
    world.effects();
    world.datagram(b"MAINPID=500\nREADY=1");
    let main = ProcessId::new(500).unwrap();
    assert_eq!((world.life.status().pid, world.life.status().ready), (Some(main), true));
    world.effects();
    world.signal(Signal::HUP);
    let passed_on = Effect::Kill {
        signal: Signal::HUP,
        to: SignalTarget::Followed { pid: main, group: child() },
        log: None,
    };
    assert!(done(&mut world).contains(&passed_on));
}

#[test]
fn ready_follows_the_command_and_is_reported_once() {
    let manager = JobContext { manager: true, ..context() };
    let mut world =
        begun_in(manager.clone(), JobOptions { notify: true, ..run() }, Behaviour::ignoring_signals());
    assert!(!world.life.status().ready);
    world.datagram(b"READY=1\nSTATUS=serving");
    world.datagram(b"READY=1");
    assert!(world.life.status().ready);
    assert_eq!(world.life.status().status_text, "serving");
    assert!(world.effects().contains(&Effect::Notify(b"STATUS=running, pid 101: serving".to_vec())));
    world.datagram(b"RELOADING=1");
    assert!(!world.life.status().ready);
    world.datagram(b"READY=1");
    assert!(world.life.status().ready);
    assert_eq!(notifications(&mut world), ["RELOADING=1", "READY=1"]);
    world.signal(Signal::TERM);
    world.signal(Signal::TERM);
    world.datagram(b"READY=1");
    assert!(!world.life.status().ready);
    world.leave();
    assert_eq!(notifications(&mut world), ["STOPPING=1"]);
    let mut world = begun_in(manager, supervise(), Behaviour::ends(SECOND, Exit::Code(0)));
    world.run_for(60 * SECOND);
    world.leave();
    assert_eq!(notifications(&mut world), ["READY=1", "STOPPING=1"]);
}

#[test]
fn a_missed_ping_stops_the_command_with_its_own_reason() {
    let job = JobOptions { notify: true, watchdog: Some(3 * SECOND), ..run() };
    let mut world = begun(job.clone(), Behaviour::until_signalled());
    world.run_for(100 * SECOND);
    world.datagram(b"READY=1");
    world.run_for(2 * SECOND);
    world.datagram(b"WATCHDOG=1");
    world.run_for(2 * SECOND);
    assert_eq!(done(&mut world), [Effect::Spawn]);
    assert_eq!(world.run_to_the_end(), 143);
    assert_eq!((world.now(), world.life.status().reason), (105 * SECOND, Some(Reason::Watchdog)));
    let mut world = begun(job.clone(), Behaviour::until_signalled());
    world.datagram(b"WATCHDOG=trigger");
    assert_eq!(world.run_to_the_end(), 143);
    assert_eq!(world.life.status().reason, Some(Reason::Watchdog));
    let mut world =
        begun(job.clone(), Behaviour { exit_on_signal: Some(Exit::Code(0)), ..Behaviour::until_signalled() });
    world.datagram(b"WATCHDOG=trigger");
    assert_eq!(world.run_to_the_end(), 1, "a hung command is not a success");
    let mut world = begun(job.clone(), Behaviour::until_signalled());
    world.datagram(b"READY=1");
    world.freeze(100 * SECOND);
    world.signal(Signal::CONT);
    world.run_for(2 * SECOND);
    assert_eq!(world.exited(), None, "a suspended command cannot ping");
    let mut world = begun(job, Behaviour::until_signalled());
    world.datagram(b"READY=1");
    world.datagram(b"STOPPING=1");
    world.run_for(100 * SECOND);
    assert_eq!(world.exited(), None, "a command that is stopping need not ping");
}

#[test]
fn the_termination_log_keeps_the_end_of_the_output() {
    let job = JobOptions { termination_log: Some("/log".into()), ..run() };
    let termination_message = |last_output: Vec<String>| {
        let behaviour = Behaviour { last_output, ..Behaviour::ends(SECOND, killed_by(Signal::KILL)) };
        let mut world = begun(job.clone(), behaviour);
        world.run_to_the_end();
        let written = world.effects().into_iter().find_map(|effect| match effect {
            Effect::TerminationLog(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        });
        written.unwrap()
    };
    assert_eq!(
        termination_message(vec!["one".to_owned(), "two".to_owned()]),
        "reason=signal code=137 signal=SIGKILL\none\ntwo\n"
    );
    let long = termination_message(vec!["\u{e4}".repeat(5_000), "last".to_owned()]);
    assert!((4_095..=4_096).contains(&long.len()) && long.ends_with("\u{e4}\nlast\n"), "{}", long.len());
}

#[test]
fn a_failed_start_does_not_show_the_previous_output() {
    let lines = vec!["line".to_owned()];
    let behaviour = Behaviour { last_output: lines.clone(), ..Behaviour::ends(9 * SECOND, Exit::Code(3)) };
    let job = JobOptions { termination_log: Some("/log".into()), notify: true, ..supervise() };
    let mut world = begun(job, behaviour);
    world.datagram(b"STATUS=up");
    world.run_for(10 * SECOND);
    assert_eq!((&world.life.status().last_output, &*world.life.status().status_text), (&lines, "up"));
    world.behaviour.start = Err(SpawnErrorKind::NotFound);
    world.effects();
    world.run_for(5 * SECOND);
    let termination_message = Effect::TerminationLog(
        b"reason=exec-failed code=127\ncannot execute command: for a reason\n".to_vec(),
    );
    assert_eq!(done(&mut world), [Effect::Spawn, termination_message]);
    assert_eq!((world.life.status().last_output.len(), &*world.life.status().status_text), (0, ""));
}

#[test]
fn a_stop_signal_before_the_child_exists_is_forwarded_to_it() {
    let rewrite_signal = vec![(Signal::INT, Some(Signal::USR1))];
    let job = Rc::new(JobOptions { rewrite_signal, ..supervise() });
    let mut life = super::Lifecycle::new(job, context());
    let mut effects = Vec::new();
    life.handle(epoch(), Event::Start, &mut effects);
    life.handle(epoch(), Event::Signal { signal: Signal::INT, sender: OTHER_PROCESS }, &mut effects);
    life.handle(epoch(), Event::Spawned { pid: child() }, &mut effects);
    effects.retain(|effect| !matches!(effect, Effect::Log(_)));
    assert_eq!(effects, [Effect::Spawn, kill(Signal::USR1)]);
    assert!(life.is_stopping() && !life.status().ready);
}

#[test]
fn the_death_signal_of_a_dead_parent_is_handled_at_the_start() {
    let before = |signal: Signal| {
        let mut world = World::new(epoch(), run(), context());
        world.behaviour = Behaviour::until_signalled();
        world.signal(signal);
        world.start();
        world
    };
    let mut world = before(Signal::KILL);
    assert_eq!(world.run_to_the_end(), 137);
    assert_eq!(done(&mut world), [Effect::Close, Effect::Exit(137)]);
    for signal in [Signal::HUP, Signal::USR1] {
        let mut world = before(signal);
        let passed_on = Effect::Kill { signal, to: SignalTarget::Group(child()), log: None };
        assert_eq!(done(&mut world), [Effect::Spawn, passed_on]);
    }
}

/// Returns the records logged since the last call, without the time.
fn logged(world: &mut World) -> Vec<String> {
    let records = world.effects().into_iter().filter_map(|effect| match effect {
        Effect::Log(record) | Effect::Kill { log: Some(record), .. } => {
            let mut line = Vec::new();
            record.render(Style::default(), epoch().wall, &mut line);
            let line = String::from_utf8(line).unwrap();
            Some(line.trim_end().split_once(' ').unwrap().1.to_owned())
        }
        _ => None,
    });
    records.collect()
}

#[test]
fn the_log_shows_the_sender_of_a_signal_and_its_rewrite() {
    let rewrite_signal = vec![(Signal::USR1, Some(Signal::HUP)), (Signal::TERM, None)];
    let mut world = begun(JobOptions { rewrite_signal, ..run() }, Behaviour::ignoring_signals());
    logged(&mut world);
    // Signals that a terminal sends often, and real-time signals, are forwarded without a log record.
    for signal in [Signal::WINCH, Signal::CONT, Signal::new(34).unwrap(), Signal::new(64).unwrap()] {
        world.signal(signal);
    }
    assert_eq!(logged(&mut world), [""; 0]);
    for signal in [Signal::USR2, Signal::USR1, Signal::TERM] {
        world.signal(signal);
    }
    let sender = "sender_pid=7 sender_uid=1000";
    assert_eq!(
        logged(&mut world),
        [
            format!("level=info msg=\"signal forwarded\" signal=SIGUSR2 {sender}"),
            format!("level=info msg=\"signal forwarded\" signal=SIGUSR1 {sender} forwarded_as=SIGHUP"),
            format!("level=info msg=\"signal received\" signal=SIGTERM {sender} forwarded_as=none"),
        ]
    );
}

#[test]
fn the_log_shows_an_exit_code_that_is_not_the_command_s() {
    for (job, exit, last) in [
        (JobOptions { ttl: ttl(1), ..run() }, Exit::Code(0), "level=info msg=\"exiting\" code=124"),
        (
            JobOptions { success_exit: vec![Success::Code(9)], ..run() },
            Exit::Code(9),
            "level=info msg=\"exiting\" code=0",
        ),
        (
            run(),
            Exit::Code(3),
            "level=warn msg=\"exited\" command=command pid=101 reason=exit-code code=3 lasted=2.000s",
        ),
    ] {
        let mut world = begun(job, Behaviour::ends(2 * SECOND, exit));
        world.run_to_the_end();
        assert_eq!(logged(&mut world).last().unwrap(), last);
    }
}

#[test]
fn the_log_shows_pauses_longer_than_usual_and_flapping() {
    let restart = Restart {
        wait: SECOND,
        backoff_max: Some(8 * SECOND),
        within: 60 * SECOND,
        log_repeats: true,
        ..again()
    };
    let job = JobOptions { after: After::Again(restart), ..run() };
    let mut world = begun(job, Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(30 * SECOND);
    let said = logged(&mut world);
    let of = |part: &str| said.iter().filter(|line| line.contains(part)).count();
    assert!(
        said.contains(&"level=info msg=\"started\" command=command pid=102 restarts=1".to_owned()),
        "{said:#?}"
    );
    assert_eq!(
        of("msg=\"exited\""),
        of("msg=\"restarting\" pause=") + 1,
        "all but the first pause: {said:#?}"
    );
    assert!(said.contains(&"level=info msg=\"restarting\" pause=8.000s".to_owned()), "{said:#?}");
    assert_eq!(of("level=warn msg=\"flapping\" restarts=3"), 1, "{said:#?}");
    world.behaviour = Behaviour::until_signalled();
    world.run_for(90 * SECOND);
    let said = logged(&mut world);
    assert_eq!(said.last().unwrap(), "level=info msg=\"flapping ended\"");
}

#[test]
fn readiness_is_logged_once() {
    let mut world = begun(JobOptions { notify: true, ..run() }, Behaviour::until_signalled());
    logged(&mut world);
    for _ in 0..3 {
        world.datagram(b"READY=1");
    }
    assert_eq!(logged(&mut world), ["level=info msg=\"ready\" pid=101"]);
}

#[test]
fn a_late_ping_is_forgiven_if_kapo_itself_did_not_run() {
    let job = || JobOptions { notify: true, watchdog: Some(SECOND), ..run() };
    let mut world = begun(job(), Behaviour::until_signalled());
    world.datagram(b"READY=1");
    // In a frozen cgroup neither kapo nor the command runs.
    world.freeze(10 * SECOND);
    world.handle(Event::Deadline);
    world.run_for(SECOND / 2);
    world.datagram(b"WATCHDOG=1");
    world.run_for(SECOND / 2);
    assert!(!world.life.is_stopping());
    world.run_for(SECOND);
    assert!(world.life.is_stopping(), "the next missed ping counts");
    // This deadline is only as late as on a busy machine.
    let mut world = begun(job(), Behaviour::until_signalled());
    world.datagram(b"READY=1");
    world.freeze(SECOND + SECOND / 10);
    world.handle(Event::Deadline);
    assert!(world.life.is_stopping());
}

#[test]
fn the_manager_s_status_shows_why_the_command_is_not_ready() {
    let context = JobContext { manager: true, ..context() };
    let mut world = begun_in(context, JobOptions { notify: true, ..run() }, Behaviour::until_signalled());
    let mut status = |datagram: &[u8]| {
        world.datagram(datagram);
        let mut datagrams = world.effects().into_iter().filter_map(|effect| match effect {
            Effect::Notify(datagram) => String::from_utf8(datagram).ok(),
            _ => None,
        });
        datagrams.rfind(|text| text.starts_with("STATUS="))
    };
    let says = |text: &str| Some(format!("STATUS={text}, pid 101"));
    assert_eq!(status(b""), says("starting"));
    assert_eq!(status(b"READY=1"), says("running"));
    assert_eq!(status(b"RELOADING=1"), says("reloading"));
    assert_eq!(status(b"READY=1"), says("running"));
    assert_eq!(status(b"STOPPING=1"), says("stopping by itself"));
}

#[test]
fn kapo_dies_by_an_interrupt_between_two_runs() {
    let dies_by = |signal| [Effect::DieBy { signal, all: false }];
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(2 * SECOND);
    world.kernel(Signal::INT);
    assert_eq!(world.run_to_the_end(), 130);
    assert!(done(&mut world).ends_with(&[dies_by(Signal::INT)[0].clone(), Effect::Exit(130)]));
    // The same signal from a process is an ordinary stop signal.
    let mut world = begun(supervise(), Behaviour::ends(SECOND, Exit::Code(3)));
    world.run_for(2 * SECOND);
    world.signal(Signal::INT);
    assert_eq!(world.run_to_the_end(), 3);
    let mut world = World::new(epoch(), run(), context());
    world.kernel(Signal::QUIT);
    world.start();
    assert_eq!(world.run_to_the_end(), 131);
    assert!(done(&mut world).ends_with(&[dies_by(Signal::QUIT)[0].clone(), Effect::Exit(131)]));
}

#[test]
fn a_suspension_of_any_length_is_not_a_missed_ping() {
    let job = JobOptions { notify: true, watchdog: Some(2 * SECOND), ..run() };
    let mut world = begun(job, Behaviour::until_signalled());
    for frozen in [SECOND, 2 * SECOND, 2 * SECOND + SECOND / 5, 9 * SECOND] {
        world.datagram(b"READY=1");
        world.run_for(SECOND / 2);
        world.freeze(frozen);
        world.handle(Event::Resumed);
        world.run_for(SECOND);
        assert!(!world.life.is_stopping(), "{frozen:?}");
    }
    world.run_for(SECOND);
    assert!(world.life.is_stopping(), "the next missed ping counts");
}
