//! Tests of the page for people: who gets it, its header fields, and the plain page without scripts.

use crate::harness::{Answer, Kapo, wait_for};

/// The fields that a browser sends when a person opens an address.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
     Accept-Encoding: gzip, deflate, br, zstd\r\nUpgrade-Insecure-Requests: 1\r\n";

/// The two parts of the stored page.
const STORED: [&[u8]; 2] = [include_bytes!("../../ui/common.gz"), include_bytes!("../../ui/page.gz")];

/// Requests a path with more fields. Returns the answer, and the body as bytes.
fn ask(kapo: &Kapo, method: &str, path: &str, fields: &str) -> (Answer, Vec<u8>) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    let bytes = kapo.exchange(request.as_bytes());
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    (Answer::parse(&bytes), bytes[head..].to_vec())
}

fn kind(answer: &Answer) -> &'static str {
    match (answer.field("content-type"), answer.field("content-encoding")) {
        (Some("text/html; charset=utf-8"), Some("gzip")) => "page",
        (Some("text/html; charset=utf-8"), None) => "plain",
        (Some("application/json"), None) => "json",
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_browser_gets_the_page_at_the_root() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let no_gzip = "Accept: text/html\r\nUpgrade-Insecure-Requests: 1\r\n";
    for (path, fields, expected) in [
        ("/", BROWSER, "page"),
        ("/", no_gzip, "plain"),
        ("/", "", "json"),
        // A monitor that takes HTML.
        ("/", "Accept: text/html, */*\r\nAccept-Encoding: gzip\r\n", "json"),
        ("/", "Accept: */*\r\nUpgrade-Insecure-Requests: 1\r\n", "json"),
        ("/", "Accept: text/html\r\nUpgrade-Insecure-Requests: 0\r\n", "json"),
        ("/", "Accept: text/html;q=0, */*\r\nUpgrade-Insecure-Requests: 1\r\n", "json"),
        ("/other", BROWSER, "json"),
        ("/ui/", BROWSER, "json"),
        ("/ui", BROWSER, "page"),
        ("/ui", "Accept-Encoding: br, gzip\r\nUpgrade-Insecure-Requests: 1\r\n", "page"),
        // lynx
        ("/ui", "Accept: text/html, */*\r\nAccept-Encoding: gzip\r\n", "plain"),
        ("/ui", "", "plain"),
        ("/ui", "Accept-Encoding: gzip;q=0\r\nUpgrade-Insecure-Requests: 1\r\n", "plain"),
        ("/ui?static", BROWSER, "plain"),
    ] {
        let (answer, body) = ask(&kapo, "GET", path, fields);
        assert_eq!((answer.status, kind(&answer)), (200, expected), "{path} {fields}");
        assert_eq!(body == STORED.concat(), expected == "page", "{path} {fields}");
        let varies = (path != "/other" && path != "/ui/").then_some("*");
        assert_eq!(answer.field("vary"), varies, "{path} {fields}");
    }
}

#[test]
fn the_page_does_not_wait_for_a_probe() {
    // The probe ends only if its FIFO is opened.
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let probe = format!("exec:cat {}", fifo.to_str().unwrap());
    let kapo = Kapo::start(["run", "--probe", &probe, "--probe-timeout", "60", "sleep", "60"]);
    let (answer, body) = ask(&kapo, "GET", "/", BROWSER);
    assert_eq!((answer.status, body == STORED.concat()), (200, true));
}

#[test]
fn no_ui_leaves_only_json() {
    let kapo = Kapo::start(["--no-ui", "run", "sleep", "60"]);
    for path in ["/", "/ui", "/ui?static"] {
        let (answer, body) = ask(&kapo, "GET", path, BROWSER);
        assert_eq!((kind(&answer), answer.field("vary")), ("json", None), "{path}");
        assert!(body.starts_with(b"[{"), "{path}");
    }
}

#[test]
fn the_page_has_the_fields_that_protect_it() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    for (path, fields) in [("/", BROWSER), ("/ui", BROWSER), ("/ui?static", "")] {
        let (answer, body) = ask(&kapo, "GET", path, fields);
        let policy = answer.field("content-security-policy").unwrap();
        for part in [
            "default-src 'none'; script-src 'sha256-",
            "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.field(name), Some(value), "{path}");
        }
        let (head, none) = ask(&kapo, "HEAD", path, fields);
        assert_eq!((head.status, none.len()), (200, 0), "{path}");
        for name in ["content-type", "content-encoding", "content-security-policy", "vary"] {
            assert_eq!(head.field(name), answer.field(name), "{path}");
        }
        let length = head.field("content-length").map(|length| length.parse().unwrap());
        assert_eq!(length, (kind(&answer) == "page").then_some(body.len()), "{path}");
    }
}

#[test]
fn the_plain_page_says_what_kapo_status_says() {
    let script = "echo cannot open queue >&2; exit 3";
    let kapo =
        Kapo::start(["--stderr", "--tail", "4K", "supervise", "--wait", "60", "--", "sh", "-c", script]);
    kapo.wait_for_status("it has failed", |status| status["Reason"] == "exit-code");
    let (answer, body) = ask(&kapo, "GET", "/ui", "");
    let html = String::from_utf8(body).unwrap();
    assert_eq!(kind(&answer), "plain");
    for part in [
        "<!DOCTYPE html>",
        "restarting for the 1st time, last exit 3</title>",
        "restarting for the 1st time, last exit 3</h1>",
        "in the pause since ",
        "; next start in ",
        "  ready     no: restarting in ",
        "last ends:\n",
        "last output:\n    | cannot open queue\n</pre>",
        "<a href=\"status.json\">JSON</a>",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
}

#[test]
fn hostile_text_stays_text_in_the_plain_page() {
    let attack = "</pre><script>alert(1)</script>\u{1b}]0;x\u{7}\"'&lt;";
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("<img src=x onerror=alert(2)>");
    // The first line has 1 MiB.
    let script = "#!/bin/sh\nhead -c 1048576 /dev/zero | tr '\\0' '<'\nprintf '\\n%s\\n' \"$1\"; exit 1\n";
    std::fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let program = program.to_str().unwrap();
    let kapo = Kapo::start(["--stdout", "--tail", "1M", "supervise", "--wait", "60", "--", program, attack]);
    let mut html = String::new();
    wait_for("the output is shown", || {
        html = String::from_utf8(ask(&kapo, "GET", "/ui?static", BROWSER).1).unwrap();
        html.contains("&lt;&lt;&lt;") && html.contains("alert(1)")
    });
    let visible = "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}]0;x\\u{7}\"'&amp;lt;";
    assert!(html.contains(visible), "{html}");
    // Only the elements of the page itself are left.
    for (at, _) in html.match_indices('<') {
        let rest = &html[at + 1..];
        let ours = [
            "!DOCTYPE", "html", "head", "meta", "style", "title", "body", "main", "h1", "pre", "p>", "a href",
        ];
        assert!(
            ours.iter().any(|name| rest.trim_start_matches('/').starts_with(name) || rest.starts_with("/a>")),
            "{rest}"
        );
    }
    assert!(html.chars().all(|c| c == '\n' || !c.is_control()), "{html:?}");
    assert!(html.len() < 16 * 1024, "{} bytes", html.len());
}

#[test]
fn watched_processes_have_a_plain_page() {
    let kapo = Kapo::start(["watch", "no-such-process-of-kapo"]);
    let (_, body) = ask(&kapo, "GET", "/ui?static", "");
    let html = String::from_utf8(body).unwrap();
    assert!(html.contains("<h1>no-such-process-of-kapo: no process</h1>"), "{html}");
}
