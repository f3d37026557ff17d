//! Reads the resource usage of processes from /proc for one scrape: kapo and its descendants, or the watched
//! processes. Each scrape opens the files that it needs and closes them again, so that /proc is read only during a
//! scrape.

use std::time::Duration;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getpid, getrlimit};

use crate::driver::proc::small_file;
use crate::driver::process::helper::Helpers;
use crate::logic::ProcessId;
use crate::logic::metrics::{Own, Tree};
use crate::logic::proc::stat::{ProcessUsage, Stat};
use crate::sys;

/// The maximum number of processes that one scrape reads; each takes about 25 us.
const MOST: usize = 10_000;
/// If the kernel does not list children, a scrape reads all processes of the host, but only if there are not more than
/// this: the scrapes of thousands of kapos would otherwise take time that grows with the square of their number.
const FEW: u64 = 1_000;

/// Takes the samples of one kapo process.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The largest CPU time shown so far. A process that ends between two reads is counted twice or not at all, and
    /// the time of children is lost if their parent ignores SIGCHLD. A counter that decreases would look like a
    /// restart.
    shown: Duration,
    /// The usage of kapo itself, which the last [`Sampler::tree`] has read.
    root: Option<ProcessUsage>,
}

impl Sampler {
    /// Returns the usage of all descendants of this process except the helpers; `None` if /proc is not mounted, or if
    /// finding them takes too long.
    pub(crate) fn tree(&mut self, helpers: &Helpers) -> Option<Tree> {
        self.root = None;
        let (_, root, below) = below(FEW)?;
        self.root = Some(root.usage);
        let mut tree = Tree::default();
        let mut cpu = root.usage.reaped.saturating_sub(helpers.cpu());
        for (pid, stat) in below.iter().filter(|(pid, _)| !helpers.has(*pid)) {
            cpu += stat.usage.cpu + stat.usage.reaped;
            add(&mut tree, *pid, stat);
        }
        self.shown = self.shown.max(cpu);
        Some(Tree { cpu: Some(self.shown), ..tree })
    }

    /// Returns the usage of kapo itself; `None` if /proc is not mounted. `fresh` means that [`Sampler::tree`] was called
    /// for the same scrape.
    pub(crate) fn own(&self, fresh: bool) -> Option<Own> {
        own(self.root.filter(|_| fresh))
    }

    /// Returns the usage at the end of kapo, without reading /proc: only the CPU time of what was reaped is left.
    pub(crate) fn at_the_end(&mut self, helpers: &Helpers) -> Tree {
        self.shown = self.shown.max(sys::wait::reaped_cpu().saturating_sub(helpers.cpu()));
        Tree { cpu: Some(self.shown), ..Tree::default() }
    }
}

/// Returns how many living descendants of this process are in process group `group`; `None` if that is unknown.
pub(crate) fn descendants_in_group(group: i32) -> Option<usize> {
    let own = getpid().as_raw_nonzero().get();
    // The pids of another PID namespace would name other processes here.
    let (_, _, below) = below(u64::MAX).filter(|(pid, ..)| *pid == own)?;
    Some(below.iter().filter(|(pid, stat)| !stat.dead && sys::group::of(*pid) == Some(group)).count())
}

/// Processes with their pids.
type Processes = Vec<(i32, ProcessSample)>;

/// Returns kapo's pid in the PID namespace that /proc was mounted in, its usage, and all of its descendants. `None` if
/// /proc is not mounted, or if all of more than `few` processes would have to be read.
fn below(few: u64) -> Option<(i32, ProcessSample, Processes)> {
    let mut text = Vec::new();
    read("/proc/self/stat", &mut text)?;
    let pid = i32::try_from(numbers(&text).next()?).ok()?;
    let root = ProcessSample::parse(&text)?;
    let below = match children(pid, root.threads, &mut text) {
        Some(first) => walk(first, &mut text),
        None if processes()? <= few => scan(pid, &mut text),
        None => return None,
    };
    Some((pid, root, below))
}

/// Returns the number of processes of the host, including those of other PID namespaces.
fn processes() -> Option<u64> {
    // The links of /proc are its processes and a few other entries.
    let links = rustix::fs::stat("/proc").ok()?.st_nlink;
    #[allow(clippy::useless_conversion, reason = "it has 32 bits on aarch64")]
    Some(links.into())
}

