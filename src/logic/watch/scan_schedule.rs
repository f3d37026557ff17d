//! Decides when `/proc` is scanned, which pids a scan lists and which known processes it reads again.

use std::time::{Duration, Instant};

use super::scan_cache::{PidRange, Reread, YOUNG};
use super::{ScanPhase, Watch, WatchEffect};
use crate::logic::{Now, ProcessId};

/// The shortest pause between two scans: `--wait 0` would otherwise scan without a pause.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How often `comm` of all processes is read again, and all their names, to find processes that change their name late
/// in life. It is less often if there are many processes, so that these reads take about 0.03 % of a CPU.
pub(super) const READ_ALL: Duration = Duration::from_secs(60);
const COMM_PAUSE_OF_ONE: Duration = Duration::from_millis(60);
const NAMES_PAUSE_OF_ONE: Duration = Duration::from_millis(300);

/// The longest time between two scans after which the second one lists only a part of the pids. In more time, a host
/// could give out all pids once.
const LONGEST_GAP: Duration = Duration::from_secs(30);

impl Watch {
    /// Begins a scan, or the check of the `--pid` process.
    pub(super) fn begin(&mut self, now: Now, out: &mut Vec<WatchEffect>) {
        if let Some(pid) = self.only {
            self.phase = ScanPhase::Resting;
            self.rested = now.mono.checked_add(self.pause());
            out.push(WatchEffect::Open(pid));
            return;
        }
        let known = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        let is_due = |read: Option<Instant>, pause_of_one: Duration| {
            let pause = pause_of_one.saturating_mul(known).max(READ_ALL);
            read.is_none_or(|at| now.mono.saturating_duration_since(at) >= pause)
        };
        let reread = if is_due(self.all_read, NAMES_PAUSE_OF_ONE) {
            (self.all_read, self.comm_read) = (Some(now.mono), Some(now.mono));
            Reread::Everything
        } else if is_due(self.comm_read, COMM_PAUSE_OF_ONE) || self.has_settled(now) {
            self.comm_read = Some(now.mono);
            Reread::Comm
        } else {
            Reread::Young
        };
        let age = now.mono.saturating_duration_since(self.born).as_secs();
        self.seen.begin(u32::try_from(age).unwrap_or(u32::MAX), reread);
        let gap = |at| now.mono.saturating_duration_since(at).saturating_add(self.pause());
        let is_late = self.rested.is_none_or(|at| gap(at) > LONGEST_GAP);
        self.whole = reread > Reread::Young || self.unguarded > 0 || is_late;
        if self.unguarded > 0 {
            self.living.values_mut().for_each(|p| p.listed = false);
        }
        self.wanted = false;
        self.phase = ScanPhase::Scanning;
        out.push(WatchEffect::Scan);
    }

    /// Whether the processes of the first scan are all old now, and `comm` was not read again since. One of them, which
    /// was old from the beginning, may meanwhile have executed the program that is watched: scripts that prepare the
    /// start of a program do so, beside a watcher that starts at the same time.
    fn has_settled(&self, now: Now) -> bool {
        let at = self.born.checked_add(Duration::from_secs(YOUNG.into()));
        at.is_some_and(|at| at <= now.mono && self.comm_read.is_some_and(|read| read < at))
    }

    /// Returns which pids the scan that has just begun must list; `None` means all. `last` is the pid that the kernel gave
    /// out last. The kernel gives out pids in ascending order and begins again at the end.
    pub(crate) fn pids_to_list(&mut self, last: Option<ProcessId>) -> Option<PidRange> {
        let [previous, earlier] = self.last_pids;
        self.last_pids = [last, previous];
        // A new process appears in the list a moment after it has got its pid. Therefore the pids that were new in the
        // previous scan are listed once more.
        match (earlier, previous, last) {
            (Some(earlier), Some(previous), Some(last))
                if !self.whole && earlier <= previous && previous <= last =>
            {
                Some(self.seen.narrow(earlier, last))
            }
            _ => None,
        }
    }

    /// Decides whether and when the next scan or check takes place.
    pub(super) fn schedule(&mut self, now: Now) {
        let needed = match self.only {
            // A later process with the same pid does not match, so no check is needed once this one has ended.
            Some(_) => self.unguarded > 0,
            None => self.wanted || !self.events || self.unguarded > 0,
        };
        // If the time is beyond the range of the clock, there is no next scan.
        self.rested = now.mono.checked_add(self.pause());
        self.phase = match self.rested.filter(|_| needed) {
            Some(at) => ScanPhase::Waiting(at),
            None => ScanPhase::Resting,
        };
    }

