//! The paths of fleet: the list, its changes, the targets for Prometheus, and each kapo.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::proxy::{Forwarded, Proxy};
use crate::config::{InstanceState, ListOrder};
use crate::driver::client::folder;
use crate::driver::client::instances::Instances;
use crate::driver::client::ls::{passwd, read_memory};
use crate::driver::poll::{Epoll, Source};
use crate::logic::Now;
use crate::logic::client::ls::table::TableStyle;
use crate::logic::client::ls::{Instance, export, names, sort};
use crate::logic::endpoints::{EVENT_STREAM, JSON, JSON_OR_PAGE, TEXT, ui};
use crate::logic::fleet::{Target, proxied};
use crate::logic::http::request::ALLOW;
use crate::logic::http::response::Reply;
use crate::logic::http::{Handler, Method, Next, Request};

/// How much longer a list is awaited than its slowest kapo.
const SLACK: Duration = Duration::from_secs(1);

/// The type of the text at `/`.
const TEXT_OR_PAGE: &str = "text/plain; charset=utf-8\r\nVary: *";

/// The wait if the clock cannot express the time limit.
const LONGEST: Duration = Duration::from_secs(1 << 31);
/// How many sockets are queried at once.
const AT_ONCE: usize = 64;
/// The least time between two events.
const LEAST: Duration = Duration::from_millis(100);

/// The states of all kapos, while a client waits for them or follows them.
struct Survey {
    instances: Instances,
    /// The sockets are followed, because a client receives the changes.
    follows: bool,
    /// Each socket has a state.
    complete: bool,
    registered: bool,
    /// When the next event may be sent.
    next: Option<Instant>,
}

/// What fleet serves.
pub(super) struct Site {
    folder: OwnedFd,
    /// The absolute path of the folder.
    path: Vec<u8>,
    pub(super) proxy: Proxy,
    /// The request that was just passed on, until its connection is handed over.
    forwarded: Option<Forwarded>,
    survey: Option<Survey>,
    timeout: Duration,
    ui: bool,
    /// How many descriptors are left for clients.
    reserve: u64,
    /// The next request must be answered now.
    late: bool,
}

impl Site {
    /// Opens the folder and makes it the working directory.
    pub(super) fn open(path: &Path, timeout: Duration, ui: bool, reserve: u64) -> Result<Site, Errno> {
        let folder = folder::open(path)?;
        Ok(Site {
            folder,
            path: rustix::process::getcwd(Vec::new())?.into_bytes(),
            proxy: Proxy::new(timeout)?,
            forwarded: None,
            survey: None,
            timeout,
            ui,
            reserve,
            late: false,
        })
    }

    /// Passes on the request that was sent to a kapo last.
    pub(super) fn take_over(&mut self, now: Now, client: OwnedFd, unsent: Vec<u8>) {
        if let Some(forwarded) = self.forwarded.take() {
            self.proxy.add(now, forwarded, client, unsent);
        }
    }

    /// Handles events of the folder and of its sockets.
    pub(super) fn on_folder(&mut self, now: Now) {
        if let Some(survey) = &mut self.survey {
            survey.instances.on_ready(now.mono);
        }
    }

    /// Ends the turn. `viewed`: a client receives the changes. Returns the event for these clients, which is empty if
    /// only held requests can be answered; call [`Site::answered`] when the clients have it.
    pub(super) fn turn(&mut self, now: Now, viewed: bool, epoll: &Epoll) -> Option<Vec<u8>> {
        self.proxy.turn(now, false);
        // A list that was queried once does not follow its sockets.
        if self.survey.as_ref().is_none_or(|survey| !survey.follows) && viewed {
            self.begin(now, true);
        }
        let survey = self.survey.as_mut()?;
        if !survey.registered {
            survey.registered = epoll.add(&survey.instances, Source::Folder, EventFlags::IN).is_ok();
        }
        if survey.instances.deadline().is_some_and(|deadline| deadline <= now.mono)
            && survey.instances.expire(now.mono).is_err()
        {
            // The folder is gone, which the next request for the list reports.
            self.survey = None;
            return Some(Vec::new());
        }
        let instances = &mut survey.instances;
        if !survey.complete {
            survey.complete = instances.is_complete();
            if !survey.complete {
                return None;
            }
            // Clients of the stream request the list, so nothing has changed for them yet.
            drop((instances.changed(), instances.removed()));
            return Some(Vec::new());
        }
        if !instances.has_changed() || survey.next.is_some_and(|next| next > now.mono) {
            return None;
        }
        survey.next = now.mono.checked_add(LEAST);
        let mut rows = instances.removed();
        rows.iter_mut().for_each(|instance| instance.state = InstanceState::Removed);
        let changed = instances.changed();
        rows.extend(changed.into_iter().filter_map(|place| instances.at(place).cloned()));
        read_memory(&mut rows);
        for row in &mut rows {
            row.name = names::name(&row.file, &|bare| is_socket(&self.folder, bare));
        }
        let rows = export::json(&rows, &self.path).replace('\n', "");
        Some(["event: change\ndata: ", &rows, "\n\n"].concat().into_bytes())
    }

