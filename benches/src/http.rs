//! Framing of HTTP/1.1 messages from well-behaved peers: where the head ends, and how long the body
//! is.
//!
//! Validates nothing, on purpose, so that it costs little compared to what is measured.

use memchr::{memchr, memmem};

/// How a body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// A response without a length: the body ends with the connection.
    UntilClose,
}

/// A head, borrowed from the bytes that contain it.
#[derive(Debug)]
pub struct Head<'a> {
    /// Bytes of the head, including its empty line.
    pub bytes: usize,
    pub first_line: &'a [u8],
    pub content_length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub expect_continue: bool,
}

impl<'a> Head<'a> {
    /// Returns `None` until the empty line has arrived.
    #[must_use]
    pub fn find(bytes: &'a [u8]) -> Option<Self> {
        let end = memmem::find(bytes, b"\r\n\r\n")?;
        let (first_line, mut fields) = next_line(bytes.get(..end + 2)?);
        let mut head = Self {
            bytes: end + 4,
            first_line,
            content_length: None,
            chunked: false,
            close: false,
            expect_continue: false,
        };
        while !fields.is_empty() {
            let (line, rest) = next_line(fields);
            head.record(line);
            fields = rest;
        }
        Some(head)
    }

    /// The framing of a request's body. Without any, the length is zero.
    #[must_use]
    pub fn request_framing(&self) -> Framing {
        if self.chunked {
            Framing::Chunked
        } else {
            Framing::Length(self.content_length.unwrap_or(0))
        }
    }

    /// The framing of the body of a response to GET or POST.
    #[must_use]
    pub fn response_framing(&self) -> Framing {
        match (self.status(), self.chunked, self.content_length) {
            (Some(204 | 304), ..) => Framing::Length(0),
            (_, true, _) => Framing::Chunked,
            (_, _, Some(length)) => Framing::Length(length),
            _ => Framing::UntilClose,
        }
    }

    /// The status of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.first_line.get(9..12)?)
            .ok()?
            .parse()
            .ok()
    }

    /// The method and target of a request.
    #[must_use]
    pub fn request(&self) -> Option<(&'a [u8], &'a [u8])> {
        let mut words = self.first_line.split(|byte| *byte == b' ');
        Some((words.next()?, words.next()?))
    }

    fn record(&mut self, line: &[u8]) {
        // Most fields are skipped by their first letter.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T' | b'e' | b'E')) {
            return;
        }
        let Some(colon) = memchr(b':', line) else {
            return;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.content_length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.close = value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"expect") {
            self.expect_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
    }
}

/// Finds the end of a chunked body, for any cuts (RFC 9112 section 7.1).
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
}

impl Chunks {
    /// Parses `bytes`. Returns the number of consumed bytes, and whether the body has ended.
    ///
    /// # Errors
    /// A chunk has no valid size.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let ChunkState::Data { left } = self.state {
                let here = left.min((bytes.len() - at) as u64);
                at += here as usize;
                self.state = ChunkState::after_data(left - here);
                continue;
            }
            at += 1;
            self.state = self.state.step(*byte)?;
            if matches!(self.state, ChunkState::End) {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    /// In the trailer section. `empty` is true until the line has a byte.
    Trailer {
        empty: bool,
    },
    End,
}

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size {
            value: 0,
            digits: 0,
        }
    }
}

impl ChunkState {
    fn step(self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (Self::Size { digits: 0, .. }, b'\r' | b'\n' | b';') => {
                return Err("chunk without a size");
            }
            (Self::Size { value, .. } | Self::Extension { value }, b'\n') => {
                if value == 0 {
                    Self::Trailer { empty: true }
                } else {
                    Self::Data { left: value }
                }
            }
            (Self::Size { value, .. }, b'\r' | b';' | b' ') => Self::Extension { value },
            (Self::Size { value, digits }, digit) => {
                let digit = (digit as char).to_digit(16).ok_or("bad chunk size")?;
                if digits >= 15 {
                    return Err("chunk size too long");
                }
                Self::Size {
                    value: value * 16 + u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Extension { value }, _) => Self::Extension { value },
            (Self::DataEnd, b'\n') => Self::default(),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, _) => return Err("chunk longer than its size"),
            (Self::Trailer { empty: true }, b'\n') => Self::End,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
            (Self::Data { .. } | Self::End, _) => return Err("byte after the end"),
        })
    }

    fn after_data(left: u64) -> Self {
        if left == 0 {
            Self::DataEnd
        } else {
            Self::Data { left }
        }
    }
}

/// The line before the first CRLF, and the rest.
fn next_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(bytes, b"\r\n") {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_only_when_whole() {
        let text =
            b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\nbody";
        for end in 0..text.len() - 4 {
            assert!(Head::find(&text[..end]).is_none(), "at {end}");
        }
        let head = Head::find(text).unwrap();
        assert_eq!(head.bytes, text.len() - 4);
        assert_eq!(head.status(), Some(200));
        assert!(head.close);
        assert_eq!(head.response_framing(), Framing::Length(12));
    }

    #[test]
    fn a_request_has_a_method_and_a_target() {
        let head = Head::find(b"POST /b/9 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(head.request(), Some((&b"POST"[..], &b"/b/9"[..])));
        assert_eq!(head.request_framing(), Framing::Chunked);
    }

    #[test]
    fn chunks_end_at_the_same_byte_however_they_are_cut() {
        let text = b"4\r\nwire\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nnext";
        let whole = Chunks::default().receive(text).unwrap();
        assert_eq!(whole, (text.len() - 4, true));
        for split in 0..whole.0 {
            let mut chunks = Chunks::default();
            let (first, ended) = chunks.receive(&text[..split]).unwrap();
            assert_eq!((first, ended), (split, false));
            let (second, ended) = chunks.receive(&text[split..]).unwrap();
            assert_eq!((first + second, ended), whole, "split at {split}");
        }
    }

    #[test]
    fn a_chunk_needs_a_size() {
        assert!(Chunks::default().receive(b"\r\n").is_err());
        assert!(Chunks::default().receive(b"xyz\r\n").is_err());
        assert!(Chunks::default().receive(b"1\r\nab").is_err());
    }
}
