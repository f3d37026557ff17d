//! The helper program of `make bench`: starts processes, writes, reads and reaps, because a script would be too slow.
//!
//! It makes no comparison itself: scripts/bench runs it with kapo and with the other programs, and computes the
//! results.
//! ```text
//! measure spawn ROUNDS COMMAND...     each COMMAND one word, split at spaces; microseconds until it is reaped
//! measure term ROUNDS WRAPPER...      sends TERM to `WRAPPER measure handler`; microseconds to the handler, to the end
//! measure handler                     prints a byte, then the time at which TERM arrives, and exits
//! measure notice ROUNDS WRAPPER CHILD kills CHILD; microseconds to the notice of a bare parent, to kapo's answer
//! measure write BYTES BLOCK           to stdout, lines of 100 bytes in blocks of BLOCK
//! measure read                        stdin to its end; prints bytes
//! measure crowd COUNT COMMAND...      starts COUNT of them, says so, ends them when stdin closes
//! measure orphans COUNT BATCH         leaves COUNT orphans to PID 1, BATCH at once; prints what reaping them cost it
//! ```
#![expect(clippy::disallowed_methods, reason = "measuring is about the clock")]
#![allow(unsafe_code)]

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

// Declared here instead of taken from a crate, so that `make bench` compiles only this file.
unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn wait4(pid: i32, status: *mut i32, options: i32, usage: *mut [i64; 18]) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn signal(signal: i32, handler: usize) -> usize;
    fn pause() -> i32;
    fn write(fd: i32, from: *const u8, length: usize) -> isize;
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    fn _exit(code: i32) -> !;
}

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["spawn", rounds, commands @ ..] => spawn(rounds, commands),
        ["term", rounds, wrappers @ ..] => term(rounds, wrappers),
        ["handler"] => handler(),
        ["notice", rounds, wrapper, child] => notice(rounds, wrapper, child),
        ["write", bytes, block] => write_lines(bytes, block),
        ["read"] => read(),
        ["crowd", count, command @ ..] => crowd(count, command),
        ["orphans", count, batch] => orphans(count, batch),
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

/// Calls `once` for each of `count` ways, `rounds` times. Each round begins with another way, so that no way always
/// follows the same one. Prints one line for each way: the median and the tenth percentile of each of its numbers.
fn interleave<const N: usize>(
    rounds: &str,
    count: usize,
    once: impl Fn(usize) -> Result<[f64; N], Box<dyn std::error::Error>>,
) -> Outcome {
    let rounds: usize = rounds.parse()?;
    let mut took: Vec<Vec<[f64; N]>> = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds {
        for at in 0..count {
            let at = (at + round) % count;
            if let Some(took) = took.get_mut(at) {
                took.push(once(at)?);
            }
        }
    }
    for took in took {
        for number in 0..N {
            let mut column: Vec<f64> = took.iter().filter_map(|row| row.get(number).copied()).collect();
            column.sort_unstable_by(f64::total_cmp);
            let at = |at: usize| column.get(at).copied().unwrap_or_default();
            print!("{:.1} {:.1} ", at(rounds / 2), at(rounds / 10));
        }
        println!();
    }
    Ok(())
}

/// For each command: microseconds until it is reaped, and its CPU time with that of the processes that it has reaped.
fn spawn(rounds: &str, commands: &[&str]) -> Outcome {
    interleave(rounds, commands.len(), |at| {
        let text = commands.get(at).ok_or("no command")?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut command = command(&words)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let pid = i32::try_from(command.spawn()?.id())?;
        let (mut status, mut usage) = (0, [0; 18]);
        // SAFETY: both pointers are to variables of this function, and struct rusage has 18 longs.
        if unsafe { wait4(pid, &raw mut status, 0, &raw mut usage) } != pid || status != 0 {
            return Err(format!("{text}: status {status}").into());
        }
        let wall = began.elapsed().as_secs_f64() * 1e6;
        let [user, user_micros, system, system_micros, ..] = usage;
        Ok([wall, micros((user + system) * 1_000_000_000 + (user_micros + system_micros) * 1000)])
    })
}

#[expect(clippy::cast_precision_loss, reason = "a duration of some days is exact")]
fn micros(nanos: i64) -> f64 {
    nanos as f64 / 1e3
}

/// Returns the monotonic clock in nanoseconds; it is the same in all processes.
fn clock() -> i64 {
    let mut time = [0; 2];
    // SAFETY: the pointer is to a variable of this function; 1 is CLOCK_MONOTONIC.
    unsafe { clock_gettime(1, &raw mut time) };
    time[0] * 1_000_000_000 + time[1]
}

