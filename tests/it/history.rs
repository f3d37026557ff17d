//! Tests of the runs that have ended: `LastRun`, `/runs` and their metrics.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Kapo, kapo_on_a_free_port, wait_for};

fn runs(kapo: &Kapo) -> Vec<Value> {
    let answer = kapo.get("/runs");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
    serde_json::from_str(&answer.body).unwrap()
}

/// Returns the value of a sample; `None` if it is missing.
fn metric(kapo: &Kapo, query: &str, name: &str) -> Option<f64> {
    let page = kapo.get(&format!("/metrics{query}")).body;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn the_first_failure_of_a_crash_loop_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "if [ -e failed ]; then echo refused >&2; exit 1; fi; touch failed; echo disk full >&2; exit 7";
    let words =
        ["--stderr", "--tail", "4K", "--history", "2", "supervise", "--wait", "10ms", "sh", "-c", script];
    let mut command = kapo_on_a_free_port(words);
    command.current_dir(folder.path());
    let kapo = Kapo::launch(command).listening();
    let status = kapo.wait_for_status("five restarts", |status| status["Restarts"].as_u64() >= Some(5));
    assert_eq!(
        (&status["LastRun"]["ExitCode"], &status["LastRun"]["Reason"]),
        (&json!(1), &json!("exit-code"))
    );
    let mut seen = Vec::new();
    // The output of the newest run may be read a moment after its end.
    wait_for("the output of each run", || {
        seen = runs(&kapo);
        seen.iter().all(|run| run["LastOutput"] != json!([]))
    });
    let told: Vec<_> = seen.iter().map(|run| (&run["ExitCode"], &run["LastOutput"], &run["First"])).collect();
    let (again, first) = (json!(["refused"]), json!(["disk full"]));
    assert_eq!(
        told,
        [
            (&json!(1), &again, &Value::Null),
            (&json!(1), &again, &Value::Null),
            (&json!(7), &first, &json!(true))
        ]
    );
    for run in &seen {
        assert!(run["Pid"].as_i64() > Some(1) && run["LastedSeconds"].as_f64() > Some(0.0), "{run}");
    }
}

#[test]
fn the_last_run_is_shown_while_the_next_one_runs() {
    let kapo = Kapo::start(["supervise", "--wait", "0", "sleep", "1000"]);
    let before = kapo.status();
    assert_eq!(before["LastRun"], Value::Null);
    assert_eq!(runs(&kapo), [Value::Null; 0]);
    assert_eq!(metric(&kapo, "", "kapo_child_last_end_time_seconds"), None);
    let pid = before["Pid"].as_i64().unwrap();
    kapo::sys::signal::send(kapo.command_pid(), 9).unwrap();
    let after = kapo.wait_for_status("the next run", |status| status["Restarts"] == 1);
    assert_eq!((&after["Reason"], &after["ExitCode"]), (&json!(""), &json!(0)));
    let last = &after["LastRun"];
    for (name, value) in [
        ("ExitCode", json!(137)),
        ("Signal", json!("SIGKILL")),
        ("Reason", json!("signal")),
        ("Pid", json!(pid)),
    ] {
        assert_eq!(last[name], value, "{last}");
    }
    assert_eq!(last["StartTime"], before["StartTime"]);
    assert_eq!(
        runs(&kapo),
        [{
            let mut run = last.clone();
            run["First"] = json!(true);
            run
        }]
    );
    let lasted = metric(&kapo, "?name[]=kapo_child_last_run_seconds", "kapo_child_last_run_seconds");
    assert_eq!(lasted, last["LastedSeconds"].as_f64());
    assert_eq!(metric(&kapo, "", "kapo_child_last_success_time_seconds"), None);
}

#[test]
fn without_history_only_the_document_has_the_last_run() {
    let kapo = Kapo::start(["--history", "0", "run", "--wait", "100", "false"]);
    let status = kapo.wait_for_status("its end", |status| status["Reason"] == "exit-code");
    assert_eq!(status["LastRun"]["ExitCode"], 1);
    let answer = kapo.get("/runs");
    assert_eq!((answer.status, &*answer.body), (404, "no runs are kept: start kapo without --history 0\n"));
    let refused = kapo.get("/metrics?name[]=kapo_child_up").body;
    assert_eq!(
        refused.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(),
        ["kapo_child_up 0"]
    );
}

#[test]
fn a_run_shows_the_memory_of_its_cgroup() {
    let kapo = Kapo::start(["run", "--wait", "100", "true"]);
    let status = kapo.wait_for_status("its end", |status| status["Reason"] == "success");
    let memory = &status["LastRun"]["Memory"];
    if fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| text.contains("memory")) {
        // Version 1 counts the peak of every cgroup, including the root.
        assert!(memory["PeakBytes"].as_u64() > Some(0), "{status}");
        assert!(metric(&kapo, "?name[]=kapo_cgroup_memory_bytes", "kapo_cgroup_memory_bytes") > Some(0.0));
    } else {
        println!("not checked: no memory controller of version 1");
    }
}
