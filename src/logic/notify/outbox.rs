//! Datagrams that the service manager has not accepted yet: their order, and which one makes room for another.

/// The greatest number of datagrams that wait. State messages alone never reach it.
const CAPACITY: usize = 16;

/// The queue, oldest datagram first.
#[derive(Debug, Default)]
pub(crate) struct NotifyQueue(Vec<Vec<u8>>);

impl NotifyQueue {
    /// Adds a datagram. It replaces an older one of the same state, an older `STATUS=`, or an equal one. In a full queue
    /// the oldest datagram that is not a state message makes room.
    pub(crate) fn push(&mut self, datagram: Vec<u8>) {
        self.0.retain(|older| !replaces(&datagram, older));
        if self.0.len() >= CAPACITY
            && let Some(least) = self.0.iter().position(|older| state(older).is_none())
        {
            self.0.remove(least);
        }
        self.0.push(datagram);
    }

    /// Returns the datagram to send next.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.0.first().map(Vec::as_slice)
    }

    /// Removes the datagram that [`NotifyQueue::first`] returned.
    pub(crate) fn remove_first(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }

    /// Keeps state messages only, because the manager has not read for a long time.
    pub(crate) fn keep_states(&mut self) {
        self.0.retain(|datagram| state(datagram).is_some());
    }
}

/// The states that a service manager acts on. Each is in the queue once at most.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Reloading,
    Stopping,
}

fn state(datagram: &[u8]) -> Option<State> {
    datagram.split(|byte| *byte == b'\n').find_map(|line| match line {
        b"READY=1" => Some(State::Ready),
        b"RELOADING=1" => Some(State::Reloading),
        b"STOPPING=1" => Some(State::Stopping),
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
    fn a_state_message_makes_room_in_a_queue_full_of_others() {
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
    fn of_each_state_and_of_status_only_the_last_is_kept() {
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
    fn states_outlast_a_manager_that_does_not_read() {
        let mut queue = queue_of(&["STATUS=a", "READY=1", "ERRNO=1", "STOPPING=1"]);
        queue.keep_states();
        assert_eq!(contents(queue), ["READY=1", "STOPPING=1"]);
    }
}
