//! Tests of the path of a Unix socket: which kapo serves it when several start at once, and when it accepts
//! connections.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::harness::{kapo, wait_for};
use crate::tools::{ask_livez, the_one_that_serves};

fn livez(path: &Path) -> String {
    ask_livez(UnixStream::connect(path).unwrap())
}

#[test]
fn of_six_kapos_on_one_path_exactly_one_serves() {
    for round in 0..100 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        if round % 2 == 0 {
            // A socket file that a killed kapo has left.
            drop(UnixListener::bind(&path).unwrap());
        }
        let starts = (0..6).map(|_| {
            let mut command = kapo(["--quiet", "--interface", path.to_str().unwrap(), "run", "cat"]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let mut server = the_one_that_serves(starts.collect(), round);
        assert!(livez(&path).starts_with("HTTP/1.1 200"));
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "round {round}");
    }
}

#[test]
fn an_existing_path_accepts_connections() {
    for round in 0..100 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        let mut command = kapo(["--quiet", "--interface", path.to_str().unwrap(), "run", "cat"]);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        wait_for("a connection", || match UnixStream::connect(&path) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "round {round}");
                // Connect as often as possible, because the time between bind and listen is short.
                while !path.exists() && server.try_wait().unwrap().is_none() {}
                false
            }
        });
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
    }
}
