//! Tests with a simulated kernel: processes fork, exec, end and are reaped, and a few pids are reused again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::scan_schedule::{READ_ALL, SHORTEST_PAUSE};
use super::*;
use crate::logic::reason::Reason;
use crate::logic::status::State;
use crate::signal::Signal;

const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core_dumped: false };

struct Fake {
    name: &'static str,
    /// Changes with each fork and each exec: a child of the same program has an image of its own.
    image: u64,
    /// Whether it has had the watched name since its last exec.
    matched: bool,
    mark: u32,
    ticks: u64,
    /// Its age in the first scan.
    age: u32,
    zombie: Option<Exit>,
}

struct World {
    watch: Watch,
    now: Now,
    processes: BTreeMap<ProcessId, Fake>,
    /// The open pidfds: pid and start time of their process.
    guards: BTreeMap<ProcessId, u64>,
    /// Events that pidfds have not reported yet.
    untold: Vec<(ProcessId, u64, Option<Exit>, bool)>,
    most: usize,
    scanning: bool,
    counter: u32,
    scans: usize,
    reads: usize,
    notes: Vec<Note>,
}

#[expect(clippy::disallowed_methods, reason = "the one place where these tests take their epoch from")]
pub(super) fn epoch() -> Now {
    Now { mono: Instant::now(), wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000) }
}

fn config(name: &str) -> config::WatchOptions {
    config::WatchOptions {
        names: vec![name.into()],
        pid: None,
        wait: Duration::from_secs(5),
        process_events: false,
    }
}

fn pid(n: i32) -> ProcessId {
    ProcessId::new(n).unwrap()
}

impl World {
    fn new(config: &config::WatchOptions) -> World {
        let now = epoch();
        World {
            watch: Watch::new(
                config,
                config.names.iter().map(|name| Rule::new(name, None)).collect(),
                ProcessId::new(99),
                5,
                now,
            ),
            now,
            processes: BTreeMap::new(),
            guards: BTreeMap::new(),
            untold: Vec::new(),
            most: usize::MAX,
            scanning: false,
            counter: 0,
            scans: 0,
            reads: 0,
            notes: Vec::new(),
        }
    }

    fn start(mut self) -> World {
        self.tell(WatchEvent::Start);
        self.settle();
        self
    }

    /// Creates a process. The pid must be free.
    fn fork(&mut self, n: i32, name: &'static str) {
        self.counter += 1;
        let (mark, ticks) = (self.counter, u64::from(self.counter));
        let fake = Fake { name, image: ticks, matched: name == "job", mark, ticks, age: 0, zombie: None };
        assert!(self.processes.insert(pid(n), fake).is_none());
    }

    /// Changes the name of a process without an exec.
    fn rename(&mut self, n: i32, name: &'static str) {
        let fake = self.processes.get_mut(&pid(n)).unwrap();
        fake.name = name;
        fake.matched |= name == "job";
    }

    /// Lets a process execute a program of this name.
    fn exec(&mut self, n: i32, name: &'static str) {
        self.counter += 1;
        let image = u64::from(self.counter);
        let fake = self.processes.get_mut(&pid(n)).unwrap();
        (fake.name, fake.image, fake.matched) = (name, image, name == "job");
    }

    fn end(&mut self, n: i32, exit: Exit) {
        let fake = self.processes.get_mut(&pid(n)).unwrap();
        fake.zombie = Some(exit);
        if self.guards.get(&pid(n)) == Some(&fake.ticks) {
            self.untold.push((pid(n), fake.ticks, None, false));
        }
    }

    fn reap(&mut self, n: i32) {
        let fake = self.processes.remove(&pid(n)).unwrap();
        if self.guards.get(&pid(n)) == Some(&fake.ticks) {
            self.untold.push((pid(n), fake.ticks, fake.zombie, true));
        }
    }

    fn tell(&mut self, event: WatchEvent<'_>) {
        let mut effects = Vec::new();
        self.watch.handle(self.now, event, &mut effects);
        effects.into_iter().for_each(|effect| self.perform(effect));
    }

