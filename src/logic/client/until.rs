//! Decides how often `kapo wait --ready` asks, and whether an answer to /wait is the end of a job.

use std::time::Duration;

use super::json::Json;

/// The pause after the first request.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two requests.
const LONGEST: Duration = Duration::from_secs(1);

/// Requests without an answer after which a kapo that has answered before counts as gone.
const MISSED: u32 = 10;

/// The pauses between requests: each is twice as long as the one before.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    answered: bool,
    /// Requests without an answer since the last answer.
    missed: u32,
}

impl Pauses {
    /// Nothing has been asked yet.
    pub(crate) fn new() -> Pauses {
        Pauses { next: FIRST, answered: false, missed: 0 }
    }

    /// Returns the pause after a request; `None` if a kapo has answered before and has now been silent for about ten
    /// seconds: it has exited. `answered`: a kapo has answered this request. After the first answer the pauses begin
    /// again with the shortest one, because a command that has started is usually ready soon.
    pub(crate) fn after(&mut self, answered: bool) -> Option<Duration> {
        self.missed = if answered { 0 } else { self.missed.saturating_add(1) };
        if answered && !std::mem::replace(&mut self.answered, true) {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        (!self.answered || self.missed <= MISSED).then_some(pause)
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
        let mut millis = |answered| pauses.after(answered).unwrap().as_millis();
        assert_eq!([(); 6].map(|()| millis(false)), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!([(); 4].map(|()| millis(true)), [100, 200, 400, 800]);
        assert_eq!([millis(false), millis(true)], [1000, 1000]);
    }

    #[test]
    fn a_kapo_that_has_answered_is_given_up_when_it_is_gone() {
        let mut pauses = Pauses::new();
        assert!((0..100).all(|_| pauses.after(false).is_some()), "a kapo that has not begun is waited for");
        assert!(pauses.after(true).is_some());
        assert_eq!((0..100).take_while(|_| pauses.after(false).is_some()).count(), 10);
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
