//! Determines which families a scrape selects with `name[]`, and what must be read for them.

use super::Snapshot;
use super::families::FAMILIES;
use crate::logic::cgroup::CgroupFiles;
use crate::logic::http::query::{decoded, parameters};

/// The sources of the values, apart from what kapo knows without a system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// /proc of the command and its descendants, or of the watched processes.
    pub tree: bool,
    /// /proc of kapo itself.
    pub own: bool,
    /// The counter of out-of-memory kills.
    pub oom_kills: bool,
    /// The files of kapo's cgroup.
    pub cgroup: CgroupFiles,
    /// kapo's own probes, whose results may be too old.
    pub probes: bool,
}

impl Sources {
    /// Nothing must be read.
    pub(super) const NONE: Sources =
        Sources { tree: false, own: false, oom_kills: false, cgroup: CgroupFiles::NONE, probes: false };
    /// The results of the probes.
    pub(super) const PROBES: Sources = Sources { probes: true, ..Sources::NONE };
    /// The processes of the command.
    pub(super) const TREE: Sources = Sources { tree: true, ..Sources::NONE };
    /// kapo's own process.
    pub(super) const OWN: Sources = Sources { own: true, ..Sources::NONE };
    /// The counter of out-of-memory kills.
    pub(super) const OOM_KILLS: Sources = Sources { oom_kills: true, ..Sources::NONE };
    /// The sources that /debug/vars shows.
    pub(crate) const VARS: Sources = Sources { tree: true, own: true, oom_kills: true, ..Sources::NONE };

    /// These files of the cgroup.
    pub(super) const fn cgroup(files: CgroupFiles) -> Sources {
        Sources { cgroup: files, ..Sources::NONE }
    }

    /// Whether `other` is a subset of these sources.
    fn include(self, other: Sources) -> bool {
        self.and(other) == self
    }

    /// Returns the union of both.
    pub(crate) fn and(self, other: Sources) -> Sources {
        Sources {
            tree: self.tree || other.tree,
            own: self.own || other.own,
            oom_kills: self.oom_kills || other.oom_kills,
            cgroup: self.cgroup.and(other.cgroup),
            probes: self.probes || other.probes,
        }
    }
}

/// A snapshot and the sources that were read for it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The sources that were read.
    pub sources: Sources,
    /// The values from these sources.
    pub snapshot: Snapshot,
}

impl Measured {
    /// Returns the snapshot if all of `sources` were read for it.
    pub(crate) fn with(&self, sources: Sources) -> Option<&Snapshot> {
        self.sources.include(sources).then_some(&self.snapshot)
    }
}

/// A set of families, with one bit for each row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection(u64);

const _: () = assert!(FAMILIES.len() <= 64, "a Selection has 64 bits");

impl Selection {
    /// All families.
    pub const ALL: Selection = Selection(u64::MAX);

    /// Returns the families of `--textfile`.
    pub(crate) fn textfile() -> Selection {
        let shown = |name: &str| {
            name.starts_with("kapo_child_") || ["kapo_flapping", "kapo_oom_kills"].contains(&name)
        };
        let rows = FAMILIES.iter().enumerate().filter(|(_, family)| shown(family.name));
        Selection(rows.fold(0, |bits, (place, _)| bits | 1 << place))
    }

    /// Returns the families that the `name[]` parameters of a query name, by the name of the family or of its samples,
    /// or all families if there are none. An unknown name selects nothing.
    pub(crate) fn of(query: Option<&str>) -> Selection {
        let mut names = parameters(query, "name[]").peekable();
        if names.peek().is_none() {
            return Selection::ALL;
        }
        Selection(names.fold(0, |bits, name| bits | Selection::named(name)))
    }

    fn named(name: &str) -> u64 {
        let is = |family: &str, suffix: &str| decoded(name).eq(family.bytes().chain(suffix.bytes()));
        let mut bit = 1;
        for family in &FAMILIES {
            if ["", family.kind.suffix(), "_created"].iter().any(|suffix| is(family.name, suffix)) {
                return bit;
            }
            bit <<= 1;
        }
        0
    }

    /// Whether the family in this row of the table is selected.
    pub(super) fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Returns what must be read for these families.
    pub(crate) fn sources(self) -> Sources {
        let selected = FAMILIES.iter().enumerate().filter(|(place, _)| self.has(*place));
        selected.fold(Sources::NONE, |sources, (_, family)| sources.and(family.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<&'static str> {
        let selection = Selection::of(Some(query));
        FAMILIES
            .iter()
            .enumerate()
            .filter(|(at, _)| selection.has(*at))
            .map(|(_, family)| family.name)
            .collect()
    }

    #[test]
    fn families_are_selected_by_their_name_or_that_of_a_sample() {
        for (query, expected) in [
            ("name[]=kapo_child_up", &["kapo_child_up"][..]),
            (
                "name%5B%5D=kapo_child_starts_total&name[]=kapo_child_up",
                &["kapo_child_up", "kapo_child_starts"],
            ),
            ("name[]=kapo_child_starts&x=y", &["kapo_child_starts"]),
            ("name[]=kapo_child_starts_created", &["kapo_child_starts"]),
            ("name[]=kapo_build_info", &["kapo_build"]),
            ("name[]=kapo_child", &[]),
            ("name[]=", &[]),
        ] {
            assert_eq!(names(query), expected, "{query}");
        }
        assert_eq!(Selection::of(None), Selection::ALL);
        assert_eq!(Selection::of(Some("name=kapo_child_up")), Selection::ALL);
    }

    #[test]
    fn only_the_selected_sources_are_read() {
        let all = Sources { tree: true, own: true, oom_kills: true, cgroup: CgroupFiles::ALL, probes: true };
        for (query, expected) in [
            (None, all),
            (Some("name[]=kapo_child_up&name[]=kapo_http_connections"), Sources::NONE),
            (Some("name[]=kapo_child_processes"), Sources::TREE),
            (Some("name[]=process_open_fds"), Sources::OWN),
            (Some("name[]=kapo_oom_kills_total"), Sources::OOM_KILLS),
            (Some("name[]=kapo_cgroup_pids"), Sources::cgroup(CgroupFiles::PIDS)),
            (
                Some("name[]=kapo_cgroup_memory_bytes&name[]=kapo_cgroup_pressure_seconds_total"),
                Sources::cgroup(CgroupFiles::MEMORY.and(CgroupFiles::PRESSURE)),
            ),
        ] {
            assert_eq!(Selection::of(query).sources(), expected, "{query:?}");
        }
    }
}
