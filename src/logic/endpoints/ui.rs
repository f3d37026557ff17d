//! `/ui`, the page for people. Browsers get a stored page, whose script reads the other paths. Other clients and
//! browsers without scripts get a plain page of the present state, with the lines of `kapo status`.

use super::{Answer, RequestContext, first_failure, retry_after, whole};
use crate::error::one_line;
use crate::logic::Now;
use crate::logic::client::json::Json;
use crate::logic::client::status::{self, Findings};
use crate::logic::http::Request;
use crate::logic::http::query::parameter;
use crate::logic::log::timestamp;
use crate::logic::metrics::{self, Format, Selection};
use crate::logic::output::tail::Tail;

/// The compressed beginning of both stored pages; `tests/docs/ui.rs` makes it from the other files in that folder.
const COMMON: &[u8] = include_bytes!("../../../ui/common.gz");

/// The rest of the page of one kapo.
const PAGE: &[u8] = include_bytes!("../../../ui/page.gz");

/// The rest of the page of `kapo fleet`.
const FLEET: &[u8] = include_bytes!("../../../ui/fleet.gz");

/// The type of the compressed pages, and the fields that belong to it.
const COMPRESSED: &str = concat!(
    "text/html; charset=utf-8\r\nContent-Encoding: gzip\r\n",
    "Vary: *\r\nReferrer-Policy: no-referrer\r\n",
    "Content-Security-Policy: ",
    include_str!("../../../ui/csp.txt"),
);

/// The same for the plain page.
const PLAIN: &str = concat!(
    "text/html; charset=utf-8\r\n",
    "Vary: *\r\nReferrer-Policy: no-referrer\r\n",
    "Content-Security-Policy: ",
    include_str!("../../../ui/csp.txt"),
);

/// The last lines of output are searched in this many bytes.
const RECENT: u64 = 64 * 1024;

/// The longest line of the plain page, in characters.
const LONGEST_LINE: usize = 1_000;

/// Whether a browser asks on behalf of a person who has opened the address. Monitors that accept HTML do not send
/// Upgrade-Insecure-Requests.
pub(crate) fn is_browser(request: &Request<'_>) -> bool {
    request.navigates && lists(request.accept, "text/html")
}

/// Whether a list of an Accept field contains `name` with a quality above 0.
pub(crate) fn lists(list: &str, name: &str) -> bool {
    list.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let refused = |part: &str| {
            let zero = |quality: &str| quality.bytes().all(|byte| matches!(byte, b'0' | b'.'));
            part.strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('=')).is_some_and(zero)
        };
        parts.next().is_some_and(|found| found.eq_ignore_ascii_case(name)) && !parts.any(refused)
    })
}

/// Returns the metrics that the plain page shows.
pub(super) fn selection() -> Selection {
    Selection::of(status::METRICS.split_once('?').map(|(_, query)| query))
}

/// Whether the client can show the stored page, and does not ask for the plain one. Text browsers accept gzip, but only
/// browsers with scripts send Upgrade-Insecure-Requests.
pub(crate) fn takes_stored(request: &Request<'_>) -> bool {
    request.navigates
        && lists(request.accept_encoding, "gzip")
        && parameter(request.query, "static").is_none()
}

/// Returns the stored page.
pub(super) fn stored() -> Answer<'static> {
    whole(200, COMPRESSED, [COMMON, PAGE].concat())
}

/// Returns the stored page of `kapo fleet`: its content type with the fields that belong to it, and the body.
pub(crate) fn fleet() -> (&'static str, Vec<u8>) {
    (COMPRESSED, [COMMON, FLEET].concat())
}

impl RequestContext<'_> {
    /// Returns the plain page.
    pub(super) fn plain(&self, now: Now, head: bool) -> Answer<'_> {
        if head {
            return Answer::Head { content_type: PLAIN, length: None };
        }
        match self.render(now) {
            Ok(html) => whole(200, PLAIN, html.into_bytes()),
            Err(lacking) => lacking,
        }
    }

    fn render(&self, now: Now) -> Result<String, Answer<'static>> {
        let page = self.page;
        let selection = selection();
        let snapshot = self.snapshot(selection.sources())?;
        let metrics = metrics::render(Format::Text, selection, snapshot, self.counts);
        let runs = self.history.and_then(|history| status::history(&history.render()));
        let recent = |tail: &Tail| tail.since(tail.end().saturating_sub(RECENT), None).0;
        let output = self.tail.map(recent);
        let document = status::document(&page.document).unwrap_or(Json::Null);
        let retry = retry_after(page, now);
        let (unready, unhealthy) =
            (first_failure(&page.ready, retry.as_deref()), first_failure(&page.health, retry.as_deref()));
        let lines = status::report(&Findings {
            document: &document,
            runs: runs.as_ref(),
            metrics: &metrics,
            output: output.as_deref(),
            unhealthy: unhealthy.as_deref(),
            unready: unready.as_deref(),
            now: now.wall,
        });
        let mut lines = lines.iter();
        let mut html = include_str!("../../../ui/static.html").to_owned();
        let verdict = lines.next().map_or("", String::as_str);
        html.push_str("<title>");
        escape(verdict, &mut html);
        html.push_str("</title>\n</head>\n<body>\n<main>\n<h1>");
        escape(verdict, &mut html);
        html.push_str("</h1>\n<pre>");
        for line in lines {
            escape(line, &mut html);
            html.push('\n');
        }
        html.push_str("</pre>\n<p>");
        html.push_str(timestamp::rfc3339(now.wall).get(..19).unwrap_or_default());
        html.push_str(
            "Z: <a href=\"ui?static\">again</a>, <a href=\"status.json\">JSON</a>, <a href=\"runs\">runs</a>, \
             <a href=\"logs\">output</a>, <a href=\"metrics\">metrics</a>, <a href=\"ui\">live page</a></p>\n\
             </main>\n</body>\n</html>\n",
        );
        Ok(html)
    }
}

/// Appends a text that may contain anything, as the text of an element.
fn escape(text: &str, html: &mut String) {
    for c in one_line(text).chars().take(LONGEST_LINE) {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_contains_a_name_with_a_quality_above_0() {
        for (list, found) in [
            ("gzip", true),
            ("br, GZip;q=0.001", true),
            ("deflate , gzip ; q=1", true),
            ("gzip;q=0", false),
            ("gzip; Q=0.000", false),
            ("x-gzip", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(lists(list, "gzip"), found, "{list}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        let mut html = String::new();
        escape("<script>\u{1b}&'\"\n", &mut html);
        assert_eq!(html, "&lt;script&gt;\\u{1b}&amp;'\"\\n");
    }
}
