//! The client modes. `kapo check` and `kapo wait` make one blocking request to another kapo: for scripts, and for
//! HEALTHCHECK in images without other programs. `kapo status` makes several requests, `kapo logs` copies a stream, and `kapo ls` queries
//! many kapos at once.
//! The C library resolves names. One deadline covers each command.

mod connect;
mod exchange;
pub(crate) mod folder;
pub(crate) mod instances;
mod leftovers;
mod logs;
pub(crate) mod ls;
mod query;
mod status;
mod until;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stderr, stdout};
use rustix::termios::{isatty, tcgetwinsize};

use exchange::{ExchangeError, RequestDeadline, Response, Wanted, exchange};

use crate::config::{CheckOptions, Config, Probe, WaitOptions};
use crate::error::{EXIT_SETUP, EXIT_TIMEOUT, one_line, reason};
use crate::logic::client::ended;
use crate::logic::client::waiting::{RequestOutcome, Waiting};
use crate::sys::{clock, stdio};
use crate::target::Address;

pub(crate) use logs::logs;
pub(crate) use ls::list;
pub(crate) use status::status;

/// Requests a probe and prints the result on stdout. Returns 0 if the status is 2xx, otherwise 1. One line is printed,
/// or the whole body if the URL has a query.
pub(crate) fn check(config: &Config, options: &CheckOptions) -> u8 {
    let what = match options.probe {
        Probe::Live => "live",
        Probe::Ready => "ready",
        Probe::Health => "healthy",
    };
    let path = options.probe.path();
    let target = target(config, options.url.as_deref(), path).map(|target| target.at(path));
    let verbose = target.as_ref().is_ok_and(|target| target.path.contains('?'));
    let body = if verbose { Wanted::Body } else { Wanted::BodyOfFailure };
    let (code, line, body) = match target.and_then(|target| exchange(&target, Some(options.timeout), body)) {
        Ok(Response { status: 200..=299, body, .. }) => (0, format!("{what}: ok"), body),
        Ok(Response { status, body, .. }) => match first_line(&body) {
            reason if verbose || reason.is_empty() => (1, format!("not {what}: HTTP {status}"), body),
            reason => (1, format!("not {what}: HTTP {status}: {reason}"), body),
        },
        Err(failure) => (1, failure.to_string(), Vec::new()),
    };
    say(stdout(), &line);
    if verbose {
        String::from_utf8_lossy(&body).lines().for_each(|line| say(stdout(), line));
    }
    code
}

/// How much longer than the requested time an answer may take to arrive.
const WAY: Duration = Duration::from_secs(5);

/// Waits for the end of the job and returns its exit code; 124 if `--timeout` has passed first, 125 if there is no
/// answer or the code is unknown, with the reason on stderr. With `-v`, prints on stdout how the job ended.
pub(crate) fn wait(config: &Config, options: &WaitOptions) -> u8 {
    if let Some(probe) = options.until {
        return until::wait_until(config, options, probe);
    }
    let once = options.timeout == Some(Duration::ZERO);
    let mut failed = None;
    let answer = target(config, options.url.as_deref(), "/wait")
        .and_then(|target| ask_until_the_end(&target, options, &mut failed));
    if let (true, Ok(Response { kapo_exit_code: Some(code), body, .. })) = (options.verbose, &answer) {
        let lines = ended::summary(body).unwrap_or_else(|| vec![format!("code={code}")]);
        lines.iter().for_each(|line| say(stdout(), line));
    }
    let (code, line) = verdict(answer, once);
    if let Some(line) = line.or(failed) {
        say(stderr(), &format!("kapo: {line}"));
    }
    code
}

/// Repeats the request as [`Waiting`] decides. If the time runs out first, `failed` is the reason why the last request
/// had no answer.
fn ask_until_the_end(
    target: &Address,
    options: &WaitOptions,
    failed: &mut Option<String>,
) -> Result<Response, ExchangeError> {
    let body = if options.verbose { Wanted::Body } else { Wanted::Head };
    let deadline = RequestDeadline::after(options.timeout.filter(|timeout| !timeout.is_zero()));
    let mut waiting = Waiting::new(options.timeout, options.retry);
    loop {
        let left = deadline.left()?;
        let slice = waiting.slice();
        let target = match slice {
            Some(Duration::ZERO) => target.clone().with("timeout=0"),
            Some(slice) => target.clone().with(&format!("timeout={}ms", slice.as_millis())),
            None => target.clone(),
        };
        let limit = [left, slice.map(|slice| slice.saturating_add(WAY))].into_iter().flatten().min();
        let (asked, _) = clock::now();
        let answer = exchange(&target, limit, body);
        let (now, _) = clock::now();
        let Some(pause) = waiting.next(asked, now, outcome(&answer)) else {
            *failed = None;
            return answer;
        };
        match answer {
            Ok(Response { status: 200..=299, .. }) => *failed = None,
            Ok(Response { status, .. }) => *failed = Some(format!("no kapo answers: HTTP {status}")),
            Err(ExchangeError::TimedOut) => {}
            Err(failure) => *failed = Some(failure.to_string()),
        }
        let pause = deadline.left()?.map_or(pause, |left| left.min(pause));
        if let Ok(pause) = Timespec::try_from(pause) {
            let _ = poll(&mut [], Some(&pause));
        }
    }
}

