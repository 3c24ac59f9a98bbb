//! A connection of which a test decides every byte.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::DEADLINE;
use super::message::Message;

/// One side of a connection. Reading and writing panic on errors and when [`DEADLINE`] passes; what may fail has a
/// name of its own.
pub struct Conn {
    socket: Socket,
    unread: Vec<u8>,
}

/// How the peer ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In an orderly way.
    Closed,
    /// By a reset.
    Reset,
}

impl Conn {
    /// Connects.
    pub fn to(address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into(), |_| {})
    }

    /// Connects, if somebody listens.
    pub fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        std::net::TcpStream::connect(address).map(|stream| Self::new(stream.into()))
    }

    /// Connects with a receive buffer as small as the kernel allows: a reader that stops is felt at once.
    pub fn narrow(address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into(), |socket| {
            socket.set_recv_buffer_size(4096).unwrap()
        })
    }

    /// Connects from a local address.
    pub fn from_to(local: SocketAddr, address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into(), |socket| {
            socket.bind(&local.into()).unwrap()
        })
    }

    /// Connects to a Unix socket.
    pub fn to_unix(path: &Path) -> Self {
        Self::connect(Domain::UNIX, &SockAddr::unix(path).unwrap(), |_| {})
    }

    fn connect(domain: Domain, address: &SockAddr, prepare: impl FnOnce(&Socket)) -> Self {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        prepare(&socket);
        socket.connect(address).expect("somebody listens");
        Self::new(socket)
    }

    /// Takes an open socket.
    pub fn new(socket: Socket) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        // Unix sockets have no such thing.
        let _ = socket.set_tcp_nodelay(true);
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    /// Sends all of it.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes bytes");
    }

    /// Sends all of it, if the peer takes it.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        (&self.socket).write_all(bytes.as_ref())
    }

    /// Sends it and closes the sending direction, both in one segment.
    #[track_caller]
    pub fn send_last(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let sent = self.socket.send_with_flags(bytes, MSG_MORE);
        assert_eq!(sent.expect("the peer takes bytes"), bytes.len());
        self.finish();
    }

    /// Sends it in pieces of `size` bytes, each in a segment of its own.
    #[track_caller]
    pub fn send_split(&self, bytes: impl AsRef<[u8]>, size: usize) {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece);
        }
    }

    /// Sends zeros until the peer has taken none for `patience`, or `limit` are sent. Returns how many.
    pub fn send_until_stuck(&self, limit: usize, patience: Duration) -> usize {
        self.socket.set_write_timeout(Some(patience)).unwrap();
        let (zeros, mut sent) = ([0; 16 * 1024], 0);
        while sent < limit {
            match (&self.socket).write(&zeros[..zeros.len().min(limit - sent)]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        self.socket.set_write_timeout(Some(DEADLINE)).unwrap();
        sent
    }

    /// Sends all of it unless the peer takes nothing for `patience`; says whether all was taken.
    pub fn send_while_taken(&self, bytes: &str, patience: Duration) -> bool {
        self.socket.set_write_timeout(Some(patience)).unwrap();
        (&self.socket).write_all(bytes.as_bytes()).is_ok()
    }

    /// Sends the piece again and again, a pause between, until the peer answers or closes.
    #[track_caller]
    pub fn trickle(&self, piece: &str, pause: Duration) {
        super::eventually("news from the peer", || {
            if self.has_news() {
                return Some(());
            }
            // It may have closed just now: that is news, too.
            let _ = self.try_send(piece);
            std::thread::sleep(pause);
            None
        });
    }

    /// Closes the sending direction.
    pub fn finish(&self) {
        // The peer may have reset the connection.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Breaks the connection off by a reset. Nothing can be done with it afterwards.
    pub fn reset_now(&mut self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
        self.socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    }

    /// The next request.
    #[track_caller]
    pub fn request(&mut self) -> Message {
        self.next_request().expect("a request comes")
    }

    /// The next request, or `None` when the connection ends before it begins.
    #[track_caller]
    pub fn next_request(&mut self) -> Option<Message> {
        if self.unread.is_empty() && self.fill().is_err() {
            return None;
        }
        let mut request = self.message_head();
        request.read_body(self, false);
        Some(request)
    }

    /// The next response, or `None` when the connection ends before it begins.
    #[track_caller]
    pub fn next_response(&mut self) -> Option<Message> {
        if self.unread.is_empty() && self.fill().is_err() {
            return None;
        }
        Some(self.response())
    }

    /// The next response, to a request that was no HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        let mut response = self.message_head();
        response.read_body(self, true);
        response
    }

    /// The head of the next message; its body, if any, is still to come.
    #[track_caller]
    pub fn message_head(&mut self) -> Message {
        Message::parse(&self.head())
    }

    /// The text of the next head, the empty line included.
    #[track_caller]
    pub fn head(&mut self) -> String {
        let end = self.find(b"\r\n\r\n");
        String::from_utf8(self.take(end + 4)).expect("heads here are text")
    }

    /// The next line, without its CRLF.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let end = self.find(b"\r\n");
        let line = self.take(end);
        self.take(2);
        String::from_utf8(line).expect("lines here are text")
    }

    /// The next `n` bytes.
    #[track_caller]
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.unread.len() < n {
            let so_far = self.unread.len();
            if let Err(end) = self.fill() {
                panic!(
                    "{n} bytes expected, {end:?} after {so_far}: {}",
                    self.shown()
                );
            }
        }
        let rest = self.unread.split_off(n);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Expects exactly these bytes next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.take(bytes.len());
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(bytes)
        );
    }

    /// All that comes until the end, and how it ended.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            if let Err(end) = self.fill() {
                break end;
            }
        };
        (std::mem::take(&mut self.unread), end)
    }

    /// Waits for anything at all; says whether it was bytes.
    pub fn wait_for_bytes(&mut self) -> bool {
        !self.unread.is_empty() || self.fill().is_ok()
    }

    /// Expects an orderly end with nothing before it.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let (rest, end) = self.rest();
        assert_eq!(
            (String::from_utf8_lossy(&rest).as_ref(), end),
            ("", End::Closed)
        );
    }

    /// Expects the connection to end one way or the other, with nothing before it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let (rest, _) = self.rest();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Whether the peer has closed or sent something by now; takes nothing and does not wait.
    pub fn has_news(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&self.socket).recv_with_flags(&mut byte, MSG_PEEK_DONTWAIT);
        !self.unread.is_empty() || !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Where this side is.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Another handle to the same connection, to send while the first one receives. What was received and not yet
    /// taken stays with the first.
    pub fn sender(&self) -> Self {
        Self::new(self.socket.try_clone().unwrap())
    }

    #[track_caller]
    fn find(&mut self, pattern: &[u8]) -> usize {
        loop {
            let found = self
                .unread
                .windows(pattern.len())
                .position(|window| window == pattern);
            if let Some(at) = found {
                return at;
            }
            if let Err(end) = self.fill() {
                panic!(
                    "{end:?} before {:?}: {}",
                    String::from_utf8_lossy(pattern),
                    self.shown()
                );
            }
        }
    }

    /// Receives some bytes more.
    #[track_caller]
    fn fill(&mut self) -> Result<(), End> {
        let mut bytes = [0; 64 * 1024];
        // A machine that is suspended for a moment interrupts whoever waits.
        let interrupted = |error: &std::io::Error| error.kind() == ErrorKind::Interrupted;
        let received = loop {
            match (&self.socket).read(&mut bytes) {
                Err(error) if interrupted(&error) => {}
                received => break received,
            }
        };
        match received {
            Ok(0) => Err(End::Closed),
            Ok(n) => {
                self.unread.extend_from_slice(&bytes[..n]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(End::Reset),
            Err(error) => panic!("{error} after {:?}", self.shown()),
        }
    }

    fn shown(&self) -> String {
        let end = self.unread.len().min(2000);
        String::from_utf8_lossy(&self.unread[..end]).into_owned()
    }
}

/// As Linux has it: more will follow, so wait with the segment.
const MSG_MORE: i32 = 0x8000;

/// `MSG_PEEK | MSG_DONTWAIT` as Linux has them.
const MSG_PEEK_DONTWAIT: i32 = 0x2 | 0x40;
