//! Exchanges sent part by part, in either protocol and on either side, for tests about the order and timing of the
//! parts.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use weir::io::sim::{Peer, Sim};
use weir::io::{Address, Instant, Net};

/// The HTTP version on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Every pairing of a client's and an endpoint's protocol.
pub const PAIRS: [(Protocol, Protocol); 4] = [
    (Protocol::Http1, Protocol::Http1),
    (Protocol::Http1, Protocol::Http2),
    (Protocol::Http2, Protocol::Http1),
    (Protocol::Http2, Protocol::Http2),
];

/// An HTTP/2 frame.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// The field `:status` as a literal.
pub fn status_block(status: u16) -> Vec<u8> {
    [&[8, 3], status.to_string().as_bytes()].concat()
}

/// What the other side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireEvent {
    /// A head: 0 for a request, else the status. 1 stands for a status whose HTTP/2 encoding is not decoded here.
    Head(u16),
    /// A part of a body.
    Data(Vec<u8>),
    /// The end of the message.
    End,
    /// The other side reset the stream or ended the connection.
    Gone,
    /// Nothing came in time.
    Nothing,
}

/// One side of a connection that carries one exchange.
pub struct ScriptedExchange {
    pub peer: Peer<Sim>,
    speaks: Protocol,
    is_client: bool,
    unread: Vec<u8>,
    has_head: bool,
    has_ended: bool,
    /// The last data frame carried END_STREAM, so the next event is `End`.
    ends_next: bool,
    /// Whether this side reopens its flow control windows.
    pub opens_windows: bool,
}

impl ScriptedExchange {
    pub fn new(peer: Peer<Sim>, speaks: Protocol, is_client: bool) -> Self {
        let mut wire = Self {
            peer,
            speaks,
            is_client,
            unread: Vec::new(),
            has_head: false,
            has_ended: false,
            ends_next: false,
            opens_windows: true,
        };
        if speaks == Protocol::Http2 {
            if is_client {
                wire.peer.write(PREFACE);
            }
            wire.peer.write(&frame(SETTINGS, 0, 0, &[]));
        }
        wire
    }

    pub async fn connect(net: &Sim, to: &Address, speaks: Protocol) -> Self {
        let peer = Peer::connect(net, to).await.expect("connect");
        Self::new(peer, speaks, true)
    }

    /// Sends the head of a POST with a body of unknown length.
    pub fn ask(&mut self) {
        self.ask_with("", b"");
    }

    /// Sends the head of a gRPC call.
    pub fn ask_call(&mut self) {
        self.ask_with(
            "Content-Type: application/grpc\r\nTE: trailers\r\n",
            b"\x0f\x10\x10application/grpc\x00\x02te\x08trailers",
        );
    }

    /// Sends the head of a POST that expects 100 Continue.
    pub fn ask_with_expect(&mut self) {
        self.ask_with("Expect: 100-continue\r\n", b"\x0f\x14\x0c100-continue");
    }

    fn ask_with(&mut self, fields: &str, block: &[u8]) {
        match self.speaks {
            Protocol::Http1 => self.peer.write(
                format!(
                    "POST / HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n{fields}\r\n"
                )
                .as_bytes(),
            ),
            // POST, http, /, and the authority.
            Protocol::Http2 => {
                let block = [b"\x83\x86\x84\x01\x03sim", block].concat();
                self.peer.write(&frame(HEADERS, END_HEADERS, 1, &block));
            }
        }
    }

    /// Sends the head of an answer, which may be an interim one.
    pub fn answer(&mut self, status: u16) {
        match self.speaks {
            Protocol::Http1 => {
                let framing = match status {
                    100..=199 => "",
                    _ => "Transfer-Encoding: chunked\r\n",
                };
                let head = format!("HTTP/1.1 {status} x\r\n{framing}\r\n");
                self.peer.write(head.as_bytes());
            }
            Protocol::Http2 => {
                let head = frame(HEADERS, END_HEADERS, 1, &status_block(status));
                self.peer.write(&head);
            }
        }
    }

    /// Sends a part of the body.
    pub fn say(&mut self, data: &[u8]) {
        match self.speaks {
            Protocol::Http1 => {
                self.peer.write(format!("{:x}\r\n", data.len()).as_bytes());
                self.peer.write(data);
                self.peer.write(b"\r\n");
            }
            Protocol::Http2 => self.peer.write(&frame(DATA, 0, 1, data)),
        }
    }

    /// Ends the message.
    pub fn end(&mut self) {
        match self.speaks {
            Protocol::Http1 => self.peer.write(b"0\r\n\r\n"),
            Protocol::Http2 => self.peer.write(&frame(DATA, END_STREAM, 1, &[])),
        }
    }

    /// Sends what was written and waits until `until`, without reading.
    pub async fn wait(&mut self, until: Instant) {
        let net = self.peer.net().clone();
        let mut sleep = pin!(net.sleep_until(until));
        poll_fn(|cx| {
            let _ = weir::io::Tx::poll_send(&mut self.peer.tx, cx);
            sleep.as_mut().poll(cx)
        })
        .await;
    }

    /// Waits until `until` and discards what the other side sends.
    pub async fn pass(&mut self, until: Instant) {
        while !matches!(self.hear(until).await, WireEvent::Nothing | WireEvent::Gone) {}
    }

