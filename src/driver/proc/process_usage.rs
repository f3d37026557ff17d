//! What one scrape reads from /proc: kapo itself and the processes under it, or those that are watched. Each scrape
//! opens what it needs and closes it again; nothing is read while nobody asks.

use std::time::Duration;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getpid, getrlimit};

use crate::logic::Pid;
use crate::logic::metrics::{Own, Tree};
use crate::sys;

/// More processes than this are not looked at in one scrape: some 25 us each.
const MOST: usize = 10_000;

/// The kernel shows CPU time in hundredths of a second on all machines that kapo runs on (USER_HZ).
const TICK_MILLIS: u64 = 10;

/// Takes the samples of one kapo.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The most CPU time that was shown. A process that ends between two reads is seen twice or not at all, and the
    /// time of children whose parent ignores SIGCHLD is lost: a counter that went back would look like a restart.
    shown: Duration,
}

impl Sampler {
    /// The processes under this one, however deep; `None` where /proc is not mounted.
    pub(crate) fn tree(&mut self) -> Option<Tree> {
        let (root, below) = below(numbered()?)?;
        let mut tree = Tree::default();
        let mut cpu = root.reaped;
        for (pid, stat) in &below {
            cpu += stat.own + stat.reaped;
            add(&mut tree, *pid, stat);
        }
        self.shown = self.shown.max(cpu);
        Some(Tree { cpu: Some(self.shown), ..tree })
    }
}

/// How many processes under this one, however deep, are alive in process group `group`; `None`: it cannot be told.
pub(crate) fn descendants_in_group(group: i32) -> Option<usize> {
    let own = getpid().as_raw_nonzero().get();
    // The numbers of another PID namespace would be those of strangers here.
    let (_, below) = numbered().filter(|number| *number == own).and_then(below)?;
    Some(below.iter().filter(|(pid, stat)| !stat.dead && sys::group::of(*pid) == Some(group)).count())
}

/// Our number in the PID namespace that /proc was mounted in; `None` where it is not mounted.
fn numbered() -> Option<i32> {
    rustix::fs::readlink("/proc/self", Vec::new()).ok()?.to_str().ok()?.parse().ok()
}

/// The process of that number, and all under it.
fn below(pid: i32) -> Option<(Stat, Vec<(i32, Stat)>)> {
    let mut text = Vec::new();
    let root = Stat::read(pid, &mut text)?;
    let below = match children(pid, root.threads, &mut text) {
        Some(first) => walk(first, &mut text),
        None => scan(pid, &mut text),
    };
    Some((root, below))
}

/// These processes, as far as they are still there; `None` where /proc is not mounted.
pub(crate) fn listed(pids: impl Iterator<Item = Pid>) -> Option<Tree> {
    rustix::fs::access("/proc/self/stat", rustix::fs::Access::READ_OK).ok()?;
    let mut text = Vec::new();
    let mut tree = Tree::default();
    for pid in pids.take(MOST).map(Pid::get) {
        if let Some(stat) = Stat::read(pid, &mut text) {
            add(&mut tree, pid, &stat);
        }
    }
    Some(tree)
}

/// kapo's own process; `None` where /proc is not mounted.
pub(crate) fn own() -> Option<Own> {
    let mut text = Vec::new();
    read("/proc/self/stat", &mut text)?;
    let (_, stat) = Stat::parse(&text)?;
    read("/proc/self/statm", &mut text)?;
    let [_, resident, shared, _, _, data, ..] = *numbers(&text).collect::<Vec<u64>>() else { return None };
    let page = page_size();
    // Counted by its size, the folder needs no descriptor that would be counted with the others.
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX);
    Some(Own {
        cpu: stat.own,
        virtual_bytes: stat.virtual_bytes,
        virtual_max_bytes: limit(Resource::As),
        resident_bytes: resident * page,
        private_bytes: resident.saturating_sub(shared) * page,
        data_bytes: data * page,
        open_fds: descriptors("/proc/self/fd"),
        max_fds: limit(Resource::Nofile),
    })
}

fn add(tree: &mut Tree, pid: i32, stat: &Stat) {
    // A zombie holds nothing but its exit code.
    if !stat.dead {
        tree.processes += 1;
        tree.resident_bytes += stat.resident_pages * page_size();
        tree.open_fds += descriptors(&format!("/proc/{pid}/fd"));
    }
}

/// Bytes in a page; /proc counts memory in pages.
fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4_096)
}

