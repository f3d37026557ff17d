//! The contents of the file of `--textfile`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Counts, Format, Selection, Snapshot, render_families};
use crate::duration;

/// Renders the file. `name` is the value of the label `name`.
pub(crate) fn render_textfile(snapshot: &Snapshot, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 << 10);
    // None of these families counts requests.
    let counts = &Counts::default();
    render_families(&mut out, Format::Text, Selection::textfile(), snapshot, counts, Some(name));
    out
}

/// Returns the time of the last success that the file of an earlier kapo shows. A time after `now` is ignored, because
/// it would prevent an alert.
pub(crate) fn earlier_success(text: &[u8], name: &str, now: SystemTime) -> Option<SystemTime> {
    let start = format!("kapo_child_last_success_time_seconds{{name=\"{name}\"}} ");
    let value = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(start.as_bytes()))?;
    let value =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b"0123456789.".contains(&b)))?;
    UNIX_EPOCH.checked_add(duration::parse(value)?).filter(|at| *at <= now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_success_of_an_earlier_kapo_is_found() {
        let line = |value: &str| {
            format!(
                "kapo_child_up{{name=\"a\"}} 0\nkapo_child_last_success_time_seconds{{name=\"a\"}} {value}\n"
            )
        };
        let now = UNIX_EPOCH + Duration::from_secs(2_000);
        let find = |text: &str, name| earlier_success(text.as_bytes(), name, now);
        assert_eq!(find(&line("1500.25"), "a"), Some(UNIX_EPOCH + Duration::from_millis(1_500_250)));
        assert_eq!(find(&line("2000"), "a"), Some(now));
        assert_eq!(find(&line("1500"), "b"), None, "another job");
        for value in ["", "x", "-1", "1h", "2000.1", "99999999999999999999", "1500 extra", "1e3", "."] {
            assert_eq!(find(&line(value), "a"), None, "{value}");
        }
        assert_eq!(earlier_success(b"\xff\xfe\n\n", "a", now), None);
    }
}
