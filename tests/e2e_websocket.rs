//! WebSockets, started by an HTTP/1.1 upgrade or an HTTP/2 extended CONNECT (RFC 8441), to HTTP/1.1 endpoints on an
//! independent library.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::ext;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};
use tungstenite::protocol::Role;
use tungstenite::{Message as Frame, WebSocket};

use e2e::{Conn, DEADLINE, Endpoint, Weir, ok};
use peers::*;

/// An endpoint that accepts the handshake and echoes.
struct Echo {
    name: String,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    /// Serves `count` connections.
    fn start(count: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let echoes: Vec<_> = (0..count)
                .map(|_| {
                    let (stream, _) = listener.accept().unwrap();
                    std::thread::spawn(move || echo(stream))
                })
                .collect();
            echoes.into_iter().for_each(|echo| echo.join().unwrap());
        });
        Self {
            name,
            thread: Some(thread),
        }
    }

    /// Waits until all connections have ended.
    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

fn echo(stream: std::net::TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut socket = tungstenite::accept(stream).unwrap();
    loop {
        match socket.read() {
            Ok(Frame::Close(_)) => break,
            Ok(frame @ (Frame::Text(_) | Frame::Binary(_))) => socket.send(frame).unwrap(),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // The closing handshake continues until the connection ends.
    while socket.read().is_ok() {}
}

/// An extended CONNECT as browsers send it.
fn connect(path: &str) -> Request<()> {
    let mut request = request("CONNECT", path)
        .header("sec-websocket-version", "13")
        .header("origin", "http://weir.test")
        .body(())
        .unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    request
        .extensions_mut()
        .insert(ext::Protocol::from_static("websocket"));
    request
}

/// An HTTP/2 client whose server has announced extended CONNECT.
async fn client(weir: &Weir) -> frames::ClientConnection {
    let mut client = frames::connect(weir.address).await;
    // The server's SETTINGS have arrived once a request is answered.
    client.ask(request("GET", "/none").body(()).unwrap()).await;
    assert!(client.sender.is_extended_connect_protocol_enabled());
    client
}

fn to(name: &str, keys: &str) -> Weir {
    Weir::start(&format!(
        "{keys}\n[upstream.up]\nservers = [\"{name}\"]\n[[route]]\nmatch = \"/chat\"\nto = \"up\"\n"
    ))
}

/// An HTTP/2 stream as a pipe for a WebSocket library: the test takes out bytes to send and puts in bytes received.
#[derive(Default)]
struct Pipe {
    came: Vec<u8>,
    to_send: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.came.is_empty() {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let len = self.came.len().min(to.len());
        to[..len].copy_from_slice(&self.came[..len]);
        self.came.drain(..len);
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.to_send.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A WebSocket over a stream.
struct Socket {
    socket: WebSocket<Pipe>,
    stream: SendStream<Bytes>,
    body: RecvStream,
}

impl Socket {
    async fn open(client: &mut frames::ClientConnection, path: &str) -> Self {
        let (response, stream) = client.send(connect(path), false);
        let response = within(response).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        assert!(!response.headers().contains_key("upgrade"));
        Self {
            socket: WebSocket::from_raw_socket(Pipe::default(), Role::Client, None),
            stream,
            body: response.into_body(),
        }
    }

    async fn send(&mut self, frame: Frame) {
        self.socket.send(frame).unwrap();
        self.flush().await;
    }

    async fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.socket.get_mut().to_send);
        within(frames::send_all(&mut self.stream, bytes.into(), false))
            .await
            .unwrap();
    }

    /// The next frame; `None` if the stream has ended in an orderly way.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            match self.socket.read() {
                Ok(frame) => return Some(frame),
                Err(tungstenite::Error::Io(_)) => {}
                Err(tungstenite::Error::ConnectionClosed) => return None,
                Err(error) => panic!("{error}"),
            }
            let piece = within(self.body.data()).await?.unwrap();
            self.body
                .flow_control()
                .release_capacity(piece.len())
                .unwrap();
            self.socket.get_mut().came.extend_from_slice(&piece);
        }
    }
}

