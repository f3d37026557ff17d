//! The stream /events, as `kapo ls --watch` reads it.

/// Removes all complete events (each ends with an empty line) from `received`. Returns the data of the last one that
/// has data: a document. Comments have none.
pub(crate) fn newest(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = received.windows(2).rposition(|pair| pair == b"\n\n")? + 2;
    let events: Vec<u8> = received.drain(..end).collect();
    let mut lines = events.split(|byte| *byte == b'\n').rev();
    lines.find_map(|line| line.strip_prefix(b"data: ")).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_complete_event_counts() {
        let mut received = b"id: 1\ndata: [1]\n\nid: 2\ndata: [2]\n\n: alive\n\nid: 3\ndata: [".to_vec();
        assert_eq!(newest(&mut received), Some(b"[2]".to_vec()));
        assert_eq!(received, b"id: 3\ndata: [");
        assert_eq!(newest(&mut received), None);
        received.extend_from_slice(b"3]\n\n");
        assert_eq!((newest(&mut received), received.len()), (Some(b"[3]".to_vec()), 0));
        assert_eq!(newest(&mut b": alive\n\n".to_vec()), None);
    }
}
