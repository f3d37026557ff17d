//! Tests of `--log-format json` with strict JSON parsers, and of the records in systemd's journal.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{kapo_on_a_free_port, run_to_the_end};

/// Decodes U+EF80 to U+EFFF as documented.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for letter in text.chars() {
        match u32::from(letter) {
            byte @ 0xef80..=0xefff => out.push(byte.to_le_bytes()[0]),
            _ => out.extend(letter.to_string().bytes()),
        }
    }
    out
}

fn objects(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn json_records_have_the_keys_of_logfmt() {
    let words = ["--log-format", "json", "run", "sh", "-c", "exit 7"];
    let (code, _, log) = run_to_the_end(kapo_on_a_free_port(words));
    assert_eq!(code, Some(7));
    let mut log = objects(&log);
    for record in &mut log {
        let time = record.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
    }
    assert!(log[0]["address"].is_string() && log[1]["pid"].is_u64(), "{log:?}");
    assert_eq!(log[1], json!({"level": "info", "msg": "started", "command": "sh", "pid": log[1]["pid"]}));
    let lasted = log[2].as_object_mut().unwrap().remove("lasted").unwrap();
    assert!(lasted.as_str().unwrap().ends_with('s'), "{lasted}");
    assert_eq!(
        log[2],
        json!({
            "level": "warn", "msg": log[2]["msg"], "command": "sh", "pid": log[1]["pid"], "reason": "exit-code",
            "code": 7,
        })
    );
}

#[test]
fn any_bytes_can_be_restored_from_json_lines() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bytes");
    let mut output: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    output.extend("\u{ef80}\u{efff} {\"level\":\"error\"} \u{2028}\n".as_bytes());
    output.extend(vec![b'x'; 100_000]);
    output.push(b'\n');
    std::fs::write(&path, &output).unwrap();
    let mut command = kapo_on_a_free_port(["--stdout", "--stdlog", "run", "cat", path.to_str().unwrap()]);
    command.env("KAPO_LOG_FORMAT", "json");
    let (code, log, _) = run_to_the_end(command);
    assert_eq!(code, Some(0));
    let read_back = |records: &[Value]| {
        let mut back = Vec::new();
        for record in records {
            assert_eq!((&record["level"], &record["stream"]), (&json!("info"), &json!("stdout")));
            back.extend(bytes(record["msg"].as_str().unwrap()));
            match record.get("partial") {
                Some(partial) => assert_eq!(partial, &json!(true)),
                None => back.push(b'\n'),
            }
        }
        back
    };
    let records = objects(&log);
    assert!(read_back(&records) == output);
    assert!(log.split_inclusive('\n').all(|line| line.len() <= 32 * 1024));
    // Both parsers read the bytes of the log and print what they have parsed.
    let file = folder.path().join("log");
    std::fs::write(&file, &log).unwrap();
    for program in [
        &["jq", "-c", "."][..],
        &[
            "python3",
            "-c",
            "import json, sys\nfor line in open(0, encoding='utf-8', newline='\\n'):\n print(json.dumps(json.loads(line, strict=True)))",
        ],
    ] {
        let mut reader = Command::new(program[0]);
        let said = reader.args(&program[1..]).stdin(File::open(&file).unwrap()).output().unwrap();
        assert!(said.status.success(), "{program:?}: {said:?}");
        assert!(objects(&String::from_utf8(said.stdout).unwrap()) == records, "{program:?}");
    }
}

#[test]
fn only_a_stderr_that_is_the_journal_gets_priorities() {
    let folder = TempDir::new().unwrap();
    for (format, other, first, last) in [
        ("logfmt", 0, "<6>level=info msg=\"listening\" address=", "<4>level=warn msg=\""),
        (
            "json",
            0,
            "<6>{\"level\":\"info\",\"msg\":\"listening\",\"address\":\"",
            "<4>{\"level\":\"warn\",\"msg\":\"",
        ),
        ("logfmt", 1, "time=", "time="),
    ] {
        let path = folder.path().join(format!("{format}{other}"));
        let file = File::create(&path).unwrap();
        let stat = file.metadata().unwrap();
        let mut command = kapo_on_a_free_port(["--log-format", format, "run", "false"]);
        command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino() + other));
        command.stdin(Stdio::null()).stderr(file);
        assert_eq!(command.status().unwrap().code(), Some(1));
        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.starts_with(first), "{log}");
        assert!(log.lines().last().unwrap().starts_with(last), "{log}");
    }
}

#[test]
fn captured_lines_keep_their_time_in_the_journal() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let file = File::create(&path).unwrap();
    let stat = file.metadata().unwrap();
    let words = ["--quiet", "--stderr", "--stdlog", "run", "sh", "-c", "echo '<3>bad' >&2"];
    let mut command = kapo_on_a_free_port(words);
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino())).stderr(file);
    assert_eq!(command.status().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(&path).unwrap();
    let line = log.lines().find(|line| line.contains("stream=")).unwrap();
    assert!(line.starts_with("time=") && line.ends_with(" level=info stream=stderr msg=\"<3>bad\""), "{log}");
}