/// For each wrapper of `measure handler`: microseconds from TERM to the handler, and from the handler, which exits at
/// once, until the wrapper is reaped.
fn term(rounds: &str, wrappers: &[&str]) -> Outcome {
    let this = env::current_exe()?;
    let this = this.to_str().ok_or("the path of this program")?;
    interleave(rounds, wrappers.len(), |at| {
        let mut words: Vec<&str> = wrappers.get(at).ok_or("no wrapper")?.split_whitespace().collect();
        words.extend([this, "handler"]);
        let mut command = command(&words)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut out = child.stdout.take().ok_or("no pipe")?;
        out.read_exact(&mut [0])?;
        pause_shortly();
        let sent = clock();
        // SAFETY: the child is not reaped yet, so the pid is its own.
        unsafe { kill(i32::try_from(child.id())?, SIGTERM) };
        child.wait()?;
        let ended = clock();
        let mut handled = [0; 8];
        out.read_exact(&mut handled)?;
        let handled = i64::from_ne_bytes(handled);
        Ok([micros(handled - sent), micros(ended - handled)])
    })
}

/// Gives a process that has just started the time to fall asleep.
fn pause_shortly() {
    thread::sleep(Duration::from_millis(5));
}

fn handler() -> Outcome {
    extern "C" fn on_term(_: i32) {
        let now = clock().to_ne_bytes();
        // SAFETY: allowed in a handler, and the pointer is to a variable of this function.
        unsafe { write(1, now.as_ptr(), now.len()) };
        // SAFETY: as above; takes no pointer.
        unsafe { _exit(0) }
    }
    // SAFETY: the address is that of a function with the type of a handler.
    unsafe { signal(SIGTERM, on_term as *const () as usize) };
    io::stdout().write_all(b"r")?;
    io::stdout().flush()?;
    loop {
        // SAFETY: takes no argument.
        unsafe { pause() };
    }
}

/// First the microseconds until a bare parent of `child`, which is killed, has reaped it, and then those until a GET of
/// /wait, which the wrapper keeps open, is answered.
fn notice(rounds: &str, wrapper: &str, child: &str) -> Outcome {
    interleave(rounds, 2, |at| {
        if at == 0 { notice_bare(child) } else { notice_on_port(wrapper, child) }.map(|micros| [micros])
    })
}

fn notice_bare(child: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let words: Vec<&str> = child.split_whitespace().collect();
    let mut child = command(&words)?.stdin(Stdio::null()).spawn()?;
    pause_shortly();
    let began = clock();
    child.kill()?;
    child.wait()?;
    Ok(micros(clock() - began))
}

fn notice_on_port(wrapper: &str, child: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let words: Vec<&str> = wrapper.split_whitespace().chain(child.split_whitespace()).collect();
    let mut wrapper = command(&words)?.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut log = io::BufReader::new(wrapper.stderr.take().ok_or("no pipe")?);
    let mut line = String::new();
    let port: u16 = loop {
        line.clear();
        if log.read_line(&mut line)? == 0 {
            return Err("no line with a port".into());
        }
        let after = line.split("address=").nth(1).and_then(|address| address.split(':').nth(1));
        if let Some(port) = after.and_then(|after| after.split(|c: char| !c.is_ascii_digit()).next()) {
            break port.parse()?;
        }
    };
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    pause_shortly();
    let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", wrapper.id()))?.trim().parse()?;
    let began = clock();
    // SAFETY: the wrapper cannot have reaped the child, which waits for ever.
    unsafe { kill(pid, SIGKILL) };
    let mut answer = [0; 4096];
    let length = connection.read(&mut answer)?;
    let took = micros(clock() - began);
    wrapper.kill()?;
    wrapper.wait()?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    if !answer.contains("Kapo-Exit-Code: 137") {
        return Err(format!("an answer without the end: {answer}").into());
    }
    Ok(took)
}

/// Writes the text. If MEASURE_CPU is set, writes the CPU time to that file, because the process that reaps this one
/// counts it as its own.
fn write_lines(bytes: &str, block: &str) -> Outcome {
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
fn orphans(count: &str, batch: &str) -> Outcome {
    let (count, batch): (usize, usize) = (count.parse()?, batch.parse()?);
    let before = cpu_nanos("1")?;
    for _ in 0..count / batch {
        // SAFETY: this program has one thread, so the child of fork may call any function.
        match unsafe { fork() } {
            -1 => return Err(io::Error::last_os_error().into()),
            0 => leave_orphans(batch),
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
