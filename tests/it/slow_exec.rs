//! Tests with an exec that takes long because fanotify(7) delays it, as a virus scanner does.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Kapo, kapo_on_a_free_port, now, wait_for};

/// fanotify_response, and the offset of the descriptor in fanotify_event_metadata.
const ALLOW: i32 = 1;
const DESCRIPTOR: std::ops::Range<usize> = 16..20;

/// Makes every exec of `path` wait for a response.
#[expect(unsafe_code, reason = "no safe interface to fanotify is at hand")]
fn hold(path: &Path) -> File {
    // SAFETY: plain integers.
    let fd = unsafe { libc::fanotify_init(libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that has no other owner.
    let group = unsafe { File::from_raw_fd(fd) };
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (add, mask) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
    // SAFETY: the path ends with NUL and lives until the call returns.
    let marked = unsafe { libc::fanotify_mark(fd, add, mask, libc::AT_FDCWD, name.as_ptr()) };
    assert_eq!(marked, 0, "{}", std::io::Error::last_os_error());
    group
}

/// Waits for the exec, delays it, and allows it. Returns the time at which it was allowed.
#[expect(unsafe_code, reason = "the event holds a descriptor as a number")]
fn hold_up_and_release(group: &mut File) -> SystemTime {
    let mut event = [0; 64];
    let length = group.read(&mut event).unwrap();
    assert!(length >= DESCRIPTOR.end);
    let fd = i32::from_ne_bytes(event[DESCRIPTOR].try_into().unwrap());
    // SAFETY: the kernel has opened this descriptor for us, and it has no other owner.
    let _file = unsafe { File::from_raw_fd(fd) };
    let begun = now();
    wait_for("a while has passed", || begun.elapsed() > Duration::from_millis(300));
    let (_, released) = kapo::sys::clock::now();
    group.write_all(&[fd.to_ne_bytes(), ALLOW.to_ne_bytes()].concat()).unwrap();
    released
}

/// Converts the start time in the document, with its number of digits.
fn start_time(status: &Value) -> SystemTime {
    let text = status["StartTime"].as_str().unwrap();
    let output = std::process::Command::new("date").args(["-d", text, "+%s%N"]).output().unwrap();
    let nanoseconds = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[test]
fn the_start_time_is_that_of_the_delayed_exec() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let mut group = hold(&program);
    for mode in [["run", "--wait", "1m"], ["supervise", "--wait", "1m"]] {
        let mut command = kapo_on_a_free_port(mode);
        command.arg(&program);
        let mut kapo = Kapo::launch(command).listening();
        let released = hold_up_and_release(&mut group);
        kapo.wait_for("the end is in the log", |kapo| kapo.stderr().contains(" lasted="));
        let status = kapo.status();
        assert!(start_time(&status) >= released, "{status} {released:?}");
        let line = kapo.stderr().lines().find(|line| line.contains("msg=\"exited\"")).unwrap().to_owned();
        let lasted = line.split_once("lasted=").unwrap().1.trim_end_matches('s').parse::<f64>().unwrap();
        assert!(lasted < 0.3, "{line}");
    }
}