#[test]
fn a_websocket_over_http2_echoes_at_an_endpoint_of_http1() {
    run(async {
        let mut echo = Echo::start(1);
        let weir = to(&echo.name, "");
        let mut client = client(&weir).await;
        let mut socket = Socket::open(&mut client, "/chat").await;
        for n in 0..100 {
            let frame = Frame::text(format!("message {n}"));
            socket.send(frame.clone()).await;
            assert_eq!(socket.read().await, Some(frame));
        }
        let large = Frame::binary(pattern(3_000_000, 1));
        socket.socket.send(large.clone()).unwrap();
        let bytes = std::mem::take(&mut socket.socket.get_mut().to_send);
        let mut stream = socket.stream;
        let sending = tokio::task::spawn_local(async move {
            frames::send_all(&mut stream, bytes.into(), false)
                .await
                .unwrap();
            stream
        });
        // Both directions at once: neither side waits for the other.
        let heard = loop {
            match socket.socket.read() {
                Ok(frame) => break frame,
                Err(tungstenite::Error::Io(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let piece = within(socket.body.data()).await.unwrap().unwrap();
            socket
                .body
                .flow_control()
                .release_capacity(piece.len())
                .unwrap();
            socket.socket.get_mut().came.extend_from_slice(&piece);
        };
        assert!(heard == large);
        socket.stream = within(sending).await.unwrap();
        // The closing handshake, then both ends.
        socket.socket.close(None).unwrap();
        socket.flush().await;
        assert!(matches!(socket.read().await, Some(Frame::Close(_))));
        socket.stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(within(frames::read(socket.body)).await.unwrap(), "");
        // On another thread, because this one still sends the client's end.
        let ended = tokio::task::spawn_blocking(move || {
            echo.join();
            weir.entry("/chat")
        });
        let entry = ended.await.unwrap();
        assert_eq!(
            (
                entry.text("version").as_str(),
                entry.text("reason").as_str()
            ),
            ("HTTP/2", "")
        );
        assert_eq!(entry.number("status"), 101.0);
        assert!(
            entry.number("bytes_in") > 3e6 && entry.number("bytes_out") > 3e6,
            "{entry:?}"
        );
    });
}

#[test]
fn many_websockets_and_requests_share_a_connection() {
    const COUNT: usize = 20;
    run(async {
        let mut echo = Echo::start(COUNT);
        let weir = to(&echo.name, "");
        let mut client = client(&weir).await;
        let mut sockets = Vec::new();
        for _ in 0..COUNT {
            sockets.push(Socket::open(&mut client, "/chat").await);
        }
        for (n, socket) in sockets.iter_mut().enumerate().rev() {
            socket.send(Frame::text(format!("of {n}"))).await;
        }
        for (n, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(socket.read().await, Some(Frame::text(format!("of {n}"))));
        }
        let (status, _) = client.ask(request("GET", "/none").body(()).unwrap()).await;
        assert_eq!(status, 404);
        for socket in &mut sockets {
            socket.socket.close(None).unwrap();
            socket.flush().await;
            assert!(matches!(socket.read().await, Some(Frame::Close(_))));
            socket.stream.send_data(Bytes::new(), true).unwrap();
        }
        tokio::task::spawn_blocking(move || echo.join())
            .await
            .unwrap();
    });
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// An endpoint that switches protocols and then follows the script.
fn switching_endpoint(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Endpoint {
    Endpoint::script(move |conn| {
        let Some(request) = conn.next_request() else {
            return;
        };
        assert_eq!(request.method(), "GET");
        assert_eq!(
            (request.field("Upgrade"), request.field("Connection")),
            (Some("websocket"), Some("upgrade"))
        );
        assert_eq!(request.field("Sec-WebSocket-Key").unwrap().len(), 24);
        assert_eq!(request.field("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(request.field("Content-Length"), None);
        assert_eq!(request.field("Transfer-Encoding"), None);
        assert_eq!(request.field("Via").unwrap().split(' ').next(), Some("2.0"));
        conn.send(SWITCH);
        script(conn);
    })
}

/// Opens a tunnel and returns both directions.
async fn open_tunnel(client: &mut frames::ClientConnection) -> (SendStream<Bytes>, RecvStream) {
    let (response, stream) = client.send(connect("/chat"), false);
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), 200);
    (stream, response.into_body())
}

#[test]
fn each_direction_of_a_tunnel_over_http2_ends_by_itself() {
    run(async {
        let endpoint = switching_endpoint(|conn| {
            conn.expect("question");
            conn.expect_closed();
            conn.send("late answer");
            conn.finish();
        });
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        let (mut stream, body) = open_tunnel(&mut client).await;
        stream.send_data("question".into(), true).unwrap();
        assert_eq!(within(frames::read(body)).await.unwrap(), "late answer");
    });
}

#[test]
fn a_reset_in_a_tunnel_over_http2_reaches_the_other_side() {
    run(async {
        let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
        let endpoint = switching_endpoint(move |conn| {
            conn.take(5);
            conn.send("heard");
            let (rest, _) = conn.rest();
            assert_eq!(rest, b"");
            ended.send(()).unwrap();
        });
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        let (mut stream, mut body) = open_tunnel(&mut client).await;
        stream.send_data("hello".into(), false).unwrap();
        assert_eq!(within(body.data()).await.unwrap().unwrap(), "heard");
        stream.send_reset(Reason::CANCEL);
        within(has_ended.recv()).await.unwrap();
    });
    run(async {
        let endpoint = switching_endpoint(|conn| {
            conn.take(5);
            conn.reset_now();
        });
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        let (mut stream, body) = open_tunnel(&mut client).await;
        stream.send_data("hello".into(), false).unwrap();
        let broken = within(frames::read(body)).await.unwrap_err();
        assert!(broken.is_reset() && broken.is_remote(), "{broken}");
        // The connection is still usable.
        let (status, _) = client.ask(request("GET", "/none").body(()).unwrap()).await;
        assert_eq!(status, 404);
    });
}

#[test]
fn a_tunnel_over_http2_applies_backpressure() {
    run(async {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let endpoint = switching_endpoint(move |conn| {
            gate.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            let received = conn.rest().0.len();
            // Enough that the client has to read it.
            conn.send(vec![b'x'; 3_000_000]);
            conn.send(received.to_string());
            conn.finish();
        });
        let weir = to(&endpoint.name, "timeouts = { idle = \"10m\" }");
        let mut client = client(&weir).await;
        let (mut stream, body) = open_tunnel(&mut client).await;
        let before = weir.resident_bytes();
        let mut sent = 0;
        loop {
            stream.reserve_capacity(64 * 1024);
            let room = poll_fn(|cx| stream.poll_capacity(cx));
            let Ok(room) = tokio::time::timeout(Duration::from_millis(500), room).await else {
                break;
            };
            let room = room.unwrap().unwrap();
            stream.send_data(vec![7; room].into(), false).unwrap();
            sent += room;
            assert!(sent < 60_000_000, "no end of it");
        }
        let grown = weir.resident_bytes().saturating_sub(before);
        assert!(grown < 4_000_000, "{grown} bytes for one tunnel");
        // Other requests are served meanwhile.
        let (status, _) = client.ask(request("GET", "/none").body(()).unwrap()).await;
        assert_eq!(status, 404);
        open.send(()).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        let body = within(frames::read(body)).await.unwrap();
        assert_eq!(&body[3_000_000..], sent.to_string().as_bytes());
    });
}

#[test]
fn a_silent_tunnel_over_http2_ends_after_the_idle_time() {
    run(async {
        let endpoint = switching_endpoint(|conn| {
            // Traffic keeps the tunnel open beyond the limit.
            for _ in 0..10 {
                conn.expect("ping");
                conn.send("pong");
            }
            conn.expect_end();
        });
        let weir = to(&endpoint.name, "timeouts = { idle = \"1s\" }");
        let mut client = client(&weir).await;
        let (mut stream, mut body) = open_tunnel(&mut client).await;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.send_data("ping".into(), false).unwrap();
            assert_eq!(within(body.data()).await.unwrap().unwrap(), "pong");
        }
        let silent_since = Instant::now();
        // The end was not an orderly one, and the client sees that.
        let broken = within(body.data()).await.unwrap().unwrap_err();
        assert!(broken.is_reset() && broken.is_remote(), "{broken}");
        let silence = silent_since.elapsed();
        assert!(
            silence > Duration::from_millis(800) && silence < Duration::from_secs(8),
            "{silence:?}"
        );
    });
}

#[test]
fn an_endpoint_that_refuses_the_handshake_is_heard() {
    run(async {
        let endpoint = Endpoint::answering(|request| {
            assert_eq!(request.field("Upgrade"), Some("websocket"));
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned()
        });
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        for _ in 0..2 {
            let (response, _stream) = client.send(connect("/chat"), false);
            let response = within(response).await.unwrap();
            assert_eq!(response.status(), 403);
            assert_eq!(
                within(frames::read(response.into_body())).await.unwrap(),
                "no"
            );
        }
        assert_eq!(weir.entry("/chat").number("status"), 403.0);
    });
}

/// Clients take any other success than 101 for an open tunnel.
#[test]
fn an_endpoint_that_does_not_switch_is_502() {
    run(async {
        let endpoint = Endpoint::answering(|_| ok("a page"));
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        for _ in 0..2 {
            let (response, _stream) = client.send(connect("/chat"), false);
            let response = within(response).await.unwrap();
            assert_eq!(response.status(), 502);
            let body = within(frames::read(response.into_body())).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains("bad_upgrade"));
        }
    });
}

/// Answers an upgrade and echoes.
async fn switch_and_echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (rx, mut tx) = tokio::io::split(stream);
    let mut rx = tokio::io::BufReader::new(rx);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(rx.read_line(&mut line).await.unwrap(), 0);
    }
    tx.write_all(SWITCH.as_bytes()).await.unwrap();
    // Either side may end first.
    let _ = tokio::io::copy(&mut rx, &mut tx).await;
    let _ = tx.shutdown().await;
}

/// An endpoint that speaks both protocols and prefers HTTP/2: requests share an HTTP/2 connection, and each WebSocket
/// has its own HTTP/1.1 one, in either order.
#[test]
fn a_websocket_at_an_endpoint_that_prefers_http2_has_a_connection_of_http1() {
    run(async {
        let (dir, tls) = (Weir::dir(), Tls::new());
        let (_, trusted) = tls.files(&dir);
        let acceptor = tls.acceptor_of(&[Protocol::Http2, Protocol::Http1]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap();
        let shared = Rc::new(Cell::new(0));
        let counted = shared.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), counted.clone());
                tokio::task::spawn_local(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        counted.set(counted.get() + 1);
                        let handler = Rc::new(async |_| answer("shared"));
                        return serve(Protocol::Http2, TokioIo::new(stream), handler).await;
                    }
                    switch_and_echo(stream).await;
                });
            }
        });
        let weir = Weir::start_in(
            &dir,
            &format!(
                "[upstream.up]\nservers = [\"https://localhost:{}\"]\n{trusted}\n\
                 [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
                name.port()
            ),
        );
        let upgraded = |weir: &Weir| {
            let mut conn = weir.connect();
            conn.send(UPGRADE);
            tokio::task::spawn_blocking(move || {
                assert_eq!(conn.message_head().status(), 101);
                conn.send("over its own connection");
                conn.expect("over its own connection");
                conn
            })
        };
        let first = within(upgraded(&weir)).await.unwrap();
        let mut client = client(&weir).await;
        for _ in 0..3 {
            let answer = client.ask(request("GET", "/").body(()).unwrap()).await;
            assert_eq!(answer.0, 200);
            within(upgraded(&weir)).await.unwrap();
            // The same from an HTTP/2 client.
            let (response, mut stream) = client.send(connect("/chat"), false);
            let response = within(response).await.unwrap();
            assert_eq!(response.status(), 200);
            stream
                .send_data(Bytes::from_static(b"hello"), true)
                .unwrap();
            let mut body = response.into_body();
            assert_eq!(within(body.data()).await.unwrap().unwrap(), "hello");
        }
        assert_eq!(shared.get(), 1, "requests share one connection");
        drop(first);
    });
}

