//! `kapo logs`: copies the captured output that another kapo keeps and, with `--follow`, the output that comes later.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::isatty;

use super::exchange::{BodyProgress, ExchangeError, OpenResponse, RequestDeadline, Response, exchange_whole};
use super::{first_line, say, target};
use crate::config::{Config, LogsOptions};
use crate::error::{EXIT_NO_ANSWER, EXIT_UNHEALTHY, reason};
use crate::logic::client::logs::{Screen, last_lines};
use crate::target::Address;

/// The maximum length of an answer, in bytes. A kapo keeps less.
const LONGEST: usize = 8 << 20;

/// The reason why copying stopped early.
enum Stopped {
    /// The reader of stdout is gone.
    NoReader,
    /// An error: the exit code, and the reason in one line.
    Failed(u8, String),
}

impl From<ExchangeError> for Stopped {
    fn from(error: ExchangeError) -> Stopped {
        Stopped::Failed(EXIT_NO_ANSWER, error.to_string())
    }
}

/// Copies the output to stdout. Returns 0 at the end of the output, 1 if no output is kept or the stream was cut off,
/// 3 if there is no answer.
pub(crate) fn logs(config: &Config, options: &LogsOptions) -> u8 {
    let target = target(config, options.url.as_deref(), "/logs").map_err(Stopped::from);
    match target.and_then(|target| copy(target.at("/logs"), options)) {
        Ok(()) | Err(Stopped::NoReader) => 0,
        Err(Stopped::Failed(code, line)) => {
            say(rustix::stdio::stderr(), &format!("kapo: {line}"));
            code
        }
    }
}

fn copy(mut target: Address, options: &LogsOptions) -> Result<(), Stopped> {
    if let Some(stream) = options.stream {
        target = target.with(&format!("stream={}", stream.name()));
    }
    let deadline = RequestDeadline::after(Some(options.timeout));
    let mut out = LogOutput::new();
    if !options.follow {
        let answer = exchange_whole(&target, deadline, LONGEST)?;
        let answer = Some(answer).filter(|answer| answer.is_text || answer.status != 200);
        let Response { status, body, .. } = answer.ok_or_else(|| no_log(&target))?;
        if status != 200 {
            return Err(refused(&target, status, &body));
        }
        out.write(options.lines.map_or(&*body, |most| last_lines(&body, most)))?;
        return out.finish();
    }
    let target = target.with("follow=1");
    let mut reply = OpenResponse::to(&target, deadline)?;
    let mut bytes = Vec::new();
    if reply.status != 200 {
        while bytes.len() < LONGEST && reply.read(deadline, &mut bytes)? == BodyProgress::More {}
        return Err(refused(&target, reply.status, &bytes));
    }
    if !reply.is_text {
        return Err(no_log(&target));
    }
    if let Some(most) = options.lines {
        // kapo sends the kept output as one chunk together with the head.
        while reply.has_early() && reply.read_chunk(deadline, &mut bytes)? == BodyProgress::More {
            if bytes.len() > LONGEST {
                return Err(no_log(&target));
            }
        }
        out.write(last_lines(&bytes, most))?;
    }
    loop {
        bytes.clear();
        if !reply.has_early() {
            out.wait_for(&reply)?;
        }
        let cut = |error: ExchangeError| Stopped::Failed(EXIT_UNHEALTHY, error.to_string());
        let progress = reply.read(RequestDeadline::NEVER, &mut bytes).map_err(cut)?;
        out.write(&bytes)?;
        if progress == BodyProgress::Complete {
            return out.finish();
        }
    }
}

fn no_log(target: &Address) -> Stopped {
    let line = format!("no kapo answers at {}: /logs is no plain text", target.peer);
    Stopped::Failed(EXIT_NO_ANSWER, line)
}

/// Returns the error for an answer without output. A kapo that keeps no output gives the reason.
fn refused(target: &Address, status: u16, body: &[u8]) -> Stopped {
    match first_line(body) {
        reason if status == 404 && reason.starts_with("no output is kept") => {
            Stopped::Failed(EXIT_UNHEALTHY, reason)
        }
        _ => Stopped::Failed(EXIT_NO_ANSWER, format!("no kapo answers at {}: HTTP {status}", target.peer)),
    }
}

/// Stdout, and how to write to it.
struct LogOutput {
    /// Present if stdout is a terminal.
    screen: Option<Screen>,
}

impl LogOutput {
    fn new() -> LogOutput {
        LogOutput { screen: isatty(LogOutput::fd()).then(Screen::default) }
    }

    fn fd() -> BorrowedFd<'static> {
        rustix::stdio::stdout()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        match &mut self.screen {
            None => write_all(bytes),
            Some(screen) => {
                let mut shown = Vec::new();
                screen.show(bytes, &mut shown);
                write_all(&shown)
            }
        }
    }

    fn finish(&mut self) -> Result<(), Stopped> {
        let mut shown = Vec::new();
        if let Some(screen) = &mut self.screen {
            screen.finish(&mut shown);
        }
        write_all(&shown)
    }

    /// Waits until data arrives or the reader of stdout is gone.
    fn wait_for(&self, reply: &OpenResponse) -> Result<(), Stopped> {
        let mut fds = [
            PollFd::new(reply, PollFlags::IN),
            PollFd::from_borrowed_fd(LogOutput::fd(), PollFlags::empty()),
        ];
        loop {
            // The only error is an interruption by a signal.
            let polled = poll(&mut fds, None);
            let [reply, out] = &fds;
            if out.revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                return Err(Stopped::NoReader);
            }
            if polled.is_ok() && !reply.revents().is_empty() {
                return Ok(());
            }
        }
    }
}

fn write_all(mut bytes: &[u8]) -> Result<(), Stopped> {
    while !bytes.is_empty() {
        match rustix::io::write(LogOutput::fd(), bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process has made the terminal or pipe non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(LogOutput::fd(), PollFlags::OUT)], None);
            }
            Err(Errno::PIPE) => return Err(Stopped::NoReader),
            Err(errno) => {
                let line = format!("cannot write to stdout: {}", reason(&errno.into()));
                return Err(Stopped::Failed(EXIT_UNHEALTHY, line));
            }
        }
    }
    Ok(())
}
