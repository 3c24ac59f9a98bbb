//! A TCP or Unix connection on which the test chooses every byte.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::DEADLINE;
use super::message::Message;

/// One side of a connection. Reading and writing panic on errors and after [`DEADLINE`], except for the methods that
/// return a `Result`.
pub struct Conn {
    socket: Socket,
    unread: Vec<u8>,
}

/// How the peer ended its sending direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By an orderly close.
    Closed,
    /// By a reset.
    Reset,
}

impl Conn {
    /// Connects to `address`.
    pub fn to(address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into(), |_| {})
    }

    /// Connects, or returns the error of the connect.
    pub fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        std::net::TcpStream::connect(address).map(|stream| Self::new(stream.into()))
    }

    /// Connects with the smallest receive buffer that the kernel allows, so that the peer soon notices when the test
    /// stops reading.
    pub fn narrow(address: SocketAddr) -> Self {
        Self::connect(Domain::for_address(address), &address.into(), |socket| {
            socket.set_recv_buffer_size(4096).unwrap()
        })
    }

    /// Connects to `address` from the address `local`.
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
        socket.connect(address).expect("connect");
        Self::new(socket)
    }

    /// Wraps an open socket.
    pub fn new(socket: Socket) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        // Fails on Unix sockets, which have no such option.
        let _ = socket.set_tcp_nodelay(true);
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send");
    }

    /// Sends all bytes, or returns the error.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        (&self.socket).write_all(bytes.as_ref())
    }

    /// Sends all bytes and closes the sending direction, in one segment.
    #[track_caller]
    pub fn send_last(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let sent = self.socket.send_with_flags(bytes, MSG_MORE);
        assert_eq!(sent.expect("send"), bytes.len());
        self.finish();
    }

    /// Sends the bytes in pieces of `size`, each in its own segment.
    #[track_caller]
    pub fn send_split(&self, bytes: impl AsRef<[u8]>, size: usize) {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece);
        }
    }

    /// Sends zeros until the peer has taken none for `patience`, or until `limit` bytes are sent. Returns the number of
    /// bytes sent.
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

    /// Sends all bytes unless the peer takes none for `patience`. Returns whether the peer took all of them.
    pub fn send_while_taken(&self, bytes: &str, patience: Duration) -> bool {
        self.socket.set_write_timeout(Some(patience)).unwrap();
        (&self.socket).write_all(bytes.as_bytes()).is_ok()
    }

    /// Sends `piece` repeatedly, with a pause in between, until the peer answers or closes.
    #[track_caller]
    pub fn trickle(&self, piece: &str, pause: Duration) {
        super::eventually("news from the peer", || {
            if self.is_readable() {
                return Some(());
            }
            // The peer may close between the check and this send; the next check sees it.
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

    /// Resets the connection. The value cannot be used afterwards.
    pub fn reset_now(&mut self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
        self.socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    }

    /// Reads the next request.
    #[track_caller]
    pub fn request(&mut self) -> Message {
        self.next_request()
            .expect("the connection ended before a request")
    }

    /// Reads the next request, or returns `None` if the connection ends first.
    #[track_caller]
    pub fn next_request(&mut self) -> Option<Message> {
        if self.unread.is_empty() && self.fill().is_err() {
            return None;
        }
        let mut request = self.message_head();
        request.read_body(self, false);
        Some(request)
    }

    /// Reads the next response, or returns `None` if the connection ends first.
    #[track_caller]
    pub fn next_response(&mut self) -> Option<Message> {
        if self.unread.is_empty() && self.fill().is_err() {
            return None;
        }
        Some(self.response())
    }

    /// Reads the next response. The request must not have been a HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        let mut response = self.message_head();
        response.read_body(self, true);
        response
    }

    /// Reads the head of the next message and leaves its body unread.
    #[track_caller]
    pub fn message_head(&mut self) -> Message {
        Message::parse(&self.head())
    }

    /// Reads the next head as text, including the empty line.
    #[track_caller]
    pub fn head(&mut self) -> String {
        let end = self.find(b"\r\n\r\n");
        String::from_utf8(self.take(end + 4)).expect("heads here are text")
    }

    /// Reads the next line and strips its CRLF.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let end = self.find(b"\r\n");
        let line = self.take(end);
        self.take(2);
        String::from_utf8(line).expect("lines here are text")
    }

    /// Reads `n` bytes.
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

    /// Asserts that the next bytes are exactly these.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.take(bytes.len());
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(bytes)
        );
    }

    /// Reads to the end. Returns the bytes and how the connection ended.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            if let Err(end) = self.fill() {
                break end;
            }
        };
        (std::mem::take(&mut self.unread), end)
    }

    /// Waits until bytes arrive or the connection ends. Returns true for bytes.
    pub fn wait_for_bytes(&mut self) -> bool {
        !self.unread.is_empty() || self.fill().is_ok()
    }

    /// Asserts that the peer closes in an orderly way and sends nothing before.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let (rest, end) = self.rest();
        assert_eq!(
            (String::from_utf8_lossy(&rest).as_ref(), end),
            ("", End::Closed)
        );
    }

    /// Asserts that the connection ends, by close or reset, with nothing before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let (rest, _) = self.rest();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Whether a read would return at once: the peer has sent something or closed. Consumes nothing.
    pub fn is_readable(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&self.socket).recv_with_flags(&mut byte, MSG_PEEK_DONTWAIT);
        !self.unread.is_empty() || !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// The local address.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// A second handle to the same connection, so that one thread can send while another receives. Bytes that were
    /// received and not yet read stay with the first handle.
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

    /// Receives more bytes into `unread`.
    #[track_caller]
    fn fill(&mut self) -> Result<(), End> {
        let mut bytes = [0; 64 * 1024];
        // A signal interrupts the read when the machine resumes from suspension.
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

/// Linux's `MSG_MORE`: the kernel holds the segment back because more bytes follow.
const MSG_MORE: i32 = 0x8000;

/// Linux's `MSG_PEEK | MSG_DONTWAIT`.
const MSG_PEEK_DONTWAIT: i32 = 0x2 | 0x40;
