//! Makes the stored files of the pages from their sources in `ui/`: `common.gz` and `page.gz` are the page `/ui`,
//! `common.gz` and `fleet.gz` that of `kapo fleet` (style and script put into the page, without comments, compressed).
//! `csp.txt` is the Content-Security-Policy with the hashes of both.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{root, same};

/// The pages, and the most bytes that each may have.
const PAGES: [(&str, usize); 2] = [("page", 12 * 1024), ("fleet", 6 * 1024)];

fn source(name: &str) -> String {
    std::fs::read_to_string(root().join("ui").join(name)).expect("the source exists")
}

/// Removes what only readers of the source need: comments that begin a line, indentation and empty lines.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        let begins = line.starts_with("/*");
        if (begins || inside) || line.starts_with("//") || line.is_empty() {
            inside = (begins || inside) && !line.ends_with("*/");
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    assert!(!inside, "a comment ends with its line");
    kept
}

/// Removes blanks around the punctuation of a script, except in strings. Lines with regular expressions stay.
fn without_blanks(script: &str) -> String {
    let mut kept = String::new();
    for line in script.lines() {
        let mut quote = None;
        let mut before = '\n';
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            let next = rest.peek().copied();
            let both = |kind: fn(char) -> bool| kind(before) && next.is_some_and(kind);
            let needed = both(|c| c.is_alphanumeric() || "_$'\"".contains(c)) || both(|c| "+-".contains(c));
            if c == ' ' && quote.is_none() && !needed && !line.contains("(/") {
                continue;
            }
            match quote {
                Some(mark) if c == mark && before != '\\' => quote = None,
                None if c == '\'' || c == '"' => quote = Some(c),
                _ => {}
            }
            kept.push(c);
            before = c;
        }
        kept.push('\n');
    }
    kept
}

/// Returns the part of the pages that is made from the sources of that name.
fn part(name: &str) -> String {
    // CSS needs no line breaks and no blanks around its punctuation.
    let mut style = without_comments(&source(&format!("{name}.css"))).replace('\n', "");
    for (long, short) in
        [(": ", ":"), (" {", "{"), (", ", ","), (";}", "}"), ("; ", ";"), ("{ ", "{"), (" }", "}")]
    {
        style = style.replace(long, short);
    }
    let style = style.replace(";}", "}");
    let script = without_blanks(&without_comments(&source(&format!("{name}.js"))));
    let html = source(&format!("{name}.html")).replace("<style></style>", &format!("<style>{style}</style>"));
    html.replace("<script></script>", &format!("<script>{script}</script>"))
}

/// Returns a page as the browser gets it.
fn page(name: &str) -> String {
    part("common") + &part(name)
}

/// Runs a tool on `input` and returns its output; `None` if the tool is missing or fails.
fn pipe(tool: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.expect("the tool can be waited for");
    output.status.success().then_some(output.stdout)
}

/// Returns a stored page: its compressed form and its text; `None` if a file is missing.
fn stored(name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let parts = ["common", name].map(|name| std::fs::read(root().join(format!("ui/{name}.gz"))).ok());
    let [Some(common), Some(rest)] = parts else { return None };
    let packed = [common, rest].concat();
    let text = pipe("gzip", &["-dc"], &packed)?;
    Some((packed, text))
}

#[test]
fn the_stored_pages_are_made_from_their_sources() {
    let current = |(name, _)| stored(name).is_some_and(|(_, text)| text == page(name).as_bytes());
    if !PAGES.into_iter().all(current) {
        assert!(
            std::env::var_os("UPDATE_DOCS").is_some(),
            "the files ui/*.gz are not made from their sources; UPDATE_DOCS=1 cargo test --test docs rewrites them"
        );
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        for name in ["common", "page", "fleet"] {
            std::fs::write(folder.path().join(name), part(name)).expect("it is writable");
        }
        let ui = root().join("ui");
        let script = ui.join("pack.py");
        let words =
            [script.as_path(), folder.path(), ui.as_path()].map(|path| path.to_str().expect("it is text"));
        pipe("python3", &words, b"").expect("python3 is installed");
    }
    for (name, limit) in PAGES {
        let (packed, text) = stored(name).expect("it was written");
        assert!(text == page(name).as_bytes(), "{name}");
        assert!(packed.len() <= limit, "{name}: {} bytes", packed.len());
    }
}

/// Returns the source for a Content-Security-Policy that allows this text.
fn hash(text: &str) -> String {
    let digest = pipe("sha256sum", &[], text.as_bytes()).expect("sha256sum is installed");
    let digest = String::from_utf8(digest).expect("it prints text");
    let bits: Vec<bool> = digest
        .chars()
        .take(64)
        .flat_map(|digit| {
            let value = digit.to_digit(16).expect("it prints digits");
            [8, 4, 2, 1].map(|bit| value & bit != 0)
        })
        .collect();
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let base64: String = bits
        .chunks(6)
        .map(|six| {
            let value = (0..6).fold(0, |sum, at| sum * 2 + usize::from(six.get(at) == Some(&true)));
            ALPHABET.get(value).copied().map_or('?', char::from)
        })
        .collect();
    format!("'sha256-{base64}='")
}

/// Returns the text of the only element of that name.
fn element<'a>(html: &'a str, name: &str) -> &'a str {
    let (_, rest) = html.split_once(&format!("<{name}>")).expect("the element begins");
    let (text, rest) = rest.split_once(&format!("</{name}>")).expect("the element ends");
    assert!(!rest.contains(&format!("<{name}")), "one {name}");
    text
}

#[test]
fn the_policy_has_the_hashes_of_styles_and_scripts() {
    let hashes =
        |tag: &str| ["common", "page", "fleet"].map(|name| hash(element(&part(name), tag))).join(" ");
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {} {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hashes("script"),
        hashes("style"),
        hash(element(&source("static.html"), "style")),
    );
    same("ui/csp.txt", &policy);
}

#[test]
fn the_pages_load_nothing_from_elsewhere() {
    for (name, _) in PAGES {
        let page = page(name);
        for sign in [
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
        ] {
            assert!(!page.contains(sign), "{name}: {sign}");
        }
        for (at, _) in page.match_indices("href=\"") {
            let target = &page[at + 6..];
            assert!(
                !target.starts_with('/') && !target.starts_with("http"),
                "{name}: {:?} is not relative",
                target.get(..40)
            );
        }
    }
}
