//! Control groups (cgroups(7)): finds the folders with the files of a controller, and parses these files.

use std::time::Duration;

/// The interface version of a folder, which decides the names of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all of them.
    V2,
}

/// A folder with the files of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// The absolute path, without a slash at the end.
    pub path: String,
    /// The interface version.
    pub version: Version,
}

impl Folder {
    /// Returns the path of a file, by its name in version 1 and in version 2.
    pub(crate) fn file(&self, v1: &str, v2: &str) -> String {
        let name = match self.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        format!("{}/{name}", self.path)
    }
}

/// Returns the folders in which the files of `controller` may be, from /proc/self/cgroup and the usual mount points.
/// Use the first folder whose files can be read.
pub(crate) fn usual_folders(own: &str, controller: &str) -> Vec<Folder> {
    let v1 = format!("/sys/fs/cgroup/{controller}");
    folders(
        own,
        controller,
        &[
            ("", "/sys/fs/cgroup", Version::V2),
            ("", &v1, Version::V1),
            ("", "/sys/fs/cgroup/unified", Version::V2),
        ],
    )
}

/// Returns the folders from the actual mounts (proc_pid_mountinfo(5)). In a container without a cgroup namespace, the
/// mount shows only a part of the tree, and the path is that of the host.
pub(crate) fn mounted_folders(own: &str, mountinfo: &str, controller: &str) -> Vec<Folder> {
    let mounts: Vec<(&str, &str, Version)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let mut kind = kind.split(' ');
            match (kind.next()?, kind.nth(1)?) {
                ("cgroup2", _) => Some((root, point, Version::V2)),
                ("cgroup", options) if options.split(',').any(|option| option == controller) => {
                    Some((root, point, Version::V1))
                }
                _ => None,
            }
        })
        .collect();
    folders(own, controller, &mounts)
}

/// Combines the cgroups in `own` with `mounts`. Each mount consists of its root within the tree, its mount point, and
/// its version.
fn folders(own: &str, controller: &str, mounts: &[(&str, &str, Version)]) -> Vec<Folder> {
    let own: Vec<(Version, &str)> = own.lines().filter_map(|line| cgroup_of(line, controller)).collect();
    let mut found = Vec::new();
    for (root, point, version) in mounts {
        for (_, path) in own.iter().filter(|(of, _)| of == version) {
            let Some(path) = path.strip_prefix(root.trim_end_matches('/')) else { continue };
            // A path outside of the cgroup namespace begins with /.. and cannot be reached. A path that has only a
            // common prefix with the root, such as /ab with /a, is not below it.
            if !(path.is_empty() || path.starts_with('/')) || path.split('/').any(|part| part == "..") {
                continue;
            }
            found.push(Folder { path: format!("{point}{}", path.trim_end_matches('/')), version: *version });
        }
    }
    found
}

/// Returns the path in a line of /proc/self/cgroup that can have the files of `controller`: `0::/path` of version 2, or
/// `4:memory:/path` of version 1.
fn cgroup_of<'a>(line: &'a str, controller: &str) -> Option<(Version, &'a str)> {
    if let Some(path) = line.strip_prefix("0::") {
        return Some((Version::V2, path));
    }
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    controllers.split(',').any(|one| one == controller).then_some((Version::V1, path))
}

/// A set of the files of a cgroup that a scrape shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupFiles(u8);

impl CgroupFiles {
    /// No file.
    pub(crate) const NONE: CgroupFiles = CgroupFiles(0);
    /// The memory in use.
    pub(crate) const MEMORY: CgroupFiles = CgroupFiles(1);
    /// The limit of the memory.
    pub(crate) const MEMORY_LIMIT: CgroupFiles = CgroupFiles(1 << 1);
    /// The most memory that was used.
    pub(crate) const MEMORY_PEAK: CgroupFiles = CgroupFiles(1 << 2);
    /// The statistics of the CPU controller.
    pub(crate) const CPU: CgroupFiles = CgroupFiles(1 << 3);
    /// The number of processes and threads.
    pub(crate) const PIDS: CgroupFiles = CgroupFiles(1 << 4);
    /// The limit of that number.
    pub(crate) const PIDS_LIMIT: CgroupFiles = CgroupFiles(1 << 5);
    /// The pressure stall information of all resources.
    pub(crate) const PRESSURE: CgroupFiles = CgroupFiles(1 << 6);

    /// The CPU quota.
    pub(crate) const CPU_LIMIT: CgroupFiles = CgroupFiles(1 << 7);

    /// All files.
    #[cfg(test)]
    pub(crate) const ALL: CgroupFiles = CgroupFiles(u8::MAX);

    /// Returns the union of both.
    pub(crate) const fn and(self, other: CgroupFiles) -> CgroupFiles {
        CgroupFiles(self.0 | other.0)
    }

