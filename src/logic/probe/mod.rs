//! kapo's own probes (`--probe`): when each of them runs, and what its results mean. The driver carries them out.
//!
//! Under `--unhealthy report` a probe runs only if a request asks for results and the last one is too old; the request
//! is answered when all runs that it needs have ended. Under `--unhealthy stop` one timer runs all probes. Until the
//! first success of a run of the command, results are renewed each second, so that a started command becomes ready
//! soon; the failures of that time count once in each interval, so that this does not stop a slow start earlier.

pub(crate) mod answer;

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::ProbeOptions;
use crate::logic::Now;
use crate::logic::metrics::ProbeSample;
use crate::logic::status::ProbeStatus;

/// How often a probe runs until its first success, unless the interval is shorter.
const EARLY: Duration = Duration::from_secs(1);

/// A timer that fires this late means that kapo itself did not run. The command may not have run either.
const LATE: Duration = Duration::from_secs(1);

/// The reason before the first result.
const UNKNOWN: &str = "not checked yet";

/// The probes of one command.
#[derive(Debug)]
pub(crate) struct Probes {
    options: Rc<ProbeOptions>,
    rows: Vec<ProbeRow>,
    /// The start of the present run of the command; `None` while the command is not running.
    run: Option<Instant>,
    /// When the timer of `--unhealthy stop` fires next.
    tick: Option<Instant>,
}

/// One probe.
#[derive(Debug)]
struct ProbeRow {
    status: ProbeStatus,
    /// The attempt that is being made.
    attempt: Option<Attempt>,
    /// When the last attempt ended, in this run of the command.
    checked: Option<Instant>,
    /// When the last attempt began that counted as a failure in a row.
    counted: Option<Instant>,
    /// The probe has passed in this run of the command.
    passed: bool,
    failures: u64,
    duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    /// Whether kapo has begun it too late.
    late: bool,
}

impl Probes {
    /// Returns the probes before the first run of the command.
    pub(crate) fn new(options: Rc<ProbeOptions>) -> Probes {
        let row = |(index, probe): (usize, &crate::config::OwnProbe)| ProbeRow {
            status: ProbeStatus {
                name: probe.label(index),
                up: false,
                failures: 0,
                last_check: None,
                reason: UNKNOWN.to_owned(),
            },
            attempt: None,
            checked: None,
            counted: None,
            passed: false,
            failures: 0,
            duration: None,
        };
        let rows = options.probes.iter().enumerate().map(row).collect();
        Probes { options, rows, run: None, tick: None }
    }

    /// Returns the options.
    pub(crate) fn options(&self) -> &ProbeOptions {
        &self.options
    }

    /// Begins with another run. The driver has cancelled all attempts of the run before, so their results cannot arrive.
    pub(crate) fn run_started(&mut self, now: Now) {
        self.run = Some(now.mono);
        self.tick = self.options.stop.then(|| now.mono + self.options.interval.min(EARLY));
        for row in &mut self.rows {
            (row.attempt, row.checked, row.counted, row.passed) = (None, None, None, false);
            (row.status.up, row.status.failures, row.status.last_check) = (false, 0, None);
            UNKNOWN.clone_into(&mut row.status.reason);
        }
    }

    /// Ends the timer, because the command is being stopped and no attempt begins any more in this run.
    pub(crate) fn run_stopping(&mut self) {
        self.tick = None;
    }

    /// Ends with the run.
    pub(crate) fn run_ended(&mut self) {
        (self.run, self.tick) = (None, None);
        for row in &mut self.rows {
            row.attempt = None;
        }
    }

    /// Returns when a request that needs results must be answered at the latest; `None` if it can be answered now.
    pub(crate) fn wait(&self, now: Now) -> Option<Instant> {
        if self.options.stop || self.run.is_none() {
            return None;
        }
        let timeout = self.options.timeout;
        let end = |row: &ProbeRow| match row.attempt {
            Some(attempt) => Some(attempt.began + timeout),
            None => self.is_stale(row, now).then(|| now.mono + timeout),
        };
        self.rows.iter().filter_map(end).max().filter(|at| *at > now.mono)
    }

    fn is_stale(&self, row: &ProbeRow, now: Now) -> bool {
        row.checked.is_none_or(|at| now.mono.saturating_duration_since(at) >= self.pace(row.passed))
    }