    fn perform(&mut self, effect: WatchEffect) {
        match effect {
            WatchEffect::Scan => {
                assert!(!self.scanning, "one scan at a time");
                self.scanning = true;
                self.scans += 1;
            }
            WatchEffect::Note(note) => self.notes.push(note),
            WatchEffect::Close(pid) => drop(self.guards.remove(&pid)),
            WatchEffect::ReadName(pid) => {
                self.reads += 1;
                if let Some(comm) = self.processes.get(&pid).map(|p| p.name.as_bytes()) {
                    self.tell(WatchEvent::Named { pid, comm });
                }
            }
            WatchEffect::ReadAllNames { pid, age } => {
                self.reads += 1;
                let known =
                    self.processes.get(&pid).map(|p| (p.name.as_bytes(), if age { p.age } else { 0 }));
                if let Some((comm, age)) = known {
                    let names = ProcessNames { comm, ..ProcessNames::default() };
                    self.tell(WatchEvent::AllNames { pid, age, names });
                }
            }
            WatchEffect::Open(pid) => {
                let Some(process) = self.processes.get(&pid).filter(|p| p.zombie.is_none()) else {
                    return self.tell(WatchEvent::Vanished { pid });
                };
                let (ticks, comm) = (process.ticks, process.name.as_bytes());
                let image = Image::of(process.image, b"");
                let guarded = self.guards.len() < self.most;
                if guarded {
                    self.guards.insert(pid, ticks);
                }
                let names = ProcessNames { comm, ..ProcessNames::default() };
                self.tell(WatchEvent::Opened { pid, ticks, image, start: UNIX_EPOCH, guarded, names });
            }
        }
    }

