//! Sinks for captured output: pipes, FIFOs, sockets, terminals and files, with the test at the other end; and helpers
//! of the output tests.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tempfile::TempDir;

use crate::harness::{Kapo, kapo_on_a_free_port};

/// Returns the number of bytes in volume tests: `KAPO_TEST_BYTES`, or a small default.
pub(crate) fn volume() -> usize {
    std::env::var("KAPO_TEST_BYTES").map_or(3_000_000, |text| text.parse().unwrap())
}

/// Creates a file of random bytes.
pub(crate) fn random_file(folder: &Path, name: &str, length: usize) -> PathBuf {
    let path = folder.join(name);
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64 ^ u64::from(name.as_bytes()[0]) << 40;
    let mut left = length;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        let take = left.min(8);
        file.write_all(&bytes[..take]).unwrap();
        left -= take;
    }
    file.flush().unwrap();
    path
}

/// Opens a pipe: the reader's end and kapo's end.
pub(crate) fn pipe() -> (File, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

/// Opens a FIFO.
pub(crate) fn fifo() -> (File, File) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let read = open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let write = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    fcntl_setfl(&read, OFlags::empty()).unwrap();
    (read.into(), write.into())
}

/// Opens a stream socket.
pub(crate) fn socket() -> (File, File) {
    let (read, write) = UnixStream::pair().unwrap();
    (OwnedFd::from(read).into(), OwnedFd::from(write).into())
}

/// Opens a terminal in raw mode.
pub(crate) fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let ours = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut modes = tcgetattr(&ours).unwrap();
    modes.make_raw();
    tcsetattr(&ours, OptionalActions::Now, &modes).unwrap();
    (person.into(), ours.into())
}

/// Opens a sink; returns the reader's end and kapo's end.
pub(crate) type Pair = fn() -> (File, File);

/// The sinks whose reader can stall kapo.
pub(crate) const STALLING: [(&str, Pair); 4] =
    [("pipe", pipe), ("FIFO", fifo), ("socket", socket), ("terminal", terminal)];

/// Starts kapo with this stdout and with stderr in a file. Returns once it listens.
pub(crate) fn kapo_to(stdout: File, words: &[&str]) -> Kapo {
    launch_to(stdout, kapo_on_a_free_port(words)).listening()
}

/// Starts a kapo that may end before the first request.
pub(crate) fn launch_to(stdout: File, mut command: Command) -> Kapo {
    let folder = TempDir::new().unwrap();
    command.stdout(stdout).stderr(File::create(folder.path().join("stderr")).unwrap());
    Kapo::launch_with_its_outputs(command, folder)
}

/// Reads to the end in a separate thread. The end of a terminal is an error.
pub(crate) fn read_all(mut reader: File) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // EIO: the other end of the terminal is closed. The bytes that were read are kept.
        let _ = reader.read_to_end(&mut bytes);
        bytes
    })
}

/// Compares the received bytes with the file, in a separate thread. Returns the number of bytes.
pub(crate) fn compare(mut reader: File, wanted: &Path) -> JoinHandle<u64> {
    let mut wanted = File::open(wanted).unwrap();
    std::thread::spawn(move || {
        let (mut come, mut here) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut total = 0;
        while let Ok(length @ 1..) = reader.read(&mut come) {
            wanted.read_exact(&mut here[..length]).expect("no more comes than was written");
            assert!(come[..length] == here[..length], "wrong between {total} and {}", total + length as u64);
            total += length as u64;
        }
        total
    })
}

/// Returns a sample of /metrics, such as `kapo_output_bytes_total{stream="stdout"}`.
pub(crate) fn metric(kapo: &Kapo, name: &str) -> Option<u64> {
    let answer = kapo.get("/metrics");
    let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

/// Returns the number of bytes captured so far.
pub(crate) fn captured(kapo: &Kapo, stream: &str) -> u64 {
    metric(kapo, &format!("kapo_output_bytes_total{{stream=\"{stream}\"}}")).unwrap()
}

/// Waits until the output of the command stalls. Returns the number of captured bytes.
pub(crate) fn wait_until_stalled(kapo: &Kapo, stream: &str) -> u64 {
    let mut last = u64::MAX;
    let mut calm = 0;
    crate::harness::wait_for("all stands still", || {
        let count = captured(kapo, stream);
        calm = if count == last && count > 0 { calm + 1 } else { 0 };
        last = count;
        calm > 20
    });
    last
}
