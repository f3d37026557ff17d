//! The part of an HTTP answer that a probe needs: the status code, once the head is complete.

/// The maximum length of a head in bytes, including the interim answers before it.
const LONGEST: usize = 16 * 1024;

/// Returns the status code, or `None` if the head is not complete. Skips interim answers (1xx).
pub(crate) fn status(input: &[u8]) -> Result<Option<u16>, &'static str> {
    let mut rest = input;
    loop {
        // `HTTP/1.1 200`
        let code = match rest.get(..12) {
            Some(&[b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', ref digits @ ..]) => {
                str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok())
            }
            Some(_) => None,
            None => return Ok(None),
        };
        let Some(code) = code.filter(|code| *code >= 100) else { return Err("no HTTP answer") };
        let ends = |rest: &[u8]| rest.starts_with(b"\n\n") || rest.starts_with(b"\n\r\n");
        let end = (0..rest.len()).find(|at| ends(rest.get(*at..).unwrap_or_default()));
        match end {
            Some(_) if code >= 200 => return Ok(Some(code)),
            _ if input.len() >= LONGEST => return Err("the head of the answer is too long"),
            // The length of the line end does not matter: blank lines before a status line are skipped.
            Some(end) => rest = rest.get(end..).unwrap_or_default().trim_ascii_start(),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_code_is_taken_from_a_complete_head() {
        for (input, expected) in [
            ("", Ok(None)),
            ("HTTP/1.1 200 OK\r\nServer: x\r\n", Ok(None)),
            ("HTTP/1.1 200 OK\r\n\r\nbody", Ok(Some(200))),
            ("HTTP/1.1 204\r\n\r\n", Ok(Some(204))),
            ("HTTP/1.0 503 No\nA: b\n\n", Ok(Some(503))),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\n\r\n", Ok(Some(404))),
            ("HTTP/1.1 100 Continue\r\n\r\n", Ok(None)),
            ("SSH-2.0-OpenSSH_9.6\r\n", Err("no HTTP answer")),
            ("HTTP/1.1 +20 OK\r\n\r\n", Err("no HTTP answer")),
        ] {
            assert_eq!(status(input.as_bytes()), expected, "{input}");
        }
        let mut endless = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        endless.resize(LONGEST, b'a');
        assert_eq!(status(&endless), Err("the head of the answer is too long"));
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(LONGEST / 25 + 1);
        assert_eq!(status(&interim), Err("the head of the answer is too long"));
    }
}