    /// Does what one turn of the loop does: pidfds, then deadlines, then the scan.
    fn settle(&mut self) {
        for (pid, ticks, exit, reaped) in std::mem::take(&mut self.untold) {
            if self.guards.get(&pid) == Some(&ticks) {
                self.tell(WatchEvent::Ended { pid, exit, reaped });
            }
        }
        self.tell(WatchEvent::Deadline);
        if std::mem::take(&mut self.scanning) {
            let listed: Vec<(ProcessId, u32)> =
                self.processes.iter().map(|(pid, p)| (*pid, p.mark)).collect();
            for (pid, mark) in listed {
                self.tell(WatchEvent::Listed { pid, mark });
            }
            self.tell(WatchEvent::Scanned);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall += time;
        self.settle();
    }

    fn pids(&self) -> Vec<i32> {
        self.watch.status().iter().filter_map(|s| s.pid.map(ProcessId::get)).collect()
    }

    fn shown(&self) -> (State, u8, Option<Signal>, Option<Reason>, Option<ProcessId>) {
        let status = self.watch.status();
        assert_eq!(status.len(), 1);
        (status[0].state, status[0].exit_code, status[0].signal, status[0].reason, status[0].pid)
    }
}

const WAIT: Duration = Duration::from_secs(5);

#[test]
fn the_next_scan_finds_a_process_and_its_end_shows_at_once() {
    let mut world = World::new(&config("job")).start();
    assert_eq!(world.shown(), (State::Stopped, 0, None, None, None));
    assert_eq!(world.watch.status()[0].start_time, None);
    world.fork(7, "job");
    world.fork(8, "other");
    world.fork(99, "job"); // The pid of kapo itself.
    world.pass(WAIT);
    assert_eq!(world.shown(), (State::Running, 0, None, None, Some(pid(7))));
    assert!(world.watch.status()[0].ready && world.watch.lives() && world.watch.take_changed());
    assert!(!world.watch.take_changed());
    world.end(7, KILLED);
    world.settle();
    // The process is dead, and only its parent may know the exit.
    assert_eq!(world.shown(), (State::Stopped, 0, None, None, None));
    assert!(!world.watch.lives() && world.watch.take_changed());
    assert_eq!(world.watch.status()[0].end_time, Some(world.now.wall));
    world.reap(7);
    world.settle();
    assert_eq!(world.shown(), (State::Killed, 137, Some(Signal::KILL), Some(Reason::Signal), None));
    assert!(world.watch.take_changed() && world.guards.is_empty());
    world.fork(9, "job");
    world.pass(WAIT);
    assert_eq!(world.shown(), (State::Running, 0, None, None, Some(pid(9))));
    assert_eq!(world.watch.status()[0].restarts, 1);
    assert_eq!(world.notes, [Note::Found(0, pid(7)), Note::Ended(0, pid(7), None), Note::Found(0, pid(9))]);
}

#[test]
fn every_exit_has_its_state_and_reason() {
    let signal = |n, core_dumped| Exit::Signal { signal: Signal::new(n).unwrap(), core_dumped };
    for (exit, expected) in [
        (Exit::Code(0), (State::Stopped, 0, None, Some(Reason::Success), None)),
        (Exit::Code(3), (State::Stopped, 3, None, Some(Reason::ExitCode), None)),
        (signal(15, false), (State::Killed, 143, Some(Signal::TERM), Some(Reason::Signal), None)),
        (signal(11, true), (State::Killed, 139, Some(Signal::SEGV), Some(Reason::CoreDump), None)),
    ] {
        let mut world = World::new(&config("job"));
        world.fork(7, "job");
        let mut world = world.start();
        world.end(7, exit);
        world.reap(7);
        world.settle();
        assert_eq!(world.shown(), expected);
    }
}

#[test]
fn a_pid_reused_between_two_scans_is_another_process() {
    for most in [usize::MAX, 0] {
        let mut world = World::new(&config("job"));
        world.most = most;
        world.fork(7, "job");
        let mut world = world.start();
        world.end(7, Exit::Code(0));
        world.reap(7);
        world.fork(7, "job");
        world.pass(WAIT);
        assert_eq!(world.pids(), [7]);
        assert_eq!(world.watch.status()[0].restarts, 1, "{most}");
        world.end(7, Exit::Code(0));
        world.reap(7);
        world.fork(7, "other");
        world.pass(WAIT);
        assert_eq!(world.pids(), [0; 0]);
    }
}

#[test]
fn a_new_name_is_found_while_young_or_within_a_minute() {
    let mut world = World::new(&config("job"));
    world.fork(7, "sh");
    world.fork(8, "sh");
    let mut world = world.start();
    world.exec(7, "job");
    world.pass(WAIT);
    assert_eq!(world.pids(), [7]);
    (0..3).for_each(|_| world.pass(WAIT));
    world.exec(8, "job");
    world.exec(7, "else");
    let reads = world.reads;
    world.pass(WAIT);
    assert_eq!((world.pids(), world.reads), (vec![7], reads), "a known process is not read again");
    (0..8).for_each(|_| world.pass(WAIT));
    assert_eq!(world.pids(), [8]);
    assert_eq!(world.guards.len(), 1);
}

#[test]
fn a_scan_that_reads_all_names_reads_each_process_once() {
    let mut world = World::new(&config("job"));
    [(1, "job"), (2, "sh"), (3, "else")].into_iter().for_each(|(n, name)| world.fork(n, name));
    let mut world = world.start();
    assert_eq!((world.pids(), world.reads), (vec![1], 3));
    world.pass(WAIT);
    assert_eq!(world.reads, 6, "the names that the first scan read have not changed");
}

#[test]
fn only_what_is_young_at_the_start_is_read_again() {
    let mut world = World::new(&config("job"));
    for (n, age) in [(1, 1_000), (2, 10), (3, 9), (4, 4), (5, 0)] {
        world.fork(n, "sh");
        world.processes.get_mut(&pid(n)).unwrap().age = age;
    }
    let mut world = world.start();
    // After ten seconds, the name of each is read once more.
    for expected in [2, 5, 0, 0] {
        let before = world.reads;
        world.pass(WAIT);
        assert_eq!(world.reads - before, expected);
    }
    // A process that a later scan finds counts as new: its name and all its names are read.
    world.fork(6, "sh");
    world.processes.get_mut(&pid(6)).unwrap().age = 1_000;
    for expected in [2, 2, 0] {
        let before = world.reads;
        world.pass(WAIT);
        assert_eq!(world.reads - before, expected);
    }
}

#[test]
fn an_exec_of_an_old_process_soon_after_the_start_is_found() {
    let mut world = World::new(&config("job"));
    world.fork(1, "sh");
    world.processes.get_mut(&pid(1)).unwrap().age = 1_000;
    let mut world = world.start();
    world.exec(1, "job");
    world.pass(WAIT);
    assert!(world.pids().is_empty());
    world.pass(WAIT);
    assert_eq!(world.pids(), [1], "ten seconds after the start");
}

#[test]
fn a_change_of_name_does_not_end_a_match() {
    for (process_events, most) in [(false, usize::MAX), (true, usize::MAX), (false, 0)] {
        let mut world = World::new(&config::WatchOptions { process_events, ..config("job") });
        world.most = most;
        world.fork(7, "job");
        let mut world = world.start();
        world.rename(7, "else");
        world.tell(WatchEvent::Renamed { pid: pid(7) });
        // It is read while it is young, and whenever everything is read.
        (0..15).for_each(|_| world.pass(WAIT));
        world.tell(WatchEvent::Missed);
        world.pass(WAIT);
        assert_eq!((world.pids(), world.notes.len()), (vec![7], 1));
        world.end(7, Exit::Code(3));
        world.reap(7);
        world.pass(WAIT);
        assert_eq!((world.pids(), world.guards.len()), (vec![], 0));
        assert_eq!(world.shown().1, if most == 0 { 0 } else { 3 }, "the pidfd still reports the exit");
    }
}

#[test]
fn an_unnoticed_exec_does_not_end_a_match() {
    let mut world = World::new(&config("job"));
    world.fork(7, "job");
    let mut world = world.start();
    let names = ProcessNames { comm: b"else", ..ProcessNames::default() };
    let opened =
        |image| WatchEvent::Opened { pid: pid(7), ticks: 1, image, start: UNIX_EPOCH, guarded: true, names };
    world.tell(opened(None));
    assert_eq!(world.pids(), [7]);
    world.tell(opened(Image::of(1, b"")));
    assert_eq!(world.pids(), [7]);
    world.tell(opened(Image::of(2, b"")));
    assert_eq!(world.pids(), [0; 0]);
    // Without permission to read the stack, the arguments are the image.
    assert_eq!(Image::of(0, b""), None);
    assert_eq!(Image::of(0, b"sh\0"), Image::of(0, b"sh\0"));
    assert_ne!(Image::of(0, b"sh\0"), Image::of(0, b"sleep\0"));
    assert_eq!(Image::of(5, b"sh\0"), Image::of(5, b"sleep\0"));
}

#[test]
fn a_thousand_matches_leave_no_pidfd_behind() {
    for most in [usize::MAX, 100] {
        let mut world = World::new(&config("job"));
        world.most = most;
        (0..1_000).for_each(|n| world.fork(2_000 - n, "job"));
        let mut world = world.start();
        // The oldest comes first; here it has the highest pid.
        assert_eq!(world.pids(), (1_001..=2_000).rev().collect::<Vec<_>>());
        assert_eq!(world.watch.status()[0].restarts, 999);
        assert_eq!(world.guards.len(), most.min(1_000));
        for n in 1_001..=2_000 {
            world.end(n, Exit::Code(4));
        }
        world.pass(WAIT);
        assert_eq!(world.pids(), [0; 0]);
        assert!(world.guards.len() <= 1, "one zombie's pidfd at most, that of the one that is shown");
        (1_001..=2_000).for_each(|n| world.reap(n));
        world.pass(WAIT);
        assert!(world.guards.is_empty() && world.watch.living.is_empty() && world.watch.unguarded == 0);
        assert_eq!(world.shown().3, if most == 100 { None } else { Some(Reason::ExitCode) });
    }
}

#[test]
fn the_process_of_pid_is_never_searched_again() {
    let only = config::WatchOptions { pid: Some(7), ..config("shown") };
    let mut gone = World::new(&only).start();
    assert_eq!((gone.shown().0, gone.watch.deadline(), gone.scans), (State::Stopped, None, 0));
    gone.fork(7, "any");
    gone.pass(WAIT);
    assert_eq!(gone.pids(), [0; 0]);

    let mut world = World::new(&only);
    world.fork(7, "any");
    world.fork(8, "shown");
    let mut world = world.start();
    assert_eq!((world.pids(), world.watch.deadline()), (vec![7], None));
    assert_eq!(world.watch.status()[0].command, "shown");
    world.end(7, Exit::Code(3));
    world.reap(7);
    world.settle();
    assert_eq!((world.shown().1, world.watch.deadline(), world.scans), (3, None, 0));
    assert!(world.guards.is_empty());
}

#[test]
fn without_a_pidfd_the_process_of_pid_is_read_every_wait() {
    let mut world = World::new(&config::WatchOptions { pid: Some(7), ..config("") });
    world.most = 0;
    world.fork(7, "any");
    let mut world = world.start();
    assert_eq!(world.watch.status()[0].command, "any", "without NAME the process's own name is shown");
    world.pass(WAIT);
    assert_eq!(world.watch.deadline(), Some(world.now.mono + WAIT));
    world.end(7, Exit::Code(3));
    world.reap(7);
    world.fork(7, "any");
    world.pass(WAIT);
    assert_eq!((world.shown().0, world.watch.deadline()), (State::Stopped, None));
}

#[test]
fn process_events_avoid_scans_while_nothing_starts() {
    let mut world = World::new(&config::WatchOptions { process_events: true, ..config("job") });
    world.fork(7, "job");
    let mut world = world.start();
    assert_eq!((world.pids(), world.watch.deadline()), (vec![7], None));
    world.fork(8, "sh");
    world.tell(WatchEvent::Forked { pid: pid(8) });
    world.exec(8, "job");
    world.tell(WatchEvent::Executed { pid: pid(8) });
    world.tell(WatchEvent::Executed { pid: pid(9) });
    assert_eq!((world.pids(), world.scans), (vec![7, 8], 1));
    // The child of a process that is gone, and a process that changes its own name.
    world.fork(10, "job");
    world.tell(WatchEvent::Forked { pid: pid(10) });
    world.fork(11, "sh");
    world.rename(11, "job");
    world.tell(WatchEvent::Renamed { pid: pid(11) });
    assert_eq!((world.pids(), world.scans), (vec![7, 8, 10, 11], 1));
    for n in [10, 11] {
        world.end(n, Exit::Code(0));
        world.reap(n);
    }
    world.exec(7, "else");
    world.tell(WatchEvent::Executed { pid: pid(7) });
    world.settle();
    assert_eq!(world.pids(), [8]);
    // One scan that reads everything finds the lost process.
    world.exec(7, "job");
    world.pass(Duration::from_secs(40));
    world.tell(WatchEvent::Missed);
    world.tell(WatchEvent::Missed);
    world.settle();
    assert_eq!((world.pids(), world.scans, world.watch.deadline()), (vec![7, 8], 2, None));
    // No scan begins before the pause has passed.
    world.tell(WatchEvent::Missed);
    assert_eq!(world.watch.deadline(), Some(world.now.mono + WAIT));
    world.pass(WAIT);
    assert_eq!(world.scans, 3);
    world.tell(WatchEvent::EventsUnavailable);
    world.pass(WAIT);
    assert!(world.watch.deadline().is_some());
}

#[test]
fn the_pause_between_scans_has_a_minimum_but_no_maximum() {
    let world = World::new(&config::WatchOptions { wait: Duration::ZERO, ..config("job") }).start();
    assert_eq!(world.watch.deadline(), Some(world.now.mono + SHORTEST_PAUSE));
    assert_eq!(world.watch.status()[0].wait, Some(Duration::ZERO));
    let world = World::new(&config::WatchOptions { wait: Duration::MAX, ..config("job") }).start();
    assert_eq!(world.watch.deadline(), None);
}

#[test]
fn the_next_scan_makes_up_for_a_failed_one() {
    let mut world = World::new(&config::WatchOptions { process_events: true, ..config("job") });
    world.fork(7, "job");
    world.tell(WatchEvent::Start);
    world.tell(WatchEvent::Listed { pid: pid(7), mark: 1 });
    world.tell(WatchEvent::ScanFailed);
    world.scanning = false;
    world.end(7, Exit::Code(0));
    world.reap(7);
    world.fork(7, "job");
    world.pass(WAIT);
    assert_eq!((world.pids(), world.scans), (vec![7], 2));
}

/// After any sequence of events and a quiet minute, the document is right and no pidfd is left over.
#[test]
fn after_random_lives_the_document_is_right() {
    for seed in 1..=2_000_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let process_events = random(2) == 0;
        let mut world = World::new(&config::WatchOptions { process_events, ..config("job") });
        world.most = [0, 2, usize::MAX][usize::try_from(random(3)).unwrap()];
        let mut world = world.start();
        for _ in 0..60 {
            // There are only six pids, so that each is reused again and again.
            let n = i32::try_from(random(6)).unwrap() + 1;
            let name = ["job", "else"][usize::try_from(random(2)).unwrap()];
            let (lives, executes) =
                (world.processes.get(&pid(n)).map(|p| p.zombie.is_none()), random(2) == 0);
            let event = match lives {
                None => WatchEvent::Forked { pid: pid(n) },
                Some(true) if !executes => WatchEvent::Renamed { pid: pid(n) },
                Some(_) => WatchEvent::Executed { pid: pid(n) },
            };
            match lives {
                None => world.fork(n, name),
                Some(false) => world.reap(n),
                Some(true) if random(2) == 0 => world.end(n, Exit::Code(1)),
                Some(true) if executes => world.exec(n, name),
                Some(true) => world.rename(n, name),
            }
            if process_events && random(20) > 0 {
                world.tell(event);
            } else if process_events {
                world.tell(WatchEvent::Missed);
            }
            if random(3) > 0 {
                world.pass(Duration::from_secs(random(9)));
            }
        }
        (0..30).for_each(|_| world.pass(Duration::from_secs(5)));
        for (pid, process) in &world.processes {
            let (lives, shown) = (process.zombie.is_none(), world.watch.living.contains_key(pid));
            // A process that has changed its name is shown if it was found before.
            assert!(shown || !lives || process.name != "job", "seed {seed}: {pid} is missed");
            assert!(!shown || lives && process.matched, "seed {seed}: {pid} is shown");
        }
        assert!(world.watch.living.iter().all(|(pid, _)| world.processes.contains_key(pid)), "seed {seed}");
        for (pid, process) in world.watch.living.iter() {
            assert_eq!(process.ticks, world.processes[pid].ticks, "seed {seed}: not the old process");
            assert_eq!(process.guarded, world.guards.get(pid) == Some(&process.ticks), "seed {seed}");
        }
        let open = world.watch.names[0].last.filter(|last| last.open).map(|last| last.pid);
        let strays =
            world.guards.keys().filter(|pid| !world.watch.living.contains_key(pid) && Some(**pid) != open);
        assert_eq!(strays.count(), 0, "seed {seed}: a pidfd of nobody is open");
        let unguarded = world.watch.living.iter().filter(|(_, p)| !p.guarded).count();
        assert_eq!(world.watch.unguarded, unguarded, "seed {seed}");
    }
}

