//! Decides which starts and ends are logged while a command fails again and again. The first three equal ends in a row
//! are logged. Of the further ones, one record in a minute is written, with the number of runs that were left out
//! before it. The last run that was left out, and the start of the
//! present one, are kept and written when the series is over.

use std::time::{Duration, Instant};

use super::{Effect, Lifecycle, Now};
use crate::duration::Seconds;
use crate::logic::log::record::Record;
use crate::logic::reason::Reason;
use crate::signal::Signal;

/// How many equal ends in a row are logged before the first one is left out.
const WHOLE: u32 = 3;

/// The time between two records of a series. Ends that are further apart do not form a series.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The series of equal ends, and the records that were left out last.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// How and when the last run ended.
    last: Option<(Cause, Instant)>,
    /// How many ends in a row were equal.
    equal: u32,
    /// When the last record of an end was written.
    written: Option<Instant>,
    /// The number of runs that were left out since then, without the one in `end`.
    left_out: u64,
    end: Option<(Instant, Record)>,
    /// The start of the run that has ended with `end`.
    start_of_end: Option<(Instant, Record)>,
    /// The start of the present run.
    start: Option<(Instant, Record)>,
}

/// Ends with the same cause are equal.
type Cause = (Option<Reason>, u8, Option<Signal>);

impl Repeats {
    /// Logs the start of a run. Returns whether the record is kept instead.
    fn started(&mut self, now: Instant, record: Record, out: &mut Vec<Effect>) -> bool {
        if self.equal < WHOLE {
            out.push(Effect::Log(record));
            return false;
        }
        self.start = Some((now, record));
        true
    }

    /// Logs the end of a run. `stable` means that the run lasted long enough to end the series.
    fn ended(&mut self, now: Instant, cause: Cause, stable: bool, record: Record, out: &mut Vec<Effect>) {
        let repeated = !stable
            && self
                .last
                .is_some_and(|(last, at)| last == cause && now.saturating_duration_since(at) < MINUTE);
        if !repeated {
            self.flush(now, out);
        }
        self.last = Some((cause, now));
        self.equal = self.equal.saturating_add(1);
        let due = self.written.is_none_or(|at| now.saturating_duration_since(at) >= MINUTE);
        self.start_of_end = self.start.take();
        self.left_out += u64::from(self.end.take().is_some());
        if self.equal > WHOLE && !due {
            self.end = Some((now, record));
            return;
        }
        self.start_of_end = None;
        self.written = Some(now);
        let record = self.counted(record);
        out.push(Effect::Log(record));
    }

    /// Ends the series: writes the records that were left out last.
    fn flush(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.equal = 0;
        let end = self.end.take().map(|(at, record)| (at, self.counted(record)));
        for (at, record) in [self.start_of_end.take(), end, self.start.take()].into_iter().flatten() {
            let ago = now.saturating_duration_since(at);
            out.push(Effect::Log(if ago.is_zero() { record } else { record.with("ago", Seconds(ago)) }));
        }
    }

    /// Adds the number of ends that were left out.
    fn counted(&mut self, record: Record) -> Record {
        match std::mem::take(&mut self.left_out) {
            0 => record,
            left_out => record.number("repeats", left_out),
        }
    }
}

impl Lifecycle {
    /// Logs the start of a run. Returns whether the record is kept until the series of equal ends is over.
    pub(super) fn log_start(&mut self, now: Now, record: Record, out: &mut Vec<Effect>) -> bool {
        self.repeats.started(now.mono, record, out)
    }

    /// Logs the end that the document shows.
    pub(super) fn log_end(&mut self, now: Now, lasted: Duration, record: Record, out: &mut Vec<Effect>) {
        let Some(policy) = self.policy.as_ref().filter(|policy| !policy.log_repeats()) else {
            return out.push(Effect::Log(record));
        };
        let stable = policy.stable().is_some_and(|stable| lasted >= stable);
        let status = &self.document.status;
        let cause = (status.reason, status.exit_code, status.signal);
        self.repeats.ended(now.mono, cause, stable, record, out);
    }

    /// Ends the series of equal ends, and logs what was left out last.
    pub(super) fn end_series(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.repeats.flush(now.mono, out);
    }

    /// Whether the record of the last end was left out.
    pub(super) fn left_out_end(&self) -> bool {
        self.repeats.end.is_some()
    }
}
