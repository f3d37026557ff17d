//! Carries out kapo's own probes (`--probe`): sockets in the event loop, programs as helpers. `logic::probe` decides
//! when each of them runs and what its result means.

mod socket_check;

use std::rc::Rc;
use std::time::Instant;

use self::socket_check::SocketCheck;
use crate::config::{ProbeOptions, ProbeTarget};
use crate::driver::poll::{Epoll, Ready, Source};
use crate::driver::process::helper::{HelperEnd, HelperRequest, Helpers, Surroundings};
use crate::logic::probe::Probes;
use crate::logic::{Exit, Now};

/// All probes and their attempts.
pub(crate) struct Prober {
    /// The schedule and the results.
    pub probes: Probes,
    /// The sockets of the attempts, by probe.
    sockets: Vec<Option<SocketCheck>>,
    /// The programs that must still be started, because the last one with the same key is not reaped yet.
    pending: Vec<usize>,
}

/// What an attempt has come to, and the probe.
pub(crate) type ProbeResult = (usize, Result<(), String>);

impl Prober {
    /// Prepares the probes.
    pub(crate) fn new(options: &Rc<ProbeOptions>) -> Prober {
        let mut sockets = Vec::new();
        sockets.resize_with(options.probes.len(), || None);
        Prober { probes: Probes::new(options.clone()), sockets, pending: Vec::new() }
    }

    /// Gives up all attempts, because the run has ended or another one begins.
    pub(crate) fn cancel(&mut self, helpers: &mut Helpers) {
        self.sockets.iter_mut().for_each(|socket| *socket = None);
        self.pending.clear();
        helpers.kill_keys(0..self.sockets.len());
    }

    /// Begins the attempts that are due. Adds those that have failed at once to `results`.
    pub(crate) fn begin(
        &mut self,
        now: Now,
        asked: bool,
        epoll: &Epoll,
        helpers: &mut Helpers,
        surroundings: Surroundings<'_>,
        results: &mut Vec<ProbeResult>,
    ) {
        let mut due = self.probes.begin(now, asked);
        due.append(&mut self.pending);
        for index in due {
            let options = self.probes.options();
            let Some(probe) = options.probes.get(index) else { return };
            let begun = match &probe.target {
                ProbeTarget::Connect(contact) => SocketCheck::begin(epoll, contact, Vec::new()).map(Some),
                ProbeTarget::Http { contact, host, path } => {
                    SocketCheck::begin(epoll, contact, request(host, path)).map(Some)
                }
                ProbeTarget::Exec(_) if helpers.is_running(index) => {
                    self.pending.push(index);
                    continue;
                }
                ProbeTarget::Exec(words) => {
                    let (keep_output, timeout) = (true, options.timeout);
                    let request = HelperRequest { words, set: &[], input: b"", keep_output, timeout };
                    helpers.start(now, epoll, surroundings, index, &request).map(|()| None)
                }
            };
            match (begun, self.sockets.get_mut(index)) {
                (Ok(check), Some(place)) => *place = check,
                (Err(why), _) => results.push((index, Err(self.describe(index, &why)))),
                (Ok(_), None) => {}
            }
        }
    }

    /// Goes on with the attempts. Returns those that have ended.
    pub(crate) fn turn(
        &mut self,
        now: Now,
        ready: Option<Ready>,
        epoll: &Epoll,
        ends: Vec<HelperEnd>,
    ) -> Vec<ProbeResult> {
        let mut results = Vec::new();
        if ready.is_some_and(|ready| ready.has(Source::Probe)) {
            for index in 0..self.sockets.len() {
                let Some(Some(check)) = self.sockets.get_mut(index) else { continue };
                let result = match check.step(epoll) {
                    Ok(None) => continue,
                    Ok(Some(0 | 200..400)) => Ok(()),
                    Ok(Some(status)) => Err(self.describe(index, &status.to_string())),
                    Err(why) => Err(self.describe(index, &why)),
                };
                results.push((index, result));
            }
        }
        for end in ends {
            // A program whose time was up is reported with all other attempts.
            let Some(exit) = end.exit else { continue };
            results.push((
                end.key,
                match exit {
                    Exit::Code(0) => Ok(()),
                    _ if !end.last_line.is_empty() => Err(end.last_line),
                    Exit::Code(code) => Err(format!("exit code {code}")),
                    Exit::Signal { signal, .. } => Err(format!("killed by {signal}")),
                },
            ));
        }
        for index in self.probes.expired(now) {
            if !results.iter().any(|(ended, _)| *ended == index) {
                self.pending.retain(|pending| *pending != index);
                results.push((index, Err(self.describe(index, "timed out"))));
            }
        }
        for (index, _) in &results {
            if let Some(place) = self.sockets.get_mut(*index) {
                *place = None;
            }
        }
        results
    }

    /// Returns when [`Prober::turn`] or [`Prober::begin`] has something to do, apart from events.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.probes.deadline()
    }

    /// Returns a reason such as `GET / 500`. The query is left out, because it may contain a secret.
    fn describe(&self, index: usize, what: &str) -> String {
        match self.probes.options().probes.get(index).map(|probe| &probe.target) {
            Some(ProbeTarget::Http { path, .. }) => {
                ["GET ", path.split('?').next().unwrap_or_default(), " ", what].concat()
            }
            Some(ProbeTarget::Connect(_)) => ["connect: ", what].concat(),
            Some(ProbeTarget::Exec(_)) | None => what.to_owned(),
        }
    }
}

fn request(host: &str, path: &str) -> Vec<u8> {
    let head = concat!(" HTTP/1.1\r\nUser-Agent: kapo-probe/", env!("CARGO_PKG_VERSION"));
    ["GET ", path, head, "\r\nAccept: */*\r\nConnection: close\r\nHost: ", host, "\r\n\r\n"]
        .concat()
        .into_bytes()
}
