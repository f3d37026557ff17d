//! Answers as bytes.

/// Writes exactly one answer to one request: the connection knows method, version and whether it stays open, the
/// caller says the rest.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
}

impl Reply<'_> {
    /// A whole answer: status line, Date, Server, Content-Type, Content-Length, Cache-Control, Connection where it is
    /// due, the `extra` fields, and `body`, which is left out for HEAD. An empty `content_type` leaves that field out.
    pub fn send(self, status: u16, content_type: &str, extra: &[(&str, &str)], body: &[u8]) {
        let _ = (self.out, status, content_type, extra, body);
    }

    /// The head (200) and first bytes of an answer without Content-Length, which ends with the connection.
    pub fn stream(self, content_type: &str, extra: &[(&str, &str)], first: &[u8]) {
        let _ = (self.out, content_type, extra, first);
    }
}
