//! Frames to and from the notation of case files. Independent of the crate except for the HPACK
//! decoder.

use weir_proto_h2::ErrorCode;
use weir_proto_h2::hpack::Decoder;

use super::{show, unescape};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS: &[(&str, u16)] = &[
    ("table", 1),
    ("push", 2),
    ("streams", 3),
    ("window", 4),
    ("frame", 5),
    ("list", 6),
    ("connect", 8),
    ("no_priorities", 9),
];

/// Encodes a frame from its notation; see `cases/README.md`.
pub(crate) fn write_frame(text: &str) -> Vec<u8> {
    let (front, payload) = match text.split_once(" | ") {
        Some((front, payload)) => (front, Some(payload)),
        None => (text.trim_end_matches(" |"), None),
    };
    let mut words = front.split_whitespace();
    let name = words.next().unwrap();
    let words: Vec<&str> = words.collect();
    let number = |at: usize| -> u32 { words[at].parse().unwrap() };
    match name {
        "PREFACE" => PREFACE.to_vec(),
        "BYTES" => unescape(payload.unwrap()),
        "HEADERS" => section(1, &words, payload),
        "CONTINUATION" => section(9, &words, payload),
        "PUSH_PROMISE" => section(5, &words, payload),
        "DATA" => data(&words, payload),
        "SETTINGS" => settings(&words),
        "PRIORITY" => {
            let depends_on = words.get(1).map_or(0, |_| number(1));
            frame(2, 0, number(0), &priority(depends_on))
        }
        "RST_STREAM" => frame(3, 0, number(0), &code(words[1]).0.to_be_bytes()),
        "PING" => {
            let flags = u8::from(words.get(1) == Some(&"ack"));
            frame(6, flags, 0, words[0].as_bytes())
        }
        "GOAWAY" => {
            let mut bytes = number(0).to_be_bytes().to_vec();
            bytes.extend(code(words[1]).0.to_be_bytes());
            bytes.extend(unescape(payload.unwrap_or_default()));
            frame(7, 0, 0, &bytes)
        }
        "WINDOW_UPDATE" => frame(8, 0, number(0), &number(1).to_be_bytes()),
        "PRIORITY_UPDATE" => {
            let mut bytes = number(0).to_be_bytes().to_vec();
            bytes.extend(unescape(payload.unwrap_or_default()));
            frame(16, 0, 0, &bytes)
        }
        "FRAME" => {
            let hex = |at: usize| u8::from_str_radix(words[at], 16).unwrap();
            let payload = unescape(payload.unwrap_or_default());
            frame(hex(0), hex(1), number(2), &payload)
        }
        // A frame header with any length.
        "HEAD" => {
            let hex = |at: usize| u8::from_str_radix(words[at], 16).unwrap();
            let mut bytes = frame(hex(1), hex(2), number(3), b"");
            bytes[..3].copy_from_slice(&number(0).to_be_bytes()[1..]);
            bytes
        }
        _ => panic!("unknown frame {text}"),
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An RFC 7540 priority.
fn priority(depends_on: u32) -> [u8; 5] {
    let [a, b, c, d] = depends_on.to_be_bytes();
    [a, b, c, d, 16]
}

fn code(name: &str) -> ErrorCode {
    let found = (0..14).map(ErrorCode).find(|code| code.name() == name);
    found.unwrap_or_else(|| ErrorCode(name.parse().unwrap()))
}

/// Adds padding to a frame if its words ask for it.
fn padded(words: &[&str], mut flags: u8, body: Vec<u8>) -> (u8, Vec<u8>) {
    let Some(padding) = words.iter().find_map(|word| word.strip_prefix("pad=")) else {
        return (flags, body);
    };
    flags |= 8;
    let padding: u8 = padding.parse().unwrap();
    let mut bytes = vec![padding];
    bytes.extend(body);
    bytes.resize(bytes.len() + usize::from(padding), 0);
    (flags, bytes)
}

fn section(kind: u8, words: &[&str], payload: Option<&str>) -> Vec<u8> {
    let mut flags = 4;
    let mut body = Vec::new();
    for word in &words[1..] {
        match *word {
            "end" => flags |= 1,
            "more" => flags &= !4,
            word if word.starts_with("priority") => {
                flags |= 0x20;
                let depends_on = word.strip_prefix("priority=");
                body.extend(priority(depends_on.map_or(0, |id| id.parse().unwrap())));
            }
            word if word.starts_with("pad=") => {}
            word => panic!("unknown flag {word}"),
        }
    }
    for field in payload.into_iter().flat_map(|fields| fields.split(" | ")) {
        body.extend(write_field(field));
    }
    let (flags, body) = padded(words, flags, body);
    frame(kind, flags, words[0].parse().unwrap(), &body)
}

/// `name: value`; `GET /path` for a whole start line with host `a`; `raw BYTES`; `N*field`.
fn write_field(field: &str) -> Vec<u8> {
    if let Some((times, field)) = field.split_once('*')
        && let Ok(times) = times.parse()
    {
        return write_field(field).repeat(times);
    }
    if let Some(raw) = field.strip_prefix("raw ") {
        return unescape(raw);
    }
    let at = field[1..].find(": ").map(|at| at + 1);
    if let Some(at) = at {
        return literal(&unescape(&field[..at]), &unescape(&field[at + 2..]));
    }
    if let Some(name) = field.strip_suffix(':') {
        return literal(&unescape(name), b"");
    }
    let (method, path) = field.split_once(' ').unwrap();
    [
        literal(b":method", method.as_bytes()),
        literal(b":scheme", b"http"),
        literal(b":authority", b"a"),
        literal(b":path", &unescape(path)),
    ]
    .concat()
}

/// Encodes a literal without indexing and Huffman coding. The value `~N` stands for N bytes.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let long = value.strip_prefix(b"~").map(|count| {
        let count = std::str::from_utf8(count).unwrap().parse().unwrap();
        vec![b'x'; count]
    });
    let value = long.as_deref().unwrap_or(value);
    let mut bytes = vec![0];
    for text in [name, value] {
        length(text.len(), &mut bytes);
        bytes.extend(text);
    }
    bytes
}

