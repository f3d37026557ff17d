//! The table of docs/logging.md is that of the source: messages, levels, and keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::root;

/// All files of `folder` that hold no tests alone.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "tests" && name != "world" && name != "client" {
                sources(&path, found);
            }
        } else if name != "tests.rs" && path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// What the program says: `level message`, and the keys.
fn said() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let (mut messages, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let code = text.split("mod tests {").next().unwrap_or_default();
        for (level, call) in
            [("info", "Record::info("), ("warn", "Record::warn("), ("error", "Record::error(")]
        {
            for (_, argument) in code.match_indices(call).map(|(at, _)| code.split_at(at + call.len())) {
                let literal = argument.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (message, _) = literal.unwrap_or_else(|| panic!("{}: no literal", path.display()));
                messages.insert(format!("{level} {message}"));
            }
        }
        for call in [".with(\"", ".number(\"", ".with_bytes(\""] {
            keys.extend(
                code.split(call).skip(1).map(|rest| rest.split('"').next().unwrap_or_default().to_owned()),
            );
        }
    }
    (messages, keys)
}

#[test]
fn the_table_of_log_messages_is_that_of_the_source() {
    let text = std::fs::read_to_string(root().join("docs/logging.md")).expect("the table");
    let (mut messages, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [message, levels, listed, _] = cells[..] else { panic!("{row}: not four cells") };
        for level in levels.split(", ") {
            messages.insert(format!("{level} {}", message.trim_end_matches('`')));
        }
        // `watch:` stands before the keys of a mode.
        let listed = listed.split('`').skip(1).step_by(2).filter(|key| *key != "watch");
        keys.extend(listed.map(str::to_owned));
    }
    assert_eq!((messages, keys), said());
}