/// Returns the usage of those processes that still exist; `None` if /proc is not mounted.
pub(crate) fn listed(pids: impl Iterator<Item = ProcessId>) -> Option<Tree> {
    rustix::fs::access("/proc/self/stat", rustix::fs::Access::READ_OK).ok()?;
    let mut text = Vec::new();
    let mut tree = Tree::default();
    for pid in pids.take(MOST).map(ProcessId::get) {
        if let Some(stat) = ProcessSample::read(pid, &mut text) {
            add(&mut tree, pid, &stat);
        }
    }
    Some(tree)
}

/// Returns the usage of kapo itself; `None` if /proc is not mounted. `known` is the part that was read before.
pub(crate) fn own(known: Option<ProcessUsage>) -> Option<Own> {
    let mut text = Vec::new();
    let usage = match known {
        Some(usage) => usage,
        None => {
            read("/proc/self/stat", &mut text)?;
            Stat::parse(&text)?.usage
        }
    };
    read("/proc/self/statm", &mut text)?;
    let [_, resident, shared, _, _, data, ..] = *numbers(&text).collect::<Vec<u64>>() else { return None };
    let page = page_size();
    // Use the size of the directory, because an open directory would add a descriptor to the count.
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX);
    Some(Own {
        cpu: usage.cpu,
        virtual_bytes: usage.virtual_bytes,
        virtual_max_bytes: limit(Resource::As),
        resident_bytes: resident * page,
        private_bytes: resident.saturating_sub(shared) * page,
        data_bytes: data * page,
        open_fds: descriptors("/proc/self/fd"),
        max_fds: limit(Resource::Nofile),
    })
}

fn add(tree: &mut Tree, pid: i32, stat: &ProcessSample) {
    // A zombie holds nothing but its exit code.
    if !stat.dead {
        tree.processes += 1;
        tree.resident_bytes += stat.usage.resident_pages * page_size();
        tree.open_fds += descriptors(&format!("/proc/{pid}/fd"));
    }
}

/// Returns the size of a page in bytes. /proc counts memory in pages.
fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4_096)
}

/// The fields of a process that a scrape needs.
#[derive(Clone, Copy, Debug)]
struct ProcessSample {
    dead: bool,
    parent: i32,
    threads: u32,
    usage: ProcessUsage,
}

impl ProcessSample {
    fn read(pid: i32, text: &mut Vec<u8>) -> Option<ProcessSample> {
        read(&format!("/proc/{pid}/stat"), text)?;
        ProcessSample::parse(text)
    }

    fn parse(text: &[u8]) -> Option<ProcessSample> {
        let stat = Stat::parse(text)?;
        Some(ProcessSample {
            dead: stat.is_zombie(),
            parent: stat.ppid,
            threads: stat.threads,
            usage: stat.usage,
        })
    }
}

/// Returns these processes and all of their descendants.
fn walk(mut todo: Vec<i32>, text: &mut Vec<u8>) -> Processes {
    let mut found = Vec::new();
    while let Some(pid) = todo.pop() {
        if found.len() >= MOST {
            break;
        }
        let Some(stat) = ProcessSample::read(pid, text) else { continue };
        todo.extend(children(pid, stat.threads, text).unwrap_or_default());
        found.push((pid, stat));
    }
    found
}

