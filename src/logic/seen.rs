//! Remembers which processes a scan has looked at, so that the next one reads only what is new. /proc lists pids in
//! ascending order, so memory and list are merged in one pass, in place: 12 bytes a process, no hash, no allocation
//! but for growth. Another order costs only reads.

use super::Pid;

/// For this many seconds after it was first seen a process is read at every scan: one that has just been forked
/// still has its parent's name and takes its own by exec.
const YOUNG: u32 = 10;

/// One process that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pid: Pid,
    /// Changes when the pid is given to another process; 0 is never equal.
    mark: u32,
    /// When it was first seen, in seconds of the watch.
    since: u32,
}

/// The memory of a scan, and the place where the running scan stands in it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Sorted by pid. While a scan runs: `..kept` was met by it, `cursor..` is still ahead, between lies nothing.
    entries: Vec<Entry>,
    kept: usize,
    cursor: usize,
    /// Met by this scan for the first time.
    fresh: Vec<Entry>,
    /// Of this scan.
    now: u32,
    all: bool,
}

impl Seen {
    /// A scan begins. `now` counts seconds from anywhere and never goes back; with `all` everything is read again.
    pub fn begin(&mut self, now: u32, all: bool) {
        self.abort();
        (self.now, self.all) = (now, all);
    }

    /// The scan met this process; whether it must be read. `mark` is anything that differs for another process
    /// with the same pid.
    pub fn must_read(&mut self, pid: Pid, mark: u32) -> bool {
        while self.entries.get(self.cursor).is_some_and(|e| e.pid < pid) {
            self.cursor += 1;
        }
        let Some(known) = self.entries.get(self.cursor).copied().filter(|e| e.pid == pid) else {
            self.fresh.push(Entry { pid, mark, since: self.now });
            return true;
        };
        self.cursor += 1;
        let same = mark != 0 && known.mark == mark;
        let since = if same { known.since } else { self.now };
        if let Some(slot) = self.entries.get_mut(self.kept) {
            *slot = Entry { pid, mark, since };
        }
        self.kept += 1;
        self.all || !same || self.now.saturating_sub(since) < YOUNG
    }

    /// The scan has met everything; what it did not meet is forgotten.
    pub fn finish(&mut self) {
        self.entries.truncate(self.kept);
        self.merge();
    }

    /// The scan ended early; what it did not meet stays known.
    pub fn abort(&mut self) {
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
    pub fn forget(&mut self, pid: Pid) {
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
