//! Remembers which processes a scan has read, so that the next scan reads only new ones. /proc lists pids in ascending
//! order, so the cache and the list are merged in place in one pass, with 16 bytes a process and no allocation except
//! for growth. If the order were different, kapo would only read more.
//!
//! A scan may list only a part of the pids ([`ScanCache::narrow`]): those that new processes can have, and those that
//! must be read again.

use crate::logic::ProcessId;

/// A process is read in every scan until it is this many seconds old, because a forked process has its parent's name
/// until it executes its own program. Only the first scan looks at the age of a process. In later scans, a process
/// counts as new when it is first seen.
pub(super) const YOUNG: u32 = 10;

/// Which known processes a scan reads again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reread {
    /// The young ones.
    #[default]
    Young,
    /// All, to see whether their `comm` has changed.
    Comm,
    /// All, with all their names.
    Everything,
}

/// The pids that a scan lists: the first and the last one.
pub(crate) type PidRange = (ProcessId, ProcessId);

/// A process that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CachedProcess {
    pid: ProcessId,
    /// Differs if the pid belongs to another process; 0 never compares equal.
    mark: u32,
    /// When it started, or was first seen, on the clock of [`ScanCache::now`]. At most [`YOUNG`] for the processes of
    /// the first complete scan, and later for all others.
    since: u32,
    /// A hash of the last `comm` that was read; 0 if none was read.
    name: u32,
}

/// The cache, and the position of the running scan in it.
#[derive(Debug, Default)]
pub(crate) struct ScanCache {
    /// Sorted by pid. During a scan, the entries `..kept` have been listed, the entries `cursor..` have not, and those
    /// between are unused.
    entries: Vec<CachedProcess>,
    kept: usize,
    cursor: usize,
    /// The processes that the running scan lists for the first time.
    fresh: Vec<CachedProcess>,
    /// The time of the running scan, in seconds. The watch began at [`YOUNG`], so that 0 is long enough ago.
    now: u32,
    reread: Reread,
    /// Whether the running scan lists only a part of the pids.
    partial: bool,
    /// Whether this is not the first scan.
    again: bool,
}

impl ScanCache {
    /// Begins a scan. `now` counts the seconds since the watch began.
    pub(crate) fn begin(&mut self, now: u32, reread: Reread) {
        self.abort();
        (self.now, self.reread, self.partial) = (now.saturating_add(YOUNG), reread, false);
    }

    /// The number of known processes.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the running scan is the first one, which alone needs the age of each process.
    pub(crate) fn is_first(&self) -> bool {
        !self.again
    }

    /// Whether the running scan reads all names of each process.
    pub(crate) fn reads_everything(&self) -> bool {
        self.reread == Reread::Everything
    }

    /// Limits the scan that has just begun to the pids `first..=last` of processes that may be new, and to those
    /// between them and the processes that must be read again. The other processes stay known.
    pub(crate) fn narrow(&mut self, mut first: ProcessId, mut last: ProcessId) -> PidRange {
        for entry in self.entries.iter().filter(|e| e.mark == 0 || self.is_young(e.since)) {
            (first, last) = (first.min(entry.pid), last.max(entry.pid));
        }
        self.partial = true;
        self.kept = self.entries.partition_point(|e| e.pid < first);
        self.cursor = self.kept;
        (first, last)
    }

    fn is_young(&self, since: u32) -> bool {
        self.now.saturating_sub(since) < YOUNG
    }

    /// Whether the process, which the scan has just listed, must be read. `mark` is any value that differs for another
    /// process with the same pid.
    pub(crate) fn must_read(&mut self, pid: ProcessId, mark: u32) -> bool {
        while self.entries.get(self.cursor).is_some_and(|e| e.pid < pid) {
            self.cursor += 1;
        }
        let since = if self.again { self.now.max(YOUNG + 1) } else { self.now };
        let Some(known) = self.entries.get(self.cursor).copied().filter(|e| e.pid == pid) else {
            self.fresh.push(CachedProcess { pid, mark, since, name: 0 });
            return true;
        };
        self.cursor += 1;
        let same = mark != 0 && known.mark == mark;
        let since = if same { known.since } else { since };
        let name = if same { known.name } else { 0 };
        if let Some(slot) = self.entries.get_mut(self.kept) {
            *slot = CachedProcess { pid, mark, since, name };
        }
        self.kept += 1;
        self.reread > Reread::Young || !same || self.is_young(since)
    }

    /// Records what was read of the process that was listed last. `age` is in seconds and counts only in the first scan,
    /// because later scans find new processes. Returns whether the process already had this `comm` when it was read
    /// before. In that case it has executed nothing since, and its other names need not be read again. The answer is
    /// always `false` for a young process that is new to the host, because its exec may be incomplete, or its new program
    /// may have the same `comm`.
    pub(crate) fn has_kept_its_name(&mut self, pid: ProcessId, comm: &[u8], age: u32) -> bool {
        let met = self.kept.checked_sub(1).and_then(|at| self.entries.get_mut(at)).filter(|e| e.pid == pid);
        let Some(entry) = met.or_else(|| self.fresh.last_mut().filter(|e| e.pid == pid)) else {
            return false;
        };
        let name = crate::logic::hash(comm) | 1;
        let before = std::mem::replace(&mut entry.name, name);
        if !self.again {
            entry.since = self.now.saturating_sub(age);
        }
        let settled = entry.since <= YOUNG || self.now.saturating_sub(entry.since) >= YOUNG;
        before == name && settled
    }