    /// Whether all files of `other` are in the set.
    pub(crate) fn include(self, other: CgroupFiles) -> bool {
        self.and(other) == self
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(self) -> bool {
        self == CgroupFiles::NONE
    }
}

/// The values of kapo's cgroup. `None` means that the file is missing or cannot be read; for a limit it may also mean
/// that there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Memory in use, page cache included.
    pub memory_bytes: Option<u64>,
    /// The limit of the memory.
    pub memory_limit: Option<u64>,
    /// The most memory that was used.
    pub memory_peak: Option<u64>,
    /// How long tasks were throttled because the CPU quota was used up.
    pub cpu_throttled: Option<Duration>,
    /// The CPU quota, as CPU time per second.
    pub cpu_limit: Option<Duration>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// The limit of the number of processes and threads.
    pub pids_limit: Option<u64>,
    /// Pressure stall information (version 2): the resource, `some` or `full`, and how long tasks had to wait.
    pub pressure: Vec<(&'static str, &'static str, Duration)>,
}

/// Parses a file that contains one number. Returns `None` if there is no limit: `max` in version 2, the largest
/// multiple of a page in version 1.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

/// Version 1 shows the largest multiple of a page below 2^63 if there is no limit; a page has at most 64 KiB.
const NO_LIMIT: u64 = (1 << 63) - (64 << 10);

/// Returns the number after a key, from a file of `KEY NUMBER` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Returns the CPU time per second that a quota allows, from the quota and its period in microseconds: `50000 100000`.
/// Returns `None` if there is no limit: `max` in version 2, -1 in version 1.
pub(crate) fn cpu_limit(text: &str) -> Option<Duration> {
    let mut words = text.split_ascii_whitespace();
    let (quota, period): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    quota.checked_mul(1_000_000)?.checked_div(period).map(Duration::from_micros)
}

/// Returns the totals from a file of pressure stall information, which are in microseconds: `some avg10=0.00
/// avg60=0.00 avg300=0.00 total=123`.
pub(crate) fn pressure(text: &str) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
    text.lines().filter_map(|line| {
        let kind = ["some", "full"].into_iter().find(|kind| line.starts_with(kind))?;
        let total = line.split(' ').find_map(|field| field.strip_prefix("total="))?;
        Some((kind, Duration::from_micros(total.parse().ok()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folders: &[Folder]) -> Vec<&str> {
        folders.iter().map(|folder| folder.path.as_str()).collect()
    }

    #[test]
    fn folders_are_found_at_the_usual_mount_points() {
        assert_eq!(
            paths(&usual_folders("0::/system.slice/a:b.service\n", "memory")),
            ["/sys/fs/cgroup/system.slice/a:b.service", "/sys/fs/cgroup/unified/system.slice/a:b.service"]
        );
        let hybrid = usual_folders("5:cpu,memory:/docker/x\n1:name=systemd:/y\n0::/\n", "memory");
        assert_eq!(
            paths(&hybrid),
            ["/sys/fs/cgroup", "/sys/fs/cgroup/memory/docker/x", "/sys/fs/cgroup/unified"]
        );
        let files: Vec<String> = hybrid.iter().map(|folder| folder.file("old", "new")).collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/new", "/sys/fs/cgroup/memory/docker/x/old", "/sys/fs/cgroup/unified/new"]
        );
        assert_eq!(usual_folders("0::/../other\n", "memory"), []);
        assert_eq!(usual_folders("nonsense\n", "memory"), []);
    }

    #[test]
    fn mounts_of_a_part_of_the_tree_are_found() {
        let mountinfo = "31 23 0:28 / / rw - overlay overlay rw\n\
            40 31 0:26 /docker/abc /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n\
            41 31 0:27 /docker/abc /mnt/memory ro - cgroup cgroup rw,memory\n\
            42 31 0:27 /docker/abc /mnt/cpu ro - cgroup cgroup rw,cpu\n";
        let own = "3:cpu:/docker/abc\n2:memory:/docker/abc\n0::/docker/abc/inner\n";
        assert_eq!(
            paths(&mounted_folders(own, mountinfo, "memory")),
            ["/sys/fs/cgroup/inner", "/mnt/memory"]
        );
        assert_eq!(paths(&mounted_folders(own, mountinfo, "cpu")), ["/sys/fs/cgroup/inner", "/mnt/cpu"]);
        assert_eq!(mounted_folders("0::/docker/abcdef\n", mountinfo, "memory"), []);
    }

    #[test]
    fn files_of_both_versions_are_read() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(keyed(events, "oom_kill"), Some(2));
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "oom_kill"), Some(1));
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None, "before Linux 4.13");
        assert_eq!(keyed("", "oom_kill"), None);
        for (text, expected) in [
            ("4096\n", Some(4096)),
            ("max\n", None),
            ("9223372036854771712\n", None),
            ("9223372036854710272\n", None),
            ("", None),
            ("-1\n", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
        let text =
            "some avg10=0.12 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=7\nodd total=x\n";
        assert_eq!(
            pressure(text).collect::<Vec<_>>(),
            [("some", Duration::from_millis(1_500)), ("full", Duration::from_micros(7))]
        );
    }

    #[test]
    fn a_cpu_quota_is_a_part_of_its_period() {
        for (text, millis) in [
            ("50000 100000\n", Some(500)),
            ("250000\n100000\n", Some(2_500)),
            ("max 100000\n", None),
            ("-1\n100000\n", None),
            ("50000 0\n", None),
            ("50000\n", None),
            ("18446744073709551615 1", None),
            ("", None),
        ] {
            assert_eq!(cpu_limit(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }
}
