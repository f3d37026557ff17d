//! Remembers which processes a scan has looked at, so that the next one reads only what is new. /proc lists pids in
//! ascending order, so memory and list are merged in one pass, in place: 16 bytes a process, no table, no allocation
//! but for growth. Another order costs only reads.

use crate::logic::Pid;

/// For this many seconds after it was first seen a process is read at every scan: one that has just been forked
/// still has its parent's name and takes its own by exec.
const YOUNG: u32 = 10;

/// One process that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pid: Pid,
    /// Changes when the pid is given to another process; 0 is never equal.
    mark: u32,
    /// When it was first seen, in seconds of the watch; 0: by the first scan.
    since: u32,
    /// A hash of the `comm` that was read last; 0: none was read.
    name: u32,
}

/// The memory of a scan, and the place where the running scan stands in it.
#[derive(Debug, Default)]
pub(crate) struct ScanCache {
    /// Sorted by pid. While a scan runs: `..kept` was met by it, `cursor..` is still ahead, between lies nothing.
    entries: Vec<Entry>,
    kept: usize,
    cursor: usize,
    /// Met by this scan for the first time.
    fresh: Vec<Entry>,
    /// Of this scan.
    now: u32,
    all: bool,
    /// This is not the first scan.
    again: bool,
}

impl ScanCache {
    /// A scan begins. `now` counts seconds from anywhere and never goes back; with `all` everything is read again.
    pub(crate) fn begin(&mut self, now: u32, all: bool) {
        self.abort();
        (self.now, self.all) = (now, all);
    }

    /// The scan met this process; whether it must be read. `mark` is anything that differs for another process
    /// with the same pid.
    pub(crate) fn must_read(&mut self, pid: Pid, mark: u32) -> bool {
        while self.entries.get(self.cursor).is_some_and(|e| e.pid < pid) {
            self.cursor += 1;
        }
        let since = if self.again { self.now.max(1) } else { 0 };
        let Some(known) = self.entries.get(self.cursor).copied().filter(|e| e.pid == pid) else {
            self.fresh.push(Entry { pid, mark, since, name: 0 });
            return true;
        };
        self.cursor += 1;
        let same = mark != 0 && known.mark == mark;
        let since = if same { known.since } else { since };
        let name = if same { known.name } else { 0 };
        if let Some(slot) = self.entries.get_mut(self.kept) {
            *slot = Entry { pid, mark, since, name };
        }
        self.kept += 1;
        self.all || !same || self.now.saturating_sub(since) < YOUNG
    }

    /// Whether the process that the scan met last had this `comm` when it was read before, so that it has executed nothing
    /// since and the rest of it need not be read again. A scan that reads everything is never told so, nor is any scan of a
    /// process that is new to the host: its exec may be half done, or be that of a program of the same `comm`.
    pub(crate) fn has_kept_its_name(&mut self, pid: Pid, comm: &[u8]) -> bool {
        let met = self.kept.checked_sub(1).and_then(|at| self.entries.get_mut(at)).filter(|e| e.pid == pid);
        let Some(entry) = met.or_else(|| self.fresh.last_mut().filter(|e| e.pid == pid)) else {
            return false;
        };
        let name = crate::logic::hash(comm) | 1;
        let before = std::mem::replace(&mut entry.name, name);
        before == name && !self.all && entry.since == 0
    }

    /// The scan has met everything; what it did not meet is forgotten.
    pub(crate) fn finish(&mut self) {
        self.again = true;
        self.entries.truncate(self.kept);
        self.merge();
    }

