//! The writing half of a captured stream. What was read is written to the sink, or is lost and counted.

use crate::driver::output::sink::{Sink, Written};
use crate::driver::output::stream::CapturedStream;
use crate::error::reason;
use crate::logic::output::pieces;

impl CapturedStream {
    /// Writes all that was read, except for the beginning of a line that will be continued at once. Returns false if
    /// the sink is full.
    pub(super) fn write_out(&mut self, sink: &mut Sink<'_>) -> bool {
        let continues = self.continues();
        loop {
            let (bytes, done) = match self.lines {
                Some(_) => (self.rendered.lines.as_bytes(), &mut self.rendered.sent),
                None => (&self.input.bytes[..], &mut self.input.start),
            };
            let mut all = bytes.get(*done..).unwrap_or_default();
            // After a short write, the same bytes must be offered again, even if the state has changed since.
            let free = !sink.is_cut_short(self.stream);
            if continues {
                let again = if free { 0 } else { self.delivery.offered };
                all = all.get(..pieces::complete(all).max(again)).unwrap_or(all);
            }
            // Stop at the end of a line, so that waiting records can be written there.
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
                    // The part of a batch that was already written is not lost, and the batch must be counted only
                    // once.
                    self.rendered.consumed = 0;
                    self.counters.discarded_bytes += lost as u64;
                    self.loss.lose(self.stream, lost as u64, &reason(&errno.into()));
                }
            }
        }
        self.forget_written();
        true
    }

    /// Clears the buffers if all of their bytes are written.
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

    /// Whether the pipe holds more output than was read. If it does, the last line is completed before it is written,
    /// because another process that writes to the same target could write between the two parts of a line.
    fn continues(&self) -> bool {
        let open = self.run.pipe.is_some() && !self.run.ended;
        self.lines.is_none() && !self.input.dry && !self.policy.moves() && open
    }
}
