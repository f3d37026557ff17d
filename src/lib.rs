//! kapo wraps any command in a status socket: it starts the command (or watches one that runs already) and answers
//! over HTTP whether it lives, since when, and how it ended.
//!
//! # Three layers
//!
//! Logic decides, driver does, sys calls the kernel.
//!
//! - [`logic`] is given events and the time, and answers with effects. It holds no descriptor, reads no clock and makes
//!   no system call, so whole lives are tested in microseconds. `logic::lifecycle` is the life of one command,
//!   `logic::restart` the policy of `supervise`, `logic::watch` the table of watched processes, `logic::http` a
//!   connection without its socket, `logic::site` what each path answers, `logic::status` the document.
//! - [`driver`] owns mio and every descriptor, and takes no decision. Most files there have a counterpart in `logic` that
//!   holds what they must not decide: job and lifecycle, watcher and watch, inherit and activation, manager and told and
//!   notify, cgroup and oom, procfs and procstat, connection and http::conn.
//! - [`sys`] is what rustix lacks: the only place for `unsafe`, for libc and for reading a clock. It knows nothing of
//!   kapo.
//!
//! Beside them stand [`cli`] (words and environment in, a [`config::Config`] out, from one table of options), [`config`],
//! [`signal`], [`duration`] and [`target`] (plain data), and [`error`] (what can go wrong before the loop turns, and the
//! exit codes).
//!
//! ```text
//! main -> cli    -> config, error, signal, duration, target
//! main -> driver -> logic, sys, and the same as cli     (and mio, rustix; httparse in client)
//! logic          -> config, error, signal, duration     (and httparse, memchr, serde_json)
//! sys            -> nothing of ours                     (libc, rustix)
//! ```
//!
//! # One turn of the loop
//!
//! [`driver::run`] opens all that can fail, loudly and with an exit code, and then hands over to
//! [`driver::event_loop::run`]. In the loop nothing returns an error upwards: a PID 1 that dies takes the container with
//! it. A turn
//!
//! 1. waits for events, or for the earliest deadline of anybody; without one, for ever,
//! 2. reads the clock once; everybody in this turn is given that [`logic::Now`],
//! 3. takes in signals and reaps children, before anything is answered, so that the answers of this turn are true,
//! 4. gives pipes and other sources of the mode their turn,
//! 5. accepts, reads and answers,
//! 6. ends what is past its deadline, and lets the mode finish: deadlines of the command, effects, a new document.
//!
//! What differs between the modes is behind [`driver::event_loop::Machine`]: `driver::job` (run, supervise) carries out
//! what `logic::lifecycle` decides, `driver::watching` what `logic::watch` does.
//!
//! # Where to start reading
//!
//! 1. [`config`]: what a user can ask for.
//! 2. [`logic`]'s own page: [`logic::Now`], [`logic::Exit`], [`logic::Sender`].
//! 3. [`logic::lifecycle`]: the states, then `Event`, `Effect`, and the `match` in `Lifecycle::handle`.
//! 4. [`driver::event_loop`]: the loop, 60 lines of it.
//! 5. [`driver::job`]: how an effect becomes a system call.
//!
//! Then `logic::http::conn` and `driver::connection` for how a request is answered, and `docs/design.md` for why it is
//! built this way.
pub mod cli;
pub mod config;
pub mod driver;
pub mod duration;
pub mod error;
pub mod logic;
pub mod signal;
pub mod sys;
pub mod target;
