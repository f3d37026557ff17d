//! Makes the stored files of the page `/ui` from its sources in `ui/`: `page.html.gz` (style and script put into the
//! page, without comments, compressed) and `csp.txt` (the Content-Security-Policy with their hashes).

use std::io::Write;
use std::process::{Command, Stdio};

use super::{root, same};

/// The most bytes that the compressed page may take in the program.
const LIMIT: usize = 12 * 1024;

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

/// Returns the page as the browser gets it.
fn page() -> String {
    // CSS needs no line breaks and no blanks around its punctuation.
    let mut style = without_comments(&source("page.css")).replace('\n', "");
    for (long, short) in
        [(": ", ":"), (" {", "{"), (", ", ","), (";}", "}"), ("; ", ";"), ("{ ", "{"), (" }", "}")]
    {
        style = style.replace(long, short);
    }
    let style = style.replace(";}", "}");
    let script = without_comments(&source("page.js"));
    let html = source("page.html").replace("<style></style>", &format!("<style>{style}</style>"));
    html.replace("<script></script>", &format!("<script>{script}</script>"))
}

/// Runs a tool on `input` and returns its output; `None` if the tool is missing.
fn pipe(tool: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.expect("the tool can be waited for");
    assert!(output.status.success(), "{tool} {arguments:?}");
    Some(output.stdout)
}

#[test]
fn the_stored_page_is_made_from_its_sources() {
    let page = page();
    let path = root().join("ui/page.html.gz");
    let stored = std::fs::read(&path).unwrap_or_default();
    let current = (!stored.is_empty()).then(|| pipe("gzip", &["-dc"], &stored).expect("gzip is installed"));
    if current.as_deref() != Some(page.as_bytes()) {
        assert!(
            std::env::var_os("UPDATE_DOCS").is_some(),
            "ui/page.html.gz is not made from its sources; UPDATE_DOCS=1 cargo test --test docs rewrites it"
        );
        // Neither writes a name or a time.
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be created");
        std::fs::write(file.path(), &page).expect("it is writable");
        let name = file.path().to_str().expect("the name is text");
        let packed = pipe("zopfli", &["-c", "--i50", name], b"");
        let packed = packed.or_else(|| pipe("gzip", &["-9nc"], page.as_bytes())).expect("gzip is installed");
        std::fs::write(&path, packed).expect("the source tree is writable");
    }
    let stored = std::fs::read(&path).expect("it was written");
    assert!(stored.len() <= LIMIT, "{} bytes", stored.len());
    let (flags, time) = (stored.get(3), stored.get(4..8));
    assert_eq!((flags, time), (Some(&0), Some(&[0; 4][..])), "no name and no time");
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
fn the_policy_has_the_hashes_of_style_and_script() {
    let (page, plain) = (page(), source("static.html"));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {} {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(element(&page, "script")),
        hash(element(&page, "style")),
        hash(element(&plain, "style")),
    );
    same("ui/csp.txt", &policy);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = page();
    for sign in
        ["src=", "@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="]
    {
        assert!(!page.contains(sign), "{sign}");
    }
    for (at, _) in page.match_indices("href=\"") {
        let target = &page[at + 6..];
        assert!(
            !target.starts_with('/') && !target.starts_with("http"),
            "{:?} is not relative",
            target.get(..40)
        );
    }
}
