//! Formats times, sizes and the ends of runs for `kapo status`.

use std::time::{Duration, SystemTime};

use super::json::Json;
use crate::logic::log::timestamp;

/// Returns a member that is a time, if it exists.
pub(crate) fn time(object: &Json, name: &str) -> Option<SystemTime> {
    timestamp::parse_rfc3339(object.get(name).text())
}

/// Formats a time: `2026-11-22 06:45:30Z`.
pub(crate) fn moment(wall: SystemTime) -> String {
    let text = timestamp::rfc3339(wall);
    format!("{}Z", text.get(..19).unwrap_or(&text).replace('T', " "))
}

/// Cuts a text to `most` characters. The last character of a cut text is an ellipsis.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let end = text.char_indices().nth(most.saturating_sub(1)).map_or(0, |(at, _)| at);
    format!("{}\u{2026}", text.get(..end).unwrap_or_default())
}

/// Formats a duration: `1.2 s`, `50 s`, `4 min 5 s`, `3 h 12 min`, `2 d 4 h`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |big: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {part}"),
    };
    match seconds {
        // A duration below 1 ms is not shown as zero.
        0..10 => match span.as_millis() / 100 {
            0 if span.is_zero() => "0 s".to_owned(),
            0 => format!("{} ms", span.as_millis().max(1)),
            tenths if tenths % 10 == 0 => format!("{} s", tenths / 10),
            tenths => format!("{}.{} s", tenths / 10, tenths % 10),
        },
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// Formats a number of bytes: `512 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let (unit, name) = unit(number);
    format!("{} {name}", scaled(number, unit))
}

/// Formats a number of bytes and a limit: `212 of 512 MiB`.
pub(crate) fn bytes_of(number: u64, limit: u64) -> String {
    let (unit, name) = unit(limit);
    format!("{} of {} {name}", scaled(number, unit), scaled(limit, unit))
}

fn unit(number: u64) -> (u64, &'static str) {
    match number {
        0x2_8000_0000.. => (1 << 30, "GiB"),
        0x10_0000.. => (1 << 20, "MiB"),
        0x400.. => (1 << 10, "KiB"),
        _ => (1, "B"),
    }
}

/// Formats a number with one decimal if it is below 10, rounded down.
fn scaled(number: u64, unit: u64) -> String {
    match (number / unit, number % unit * 10 / unit) {
        (whole @ 10.., _) | (whole, 0) => whole.to_string(),
        (whole, tenths) => format!("{whole}.{tenths}"),
    }
}

/// Formats an ordinal: `1st`, `2nd`, `11th`.
pub(crate) fn ordinal(number: u64) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Formats how a run ended: `success`, `exit 3`, `exit 137: killed, out of memory`.
pub(crate) fn end(run: &Json) -> String {
    let code = run.get("ExitCode").number().unwrap_or_default();
    let cause = match run.get("Reason").text() {
        "success" if code == 0 => return "success".to_owned(),
        "success" => "counts as success".to_owned(),
        "exit-code" | "" => return format!("exit {code}"),
        "oom-kill" => "killed, out of memory".to_owned(),
        "signal" => killed(run),
        "core-dump" => format!("{}, core dumped", killed(run)),
        "timeout" => "ended by its TTL".to_owned(),
        "watchdog" => "ended by its watchdog".to_owned(),
        "exec-failed" => "could not be executed".to_owned(),
        other => other.to_owned(),
    };
    format!("exit {code}: {cause}")
}

/// Formats a death by signal: `killed by SIGTERM`. After SIGKILL, the memory usage shows whether the kernel may have
/// sent it.
fn killed(run: &Json) -> String {
    let signal = run.get("Signal").text();
    let memory = run.get("Memory");
    match (signal, memory.get("PeakBytes").number(), memory.get("LimitBytes").number()) {
        ("SIGKILL", Some(peak), Some(limit)) => {
            format!("killed by SIGKILL; memory peak {}", bytes_of(peak, limit))
        }
        ("SIGKILL", Some(peak), None) => format!("killed by SIGKILL; memory peak {}, no limit", bytes(peak)),
        ("", ..) => "killed by a signal".to_owned(),
        _ => format!("killed by {signal}"),
    }
}

