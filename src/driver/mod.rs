//! The layer that carries out effects: it owns mio and every descriptor, and makes no decisions.
//!
//! [`run`] first does everything that can fail, with an error line and an exit code, and then starts the loop. In the
//! loop, no error is returned upwards, because a PID 1 that exits ends its container.

pub(crate) mod client;
pub(crate) mod event_loop;
pub(crate) mod fleet;
pub(crate) mod http;
mod listening;
pub(crate) mod notify;
pub(crate) mod output;
pub(crate) mod poll;
pub(crate) mod probe;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod watch;

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use rustix::event::epoll::EventFlags;
use rustix::fs::fstat;
use rustix::process::{Resource, Rlimit, getpid, getppid, getrlimit, set_child_subreaper, setrlimit};

use crate::config::{self, Config, Mode};
use crate::driver::fleet::mode::{Fleet, FleetSetup};
use crate::driver::http::inherited_sockets::Sockets;
use crate::driver::http::server::Server;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::process::job::{Job, JobSetup};
use crate::driver::process::signals::Signals;
use crate::driver::watch::mode::Watching;
use crate::error::{Error, reason};
use crate::logic::Now;
use crate::logic::endpoints::Page;
use crate::logic::lifecycle::Event;
use crate::logic::log::journal;
use crate::logic::log::record::{Record, Style};
use crate::sys;
use event_loop::{LoopContext, clock};
use listening::{Listening, inherited, listen};
use poll::{Epoll, Source};

/// Number of descriptors that are reserved for purposes other than connections: standard ones, epoll, signalfd,
/// listeners, the pipes of a start, files of a scrape.
const OWN_DESCRIPTORS: u64 = 32;