    fn pace(&self, passed: bool) -> Duration {
        if passed { self.options.interval } else { self.options.interval.min(EARLY) }
    }

    /// Returns the probes to run now, each of which then has an attempt. `asked`: a request needs results.
    pub(crate) fn begin(&mut self, now: Now, asked: bool) -> Vec<usize> {
        let mut begun = Vec::new();
        let mut late = false;
        if self.options.stop {
            let Some(at) = self.tick.filter(|at| *at <= now.mono) else { return begun };
            late = now.mono.saturating_duration_since(at) > LATE;
            let pace = self.pace(self.rows.iter().all(|row| row.passed));
            // A timer that was late begins anew, so that it does not fire several times in a row.
            self.tick = Some((at + pace).max(now.mono + pace / 2));
        } else if !asked || self.run.is_none() {
            return begun;
        }
        for index in 0..self.rows.len() {
            let wanted =
                |row: &ProbeRow| row.attempt.is_none() && (self.options.stop || self.is_stale(row, now));
            if self.rows.get(index).is_some_and(wanted)
                && let Some(row) = self.rows.get_mut(index)
            {
                row.attempt = Some(Attempt { began: now.mono, late });
                begun.push(index);
            }
        }
        begun
    }

    /// Returns the attempts whose time is up. The driver reports the failure of each with [`Probes::finished`].
    pub(crate) fn expired(&self, now: Now) -> Vec<usize> {
        let timeout = self.options.timeout;
        let over = |row: &ProbeRow| row.attempt.is_some_and(|attempt| attempt.began + timeout <= now.mono);
        self.rows.iter().enumerate().filter(|(_, row)| over(row)).map(|(index, _)| index).collect()
    }

    /// Returns when an attempt's time is up or the timer fires; `None` if neither is to come.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timeout = self.options.timeout;
        let ends = self.rows.iter().filter_map(|row| row.attempt.map(|attempt| attempt.began + timeout));
        ends.chain(self.tick).min()
    }

    /// Records the end of an attempt. `counts` is false while the command cannot answer for reasons of its own, such as
    /// a stop. Returns the reason to stop the command, if it has become unhealthy.
    pub(crate) fn finished(
        &mut self,
        now: Now,
        index: usize,
        result: Result<(), String>,
        counts: bool,
    ) -> Option<String> {
        let started = self.run?;
        let Probes { options, rows, .. } = self;
        let row = rows.get_mut(index)?;
        let attempt = row.attempt.take()?;
        row.checked = Some(now.mono);
        let lasted = now.mono.saturating_duration_since(attempt.began);
        let status = &mut row.status;
        let Err(why) = result else {
            (row.passed, row.duration, status.last_check) = (true, Some(lasted), Some(now.wall));
            (status.up, status.failures) = (true, 0);
            status.reason.clear();
            return None;
        };
        // A failure that is none: what was known before stays.
        if !counts || attempt.late || lasted > options.timeout + LATE {
            return None;
        }
        (row.duration, status.last_check, status.up) = (Some(lasted), Some(now.wall), false);
        if now.mono.saturating_duration_since(started) < options.grace {
            status.reason = why + ", in the grace period";
            return None;
        }
        let early = !row.passed
            && row
                .counted
                .is_some_and(|at| attempt.began + options.interval.min(EARLY) / 2 < at + options.interval);
        if !early {
            row.counted = Some(attempt.began);
            row.failures += 1;
            status.failures = status.failures.saturating_add(1);
        }
        let limit = options.failures;
        status.reason = format!("{why}, {} of {limit}", status.failures.min(limit));
        let unhealthy = options.stop && !early && status.failures == limit;
        unhealthy.then(|| match options.probes.len() {
            1 => status.reason.clone(),
            _ => format!("{}: {}", status.name, status.reason),
        })
    }

    /// Returns the member `Probes` of the document.
    pub(crate) fn status(&self) -> Vec<ProbeStatus> {
        self.rows.iter().map(|row| row.status.clone()).collect()
    }

    /// Returns the values for the metrics.
    pub(crate) fn samples(&self) -> Vec<ProbeSample> {
        let sample = |row: &ProbeRow| ProbeSample {
            label: row.status.name.clone(),
            // The result of a run that has ended says nothing about the present.
            up: row.status.up && self.run.is_some(),
            failures: row.failures,
            duration: row.duration,
        };
        self.rows.iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests;
