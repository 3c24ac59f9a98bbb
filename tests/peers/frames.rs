//! Clients and endpoints on the h2 crate, for tests that control streams and frames.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};

use super::within;

/// A request and the handle that answers it.
pub type IncomingRequest = (Request<RecvStream>, SendResponse<Bytes>);

/// A client's connection, and the task that drives it to its end.
pub struct ClientConnection {
    pub sender: SendRequest<Bytes>,
    pub task: JoinHandle<Result<(), h2::Error>>,
}

/// Connects with prior knowledge.
pub async fn connect(address: SocketAddr) -> ClientConnection {
    connect_with(address, &h2::client::Builder::new()).await
}

pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> ClientConnection {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = within(builder.handshake(stream)).await.unwrap();
    let task = spawn_local(connection);
    let sender = within(sender.ready()).await.unwrap();
    ClientConnection { sender, task }
}

impl ClientConnection {
    /// Sends the head of a request; `is_end` says that no body follows.
    pub fn send(
        &mut self,
        request: Request<()>,
        is_end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        self.sender.send_request(request, is_end).unwrap()
    }

    /// Sends a request and reads its response.
    pub async fn ask(&mut self, request: Request<()>) -> (u16, Bytes) {
        let (response, _) = self.send(request, true);
        let response = within(response).await.unwrap();
        let status = response.status().as_u16();
        (status, within(read(response.into_body())).await.unwrap())
    }
}

/// A bound port on which nothing listens and which no other process can take.
pub struct ClosedPort {
    _socket: TcpSocket,
    /// What goes into `servers`.
    pub name: String,
}

impl ClosedPort {
    pub fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let name = format!("h2c://{}", socket.local_addr().unwrap());
        Self {
            _socket: socket,
            name,
        }
    }
}

/// An endpoint whose connections the test accepts one by one.
pub struct Listener {
    listener: TcpListener,
    /// What goes into `servers`.
    pub name: String,
    pub address: SocketAddr,
}

impl Listener {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            listener,
            name: format!("h2c://{address}"),
            address,
        }
    }

    /// Accepts the next connection.
    pub async fn accept(&self) -> ServerConnection {
        self.accept_with(&h2::server::Builder::new()).await
    }

    pub async fn accept_with(&self, builder: &h2::server::Builder) -> ServerConnection {
        let stream = self.accept_raw().await;
        ServerConnection::new(within(builder.handshake(stream)).await.unwrap())
    }

    /// Accepts the next connection without speaking HTTP/2 on it.
    pub async fn accept_raw(&self) -> TcpStream {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Whether a connection waits to be accepted.
    pub async fn has_another(&self) -> bool {
        tokio::task::yield_now().await;
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(self.listener.poll_accept(cx).is_ready())
        });
        polled.await
    }
}

/// An accepted connection. A task drives it and passes on its requests.
pub struct ServerConnection {
    requests: mpsc::UnboundedReceiver<IncomingRequest>,
    shutdown: mpsc::UnboundedSender<Shutdown>,
    pub task: JoinHandle<Option<h2::Error>>,
}

enum Shutdown {
    GoAway,
    Break(Reason),
}

impl ServerConnection {
    fn new(mut connection: h2::server::Connection<TcpStream, Bytes>) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let (shutdown, mut shutdowns) = mpsc::unbounded_channel();
        let task = spawn_local(async move {
            loop {
                tokio::select! {
                    next = connection.accept() => match next {
                        Some(Ok(next)) => drop(sender.send(next)),
                        Some(Err(error)) => return Some(error),
                        None => return None,
                    },
                    Some(order) = shutdowns.recv() => match order {
                        Shutdown::GoAway => connection.graceful_shutdown(),
                        Shutdown::Break(reason) => connection.abrupt_shutdown(reason),
                    },
                }
            }
        });
        Self {
            requests,
            shutdown,
            task,
        }
    }

    /// Waits for the next request.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = IncomingRequest> {
        let next = within(self.requests.recv());
        async { next.await.expect("the connection is open") }
    }

    /// Waits for the next request, or `None` if the connection ends first.
    pub async fn next_or_end(&mut self) -> Option<IncomingRequest> {
        within(self.requests.recv()).await
    }

    /// Sends GOAWAY, accepts no more streams and ends after the open ones.
    pub fn go_away(&self) {
        self.shutdown.send(Shutdown::GoAway).unwrap();
    }

    /// Sends GOAWAY and ends at once.
    pub fn break_off(&self, reason: Reason) {
        self.shutdown.send(Shutdown::Break(reason)).unwrap();
    }

    /// Closes the connection without a GOAWAY.
    pub async fn vanish(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Sends a response with this status and body.
pub fn respond(send: &mut SendResponse<Bytes>, status: u16, body: impl Into<Bytes>) {
    let response = Response::builder().status(status).body(()).unwrap();
    let mut stream = send.send_response(response, false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

/// Reads the rest of a body and releases its flow control window.
pub async fn read(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Reads a body and its trailers.
pub async fn read_to_trailers(body: &mut RecvStream) -> Result<(Bytes, HeaderMap), h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((whole.into(), trailers))
}

/// Sends all bytes as the windows allow.
pub async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    is_end: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len().min(64 * 1024));
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room else {
            // The peer has ended the stream. Only `poll_reset` tells why.
            return Err(reset_of(stream).await?.into());
        };
        let room = room?;
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, bytes.is_empty() && is_end)?;
    }
    Ok(())
}

/// Waits until the peer resets a stream on which the test sends.
pub async fn reset_of(stream: &mut SendStream<Bytes>) -> Result<Reason, h2::Error> {
    within(std::future::poll_fn(|cx| stream.poll_reset(cx))).await
}

/// Waits until the peer resets a request that is not yet answered.
pub async fn reset_of_request(send: &mut SendResponse<Bytes>) -> Result<Reason, h2::Error> {
    within(std::future::poll_fn(|cx| send.poll_reset(cx))).await
}