fn length(mut len: usize, out: &mut Vec<u8>) {
    if len < 127 {
        out.push(len as u8);
        return;
    }
    out.push(127);
    len -= 127;
    while len > 127 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

fn data(words: &[&str], payload: Option<&str>) -> Vec<u8> {
    let mut body = unescape(payload.unwrap_or_default());
    let mut flags = 0;
    for word in &words[1..] {
        match word.split_once('=') {
            None if *word == "end" => flags |= 1,
            Some(("len", count)) => body = vec![b'x'; count.parse().unwrap()],
            Some(("pad", _)) => {}
            _ => panic!("unknown flag {word}"),
        }
    }
    let (flags, body) = padded(words, flags, body);
    frame(0, flags, words[0].parse().unwrap(), &body)
}

fn settings(words: &[&str]) -> Vec<u8> {
    if words == ["ack"] {
        return frame(4, 1, 0, b"");
    }
    let mut body = Vec::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        let known = SETTINGS.iter().find(|(known, _)| *known == name);
        let id: u16 = known.map_or_else(|| name.parse().unwrap(), |(_, id)| *id);
        body.extend(id.to_be_bytes());
        body.extend(value.parse::<u32>().unwrap().to_be_bytes());
    }
    frame(4, 0, 0, &body)
}

/// Parses sent frames.
pub(crate) struct FrameReader {
    bytes: Vec<u8>,
    decoder: Decoder,
    block: Vec<u8>,
    skips_preface: bool,
}

impl FrameReader {
    pub(crate) fn new(is_client: bool) -> Self {
        Self {
            bytes: Vec::new(),
            decoder: Decoder::new(4096),
            block: Vec::new(),
            skips_preface: is_client,
        }
    }

    /// Adds bytes. Returns the notation of each complete frame.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut lines = Vec::new();
        if self.skips_preface && self.bytes.len() >= PREFACE.len() {
            assert_eq!(&self.bytes[..PREFACE.len()], PREFACE);
            self.bytes.drain(..PREFACE.len());
            self.skips_preface = false;
            lines.push("PREFACE".into());
        }
        while self.bytes.len() >= 9 {
            let len = u32::from_be_bytes([0, self.bytes[0], self.bytes[1], self.bytes[2]]) as usize;
            if self.bytes.len() < 9 + len {
                break;
            }
            let frame: Vec<u8> = self.bytes.drain(..9 + len).collect();
            lines.push(self.show_frame(&frame));
        }
        lines
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.bytes.is_empty()
    }

    fn show_frame(&mut self, bytes: &[u8]) -> String {
        let (kind, flags) = (bytes[3], bytes[4]);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (stream, payload) = (number(5), &bytes[9..]);
        let end = if flags & 1 != 0 { " end" } else { "" };
        match kind {
            0 if payload.is_empty() => format!("DATA {stream}{end}"),
            0 => format!("DATA {stream}{end} | {}", show(payload)),
            1 | 9 => {
                let name = if kind == 1 { "HEADERS" } else { "CONTINUATION" };
                self.block.extend_from_slice(payload);
                if flags & 4 == 0 {
                    return format!("{name} {stream}{end} more");
                }
                format!("{name} {stream}{end}{}", self.show_block())
            }
            3 => format!("RST_STREAM {stream} {}", ErrorCode(number(9))),
            4 if flags == 1 => "SETTINGS ack".into(),
            4 => {
                let pairs = payload.chunks(6).map(|pair| {
                    let id = u16::from_be_bytes([pair[0], pair[1]]);
                    let value = u32::from_be_bytes(pair[2..].try_into().unwrap());
                    let name = SETTINGS.iter().find(|(_, known)| *known == id).unwrap().0;
                    format!(" {name}={value}")
                });
                format!("SETTINGS{}", pairs.collect::<String>())
            }
            6 => {
                let ack = if flags == 1 { " ack" } else { "" };
                format!("PING {}{ack}", show(payload))
            }
            7 => format!("GOAWAY {} {}", number(9), ErrorCode(number(13))),
            8 => format!("WINDOW_UPDATE {stream} {}", number(9)),
            _ => panic!("frame {kind} was sent"),
        }
    }

    fn show_block(&mut self) -> String {
        let (mut text, mut line) = (Vec::new(), String::new());
        let block = std::mem::take(&mut self.block);
        self.decoder
            .decode(&block, &mut text, 1 << 20, |text, field| {
                assert!(field.is_valid, "sent fields are valid");
                let (name, value) = (field.name.get(text), field.value.get(text));
                line.push_str(&format!(" | {}: {}", show(name), show(value)));
                Ok::<(), ()>(())
            })
            .expect("sent blocks can be decoded");
        line
    }
}
