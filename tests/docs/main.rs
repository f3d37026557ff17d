//! Generates the committed files that come from tables of the program: man page, options in README.md, completions,
//! paths, metrics. A difference fails; `UPDATE_DOCS=1 cargo test --test docs` rewrites the files.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use kapo::logic::http::routes::{ROUTES, Route};
use kapo::logic::metrics;

mod completions;
mod containers;
mod log_messages;
mod man;
mod operations;
mod ui;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn same(file: &str, expected: &str) {
    let path = root().join(file);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed == expected {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "{file} is not what the options say; UPDATE_DOCS=1 cargo test --test docs rewrites it; first difference: {:?}",
        expected.lines().zip(committed.lines()).find(|(new, old)| new != old)
    );
    std::fs::write(path, expected).expect("the source tree is writable");
}

#[test]
fn the_man_page_matches_the_options() {
    same("docs/kapo.1", &man::page());
}

#[test]
fn the_completions_match_the_options() {
    same("docs/completions/kapo.bash", &completions::bash());
    same("docs/completions/_kapo", &completions::zsh());
    same("docs/completions/kapo.fish", &completions::fish());
}

/// Compares the text between `<!-- name -->` and `<!-- /name -->` in the file.
fn same_block(file: &str, name: &str, block: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let text = std::fs::read_to_string(root().join(file)).expect("the file is there");
    let (before, rest) = text.split_once(&begin).expect("the file has a begin marker");
    let (_, after) = rest.split_once(&end).expect("the file has an end marker");
    same(file, &format!("{before}{begin}{block}{end}{after}"));
}

#[test]
fn the_readme_shows_the_options() {
    same_block("README.md", "options", &man::readme_options());
}

#[test]
fn the_page_on_http_shows_the_paths() {
    let mut block = "| path | answer |\n|---|---|\n".to_owned();
    for row in ROUTES.iter().filter(|row| row.route != Route::Other) {
        block.push_str(&format!("| `{}` | {} |\n", row.path, row.brief));
    }
    block.push_str("| any other path | the status document |\n");
    same_block("docs/http.md", "paths", &block);
}

#[test]
fn the_page_on_metrics_shows_the_metrics() {
    let mut block = "| metric | labels | meaning |\n|---|---|---|\n".to_owned();
    for (name, labels, help) in metrics::described() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        block.push_str(&format!("| `{name}` | {} | {help} |\n", labels.join(", ")));
    }
    same_block("docs/metrics.md", "metrics", &block);
}

/// Checks a text with a tool if the tool is installed. Prints a note if it is not.
fn accepted_by(tool: &str, arguments: &[&str], text: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be created");
    file.write_all(text.as_bytes()).expect("it is writable");
    match Command::new(tool).args(arguments).arg(file.path()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{tool} {arguments:?}: {said}");
        }
        Err(error) => eprintln!("skipped: {tool}: {error}"),
    }
}

#[test]
fn formatters_and_shells_accept_the_files_silently() {
    accepted_by("groff", &["-man", "-Tutf8", "-ww", "-z"], &man::page());
    accepted_by("bash", &["-n"], &completions::bash());
    accepted_by("zsh", &["-f", "-n"], &completions::zsh());
    accepted_by("fish", &["--no-config", "--no-execute"], &completions::fish());
}

/// Returns the completions that bash offers for the last word.
fn offered(words: &[&str]) -> Vec<String> {
    let script = "eval \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _kapo; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .arg(completions::bash())
        .arg("kapo")
        .args(words)
        .output();
    let output = output.expect("bash is there");
    assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_offers_the_valid_completions() {
    assert_eq!(offered(&["su"]), ["supervise"]);
    assert_eq!(offered(&["-p", "80", "wat"]), ["watch"]);
    assert_eq!(offered(&["--port", "=", "80", "wat"]), ["watch"]);
    assert_eq!(offered(&["--socket-a"]), ["--socket-activation"]);
    assert_eq!(offered(&["--tt"]), [""; 0]);
    assert_eq!(offered(&["run", "--tt"]), ["--ttl"]);
    assert_eq!(offered(&["run", "--port", "1", "--idle"]), ["--idle-exit"]);
    assert_eq!(offered(&["watch", "--idle"]), [""; 0]);
    assert_eq!(offered(&["s", "--restart", ""]), ["always", "on-failure"]);
    assert_eq!(offered(&["s", "--restart", "=", "on"]), ["on-failure"]);
    assert_eq!(offered(&["s", "--restart", "="]), ["always", "on-failure"]);
    assert_eq!(offered(&["run", "--stop-signal", "SIGTER"]), ["SIGTERM"]);
    assert_eq!(offered(&["run", "sleep", "--tt"]), [""; 0]);
    assert_eq!(offered(&["run", "--", "--tt"]), [""; 0]);
    assert_eq!(offered(&["help", "wa"]), ["watch", "wait"]);
}
