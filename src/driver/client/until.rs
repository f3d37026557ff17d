//! `kapo wait --ready` and `--healthy`: asks for a probe until it passes or the job has ended.

use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::stdio::{stderr, stdout};

use super::exchange::{ExchangeError, RequestDeadline, Response, Wanted, exchange};
use super::{WAY, first_line, say, target};
use crate::config::{Config, Probe, WaitOptions};
use crate::error::{EXIT_SETUP, EXIT_TIMEOUT};
use crate::logic::client::ended;
use crate::logic::client::until::{Pauses, is_final};
use crate::target::Address;

/// How long the last request may take, which is sent when `--timeout` has passed during a pause.
const LAST: Duration = Duration::from_millis(500);

/// Returns 0 as soon as the probe passes, 124 if `--timeout` has passed before that, the code of the job (1 if it is 0) if
/// the job has ended before that, and 125 if something else than a kapo answers.
pub(super) fn wait_until(config: &Config, options: &WaitOptions, probe: Probe) -> u8 {
    let target = match target(config, options.url.as_deref(), probe.path()) {
        Ok(target) => target.at(probe.path()),
        Err(error) => return failed(EXIT_SETUP, &error.to_string()),
    };
    let once = options.timeout == Some(Duration::ZERO);
    let deadline = RequestDeadline::after(options.timeout.filter(|timeout| !timeout.is_zero()));
    let mut pauses = Pauses::new();
    let mut told = None;
    loop {
        let limit = deadline.left().map_or(LAST, |left| left.map_or(WAY, |left| left.min(WAY)));
        let (answered, why) = match exchange(&target, Some(limit), Wanted::BodyOfFailure) {
            Ok(Response { status: 200..=299, .. }) => return 0,
            Ok(Response { status: 503, body, .. }) => match first_line(&body) {
                reason if reason.is_empty() => (true, "HTTP 503".to_owned()),
                reason => (true, reason),
            },
            // A proxy answers because it cannot connect to kapo.
            Ok(Response { status: status @ (502 | 504), .. }) => (false, format!("HTTP {status}")),
            Ok(Response { status, .. }) => {
                return failed(EXIT_SETUP, &format!("no kapo answers: HTTP {status}"));
            }
            Err(ExchangeError::Other(line)) => return failed(EXIT_SETUP, &line),
            // The end of the time cut off this request, and the answer before it gave a reason.
            Err(ExchangeError::TimedOut) if deadline.left().is_err() => {
                (false, told.take().unwrap_or_else(|| ExchangeError::TimedOut.to_string()))
            }
            Err(error) => (false, error.to_string()),
        };
        if answered {
            told = Some(why.clone());
        }
        let Some(pause) = pauses.after(answered) else {
            return failed(EXIT_SETUP, &format!("the kapo that answered has exited: {why}"));
        };
        let Ok(left) = deadline.left() else { return failed(EXIT_TIMEOUT, &why) };
        if once {
            return failed(EXIT_TIMEOUT, &why);
        }
        let pause = left.map_or(pause, |left| left.min(pause));
        if !answered {
            rest(pause);
        } else if let Some((code, document)) = end_within(&target, pause, left) {
            if options.verbose {
                ended::summary(&document).unwrap_or_default().iter().for_each(|line| say(stdout(), line));
            }
            return failed(code.max(1), &format!("the job has ended with code {code}"));
        }
    }
}

/// Waits for the end of the job, but no longer than `pause`, and never longer than `left`. Returns its code and the
/// document. The request is the pause: a kapo that ends meanwhile still answers it.
fn end_within(target: &Address, pause: Duration, left: Option<Duration>) -> Option<(u8, Vec<u8>)> {
    let wait = target.clone().at("/wait").with(&format!("timeout={}ms", pause.as_millis()));
    let limit = pause.saturating_add(WAY);
    match exchange(&wait, Some(left.map_or(limit, |left| left.min(limit))), Wanted::Body) {
        Ok(Response { kapo_exit_code: Some(code), body, .. }) if is_final(&body) => {
            return Some((code, body));
        }
        // The request has lasted as long as the pause.
        Ok(Response { status: 200..=299, kapo_exit_code: None, .. }) | Err(ExchangeError::TimedOut) => {}
        // The pause between two runs, or no answer.
        _ => rest(pause),
    }
    None
}

fn rest(pause: Duration) {
    if let Ok(pause) = Timespec::try_from(pause) {
        let _ = poll(&mut [], Some(&pause));
    }
}

fn failed(code: u8, why: &str) -> u8 {
    say(stderr(), &format!("kapo: {why}"));
    code
}
