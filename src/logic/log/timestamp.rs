//! Formats wall-clock time: RFC 3339 for documents and log lines, IMF-fixdate (RFC 9110, section 5.6.7) for the HTTP
//! field Date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The zero time of Go, which means "not yet" or "never" in the status document.
pub(crate) const ZERO: &str = "0001-01-01T00:00:00Z";

/// A time in UTC in the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanos: u32,
    /// 0 is Sunday.
    weekday: u8,
}

/// The limits of a year with four digits. A time beyond them is shown as the nearest limit.
const FIRST: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
const LAST: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

impl Civil {
    fn new(wall: SystemTime) -> Civil {
        let (seconds, nanos) = match wall.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(LAST), since.subsec_nanos()),
            Err(before) => {
                let before: Duration = before.duration();
                let whole = -i64::try_from(before.as_secs()).unwrap_or(-FIRST);
                match before.subsec_nanos() {
                    0 => (whole, 0),
                    nanos => (whole - 1, 1_000_000_000 - nanos),
                }
            }
        };
        let seconds = seconds.clamp(FIRST, LAST);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years begin in March here, so that the leap day is the last day of a year. An era has 400 years.
        let from_march = days + 719_468;
        let (era, of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let small = |n: i64| u8::try_from(n).unwrap_or(0);
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(of_year - (153 * shifted + 2) / 5 + 1),
            hour: small(of_day / 3_600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
            nanos,
            weekday: small((days + 4).rem_euclid(7)),
        }
    }
}

/// Formats `wall` as Go does: `2026-11-22T06:45:30.123456789Z`, without trailing zeros in the fraction.
pub(crate) fn rfc3339(wall: SystemTime) -> String {
    let c = Civil::new(wall);
    let mut text =
        format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second);
    if c.nanos != 0 {
        text.push_str(format!(".{:09}", c.nanos).trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Returns the begin of the second, for texts that people read.
pub(crate) fn whole_second(wall: SystemTime) -> SystemTime {
    let part = wall.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    wall - Duration::from_nanos(part.into())
}

/// Parses what [`rfc3339`] writes. Returns `None` for anything else, and for [`ZERO`].
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let (second, fraction) = text.strip_suffix('Z')?.split_at_checked(FORM.len())?;
    let digits = match fraction.strip_prefix('.') {
        Some(digits) if (1..=9).contains(&digits.len()) => digits,
        None if fraction.is_empty() => "",
        _ => return None,
    };
    let mut numbers = [0_i64; 6];
    let mut at = 0;
    for (byte, form) in second.bytes().zip(FORM) {
        match (byte, form) {
            (b'0'..=b'9', b'0') => {
                let number = numbers.get_mut(at)?;
                *number = *number * 10 + i64::from(byte - b'0');
            }
            (byte, form) if byte == *form => at += 1,
            _ => return None,
        }
    }
    let mut nanos = 0;
    for place in 0..9 {
        let digit = digits.as_bytes().get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    let [year, month, day, hour, minute, second] = numbers;
    if !(1..=12).contains(&month) || hour > 23 || text == ZERO {
        return None;
    }
    // The inverse of Civil::new.
    let (year, shifted) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let wall = if seconds < 0 { UNIX_EPOCH.checked_sub(whole)? } else { UNIX_EPOCH.checked_add(whole)? };
    wall.checked_add(Duration::from_nanos(nanos))
}

/// Appends `2026-11-22T06:45:30.123456Z`, always with six decimals, so that log lines align and sort.
pub(crate) fn log_time(wall: SystemTime, out: &mut Vec<u8>) {
    let c = Civil::new(wall);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    // Formatting with `write!` takes ten times as long, which is noticed in the start of kapo.
    for (end, mut number) in [
        (4, u32::try_from(c.year).unwrap_or(0)),
        (7, c.month.into()),
        (10, c.day.into()),
        (13, c.hour.into()),
        (16, c.minute.into()),
        (19, c.second.into()),
        (26, c.nanos / 1_000),
    ] {
        for place in text.iter_mut().take(end).rev().take_while(|place| place.is_ascii_digit()) {
            *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }
    out.extend_from_slice(&text);
}

/// Formats `wall` like `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn imf_fixdate(wall: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let c = Civil::new(wall);
    let day = DAYS.get(usize::from(c.weekday)).copied().unwrap_or("Sun");
    let month = MONTHS.get(usize::from(c.month).saturating_sub(1)).copied().unwrap_or("Jan");
    format!("{day}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT", c.day, c.year, c.hour, c.minute, c.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: u32) -> SystemTime {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let wall = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
        wall + Duration::from_nanos(u64::from(nanos))
    }

    #[test]
    fn times_are_formatted_like_date_and_go_do() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (784_111_777, 0, "1994-11-06T08:49:37Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_763_793_930, 123_456_789, "2025-11-22T06:45:30.123456789Z"),
            (4_107_542_399, 1, "2100-02-28T23:59:59.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (-1, 250_000_000, "1969-12-31T23:59:59.25Z"),
            (FIRST, 0, ZERO),
            (LAST, 0, "9999-12-31T23:59:59Z"),
            (LAST + 10, 0, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at(seconds, nanos)), text);
            let read = Some(at(seconds.min(LAST), nanos)).filter(|_| text != ZERO);
            assert_eq!(parse_rfc3339(text), read, "{text}");
        }
    }

    #[test]
    fn the_example_of_rfc_9110_is_produced() {
        assert_eq!(imf_fixdate(at(784_111_777, 5)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn text_that_is_no_time_is_rejected() {
        for text in [
            "",
            "Z",
            "T",
            "2026-11-22",
            "2026-11-22T06:45:30",
            "2026-11-22T06:45Z",
            "2026-13-22T06:45:30Z",
            "2026-11-22T24:45:30Z",
            "2026-11-22T06:45:30.Z",
            "2026-11-22T06:45:30.1234567890Z",
            "2026-11-22T06:45:30.-1Z",
            "99999999999-11-22T06:45:30Z",
            "2026-11-22-1T06:45:30Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn log_lines_always_have_six_decimals() {
        let mut out = Vec::new();
        log_time(at(1_763_793_930, 1_999), &mut out);
        assert_eq!(out, b"2025-11-22T06:45:30.000001Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = String::new();
        for day in 0..146_097 {
            let text = rfc3339(at(day * 86_400, 0));
            assert!(text > last, "{last} then {text}");
            assert_eq!(parse_rfc3339(&text), Some(at(day * 86_400, 0)));
            last = text;
        }
        assert_eq!(last, "2369-12-31T00:00:00Z");
    }
}