    fn pause(&self) -> Duration {
        self.wait.max(SHORTEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WatchOptions;
    use crate::logic::watch::WatchEvent;
    use crate::logic::watch::matching::Rule;

    fn pid(number: i32) -> ProcessId {
        ProcessId::new(number).unwrap()
    }

    /// Runs scans at these seconds, with the pid that was given out last and the mark of the process 20. Returns which
    /// pids each of them lists.
    fn ranges(wait: u64, scans: &[(u64, i32)]) -> Vec<Option<(i32, i32)>> {
        let wait = Duration::from_secs(wait);
        let options = WatchOptions { names: vec!["job".into()], pid: None, wait, process_events: false };
        let now = crate::logic::watch::tests::epoch();
        let rules = vec![Rule::new("job".as_ref(), None)];
        let mut watch = Watch::new(&options, rules, None, 0, now);
        let mut out = Vec::new();
        let scan = |(after, last): &(u64, i32)| {
            let now = Now { mono: now.mono + Duration::from_secs(*after), ..now };
            watch.begin(now, &mut out);
            let range = watch.pids_to_list(ProcessId::new(*last));
            watch.handle(now, WatchEvent::Listed { pid: pid(20), mark: 1 }, &mut out);
            watch.handle(now, WatchEvent::Scanned, &mut out);
            range.map(|(first, last)| (first.get(), last.get()))
        };
        scans.iter().map(scan).collect()
    }

    #[test]
    fn a_scan_lists_the_pids_since_the_one_before_the_last() {
        // The process 20 is young in the first ten seconds. The first scan behind them reads all processes again.
        let scans = [(0, 30), (5, 40), (9, 50), (12, 50), (14, 60), (19, 60), (24, 70)];
        let later = [Some((50, 60)), Some((50, 60)), Some((60, 70))];
        let listed = [&[None, None, Some((20, 50)), None][..], &later].concat();
        assert_eq!(ranges(5, &scans), listed);
    }

    #[test]
    fn a_scan_lists_all_pids_if_it_may_miss_one() {
        for (wait, scans, at) in [
            // The pids have begun again.
            (5, &[(0, 30), (12, 40), (17, 9), (22, 10), (27, 11)][..], &[2, 3][..]),
            // /proc does not show the last pid.
            (5, &[(0, 30), (12, 0), (17, 40), (22, 50), (27, 60)], &[2, 3]),
            // A long pause, or a long stop of kapo.
            (31, &[(0, 30), (31, 40), (59, 50)], &[2]),
            (5, &[(0, 30), (12, 40), (45, 50), (50, 60)], &[2]),
            // All names are read again.
            (5, &[(0, 30), (12, 40), (50, 50), (60, 60), (65, 70)], &[2, 3]),
        ] {
            let ranges = ranges(wait, scans);
            let whole: Vec<usize> = (2..ranges.len()).filter(|scan| ranges[*scan].is_none()).collect();
            assert_eq!(whole, at, "{scans:?}");
        }
    }

    #[test]
    fn names_are_read_again_less_often_if_there_are_many() {
        let options = WatchOptions {
            names: vec!["job".into()],
            pid: None,
            wait: Duration::from_secs(5),
            process_events: false,
        };
        for (processes, comm, names) in [(10, 60, 60), (500, 70, 150), (10_000, 610, 3_000)] {
            let start = crate::logic::watch::tests::epoch();
            let mut watch = Watch::new(&options, vec![Rule::new("job".as_ref(), None)], None, 0, start);
            let (mut read, mut out) = ([None; 2], Vec::new());
            for after in (0..=names).step_by(10) {
                let now = Now { mono: start.mono + Duration::from_secs(after), ..start };
                out.clear();
                watch.begin(now, &mut out);
                for number in 1..=processes {
                    watch.handle(now, WatchEvent::Listed { pid: pid(number), mark: 1 }, &mut out);
                }
                let whole = out.contains(&WatchEffect::ReadAllNames { pid: pid(processes), age: after == 0 });
                if after >= 20 && watch.whole {
                    read[0] = read[0].or(Some(after));
                    read[1] = read[1].or(whole.then_some(after));
                }
                watch.handle(now, WatchEvent::Scanned, &mut out);
            }
            assert_eq!(read, [Some(comm), Some(names)], "{processes}");
        }
    }
}
