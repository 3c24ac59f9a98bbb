//! The h2 crate on both sides: for tests that decide about streams and frames.

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

/// A request that has come, and the way to answer it.
pub type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A client's connection with the task that runs it, which ends with the connection.
pub struct Connected {
    pub sender: SendRequest<Bytes>,
    pub task: JoinHandle<Result<(), h2::Error>>,
}

/// Connects with prior knowledge.
pub async fn connect(address: SocketAddr) -> Connected {
    connect_with(address, &h2::client::Builder::new()).await
}

/// The same with settings.
pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Connected {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = within(builder.handshake(stream)).await.unwrap();
    let task = spawn_local(connection);
    let sender = within(sender.ready()).await.unwrap();
    Connected { sender, task }
}

impl Connected {
    /// Sends a request without a body, or with one to come.
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

/// An address where nobody listens, and nobody else can.
pub struct Dead {
    _socket: TcpSocket,
    /// What goes into `servers`.
    pub name: String,
}

impl Dead {
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

/// A listening endpoint whose connections a test takes one by one.
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

    /// Takes the next connection.
    pub async fn accept(&self) -> Accepted {
        self.accept_with(&h2::server::Builder::new()).await
    }

    /// The same with settings.
    pub async fn accept_with(&self, builder: &h2::server::Builder) -> Accepted {
        let stream = self.accept_raw().await;
        Accepted::new(within(builder.handshake(stream)).await.unwrap())
    }

    /// Takes the next connection as it is.
    pub async fn accept_raw(&self) -> TcpStream {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Whether a connection waits to be taken.
    pub async fn has_another(&self) -> bool {
        tokio::task::yield_now().await;
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(self.listener.poll_accept(cx).is_ready())
        });
        polled.await
    }
}

/// A connection that was taken: a task runs it and passes on what is asked.
pub struct Accepted {
    asked: mpsc::UnboundedReceiver<Asked>,
    orders: mpsc::UnboundedSender<Order>,
    pub task: JoinHandle<Option<h2::Error>>,
}

enum Order {
    GoAway,
    Break(Reason),
}

impl Accepted {
    fn new(mut connection: h2::server::Connection<TcpStream, Bytes>) -> Self {
        let (tell, asked) = mpsc::unbounded_channel();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let task = spawn_local(async move {
            loop {
                tokio::select! {
                    next = connection.accept() => match next {
                        Some(Ok(next)) => drop(tell.send(next)),
                        Some(Err(error)) => return Some(error),
                        None => return None,
                    },
                    Some(order) = ordered.recv() => match order {
                        Order::GoAway => connection.graceful_shutdown(),
                        Order::Break(reason) => connection.abrupt_shutdown(reason),
                    },
                }
            }
        });
        Self {
            asked,
            orders,
            task,
        }
    }

    /// Waits for the next request.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Asked> {
        let next = within(self.asked.recv());
        async { next.await.expect("the connection is open") }
    }

    /// The next request, or none when the connection ends before.
    pub async fn next_or_end(&mut self) -> Option<Asked> {
        within(self.asked.recv()).await
    }

    /// Takes no more streams, and ends when those that are open have.
    pub fn go_away(&self) {
        self.orders.send(Order::GoAway).unwrap();
    }

    /// Ends at once, with GOAWAY.
    pub fn break_off(&self, reason: Reason) {
        self.orders.send(Order::Break(reason)).unwrap();
    }

    /// Ends at once, without a word.
    pub async fn vanish(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Answers with a body.
pub fn respond(send: &mut SendResponse<Bytes>, status: u16, body: impl Into<Bytes>) {
    let response = Response::builder().status(status).body(()).unwrap();
    let mut stream = send.send_response(response, false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

/// Reads what is left of a message, and lets its sender go on.
pub async fn read(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Reads a message to its trailers.
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

/// Sends all of it as windows allow.
pub async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    is_end: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len().min(64 * 1024));
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room else {
            // The peer has ended the stream; why, only this tells.
            return Err(reset_of(stream).await?.into());
        };
        let room = room?;
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, bytes.is_empty() && is_end)?;
    }
    Ok(())
}

/// Waits until the peer resets a stream that we send on.
pub async fn reset_of(stream: &mut SendStream<Bytes>) -> Result<Reason, h2::Error> {
    within(std::future::poll_fn(|cx| stream.poll_reset(cx))).await
}

/// Waits until the peer resets a request before it was answered.
pub async fn reset_of_request(send: &mut SendResponse<Bytes>) -> Result<Reason, h2::Error> {
    within(std::future::poll_fn(|cx| send.poll_reset(cx))).await
}
