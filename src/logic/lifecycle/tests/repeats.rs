//! Tests of the log of a command that ends again and again in the same way.

use super::*;

/// Returns a supervised job that pauses for a second, with `--stable 10`.
fn restarting(restart: Restart) -> JobOptions {
    JobOptions { after: After::Again(Restart { wait: SECOND, stable: 10 * SECOND, ..restart }), ..run() }
}

/// Returns the starts and ends in the log since the last call: the message, and the number of runs that were left out.
fn summary(world: &mut World) -> Vec<String> {
    let mut lines = logged(world);
    lines.retain(|line| line.contains("msg=\"started\"") || line.contains("msg=\"exited\""));
    let shorten = |line: String| {
        let kept = line
            .split(' ')
            .filter(|word| ["msg=", "code=", "repeats=", "ago="].iter().any(|key| word.starts_with(key)));
        kept.collect::<Vec<_>>().join(" ").replace("msg=", "").replace('"', "")
    };
    lines.into_iter().map(shorten).collect()
}

fn fails(code: u8) -> Behaviour {
    Behaviour::ends(SECOND, Exit::Code(code))
}

const THREE: [&str; 6] = ["started", "exited code=3", "started", "exited code=3", "started", "exited code=3"];

#[test]
fn after_three_equal_ends_one_record_a_minute_is_written() {
    let mut world = begun(restarting(again()), fails(3));
    world.run_for(66 * SECOND);
    let mut expected = THREE.to_vec();
    expected.push("exited code=3 repeats=29");
    assert_eq!(summary(&mut world), expected, "ends come each 2 s, the third one after 5 s");
    world.run_for(60 * SECOND);
    assert_eq!(summary(&mut world), ["exited code=3 repeats=29"]);
}

#[test]
fn another_end_is_logged_with_its_start() {
    let mut world = begun(restarting(again()), fails(3));
    world.run_for(9_500 * SECOND / 1_000);
    assert_eq!(summary(&mut world), THREE);
    world.behaviour = fails(4);
    world.run_for(3 * SECOND);
    let expected = [
        "started ago=3.000s",
        "exited code=3 repeats=1 ago=2.000s",
        "started ago=1.000s",
        "exited code=4",
        "started",
    ];
    assert_eq!(summary(&mut world), expected);
}

#[test]
fn a_run_that_gets_stable_is_logged() {
    for stable in [10, 0] {
        let restart = Restart { wait: SECOND, stable: stable * SECOND, ..again() };
        let job = JobOptions { after: After::Again(restart), ..run() };
        let mut world = begun(job, fails(3));
        world.run_for(7 * SECOND);
        assert_eq!(summary(&mut world), THREE);
        world.behaviour = Behaviour::until_signalled();
        let late = if stable == 0 { 60 } else { stable };
        world.run_for((late + 2) * SECOND);
        let expected = [late + 2, late + 1, late].map(|ago| format!("ago={ago}.000s"));
        let expected: Vec<_> = ["started", "exited code=3", "started"]
            .iter()
            .zip(expected)
            .map(|(msg, ago)| format!("{msg} {ago}"))
            .collect();
        assert_eq!(summary(&mut world), expected);
        world.behaviour = fails(3);
        world.kill_command();
        world.run_for(3 * SECOND / 2);
        assert_eq!(summary(&mut world), ["exited", "started"], "the series is over");
    }
}

#[test]
fn a_stop_of_kapo_writes_what_was_left_out() {
    let mut world = begun(restarting(again()), fails(3));
    world.run_for(9_500 * SECOND / 1_000);
    assert_eq!(summary(&mut world), THREE);
    assert_eq!(world.leave(), 3);
    assert_eq!(summary(&mut world), ["started ago=1.500s", "exited code=3 repeats=1 ago=0.500s"]);

    let mut world = begun(restarting(again()), fails(3));
    world.run_for(8_500 * SECOND / 1_000);
    assert_eq!(summary(&mut world), THREE);
    world.leave();
    let expected = ["started ago=2.500s", "exited code=3 ago=1.500s", "started ago=0.500s", "exited"];
    assert_eq!(summary(&mut world), expected);
}

#[test]
fn the_end_at_max_restarts_is_logged() {
    let mut world = begun(restarting(Restart { max_restarts: Some(6), ..again() }), fails(3));
    assert_eq!(world.run_to_the_end(), 3);
    let mut expected = THREE.to_vec();
    expected.extend(["started ago=1.000s", "exited code=3 repeats=3"]);
    assert_eq!(summary(&mut world), expected);
}

#[test]
fn log_repeats_keeps_every_start_and_end() {
    let mut world = begun(restarting(Restart { log_repeats: true, ..again() }), fails(3));
    world.run_for(20 * SECOND);
    let log = summary(&mut world);
    assert_eq!(log.len(), 21, "{log:?}");
}

#[test]
fn ends_more_than_a_minute_apart_are_all_logged() {
    let slow = Restart { wait: SECOND, stable: 3_600 * SECOND, ..again() };
    let job = JobOptions { after: After::Again(slow), ..run() };
    let mut world = begun(job, Behaviour::ends(60 * SECOND, Exit::Code(0)));
    world.run_for(610 * SECOND);
    assert_eq!(summary(&mut world).len(), 21);
}

#[test]
fn a_pause_of_more_than_a_minute_writes_what_was_left_out() {
    let restart = Restart { backoff_max: Some(100 * SECOND), ..again() };
    let mut world = begun(restarting(restart), fails(3));
    world.run_for(1_000 * SECOND);
    let log = logged(&mut world);
    let pauses = log.iter().filter(|line| line.contains("msg=\"restarting\"")).count();
    let starts = log.iter().filter(|line| line.contains("msg=\"started\"")).count();
    assert!(pauses >= 8 && starts >= 9, "{log:#?}");
    let start = log.iter().rposition(|line| line.contains("msg=\"started\"")).unwrap();
    assert!(log[start - 1].contains("msg=\"restarting\""), "{log:#?}");
}

#[test]
fn failed_starts_are_a_series_too() {
    let missing = Behaviour { start: Err(SpawnErrorKind::NotFound), ..Behaviour::until_signalled() };
    let mut world = begun(restarting(again()), missing);
    world.run_for(63 * SECOND);
    let log = logged(&mut world);
    let errors: Vec<_> = log.iter().filter(|line| line.contains("msg=\"cannot execute\"")).collect();
    assert_eq!(errors.len(), 4, "{log:#?}");
    assert!(errors[3].ends_with("repeats=59"), "{log:#?}");
}
