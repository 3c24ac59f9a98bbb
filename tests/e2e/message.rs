//! A small HTTP/1.1 parser, independent of Weir's.

use super::conn::Conn;

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Names in their original case, and values.
    pub fields: Vec<(String, String)>,
    /// The decoded body.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// Asserts that Weir itself answered, with this status, and with this reason in the body and in `Proxy-Status`.
    #[track_caller]
    pub fn expect_refusal(&self, status: u16, reason: &str, error: &str) {
        let (body, why) = (self.text(), self.field("Proxy-Status").unwrap_or(""));
        assert_eq!(self.status(), status, "{body}");
        assert!(body.contains(&format!("\"reason\":\"{reason}\"")), "{body}");
        let wanted = format!("; error={error}; details=\"{reason}\"");
        assert!(why.ends_with(&wanted), "{why}");
        let media = self.field("Content-Type");
        assert_eq!(media, Some("application/problem+json"));
    }

    /// Parses a head.
    #[track_caller]
    pub fn parse(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect();
        Self {
            start,
            fields,
            ..Self::default()
        }
    }

    /// The status of a response.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let mut words = self.start.split(' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "{}", self.start);
        words.next().unwrap().parse().unwrap()
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a field. Asserts that it occurs at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} occurs more than once: {all:?}");
        all.first().copied()
    }

    /// The values of all fields with this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        let values = self.fields.iter().filter(named).map(|(_, value)| &**value);
        values.collect()
    }

    /// The value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.trailers
            .iter()
            .find(named)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the body came in chunks.
    pub fn is_chunked(&self) -> bool {
        self.field("Transfer-Encoding") == Some("chunked")
    }

    /// Reads the body by RFC 9112 section 6.3.
    #[track_caller]
    pub fn read_body(&mut self, conn: &mut Conn, is_response: bool) {
        let has_none = is_response && matches!(self.status(), 100..=199 | 204 | 304);
        let length = self.field("Content-Length").map(str::to_owned);
        if has_none {
        } else if self.is_chunked() {
            assert_eq!(length, None, "both framings");
            self.read_chunks(conn);
        } else if let Some(length) = length {
            self.body = conn.take(length.parse().unwrap());
        } else if is_response {
            let (body, end) = conn.rest();
            assert_eq!(
                end,
                super::End::Closed,
                "the connection was reset within the body"
            );
            self.body = body;
        }
    }

    #[track_caller]
    fn read_chunks(&mut self, conn: &mut Conn) {
        loop {
            let line = conn.line();
            let size = usize::from_str_radix(&line, 16)
                .unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            self.body.extend(conn.take(size));
            conn.expect("\r\n");
        }
        loop {
            let line = conn.line();
            if line.is_empty() {
                return;
            }
            self.trailers.push(field(&line));
        }
    }
}

#[track_caller]
fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').expect("a field line has a colon");
    (name.to_owned(), value.trim().to_owned())
}
