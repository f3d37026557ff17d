//! `kapo status`: makes a few requests with one deadline and prints a page, or one JSON text.

use std::ffi::OsString;

use rustix::stdio::stderr;

use super::exchange::{ExchangeError, RequestDeadline, Response, exchange_whole};
use super::{OutputStyle, first_line, print, say, target, terminal};
use crate::config::{Config, StatusOptions};
use crate::error::{EXIT_NO_ANSWER, EXIT_UNHEALTHY};
use crate::logic::client::status::{self, Findings, METRICS};
use crate::sys::clock;
use crate::target::Address;

/// The maximum length of an answer, in bytes. The answers of a kapo are shorter.
const LONGEST: usize = 8 << 20;
/// The line width if stdout is not a terminal.
const WIDTH: usize = 160;

/// Shows the state of another kapo. Returns 0 if it is healthy, 1 if not, 3 if there is no answer, with the reason on
/// stderr.
pub(crate) fn status(
    config: &Config,
    options: &StatusOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> u8 {
    let deadline = RequestDeadline::after(Some(options.timeout));
    let asked = target(config, options.url.as_deref(), "/")
        .and_then(|target| show(&target, options, deadline, variable));
    asked.unwrap_or_else(|failure| {
        say(stderr(), &format!("kapo: {failure}"));
        EXIT_NO_ANSWER
    })
}

fn show(
    target: &Address,
    options: &StatusOptions,
    deadline: RequestDeadline,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, ExchangeError> {
    let ask = |path: &str| exchange_whole(&target.clone().at(path), deadline, LONGEST);
    let no_kapo = |why: &str| ExchangeError::Other(format!("no kapo answers at {}: {why}", target.peer));
    let text = match ask("/")? {
        Response { status: 200, body, .. } => body,
        Response { status, .. } => return Err(no_kapo(&format!("HTTP {status}"))),
    };
    let document = status::document(&text).ok_or_else(|| no_kapo("this is no status document"))?;
    let unhealthy = refusal(ask("/healthz")?);
    // An answer that is late or missing from here on is left out of the page.
    let runs = ask("/runs").ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
    let history = runs.as_deref().and_then(status::history);
    let page = if options.json {
        status::json(&text, runs.as_deref().filter(|_| history.is_some()))
    } else {
        let unready =
            unhealthy.is_some() || document.list().iter().any(|object| !object.get("Ready").is_true());
        let unready = if unready { ask("/readyz").ok().and_then(refusal) } else { None };
        let metrics = ask(METRICS).ok().map(|answer| answer.body);
        let kept = ask("/logs").ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
        let findings = Findings {
            document: &document,
            runs: history.as_ref(),
            metrics: metrics.as_deref().unwrap_or_default(),
            output: kept.as_deref(),
            unhealthy: unhealthy.as_deref(),
            unready: unready.as_deref(),
            now: clock::now().1,
        };
        let OutputStyle { width, colour } = terminal(variable);
        status::page(
            &status::report(&findings),
            width.unwrap_or(WIDTH),
            colour.then_some(unhealthy.is_none()),
        )
        .into_bytes()
    };
    Ok(if print(&page) && unhealthy.is_none() { 0 } else { EXIT_UNHEALTHY })
}

/// Returns the reason why a probe fails; `None` if its status is 200.
fn refusal(answer: Response) -> Option<String> {
    match (answer.status, first_line(&answer.body)) {
        (200..=299, _) => None,
        (status, reason) if reason.is_empty() => Some(format!("HTTP {status}")),
        (_, reason) => Some(reason),
    }
}
