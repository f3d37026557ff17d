//! The runs that have ended, for the member `LastRun` of the document and for `GET /runs`.
//!
//! The history keeps the last runs and the first failure of the present episode, because in a crash loop the first
//! failure shows the cause and later ones only the consequences. An episode begins with the first failed run after the
//! start of kapo, after a success, or after a stable run.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Usage;
use super::reason::Reason;
use super::status::{self, Status, StopSignalFrom};
use crate::logic::ProcessId;
use crate::signal::Signal;

/// Maximum size in bytes of all kept lines of output together.
const LINES_IN_SUM: usize = 32 * 1024;

/// What a line takes beside its text: its `String`, and the header of its allocation.
const LINE_OVERHEAD: usize = 40;

/// A run that has ended. The members are those of the status document that describe the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PastRun {
    /// When the exec succeeded or failed.
    #[serde(serialize_with = "status::time")]
    pub start_time: Option<SystemTime>,
    /// When the command was reaped.
    #[serde(serialize_with = "status::time")]
    pub end_time: Option<SystemTime>,
    /// The duration by the monotonic clock. The difference of the two times would be wrong if the wall clock was set
    /// in between.
    #[serde(rename = "LastedSeconds", serialize_with = "seconds")]
    pub lasted: Duration,
    /// `None`, shown as 0, if the command could not be executed.
    #[serde(serialize_with = "status::pid")]
    pub pid: Option<ProcessId>,
    /// The exit code; 128+n if signal n killed the command.
    pub exit_code: u8,
    /// The signal that killed the command, such as `SIGKILL`; shown as an empty string if there is none.
    #[serde(serialize_with = "status::signal")]
    pub signal: Option<Signal>,
    /// The reason of the end.
    #[serde(serialize_with = "status::reason")]
    pub reason: Option<Reason>,
    /// The signal that asked kapo to stop.
    pub stop_signal_from: Option<StopSignalFrom>,
    /// The resource usage, including reaped descendants.
    #[serde(serialize_with = "status::usage")]
    pub usage: Usage,
    /// The memory of kapo's cgroup at the end; `None` if it cannot be read.
    pub memory: Option<CgroupMemory>,
    /// The last lines of a failed run, under `--tail`.
    pub last_output: Vec<String>,
    /// Whether this is the first failure of the present episode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// The watched name, if `watch` has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<str>>,
}

/// The memory of a cgroup. A value that cannot be read is `None`, shown as null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CgroupMemory {
    /// The peak usage, from memory.peak or memory.max_usage_in_bytes.
    pub peak_bytes: Option<u64>,
    /// The limit; `None` if there is none or it cannot be read.
    pub limit_bytes: Option<u64>,
    /// Number of out-of-memory kills since the cgroup was created.
    pub oom_kills: Option<u64>,
}

impl PastRun {
    /// Copies the members of the status document of a run that has just ended.
    pub(crate) fn of(
        object: &Status,
        pid: Option<ProcessId>,
        lasted: Duration,
        memory: Option<CgroupMemory>,
    ) -> PastRun {
        PastRun {
            start_time: object.start_time,
            end_time: object.end_time,
            lasted,
            pid,
            exit_code: object.exit_code,
            signal: object.signal,
            reason: object.reason,
            stop_signal_from: object.stop_signal_from,
            usage: object.usage,
            memory,
            last_output: object.last_output.clone(),
            first: false,
            command: None,
        }
    }

    /// Returns how many bytes the kept lines take, with what the allocator and the vector need for each.
    fn length_of_lines(&self) -> usize {
        self.last_output.iter().map(|line| line.len() + LINE_OVERHEAD).sum()
    }
}

/// How the end of a run changes the episode, which is a series of failures without a success between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpisodeEffect {
    /// A success or a planned end, which ends the episode.
    Success,
    /// A failure.
    Failure {
        /// Whether the run lasted so long that the previous episode is over.
        stable: bool,
    },
}

/// The ended runs. Allocates nothing before the first end.
#[derive(Debug)]
pub struct History {
    /// Maximum number of runs that are shown.
    limit: usize,
    /// The kept runs, newest first. The newest is kept even if the limit is 0.
    runs: VecDeque<PastRun>,
    /// The first failure of the episode, after it has left `runs`.
    first: Option<Box<PastRun>>,
    last_success: Option<SystemTime>,
}

impl History {
    /// Returns a history of at most `limit` runs, plus the first failure.
    pub(crate) fn new(limit: usize) -> History {
        History { limit, runs: VecDeque::new(), first: None, last_success: None }
    }

    /// Whether runs are kept; false with `--history 0`.
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Adds a run that has ended.
    pub(crate) fn ended(&mut self, mut run: PastRun, episode: EpisodeEffect) {
        if run.reason == Some(Reason::Success) {
            self.last_success = run.end_time;
        }
        let over = matches!(episode, EpisodeEffect::Success | EpisodeEffect::Failure { stable: true });
        if over {
            self.first = None;
            self.runs.iter_mut().for_each(|run| run.first = false);
        }
        let begun = self.first.is_some() || self.runs.iter().any(|run| run.first);
        run.first = episode != EpisodeEffect::Success && !begun;
        if self.runs.len() >= self.limit.max(1) {
            let oldest = self.runs.pop_back().filter(|run| run.first && self.is_on());
            self.first = oldest.map(Box::new).or(self.first.take());
        }
        self.runs.push_front(run);
        self.bound();
    }

    /// Replaces the newest run, after the reason of its end has become known. This does not begin an episode.
    pub(crate) fn correct_last(&mut self, run: PastRun) {
        if run.reason == Some(Reason::Success) {
            self.last_success = run.end_time;
        }
        if let Some(last) = self.runs.front_mut() {
            *last = PastRun { first: last.first, ..run };
        }
    }

