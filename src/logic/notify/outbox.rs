//! Queues datagrams for the service manager: their order, replacement, retries and drops, and the watchdog pings.
//! Knows nothing about sockets.

use std::time::{Duration, Instant};

use crate::logic::Now;
use crate::logic::log::record::Record;

/// The maximum number of waiting datagrams. State messages alone never reach it.
const CAPACITY: usize = 16;
/// The pause before the next attempt if the manager's queue was full.
const RETRY: Duration = Duration::from_secs(1);
/// The maximum number of attempts. After that only state messages are kept, and the next datagram starts a new
/// attempt.
const TRIES: u32 = 30;

/// The result of an attempt to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// The datagram is in the manager's queue.
    Accepted,
    /// The manager's queue is full.
    Full,
    /// The socket is gone, or kapo may not write to it. The datagram is dropped.
    Failed(String),
}

/// The queue of datagrams, with its retries and watchdog pings.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: NotifyQueue,
    tries: u32,
    retry: Option<Instant>,
    /// The interval of the watchdog pings, and the time of the next one.
    ping: Option<(Duration, Instant)>,
    /// The first failure, which is logged once.
    failure: Failure,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Failure {
    #[default]
    None,
    Unreported(String),
    Reported,
}

impl Outbox {
    /// Creates an empty outbox. `watchdog` is the interval after which the manager acts on a missing ping. The first
    /// ping is due at once.
    pub(crate) fn new(now: Now, watchdog: Option<Duration>) -> Outbox {
        Outbox {
            queue: NotifyQueue::default(),
            tries: 0,
            retry: None,
            ping: watchdog.map(|interval| (interval / 2, now.mono)),
            failure: Failure::None,
        }
    }

    /// Adds a datagram. The caller must try to send at once.
    pub(crate) fn push(&mut self, datagram: Vec<u8>) {
        self.queue.push(datagram);
    }

    /// Returns the datagram to send next.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.queue.first()
    }

    /// Records the result of sending [`Outbox::first`]. Returns whether the next datagram should be sent at once.
    pub(crate) fn sent(&mut self, now: Now, delivery: SendOutcome) -> bool {
        match delivery {
            SendOutcome::Full if self.tries < TRIES => {
                // Attempts are counted by time, not by the number of datagrams.
                if self.retry.is_none_or(|at| at <= now.mono) {
                    self.tries += 1;
                    self.retry = now.mono.checked_add(RETRY);
                }
                return false;
            }
            SendOutcome::Full => {
                self.queue.keep_states();
                self.retry = None;
                return false;
            }
            SendOutcome::Accepted => {}
            SendOutcome::Failed(why) if self.failure == Failure::None => {
                self.failure = Failure::Unreported(why);
            }
            SendOutcome::Failed(_) => {}
        }
        self.queue.remove_first();
        let more = self.queue.first().is_some();
        if !more {
            (self.tries, self.retry) = (0, None);
        }
        more
    }

    /// Returns when [`Outbox::turn`] must be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.ping.map(|(_, at)| at), self.retry].into_iter().flatten().min()
    }

    /// Adds a ping if one is due. Returns whether the caller should send.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let ping = self.ping.filter(|(_, at)| *at <= now.mono);
        if let Some((interval, _)) = ping {
            self.ping = now.mono.checked_add(interval).map(|next| (interval, next));
            self.queue.push(b"WATCHDOG=1".to_vec());
        }
        ping.is_some() || self.retry.is_some_and(|at| at <= now.mono)
    }

    /// Returns the log record of a failure, only once. The record is needed because systemd waits for the lost
    /// notification, and the service fails without any other explanation in the log.
    pub(crate) fn take_record(&mut self) -> Option<Record> {
        match std::mem::take(&mut self.failure) {
            Failure::None => None,
            Failure::Unreported(why) => {
                self.failure = Failure::Reported;
                Some(Record::warn("notify socket unreachable").with("error", why))
            }
            Failure::Reported => {
                self.failure = Failure::Reported;
                None
            }
        }
    }
}

/// The queue, oldest datagram first.
#[derive(Debug, Default)]
struct NotifyQueue(Vec<Vec<u8>>);

impl NotifyQueue {
    /// Adds a datagram. It replaces an older one of the same state, an older `STATUS=`, or an equal one. If the queue
    /// is full, the oldest datagram that is not a state message is dropped.
    fn push(&mut self, datagram: Vec<u8>) {
        self.0.retain(|older| !replaces(&datagram, older));
        if self.0.len() >= CAPACITY
            && let Some(least) = self.0.iter().position(|older| state(older).is_none())
        {
            self.0.remove(least);
        }
        self.0.push(datagram);
    }

    /// Returns the datagram to send next.
    fn first(&self) -> Option<&[u8]> {
        self.0.first().map(Vec::as_slice)
    }

    /// Removes the datagram that [`NotifyQueue::first`] returned.
    fn remove_first(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }

    /// Removes all datagrams except state messages, because the manager has not read for a long time.
    fn keep_states(&mut self) {
        self.0.retain(|datagram| state(datagram).is_some());
    }
}

/// The states that a service manager acts on. The queue holds at most one datagram of each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ManagerState {
    Ready,
    Reloading,
    Stopping,
}

fn state(datagram: &[u8]) -> Option<ManagerState> {
    datagram.split(|byte| *byte == b'\n').find_map(|line| match line {
        b"READY=1" => Some(ManagerState::Ready),
        b"RELOADING=1" => Some(ManagerState::Reloading),
        b"STOPPING=1" => Some(ManagerState::Stopping),
        _ => None,
    })
}