    /// Ends a complete scan: forgets the processes that it has not listed.
    pub(crate) fn finish(&mut self) {
        self.again = true;
        if self.partial {
            return self.abort();
        }
        self.entries.truncate(self.kept);
        self.merge();
    }

    /// Ends an incomplete scan: keeps the processes that it has not listed.
    pub(crate) fn abort(&mut self) {
        let end = self.cursor.min(self.entries.len());
        self.entries.drain(self.kept.min(end)..end);
        self.merge();
    }

    fn merge(&mut self) {
        (self.kept, self.cursor) = (0, 0);
        if !self.fresh.is_empty() {
            self.entries.append(&mut self.fresh);
            self.entries.sort_unstable_by_key(|e| e.pid);
            self.entries.dedup_by_key(|e| e.pid);
        }
        // Free memory that a host with far more processes needed earlier.
        for list in [&mut self.entries, &mut self.fresh] {
            if list.capacity() > 2 * list.len() + 256 {
                list.shrink_to(list.len() + list.len() / 4);
            }
        }
    }

    /// Makes the next scan read the process with this pid.
    pub(crate) fn forget(&mut self, pid: ProcessId) {
        let ahead = self.cursor.min(self.entries.len());
        let (met, ahead) = self.entries.split_at_mut(ahead);
        let met = met.get_mut(..self.kept).unwrap_or_default();
        for list in [met, ahead, &mut self.fresh] {
            if let Some(entry) =
                list.binary_search_by_key(&pid, |e| e.pid).ok().and_then(|at| list.get_mut(at))
            {
                entry.mark = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one scan and returns the listed pids that were read.
    fn scan(seen: &mut ScanCache, now: u32, listed: &[(i32, u32)]) -> Vec<i32> {
        seen.begin(now, Reread::Young);
        let read = listed.iter().filter(|(pid, mark)| seen.must_read(ProcessId::new(*pid).unwrap(), *mark));
        let read = read.map(|(pid, _)| *pid).collect();
        seen.finish();
        read
    }

    #[test]
    fn a_process_is_read_only_while_it_is_young() {
        let mut seen = ScanCache::default();
        assert_eq!(scan(&mut seen, 0, &[(1, 5), (7, 6)]), [1, 7]);
        assert_eq!(scan(&mut seen, 9, &[(1, 5), (3, 9), (7, 6)]), [1, 3, 7]);
        assert_eq!(scan(&mut seen, 10, &[(1, 5), (3, 9), (7, 6)]), [3]);
        assert_eq!(scan(&mut seen, 19, &[(1, 5), (3, 9), (7, 6)]), [0; 0]);
    }

    #[test]
    fn a_reused_pid_is_read() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (7, 6), (9, 9)]);
        assert_eq!(scan(&mut seen, 50, &[(1, 5), (7, 8), (9, 9)]), [7]);
        // A process that started a short time ago is read in each scan.
        assert_eq!(scan(&mut seen, 59, &[(1, 5), (7, 8), (9, 9)]), [7]);
        // A process that one scan did not list is forgotten.
        assert_eq!(scan(&mut seen, 90, &[(1, 5), (7, 8)]), [0; 0]);
        assert_eq!(scan(&mut seen, 91, &[(1, 5), (7, 8), (9, 9)]), [9]);
    }

    /// Runs one scan of new pids from `first` to `last` and returns the listed pids that were read.
    fn narrow(seen: &mut ScanCache, now: u32, new: (i32, i32), living: &[(i32, u32)]) -> Vec<i32> {
        seen.begin(now, Reread::Young);
        let range = seen.narrow(ProcessId::new(new.0).unwrap(), ProcessId::new(new.1).unwrap());
        let mut read = Vec::new();
        for (n, mark) in living {
            let pid = ProcessId::new(*n).unwrap();
            if range.0 <= pid && pid <= range.1 && seen.must_read(pid, *mark) {
                read.push(*n);
            }
        }
        seen.finish();
        read
    }

