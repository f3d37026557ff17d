//! The part of a request's target behind the `?`: parameters, percent-encoding, durations.

use std::time::Duration;

/// The bytes of a percent-encoded text; what is no correct escape stands for itself.
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

/// The value of a parameter of a query (`a=1&b`), still percent-encoded; empty where it has none. Of several of the
/// same name the first counts.
pub fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(key).eq(name.bytes()).then_some(value)
    })
}

/// A duration as the command line takes it: `30`, `0.5`, `500ms`, `1m30s`.
pub fn seconds(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] =
        [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
    let text = String::from_utf8(decoded(text).collect()).ok()?;
    let mut rest = text.as_str();
    let mut total = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        // Only a number that stands alone may lack its unit.
        let nanos = match unit {
            "" if number.len() == text.len() => 1_000_000_000,
            _ => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        total = total.saturating_add(scaled(number, nanos)?);
        rest = tail;
    }
    Some(total)
}

/// A decimal number of units of so many nanoseconds; what is too long is the longest.
fn scaled(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().unwrap_or(u64::MAX) };
    // Nine decimals are more than a clock shows.
    let fraction = format!("{fraction:0<9}").get(..9)?.parse::<u64>().ok()?;
    let all =
        u128::from(whole) * u128::from(nanos) + u128::from(fraction) * u128::from(nanos) / 1_000_000_000;
    let seconds = u64::try_from(all / 1_000_000_000).unwrap_or(u64::MAX);
    Some(Duration::new(seconds, u32::try_from(all % 1_000_000_000).ok()?))
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
    fn the_time_to_wait_is_read_as_on_the_command_line() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            (".5", 500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("6h", 21_600_000),
            ("0.25m", 15_000),
            ("1.0000000009", 1_000),
        ] {
            assert_eq!(seconds(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(
            seconds("99999999999999999999h"),
            seconds("18446744073709551615h"),
            "too long is the longest"
        );
        assert!(seconds("99999999999999999999").is_some_and(|long| long.as_secs() == u64::MAX));
    }
}