/// What is of interest in /proc/PID/stat (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stat {
    dead: bool,
    parent: i32,
    own: Duration,
    /// CPU time of those children, and theirs, that ended and were waited for.
    reaped: Duration,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(pid: i32, text: &mut Vec<u8>) -> Option<Stat> {
        read(&format!("/proc/{pid}/stat"), text)?;
        Stat::parse(text).map(|(_, stat)| stat)
    }

    /// The pid and the rest. The name may hold anything, blanks and brackets too: its end is the last bracket.
    fn parse(text: &[u8]) -> Option<(i32, Stat)> {
        let pid = numbers(text).next()?;
        let name_ends = memchr::memrchr(b')', text)?;
        let rest = text.get(name_ends + 2..)?;
        let state = *rest.first()?;
        // The first of these is field 4; negative ones, none of which is used, count as 0.
        let fields: Vec<u64> = numbers(rest.get(1..)?).take(21).collect();
        let field = |number: usize| fields.get(number - 4).copied();
        let time = |first, second| {
            let ticks = field(first)?.saturating_add(field(second)?);
            Some(Duration::from_millis(ticks.saturating_mul(TICK_MILLIS)))
        };
        let stat = Stat {
            dead: matches!(state, b'Z' | b'X' | b'x'),
            parent: i32::try_from(field(4)?).ok()?,
            own: time(14, 15)?,
            reaped: time(16, 17)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        };
        Some((i32::try_from(pid).ok()?, stat))
    }
}

/// All below these, they included.
fn walk(mut todo: Vec<i32>, text: &mut Vec<u8>) -> Vec<(i32, Stat)> {
    let mut found = Vec::new();
    while let Some(pid) = todo.pop() {
        if found.len() >= MOST {
            break;
        }
        let Some(stat) = Stat::read(pid, text) else { continue };
        todo.extend(children(pid, stat.threads, text).unwrap_or_default());
        found.push((pid, stat));
    }
    found
}

/// The children of a process, those of all its threads; `None` where the kernel does not list them
/// (CONFIG_PROC_CHILDREN) or the process is gone.
fn children(pid: i32, threads: u64, text: &mut Vec<u8>) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    let mut of_thread = |thread: i32| {
        read(&format!("/proc/{pid}/task/{thread}/children"), text)?;
        found.extend(numbers(text).filter_map(|pid| i32::try_from(pid).ok()));
        Some(())
    };
    of_thread(pid)?;
    if threads > 1 {
        for thread in entries(&format!("/proc/{pid}/task")).filter(|thread| *thread != pid) {
            // A thread may have ended since.
            let _ = of_thread(thread);
        }
    }
    Some(found)
}

/// The same as [`walk`] where the kernel does not list children: all processes, by their parents.
fn scan(root: i32, text: &mut Vec<u8>) -> Vec<(i32, Stat)> {
    let mut others: Vec<(i32, Stat)> = entries("/proc")
        .filter(|pid| *pid != root)
        .take(MOST)
        .filter_map(|pid| Stat::read(pid, text).map(|stat| (pid, stat)))
        .collect();
    let mut found: Vec<(i32, Stat)> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let at = found.len();
        others.retain(|other| {
            let child = other.1.parent == parent;
            if child {
                found.push(*other);
            }
            !child
        });
        parents.extend(found.iter().skip(at).map(|(pid, _)| *pid));
    }
    found
}

/// The entries of a folder that are numbers.
fn entries(path: &str) -> impl Iterator<Item = i32> {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let entries = folder.and_then(Dir::new).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
}

/// How many descriptors a process has open: since Linux 6.2 that is the size of the folder, before it has to be
/// listed. 0 where it may not be looked at.
fn descriptors(path: &str) -> u64 {
    match rustix::fs::stat(path).map(|stat| u64::try_from(stat.st_size)) {
        Ok(Ok(size)) if size > 0 => size,
        Ok(_) => entries(path).count().try_into().unwrap_or(0),
        Err(_) => 0,
    }
}