/// An endpoint that speaks only HTTP/2 would need an extended CONNECT.
#[test]
fn a_websocket_to_an_endpoint_of_http2_is_502() {
    run(async {
        let server = Server::start(Protocol::Http2, async |_| answer("no")).await;
        let weir = to(&server.name, "");
        let mut client = client(&weir).await;
        let (response, _stream) = client.send(connect("/chat"), false);
        let response = within(response).await.unwrap();
        assert_eq!(response.status(), 502);
        let upgrade = tokio::task::spawn_blocking(move || weir.ask(UPGRADE));
        let response = within(upgrade).await.unwrap();
        assert_eq!(response.status(), 502);
        assert!(
            response.text().contains("bad_upgrade"),
            "{}",
            response.text()
        );
    });
}

/// RFC 9220, section 3: 501 for a protocol that a server does not know.
#[test]
fn another_protocol_than_websocket_is_501() {
    run(async {
        let endpoint = Endpoint::answering(|_| ok("never asked"));
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        for protocol in ["connect-udp", "webtransport", "websockets"] {
            let mut asked = connect("/chat");
            asked.extensions_mut().insert(ext::Protocol::from(protocol));
            let (response, _stream) = client.send(asked, false);
            let response = within(response).await.unwrap();
            assert_eq!(response.status(), 501);
            let body = within(frames::read(response.into_body())).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains("unsupported_protocol"));
        }
        assert_eq!(endpoint.connections(), 0);
        assert_eq!(weir.entry("/chat").text("reason"), "unsupported_protocol");
    });
}

