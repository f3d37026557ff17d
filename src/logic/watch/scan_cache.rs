//! Remembers which processes a scan has read, so that the next scan reads only new ones. /proc lists pids in ascending
//! order, so the cache and the list are merged in place in one pass, with 16 bytes a process and no allocation except
//! for growth. If the order were different, kapo would only read more.

use crate::logic::ProcessId;

/// A process is read in every scan for this many seconds after it was first seen, because a forked process has its
/// parent's name until it executes its own program.
const YOUNG: u32 = 10;

/// A process that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CachedProcess {
    pid: ProcessId,
    /// Differs if the pid belongs to another process; 0 never compares equal.
    mark: u32,
    /// When it was first seen, in seconds since the watch began; 0 for the first scan.
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
    /// The time of the running scan.
    now: u32,
    all: bool,
    /// Whether this is not the first scan.
    again: bool,
}

impl ScanCache {
    /// Begins a scan. `now` counts seconds from any moment and never goes back. `all` means that everything is read
    /// again.
    pub(crate) fn begin(&mut self, now: u32, all: bool) {
        self.abort();
        (self.now, self.all) = (now, all);
    }

    /// Whether the process, which the scan has just listed, must be read. `mark` is any value that differs for another
    /// process with the same pid.
    pub(crate) fn must_read(&mut self, pid: ProcessId, mark: u32) -> bool {
        while self.entries.get(self.cursor).is_some_and(|e| e.pid < pid) {
            self.cursor += 1;
        }
        let since = if self.again { self.now.max(1) } else { 0 };
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
        self.all || !same || self.now.saturating_sub(since) < YOUNG
    }

    /// Whether the process that was listed last already had this `comm` when it was read before. In that case it has
    /// executed nothing since, and its other names need not be read again. The answer is always `false` in a scan that
    /// reads everything. It is also `false` for a process that is new to the host, because its exec may be incomplete,
    /// or its new program may have the same `comm`.
    pub(crate) fn has_kept_its_name(&mut self, pid: ProcessId, comm: &[u8]) -> bool {
        let met = self.kept.checked_sub(1).and_then(|at| self.entries.get_mut(at)).filter(|e| e.pid == pid);
        let Some(entry) = met.or_else(|| self.fresh.last_mut().filter(|e| e.pid == pid)) else {
            return false;
        };
        let name = crate::logic::hash(comm) | 1;
        let before = std::mem::replace(&mut entry.name, name);
        before == name && !self.all && entry.since == 0
    }

    /// Ends a complete scan: forgets the processes that it has not listed.
    pub(crate) fn finish(&mut self) {
        self.again = true;
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
        seen.begin(now, false);
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

    #[test]
    fn all_are_read_on_request() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (7, 6)]);
        seen.begin(60, true);
        assert!(
            seen.must_read(ProcessId::new(1).unwrap(), 5) && seen.must_read(ProcessId::new(7).unwrap(), 6)
        );
        seen.finish();
        assert_eq!(scan(&mut seen, 61, &[(1, 5), (7, 6)]), [0; 0]);
    }

    #[test]
    fn a_name_is_unchanged_until_it_changes_or_all_is_read() {
        let mut seen = ScanCache::default();
        let pid = ProcessId::new(7).unwrap();
        for (now, all, mark, comm, kept) in [
            (0, false, 6, "sh", false),
            (1, false, 6, "sh", true),
            (2, false, 6, "job", false),
            (3, false, 6, "job", true),
            (4, true, 6, "job", false),
            (5, false, 6, "job", true),
            // The pid belongs to another process, which is new to the host.
            (6, false, 8, "job", false),
            (7, false, 8, "job", false),
        ] {
            seen.begin(now, all);
            assert!(seen.must_read(pid, mark));
            assert_eq!(seen.has_kept_its_name(pid, comm.as_bytes()), kept, "{now}");
            // The function is false for a pid other than the one that was listed last.
            assert!(!seen.has_kept_its_name(ProcessId::new(1).unwrap(), comm.as_bytes()));
            seen.finish();
        }
        seen.forget(pid);
        seen.begin(8, false);
        assert!(seen.must_read(pid, 8) && !seen.has_kept_its_name(pid, b"job"));
    }

    #[test]
    fn a_forgotten_process_is_read_wherever_the_scan_stands() {
        for forget_after in 0..=4 {
            let mut seen = ScanCache::default();
            scan(&mut seen, 0, &[(1, 5), (3, 5), (7, 6)]);
            seen.begin(20, false);
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
        seen.begin(20, false);
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
