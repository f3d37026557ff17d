//! Parses durations such as `30`, `0.5`, `500ms`, `5m`, `1m30s` and `2d`, for options, variables and queries.

use std::fmt;
use std::time::Duration;

/// Formats a duration in seconds, to the millisecond: `40.125s`. [`parse`] accepts this form.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// Parses seconds, or numbers with units. Returns `None` for anything else, and the longest `Duration` for a value
/// that is too large.
pub fn parse(text: &str) -> Option<Duration> {
    // Count whole nanoseconds in a u128 and saturate: a float has NaN and rounding errors.
    const SECOND: u128 = 1_000_000_000;
    let mut rest = text;
    let mut total: u128 = 0;
    loop {
        let (whole, after) = leading_digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), leading_digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) = match after {
            // A number without a unit is allowed only as the whole text, because 1m30 would be ambiguous.
            "" if rest.len() == text.len() => (SECOND, ""),
            _ if after.starts_with("ms") => (SECOND / 1000, after.get(2..)?),
            _ if after.starts_with('s') => (SECOND, after.get(1..)?),
            _ if after.starts_with('m') => (SECOND * 60, after.get(1..)?),
            _ if after.starts_with('h') => (SECOND * 3_600, after.get(1..)?),
            _ if after.starts_with('d') => (SECOND * 86_400, after.get(1..)?),
            _ if after.starts_with('w') => (SECOND * 604_800, after.get(1..)?),
            _ => return None,
        };
        let decimal = |t: &str| {
            t.bytes().fold(0_u128, |sum, b| sum.saturating_mul(10).saturating_add(u128::from(b - b'0')))
        };
        // More than 18 digits do not change the nanoseconds, even for hours.
        let fraction = fraction.get(..18).unwrap_or(fraction);
        let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
        total = total.saturating_add(decimal(whole).saturating_mul(unit));
        total = total.saturating_add(decimal(fraction) * unit / scale);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Some(match u64::try_from(total / SECOND) {
        Ok(seconds) if seconds < u64::MAX => {
            Duration::new(seconds, u32::try_from(total % SECOND).unwrap_or_default())
        }
        _ => Duration::MAX,
    })
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formatted_duration_can_be_parsed_again() {
        for (time, text) in [(Duration::ZERO, "0.000s"), (Duration::from_micros(40_125_999), "40.125s")] {
            assert_eq!(Seconds(time).to_string(), text);
            assert_eq!(parse(text), Some(Duration::from_millis(u64::try_from(time.as_millis()).unwrap())));
        }
    }

    #[test]
    fn a_time_is_a_number_of_seconds_or_numbers_with_units() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            (".5", 500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("6h", 21_600_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            ("1w2d3h4m5s6ms", 788_645_006),
            ("0.25m", 15_000),
            ("1.0000000009", 1_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(
            parse("99999999999999999999h"),
            parse("18446744073709551615h"),
            "a value that is too large saturates"
        );
        assert!(parse("99999999999999999999").is_some_and(|long| long.as_secs() == u64::MAX));
    }

    #[test]
    fn text_that_is_no_duration_is_rejected() {
        for text in ["", "x", "-1", "1x", "1.2.3", "1m30", "NaN", "+1", ".", "s", "1 s", "30m5", "1y", "\0"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