    /// The scan ended early; what it did not meet stays known.
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
        // A host that once ran very many processes does not cost their memory for ever.
        for list in [&mut self.entries, &mut self.fresh] {
            if list.capacity() > 2 * list.len() + 256 {
                list.shrink_to(list.len() + list.len() / 4);
            }
        }
    }

    /// Whatever has this pid must be read at the next scan.
    pub(crate) fn forget(&mut self, pid: Pid) {
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

    /// One scan; which of the listed pids were read.
    fn scan(seen: &mut ScanCache, now: u32, listed: &[(i32, u32)]) -> Vec<i32> {
        seen.begin(now, false);
        let read = listed.iter().filter(|(pid, mark)| seen.must_read(Pid::new(*pid).unwrap(), *mark));
        let read = read.map(|(pid, _)| *pid).collect();
        seen.finish();
        read
    }

    #[test]
    fn a_process_is_read_while_it_is_young_and_then_no_more() {
        let mut seen = ScanCache::default();
        assert_eq!(scan(&mut seen, 0, &[(1, 5), (7, 6)]), [1, 7]);
        assert_eq!(scan(&mut seen, 9, &[(1, 5), (3, 9), (7, 6)]), [1, 3, 7]);
        assert_eq!(scan(&mut seen, 10, &[(1, 5), (3, 9), (7, 6)]), [3]);
        assert_eq!(scan(&mut seen, 19, &[(1, 5), (3, 9), (7, 6)]), [0; 0]);
    }

    #[test]
    fn a_pid_given_out_again_is_read() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (7, 6), (9, 9)]);
        assert_eq!(scan(&mut seen, 50, &[(1, 5), (7, 8), (9, 9)]), [7]);
        // And the new one is young for a while.
        assert_eq!(scan(&mut seen, 59, &[(1, 5), (7, 8), (9, 9)]), [7]);
        // Gone for one scan is gone.
        assert_eq!(scan(&mut seen, 90, &[(1, 5), (7, 8)]), [0; 0]);
        assert_eq!(scan(&mut seen, 91, &[(1, 5), (7, 8), (9, 9)]), [9]);
    }

    #[test]
    fn all_are_read_when_that_is_asked() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (7, 6)]);
        seen.begin(60, true);
        assert!(seen.must_read(Pid::new(1).unwrap(), 5) && seen.must_read(Pid::new(7).unwrap(), 6));
        seen.finish();
        assert_eq!(scan(&mut seen, 61, &[(1, 5), (7, 6)]), [0; 0]);
    }

    #[test]
    fn a_name_is_kept_until_it_changes_or_all_is_read() {
        let mut seen = ScanCache::default();
        let pid = Pid::new(7).unwrap();
        for (now, all, mark, comm, kept) in [
            (0, false, 6, "sh", false),
            (1, false, 6, "sh", true),
            (2, false, 6, "job", false),
            (3, false, 6, "job", true),
            (4, true, 6, "job", false),
            (5, false, 6, "job", true),
            // The pid of another process, which is new to the host.
            (6, false, 8, "job", false),
            (7, false, 8, "job", false),
        ] {
            seen.begin(now, all);
            assert!(seen.must_read(pid, mark));
            assert_eq!(seen.has_kept_its_name(pid, comm.as_bytes()), kept, "{now}");
            // Not the one that was met last.
            assert!(!seen.has_kept_its_name(Pid::new(1).unwrap(), comm.as_bytes()));
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
                    seen.forget(Pid::new(3).unwrap());
                }
                seen.must_read(Pid::new(pid).unwrap(), if pid == 7 { 6 } else { 5 });
            }
            if forget_after == 4 {
                seen.forget(Pid::new(3).unwrap());
            }
            seen.finish();
            // Forgotten before it was met, it was read in that scan already, and is young now.
            assert_eq!(scan(&mut seen, 40, &[(1, 5), (3, 5), (5, 5), (7, 6)]).contains(&3), forget_after > 1);
        }
    }

    #[test]
    fn an_aborted_scan_forgets_nothing() {
        let mut seen = ScanCache::default();
        scan(&mut seen, 0, &[(1, 5), (3, 5), (7, 6), (9, 1)]);
        seen.begin(20, false);
        seen.must_read(Pid::new(1).unwrap(), 5);
        seen.must_read(Pid::new(2).unwrap(), 4);
        seen.must_read(Pid::new(7).unwrap(), 6);
        seen.abort();
        assert_eq!(scan(&mut seen, 40, &[(1, 5), (2, 4), (3, 5), (7, 6), (9, 1)]), [3]);
    }

    #[test]
    fn a_list_in_any_order_costs_reads_and_loses_nothing() {
        let mut seen = ScanCache::default();
        let listed = [(9, 1), (1, 5), (7, 6), (3, 2)];
        assert_eq!(scan(&mut seen, 0, &listed).len(), 4);
        assert!(scan(&mut seen, 20, &listed).len() < 4);
        assert_eq!(scan(&mut seen, 40, &[(1, 5), (3, 2), (7, 6), (9, 1), (11, 1)]).last(), Some(&11));
    }

    #[test]
    fn memory_follows_the_number_of_processes_down() {
        let mut seen = ScanCache::default();
        let many: Vec<_> = (1..=50_000).map(|pid| (pid, 1)).collect();
        scan(&mut seen, 0, &many);
        scan(&mut seen, 1, &many[..100]);
        assert!(seen.entries.capacity() + seen.fresh.capacity() < 1_000);
    }
}
