//! Did the kernel end the command for want of memory? The cgroup of kapo counts such kills; nothing else tells: the
//! victim just gets SIGKILL. Also: where that counter is to be found.
//!
//! Limits. The counter is that of a cgroup, not of a process: when somebody else kills the command within ten
//! seconds of another process of the same cgroup having been killed by the kernel, the reason is wrong. A command that moved
//! itself out of kapo's cgroup tree (version 1: out of the cgroup itself) is not seen. The root cgroup of version 2
//! counts nothing. Version 1 wakes nobody: its counter is looked at when a run ends, when an orphan was killed, and at
//! each scrape; a kill of a descendant is told of then, and the ten seconds begin then.

use std::time::{Duration, Instant};

use super::Exit;
use crate::signal::Signal;

/// Between the counting of a kill and the end of its victim: tearing down a large process takes time.
const RECENT: Duration = Duration::from_secs(10);

/// Follows the counter of kapo's cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oom {
    /// At kapo's start.
    first: u64,
    /// When last looked at.
    last: u64,
    /// When it was last seen to have grown, in this run.
    grown: Option<Instant>,
}

impl Oom {
    /// Begins with the counter of now.
    pub(crate) fn new(count: u64) -> Oom {
        Oom { first: count, last: count, grown: None }
    }

    /// A new run begins: what was killed before is no explanation for its end.
    pub(crate) fn run_started(&mut self, now: Instant, count: u64) -> u64 {
        let more = self.observed(now, count);
        self.grown = None;
        more
    }

    /// The counter was looked at: says by how much it has grown since the last time.
    pub(crate) fn observed(&mut self, now: Instant, count: u64) -> u64 {
        let more = count.saturating_sub(self.last);
        self.last = count;
        if more > 0 {
            self.grown = Some(now);
        }
        more
    }

    /// The command has ended like this, and the counter has just been [`Oom::observed`]: was it the kernel?
    /// `ours`: kapo itself sent SIGKILL.
    pub(crate) fn is_cause(&self, now: Instant, exit: Exit, ours: bool) -> bool {
        let killed = matches!(exit, Exit::Signal { signal: Signal::KILL, .. });
        let recent = self.grown.is_some_and(|at| now.saturating_duration_since(at) <= RECENT);
        killed && !ours && recent
    }

    /// Kills since kapo's start, where the counter stands at `count` now; `None`: it cannot be read any more.
    pub(crate) fn total_at(&self, count: Option<u64>) -> u64 {
        count.unwrap_or(self.last).saturating_sub(self.first)
    }
}

/// The counter in a file memory.events (version 2) or memory.oom_control (version 1, Linux 4.13 and later).
pub(crate) fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// A file that counts, and whether it wakes those who wait for it (version 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Absolute.
    pub path: String,
    /// It is a file of cgroup version 2.
    pub wakes: bool,
}

/// Where the counter may be, by /proc/self/cgroup, if everything is mounted at the usual places. The first that can be
/// read is the one.
pub(crate) fn usual_places(own: &str) -> Vec<Place> {
    places(
        own,
        &[
            ("", "/sys/fs/cgroup", true),
            ("", "/sys/fs/cgroup/memory", false),
            ("", "/sys/fs/cgroup/unified", true),
        ],
    )
}

/// The same by what is really mounted (proc_pid_mountinfo(5)): in a container without a cgroup namespace the mount
/// shows a part of the tree only, and the path is that of the host.
pub(crate) fn mounted_places(own: &str, mountinfo: &str) -> Vec<Place> {
    let mounts: Vec<(&str, &str, bool)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let mut kind = kind.split(' ');
            let (kind, options) = (kind.next()?, kind.nth(1)?);
            let wakes = kind == "cgroup2";
            let memory = kind == "cgroup" && options.split(',').any(|option| option == "memory");
            (wakes || memory).then_some((root, point, wakes))
        })
        .collect();
    places(own, &mounts)
}

