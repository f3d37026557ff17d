//! Finds environment variables that resemble one of kapo's, so that a misspelt name does not stay unnoticed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::options::options;
use super::settings::Variables;
use super::similar::distance;
use crate::config::{HookEvent, Misspelt};

/// The prefix of all variables of kapo.
const PREFIX: &[u8] = b"KAPO_";

/// The maximum length of a name that is compared. The longest name of kapo's variables has 24 bytes.
const LONGEST: usize = 32;

/// Returns the unknown variables that resemble one of kapo's.
pub(super) fn find(variables: Variables<'_>) -> Vec<Misspelt> {
    let mut found = Vec::new();
    for (name, value) in variables {
        let Some(meant) = meant(name).filter(|_| !is_service_link(value)) else { continue };
        found.push(Misspelt { found: name.to_string_lossy().into_owned(), meant });
    }
    found
}

/// Returns the variable that `name` resembles; `None` if it is one of kapo's or resembles none.
fn meant(name: &OsStr) -> Option<&'static str> {
    let own = || {
        let hooks = HookEvent::ALL.into_iter().map(|event| (event.variable(), "on"));
        options().filter_map(|opt| Some((opt.env?, opt.long))).chain(hooks)
    };
    let name = name.as_bytes();
    if own().any(|(env, _)| env.as_bytes() == name) {
        return None;
    }
    let rest = name.strip_prefix(PREFIX).filter(|rest| rest.len() <= LONGEST)?;
    // In a short name, two changes can make another word: HOST is not a misspelt PORT.
    let most = if rest.len() <= 5 { 1 } else { 2 };
    // Names of another length have a larger distance. The comparison of all names would delay the start.
    let near = |other: &[u8]| (rest.len().abs_diff(other.len()) <= most).then(|| distance(rest, other));
    let (nearest, _) = own()
        .filter_map(|(env, long)| {
            let by_variable = env.as_bytes().strip_prefix(PREFIX).and_then(near);
            // A variable may also be derived from the option, such as KAPO_PID from --pid, whose variable has another
            // name.
            let derived = || near(long.to_ascii_uppercase().replace('-', "_").as_bytes());
            let by_option = if rest.len().abs_diff(long.len()) <= most { derived() } else { None };
            Some((env, by_variable.into_iter().chain(by_option).min()?))
        })
        .filter(|(_, distance)| *distance <= most)
        .min_by_key(|(_, distance)| *distance)?;
    Some(nearest)
}

/// Whether Kubernetes or Docker have set the variable for a service: KAPO_A_PORT=tcp://10.0.0.1:80. Their other
/// variables, such as KAPO_SERVICE_HOST and KAPO_PORT_6666_TCP, do not resemble any of kapo's.
fn is_service_link(value: &OsStr) -> bool {
    [&b"tcp://"[..], b"udp://", b"sctp://"].iter().any(|scheme| value.as_bytes().starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(name: &str, value: &str) -> Option<&'static str> {
        let found = find(&[(name.into(), value.into())]);
        found.first().map(|misspelt| {
            assert_eq!(misspelt.found, name);
            misspelt.meant
        })
    }

    #[test]
    fn a_misspelt_variable_suggests_the_intended_one() {
        for (name, meant) in [
            ("KAPO_KILLAFTER", "KAPO_KILL_AFTER"),
            ("KAPO_PORTS", "KAPO_PORT"),
            ("KAPO_TLL", "KAPO_TTL"),
            ("KAPO_QUITE", "KAPO_QUIET"),
            ("KAPO_INTERFCAE", "KAPO_INTERFACE"),
            ("KAPO_MAX_RESTART", "KAPO_MAX_RESTARTS"),
            ("KAPO_HIDEARGS", "KAPO_HIDE_ARGS"),
            ("KAPO_PID", "KAPO_WATCHPID"),
            ("KAPO_WATCH_PID", "KAPO_WATCHPID"),
            ("KAPO_ON_FAILED", "KAPO_ON_FAIL"),
            ("KAPO_ON_GIVEUP", "KAPO_ON_GIVE_UP"),
        ] {
            assert_eq!(suggested(name, "1"), Some(meant), "{name}");
        }
    }

    #[test]
    fn other_variables_are_not_reported() {
        for opt in options() {
            if let Some(env) = opt.env {
                assert_eq!(suggested(env, "1"), None, "{env}");
            }
        }
        for (name, value) in [
            ("KAPO_HOST", "example.org"),
            ("KAPO_HOME", "/opt/kapo"),
            ("KAPO_", ""),
            ("KAPO_DATABASE_URL", "x"),
            ("KAPO_A_PORT", "tcp://10.0.0.1:80"),
            ("KAPO_SERVICE_HOST", "10.0.0.1"),
            ("KAPO_SERVICE_PORT", "6666"),
            ("KAPO_SERVICE_PORT_HTTP", "6666"),
            ("KAPO_PORT_6666_TCP", "tcp://10.0.0.1:6666"),
            ("KAPO_PORT_6666_TCP_ADDR", "10.0.0.1"),
            ("KAPO_PORT_6666_TCP_PORT", "6666"),
            ("KAPO_PORT_6666_TCP_PROTO", "tcp"),
            ("KAPO_AN_OTHER_NAME_THAT_IS_FAR_TOO_LONG_TO_BE_MEANT", "1"),
        ] {
            assert_eq!(suggested(name, value), None, "{name}");
        }
    }

    #[test]
    fn the_distance_counts_each_change_once() {
        for (a, b, changes) in [
            ("", "", 0),
            ("TTL", "TTL", 0),
            ("", "AB", 2),
            ("TAIL", "WAIT", 2),
            ("QUITE", "QUIET", 1),
            ("AB", "BCA", 3),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), changes, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), changes, "{b} {a}");
        }
    }
}
