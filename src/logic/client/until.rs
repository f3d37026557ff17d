//! Decides how often `kapo wait --ready` asks, and whether an answer to /wait is the end of a job.

use std::time::Duration;

use super::json::Json;

/// The pause after the first request.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two requests.
const LONGEST: Duration = Duration::from_secs(1);

/// The pauses between requests: each is twice as long as the one before.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    answered: bool,
}

impl Pauses {
    /// Nothing has been asked yet.
    pub(crate) fn new() -> Pauses {
        Pauses { next: FIRST, answered: false }
    }

    /// Returns the pause after a request. `answered`: a kapo has answered it. After the first such answer the pauses begin
    /// anew, because a command that is up is ready soon.
    pub(crate) fn after(&mut self, answered: bool) -> Duration {
        if answered && !std::mem::replace(&mut self.answered, true) {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

/// Whether a document with an exit code tells the end of the job. Under `supervise` and `watch` another run may follow.
pub(crate) fn is_final(document: &[u8]) -> bool {
    Json::parse(document).is_some_and(|document| {
        document.list().first().is_some_and(|object| object.get("Mode").text() == "run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew_at_the_first_answer() {
        let mut pauses = Pauses::new();
        let mut millis = |answered| pauses.after(answered).as_millis();
        assert_eq!([(); 6].map(|()| millis(false)), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!([(); 4].map(|()| millis(true)), [100, 200, 400, 800]);
        assert_eq!([millis(false), millis(true)], [1000, 1000]);
    }

    #[test]
    fn only_the_end_of_a_run_is_final() {
        for (document, expected) in [
            (r#"[{"Mode":"run"}]"#, true),
            (r#"[{"Mode":"supervise"}]"#, false),
            (r#"[{"Mode":"watch"}]"#, false),
            ("[]", false),
            ("<html>", false),
        ] {
            assert_eq!(is_final(document.as_bytes()), expected, "{document}");
        }
    }
}
