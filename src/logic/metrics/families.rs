//! The table of metrics: names, types, help texts, labels, and the sources of the values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::selection::Sources;
use super::{Counts, Exits, ProbeSample, Snapshot};
use crate::logic::Stream;
use crate::logic::cgroup::CgroupFiles;
use crate::logic::status::Counters;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricType {
    /// Goes up and down.
    Gauge,
    /// Only increases; the names of its samples end with `_total`.
    Counter,
    /// Always 1, with the information in the labels; the name of its sample ends with `_info`.
    Info,
}

impl MetricType {
    /// Returns the suffix of the samples' names.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            MetricType::Gauge => "",
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
        }
    }
}

/// A metric: the table below has one row for each.
pub(super) struct Family {
    /// The name, without `_total` and `_info`.
    pub name: &'static str,
    /// The type.
    pub kind: MetricType,
    /// The help text, one line.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What must be read for the values.
    pub source: Sources,
    /// Passes on the samples; none if the value is unknown.
    pub read: fn(&Snapshot, &Counts, Samples<'_>),
}

/// A callback for samples, with the values of the labels and the value.
pub(super) type Samples<'a> = &'a mut dyn FnMut(&[&str], Value);

/// The value of a sample.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    /// A whole number.
    Number(u64),
    /// A time or a duration.
    Seconds(Duration),
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Value {
        Value::Seconds(duration)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Number(yes.into())
    }
}

/// Passes on one sample without labels if there is a value.
fn one(samples: Samples<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        samples(&[], value.into());
    }
}

/// Passes on one sample per captured stream.
fn streams(samples: Samples<'_>, snapshot: &Snapshot, value: fn(&Counters) -> u64) {
    for (stream, counters) in Stream::BOTH.iter().zip(&snapshot.output) {
        if let Some(counters) = counters {
            samples(&[stream.name()], value(counters).into());
        }
    }
}

/// Passes on one sample per probe.
fn probes(samples: Samples<'_>, snapshot: &Snapshot, value: fn(&ProbeSample) -> Option<Value>) {
    for probe in &snapshot.probes {
        if let Some(value) = value(probe) {
            samples(&[&probe.label], value);
        }
    }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Snapshot, &Counts, Samples<'_>)) -> Family {
    Family { name, kind: MetricType::Gauge, help, labels: &[], source: Sources::NONE, read }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Snapshot, &Counts, Samples<'_>),
) -> Family {
    Family { name, kind: MetricType::Counter, help, labels, source: Sources::NONE, read }
}

impl Family {
    const fn of_probes(mut self) -> Family {
        self.labels = &["probe"];
        self.from(Sources::PROBES)
    }

    const fn from(mut self, source: Sources) -> Family {
        self.source = source;
        self
    }
}

