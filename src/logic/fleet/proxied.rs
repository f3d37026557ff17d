//! What passes between a client of `kapo fleet` and a kapo of the folder. Anybody who may write to the folder can put a
//! socket there, so only the fields of a kapo's answer are passed on, with a policy that lets a browser run no script
//! except that of kapo's own page.

use crate::logic::http::{Method, Request};

/// The maximum length of the head of an answer, in bytes.
pub(crate) const LONGEST_HEAD: usize = 16 << 10;

/// The fields that a kapo sends in its answers, except those that fleet sets itself. Others, such as Set-Cookie,
/// Location or Access-Control-Allow-Origin, would act on all kapos of the page.
const FIELDS: [&str; 14] = [
    "Allow",
    "Cache-Control",
    "Content-Encoding",
    "Content-Length",
    "Content-Security-Policy",
    "Content-Type",
    "Date",
    "Kapo-Exit-Code",
    "Kapo-Start-Time",
    "Referrer-Policy",
    "Retry-After",
    "Server",
    "Vary",
    "X-Accel-Buffering",
];

/// The fields that each answer gets. A browser applies this policy in addition to that of the answer.
const ADDED: &str = concat!(
    "Connection: close\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: ",
    include_str!("../../../ui/csp.txt"),
    "\r\n\r\n"
);

/// Returns the request for the kapo. It is HTTP/1.0, so that the answer is not divided into chunks: its bytes are
/// passed on as they are, also to a client that does not know chunks.
pub(crate) fn request(request: &Request<'_>, path: &str) -> Vec<u8> {
    let method = if request.method == Method::Head { "HEAD " } else { "GET " };
    let (mark, query) = request.query.map_or(("", ""), |query| ("?", query));
    let mut text = [method, path, mark, query, " HTTP/1.0\r\n"].concat();
    for (name, value) in [
        ("Accept: ", request.accept),
        ("Accept-Encoding: ", request.accept_encoding),
        ("Last-Event-ID: ", request.last_event_id),
        ("Upgrade-Insecure-Requests: ", if request.navigates { "1" } else { "" }),
    ] {
        if !value.is_empty() {
            text.extend([name, value, "\r\n"]);
        }
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The bytes are not the head of a kapo's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ForeignAnswer;

/// Appends the head for the client to `out` and returns the length of the head of the kapo; `None` if it is not
/// complete yet.
pub(crate) fn head(received: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, ForeignAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(received) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST_HEAD => length,
        Ok(httparse::Status::Partial) if received.len() < LONGEST_HEAD => return Ok(None),
        _ => return Err(ForeignAnswer),
    };
    // A kapo sends no interim answer.
    let code = head.code.filter(|code| (200..600).contains(code)).ok_or(ForeignAnswer)?;
    let begin = ["HTTP/1.1 ", &code.to_string(), " ", head.reason.unwrap_or_default(), "\r\n"];
    out.extend_from_slice(begin.concat().as_bytes());
    let mut lengths = 0;
    for field in head.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        lengths += usize::from(is("Content-Length"));
        if is("Transfer-Encoding") || lengths > 1 {
            return Err(ForeignAnswer);
        }
        if FIELDS.into_iter().any(is) {
            out.extend_from_slice(&[field.name.as_bytes(), b": ", field.value, b"\r\n"].concat());
        }
    }
    out.extend_from_slice(ADDED.as_bytes());
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(head: &str) -> Result<Option<String>, ForeignAnswer> {
        let mut out = Vec::new();
        let length = super::head(head.as_bytes(), &mut out)?;
        Ok(length.map(|_| String::from_utf8(out).unwrap()))
    }

    #[test]
    fn only_the_fields_of_a_kapo_are_passed_on() {
        let head = "HTTP/1.0 200 Fine\r\nset-cookie: a=b\r\nContent-type: text/html\r\nConnection: upgrade\r\n\
                    Upgrade: h2c\r\nLocation: https://x/\r\nRefresh: 0; url=//x\r\ncontent-length: 3\r\n\
                    Access-Control-Allow-Origin: *\r\nX-Content-Type-Options: none\r\n\r\nabc";
        let expected =
            ["HTTP/1.1 200 Fine\r\nContent-type: text/html\r\ncontent-length: 3\r\n", ADDED].concat();
        assert_eq!(passed(head), Ok(Some(expected)));
    }

    #[test]
    fn an_answer_that_no_kapo_sends_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nServer: {}", "x".repeat(LONGEST_HEAD));
        for head in [
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 999 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "\0",
            &long,
        ] {
            assert_eq!(passed(head), Err(ForeignAnswer), "{head}");
        }
        assert_eq!(passed("HTTP/1.1 200 OK\r\nServer: ka"), Ok(None));
    }

    #[test]
    fn the_request_has_the_fields_that_a_kapo_reads() {
        let asked = Request {
            method: Method::Get,
            path: "/i/web/logs",
            query: Some("follow=1"),
            host: "localhost",
            accept: "text/plain",
            accept_encoding: "",
            last_event_id: "7",
            navigates: true,
        };
        let expected = "GET /logs?follow=1 HTTP/1.0\r\nAccept: text/plain\r\nLast-Event-ID: 7\r\n\
                        Upgrade-Insecure-Requests: 1\r\n\r\n";
        assert_eq!(String::from_utf8(request(&asked, "/logs")).unwrap(), expected);
        let head = Request { method: Method::Head, query: None, ..asked };
        assert!(request(&head, "/").starts_with(b"HEAD / HTTP/1.0\r\n"));
    }
}
