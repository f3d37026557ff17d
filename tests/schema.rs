//! Checks that docs/status.md, docs/status.schema.json and the program describe the same status document.

use std::path::PathBuf;

use kapo::logic::reason::Reason;
use kapo::logic::status::{ModeName, Status, render};
use serde_json::Value;

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema() -> Value {
    serde_json::from_str(&read("docs/status.schema.json")).expect("the schema is JSON")
}

fn strings(array: &Value) -> Vec<&str> {
    array.as_array().expect("an array").iter().map(|each| each.as_str().expect("of strings")).collect()
}

/// Returns the names of the members of the first object in their order, without those of inner objects.
fn members(document: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut depth, mut rest) = (0, document);
    while let Some(at) = rest.find(['{', '}', '[', ']', '"']) {
        let (token, after) = rest[at..].split_at(1);
        rest = after;
        match token {
            "{" | "[" => depth += 1,
            "}" if depth == 2 => break,
            "}" | "]" => depth -= 1,
            _ => {
                let mut escaped = false;
                let end = rest.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let (string, after) = rest.split_at(end.expect("a string ends"));
                rest = &after[1..];
                if depth == 2 && rest.starts_with(':') {
                    names.push(string);
                }
            }
        }
    }
    names
}

#[test]
fn the_schema_requires_the_members_in_their_order() {
    let document = String::from_utf8(render(&[Status::blank(ModeName::Run)])).unwrap();
    let schema = schema();
    let shown = members(&document);
    assert_eq!(shown.len(), 27);
    assert_eq!(strings(&schema["items"]["required"]), shown);
    let described = schema["items"]["properties"].as_object().expect("members are described");
    assert_eq!(described.len(), shown.len());
}

#[test]
fn the_schema_knows_every_reason() {
    let schema = schema();
    let known = strings(&schema["$defs"]["reason"]["enum"]);
    assert_eq!(known[1..], Reason::ALL.map(Reason::name));
    assert_eq!(known[0], "");
}

#[test]
fn the_page_has_a_row_for_each_member_and_reason() {
    let page = read("docs/status.md");
    let (_, table) = page.split_once("## Members\n").expect("the table of members");
    let rows: Vec<&str> = table
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let schema = schema();
    let mut wanted = strings(&schema["items"]["required"]);
    wanted.extend(Reason::ALL.map(Reason::name));
    assert_eq!(rows, wanted);
}

#[test]
fn the_examples_of_the_page_have_the_members_of_the_program() {
    let page = read("docs/status.md");
    let schema = schema();
    let wanted = strings(&schema["items"]["required"]);
    let mut examples = 0;
    for block in page.split("```json\n").skip(1) {
        let (example, _) = block.split_once("```").expect("a block ends");
        serde_json::from_str::<Value>(example).expect("an example is JSON");
        assert_eq!(members(example), wanted, "{example}");
        examples += 1;
    }
    assert!(examples >= 10, "{examples} examples");
}
