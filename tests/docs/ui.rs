//! Makes the stored files of the pages from their sources in `ui/`: `page.html.gz` of `/ui` and `fleet.html.gz` of
//! `kapo fleet` (style and script put into the page, without comments, compressed), and `csp.txt` (the
//! Content-Security-Policy with the hashes of both).

use std::io::Write;
use std::process::{Command, Stdio};

use super::{root, same};

/// The pages, and the most bytes that each may take in the program.
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

/// Returns a page as the browser gets it: `common` and its own files.
fn page(name: &str) -> String {
    let both = |ending: &str| {
        without_comments(&source(&format!("common.{ending}")))
            + &without_comments(&source(&format!("{name}.{ending}")))
    };
    // CSS needs no line breaks and no blanks around its punctuation.
    let mut style = both("css").replace('\n', "");
    for (long, short) in
        [(": ", ":"), (" {", "{"), (", ", ","), (";}", "}"), ("; ", ";"), ("{ ", "{"), (" }", "}")]
    {
        style = style.replace(long, short);
    }
    let style = style.replace(";}", "}");
    let script = both("js");
    let html = source(&format!("{name}.html")).replace("<style></style>", &format!("<style>{style}</style>"));
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
fn the_stored_pages_are_made_from_their_sources() {
    for (name, limit) in PAGES {
        stored(name, limit);
    }
}

fn stored(name: &str, limit: usize) {
    let page = page(name);
    let path = root().join(format!("ui/{name}.html.gz"));
    let stored = std::fs::read(&path).unwrap_or_default();
    let current = (!stored.is_empty()).then(|| pipe("gzip", &["-dc"], &stored).expect("gzip is installed"));
    if current.as_deref() != Some(page.as_bytes()) {
        assert!(
            std::env::var_os("UPDATE_DOCS").is_some(),
            "ui/{name}.html.gz is not made from its sources; UPDATE_DOCS=1 cargo test --test docs rewrites it"
        );
        // Neither writes a name or a time.
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be created");
        std::fs::write(file.path(), &page).expect("it is writable");
        let source = file.path().to_str().expect("the name is text");
        let packed = pipe("zopfli", &["-c", "--i50", source], b"");
        let packed = packed.or_else(|| pipe("gzip", &["-9nc"], page.as_bytes())).expect("gzip is installed");
        std::fs::write(&path, packed).expect("the source tree is writable");
    }
    let stored = std::fs::read(&path).expect("it was written");
    assert!(stored.len() <= limit, "{name}: {} bytes", stored.len());
    let (flags, time) = (stored.get(3), stored.get(4..8));
    assert_eq!((flags, time), (Some(&0), Some(&[0; 4][..])), "{name}: no name and no time");
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
    let hashes =
        |element_name: &str| PAGES.map(|(name, _)| hash(element(&page(name), element_name))).join(" ");
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
