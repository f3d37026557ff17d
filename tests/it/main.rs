//! Tests of the real program with real processes, signals, sockets and terminals. They are one binary, so that there
//! is one link step and all cases run in parallel.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong shall fail loudly")]

mod activation;
mod bad_input;
mod before_stop;
mod chunked;
mod connections;
mod environment;
mod exit_codes;
mod harness;
mod history;
mod http;
mod idle;
mod limits;
mod listeners;
mod log_format;
mod logs_client;
mod ls;
mod main_pid;
mod names;
mod no_listener;
mod notify;
mod notify_socket;
mod oom;
mod output;
mod output_ends;
mod output_lines;
mod output_outage;
mod output_shared;
mod passrights;
mod pid1;
mod probes;
mod proxies;
mod ready_line;
mod run;
mod run_dir;
mod seccomp;
mod signals;
mod sinks;
mod slow_exec;
mod socket_access;
mod socket_path;
mod starts;
mod status_client;

mod notify_races;
mod stopping;
mod streams;
mod supervise;
mod tail;
mod terminal;
mod textfile;
mod tools;
mod wait;
mod watch;
mod watch_names;
