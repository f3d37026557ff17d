//! The checks of /readyz, /healthz and /startupz: what each of them says in the current state.

use super::StateFacts;
use crate::logic::log::timestamp;
use crate::logic::reason::Reason;
use crate::logic::restart::Failures;
use crate::logic::status::{ModeName, ProbeStatus, State, Status};

/// A check of a probe; `?verbose` shows each in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeCheck {
    pub name: &'static str,
    pub failure: Option<String>,
}

impl ProbeCheck {
    pub(super) fn new(name: &'static str, failure: Option<String>) -> ProbeCheck {
        ProbeCheck { name, failure }
    }

    /// Returns the failure. During a pause of `retry` seconds it begins with the time of the next start.
    pub(super) fn shown(&self, retry: Option<&str>) -> Option<String> {
        match (&self.failure, retry) {
            (Some(failure), Some(seconds)) if self.name == "running" => {
                Some(format!("restarting in {seconds} s: {failure}"))
            }
            (failure, _) => failure.clone(),
        }
    }
}

/// Returns the checks of /readyz, of /healthz and of /startupz.
pub(super) fn checks(objects: &[Status], facts: StateFacts) -> [Vec<ProbeCheck>; 3] {
    let running = |object: &&Status| object.state == State::Running;
    let one = match objects {
        [one] if one.mode != ModeName::Watch => one,
        _ => {
            let failure = match objects.iter().find(|object| !running(object)) {
                Some(missing) if objects.len() > 1 => Some(format!("no process matches {}", missing.command)),
                None if !objects.is_empty() => None,
                Some(_) | None => Some("no process matches".to_owned()),
            };
            let checks = vec![ProbeCheck::new("running", failure)];
            return [checks.clone(), checks.clone(), checks];
        }
    };
    let down = if running(&one) { None } else { Some(why_down(one, facts.failures)) };
    let success = down.is_some() && one.reason == Some(Reason::Success);
    let flapping = one.flapping.then(|| facts.failures.to_string());
    let mut health = vec![
        if success { ProbeCheck::new("success", None) } else { ProbeCheck::new("running", down.clone()) },
        ProbeCheck::new("flapping", flapping),
    ];
    // The field Ready of the document decides; the checks explain its value.
    let (up, unready) = (down.is_none(), !one.ready);
    let stopping = (up && unready && facts.stopping).then(|| match one.stops_at {
        Some(at) => format!("draining until {}", timestamp::rfc3339(timestamp::whole_second(at))),
        None => "being stopped".to_owned(),
    });
    let probes = one.probes.as_deref().unwrap_or_default();
    let failing = probes.iter().any(|probe| !probe.up);
    let awaited = if facts.ready_line { "waiting for the ready line" } else { "has not said READY=1" };
    let silent = (up && unready && !facts.stopping && !failing).then(|| awaited.to_owned());
    let startup = vec![
        ProbeCheck::new("running", down.clone()),
        ProbeCheck::new("started", (!facts.started).then(|| "has not been ready in this run".to_owned())),
    ];
    let mut ready = vec![
        ProbeCheck::new("running", down),
        ProbeCheck::new("stopping", stopping),
        ProbeCheck::new("ready", silent),
    ];
    if up && !probes.is_empty() {
        probe_checks(&mut ready, probes, |probe| probe.up);
        // A failure in the grace period does not count.
        probe_checks(&mut health, probes, |probe| probe.failures == 0);
    }
    [ready, health, startup]
}

/// Adds one check for each probe that does not pass, or one for all if they pass.
fn probe_checks(checks: &mut Vec<ProbeCheck>, probes: &[ProbeStatus], passes: fn(&ProbeStatus) -> bool) {
    let before = checks.len();
    for ProbeStatus { name, reason, .. } in probes.iter().filter(|probe| !passes(probe)) {
        // A single probe needs no name.
        let failure =
            if probes.len() == 1 && name == "0" { reason.clone() } else { format!("{name}: {reason}") };
        checks.push(ProbeCheck::new("probe", Some(failure)));
    }
    if checks.len() == before {
        checks.push(ProbeCheck::new("probe", None));
    }
}

/// Describes how the last run ended and how many runs have failed.
fn why_down(object: &Status, failures: Failures) -> String {
    let Status { reason, exit_code, .. } = object;
    let signal = object.signal.map(|signal| signal.to_string()).unwrap_or_default();
    let mut text = match *reason {
        None => "not started yet".to_owned(),
        Some(Reason::Success) => "ended with success".to_owned(),
        Some(Reason::ExitCode) => format!("exited with code {exit_code}"),
        Some(Reason::Signal) => format!("killed by {signal}"),
        Some(Reason::CoreDump) => format!("killed by {signal}, core dumped"),
        Some(Reason::Timeout) => "ended by its TTL".to_owned(),
        Some(Reason::OomKill) => "killed by the kernel: out of memory".to_owned(),
        Some(Reason::ExecFailed) => format!("could not be executed, code {exit_code}"),
        Some(Reason::Watchdog) => "ended by its watchdog".to_owned(),
        Some(Reason::Silent) => "stopped because it printed nothing".to_owned(),
        Some(Reason::Unhealthy) => "stopped because its probes failed".to_owned(),
    };
    if failures.runs > 1 {
        text.extend(["; ", &failures.to_string()]);
    }
    text
}
