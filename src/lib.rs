//! kapo wraps any command in a status socket: it starts the command (or watches one that runs already) and answers
//! over HTTP whether it lives, since when, and how it ended.
//!
//! # Three layers
//!
//! Logic decides, driver does, sys calls the kernel.
//!
//! - [`logic`] takes events and the time and returns effects. It holds no descriptor, reads no clock and makes no system
//!   call, so tests run whole lives in microseconds. `logic::lifecycle` is the life of one command, `logic::restart` the
//!   policy of `supervise`, `logic::watch` the table of watched processes, `logic::http` a connection without its socket,
//!   `logic::endpoints` the answer of each path, `logic::status` the document.
//! - [`driver`] owns mio and every descriptor. Its folders have the names of the subjects: `process`, `output`, `http`,
//!   `notify`, `watch`, `proc`, `client`; the decisions for each are in the folder or file of that name in `logic`.
//! - [`sys`] is what rustix lacks: the only place for `unsafe`, libc and reading a clock. It knows nothing of kapo.
//!
//! Beside them stand [`cli`] (words and environment in, a [`config::Config`] out, from one table of options), [`config`],
//! [`signal`], [`duration`] and [`target`] (plain data), and [`error`] (failures before the loop, and the exit codes).
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
//! [`driver::run`] opens everything that can fail, with an error line and an exit code, and then starts the loop in
//! `driver::event_loop`. Inside the loop no error is returned upwards: a PID 1 that exits takes the container with it. A
//! turn
//!
//! 1. waits for events or for the earliest deadline; without a deadline, for ever,
//! 2. reads the clock once; everything in this turn uses that [`logic::Now`],
//! 3. takes signals and reaps children before anything is answered, so that the answers of this turn are true,
//! 4. serves pipes and other sources of the mode,
//! 5. accepts, reads and answers,
//! 6. ends what is past its deadline and lets the mode finish: deadlines of the command, effects, a new document.
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
pub mod logic;
pub mod signal;
pub mod sys;
pub mod target;