/// Runs the configured mode and returns the exit code. `argv0` is kapo's own name; `variable` reads the environment.
/// Each mode has its own function, because its stack frame exists for as long as kapo runs.
pub fn run(config: &Config, argv0: String, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<u8, Error> {
    match &config.mode {
        Mode::Job(options) => run_job(config, options, argv0, variable),
        Mode::Watch(options) => run_watch(config, options, argv0, variable),
        Mode::Check(options) => Ok(client::check(config, options)),
        Mode::Wait(options) => Ok(client::wait(config, options)),
        Mode::Status(options) => Ok(client::status(config, options, variable)),
        Mode::Logs(options) => Ok(client::logs(config, options)),
        Mode::List(options) => client::list(config, options, variable),
        Mode::Fleet(options) => run_fleet(config, options, argv0, variable),
    }
}

#[inline(never)]
fn run_job(
    config: &Config,
    options: &Rc<config::JobOptions>,
    argv0: String,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Error> {
    let parent = getppid();
    let sockets = inherited(config, variable)?;
    let signals = take_over_signals()?;
    // Orphans of the command become children of kapo, which reaps them. PID 1 gets them in any case.
    let subreaper = if signals.is_init() { Ok(()) } else { set_child_subreaper(Some(getpid())) };
    let extra = if options.notify { sys::datagram::DESCRIPTORS } else { 0 };
    let extra = extra + further_listeners(&config.listen);
    // All probes may run at the same time.
    let extra = extra + options.probes.as_ref().map_or(0, |options| options.probes.len());
    let Room { connections, open_files } = make_room(config.max_connections, extra);
    let now = clock();
    let mut context = open_context(config, connections, argv0, &signals, variable, now)?;
    let Listening { sidebind_port, name, mut given } =
        listen(config, connections, sockets, &mut context, now)?;
    if let Err(errno) = subreaper {
        let record = Record::warn("cannot become subreaper");
        context.log(now, &record.with("error", reason(&errno.into())));
    }
    let setup = JobSetup { now, variable, signals: &signals, open_files, sidebind_port, name };
    let mut job = Job::new(config, options, &setup, &mut context)?;

    // From here on, no error is returned upwards.
    if let Some(signal) = options.parent_death_signal {
        job.watch_parent(now, signal, parent, &mut context);
    }
    // A stop signal that is already pending must prevent the start.
    event_loop::take_signals(now, &mut *job, &signals, &mut context);
    context.server.accept_queued(&mut given);
    job.handle(now, Event::Start, &mut context);
    // Answer after the start, so that the first answers show its result.
    context.admit(now, given, &*job);
    let code = match context.exit {
        Some(code) => code,
        None => event_loop::run(&mut *job, &signals, &mut context),
    };
    job.end(&signals);
    // The kernel frees everything at exit; dropping it here would cost a dozen system calls. The socket files are
    // already removed with the listeners, which were closed before the exit code was set.
    std::mem::forget((job, context, signals));
    Ok(code)
}

#[inline(never)]
fn run_watch(
    config: &Config,
    options: &config::WatchOptions,
    argv0: String,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Error> {
    let Prepared { sockets, signals, connections, now, mut context } = prepare(config, 0, argv0, variable)?;
    // Open the watcher before the listeners, so that an error is the only line of output.
    let watcher = watch::mode::OpenedWatcher::open(options, config.history, now)?;
    let Listening { sidebind_port, name, given } = listen(config, connections, sockets, &mut context, now)?;
    let setup = watch::mode::WatchSetup {
        now,
        manager: ServiceManager::of(now, variable),
        sidebind_port,
        name,
        ignored_at_start: signals.ignored_at_start,
    };
    let mut watching = Watching::new(watcher, setup, &mut context)?;
    // Leave the working directory, so that no mount is kept busy; all paths are absolute now.
    let _ = rustix::process::chdir("/");
    context.admit(now, given, &watching);
    Ok(event_loop::run(&mut watching, &signals, &mut context))
}

#[inline(never)]
fn run_fleet(
    config: &Config,
    options: &config::FleetOptions,
    argv0: String,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Error> {
    let Prepared { sockets, signals, connections, now, mut context } =
        prepare(config, fleet::DESCRIPTORS, argv0, variable)?;
    let setup = FleetSetup {
        now,
        manager: ServiceManager::of(now, variable),
        ignored_at_start: signals.ignored_at_start,
        folder: options.folder.clone().unwrap_or_else(|| client::ls::default_folder(variable)),
        ui: config.ui,
        connections,
    };
    // Open the folder before the listeners, so that an error is the only line of output.
    let mut fleet = Fleet::open(options, setup, &context)?;
    let Listening { given, .. } = listen(config, connections, sockets, &mut context, now)?;
    context.admit(now, given, &fleet);
    Ok(event_loop::run(&mut fleet, &signals, &mut context))
}

/// What the modes without a command have in common.
struct Prepared {
    sockets: Sockets,
    signals: Signals,
    connections: usize,
    now: Now,
    context: Box<LoopContext>,
}

/// Takes over sockets and signals. `extra`: see [`make_room`], without the listeners.
#[inline(never)]
fn prepare(
    config: &Config,
    extra: usize,
    argv0: String,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Prepared, Error> {
    let sockets = inherited(config, variable)?;
    let signals = take_over_signals()?;
    let extra = extra + further_listeners(&config.listen);
    let Room { connections, .. } = make_room(config.max_connections, extra);
    let now = clock();
    let context = open_context(config, connections, argv0, &signals, variable, now)?;
    Ok(Prepared { sockets, signals, connections, now, context })
}

/// Returns how many listeners `--listen` and `--run-dir` add.
fn further_listeners(listen: &config::Listen) -> usize {
    listen.further.len() + usize::from(listen.run_dir.is_some())
}

fn take_over_signals() -> Result<Signals, Error> {
    Signals::take_over().map_err(|e| Error::setup("take over", "signals", reason(&e)))
}

/// Returns the state of the loop, with signals registered and a server without listeners. It is on the heap for the same
/// reason as the job ([`Job::new`]).
#[inline(never)]
fn open_context(
    config: &Config,
    connections: usize,
    argv0: String,
    signals: &Signals,
    variable: &dyn Fn(&str) -> Option<OsString>,
    now: Now,
) -> Result<Box<LoopContext>, Error> {
    let failed = |e: std::io::Error| Error::setup("set up", "epoll", reason(&e));
    let epoll = Epoll::new().map_err(failed)?;
    epoll.add(signals, Source::Signals, EventFlags::IN).map_err(|e| failed(e.into()))?;
    // Event ids begin with the start time in microseconds, so that two instances of kapo do not use the same ones.
    let since_epoch = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let first_event = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
    let server = Server::new(connections, argv0, Page::new(first_event, config.ui));
    let mut context = Box::new(LoopContext::new(epoll, server, config.quiet));
    let journal = is_journal(rustix::stdio::stderr(), variable);
    context.sinks.set_style(Style { format: config.log_format, journal, name: None });
    Ok(context)
}

/// Whether `fd` is connected to systemd's journal.
fn is_journal(fd: BorrowedFd<'_>, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let Some(named) = variable("JOURNAL_STREAM") else { return false };
    fstat(fd).is_ok_and(|stat| journal::names(named.as_bytes(), stat.st_dev, stat.st_ino))
}

/// The limits that follow from RLIMIT_NOFILE.
struct Room {
    /// Most connections. Clients must not use up the descriptors that a restart or a scrape needs.
    connections: usize,
    /// The soft and hard limit before kapo has raised its own; `None` if it has not.
    open_files: Option<(u64, u64)>,
}

/// Raises the soft limit for `connections` if the hard limit allows it. `extra` is the number of further listeners and
/// of probes, plus the number of descriptors that one message to NOTIFY_SOCKET can bring: the kernel closes those for
/// which there is no room, and blocks if one is a socket that lingers.
fn make_room(connections: usize, extra: usize) -> Room {
    let before = getrlimit(Resource::Nofile);
    let own = OWN_DESCRIPTORS.saturating_add(u64::try_from(extra).unwrap_or(u64::MAX));
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(own);
    let (soft, hard) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
    let raised = wanted.min(hard);
    let limits = Rlimit { current: Some(raised), maximum: before.maximum };
    let (now, open_files) = match raised > soft && setrlimit(Resource::Nofile, limits).is_ok() {
        true => (raised, Some((soft, hard))),
        false => (soft, None),
    };
    // With a very low limit, at most three quarters are reserved.
    let own = own.min(now / 4 * 3);
    let room = usize::try_from(now - own).unwrap_or(usize::MAX).max(1);
    Room { connections: connections.min(room), open_files }
}
