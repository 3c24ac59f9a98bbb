//! A strict and small HTTP/1.1 reader and writer, independent of Weir's own parser.

use weir::io::sim::{Peer, Rng, Sim};

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body and no framing field.
    None,
    /// Content-Length.
    Length,
    /// Chunked, with random chunk sizes.
    Chunked,
    /// The body ends with the connection.
    Close,
}

/// A start line and fields. Names are in lower case.
#[derive(Clone, Debug)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head. `None`: the connection ended first.
    pub async fn read(peer: &mut Peer<Sim>) -> Option<Self> {
        let bytes = peer.read_until(b"\r\n\r\n").await.ok()?;
        let text = String::from_utf8(bytes).expect("heads are ASCII here");
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().expect("a start line").to_owned();
        let fields = lines.map(|field| {
            let (name, value) = field.split_once(':').expect("a colon");
            assert!(!name.is_empty() && !name.contains(' '), "{field:?}");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Some(Self {
            line,
            fields: fields.collect(),
        })
    }

    /// The value of a field. Asserts that it occurs at most once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        let value = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "{name} occurs twice");
        value
    }

    /// The framing of the following body; `without` if no field announces one.
    pub fn framing(&self, without: Framing) -> Framing {
        match (self.get("content-length"), self.get("transfer-encoding")) {
            (None, None) => without,
            (Some(_), None) => Framing::Length,
            (None, Some(coding)) => {
                assert_eq!(coding, "chunked");
                Framing::Chunked
            }
            both => panic!("ambiguous framing: {both:?}"),
        }
    }
}

/// Reads a body. The flag says whether it was complete.
pub async fn read_body(peer: &mut Peer<Sim>, head: &Head, framing: Framing) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    let complete = match framing {
        Framing::None => true,
        Framing::Length => {
            let length = head.get("content-length").expect("it was there");
            let length = length.parse().expect("a length");
            read_part(peer, length, &mut body).await
        }
        Framing::Chunked => read_chunks(peer, &mut body).await,
        Framing::Close => {
            let (bytes, end) = peer.read_to_end().await;
            body = bytes;
            end == weir::io::sim::End::Orderly
        }
    };
    (body, complete)
}

async fn read_chunks(peer: &mut Peer<Sim>, body: &mut Vec<u8>) -> bool {
    loop {
        let Ok(line) = peer.read_until(b"\r\n").await else {
            return false;
        };
        let line = String::from_utf8(line).expect("chunk sizes are ASCII");
        let size = line.trim_end().split(';').next().expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hex");
        if size == 0 {
            return end_of_trailers(peer).await;
        }
        if !read_part(peer, size, body).await {
            return false;
        }
        match peer.read_exact(2).await {
            Ok(end) => assert_eq!(end, b"\r\n"),
            Err(_) => return false,
        }
    }
}

async fn end_of_trailers(peer: &mut Peer<Sim>) -> bool {
    loop {
        match peer.read_until(b"\r\n").await {
            Ok(line) if line == b"\r\n" => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Reads `size` bytes, or as many as come.
async fn read_part(peer: &mut Peer<Sim>, size: usize, body: &mut Vec<u8>) -> bool {
    match peer.read_exact(size).await {
        Ok(bytes) => {
            body.extend_from_slice(&bytes);
            true
        }
        Err(_) => {
            body.extend_from_slice(&peer.read_to_end().await.0);
            false
        }
    }
}

/// The field that announces a body.
pub fn announce(framing: Framing, len: usize) -> String {
    match framing {
        Framing::None | Framing::Close => String::new(),
        Framing::Length => format!("Content-Length: {len}\r\n"),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
    }
}

/// Encodes a body.
pub fn frame(framing: Framing, body: &[u8], rng: &mut Rng) -> Vec<u8> {
    if framing != Framing::Chunked {
        return body.to_vec();
    }
    let mut wire = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.size(rest.len()).min(rest.len()));
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        rest = after;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// The body for an id. Requests and answers have different ones.
pub fn body_of(id: u64, answer: bool, len: usize) -> Vec<u8> {
    Rng::new(id * 2 + u64::from(answer)).bytes(len)
}