/// All metrics, in the order of the page.
pub(super) const FAMILIES: [Family; 42] = [
    gauge(
        "kapo_child_up",
        "1 while the command runs; in watch mode, while a process matches.",
        |s, _, out| one(out, Some(s.up)),
    ),
    gauge("kapo_child_ready", "1 while /readyz answers 200.", |s, _, out| one(out, Some(s.ready)))
        .from(Sources::PROBES),
    gauge("kapo_probe_up", "1 if the last check of the probe has passed.", |s, _, out| {
        probes(out, s, |probe| Some(probe.up.into()));
    })
    .of_probes(),
    counter(
        "kapo_probe_failures",
        &[],
        "Number of checks of the probe that counted as failures.",
        |s, _, out| {
            probes(out, s, |probe| Some(probe.failures.into()));
        },
    )
    .of_probes(),
    gauge(
        "kapo_probe_duration_seconds",
        "Duration of the last check of the probe, in seconds.",
        |s, _, out| {
            probes(out, s, |probe| probe.duration.map(Value::from));
        },
    )
    .of_probes(),
    gauge(
        "kapo_child_start_time_seconds",
        "Start time of the current or last run, in seconds since 1970.",
        |s, _, out| one(out, s.start_time.map(unix)),
    ),
    counter("kapo_child_starts", &[], "Number of starts of the command.", |s, _, out| one(out, s.starts)),
    counter("kapo_child_exits", &["reason"], "Number of ends of the command, by reason.", |s, _, out| {
        for (reason, n) in s.exits.iter().flat_map(Exits::iter) {
            out(&[reason.name()], n.into());
        }
    }),
    gauge(
        "kapo_child_last_exit_code",
        "Exit code of the last run, or 128+n if signal n ended it.",
        |s, _, out| one(out, s.last_exit_code.map(u64::from)),
    ),
    gauge(
        "kapo_child_last_end_time_seconds",
        "End time of the last run that ended, in seconds since 1970.",
        |s, _, out| one(out, s.last_end.map(unix)),
    ),
    gauge(
        "kapo_child_last_success_time_seconds",
        "End time of the last successful run, in seconds since 1970.",
        |s, _, out| one(out, s.last_success.map(unix)),
    ),
    gauge("kapo_child_last_run_seconds", "Duration of the last run that ended, in seconds.", |s, _, out| {
        one(out, s.last_lasted);
    }),
    counter(
        "kapo_child_cpu_seconds",
        &[],
        "CPU time of the command and its descendants, summed over all runs.",
        |s, _, out| one(out, s.tree.and_then(|tree| tree.cpu)),
    )
    .from(Sources::TREE),
    gauge(
        "kapo_child_resident_memory_bytes",
        "Resident memory of the command and its descendants; a shared page counts once for each process.",
        |s, _, out| one(out, s.tree.map(|tree| tree.resident_bytes)),
    )
    .from(Sources::TREE),
    gauge(
        "kapo_child_open_fds",
        "Number of open descriptors of the command and its descendants.",
        |s, _, out| one(out, s.tree.map(|tree| tree.open_fds)),
    )
    .from(Sources::TREE),
    gauge(
        "kapo_child_processes",
        "Number of processes: the command and its descendants; in watch mode, the processes that match.",
        |s, _, out| one(out, s.tree.map(|tree| tree.processes)),
    )
    .from(Sources::TREE),
    gauge("kapo_flapping", "1 while the document shows Flapping.", |s, _, out| one(out, s.flapping)),
    counter(
        "kapo_oom_kills",
        &[],
        "Number of processes of kapo's cgroup that the kernel killed because memory ran out.",
        |s, _, out| one(out, s.oom_kills),
    )
    .from(Sources::OOM_KILLS),
    gauge(
        "kapo_cgroup_memory_bytes",
        "Memory usage of kapo's cgroup, including the page cache.",
        |s, _, out| {
            one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.memory_bytes));
        },
    )
    .from(Sources::cgroup(CgroupFiles::MEMORY)),
    gauge(
        "kapo_cgroup_memory_limit_bytes",
        "Memory limit of kapo's cgroup; left out if there is none.",
        |s, _, out| one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.memory_limit)),
    )
    .from(Sources::cgroup(CgroupFiles::MEMORY_LIMIT)),
    gauge(
        "kapo_cgroup_memory_peak_bytes",
        "Highest memory usage of kapo's cgroup since it was created.",
        |s, _, out| {
            one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.memory_peak));
        },
    )
    .from(Sources::cgroup(CgroupFiles::MEMORY_PEAK)),
    counter(
        "kapo_cgroup_cpu_throttled_seconds",
        &[],
        "Time for which the CPU quota has throttled kapo's cgroup.",
        |s, _, out| one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.cpu_throttled)),
    )
    .from(Sources::cgroup(CgroupFiles::CPU)),
    gauge(
        "kapo_cgroup_cpu_limit_cores",
        "CPU quota of kapo's cgroup, in CPUs; left out if there is none.",
        |s, _, out| one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.cpu_limit)),
    )
    .from(Sources::cgroup(CgroupFiles::CPU_LIMIT)),
    gauge("kapo_cgroup_pids", "Number of processes and threads in kapo's cgroup.", |s, _, out| {
        one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.pids));
    })
    .from(Sources::cgroup(CgroupFiles::PIDS)),
    gauge(
        "kapo_cgroup_pids_limit",
        "Limit for the number of processes and threads in kapo's cgroup; left out if there is none.",
        |s, _, out| one(out, s.cgroup.as_ref().and_then(|cgroup| cgroup.pids_limit)),
    )
    .from(Sources::cgroup(CgroupFiles::PIDS_LIMIT)),
    counter(
        "kapo_cgroup_pressure_seconds",
        &["resource", "kind"],
        "Time for which some or all tasks of kapo's cgroup waited for a resource.",
        |s, _, out| {
            for (resource, kind, total) in s.cgroup.iter().flat_map(|cgroup| &cgroup.pressure) {
                out(&[resource, kind], (*total).into());
            }
        },
    )
    .from(Sources::cgroup(CgroupFiles::PRESSURE)),
    counter(
        "kapo_orphans_reaped",
        &[],
        "Number of processes other than the command that kapo reaped.",
        |s, _, out| one(out, s.orphans_reaped),
    ),
    counter("kapo_output_bytes", &["stream"], "Number of bytes of captured output.", |s, _, out| {
        streams(out, s, |counters| counters.bytes);
    }),
    counter(
        "kapo_output_lines",
        &["stream"],
        "Number of lines of captured output; counted only with --stdlog.",
        |s, _, out| {
            streams(out, s, |counters| counters.lines);
        },
    ),
    counter(
        "kapo_output_discarded_bytes",
        &["stream"],
        "Number of bytes of captured output discarded because kapo could not write them.",
        |s, _, out| streams(out, s, |counters| counters.discarded_bytes),
    ),
    counter(
        "kapo_http_requests",
        &["path", "code"],
        "Number of answered requests; path is a known path, other for any other path, or invalid for a refused request.",
        |_, counts, out| {
            for (path, code, n) in counts.seen() {
                out(&[path, &code.to_string()], n.into());
            }
        },
    ),
    gauge("kapo_http_connections", "Number of open connections.", |s, _, out| {
        one(out, u64::try_from(s.connections).ok());
    }),
    counter(
        "kapo_http_connections_evicted",
        &[],
        "Number of connections evicted for a new one, at --max-connections or because no descriptor was left.",
        |_, counts, out| one(out, Some(counts.evicted)),
    ),
    Family {
        name: "kapo_build",
        kind: MetricType::Info,
        help: "The version and the name of this kapo.",
        labels: &["version", "name"],
        source: Sources::NONE,
        read: |s, _, out| out(&[env!("CARGO_PKG_VERSION"), s.name], Value::Number(1)),
    },
    counter("process_cpu_seconds", &[], "CPU time of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.cpu))
    })
    .from(Sources::OWN),
    gauge("process_open_fds", "Number of open descriptors of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.open_fds))
    })
    .from(Sources::OWN),
    gauge("process_max_fds", "Maximum number of open descriptors of kapo.", |s, _, out| {
        one(out, s.own.map(|own| own.max_fds))
    })
    .from(Sources::OWN),
    gauge("process_virtual_memory_bytes", "Size of the address space of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.virtual_bytes));
    })
    .from(Sources::OWN),
    gauge("process_virtual_memory_max_bytes", "Limit for the address space of kapo.", |s, _, out| {
        one(out, s.own.map(|own| own.virtual_max_bytes));
    })
    .from(Sources::OWN),
    gauge("process_resident_memory_bytes", "Resident memory of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.resident_bytes));
    })
    .from(Sources::OWN),
    gauge("process_heap_bytes", "Size of the data and stack segments of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.data_bytes));
    })
    .from(Sources::OWN),
    gauge("process_start_time_seconds", "Start time of kapo itself, in seconds since 1970.", |s, _, out| {
        one(out, Some(unix(s.started)));
    }),
];

/// Returns the time since 1970; an earlier time counts as 1970.
pub(super) fn unix(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}
