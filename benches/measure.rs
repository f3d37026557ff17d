//! The helper program of `make bench`: starts processes, writes, reads and reaps, because a script would be too slow.
//!
//! It makes no comparison itself: scripts/bench runs it with kapo and with the other programs, and computes the
//! results.
//! ```text
//! measure spawn ROUNDS COMMAND...     each COMMAND one word, split at spaces; microseconds until it is reaped
//! measure write BYTES BLOCK           to stdout, lines of 100 bytes in blocks of BLOCK
//! measure read                        stdin to its end; prints bytes
//! measure crowd COUNT COMMAND...      starts COUNT of them, says so, ends them when stdin closes
//! measure orphans COUNT               leaves COUNT orphans to PID 1; prints what reaping them cost it
//! ```
#![expect(clippy::disallowed_methods, reason = "measuring is about the clock")]
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

// Declared here instead of taken from a crate, so that `make bench` compiles only this file.
unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(code: i32) -> !;
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["spawn", rounds, commands @ ..] => spawn(rounds, commands),
        ["write", bytes, block] => write(bytes, block),
        ["read"] => read(),
        ["crowd", count, command @ ..] => crowd(count, command),
        ["orphans", count] => orphans(count),
        // `cargo bench` alone passes --bench.
        _ => {
            println!("measure: driven by `make bench`");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<Command, Box<dyn std::error::Error>> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Prints one line for each command: its number, then the median and the tenth percentile in microseconds.
fn spawn(rounds: &str, commands: &[&str]) -> Outcome {
    let rounds: usize = rounds.parse()?;
    let mut took: Vec<Vec<Duration>> = commands.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for at in 0..commands.len() {
            // Each round begins with another command, so that no command always follows the same one.
            let at = (at + round) % commands.len();
            let (Some(text), Some(took)) = (commands.get(at), took.get_mut(at)) else { continue };
            let words: Vec<&str> = text.split_whitespace().collect();
            let mut command = command(&words)?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let began = Instant::now();
            let status = command.spawn()?.wait()?;
            took.push(began.elapsed());
            if !status.success() {
                return Err(format!("{text}: {status}").into());
            }
        }
    }
    for (at, took) in took.iter_mut().enumerate() {
        took.sort_unstable();
        let micros = |at: usize| took.get(at).map_or(0.0, |t| t.as_secs_f64() * 1e6);
        println!("{at} {:.1} {:.1}", micros(rounds / 2), micros(rounds / 10));
    }
    Ok(())
}

/// Writes the text. If MEASURE_CPU is set, writes the CPU time to that file, because the process that reaps this one
/// counts it as its own.
fn write(bytes: &str, block: &str) -> Outcome {
    let (bytes, block): (u64, usize) = (bytes.parse()?, block.parse()?);
    let line: Vec<u8> = [vec![b'x'; 99], vec![b'\n']].concat();
    // Prepare whole lines in memory and cut blocks anywhere. The offset advances, so that each line stays 100 bytes
    // long.
    let text: Vec<u8> = line.iter().copied().cycle().take(block + line.len()).collect();
    // Write to the descriptor directly, because std's stdout would buffer small writes.
    let mut out = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut done: u64 = 0;
    while done < bytes {
        let phase = usize::try_from(done % 100)?;
        let length = block.min(usize::try_from(bytes - done).unwrap_or(block));
        let part = text.get(phase..phase + length).ok_or("the text is too short")?;
        out.write_all(part)?;
        done += u64::try_from(length)?;
    }
    if let Some(path) = env::var_os("MEASURE_CPU") {
        fs::write(path, cpu_nanos("self")?.to_string())?;
    }
    Ok(())
}

fn read() -> Outcome {
    let mut buffer = vec![0; 1 << 20];
    let mut total: u64 = 0;
    let mut from = io::stdin().lock();
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => total += u64::try_from(n)?,
        }
    }
    println!("{total}");
    Ok(())
}

fn crowd(count: &str, words: &[&str]) -> Outcome {
    let count: usize = count.parse()?;
    let mut all: Vec<Child> = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(command(words)?.stdin(Stdio::null()).spawn()?);
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    for each in &mut all {
        each.kill()?;
        each.wait()?;
    }
    Ok(())
}

/// Returns the CPU time of a single-threaded process, in nanoseconds.
fn cpu_nanos(pid: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(text.split_whitespace().next().ok_or("empty schedstat")?.parse()?)
}

/// Prints the nanoseconds that PID 1 has used for all orphans, once they are gone.
fn orphans(count: &str) -> Outcome {
    const BATCH: usize = 50;
    let count: usize = count.parse()?;
    let before = cpu_nanos("1")?;
    for _ in 0..count / BATCH {
        // SAFETY: this program has one thread, so the child of fork may call any function.
        match unsafe { fork() } {
            -1 => return Err(io::Error::last_os_error().into()),
            0 => leave_orphans(BATCH),
            child => {
                // SAFETY: waits for a child of this process; a null status is allowed.
                if unsafe { waitpid(child, std::ptr::null_mut(), 0) } != child {
                    return Err(io::Error::last_os_error().into());
                }
            }
        }
    }
    let limit = Instant::now() + Duration::from_secs(20);
    // Wait until this process is the only child of PID 1.
    while fs::read_to_string("/proc/1/task/1/children")?.split_whitespace().count() > 1 {
        if Instant::now() > limit {
            return Err("orphans were left".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    println!("{}", cpu_nanos("1")? - before);
    Ok(())
}

/// Runs in the middle process, whose children outlive it for a moment.
fn leave_orphans(count: usize) -> ! {
    for _ in 0..count {
        // SAFETY: as in orphans(); the child only calls _exit.
        if unsafe { fork() } == 0 {
            // SAFETY: ends this process at once and takes no pointer.
            unsafe { _exit(0) };
        }
    }
    // SAFETY: as above.
    unsafe { _exit(0) }
}