fn replaces(newer: &[u8], older: &[u8]) -> bool {
    let is_status = |datagram: &[u8]| datagram.starts_with(b"STATUS=");
    let same_state = state(newer).is_some_and(|newer| state(older) == Some(newer));
    newer == older || same_state || is_status(newer) && is_status(older)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    fn queue_of(datagrams: &[&str]) -> NotifyQueue {
        let mut queue = NotifyQueue::default();
        for datagram in datagrams {
            queue.push(datagram.as_bytes().to_vec());
        }
        queue
    }

    fn contents(mut queue: NotifyQueue) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(datagram) = queue.first() {
            all.push(String::from_utf8(datagram.to_vec()).unwrap());
            queue.remove_first();
        }
        all
    }

    #[test]
    fn a_state_message_replaces_another_one_in_a_full_queue() {
        let errors: Vec<String> = (0..20).map(|n| format!("ERRNO={n}")).collect();
        let mut all = vec!["READY=1"];
        all.extend(errors.iter().map(String::as_str));
        all.extend(["RELOADING=1\nMONOTONIC_USEC=1", "STOPPING=1"]);
        let kept = contents(queue_of(&all));
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(kept[0], "READY=1");
        assert_eq!(kept[1], "ERRNO=7", "the oldest of the others are dropped");
        assert_eq!(kept[14..], ["RELOADING=1\nMONOTONIC_USEC=1", "STOPPING=1"]);
    }

    #[test]
    fn only_the_last_message_of_each_state_is_kept() {
        for (pushed, kept) in [
            (vec!["STATUS=a", "READY=1", "STATUS=b"], vec!["READY=1", "STATUS=b"]),
            (vec!["WATCHDOG=1", "STATUS=a", "WATCHDOG=1"], vec!["STATUS=a", "WATCHDOG=1"]),
            (
                vec!["READY=1", "RELOADING=1\nMONOTONIC_USEC=1", "READY=1", "RELOADING=1\nMONOTONIC_USEC=2"],
                vec!["READY=1", "RELOADING=1\nMONOTONIC_USEC=2"],
            ),
            (vec!["ERRNO=1", "ERRNO=2"], vec!["ERRNO=1", "ERRNO=2"]),
        ] {
            assert_eq!(contents(queue_of(&pushed)), kept);
        }
    }

    #[test]
    fn states_are_kept_while_the_manager_does_not_read() {
        let mut queue = queue_of(&["STATUS=a", "READY=1", "ERRNO=1", "STOPPING=1"]);
        queue.keep_states();
        assert_eq!(contents(queue), ["READY=1", "STOPPING=1"]);
    }

    fn after(seconds: u64) -> Now {
        let now = epoch();
        Now { mono: now.mono + Duration::from_secs(seconds), ..now }
    }

    fn outbox_of(datagrams: &[&str]) -> Outbox {
        Outbox { queue: queue_of(datagrams), ..Outbox::new(after(0), None) }
    }

    #[test]
    fn sending_to_a_full_queue_is_retried_every_second() {
        let mut outbox = outbox_of(&["STATUS=a", "READY=1"]);
        for second in 0..u64::from(TRIES) - 1 {
            // Datagrams that are added between two attempts do not count as attempts.
            for _ in 0..3 {
                assert!(!outbox.sent(after(second), SendOutcome::Full));
                assert_eq!(outbox.deadline(), Some(after(second + 1).mono));
            }
            assert!(!outbox.turn(after(second)) && outbox.turn(after(second + 1)));
        }
        // The last attempt, and the first datagram after it.
        assert!(!outbox.sent(after(100), SendOutcome::Full) && outbox.deadline().is_some());
        assert!(!outbox.sent(after(100), SendOutcome::Full) && outbox.deadline().is_none());
        assert_eq!(contents(outbox.queue), ["READY=1"]);
    }

    #[test]
    fn an_empty_queue_resets_the_number_of_attempts() {
        let mut outbox = outbox_of(&["STATUS=a", "READY=1"]);
        assert!(!outbox.sent(after(0), SendOutcome::Full));
        assert!(outbox.sent(after(1), SendOutcome::Accepted));
        assert_eq!((outbox.tries, outbox.deadline()), (1, Some(after(1).mono)));
        assert!(!outbox.sent(after(1), SendOutcome::Accepted));
        assert_eq!((outbox.tries, outbox.deadline()), (0, None));
    }

    #[test]
    fn a_failure_drops_the_datagram_and_is_logged_once() {
        let mut outbox = outbox_of(&["STATUS=a", "READY=1", "ERRNO=1"]);
        assert!(outbox.take_record().is_none());
        assert!(outbox.sent(after(0), SendOutcome::Failed("Connection refused".to_owned())));
        assert!(outbox.sent(after(0), SendOutcome::Failed("No such file or directory".to_owned())));
        assert_eq!(outbox.failure, Failure::Unreported("Connection refused".to_owned()));
        assert!(outbox.take_record().is_some() && outbox.take_record().is_none());
        assert!(!outbox.sent(after(0), SendOutcome::Failed("Connection refused".to_owned())));
        assert!(outbox.take_record().is_none());
    }

    #[test]
    fn the_watchdog_is_pinged_twice_in_each_interval() {
        let mut outbox = Outbox::new(after(0), Some(Duration::from_secs(10)));
        for second in [0, 5, 10] {
            assert_eq!(outbox.deadline(), Some(after(second).mono));
            assert!(outbox.turn(after(second)) && !outbox.turn(after(second + 4)));
            assert_eq!(outbox.first(), Some(&b"WATCHDOG=1"[..]));
            assert!(!outbox.sent(after(second), SendOutcome::Accepted));
        }
        assert_eq!(Outbox::new(after(0), None).deadline(), None);
    }
}
