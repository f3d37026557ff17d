//! Tests of the drain, the dump, the silence and the stop of an unhealthy command.

use super::*;
use crate::logic::lifecycle::Lifecycle;
use crate::logic::status::Status;

/// Returns a job that drains for three seconds.
fn draining() -> JobOptions {
    JobOptions { drain: 3 * SECOND, ..run() }
}

fn dumping(signal: Signal) -> JobOptions {
    JobOptions { dump_signal: Some(signal), dump_wait: 2 * SECOND, ttl: ttl(10), ..run() }
}

fn document(world: &World) -> &Status {
    world.life.status()
}

fn signals(world: &mut World) -> Vec<Signal> {
    let signals = world.effects().into_iter().filter_map(|effect| match effect {
        Effect::Kill { signal, .. } => Some(signal),
        _ => None,
    });
    signals.collect()
}

#[test]
fn a_stop_signal_is_passed_on_after_the_drain() {
    let mut world = begun(draining(), Behaviour::until_signalled());
    world.run_for(SECOND);
    world.effects();
    world.signal(Signal::TERM);
    assert_eq!(signals(&mut world), []);
    assert!(!document(&world).ready);
    let stops_at = document(&world).stops_at.unwrap();
    assert_eq!(stops_at.duration_since(epoch().wall).unwrap(), 4 * SECOND);
    world.run_for(3 * SECOND - Duration::from_millis(1));
    assert_eq!(signals(&mut world), []);
    world.run_for(Duration::from_millis(1));
    assert_eq!(signals(&mut world), [Signal::TERM]);
    assert_eq!(document(&world).stops_at, None);
    assert_eq!(world.run_to_the_end(), 143);
}

#[test]
fn a_second_stop_signal_skips_the_rest_of_the_drain() {
    let mut world = begun(draining(), Behaviour::until_signalled());
    world.signal(Signal::TERM);
    world.run_for(SECOND);
    world.effects();
    world.signal(Signal::TERM);
    assert_eq!(signals(&mut world), [Signal::TERM]);
    assert_eq!(world.run_to_the_end(), 143);
    assert_eq!(world.now(), SECOND);
}

