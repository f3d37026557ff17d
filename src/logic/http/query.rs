//! The query of a request target: parameters, percent-encoding, durations.

use std::time::Duration;

use crate::duration;

/// Decodes a percent-encoded text. An invalid escape is kept unchanged.
pub fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, taken) = match rest {
            [] => return None,
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            [byte, ..] => (*byte, 1),
        };
        rest = rest.get(taken..).unwrap_or_default();
        Some(byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// Returns the value of a parameter of a query (`a=1&b`), still percent-encoded; empty if it has no value. If a name is
/// repeated, the first parameter counts.
pub fn parameter<'a>(query: Option<&'a str>, name: &'a str) -> Option<&'a str> {
    parameters(query, name).next()
}

/// Returns the values of all parameters of that name, still percent-encoded.
pub fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.into_iter().flat_map(|query| query.split('&')).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(key).eq(name.bytes()).then_some(value)
    })
}

/// Parses a percent-encoded duration in the format of the command line: `30`, `0.5`, `500ms`, `1m30s`.
pub fn seconds(text: &str) -> Option<Duration> {
    duration::parse(&String::from_utf8(decoded(text).collect()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_counts() {
        assert_eq!(parameter(Some("a=1&b&a=2&%63=%33"), "a"), Some("1"));
        assert_eq!(parameter(Some("a=1&b&a=2&%63=%33"), "b"), Some(""));
        assert_eq!(parameter(Some("a=1&b&a=2&%63=%33"), "c"), Some("%33"));
        assert_eq!(parameter(Some("ab=1"), "a"), None);
        assert_eq!(parameter(None, "a"), None);
    }

    #[test]
    fn a_duration_may_be_percent_encoded() {
        for (text, time) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("1%2E5%73", Some(Duration::from_millis(1_500))),
            ("1%zz", None),
            ("%FF", None),
        ] {
            assert_eq!(seconds(text), time, "{text}");
        }
    }
}
