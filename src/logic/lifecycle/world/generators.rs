//! Generates random options and events for whole lifecycles.

use std::time::Duration;

use super::{Behaviour, Leaves, World};
use crate::config::{After, JobOptions, Linger, Restart, STOP_ON, Success, Ttl};
use crate::logic::lifecycle::{Event, ForegroundOwner, IgnoredAtStart, JobContext, SpawnErrorKind};
use crate::logic::{Exit, Now};
use crate::signal::{Signal, SignalSet};

/// Runs one lifecycle with options and events chosen by `pick`: `pick(n)` returns 0 to n - 1.
pub fn any_life(epoch: Now, seed: u64, pick: &mut dyn FnMut(u64) -> u64) {
    let job = any_job(pick);
    let context = JobContext {
        history: 2,
        hide_args: false,
        sidebind_port: 0,
        name: "",
        manager: pick(2) == 0,
        ignored_at_start: IgnoredAtStart { hang_up: pick(2) == 0, interrupt: pick(2) == 0 },
        piped: pick(2) == 0,
        is_init: pick(4) == 0,
        seed,
    };
    let mut world = World::new(epoch, job, context);
    world.behaviour = any_behaviour(pick);
    if pick(30) == 0 {
        world.signal(Signal::TERM);
    }
    world.start();
    for _ in 0..pick(40) {
        world.behaviour = any_behaviour(pick);
        world.closes_after = any_time(pick);
        match pick(21) {
            0..=6 => world.run_for(any_time(pick)),
            7 => world.freeze(any_time(pick)),
            8 => {
                if let Some(signal) = any_signal(pick) {
                    world.signal(signal);
                }
            }
            9 => {
                if let Some(signal) = any_signal(pick) {
                    world.kernel(signal);
                }
            }
            10..=12 => world.datagram(any_datagram(pick)),
            13 => world.handle(Event::RequestAnswered),
            14 => world.handle(Event::Stopped { signal: Signal::TSTP }),
            16 => world.handle(Event::Resumed),
            17 | 18 => world.print(),
            19 => {
                let run = world.life.starts().saturating_sub(pick(2));
                world.fail_probes(run);
            }
            15 => {
                let signal = if pick(2) == 0 { Signal::TTIN } else { Signal::TTOU };
                let foreground_owner = match pick(3) {
                    0 => ForegroundOwner::Own,
                    1 => ForegroundOwner::Command,
                    _ => ForegroundOwner::Other,
                };
                world.handle(Event::SiblingStopped { signal, foreground_owner });
            }
            _ => world.handle(Event::Deadline),
        }
    }
    world.leave();
}

fn any_time(pick: &mut dyn FnMut(u64) -> u64) -> Duration {
    let most = [1, 50, 1_000, 10_000, 100_000].get(usize::try_from(pick(5)).unwrap_or(0)).copied();
    Duration::from_millis(pick(most.unwrap_or(1)))
}

fn any_signal(pick: &mut dyn FnMut(u64) -> u64) -> Option<Signal> {
    let number = i32::try_from(pick(64)).ok()? + 1;
    let unseen = [Signal::KILL, Signal::STOP, Signal::CHLD];
    // Half of the signals are those with a meaning for kapo.
    let telling =
        [Signal::TERM, Signal::INT, Signal::HUP, Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::QUIT];
    let which = usize::try_from(pick(14)).ok()?;
    telling.get(which).copied().or_else(|| Signal::new(number).filter(|signal| !unseen.contains(signal)))
}

/// Returns signals that `--stop-on` accepts.
fn any_stop_signals(pick: &mut dyn FnMut(u64) -> u64) -> SignalSet {
    let uses = [Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    (0..3)
        .filter_map(|_| any_signal(pick))
        .filter(|signal| !uses.contains(signal))
        .chain([Signal::TERM])
        .collect()
}

fn any_datagram(pick: &mut dyn FnMut(u64) -> u64) -> &'static [u8] {
    let words: [&[u8]; 10] = [
        b"READY=1",
        b"READY=1\nSTATUS=up",
        b"WATCHDOG=1",
        b"WATCHDOG=1\nSTATUS=busy",
        b"RELOADING=1\nMONOTONIC_USEC=1",
        b"STOPPING=1",
        b"WATCHDOG=trigger",
        b"WATCHDOG_USEC=3000000",
        b"WATCHDOG_USEC=0",
        b"ERRNO=5",
    ];
    usize::try_from(pick(10)).ok().and_then(|which| words.get(which)).copied().unwrap_or_default()
}

