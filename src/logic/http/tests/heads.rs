//! Tables of requests and their answers.

use super::*;

/// Requests that are refused once the head is complete. Each line is a rule of RFC 9110 or RFC 9112.
const HOSTILE: &[(u16, &str)] = &[
    // The request line.
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.x\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/+1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / \r\nHost: a\r\n\r\n"),
    (400, "GET / FTP/1.1\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    // Methods.
    (501, "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, "GETS / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (405, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    (405, "DELETE / HTTP/1.0\r\n\r\n"),
    (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (405, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (405, "CONNECT [::1]:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (405, "PRI / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Targets.
    (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "HEAD * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://a/ HTTP/1.1\r\n\r\n"),
    (400, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Host.
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a%2\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n"),
    (400, "GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    // Fields.
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA\t: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA(: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\u{e4}: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tc\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n A: b\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA:\r\n b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\x01\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\x7f\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
    // Framing.
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chu nked\r\n\r\n"),
    (400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (501, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    (501, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    (501, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: foo;a=b\r\n\r\n"),
];

#[test]
fn each_invalid_head_is_refused_and_the_connection_closed() {
    for (status, head) in HOSTILE {
        // Bytes behind a refused request must never be answered as a request.
        let (seen, open) = ask(format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(statuses(&seen), [status.to_string()], "{head:?}\n{seen}");
        assert!(!open, "{head:?}");
        assert!(seen.contains("\r\nConnection: close\r\n"), "{seen}");
        assert!(!seen.contains("smuggled"), "{head:?}\n{seen}");
        assert_eq!(seen.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), *status == 405, "{seen}");
    }
}

#[test]
fn other_protocols_are_refused_at_the_first_wrong_byte() {
    for (status, bytes) in [
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice()),
        (400, b"\x16"),
        (400, b"\x80\x2e\x01"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n"),
        (400, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        (400, b"PROXY UNKNOWN\r\n"),
        (400, b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"),
        (400, b"GET /\r\n"),
        (400, b"GET /"),
        (400, b"GET /\n"),
        (400, b"GET\r\n"),
        (400, b"\0"),
        (400, b"\x05\x01\x00"),
        (400, b"*1\r\n$4\r\nPING\r\n"),
        (505, b"GET / HTTP/2.0\r\n"),
    ] {
        let (seen, open) = ask(bytes);
        match bytes {
            // These bytes may still become a request.
            b"GET /" => assert_eq!((seen.as_str(), open), ("", true)),
            _ => assert_eq!((statuses(&seen), open), (vec![&*status.to_string()], false), "{bytes:?}"),
        }
    }
}

#[test]
fn limits_have_their_documented_values() {
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 14));
    let head = |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(length - 32));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    assert_eq!(head(100).len(), 100);
    assert_eq!(line(100).find("\r\n"), Some(100));
    for (status, request) in [
        ("200", line(8192)),
        ("414", line(8193)),
        ("501", "A".repeat(18)),
        ("501", "A".repeat(8193)),
        ("501", format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(17))),
        ("405", "UPDATEREDIRECTREF / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("200", head(16384)),
        ("431", head(16385)),
        ("200", fields(128)),
        ("431", fields(129)),
        ("431", format!("GET / HTTP/1.1\r\n{}", "A".repeat(16384))),
        // An ordinary large request.
        (
            "200",
            format!(
                "GET /?{} HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n{}\r\n",
                "q".repeat(4096),
                "c".repeat(2048),
                "X-Field: 0123456789\r\n".repeat(98)
            ),
        ),
    ] {
        let (seen, open) = ask(&request);
        assert_eq!((statuses(&seen), open), (vec![status], status == "200"), "{}", request.len());
    }
}

#[test]
fn valid_targets_and_hosts_are_answered() {
    for (request, body) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Get / None"),
        ("GET /a%20b?c=d?e HTTP/1.1\r\nHost: a:80\r\n\r\n", "Get /a%20b Some(\"c=d?e\")"),
        ("GET /? HTTP/1.1\r\nhOST:a\r\n\r\n", "Get / Some(\"\")"),
        ("GET //a HTTP/1.1\r\nHost: [::1]:6666\r\n\r\n", "Get //a None"),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", "Get / None"),
        ("GET / HTTP/1.1\r\nHost: my_host.example.:\r\n\r\n", "Get / None"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "Get / None"),
        ("GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n", "Get / None"),
        ("GET http://a/b?c HTTP/1.1\r\nHost: other\r\n\r\n", "Get /b Some(\"c\")"),
        ("GET HTTP://a:80?c HTTP/1.1\r\nHost: a\r\n\r\n", "Get / Some(\"c\")"),
        ("GET https://[::1]:1 HTTP/1.1\r\nHost: a\r\n\r\n", "Get / None"),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "Get / None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \u{e4}\r\nB:\r\nUpgrade: h2c\r\n\r\n", "Get / None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n", "Get / None"),
    ] {
        let (seen, open) = ask(request);
        assert_eq!((statuses(&seen), bodies(&seen), open), (vec!["200"], vec![body], true), "{request:?}");
    }
}

#[test]
fn options_has_no_length_type_or_body() {
    for target in ["*", "/", "http://a", "http://a/"] {
        let (seen, open) = ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(
            (&*seen, open),
            (
                "HTTP/1.1 204 No Content\r\nServer: kapo\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nAllow: GET, HEAD, OPTIONS\r\n\r\n",
                true
            )
        );
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    for rest in
        [" / HTTP/1.1\r\nHost: a\r\n\r\n", " /events HTTP/1.1\r\nHost: a\r\n\r\n", " / HTTP/1.1\r\n\r\n"]
    {
        let (get, head) = (ask(format!("GET{rest}")).0, ask(format!("HEAD{rest}")).0);
        // The echoed method has another length; everything else must be equal.
        let end = get.find("\r\n\r\n").unwrap() + 4;
        assert_eq!(get[..end].replace("Length: 10", "Length: 11"), head, "{rest:?}");
        assert!(get.len() > end);
    }
}

#[test]
fn all_other_registered_methods_are_405() {
    for method in "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY DELETE LABEL LINK LOCK MERGE MKACTIVITY \
        MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY \
        REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
        .split_ascii_whitespace()
    {
        let (seen, _) = ask(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(statuses(&seen), ["405"], "{method}");
    }
}

#[test]
fn the_connection_stays_open_if_version_and_fields_allow_it() {
    for (version, fields, open, said) in [
        ("1.1", "", true, ""),
        ("1.1", "Connection: keep-alive\r\n", true, ""),
        ("1.1", "Connection: close\r\n", false, "close"),
        ("1.1", "connection: foo, CLOSE ,bar\r\n", false, "close"),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false, "close"),
        ("1.1", "Connection: closed\r\n", true, ""),
        ("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true, ""),
        ("1.0", "", false, "close"),
        ("1.0", "Connection: Keep-Alive\r\n", true, "keep-alive"),
        ("1.0", "Connection: foo\r\nConnection: keep-alive\r\n", true, "keep-alive"),
        ("1.0", "Connection: keep-alive, close\r\n", false, "close"),
        ("1.1", "Content-Length: 1\r\n", false, "close"),
        ("1.1", "Content-Length: 18446744073709551615\r\n", false, "close"),
        ("1.0", "Connection: keep-alive\r\nContent-Length: 1\r\n", false, "close"),
        ("1.1", "Transfer-Encoding: Chunked\r\n", false, "close"),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 9\r\n", false, "close"),
        ("1.1", "Expect: 100-continue\r\n", true, ""),
    ] {
        let (seen, stays) = ask(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!((statuses(&seen), stays), (vec!["200"], open), "{version} {fields:?}");
        let words: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("Connection: ")).collect();
        assert_eq!(words.concat(), said, "{version} {fields:?}");
    }
}

#[test]
fn accept_and_last_event_id_reach_the_handler() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nACCEPT: text/*;q=0.5, */*\r\nLast-event-id: 7\r\n\r\n";
    let parsed = crate::logic::http::request::parse(head).unwrap();
    assert_eq!((parsed.request.accept, parsed.request.last_event_id), ("text/*;q=0.5, */*", "7"));
    // Two fields form one list, and neither half of it counts alone.
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: a/b\r\nAccept: c/d\r\n\r\n";
    assert_eq!(crate::logic::http::request::parse(head).unwrap().request.accept, "");
}