    /// Frees the list when no client needs it any more.
    pub(super) fn answered(&mut self, viewed: bool) {
        if !viewed && self.survey.as_ref().is_some_and(|survey| survey.complete || survey.follows) {
            self.survey = None;
        }
    }

    /// Returns when [`Site::turn`] is due without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let survey = self.survey.as_ref();
        let news = survey.filter(|survey| survey.instances.has_changed()).and_then(|survey| survey.next);
        let query = survey.and_then(|survey| survey.instances.deadline());
        [self.proxy.deadline(), query, news].into_iter().flatten().min()
    }

    /// Begins to query the sockets of the folder.
    fn begin(&mut self, now: Now, follows: bool) {
        let begun = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0).and_then(|folder| {
            let mut instances = Instances::new(folder, AT_ONCE, self.timeout)?;
            match follows {
                true => instances.follow(now.mono, self.reserve)?,
                false => instances.query(now.mono)?,
            }
            Ok(instances)
        });
        let survey =
            |instances| Survey { instances, follows, complete: false, registered: false, next: None };
        self.survey = begun.ok().map(survey);
    }

    fn list(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        let text = ui::lists(request.accept, "text/plain") && !ui::lists(request.accept, JSON);
        if request.method == Method::Head {
            reply.send_head(200, if text { TEXT_OR_PAGE } else { JSON_OR_PAGE }, None);
            return Next::Answered;
        }
        let late = std::mem::take(&mut self.late);
        if self.survey.is_none() {
            self.begin(now, false);
        }
        let Some(survey) = &mut self.survey else {
            return refuse(reply, 503, "the folder cannot be queried\n");
        };
        if !survey.complete && !late {
            let limit = now.mono.checked_add(self.timeout.saturating_add(SLACK));
            return Next::Await(limit.unwrap_or(now.mono + LONGEST));
        }
        let mut instances = survey.instances.copy();
        names::assign(&mut instances);
        sort(&mut instances, ListOrder::State);
        read_memory(&mut instances);
        if text {
            let passwd = passwd();
            let style =
                TableStyle { wide: true, width: None, colour: false, now: Some(now.wall), passwd: &passwd };
            reply.send(200, TEXT_OR_PAGE, &[], style.table(&instances).as_bytes());
        } else {
            reply.send(200, JSON_OR_PAGE, &[], export::json(&instances, &self.path).as_bytes());
        }
        Next::Answered
    }

    fn kapo(&mut self, name: &[u8], path: &str, request: &Request<'_>, reply: Reply<'_>) -> Next {
        let text = proxied::request(request, path);
        match self.proxy.forward(&self.folder, name, request.method, &text) {
            Ok(forwarded) => {
                self.forwarded = Some(forwarded);
                Next::HandOver
            }
            Err((status, why)) => refuse(reply, status, why),
        }
    }
}

impl Handler for Site {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        if request.method == Method::Options {
            reply.send(204, "", &[("Allow", ALLOW.to_owned())], &[]);
            return Next::Answered;
        }
        match Target::of(request.path) {
            target @ (Target::List | Target::Page) => {
                let wanted = target == Target::Page || ui::is_browser(request);
                if !(self.ui && wanted && ui::takes_stored(request)) {
                    return self.list(now, request, reply);
                }
                let (kind, page) = ui::fleet();
                reply.send(200, kind, &[], &page);
            }
            Target::Changes => {
                reply.stream(EVENT_STREAM, b"retry: 1000\n\n");
                return Next::Events;
            }
            Target::Discovery => {
                let sockets = folder::sockets(&self.folder).unwrap_or_default();
                let instance = |(file, inode): &(Vec<u8>, u64)| Instance::new(file, *inode);
                let mut instances: Vec<Instance> = sockets.iter().map(instance).collect();
                names::assign(&mut instances);
                let host = if request.host.is_empty() { "localhost" } else { request.host };
                reply.send(200, JSON, &[], export::through_fleet(&instances, host).as_bytes());
            }
            Target::Probe => reply.send(200, TEXT, &[], b"ok"),
            Target::Kapo(name, path) => return self.kapo(&name, path, request, reply),
            Target::Slashless(name) => {
                reply.send(308, "", &[("Location", ["./", name, "/"].concat())], &[]);
            }
            Target::Unknown => return refuse(reply, 404, "no such path\n"),
        }
        Next::Answered
    }

    fn again(&mut self, _: Now, _: bool, reply: Reply<'_>) -> Next {
        refuse(reply, 404, "no such path\n")
    }

    fn overdue(&mut self) {
        self.late = true;
    }
}

fn is_socket(folder: &OwnedFd, file: &[u8]) -> bool {
    let stat = rustix::fs::statat(folder, file, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

fn refuse(reply: Reply<'_>, status: u16, why: &str) -> Next {
    reply.send(status, TEXT, &[], why.as_bytes());
    Next::Answered
}
