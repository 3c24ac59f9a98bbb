//! HTTP/2 frames that the test composes byte by byte, and a bystander: a well-behaved client on the same core.
//!
//! Nothing here uses Weir's own frames or HPACK coder. Fields are sent as literals, and of answers only the parts that
//! a test looks for are parsed.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::e2e::{DEADLINE, Weir, eventually};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const PRIORITY_UPDATE: u8 = 16;

/// END_STREAM. On SETTINGS and PING the same bit is ACK.
pub const END: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const SETTINGS_TIMEOUT: u32 = 4;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Encodes a frame whose payload is one number: RST_STREAM or WINDOW_UPDATE.
pub fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, 0, stream, &number.to_be_bytes())
}

/// Encodes a SETTINGS frame.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// Encodes a field block of literals that enter no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

fn length(block: &mut Vec<u8>, len: usize) {
    if len < 127 {
        return block.push(len as u8);
    }
    block.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// Encodes the field block of a request, with further fields.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "weir.test"),
        (":path", path),
    ];
    block(&[&pseudo, fields].concat())
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The 32-bit number at the byte `at` of the payload.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END != 0
    }
}

/// An HTTP/2 client that sends any bytes.
pub struct Peer {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    /// Connects and sends nothing yet.
    pub fn silent(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// Connects with a small receive buffer and sends nothing yet.
    pub fn narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::new(socket.into())
    }

    fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    /// Connects and sends the preface and these settings.
    pub fn with(address: SocketAddr, of: &[(u16, u32)]) -> Self {
        Self::silent(address).start_http2(of)
    }

    /// Sends the preface, these settings and the acknowledgement of the server's.
    pub fn start_http2(mut self, of: &[(u16, u32)]) -> Self {
        self.send([PREFACE, &settings(of)].concat());
        self.send(frame(SETTINGS, END, 0, &[]));
        self
    }

    pub fn to(weir: &Weir) -> Self {
        Self::with(weir.address, &[])
    }

    /// Sends all bytes. Returns false if the peer has closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends what `what` makes of the stream ids 1, 3, 5 and so on, `count` times or until the peer has closed the
    /// connection.
    pub fn flood(&mut self, count: u32, mut what: impl FnMut(u32) -> Vec<u8>) {
        let mut all = (0..count).map(|n| what(2 * n + 1));
        loop {
            let some: Vec<u8> = all.by_ref().take(64).flatten().collect();
            if some.is_empty() || !self.send(some) {
                return;
            }
        }
    }

    /// Sends a request without a body.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(frame(
            HEADERS,
            END | END_HEADERS,
            stream,
            &request("GET", path, &[]),
        ));
    }

    /// Reads the next frame; `None` at the end of the connection.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        let head: Vec<u8> = self.take(9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.take(len)?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// Reads frames until `wanted` returns a value; `None` at the end of the connection.
    #[track_caller]
    pub fn find<T>(&mut self, mut wanted: impl FnMut(&Frame) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(&self.next()?) {
                return Some(found);
            }
        }
    }

    /// Reads the answer on a stream: whether its status is 200, and its body. `None` if it does not come whole.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> Option<(bool, Vec<u8>)> {
        let (mut is_ok, mut body) = (false, Vec::new());
        self.find(|frame| {
            if frame.kind == GOAWAY || (frame.stream == stream && frame.kind == RST_STREAM) {
                return Some(false);
            }
            if frame.stream != stream {
                return None;
            }
            match frame.kind {
                // HPACK encodes `:status: 200` as this one byte.
                HEADERS if body.is_empty() && !is_ok => is_ok = frame.payload.contains(&0x88),
                DATA => body.extend(&frame.payload),
                _ => {}
            }
            frame.ends().then_some(true)
        })
        .filter(|&whole| whole)
        .map(|_| (is_ok, body))
    }

    /// Reads to the end of the connection. Returns the code of the last GOAWAY, if there was one.
    #[track_caller]
    pub fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.number(4));
            }
        }
        code
    }

    /// Reads to the end of the connection, ignoring what comes.
    #[track_caller]
    pub fn until_end(&mut self) {
        while self.fill() {}
    }

    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(n) => {
                self.unread.extend_from_slice(&bytes[..n]);
                n > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.unread.len() < n {
            if !self.fill() {
                return None;
            }
        }
        let rest = self.unread.split_off(n);
        Some(std::mem::replace(&mut self.unread, rest))
    }
}

/// A client that requests `/good` repeatedly, over HTTP/2 and HTTP/1.1 in turn, and records the process's memory after
/// each answer.
pub struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    leaves: AtomicBool,
    answers: AtomicUsize,
    resident: AtomicU64,
}

impl Bystander {
    pub fn of(weir: &Arc<Weir>) -> Self {
        let shared = Arc::<Shared>::default();
        let (weir, state) = (weir.clone(), shared.clone());
        let thread = spawn(move || {
            let (mut newer, mut older) = (Peer::to(&weir), weir.connect());
            for stream in (1..).step_by(2) {
                newer.get(stream, "/good");
                newer.send(number(WINDOW_UPDATE, 0, 4));
                assert_eq!(newer.answer(stream), Some((true, b"good".to_vec())));
                older.send("GET /good HTTP/1.1\r\nHost: weir.test\r\n\r\n");
                assert_eq!(older.response().text(), "good");
                state.answers.fetch_add(1, Ordering::Relaxed);
                state
                    .resident
                    .fetch_max(weir.resident_bytes(), Ordering::Relaxed);
                if state.leaves.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Waits for ten more correct answers.
    #[track_caller]
    pub fn expect_more_answers(&self) {
        let before = self.shared.answers.load(Ordering::Relaxed);
        let thread = self.thread.as_ref().unwrap();
        eventually("answers to the bystander", || {
            let now = self.shared.answers.load(Ordering::Relaxed);
            assert!(!thread.is_finished(), "the bystander got no answer");
            (now >= before + 10).then_some(())
        });
    }

    /// The largest resident memory that the process had between answers.
    pub fn resident_max(&self) -> u64 {
        self.shared.resident.load(Ordering::Relaxed)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.leaves.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(joined, Some(Ok(()))),
            "the bystander got no answer"
        );
    }
}

/// Sleeps 20 ms, so that Weir receives what was sent in a read of its own. Correctness does not depend on it.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
