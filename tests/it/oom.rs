//! Tests of out-of-memory kills, in a separate cgroup.

use std::fs;
use std::path::PathBuf;

use crate::harness::{kapo_after, run_to_the_end};

/// A memory cgroup of version 1, which is removed at the end of the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(limit: u32) -> Option<Cgroup> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/kapo-it-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            eprintln!("skipped: no memory cgroup of version 1: {error}");
            return None;
        }
        let cgroup = Cgroup(path);
        fs::write(cgroup.0.join("memory.limit_in_bytes"), limit.to_string()).unwrap();
        // Without swap accounting this file does not exist, and the memory limit alone counts.
        let _ = fs::write(cgroup.0.join("memory.memsw.limit_in_bytes"), limit.to_string());
        Some(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn an_oom_kill_of_a_descendant_is_logged() {
    let Some(cgroup) = Cgroup::new(16 << 20) else { return };
    let preparation = format!("echo $$ >{}", cgroup.0.join("cgroup.procs").display());
    // tail keeps all of its input, and is the largest process of the cgroup.
    let script = "tail -n 1 </dev/zero; [ $? = 137 ]";
    let (code, _, stderr) = run_to_the_end(kapo_after(&preparation, ["run", "sh", "-c", script]));
    assert_eq!(code, Some(0), "{stderr}");
    let killed = "level=warn msg=\"out-of-memory kill\" kills=1\n";
    assert_eq!(stderr.matches(killed).count(), 1, "{stderr}");
}
