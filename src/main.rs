//! The program: parses the arguments and the environment, and returns the exit code. Everything else is in the
//! library.
#![no_main]

mod entry;

use std::ffi::OsString;
use std::io::ErrorKind;

use kapo::cli::{self, Order};
use kapo::driver;
use kapo::error::{Error, one_line, reason};
use kapo::sys::{environment, heap::Memory, stdio};

#[global_allocator]
static MEMORY: Memory = Memory;

/// Runs kapo. Called by `entry` with all arguments, the program's name first; returns the exit code.
fn start(arguments: Vec<OsString>) -> u8 {
    let mut arguments = arguments.into_iter();
    let argv0 = arguments.next().unwrap_or_else(|| "kapo".into()).to_string_lossy().into_owned();
    let result = match cli::parse(arguments.collect(), &environment::with_prefix(b"KAPO_")) {
        Ok(Order::Print(text)) => {
            let [_, out, _] = stdio::standard();
            match stdio::write_all(out, text.as_bytes()) {
                // A closed pipe is no error (kapo --help | head), even if SIGPIPE is ignored.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    Err(Error::setup("write to", "stdout", reason(&error)))
                }
                _ => Ok(0),
            }
        }
        Ok(Order::Do(config)) => driver::run(&config, argv0, &environment::value),
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| {
        let [.., to] = stdio::standard();
        let _ = stdio::write_all(to, format!("kapo: {}\n", one_line(&error.to_string())).as_bytes());
        error.exit_code()
    })
}