/// The whole of a small file into `text`; `None` where it cannot be read.
fn read(path: &str, text: &mut Vec<u8>) -> Option<()> {
    text.clear();
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; 4_096];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => return Some(()),
            // The children of one thread may be many; eight bytes each are plenty.
            Ok(n) if text.len() < MOST * 8 => text.extend_from_slice(buffer.get(..n)?),
            Ok(_) => return Some(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The numbers of a text, parted by blanks; what is none, or negative, is 0.
fn numbers(text: &[u8]) -> impl Iterator<Item = u64> + '_ {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_process_is_called() {
        let line = b"1234 (a) R 1 (b\n) S 77 1234 1234 34816 1250 4194304 1 2 3 4 150 50 7 3 20 0 5 0 9999 \
            1048576 12 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";
        let stat = Stat {
            dead: false,
            parent: 77,
            own: Duration::from_secs(2),
            reaped: Duration::from_millis(100),
            threads: 5,
            virtual_bytes: 1 << 20,
            resident_pages: 12,
        };
        assert_eq!(Stat::parse(line), Some((1234, stat)));
        // A hundred cores busy for a month.
        let busy = String::from_utf8_lossy(line).replace(" 150 50 ", " 25920000000 0 ");
        let (_, busy) = Stat::parse(busy.as_bytes()).unwrap();
        assert_eq!(busy.own, Duration::from_secs(100 * 30 * 86_400));
        for cut in 0..line.len() {
            // Nothing that is cut short makes it panic.
            let _ = Stat::parse(&line[..cut]);
        }
        assert_eq!(Stat::parse(b"1 (x) S 1 2"), None);
    }

    /// A shell with a child and a grandchild, which end when it does: each reads what only we can write.
    fn family() -> (Child, Vec<i32>) {
        let mut shell = Command::new("sh")
            .args(["-c", "exec 3<&0; sh -c 'cat <&3 & echo $$ $!; wait' & echo $$; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pids = Vec::new();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        while pids.len() < 3 {
            let line = lines.next().unwrap().unwrap();
            pids.extend(line.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        }
        pids.sort_unstable();
        (shell, pids)
    }

    #[test]
    fn descendants_are_found_by_listing_and_by_scanning() {
        let (mut shell, pids) = family();
        let root = i32::try_from(shell.id()).unwrap();
        let below: Vec<i32> = pids.iter().copied().filter(|pid| *pid != root).collect();
        let mut text = Vec::new();
        let sorted = |found: Vec<(i32, Stat)>| {
            let mut pids: Vec<i32> = found.into_iter().map(|(pid, _)| pid).collect();
            pids.sort_unstable();
            pids
        };
        if let Some(first) = children(root, 1, &mut text) {
            assert_eq!(sorted(walk(first, &mut text)), below);
        } else {
            println!("not checked: this kernel does not list children");
        }
        assert_eq!(sorted(scan(root, &mut text)), below);

        // Other tests of the same process may have children too.
        let tree = Sampler::default().tree().unwrap();
        assert!(tree.processes >= 3, "{tree:?}");
        assert!(tree.open_fds >= 9 && tree.resident_bytes > 0 && tree.cpu.is_some(), "{tree:?}");
        let listed = || listed(pids.iter().filter_map(|pid| Pid::new(*pid))).unwrap();
        assert_eq!(listed().processes, 3);
        drop(shell.stdin.take());
        assert!(shell.wait().unwrap().success());
        assert_eq!(listed().processes, 0);
    }

    #[test]
    fn the_children_of_all_threads_are_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (told, hear) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            told.send(child).unwrap();
            std::thread::park();
        });
        let mut child = hear.recv().unwrap();
        let mut text = Vec::new();
        let threads = Stat::read(own, &mut text).unwrap().threads;
        if let Some(found) = children(own, threads, &mut text) {
            assert!(found.contains(&i32::try_from(child.id()).unwrap()), "{found:?}");
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        thread.thread().unpark();
        thread.join().unwrap();
    }

    #[test]
    fn cpu_time_counts_those_that_ended_and_never_goes_back() {
        let mut sampler = Sampler::default();
        let mut shell = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        assert!(shell.wait().unwrap().success());
        let spent = sampler.tree().unwrap().cpu.unwrap();
        assert!(spent > Duration::ZERO);
        sampler.shown = spent + Duration::from_secs(60);
        assert_eq!(sampler.tree().unwrap().cpu, Some(spent + Duration::from_secs(60)));
    }

    #[test]
    fn our_own_numbers_are_those_of_this_process() {
        let before = own().unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = own().unwrap();
        // Other tests of the same process open and close some of their own.
        assert!(after.open_fds >= before.open_fds + 40, "{before:?} {after:?}");
        assert!(after.resident_bytes > after.private_bytes && after.virtual_bytes > after.resident_bytes);
        assert!(after.max_fds >= after.open_fds);
        drop(files);
    }
}
