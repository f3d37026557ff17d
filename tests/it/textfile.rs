//! Tests of `--textfile`: the metrics of the command in a file for node_exporter.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Kapo, kapo, kapo_after, run_to_the_end, wait_for};

/// Returns the value of a series, such as `kapo_child_up{name="true"}`; empty if it is not in the file.
fn value(path: &Path, series: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_default()
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_file_of_a_short_job_shows_how_it_ended() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("job.prom");
    let mut command = kapo_after("umask 077", ["run", "--textfile"]);
    command.arg(&path).args(["--", "sh", "-c", "exit 3"]);
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!((code, stderr.contains("textfile")), (Some(3), false), "{stderr}");
    for (series, expected) in [
        ("kapo_child_up{name=\"sh\"}", "0"),
        ("kapo_child_starts_total{name=\"sh\"}", "1"),
        ("kapo_child_exits_total{name=\"sh\",reason=\"exit-code\"}", "1"),
        ("kapo_child_last_exit_code{name=\"sh\"}", "3"),
        ("kapo_flapping{name=\"sh\"}", "0"),
        ("# TYPE kapo_child_starts_total", "counter"),
        ("kapo_http_connections{name=\"sh\"}", ""),
    ] {
        assert_eq!(value(&path, series), expected, "{series}: {}", fs::read_to_string(&path).unwrap());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(names(&folder), ["job.prom"]);
}

#[test]
fn the_file_follows_each_start_and_end() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("job.prom");
    let mut kapo =
        Kapo::start(["supervise", "--wait", "0", "--textfile", path.to_str().unwrap(), "sleep", "60"]);
    let is = |series: &str, expected: &str| value(&path, series) == expected;
    wait_for("the file shows the start", || is("kapo_child_up{name=\"sleep\"}", "1"));
    kapo.signal(10);
    wait_for("the file shows the second start", || {
        is("kapo_child_starts_total{name=\"sleep\"}", "2") && is("kapo_child_up{name=\"sleep\"}", "1")
    });
    assert_eq!(value(&path, "kapo_child_exits_total{name=\"sleep\",reason=\"signal\"}"), "1");
    kapo.signal(15);
    kapo.expect_exit(143);
    assert_eq!(value(&path, "kapo_child_up{name=\"sleep\"}"), "0");
    assert_eq!(value(&path, "kapo_child_exits_total{name=\"sleep\",reason=\"signal\"}"), "2");
}

#[test]
fn the_last_success_outlives_later_failures() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("job.prom");
    let run = |code: &str| {
        let mut command = kapo(["-i", "none", "--name", "job", "run", "--textfile"]);
        command.arg(&path).args(["sh", "-c", &format!("exit {code}")]);
        assert_eq!(run_to_the_end(command).0, code.parse().ok());
        ["success_time_seconds", "exit_code"]
            .map(|what| value(&path, &format!("kapo_child_last_{what}{{name=\"job\"}}")))
    };
    assert_eq!(run("3"), ["", "3"]);
    let [success, _] = run("0");
    assert_ne!(success, "");
    assert_eq!(run("4"), [success, "4".to_owned()]);
}

#[test]
fn a_file_that_cannot_be_written_is_one_warning() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing/job.prom");
    fs::create_dir(folder.path().join("taken.prom")).unwrap();
    for (path, why) in [
        (missing, "No such file or directory"),
        (folder.path().join("taken.prom"), "Is a directory"),
        ("/dev/null/x.prom".into(), "Not a directory"),
    ] {
        let mut command = kapo(["--interface", "none", "supervise", "--wait", "0", "--max-restarts", "3"]);
        command.arg("--textfile").arg(&path).args(["--", "sh", "-c", "exit 4"]);
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(4), "{stderr}");
        let warnings: Vec<&str> = stderr.lines().filter(|line| line.contains("textfile")).collect();
        let end = format!("msg=\"cannot write textfile\" path={} error=\"{why}\"", path.display());
        assert!(warnings.len() == 1 && warnings.iter().all(|line| line.ends_with(&end)), "{stderr}");
    }
    assert_eq!(names(&folder), ["taken.prom"]);
}

#[test]
fn no_link_in_the_folder_is_followed() {
    let folder = TempDir::new().unwrap();
    let inside = |name: &str| folder.path().join(name);
    fs::write(inside("victim"), "old").unwrap();
    symlink("victim", inside("job.prom")).unwrap();
    // The shell keeps its pid when it becomes kapo.
    let mut command = kapo_after("ln -s victim job.prom.$$", ["run", "--textfile", "job.prom", "true"]);
    command.current_dir(folder.path());
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(fs::read_to_string(inside("victim")).unwrap(), "old");
    assert_eq!(value(&inside("job.prom"), "kapo_child_starts_total{name=\"true\"}"), "1");
}