    #[test]
    fn a_narrow_scan_reads_new_young_and_forgotten_ones() {
        let mut seen = ScanCache::default();
        let mut living = vec![(1, 5), (7, 6), (20, 9), (30, 9)];
        scan(&mut seen, 0, &living);
        assert_eq!(narrow(&mut seen, 20, (21, 25), &living), [0; 0]);
        assert_eq!(narrow(&mut seen, 21, (20, 20), &living), [0; 0]);
        living.insert(3, (22, 1));
        assert_eq!(narrow(&mut seen, 22, (21, 25), &living), [22]);
        // It is young, and 26 is new.
        living.insert(4, (26, 1));
        assert_eq!(narrow(&mut seen, 23, (26, 28), &living), [22, 26]);
        // A pid below the others is new, because the numbers began again.
        living.insert(1, (3, 1));
        assert_eq!(narrow(&mut seen, 24, (2, 4), &living), [3, 22, 26]);
        seen.forget(ProcessId::new(1).unwrap());
        assert_eq!(narrow(&mut seen, 60, (5, 6), &living), [1]);
        assert_eq!(narrow(&mut seen, 69, (5, 6), &living), [1]);
        assert_eq!(narrow(&mut seen, 70, (5, 6), &living), [0; 0]);
        // All others have stayed known; the one that ended is forgotten.
        living.retain(|(pid, _)| *pid != 20);
        assert_eq!(scan(&mut seen, 71, &living), [0; 0]);
        assert_eq!(seen.len(), living.len());
    }

    #[test]
    fn all_are_read_on_request() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (7, 6)]);
        seen.begin(60, Reread::Everything);
        assert!(
            seen.must_read(ProcessId::new(1).unwrap(), 5) && seen.must_read(ProcessId::new(7).unwrap(), 6)
        );
        seen.finish();
        assert_eq!(scan(&mut seen, 61, &[(1, 5), (7, 6)]), [0; 0]);
    }

    #[test]
    fn a_name_is_unchanged_until_it_changes() {
        let mut seen = ScanCache::default();
        let pid = ProcessId::new(7).unwrap();
        for (now, reread, mark, comm, kept) in [
            (0, Reread::Young, 6, "sh", false),
            (1, Reread::Young, 6, "sh", true),
            (2, Reread::Young, 6, "job", false),
            (3, Reread::Comm, 6, "job", true),
            (5, Reread::Young, 6, "job", true),
            // The pid belongs to another process, which is new to the host.
            (6, Reread::Young, 8, "job", false),
            (7, Reread::Comm, 8, "job", false),
            (16, Reread::Comm, 8, "job", true),
            (17, Reread::Comm, 8, "next", false),
        ] {
            seen.begin(now, reread);
            assert!(seen.must_read(pid, mark));
            assert_eq!(seen.has_kept_its_name(pid, comm.as_bytes(), 0), kept, "{now}");
            // The function is false for a pid other than the one that was listed last.
            assert!(!seen.has_kept_its_name(ProcessId::new(1).unwrap(), comm.as_bytes(), 0));
            seen.finish();
        }
        seen.forget(pid);
        seen.begin(20, Reread::Young);
        assert!(seen.must_read(pid, 8) && !seen.has_kept_its_name(pid, b"job", 0));
    }

    #[test]
    fn a_forgotten_process_is_read_wherever_the_scan_stands() {
        for forget_after in 0..=4 {
            let mut seen = ScanCache::default();
            scan(&mut seen, 0, &[(1, 5), (3, 5), (7, 6)]);
            seen.begin(20, Reread::Young);
            for (n, pid) in [1, 3, 5, 7].into_iter().enumerate() {
                if n == forget_after {
                    seen.forget(ProcessId::new(3).unwrap());
                }
                seen.must_read(ProcessId::new(pid).unwrap(), if pid == 7 { 6 } else { 5 });
            }
            if forget_after == 4 {
                seen.forget(ProcessId::new(3).unwrap());
            }
            seen.finish();
            // It was forgotten before the scan listed it, so it was read in that scan and is young now.
            assert_eq!(scan(&mut seen, 40, &[(1, 5), (3, 5), (5, 5), (7, 6)]).contains(&3), forget_after > 1);
        }
    }

    #[test]
    fn an_aborted_scan_forgets_nothing() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (3, 5), (7, 6), (9, 1)]);
        seen.begin(20, Reread::Young);
        seen.must_read(ProcessId::new(1).unwrap(), 5);
        seen.must_read(ProcessId::new(2).unwrap(), 4);
        seen.must_read(ProcessId::new(7).unwrap(), 6);
        seen.abort();
        assert_eq!(scan(&mut seen, 40, &[(1, 5), (2, 4), (3, 5), (7, 6), (9, 1)]), [3]);
    }

    #[test]
    fn an_unsorted_list_costs_reads_and_loses_nothing() {
        let mut seen = ScanCache::default();
        let listed = [(9, 1), (1, 5), (7, 6), (3, 2)];
        assert_eq!(scan(&mut seen, 0, &listed).len(), 4);
        assert!(scan(&mut seen, 20, &listed).len() < 4);
        assert_eq!(scan(&mut seen, 40, &[(1, 5), (3, 2), (7, 6), (9, 1), (11, 1)]).last(), Some(&11));
    }

    #[test]
    fn memory_shrinks_with_the_number_of_processes() {
        let mut seen = ScanCache::default();
        let many: Vec<_> = (1..=50_000).map(|pid| (pid, 1)).collect();
        scan(&mut seen, 0, &many);
        scan(&mut seen, 1, &many[..100]);
        assert!(seen.entries.capacity() + seen.fresh.capacity() < 1_000);
    }
}
