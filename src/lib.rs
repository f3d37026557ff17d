//! kapo wraps any command in a status socket: it starts the command (or watches one that is already running) and
//! reports over HTTP whether it is alive, since when, and how it ended.
//!
//! # Three layers
//!
//! Logic decides, driver does, sys calls the kernel.
//!
//! - [`logic`] takes events and the time and returns effects. It holds no descriptor, reads no clock and makes no
//!   system call, so tests run whole lives in microseconds. `logic::lifecycle` is the life of one command,
//!   `logic::restart` the policy of `supervise`, `logic::watch` the table of watched processes, `logic::http` a
//!   connection without its socket, `logic::endpoints` the answer of each path, and `logic::status` the document.
//! - [`driver`] owns mio and every descriptor. Its folders are named after their subjects: `process`, `output`,
//!   `http`, `notify`, `watch`, `proc`, `client`. The decisions for each are in the folder or file of the same name in
//!   `logic`.
//! - [`sys`] contains what rustix lacks: all uses of `unsafe`, libc and a clock. It does not depend on the rest of
//!   kapo.
//!
//! The other modules are [`cli`] (parses arguments and environment into a [`config::Config`], from one table of
//! options), [`config`], [`fleet`], [`signal`], [`duration`] and [`target`] (plain data), and [`error`] (errors before
//! the loop, and the exit codes).
//!
//! ```text
//! main -> cli    -> config, error, signal, duration, target
//! main -> driver -> logic, sys, and the same as cli     (and mio, rustix; httparse in client)
//! logic          -> config, error, signal, duration     (and httparse, memchr, serde_json)
//! sys            -> nothing of kapo                     (libc, rustix)
//! ```
//!
//! # One turn of the loop
//!
//! [`driver::run`] first does everything that can fail, with an error line and an exit code, and then starts the loop
//! in `driver::event_loop`. Inside the loop, no error is returned upwards, because a PID 1 that exits ends its
//! container. Each turn of the loop
//!
//! 1. waits for events or for the earliest deadline; without a deadline, for ever,
//! 2. reads the clock once; everything in this turn uses that [`logic::Now`],
//! 3. takes signals and reaps children before it answers requests, so that the answers describe the current state,
//! 4. serves pipes and other sources of the mode,
//! 5. accepts, reads and answers,
//! 6. closes connections past their deadline and lets the mode handle its deadlines, carry out effects and render a
//!    new document.
//!
//! # Where to start reading
//!
//! 1. [`config`]: what a user can ask for.
//! 2. [`logic`]: [`logic::Now`], [`logic::Exit`], [`logic::Sender`].
//! 3. [`logic::lifecycle`]: the states, then `Event`, `Effect`, and the `match` in `Lifecycle::handle`.
//! 4. `driver::event_loop`: the loop.
//! 5. `driver::process::job`: how an effect becomes a system call.
//!
//! Then `logic::http::conn` and `driver::http::connection` for how a request is answered, and `docs/design.md` for the
//! reasons.
pub mod cli;
pub mod config;
pub mod driver;
pub mod duration;
pub mod error;
pub mod fleet;
pub mod logic;
pub mod signal;
pub mod sys;
pub mod target;
