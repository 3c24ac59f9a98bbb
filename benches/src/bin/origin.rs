//! A minimal HTTP/1.1 endpoint: one receive and one send for each small request.
//!
//! A path that ends in `/b/<bytes>` gets a body of that many bytes, one that ends in `/t/<bytes>` as
//! many bytes of text, and every other path the default size. The endpoint reads uploads to their end and keeps connections open. It must cost clearly less than
//! any proxy before it, so it has no logs, counters or timeouts.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;

use rustix::io::Errno;
use weir_benches::http::{Chunks, Framing, Head};
use weir_benches::net::{self, Address, EventFlags, Poll, Transfer};

const HELP: &str = "\
origin: a minimal HTTP/1.1 endpoint for load tests

usage: origin [--listen ADDRESS] [--bytes N] [--close] [--threads N]

  --listen ADDRESS   ip:port or unix:/path (127.0.0.1:9000)
  --bytes N          body size for paths other than .../b/<bytes> and .../t/<bytes> (1024)
  --close            close every connection after its first response
  --threads N        threads with a listening socket each; the kernel spreads connections (1)
";

/// The part of a body that is stored with its head and sent together with it.
const FIRST_BYTES_MAX: u64 = 64 * 1024;
/// The block that longer bodies are sent from and uploads are discarded into.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The number of body sizes whose responses are cached.
const RESPONSES_MAX: usize = 64;
/// A longer request head ends the connection.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const LISTENER: u64 = u64::MAX;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{HELP}");
        return Ok(());
    }
    let listen = args
        .opt_value_from_str("--listen")?
        .unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let default_bytes = args.opt_value_from_str("--bytes")?.unwrap_or(1024);
    let close = args.contains("--close");
    let threads = args.opt_value_from_str("--threads")?.unwrap_or(1).max(1);
    if let Some(extra) = args.finish().first() {
        return Err(format!("unknown argument {}", extra.to_string_lossy()).into());
    }
    let mut address = Address::parse(&listen)?;
    let _ = net::raise_open_files();
    let shares_port = threads > 1;
    let mut listeners = Vec::new();
    for _ in 0..threads {
        let listener = address
            .listen(shares_port)
            .map_err(|error| format!("{address}: {error}"))?;
        // If the kernel chose the port, all threads have the same one.
        address = Address::parse(&net::local_address(&listener)?)?;
        listeners.push(listener);
    }
    println!("origin: listening on {address}");
    let (sender, ends) = mpsc::channel();
    for listener in listeners {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let end =
                Origin::new(default_bytes, close).and_then(|mut origin| origin.run(&listener));
            let _ = sender.send(end);
        });
    }
    drop(sender);
    // A thread ends only by an error, which ends the process.
    Ok(ends.recv()??)
}

/// The state of the thread. A connection is identified by its index in `slots`.
struct Origin {
    poll: Poll,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    responses: Responses,
    block: Vec<u8>,
}

impl Origin {
    fn new(default_bytes: u64, close: bool) -> Result<Self, Errno> {
        Ok(Self {
            poll: Poll::new()?,
            slots: Vec::new(),
            free: Vec::new(),
            responses: Responses {
                ready: HashMap::new(),
                default_bytes,
                close,
            },
            block: vec![b'x'; BLOCK_BYTES],
        })
    }

    fn run(&mut self, listener: &OwnedFd) -> Result<(), Errno> {
        self.poll.add_listener(listener, LISTENER)?;
        loop {
            let events = std::mem::take(self.poll.wait(None)?);
            // Slots that become free in this batch are not reused before the next, because later
            // events of the batch still mean the old connection.
            let mut ended = Vec::new();
            let mut accepts = false;
            for event in &events {
                let key = event.data.u64();
                if key == LISTENER {
                    accepts = true;
                    continue;
                }
                let index = key as usize;
                let Some(Some(connection)) = self.slots.get_mut(index) else {
                    continue;
                };
                if !connection.drive(event.flags, &mut self.responses, &mut self.block) {
                    self.slots[index] = None;
                    ended.push(index);
                }
            }
            self.free.append(&mut ended);
            self.poll.reuse(events);
            if accepts {
                self.accept(listener)?;
            }
        }
    }