#[test]
fn interrupts_and_signals_of_the_terminal_do_not_drain() {
    for signal in [Signal::INT, Signal::QUIT] {
        let mut world = begun(draining(), Behaviour::until_signalled());
        world.signal(signal);
        assert_eq!(world.run_to_the_end(), 128 + signal.number());
        assert_eq!(world.now(), Duration::ZERO);
        let mut world = begun(draining(), Behaviour::until_signalled());
        world.signal(Signal::TERM);
        world.signal(signal);
        assert_eq!(world.run_to_the_end(), 128 + signal.number(), "{signal} skips a drain");
    }
    let mut world = begun(draining(), Behaviour::until_signalled());
    world.kernel(Signal::HUP);
    world.run_to_the_end();
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn a_drain_is_over_when_the_command_ends() {
    let mut world = begun(draining(), Behaviour::ends(2 * SECOND, Exit::Code(5)));
    world.run_for(SECOND);
    world.signal(Signal::TERM);
    assert_eq!(world.run_to_the_end(), 5);
    assert_eq!(world.now(), 2 * SECOND);
    assert_eq!(document(&world).reason, Some(Reason::ExitCode));
}

#[test]
fn kill_after_counts_from_the_end_of_the_drain() {
    let job = JobOptions { kill_after: Some(5 * SECOND), ..draining() };
    let mut world = begun(job, Behaviour::ignoring_signals());
    world.signal(Signal::TERM);
    assert_eq!(world.run_to_the_end(), 137);
    assert_eq!(world.now(), 8 * SECOND);
}

#[test]
fn other_signals_pass_during_a_drain() {
    let mut world = begun(draining(), Behaviour::ignoring_signals());
    world.signal(Signal::TERM);
    world.effects();
    world.signal(Signal::USR1);
    assert_eq!(signals(&mut world), [Signal::USR1]);
}

#[test]
fn a_ttl_drains_before_its_stop_signal() {
    let job = JobOptions { drain: 3 * SECOND, ttl: ttl(10), ..supervise() };
    let mut world = begun(job, Behaviour::until_signalled());
    world.run_for(10 * SECOND);
    assert!(document(&world).stops_at.is_some() && !document(&world).ready);
    world.run_for(3 * SECOND);
    assert_eq!(document(&world).reason, Some(Reason::Timeout));
    world.run_for(5 * SECOND);
    assert!(document(&world).ready, "the next run is ready");
}

#[test]
fn a_stop_signal_in_the_drain_of_a_ttl_keeps_its_end() {
    let job = JobOptions { drain: 3 * SECOND, ttl: ttl(10), ..supervise() };
    let mut world = begun(job, Behaviour::until_signalled());
    world.run_for(11 * SECOND);
    world.effects();
    world.signal(Signal::TERM);
    assert_eq!(signals(&mut world), [], "the first one does not skip the drain");
    world.signal(Signal::TERM);
    assert_eq!(signals(&mut world), [Signal::TERM], "the second one does");
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(world.now(), 11 * SECOND);
}

#[test]
fn there_is_no_drain_without_a_running_command() {
    let job = JobOptions { drain: 3 * SECOND, ..supervise() };
    let mut world = begun(job.clone(), Behaviour::ends(SECOND, Exit::Code(1)));
    world.run_for(2 * SECOND);
    world.signal(Signal::TERM);
    world.run_to_the_end();
    assert_eq!(world.now(), 2 * SECOND, "in the pause");
    let mut world = World::new(epoch(), job, context());
    world.signal(Signal::TERM);
    world.start();
    world.run_to_the_end();
    assert_eq!(world.now(), Duration::ZERO, "before the start");
}

#[test]
fn the_service_manager_is_told_of_the_drain() {
    let mut world =
        begun_in(JobContext { manager: true, ..context() }, draining(), Behaviour::until_signalled());
    world.effects();
    world.signal(Signal::TERM);
    let told: Vec<String> = world
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Notify(datagram) => String::from_utf8(datagram).ok(),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=13000000", "STATUS=draining for 3 s, pid 101"]);
}

#[test]
fn the_longest_drain_can_be_begun_and_skipped() {
    let job = JobOptions { drain: Duration::MAX, ..run() };
    // Without the simulation, whose clock cannot represent the end of this drain.
    let mut life = Lifecycle::new(Rc::new(job), JobContext { manager: true, ..context() });
    let stop = Event::Signal { signal: Signal::TERM, sender: OTHER_PROCESS };
    let mut out = Vec::new();
    for event in [Event::Start, Event::Spawned { pid: child() }, stop.clone()] {
        life.handle(epoch(), event, &mut out);
    }
    assert!(!life.status().ready && !out.contains(&kill(Signal::TERM)));
    life.handle(epoch(), stop, &mut out);
    assert!(out.contains(&kill(Signal::TERM)));
}

#[test]
fn a_dump_comes_before_the_stop_signal_of_a_ttl() {
    let mut world = begun(dumping(Signal::QUIT), Behaviour::ignoring_signals());
    world.effects();
    world.run_for(10 * SECOND);
    let dump = world.effects().into_iter().find_map(|effect| match effect {
        Effect::Kill { signal, to, .. } => Some((signal, to)),
        _ => None,
    });
    assert_eq!(dump, Some((Signal::QUIT, SignalTarget::Process(child()))), "the command alone");
    world.run_for(2 * SECOND);
    assert_eq!(signals(&mut world), [Signal::TERM, Signal::CONT]);
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(world.now(), 22 * SECOND, "SIGKILL comes 10 s after the stop signal");
}

#[test]
fn a_command_that_ends_by_the_dump_has_the_reason_of_the_stop() {
    let mut world = begun(dumping(Signal::QUIT), Behaviour::until_signalled());
    world.behaviour.leaves = Some(Leaves::obedient(Duration::ZERO));
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(world.now(), 10 * SECOND, "the wait is an upper bound");
}

#[test]
fn a_group_without_a_stop_signal_is_ended_after_the_dump() {
    let leaves = Some(Leaves::obedient(Duration::ZERO));
    let behaviour = Behaviour { leaves, ..Behaviour::until_signalled() };
    let mut world = begun(dumping(Signal::QUIT), behaviour);
    world.effects();
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(signals(&mut world), [Signal::QUIT, Signal::TERM, Signal::CONT]);
}

#[test]
fn a_stop_signal_skips_the_wait_for_the_dump() {
    let behaviour = Behaviour { exit_on_signal: Some(Exit::Code(9)), ..Behaviour::ignoring_signals() };
    let mut world = begun(dumping(Signal::QUIT), behaviour);
    world.run_for(11 * SECOND);
    world.effects();
    world.signal(Signal::TERM);
    assert_eq!(signals(&mut world), [Signal::TERM]);
}

#[test]
fn a_silent_command_is_stopped() {
    let job = JobOptions { silence: Some(60 * SECOND), ..run() };
    let mut world = begun(job, Behaviour::until_signalled());
    world.run_for(50 * SECOND);
    world.print();
    assert_eq!(world.run_to_the_end(), 124);
    assert_eq!(world.now(), 110 * SECOND);
    assert_eq!(document(&world).reason, Some(Reason::Silent));
}

#[test]
fn a_suspension_of_kapo_is_not_silence() {
    let job = JobOptions { silence: Some(60 * SECOND), ..run() };
    let mut world = begun(job, Behaviour::until_signalled());
    world.run_for(50 * SECOND);
    world.freeze(3_600 * SECOND);
    world.run_for(59 * SECOND);
    assert_eq!(world.exited(), None);
    world.signal(Signal::CONT);
    world.run_for(59 * SECOND);
    assert_eq!(world.exited(), None);
    assert_eq!(world.run_to_the_end(), 124);
}

#[test]
fn a_year_of_output_and_silence_keeps_every_invariant() {
    let restart = Restart { stable: 10 * SECOND, ..again() };
    let job = JobOptions {
        silence: Some(600 * SECOND),
        drain: 3 * SECOND,
        ttl: ttl(3_600),
        dump_signal: Some(Signal::QUIT),
        dump_wait: SECOND,
        after: After::Again(restart),
        ..run()
    };
    let behaviour = Behaviour { exit_on_signal: Some(Exit::Code(0)), ..Behaviour::until_signalled() };
    let mut world = begun(job, behaviour);
    for hour in 0..365 * 24 {
        for _ in 0..6 {
            if hour % 24 != 0 {
                world.print();
            }
            world.run_for(600 * SECOND - Duration::from_millis(1));
        }
        if hour % 7 == 0 {
            world.fail_probes(world.life.starts());
        }
        world.history.clear();
    }
    let exits: Vec<u64> = world.life.exits().iter().map(|(_, n)| n).collect();
    let [timeout, silent, unhealthy] =
        [Reason::Timeout, Reason::Silent, Reason::Unhealthy].map(|reason| exits[reason as usize]);
    assert!(timeout > 6_000 && silent > 1_500 && unhealthy > 1_000, "{timeout} {silent} {unhealthy}");
}

#[test]
fn an_unhealthy_command_is_stopped_and_fails() {
    let behaviour = Behaviour { exit_on_signal: Some(Exit::Code(0)), ..Behaviour::until_signalled() };
    let mut world = begun(run(), behaviour.clone());
    world.fail_probes(1);
    assert_eq!(world.run_to_the_end(), 1, "0 would be a success");
    assert_eq!(document(&world).reason, Some(Reason::Unhealthy));
    let mut world = begun(supervise(), behaviour);
    world.fail_probes(1);
    world.run_for(6 * SECOND);
    assert_eq!(world.life.starts(), 2);
    world.fail_probes(1);
    assert!(document(&world).ready, "a result of an earlier run has no effect");
}
