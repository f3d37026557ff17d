//! Counts output that cannot be written, and logs the beginning and the end of each such failure.

use crate::logic::Stream;
use crate::logic::log::record::Record;

/// The loss of one stream since its sink began to fail.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    /// Number of bytes discarded in the current failure; `None` while the sink works.
    lost: Option<u64>,
    records: Vec<Record>,
}

impl Loss {
    /// Returns the state for another pipe of the same stream, which writes to the same sink. Pending records are not
    /// copied.
    pub(crate) fn successor(&self) -> Loss {
        Loss { lost: self.lost, records: Vec::new() }
    }

    /// Records that `bytes` bytes could not be written.
    pub(crate) fn lose(&mut self, stream: Stream, bytes: u64, error: &str) {
        if self.lost.is_none() {
            self.records
                .push(Record::error("output discarded").with("stream", stream.name()).with("error", error));
        }
        *self.lost.get_or_insert(0) += bytes;
    }

    /// Records that the sink has taken output again.
    pub(crate) fn written(&mut self, stream: Stream) {
        if let Some(lost) = self.lost.take() {
            self.records.push(
                Record::warn("output resumed").with("stream", stream.name()).number("discarded_bytes", lost),
            );
        }
    }

    /// Takes the pending log records.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_at_each_end() {
        let mut loss = Loss::default();
        loss.written(Stream::Stdout);
        assert!(loss.take_records().is_empty());
        loss.lose(Stream::Stdout, 7, "No space left on device");
        loss.lose(Stream::Stdout, 5, "No space left on device");
        assert_eq!(loss.take_records().len(), 1);
        let mut next = loss.successor();
        next.lose(Stream::Stdout, 1, "No space left on device");
        assert!(next.take_records().is_empty(), "another pipe of the stream does not log it again");
        for mut loss in [loss, next] {
            loss.written(Stream::Stdout);
            loss.written(Stream::Stdout);
            assert_eq!(loss.take_records().len(), 1);
        }
    }
}