    fn accept(&mut self, listener: &OwnedFd) -> Result<(), Errno> {
        while let Some(fd) = net::accept(listener)? {
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            self.poll.add(&fd, index as u64)?;
            self.slots[index] = Some(Connection::new(fd));
        }
        Ok(())
    }
}

struct Connection {
    fd: OwnedFd,
    readable: bool,
    /// An incomplete head, or pipelined requests.
    unparsed: Vec<u8>,
    upload: Upload,
    output: Option<Output>,
    closes: bool,
}

enum Upload {
    None,
    Length { left: u64 },
    Chunked(Chunks),
}

struct Output {
    first: Rc<[u8]>,
    sent: usize,
    /// Body bytes that follow `first`.
    left: u64,
}

impl Connection {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            readable: true,
            unparsed: Vec::new(),
            upload: Upload::None,
            output: None,
            closes: false,
        }
    }

    /// Makes all possible progress. Returns false when the connection is over.
    fn drive(&mut self, flags: EventFlags, responses: &mut Responses, block: &mut [u8]) -> bool {
        self.readable |= flags
            .intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        loop {
            match self.flush(block) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
            if !self.unparsed.is_empty() {
                let unparsed = std::mem::take(&mut self.unparsed);
                match self.receive(&unparsed, responses) {
                    None => return false,
                    Some(taken) => self
                        .unparsed
                        .extend_from_slice(unparsed.get(taken..).unwrap_or_default()),
                }
                if self.output.is_some() {
                    continue;
                }
            }
            if !self.readable {
                return true;
            }
            if !self.read(responses, block) {
                return false;
            }
        }
    }

    fn read(&mut self, responses: &mut Responses, block: &mut [u8]) -> bool {
        if let Upload::Length { left } = self.upload {
            let room = left.min(block.len() as u64) as usize;
            return match net::discard(&self.fd, &mut block[..room]) {
                Ok(Transfer::Bytes(bytes)) => {
                    self.upload = Upload::Length {
                        left: left - bytes as u64,
                    };
                    if left == bytes as u64 {
                        self.upload = Upload::None;
                    }
                    true
                }
                Ok(Transfer::WouldBlock) => {
                    self.readable = false;
                    true
                }
                Ok(Transfer::Closed) | Err(_) => false,
            };
        }
        let mut buffer = [0; 16 * 1024];
        match net::receive(&self.fd, &mut buffer) {
            Ok(Transfer::Bytes(bytes)) => {
                // A short read has emptied the socket, so another edge will follow.
                self.readable = bytes == buffer.len();
                if !self.unparsed.is_empty() {
                    self.unparsed.extend_from_slice(&buffer[..bytes]);
                    return self.unparsed.len() <= HEAD_BYTES_MAX;
                }
                let Some(taken) = self.receive(&buffer[..bytes], responses) else {
                    return false;
                };
                self.unparsed.extend_from_slice(&buffer[taken..bytes]);
                true
            }
            Ok(Transfer::WouldBlock) => {
                self.readable = false;
                true
            }
            Ok(Transfer::Closed) | Err(_) => false,
        }
    }

    /// Parses one request, or part of its body. Returns the number of consumed bytes.
    fn receive(&mut self, bytes: &[u8], responses: &mut Responses) -> Option<usize> {
        match &mut self.upload {
            Upload::None => {}
            Upload::Length { left } => {
                let here = (*left).min(bytes.len() as u64);
                *left -= here;
                if *left == 0 {
                    self.upload = Upload::None;
                }
                return Some(here as usize);
            }
            Upload::Chunked(chunks) => {
                let (taken, ended) = chunks.receive(bytes).ok()?;
                if ended {
                    self.upload = Upload::None;
                }
                return Some(taken);
            }
        }
        let Some(head) = Head::find(bytes) else {
            return Some(0);
        };
        self.closes |= head.close || responses.close;
        self.upload = match head.request_framing() {
            Framing::Length(0) | Framing::UntilClose => Upload::None,
            Framing::Length(left) => Upload::Length { left },
            Framing::Chunked => Upload::Chunked(Chunks::default()),
        };
        // The response is queued now. `flush` sends it when the upload has been read.
        self.output = Some(responses.find(&head)?);
        if head.expect_continue {
            net::send(&self.fd, b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        Some(head.bytes)
    }

    /// Sends the queued response. Returns true if it is sent, or if the upload must be read first.
    fn flush(&mut self, block: &[u8]) -> Result<bool, Errno> {
        if !matches!(self.upload, Upload::None) {
            return Ok(true);
        }
        let Some(output) = &mut self.output else {
            return Ok(true);
        };
        while let Some(bytes) = output.next(block) {
            match net::send(&self.fd, bytes)? {
                Transfer::Bytes(sent) => output.advance(sent),
                Transfer::WouldBlock | Transfer::Closed => return Ok(false),
            }
        }
        self.output = None;
        if self.closes {
            return Err(Errno::PIPE);
        }
        Ok(true)
    }
}

impl Output {
    fn next<'a>(&'a self, block: &'a [u8]) -> Option<&'a [u8]> {
        match self.first.get(self.sent..) {
            Some(rest) if !rest.is_empty() => Some(rest),
            _ if self.left == 0 => None,
            _ => block.get(..self.left.min(block.len() as u64) as usize),
        }
    }

    fn advance(&mut self, sent: usize) {
        if self.sent < self.first.len() {
            self.sent += sent;
        } else {
            self.left -= sent as u64;
        }
    }
}

struct Responses {
    /// By length, and whether they are text.
    ready: HashMap<(u64, bool), Rc<[u8]>>,
    default_bytes: u64,
    close: bool,
}

impl Responses {
    fn find(&mut self, head: &Head<'_>) -> Option<Output> {
        let (method, target) = head.request()?;
        let (is_text, bytes) = match split_target(target) {
            Some((is_text, number)) => (is_text, std::str::from_utf8(number).ok()?.parse().ok()?),
            None => (false, self.default_bytes),
        };
        if method == b"HEAD" {
            return Some(Output {
                first: response(bytes, 0, is_text, self.close),
                sent: 0,
                left: 0,
            });
        }
        let first_body = bytes.min(FIRST_BYTES_MAX);
        let first = match self.ready.get(&(bytes, is_text)) {
            Some(first) => Rc::clone(first),
            None => {
                let first = response(bytes, first_body, is_text, self.close);
                if self.ready.len() < RESPONSES_MAX {
                    self.ready.insert((bytes, is_text), Rc::clone(&first));
                }
                first
            }
        };
        Some(Output {
            first,
            sent: 0,
            left: bytes - first_body,
        })
    }
}

/// A head that announces `length` bytes, followed by the first `body` of them.
fn response(length: u64, body: u64, is_text: bool, close: bool) -> Rc<[u8]> {
    let media = if is_text {
        "text/plain"
    } else {
        "application/octet-stream"
    };
    let connection = if close { "Connection: close\r\n" } else { "" };
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: {media}\r\n{connection}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    match is_text {
        true => bytes.extend(text().take(body as usize)),
        false => bytes.resize(bytes.len() + body as usize, b'x'),
    }
    bytes.into()
}

/// Splits a target that names a kind of body and its length. Returns whether the body is text, and the length.
fn split_target(target: &[u8]) -> Option<(bool, &[u8])> {
    let slash = target.iter().rposition(|&byte| byte == b'/')?;
    let (rest, number) = (target.get(..slash)?, target.get(slash + 1..)?);
    match rest.last_chunk()? {
        b"/b" => Some((false, number)),
        b"/t" => Some((true, number)),
        _ => None,
    }
}

/// Endless text that compresses about as well as prose: words in an order that only looks random.
fn text() -> impl Iterator<Item = u8> {
    const WORDS: &str = "the a proxy river water gate of to and level stream flows over under stone light order \
        answer request header token method number second limit open closed left right table first last";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 1_u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        words[(state >> 16) as usize % words.len()]
    })
    .flat_map(|word| word.bytes().chain([b' ']))
}