/// Classifies an answer for [`Waiting`].
fn outcome(answer: &Result<Response, ExchangeError>) -> RequestOutcome {
    match answer {
        Ok(Response { kapo_exit_code: Some(_), .. }) | Err(ExchangeError::Other(_)) => RequestOutcome::Final,
        Ok(Response { status: 200..=299, .. }) => RequestOutcome::NoCode,
        // A slice without an answer in time means that a proxy or firewall has lost the connection.
        Ok(Response { status: 502..=504, .. }) | Err(ExchangeError::Cut(_) | ExchangeError::TimedOut) => {
            RequestOutcome::Cut
        }
        Ok(_) => RequestOutcome::Final,
        Err(ExchangeError::Unreachable(_)) => RequestOutcome::Unreachable,
    }
}

/// Returns the exit code and, if it is not the code of the job, the reason. With `once`, an answer without a code
/// means that the job still runs.
fn verdict(answer: Result<Response, ExchangeError>, once: bool) -> (u8, Option<String>) {
    match answer {
        Ok(Response { kapo_exit_code: Some(code), .. }) => (code, None),
        Ok(Response { status: 200..=299, .. }) if once => (EXIT_TIMEOUT, None),
        Ok(Response { status: status @ 200..=299, .. }) => {
            let line =
                format!("the answer (HTTP {status}) has no exit code: whether the job still runs is unknown");
            (EXIT_SETUP, Some(line))
        }
        Ok(Response { status, .. }) => (EXIT_SETUP, Some(format!("no kapo answers: HTTP {status}"))),
        Err(ExchangeError::TimedOut) if !once => (EXIT_TIMEOUT, None),
        Err(failure) => (EXIT_SETUP, Some(failure.to_string())),
    }
}

/// Writes a line if this is possible without waiting. The line may be lost, because the exit code is the actual result.
/// kapo must not be killed by SIGPIPE, which clients do not ignore, and a full pipe must not delay it beyond the
/// deadline.
fn say(out: BorrowedFd<'_>, line: &str) {
    if has_room(out) {
        let _ = stdio::write_all(out, format!("{}\n", one_line(line)).as_bytes());
    }
}

fn has_room(out: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&out, PollFlags::OUT)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let ready = |fd: &PollFd<'_>| fd.revents() & (PollFlags::OUT | PollFlags::ERR) == PollFlags::OUT;
    polled.is_ok() && fds.iter().any(ready)
}

/// Writes the result to stdout. Returns whether this succeeded; an error is reported on stderr.
fn print(text: &[u8]) -> bool {
    match stdio::write_all(stdout(), text) {
        // A reader that closes the pipe has read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(stderr(), &format!("kapo: cannot write to stdout: {}", reason(&error)));
            false
        }
        _ => true,
    }
}

/// The properties of stdout that concern text for people.
struct OutputStyle {
    /// The width of the terminal; `None` if stdout is none, or if it is too narrow.
    width: Option<usize>,
    /// Whether colours are wanted.
    colour: bool,
}

/// Returns the properties of stdout. `variable` reads the environment.
fn terminal(variable: &dyn Fn(&str) -> Option<OsString>) -> OutputStyle {
    let out = stdout();
    let width = tcgetwinsize(out).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width >= 40);
    let colour = isatty(out) && variable("NO_COLOR").is_none_or(|value| value.is_empty());
    OutputStyle { width, colour }
}

fn target(config: &Config, url: Option<&str>, path: &str) -> Result<Address, ExchangeError> {
    let target = match url {
        Some(url) => Address::parse(url, path).map_err(|why| format!("{url} {why}")),
        None => Address::of(&config.listen, path),
    };
    target.map_err(ExchangeError::Other)
}

/// Returns the first line of a body, without control characters.
fn first_line(body: &[u8]) -> String {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let shown = String::from_utf8_lossy(line);
    shown.trim().chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