fn any_exit(pick: &mut dyn FnMut(u64) -> u64) -> Exit {
    match pick(4) {
        0 => Exit::Code(0),
        1 => Exit::Signal { signal: any_signal(pick).unwrap_or(Signal::SEGV), core_dumped: pick(2) == 0 },
        _ => Exit::Code(u8::try_from(pick(256)).unwrap_or(1)),
    }
}

/// Returns a time that is long enough to limit the number of starts without a pause.
fn any_lasting_time(pick: &mut dyn FnMut(u64) -> u64) -> Duration {
    Duration::from_millis(200) + any_time(pick)
}

/// Returns an element of a list of ends: any signal, any code, or a code that kapo itself gives or that TERM causes.
fn any_end(pick: &mut dyn FnMut(u64) -> u64) -> Option<Success> {
    let code = match pick(8) {
        0 | 1 => return any_signal(pick).map(Success::Signal),
        2 | 3 => pick(256),
        4 => 0,
        5 => 124,
        6 => 125 + pick(3),
        _ => 143,
    };
    u8::try_from(code).ok().map(Success::Code)
}

fn any_behaviour(pick: &mut dyn FnMut(u64) -> u64) -> Behaviour {
    Behaviour {
        start: match pick(24) {
            0 => Err(SpawnErrorKind::NotFound),
            1 => Err(SpawnErrorKind::NotExecutable),
            2 => Err(SpawnErrorKind::Setup),
            _ => Ok(()),
        },
        on_terminal: pick(3) == 0,
        hung_up: pick(3) == 0,
        lasts: (pick(3) > 0).then(|| any_lasting_time(pick)),
        exit: any_exit(pick),
        ignores_signals: pick(4) == 0,
        stopped: pick(6) == 0,
        unreachable: pick(8) == 0,
        exit_on_signal: (pick(3) == 0).then(|| any_exit(pick)),
        dies_after: any_time(pick),
        drains_after: any_time(pick),
        last_output: vec!["x".repeat(usize::try_from(pick(600)).unwrap_or(0)); 10],
        oom_killed: pick(5) == 0,
        leaves: (pick(3) == 0).then(|| Leaves {
            ends_after: (pick(3) > 0).then(|| any_time(pick)),
            stuck: pick(8) == 0,
            is_child: pick(2) == 0,
            members: (pick(3) > 0).then(|| 1 + usize::try_from(pick(3)).unwrap_or(0)),
        }),
    }
}

fn any_job(pick: &mut dyn FnMut(u64) -> u64) -> JobOptions {
    let after = match pick(4) {
        0 => After::Once(Linger::Fixed(any_time(pick))),
        1 => After::Once(Linger::Idle(any_time(pick))),
        _ => After::Again(Restart {
            wait: any_time(pick),
            backoff_max: (pick(2) == 0).then(|| any_time(pick)),
            stable: any_time(pick),
            max_restarts: (pick(3) == 0).then(|| u32::try_from(1 + pick(5)).unwrap_or(1)),
            within: any_time(pick),
            on_failure_only: pick(4) == 0,
            no_restart_on: (0..pick(3)).filter_map(|_| any_end(pick)).collect(),
            log_repeats: pick(4) == 0,
        }),
    };
    let min = any_lasting_time(pick);
    JobOptions {
        command: "command".into(),
        arguments: Vec::new(),
        ttl: (pick(2) == 0).then(|| Ttl { min, max: min + any_time(pick) }),
        stop_signal: any_signal(pick).unwrap_or(Signal::TERM),
        stop_on: match pick(2) {
            0 => STOP_ON,
            _ => any_stop_signals(pick),
        },
        kill_after: (pick(2) == 0).then(|| any_time(pick)),
        drain: if pick(3) == 0 { any_time(pick) } else { Duration::ZERO },
        silence: (pick(3) == 0).then(|| any_lasting_time(pick)),
        dump_signal: if pick(3) == 0 { any_signal(pick) } else { None },
        dump_wait: any_time(pick),
        single_child: pick(4) == 0,
        setsid: pick(3) == 0,
        rewrite_signal: (0..pick(3)).filter_map(|_| Some((any_signal(pick)?, any_signal(pick)))).collect(),
        success_exit: (0..pick(3))
            .filter_map(|_| match pick(3) {
                0 => Some(Success::Ttl),
                _ => any_signal(pick).map(Success::Signal),
            })
            .collect(),
        parent_death_signal: None,
        orphan_signal: None,
        termination_log: (pick(2) == 0).then(|| "/dev/termination-log".into()),
        hooks: Vec::new(),
        hook_timeout: Duration::ZERO,
        textfile: None,
        notify: pick(2) == 0,
        ready_line: (pick(4) == 0).then(|| "up".into()),
        probes: None,
        watchdog: (pick(2) == 0).then(|| any_lasting_time(pick)),
        after,
    }
}