    /// Reads the next event, or `Nothing` if none comes before `until`.
    pub async fn hear(&mut self, until: Instant) -> WireEvent {
        if std::mem::take(&mut self.ends_next) {
            return WireEvent::End;
        }
        loop {
            let heard = match self.speaks {
                Protocol::Http1 => self.parse(),
                Protocol::Http2 => self.next_frame().and_then(|frame| self.read(frame)),
            };
            if let Some(heard) = heard {
                return heard;
            }
            if self.speaks == Protocol::Http2 && self.has_frame() {
                continue;
            }
            match self.more(until).await {
                Some(true) => {}
                Some(false) => return WireEvent::Gone,
                None => return WireEvent::Nothing,
            }
        }
    }

    /// Reads the next frame of any kind. `Err`: the connection has ended. `Ok(None)`: none came before `until`.
    pub async fn hear_frame(&mut self, until: Instant) -> Result<Option<Frame>, ()> {
        loop {
            if let Some(frame) = self.next_frame() {
                return Ok(Some(frame));
            }
            match self.more(until).await {
                Some(true) => {}
                Some(false) => return Err(()),
                None => return Ok(None),
            }
        }
    }

    async fn more(&mut self, until: Instant) -> Option<bool> {
        let net = self.peer.net().clone();
        let mut sleep = pin!(net.sleep_until(until));
        let mut came = pin!(self.peer.recv());
        let came = poll_fn(|cx| match came.as_mut().poll(cx) {
            Poll::Ready(came) => Poll::Ready(Some(came)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        });
        match came.await? {
            Ok(Some(bytes)) => {
                self.unread.extend(bytes);
                Some(true)
            }
            Ok(None) | Err(_) => Some(false),
        }
    }

    fn has_frame(&self) -> bool {
        let head = match self.is_client || !self.unread.starts_with(b"PRI") {
            true => &self.unread[..],
            false => &self.unread[PREFACE.len().min(self.unread.len())..],
        };
        head.len() >= 9 && head.len() >= 9 + frame_len(head)
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if !self.is_client && !self.has_head {
            if self.unread.len() < PREFACE.len() {
                return None;
            }
            assert!(self.unread.starts_with(PREFACE));
            self.unread.drain(..PREFACE.len());
            self.has_head = true;
        }
        if !self.has_frame() {
            return None;
        }
        let bytes: Vec<u8> = self.unread.drain(..9 + frame_len(&self.unread)).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let frame = Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream,
            payload: bytes[9..].to_vec(),
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.peer.write(&self::frame(SETTINGS, ACK, 0, &[]));
        }
        Some(frame)
    }

    /// The event that a frame stands for, if any.
    fn read(&mut self, frame: Frame) -> Option<WireEvent> {
        let is_end = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS if self.is_client => {
                // A block may start with an update of the dynamic table's size.
                let mut fields = frame.payload.iter().skip_while(|&&b| b & 0xe0 == 0x20);
                Some(match fields.next() {
                    Some(0x88) => WireEvent::Head(200),
                    _ if is_end => WireEvent::End,
                    _ => WireEvent::Head(1),
                })
            }
            HEADERS => Some(WireEvent::Head(0)),
            DATA if frame.payload.is_empty() && is_end => Some(WireEvent::End),
            DATA => {
                if self.opens_windows {
                    let len = (frame.payload.len() as u32).to_be_bytes();
                    self.peer.write(&self::frame(WINDOW_UPDATE, 0, 0, &len));
                    self.peer.write(&self::frame(WINDOW_UPDATE, 0, 1, &len));
                }
                self.ends_next = is_end;
                Some(WireEvent::Data(frame.payload))
            }
            PING if frame.flags & ACK == 0 => {
                self.peer.write(&self::frame(PING, ACK, 0, &frame.payload));
                None
            }
            RST_STREAM => Some(WireEvent::Gone),
            _ => None,
        }
    }

    /// Parses the next event of HTTP/1.1.
    fn parse(&mut self) -> Option<WireEvent> {
        if self.has_ended {
            return None;
        }
        if !self.has_head {
            let end = position(&self.unread, b"\r\n\r\n")?;
            let head: Vec<u8> = self.unread.drain(..end + 4).collect();
            let head = String::from_utf8(head).expect("heads are ASCII here");
            let status = match self.is_client {
                true => head[9..12].parse().expect("a status"),
                false => 0,
            };
            self.has_head = status == 0 || status >= 200;
            return Some(WireEvent::Head(status));
        }
        let end = position(&self.unread, b"\r\n")?;
        let len = std::str::from_utf8(&self.unread[..end]).expect("a size");
        let len = usize::from_str_radix(len, 16).expect("a size");
        if self.unread.len() < end + 2 + len + 2 {
            return None;
        }
        let chunk: Vec<u8> = self.unread.drain(..end + 2 + len + 2).collect();
        if len == 0 {
            self.has_ended = true;
            return Some(WireEvent::End);
        }
        Some(WireEvent::Data(chunk[end + 2..end + 2 + len].to_vec()))
    }
}

fn frame_len(head: &[u8]) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|part| part == mark)
}