/// Formats the member StopSignalFrom: `SIGTERM from pid 12, uid 0`; `None` if it is null.
pub(crate) fn sender(from: &Json) -> Option<String> {
    let signal = from.get("Signal").text();
    if signal.is_empty() {
        return None;
    }
    Some(match (from.get("Pid").number(), from.get("Uid").number()) {
        (Some(pid), Some(uid)) if pid > 0 => format!("{signal} from pid {pid}, uid {uid}"),
        _ => format!("{signal} from the kernel or another PID namespace"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_at_most_two_units() {
        for (millis, text) in [
            (0, "0 s"),
            (7, "7 ms"),
            (1_000, "1 s"),
            (1_250, "1.2 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (245_000, "4 min 5 s"),
            (11_520_000, "3 h 12 min"),
            (86_400_000, "1 d"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(span(Duration::from_micros(1)), "1 ms");
    }

    #[test]
    fn a_text_is_cut_at_a_character_boundary() {
        for (most, text) in
            [(0, "\u{2026}"), (1, "\u{2026}"), (2, "\u{e4}\u{2026}"), (3, "\u{e4}bc"), (4, "\u{e4}bc")]
        {
            assert_eq!(cut("\u{e4}bc", most), text);
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_of_the_limit() {
        let mib = 1 << 20;
        for (size, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (212 * mib + 1, "212 MiB"),
            (10_239 * mib, "10239 MiB"),
            (10_240 * mib, "10 GiB"),
            (u64::MAX, "17179869183 GiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(bytes_of(212 * mib, 512 * mib), "212 of 512 MiB");
        assert_eq!(bytes_of(5_120, mib), "0 of 1 MiB");
    }

    #[test]
    fn ordinals_end_as_in_english() {
        let all: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 113].map(ordinal).into();
        assert_eq!(all.join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 113th");
    }

    #[test]
    fn each_reason_has_its_text() {
        for (run, text) in [
            (r#"{"Reason":"success","ExitCode":0}"#, "success"),
            (r#"{"Reason":"success","ExitCode":143}"#, "exit 143: counts as success"),
            (r#"{"Reason":"exit-code","ExitCode":3}"#, "exit 3"),
            (r#"{"Reason":"oom-kill","ExitCode":137,"Signal":"SIGKILL"}"#, "exit 137: killed, out of memory"),
            (r#"{"Reason":"signal","ExitCode":143,"Signal":"SIGTERM"}"#, "exit 143: killed by SIGTERM"),
            (r#"{"Reason":"signal","ExitCode":137,"Signal":"SIGKILL"}"#, "exit 137: killed by SIGKILL"),
            (
                r#"{"Reason":"signal","ExitCode":137,"Signal":"SIGKILL","Memory":{"PeakBytes":222298112,"LimitBytes":536870912}}"#,
                "exit 137: killed by SIGKILL; memory peak 212 of 512 MiB",
            ),
            (
                r#"{"Reason":"signal","ExitCode":137,"Signal":"SIGKILL","Memory":{"PeakBytes":222298112,"LimitBytes":null}}"#,
                "exit 137: killed by SIGKILL; memory peak 212 MiB, no limit",
            ),
            (
                r#"{"Reason":"core-dump","ExitCode":139,"Signal":"SIGSEGV"}"#,
                "exit 139: killed by SIGSEGV, core dumped",
            ),
            (r#"{"Reason":"timeout","ExitCode":143}"#, "exit 143: ended by its TTL"),
            (r#"{"Reason":"watchdog","ExitCode":134}"#, "exit 134: ended by its watchdog"),
            (r#"{"Reason":"exec-failed","ExitCode":127}"#, "exit 127: could not be executed"),
            (r#"{"Reason":"new","ExitCode":1}"#, "exit 1: new"),
            (r#"{"Reason":"signal"}"#, "exit 0: killed by a signal"),
            ("{}", "exit 0"),
        ] {
            assert_eq!(end(&Json::parse(run.as_bytes()).unwrap()), text, "{run}");
        }
    }

    #[test]
    fn a_sender_without_a_pid_is_the_kernel_or_another_namespace() {
        let of = |text: &str| sender(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(of("null"), None);
        let from = r#"{"Signal":"SIGTERM","Pid":12,"Uid":1000}"#;
        assert_eq!(of(from).unwrap(), "SIGTERM from pid 12, uid 1000");
        let kernel = r#"{"Signal":"SIGHUP","Pid":0,"Uid":0}"#;
        assert_eq!(of(kernel).unwrap(), "SIGHUP from the kernel or another PID namespace");
    }
}