    /// Sets the last lines of the newest run, whose output was read completely.
    pub(crate) fn drained(&mut self, last_output: &[String]) {
        if let Some(run) = self.runs.front_mut() {
            run.last_output = last_output.to_vec();
        }
        self.bound();
    }

    /// Returns the run that ended last.
    pub(crate) fn last(&self) -> Option<&PastRun> {
        self.runs.front()
    }

    /// Returns when a run last ended with [`Reason::Success`].
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        self.last_success
    }

    /// Renders the array of `GET /runs`, followed by a newline.
    pub(crate) fn render(&self) -> Vec<u8> {
        let runs: Vec<&PastRun> = self.runs.iter().take(self.limit).chain(self.first.as_deref()).collect();
        let mut text = serde_json::to_vec(&runs).expect("strings, numbers and arrays always serialize");
        text.push(b'\n');
        text
    }

    /// Drops the lines of the oldest runs, except those of the first failure, until all lines together are within the
    /// limit.
    fn bound(&mut self) {
        let first = self.first.as_deref().map_or(0, PastRun::length_of_lines);
        let mut sum = first + self.runs.iter().map(PastRun::length_of_lines).sum::<usize>();
        for run in self.runs.iter_mut().skip(1).rev().filter(|run| !run.first) {
            if sum <= LINES_IN_SUM {
                return;
            }
            sum -= run.length_of_lines();
            run.last_output = Vec::new();
        }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::status::ModeName;

    const FAILURE: EpisodeEffect = EpisodeEffect::Failure { stable: false };
    const STABLE: EpisodeEffect = EpisodeEffect::Failure { stable: true };

    fn run(code: u8) -> PastRun {
        let object = Status { exit_code: code, ..Status::blank(ModeName::Supervise) };
        PastRun::of(&object, ProcessId::new(7), Duration::from_millis(1_250), None)
    }

    /// Returns the exit codes that are shown, with a mark at the first failure.
    fn shown(history: &History) -> Vec<String> {
        let text = history.render();
        let runs: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        runs.iter()
            .map(|run| format!("{}{}", run["ExitCode"], if run["First"] == true { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn the_newest_run_is_first_and_the_first_failure_stays() {
        let mut history = History::new(3);
        assert_eq!(history.render(), b"[]\n");
        for (code, episode, expected) in [
            (0, EpisodeEffect::Success, &["0"][..]),
            (1, FAILURE, &["1!", "0"]),
            (2, FAILURE, &["2", "1!", "0"]),
            (3, FAILURE, &["3", "2", "1!"]),
            (4, FAILURE, &["4", "3", "2", "1!"]),
            (5, FAILURE, &["5", "4", "3", "1!"]),
            (6, STABLE, &["6!", "5", "4"]),
            (7, FAILURE, &["7", "6!", "5"]),
            (0, EpisodeEffect::Success, &["0", "7", "6"]),
            (8, FAILURE, &["8!", "0", "7"]),
            (0, EpisodeEffect::Success, &["0", "8", "0"]),
        ] {
            history.ended(run(code), episode);
            assert_eq!(shown(&history), expected);
        }
    }

    #[test]
    fn a_limit_of_one_also_keeps_the_first_failure() {
        let mut history = History::new(1);
        for code in 1..=3 {
            history.ended(run(code), FAILURE);
        }
        assert_eq!(shown(&history), ["3", "1!"]);
    }

    #[test]
    fn nothing_is_kept_if_it_is_off() {
        let mut history = History::new(0);
        history.ended(run(1), FAILURE);
        history.drained(&["line".to_owned()]);
        assert_eq!(shown(&history), [""; 0]);
    }

    #[test]
    fn lines_belong_to_the_newest_run_and_are_bounded_in_sum() {
        let mut history = History::new(100);
        let lines = vec!["x".repeat(512); 10];
        for code in 1..=100 {
            history.ended(run(code), FAILURE);
            history.drained(&lines);
        }
        let runs: Vec<serde_json::Value> = serde_json::from_slice(&history.render()).unwrap();
        let counts: Vec<usize> = runs.iter().map(|run| run["LastOutput"].as_array().unwrap().len()).collect();
        let kept = LINES_IN_SUM / (10 * (512 + LINE_OVERHEAD));
        assert!(LINES_IN_SUM + history.runs.capacity() * size_of::<PastRun>() <= 64 * 1024);
        // The first failure is last in the list and keeps its lines.
        let expected: Vec<usize> =
            (0..100).map(|at| if at + 1 < kept || at == 99 { 10 } else { 0 }).collect();
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_run_is_rendered_as_documented() {
        let mut history = History::new(1);
        let memory = CgroupMemory { peak_bytes: Some(1), limit_bytes: None, oom_kills: Some(2) };
        history.ended(PastRun { memory: Some(memory), ..run(3) }, FAILURE);
        assert_eq!(
            String::from_utf8(history.render()).unwrap(),
            concat!(
                r#"[{"StartTime":"0001-01-01T00:00:00Z","EndTime":"0001-01-01T00:00:00Z","LastedSeconds":1.25,"#,
                r#""Pid":7,"ExitCode":3,"Signal":"","Reason":"","StopSignalFrom":null,"#,
                r#""Usage":{"UserSeconds":0.0,"SystemSeconds":0.0,"MaxRssBytes":0},"#,
                r#""Memory":{"PeakBytes":1,"LimitBytes":null,"OomKills":2},"LastOutput":[],"First":true}]"#,
                "\n"
            )
        );
    }
}