#[test]
fn a_tunnel_over_http2_outlives_a_reload_and_ends_with_the_grace_period() {
    run(async {
        let endpoint = switching_endpoint(|conn| {
            for _ in 0..3 {
                conn.expect("ping");
                conn.send("pong");
            }
            conn.expect_end();
        });
        let mut weir = to(&endpoint.name, "timeouts = { grace = \"3s\" }");
        let mut client = client(&weir).await;
        let (mut stream, mut body) = open_tunnel(&mut client).await;
        for is_reloaded in [false, true] {
            if is_reloaded {
                weir.reload(
                    "timeouts = { grace = \"3s\" }\n[[route]]\nmatch = \"/*\"\nrespond = 404\n",
                );
                weir.wait_for("reloaded in");
            }
            stream.send_data("ping".into(), false).unwrap();
            assert_eq!(within(body.data()).await.unwrap().unwrap(), "pong");
        }
        weir.signal(rustix::process::Signal::TERM);
        weir.wait_for("draining");
        stream.send_data("ping".into(), false).unwrap();
        assert_eq!(within(body.data()).await.unwrap().unwrap(), "pong");
        assert!(within(body.data()).await.is_none_or(|piece| piece.is_err()));
        assert_eq!(weir.wait().code(), Some(0));
    });
}

/// Over HTTP/2 a key has no meaning. A second one would break the handshake at the endpoint.
#[test]
fn a_key_that_a_client_of_http2_says_is_not_a_second() {
    run(async {
        let (keys, heard) = std::sync::mpsc::channel();
        let endpoint = Endpoint::script(move |conn| {
            let Some(request) = conn.next_request() else {
                return;
            };
            keys.send(request.all("Sec-WebSocket-Key").len()).unwrap();
            conn.send(SWITCH);
            conn.finish();
        });
        let weir = to(&endpoint.name, "");
        let mut client = client(&weir).await;
        let mut asked = connect("/chat");
        let key = http::HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        asked.headers_mut().insert("sec-websocket-key", key);
        let (response, _stream) = client.send(asked, false);
        assert_eq!(within(response).await.unwrap().status(), 200);
        assert_eq!(heard.recv().unwrap(), 1);
    });
}