/// `mounts`: the part of the tree that is mounted, where, and whether it is of version 2.
fn places(own: &str, mounts: &[(&str, &str, bool)]) -> Vec<Place> {
    let mut found = Vec::new();
    for (root, point, wakes) in mounts {
        for line in own.lines() {
            // 0::/path is version 2, 4:memory:/path version 1.
            let mut fields = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let fits = match wakes {
                true => number == "0" && controllers.is_empty(),
                false => controllers.split(',').any(|controller| controller == "memory"),
            };
            let Some(path) = path.strip_prefix(root.trim_end_matches('/')) else { continue };
            // A path outside of the cgroup namespace begins with /.. and cannot be reached; neither can one that
            // merely begins like the root.
            if !fits
                || !(path.is_empty() || path.starts_with('/'))
                || path.split('/').any(|part| part == "..")
            {
                continue;
            }
            let file = if *wakes { "memory.events" } else { "memory.oom_control" };
            found
                .push(Place { path: format!("{point}{}/{file}", path.trim_end_matches('/')), wakes: *wakes });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core_dumped: false };

    #[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_kill_is_the_kernel_s_when_its_counter_has_just_grown_and_nobody_of_ours_killed() {
        let now = epoch();
        let mut oom = Oom::new(5);
        assert_eq!(oom.observed(now, 5), 0);
        assert!(!oom.is_cause(now, KILLED, false), "the counter has not grown");
        assert_eq!(oom.observed(now, 7), 2);
        assert!(oom.is_cause(now, KILLED, false));
        assert!(oom.is_cause(now + RECENT, KILLED, false));
        assert!(!oom.is_cause(now, KILLED, true), "kapo killed it");
        assert!(!oom.is_cause(now, Exit::Code(137), false), "a shell tells of its child");
        let term = Exit::Signal { signal: Signal::TERM, core_dumped: false };
        assert!(!oom.is_cause(now, term, false));
        assert!(!oom.is_cause(now + RECENT + Duration::from_millis(1), KILLED, false), "long ago");
        assert_eq!(oom.total_at(None), 2);
    }

    #[test]
    fn what_was_killed_in_an_earlier_run_does_not_count() {
        let now = epoch();
        let mut oom = Oom::new(0);
        oom.observed(now, 1);
        assert_eq!(oom.run_started(now, 2), 1);
        assert!(!oom.is_cause(now, KILLED, false));
        assert_eq!(oom.observed(now, 2), 0);
        assert!(!oom.is_cause(now, KILLED, false));
        assert_eq!(oom.total_at(None), 2);
    }

    #[test]
    fn both_versions_of_the_counter_are_read() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(kills(events), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None, "before Linux 4.13");
        assert_eq!(kills(""), None);
    }

    fn paths(places: &[Place]) -> Vec<&str> {
        places.iter().map(|place| place.path.as_str()).collect()
    }

    #[test]
    fn the_counter_is_looked_for_where_cgroups_usually_are() {
        assert_eq!(
            paths(&usual_places("0::/system.slice/a:b.service\n")),
            [
                "/sys/fs/cgroup/system.slice/a:b.service/memory.events",
                "/sys/fs/cgroup/unified/system.slice/a:b.service/memory.events"
            ]
        );
        let hybrid = usual_places("5:cpu,memory:/docker/x\n1:name=systemd:/y\n0::/\n");
        assert_eq!(
            paths(&hybrid),
            [
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/memory/docker/x/memory.oom_control",
                "/sys/fs/cgroup/unified/memory.events"
            ]
        );
        assert_eq!(hybrid.iter().map(|place| place.wakes).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(usual_places("0::/../other\n"), []);
        assert_eq!(usual_places("nonsense\n"), []);
    }

    #[test]
    fn mounts_of_a_part_of_the_tree_are_understood() {
        let mountinfo = "31 23 0:28 / / rw - overlay overlay rw\n\
            40 31 0:26 /docker/abc /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n\
            41 31 0:27 /docker/abc /mnt/memory ro - cgroup cgroup rw,memory\n\
            42 31 0:27 /docker/abc /mnt/cpu ro - cgroup cgroup rw,cpu\n";
        let own = "3:cpu:/docker/abc\n2:memory:/docker/abc\n0::/docker/abc/inner\n";
        assert_eq!(
            paths(&mounted_places(own, mountinfo)),
            ["/sys/fs/cgroup/inner/memory.events", "/mnt/memory/memory.oom_control"]
        );
        assert_eq!(mounted_places("0::/docker/abcdef\n", mountinfo), []);
    }
}
