//! Renders /debug/vars in the format of Go's package expvar, so that clients such as expvarmon can show kapo like a Go
//! program. The members of the garbage collector, which kapo does not have, are 0.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::Now;
use super::metrics::{Counts, Snapshot, Tree};

/// The members of Go's runtime.MemStats that do not apply to kapo.
const ZERO: [&str; 20] = [
    "Lookups",
    "Mallocs",
    "Frees",
    "HeapIdle",
    "HeapReleased",
    "HeapObjects",
    "StackInuse",
    "StackSys",
    "MSpanInuse",
    "MSpanSys",
    "MCacheInuse",
    "MCacheSys",
    "BuckHashSys",
    "GCSys",
    "OtherSys",
    "NextGC",
    "LastGC",
    "PauseTotalNs",
    "NumGC",
    "NumForcedGC",
];

#[derive(Serialize)]
struct Vars<'a> {
    cmdline: [&'a str; 1],
    memstats: MemStats,
    kapo: Kapo,
}

/// Go's runtime.MemStats, in bytes.
struct MemStats {
    /// Memory in use: resident and not backed by a file.
    in_use: u64,
    /// Data and stack segments.
    heap: u64,
    /// Address space.
    all: u64,
}

impl Serialize for MemStats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for name in ["Alloc", "TotalAlloc", "HeapAlloc", "HeapInuse"] {
            map.serialize_entry(name, &self.in_use)?;
        }
        map.serialize_entry("Sys", &self.all)?;
        map.serialize_entry("HeapSys", &self.heap)?;
        for name in ZERO {
            map.serialize_entry(name, &0)?;
        }
        // Go keeps the last 256 pauses.
        for name in ["PauseNs", "PauseEnd"] {
            map.serialize_entry(name, &[0_u8; 256].as_slice())?;
        }
        map.serialize_entry("GCCPUFraction", &0)?;
        map.serialize_entry("EnableGC", &false)?;
        map.serialize_entry("DebugGC", &false)?;
        map.serialize_entry::<_, [u8]>("BySize", &[])?;
        map.end()
    }
}

/// Numbers to plot. All of them are always present, because clients name them in advance.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kapo {
    up: u8,
    ready: u8,
    flapping: u8,
    starts: u64,
    last_exit_code: u8,
    oom_kills: u64,
    orphans_reaped: u64,
    requests: u64,
    connections: usize,
    uptime_seconds: u64,
    child_processes: u64,
    child_cpu_milliseconds: u64,
    child_resident_bytes: u64,
    child_open_fds: u64,
    output_bytes: u64,
    output_discarded_bytes: u64,
    open_fds: u64,
    resident_bytes: u64,
    cpu_milliseconds: u64,
}

/// Renders the page.
pub(crate) fn render(argv0: &str, now: Now, snapshot: &Snapshot, counts: &Counts) -> Vec<u8> {
    let own = snapshot.own.unwrap_or_default();
    let Tree { processes, cpu, resident_bytes, open_fds } = snapshot.tree.unwrap_or_default();
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let output = || snapshot.output.iter().flatten();
    let vars = Vars {
        cmdline: [argv0],
        memstats: MemStats { in_use: own.private_bytes, heap: own.data_bytes, all: own.virtual_bytes },
        kapo: Kapo {
            up: snapshot.up.into(),
            ready: snapshot.ready.into(),
            flapping: snapshot.flapping.unwrap_or(false).into(),
            starts: snapshot.starts.unwrap_or(0),
            last_exit_code: snapshot.last_exit_code.unwrap_or(0),
            oom_kills: snapshot.oom_kills.unwrap_or(0),
            orphans_reaped: snapshot.orphans_reaped.unwrap_or(0),
            requests: counts.total(),
            connections: snapshot.connections,
            uptime_seconds: now.wall.duration_since(snapshot.started).unwrap_or_default().as_secs(),
            child_processes: processes,
            child_cpu_milliseconds: millis(cpu.unwrap_or_default()),
            child_resident_bytes: resident_bytes,
            child_open_fds: open_fds,
            output_bytes: output().map(|counters| counters.bytes).sum(),
            output_discarded_bytes: output().map(|counters| counters.discarded_bytes).sum(),
            open_fds: own.open_fds,
            resident_bytes: own.resident_bytes,
            cpu_milliseconds: millis(own.cpu),
        },
    };
    let mut page = serde_json::to_vec(&vars).expect("strings, numbers and arrays always serialize");
    page.push(b'\n');
    page
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;
    use crate::logic::http::routes::Route;
    use crate::logic::metrics::Own;

    /// All members of runtime.MemStats in Go 1.24.
    const GO: &str = "Alloc TotalAlloc Sys Lookups Mallocs Frees HeapAlloc HeapSys HeapIdle HeapInuse HeapReleased \
        HeapObjects StackInuse StackSys MSpanInuse MSpanSys MCacheInuse MCacheSys BuckHashSys GCSys OtherSys NextGC \
        LastGC PauseTotalNs PauseNs PauseEnd NumGC NumForcedGC GCCPUFraction EnableGC DebugGC BySize";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
    fn a_go_client_finds_all_members_that_it_decodes() {
        let started = UNIX_EPOCH + Duration::from_secs(1_763_793_930);
        let snapshot = Snapshot {
            started,
            up: true,
            ready: true,
            starts: Some(3),
            connections: 1,
            tree: Some(Tree { processes: 2, cpu: None, resident_bytes: 5, open_fds: 6 }),
            own: Some(Own { private_bytes: 7, data_bytes: 8, virtual_bytes: 9, ..Own::default() }),
            ..Snapshot::blank()
        };
        let mut counts = Counts::default();
        counts.answered(Route::Vars, 200);
        counts.refused(400);
        let now = Now { mono: Instant::now(), wall: started + Duration::from_secs(60) };
        let page: Value = serde_json::from_slice(&render("/bin/kapo", now, &snapshot, &counts)).unwrap();

        assert_eq!(page["cmdline"], serde_json::json!(["/bin/kapo"]));
        let stats = page["memstats"].as_object().unwrap();
        let mut expected: Vec<&str> = GO.split_whitespace().collect();
        expected.sort_unstable();
        let mut names: Vec<&str> = stats.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!((&stats["Alloc"], &stats["HeapSys"], &stats["Sys"]), (&7.into(), &8.into(), &9.into()));
        for name in ["PauseNs", "PauseEnd"] {
            assert_eq!(stats[name].as_array().unwrap().len(), 256);
        }
        let kapo = &page["kapo"];
        assert_eq!(
            (
                &kapo["Up"],
                &kapo["Starts"],
                &kapo["Requests"],
                &kapo["UptimeSeconds"],
                &kapo["ChildProcesses"]
            ),
            (&1.into(), &3.into(), &2.into(), &60.into(), &2.into())
        );
    }
}
