//! The writing half of a captured stream: what was read goes to the sink, or is lost and counted.

use crate::driver::output::sink::{Sink, Written};
use crate::driver::output::stream::CapturedStream;
use crate::error::reason;
use crate::logic::output::pieces;

impl CapturedStream {
    /// Writes all that was read, except for the beginning of a line of which more is to come at once; false when the
    /// sink is full.
    pub(super) fn write_out(&mut self, sink: &mut Sink<'_>) -> bool {
        let goes_on = self.goes_on();
        loop {
            let (bytes, done) = match self.lines {
                Some(_) => (self.rendered.lines.as_bytes(), &mut self.rendered.sent),
                None => (&self.input.bytes[..], &mut self.input.start),
            };
            let mut all = bytes.get(*done..).unwrap_or_default();
            // After a cut the sink must be offered the same bytes again, whatever has changed meanwhile.
            let free = !sink.is_cut_short(self.stream);
            if goes_on {
                let again = if free { 0 } else { self.delivery.offered };
                all = all.get(..pieces::complete(all).max(again)).unwrap_or(all);
            }
            // Records that wait get their place at the end of a line.
            let records = free && sink.has_records();
            let line_end = records.then(|| all.iter().rposition(|&b| b == b'\n')).flatten();
            let piece = line_end.and_then(|at| all.get(..=at)).unwrap_or(all);
            if piece.is_empty() {
                break;
            }
            let written = sink.write(self.stream, piece);
            match written {
                Written::All | Written::Part(_) => {
                    let taken = if let Written::Part(taken) = written { taken } else { piece.len() };
                    *done += taken;
                    self.delivery.offered = piece.len() - taken;
                    self.delivery.mid_line =
                        taken.checked_sub(1).and_then(|last| piece.get(last)) != Some(&b'\n');
                    if line_end.is_some() && written == Written::All {
                        sink.hold(self.stream, false);
                    }
                    self.loss.written(self.stream);
                }
                Written::Full => {
                    self.delivery.offered = piece.len();
                    return false;
                }
                Written::Failed(errno) => {
                    let lost =
                        if self.lines.is_some() { self.rendered.consumed } else { bytes.len() - *done };
                    *done = bytes.len();
                    self.delivery.offered = 0;
                    // What was already written of a batch of lines is not lost, and a batch is lost once.
                    self.rendered.consumed = 0;
                    self.counters.discarded_bytes += lost as u64;
                    self.loss.lose(self.stream, lost as u64, &reason(&errno.into()));
                }
            }
        }
        self.forget_written();
        true
    }

    /// Empties the buffers of what was written.
    fn forget_written(&mut self) {
        match self.lines {
            Some(_) => {
                self.rendered.lines.clear();
                (self.rendered.sent, self.rendered.consumed) = (0, 0);
            }
            None if self.input.rest().is_empty() => {
                self.input.bytes.clear();
                self.input.start = 0;
            }
            None => {}
        }
    }

    /// Whether raw input ends in the middle of what the command wrote: there is more in the pipe, so the last line is
    /// completed first. A line that is written in two pieces could be torn by another writer of the same pipe.
    fn goes_on(&self) -> bool {
        let open = self.run.pipe.is_some() && !self.run.ended;
        self.lines.is_none() && !self.input.dry && !self.policy.moves() && open
    }
}