/// Returns the children of all threads of a process. `None` if the process is gone or if the kernel does not list
/// children (CONFIG_PROC_CHILDREN).
fn children(pid: i32, threads: u32, text: &mut Vec<u8>) -> Option<Vec<i32>> {
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

/// Does the same as [`walk`] if the kernel does not list children: reads all processes and their parents.
fn scan(root: i32, text: &mut Vec<u8>) -> Processes {
    let mut others: Vec<(i32, ProcessSample)> = entries("/proc")
        .filter(|pid| *pid != root)
        .take(MOST)
        .filter_map(|pid| ProcessSample::read(pid, text).map(|stat| (pid, stat)))
        .collect();
    let mut found: Vec<(i32, ProcessSample)> = Vec::new();
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

/// Returns the entries of a directory that are numbers.
fn entries(path: &str) -> impl Iterator<Item = i32> {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let entries = folder.and_then(Dir::new).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
}

/// Returns the number of open descriptors of a process; 0 if kapo may not read it. Since Linux 6.2 the size of the
/// directory gives the number; on an older kernel the directory is listed.
fn descriptors(path: &str) -> u64 {
    match rustix::fs::stat(path).map(|stat| u64::try_from(stat.st_size)) {
        Ok(Ok(size)) if size > 0 => size,
        Ok(_) => entries(path).count().try_into().unwrap_or(0),
        Err(_) => 0,
    }
}

/// Reads a whole small file into `text`; `None` if it cannot be read.
fn read(path: &str, text: &mut Vec<u8>) -> Option<()> {
    // A thread may have many children; eight bytes for each are enough.
    small_file::whole_of_short_lines(small_file::open(path).ok()?, MOST * 8, text).ok()
}

/// Returns the numbers of a text, which are separated by spaces. A word that is negative or not a number counts as 0.
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

    /// Starts a shell with a child and a grandchild. Both end when the shell does, because they read from its pipe.
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
    fn the_number_of_processes_is_known_without_reading_them() {
        let counted = u64::try_from(entries("/proc").count()).unwrap();
        // Other processes come and go, and the host may have more of them than this PID namespace.
        assert!(processes().unwrap() + 50 > counted);
        let pids = |below: Option<(i32, ProcessSample, Processes)>| below.map(|(pid, ..)| pid);
        assert_eq!(pids(below(0)), Some(getpid().as_raw_nonzero().get()), "this kernel lists children");
    }

    #[test]
    fn descendants_are_found_by_listing_and_by_scanning() {
        let (mut shell, pids) = family();
        let root = i32::try_from(shell.id()).unwrap();
        let below: Vec<i32> = pids.iter().copied().filter(|pid| *pid != root).collect();
        let mut text = Vec::new();
        let sorted = |found: Vec<(i32, ProcessSample)>| {
            let mut pids: Vec<i32> = found.into_iter().map(|(pid, _)| pid).collect();
            pids.sort_unstable();
            pids
        };
        if let Some(first) = children(root, 1, &mut text) {
            assert_eq!(sorted(walk(first, &mut text)), below);
        } else {
            println!("not checked: this kernel does not list children");
        }
        if entries("/proc").count() < MOST / 2 {
            assert_eq!(sorted(scan(root, &mut text)), below);
        } else {
            println!("not checked: the scan reads only {MOST} processes");
        }

        // Other tests in the same process may have children too.
        let tree = Sampler::default().tree(&Helpers::default()).unwrap();
        assert!(tree.processes >= 3, "{tree:?}");
        assert!(tree.open_fds >= 9 && tree.resident_bytes > 0 && tree.cpu.is_some(), "{tree:?}");
        let listed = || listed(pids.iter().filter_map(|pid| ProcessId::new(*pid))).unwrap();
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
        let threads = ProcessSample::read(own, &mut text).unwrap().threads;
        if let Some(found) = children(own, threads, &mut text) {
            assert!(found.contains(&i32::try_from(child.id()).unwrap()), "{found:?}");
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        thread.thread().unpark();
        thread.join().unwrap();
    }

    #[test]
    fn cpu_time_includes_ended_processes_and_never_decreases() {
        let mut sampler = Sampler::default();
        let mut shell = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        assert!(shell.wait().unwrap().success());
        let spent = sampler.tree(&Helpers::default()).unwrap().cpu.unwrap();
        assert!(spent > Duration::ZERO);
        sampler.shown = spent + Duration::from_secs(60);
        assert_eq!(sampler.tree(&Helpers::default()).unwrap().cpu, Some(spent + Duration::from_secs(60)));
    }

    #[test]
    fn kapos_own_usage_is_that_of_this_process() {
        let before = own(None).unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = own(None).unwrap();
        // Other tests in the same process open and close descriptors.
        assert!(after.open_fds >= before.open_fds + 40, "{before:?} {after:?}");
        assert!(after.resident_bytes > after.private_bytes && after.virtual_bytes > after.resident_bytes);
        assert!(after.max_fds >= after.open_fds);
        drop(files);
    }
}