#[test]
fn each_name_has_its_objects_its_ends_and_its_history() {
    let names = ["job", "other", "none"].map(Into::into).to_vec();
    let mut world = World::new(&config::WatchOptions { names, ..config("") }).start();
    let shown = |world: &World| -> Vec<(String, Option<ProcessId>, u8, u64)> {
        let objects = world.watch.status();
        objects.into_iter().map(|o| (o.command, o.pid, o.exit_code, o.restarts)).collect()
    };
    let of = |name: &str, n, code, restarts| (name.to_owned(), ProcessId::new(n), code, restarts);
    world.fork(7, "other");
    world.fork(8, "job");
    world.fork(9, "job");
    world.pass(WAIT);
    let both = [of("job", 8, 0, 1), of("job", 9, 0, 1), of("other", 7, 0, 0), of("none", 0, 0, 0)];
    assert_eq!(shown(&world), both);
    assert!(world.watch.lives());
    for (pid, code) in [(7, 3), (8, 4), (9, 5)] {
        world.end(pid, Exit::Code(code));
    }
    world.settle();
    for pid in [8, 7, 9] {
        world.reap(pid);
    }
    world.settle();
    assert_eq!(shown(&world), [of("job", 0, 5, 1), of("other", 0, 3, 0), of("none", 0, 0, 0)]);
    assert!(!world.watch.lives() && world.guards.is_empty(), "{:?}", world.guards);
    let last = |at| world.watch.history_of(at).unwrap().last().map(|run| run.exit_code);
    assert_eq!([last(0), last(1), last(2)], [Some(5), Some(3), None]);
    let all: serde_json::Value = serde_json::from_slice(&world.watch.history().render()).unwrap();
    let mut ended: Vec<_> =
        all.as_array().unwrap().iter().map(|run| (run["Pid"].as_i64(), run["Command"].as_str())).collect();
    ended.sort_unstable();
    let of = |pid, name| (Some(pid), Some(name));
    assert_eq!(ended, [of(7, "other"), of(8, "job"), of(9, "job")]);
    let named = world.notes.iter().map(|note| note.name());
    assert_eq!(named.filter(|name| *name == 0).count(), 4, "{:?}", world.notes);
}

#[test]
fn a_process_that_executes_another_name_moves_to_it() {
    let names = ["job", "other"].map(Into::into).to_vec();
    let mut world = World::new(&config::WatchOptions { names, ..config("") }).start();
    world.fork(7, "job");
    world.pass(WAIT);
    world.rename(7, "other");
    world.pass(WAIT);
    assert_eq!(world.watch.status()[0].pid, Some(pid(7)), "a new name alone changes nothing");
    world.exec(7, "other");
    world.pass(READ_ALL + WAIT);
    world.pass(READ_ALL + WAIT);
    let status = world.watch.status();
    assert_eq!([status[0].pid, status[1].pid], [None, Some(pid(7))]);
    assert!(!world.guards.is_empty());
}
