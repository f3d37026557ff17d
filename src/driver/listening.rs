//! Opens all listeners before the loop starts: the inherited ones, or those of `--port`, `--interface`, `--listen`,
//! `--run-dir` and `--sidebind`.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::config::{Config, Interface, Misspelt, Mode};
use crate::driver::event_loop::LoopContext;
use crate::driver::http::inherited_sockets::{self, Sockets};
use crate::driver::http::listener::Listener;
use crate::driver::http::socket_access::SocketAccess;
use crate::error::Error;
use crate::logic::Now;
use crate::logic::log::record::Record;
use crate::sys;

/// The result of [`listen`].
pub(super) struct Listening {
    /// The member `SidebindPort` of the status document.
    pub sidebind_port: u16,
    /// The name of this kapo. It is never freed, because every document and every log record shows it.
    pub name: &'static str,
    /// Connections that kapo was started with (Accept=yes).
    pub given: Vec<OwnedFd>,
}

/// A listener that is not registered yet.
struct Opened {
    listener: Listener,
    /// The name of an inherited socket, or `sidebind`.
    socket: Option<String>,
    /// It was bound by kapo.
    ours: bool,
    /// The kernel has chosen its port, which is logged even under `--quiet`.
    port_0: bool,
}

/// Returns the inherited sockets, under `--socket-activation`.
pub(super) fn inherited(
    config: &Config,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Sockets, Error> {
    if config.listen.socket_activation {
        inherited_sockets::take_over(variable)
    } else {
        Ok(Sockets::default())
    }
}

/// Listens on the inherited `sockets`, and on sockets that are bound here. `connections` is the limit of open
/// connections.
#[inline(never)]
pub(super) fn listen(
    config: &Config,
    connections: usize,
    sockets: Sockets,
    context: &mut LoopContext,
    now: Now,
) -> Result<Listening, Error> {
    let wish = &config.listen;
    let access = SocketAccess::of(wish)?;
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    // Returns the port of the listener, if it has one.
    let mut ours = |bound: Result<Listener, Error>, socket: Option<&str>, port: u16| {
        let listener = match bound {
            Ok(listener) => listener,
            Err(error) if wish.optional => {
                failures.push(error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let bound = listener.port();
        let (socket, port_0) = (socket.map(str::to_owned), port == 0 && bound.is_some());
        all.push(Opened { listener, socket, ours: true, port_0 });
        Ok(bound)
    };
    let mut above = wish.port;
    if !wish.socket_activation && wish.interface != Interface::None {
        above = ours(Listener::bind(&wish.interface, above, access), None, wish.port)?.unwrap_or(above);
    }
    for (interface, port) in &wish.further {
        ours(Listener::bind(interface, *port, access), None, *port)?;
    }
    let mut name = config.name.clone();
    if let Some(folder) = &wish.run_dir {
        ours(in_run_dir(folder, access.in_run_dir(), &mut name), None, 0)?;
    }
    let mut sidebind_port = 0;
    if wish.sidebind {
        let side = Listener::sidebind(&wish.interface, above);
        sidebind_port = ours(side, Some("sidebind"), wish.port)?.unwrap_or(0);
    }
    for (listener, name) in sockets.listeners {
        all.push(Opened { listener, socket: Some(name), ours: false, port_0: false });
    }
    if let Mode::Job(job) = &config.mode {
        let probes = job.probes.iter().flat_map(|options| &options.probes);
        for contact in probes.filter_map(|probe| probe.target.contact()) {
            if let Some(own) = all.iter().find(|opened| opened.listener.is_reached_by(contact)) {
                let own = own.listener.address();
                return Err(Error::Usage(format!(
                    "--probe: {own} is kapo's own address, which always answers; check the command"
                )));
            }
        }
    }
    let name = String::leak(name);
    // Nothing is logged before all sockets are bound, so that a failed start prints a single line.
    if config.log_name {
        context.sinks.set_name(name);
    }
    if connections < config.max_connections {
        let record = Record::info("connection limit reduced");
        context.log(now, &record.number("connections", connections));
    }
    for Opened { listener, socket, ours, port_0 } in all {
        context.listen(now, listener, socket.as_deref(), ours, port_0)?;
    }
    for error in failures {
        context.log(now, &Record::warn("not listening").with("error", error.to_string()));
    }
    for Misspelt { found, meant } in &config.misspelt {
        let hint = format!("did you mean {meant}?");
        context.log(now, &Record::warn("unknown variable").with("variable", found).with("hint", hint));
    }
    let mut given = Vec::new();
    for (socket, name) in sockets.connections {
        context.log(now, &Record::info("serving connection").with("socket", name));
        sys::passrights::refuse(socket.as_fd());
        given.push(socket);
    }
    Ok(Listening { sidebind_port, name, given })
}

/// Listens on `NAME.sock` in the folder. If that fails, tries `NAME.PID`, which then becomes the name: a running kapo
/// may have the name, and in a folder that other users can write to, a file of theirs may be in the way.
fn in_run_dir(folder: &Path, access: SocketAccess, name: &mut String) -> Result<Listener, Error> {
    let bind = |name: &str| Listener::bind(&Interface::Path(folder.join(format!("{name}.sock"))), 0, access);
    bind(name).or_else(|first| {
        let own = format!("{name}.{}", std::process::id());
        let listener = bind(&own).map_err(|_| first)?;
        *name = own;
        Ok(listener)
    })
}
