//! Scripted HTTP/2 clients and endpoints on the h2 crate, over the simulator's connections.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weir::io::sim::{End, Endpoint, Peer, Rng, Sim, World, at};
use weir::io::{Address, Net, Rx, Tx};

use super::client::{Outcome, ScriptedRequest};
use super::endpoint::{Answer, Behaviour, Ledger, SeenRequest};
use super::message::{Framing, body_of};

/// A simulated connection as the h2 crate needs it.
struct Io {
    /// `None` only in `drop`.
    peer: Option<Peer<Sim>>,
    unread: Vec<u8>,
    is_finished: bool,
}

/// Writes wait while this many bytes are unsent.
const QUEUED_MAX: usize = 64 * 1024;

impl Io {
    fn new(peer: Peer<Sim>) -> Self {
        Self {
            peer: Some(peer),
            unread: Vec::new(),
            is_finished: false,
        }
    }

    fn peer(&mut self) -> &mut Peer<Sim> {
        self.peer.as_mut().expect("it is open")
    }
}

impl Drop for Io {
    /// Reads the rest after an orderly end: a close with unread bytes would be a reset and could destroy what was sent
    /// before.
    fn drop(&mut self) {
        if let Some(mut peer) = self.peer.take()
            && self.is_finished
        {
            let net = peer.net().clone();
            net.spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty()
            && let Some(chunk) = ready!(self.peer().rx.poll_recv(cx))?
        {
            self.unread = chunk.to_vec();
        }
        let len = self.unread.len().min(to.remaining());
        to.put_slice(&self.unread[..len]);
        self.unread.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.peer().tx.queued() >= QUEUED_MAX {
            ready!(self.peer().tx.poll_send(cx))?;
        }
        self.peer().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.peer().tx.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.peer().tx.poll_send(cx))?;
        self.peer().finish();
        self.is_finished = true;
        Poll::Ready(Ok(()))
    }
}

/// Sends all requests at once over one connection. If `wanted` returns false, the client resets the request at a random
/// point.
pub async fn ask_all(
    net: &Sim,
    to: &Address,
    asks: &[ScriptedRequest],
    rng: &mut Rng,
    wanted: impl Fn(&ScriptedRequest) -> bool,
) -> Vec<Outcome> {
    let Ok(peer) = Peer::connect(net, to).await else {
        return asks.iter().map(|_| lost()).collect();
    };
    let Ok((sender, connection)) = h2::client::handshake(Io::new(peer)).await else {
        return asks.iter().map(|_| lost()).collect();
    };
    net.spawn(async move { drop(connection.await) });
    let outcomes: Rc<RefCell<Vec<Option<Outcome>>>> = Rc::default();
    let left = Rc::new(Cell::new(asks.len()));
    outcomes.borrow_mut().resize_with(asks.len(), || None);
    for (n, ask) in asks.iter().enumerate() {
        let Ok(mut ready) = sender.clone().ready().await else {
            (n..asks.len()).for_each(|n| outcomes.borrow_mut()[n] = Some(lost()));
            left.set(left.get() - (asks.len() - n));
            break;
        };
        let sent = ready.send_request(ask.request(), ask.framing == Framing::None);
        let (ask, is_wanted) = (ask.clone(), wanted(ask));
        let (outcomes, left, mut rng) = (outcomes.clone(), left.clone(), rng.fork());
        net.spawn(async move {
            let outcome = match sent {
                Ok((response, stream)) => {
                    exchange(&ask, response, stream, is_wanted, &mut rng).await
                }
                Err(_) => lost(),
            };
            outcomes.borrow_mut()[n] = Some(outcome);
            left.set(left.get() - 1);
        });
    }
    drop(sender);
    while left.get() > 0 {
        let until = net.now() + Duration::from_millis(10);
        net.sleep_until(until).await;
    }
    outcomes.take().into_iter().flatten().collect()
}

/// Sends requests one after the other over one connection, and calls `before` before each.
pub async fn ask_in_turn(
    net: &Sim,
    to: &Address,
    asks: &[ScriptedRequest],
    rng: &mut Rng,
    mut before: impl FnMut(usize),
) -> Vec<Outcome> {
    let peer = Peer::connect(net, to).await.expect("Weir listens");
    let (sender, connection) = h2::client::handshake(Io::new(peer)).await.expect("HTTP/2");
    net.spawn(async move { drop(connection.await) });
    let mut outcomes = Vec::new();
    for (n, ask) in asks.iter().enumerate() {
        before(n);
        let mut ready = sender.clone().ready().await.expect("it is open");
        let sent = ready.send_request(ask.request(), ask.framing == Framing::None);
        let (response, stream) = sent.expect("it is open");
        outcomes.push(exchange(ask, response, stream, true, rng).await);
    }
    outcomes
}

fn lost() -> Outcome {
    Outcome::Lost(End::Failed(io::ErrorKind::ConnectionReset))
}

impl ScriptedRequest {
    fn request(&self) -> Request<()> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("http://sim{}", self.path))
            .header("x-id", self.id)
            .header("x-body", self.len)
            .header("x-answer", self.answer.encode());
        for (name, value) in &self.fields {
            request = request.header(*name, value);
        }
        if self.framing == Framing::Length {
            request = request.header("content-length", self.len);
        }
        request.body(()).expect("a request")
    }
}

/// Sends the body and reads the answer at the same time.
async fn exchange(
    ask: &ScriptedRequest,
    response: h2::client::ResponseFuture,
    mut stream: SendStream<Bytes>,
    is_wanted: bool,
    rng: &mut Rng,
) -> Outcome {
    let body = body_of(ask.id, false, ask.len);
    let piece = rng.size(40_000).max(1_000);
    let given_up = (!is_wanted).then(|| rng.below(1 + ask.answer.len));
    // Dropping an unfinished stream resets it.
    let mut upload = std::pin::pin!(async move {
        if ask.framing != Framing::None {
            send_body(&mut stream, &body, piece, true).await;
        }
    });
    let mut download = std::pin::pin!(judge(ask, response, given_up));
    let mut is_sent = false;
    poll_fn(|cx| {
        is_sent = is_sent || upload.as_mut().poll(cx).is_ready();
        download.as_mut().poll(cx)
    })
    .await
}

/// Sends a body in pieces for as long as the peer takes it.
async fn send_body(stream: &mut SendStream<Bytes>, body: &[u8], piece: usize, is_end: bool) {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len().min(piece));
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else {
            return;
        };
        let part = rest.split_to(room.min(piece).min(rest.len()));
        if stream.send_data(part, rest.is_empty() && is_end).is_err() {
            return;
        }
    }
    if body.is_empty() && is_end {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

/// Reads the answer and judges it. A wrong answer panics; every possible outcome is returned.
async fn judge(
    ask: &ScriptedRequest,
    response: h2::client::ResponseFuture,
    given_up: Option<usize>,
) -> Outcome {
    if given_up == Some(0) {
        return Outcome::Truncated;
    }
    let Ok(response) = response.await else {
        return lost();
    };
    let (status, fields) = (response.status().as_u16(), response.headers().clone());
    let own = fields.get("proxy-status").map(text);
    let (body, is_whole) = read(response.into_body(), given_up).await;
    if let Some(why) = own {
        // A reset may follow Weir's complete answer, because Weir did not read the rest of the request.
        let why = why.split('"').nth(1).expect("details").to_owned();
        return Outcome::Refused(status, why);
    }
    let field = |name: &str| {
        let value = fields.get(name)?;
        Some(value.to_str().expect("ASCII"))
    };
    ask.judge(status, field, &body, is_whole)
}

fn text(value: &http::HeaderValue) -> String {
    value.to_str().expect("ASCII").to_owned()
}

/// Reads a body to its end or until `enough` bytes have come. The flag says whether the body was complete.
async fn read(mut body: RecvStream, enough: Option<usize>) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else {
            return (whole, false);
        };
        let _ = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
        if enough.is_some_and(|enough| whole.len() >= enough) {
            return (whole, false);
        }
    }
    let is_whole = body.trailers().await.is_ok();
    (whole, is_whole)
}

impl Ledger {
    /// Starts an HTTP/2 endpoint that answers as requests ask it to, with a random limit of concurrent streams.
    pub fn endpoint_http2(&self, world: &World, address: &str) -> Endpoint {
        let (ledger, name) = (self.clone(), address.to_owned());
        let mut rng = world.rng(98);
        let streams = 1 + rng.below(30) as u32;
        let seed = rng.next();
        world.endpoint(&at(address), move |peer| {
            serve(peer, ledger.clone(), name.clone(), streams, Rng::new(seed))
        })
    }
}

async fn serve(peer: Peer<Sim>, ledger: Ledger, endpoint: String, streams: u32, mut rng: Rng) {
    let net = peer.net().clone();
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(streams);
    // A request that the endpoint does not read must not block others.
    settings.initial_connection_window_size(1 << 24);
    let Ok(mut connection) = settings.handshake::<_, Bytes>(Io::new(peer)).await else {
        return;
    };
    let goes = Rc::new(Cell::new(false));
    let mut is_going = false;
    loop {
        let next = poll_fn(|cx| {
            if goes.get() && !is_going {
                is_going = true;
                connection.graceful_shutdown();
            }
            connection.poll_accept(cx)
        });
        let Some(Ok((request, send))) = next.await else {
            return;
        };
        let (ledger, endpoint) = (ledger.clone(), endpoint.clone());
        let (goes, rng, on) = (goes.clone(), rng.fork(), net.clone());
        net.spawn(async move {
            let _ = reply(&on, request, send, (&ledger, endpoint), &goes, rng).await;
        });
    }
}

/// Answers as the request asks. Returns an error if the stream is gone.
async fn reply(
    net: &Sim,
    request: Request<RecvStream>,
    mut send: SendResponse<Bytes>,
    (ledger, endpoint): (&Ledger, String),
    goes: &Cell<bool>,
    mut rng: Rng,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let field = |name: &str| text(head.headers.get(name).expect(name));
    let id: u64 = field("x-id").parse().expect("a number");
    let answer = Answer::parse(&field("x-answer"));
    if answer.behaviour == Behaviour::CloseBefore {
        // REFUSED_STREAM means that the endpoint has not processed the request, so the ledger does not list it.
        send.send_reset(Reason::REFUSED_STREAM);
        return Ok(());
    }
    let seen = ledger.add(SeenRequest {
        id,
        method: head.method.to_string(),
        endpoint,
        complete: false,
    });
    match answer.behaviour {
        Behaviour::ResetBefore => {
            send.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Behaviour::Silent => {
            return poll_fn(|cx| send.poll_reset(cx)).await.map(drop);
        }
        Behaviour::Early => {}
        _ => {
            let (got, is_whole) = read(body, None).await;
            let want = body_of(id, false, got.len());
            assert!(got == want, "request {id}: its body was changed on the way");
            if !is_whole {
                return Ok(());
            }
            assert_eq!(
                field("x-body"),
                got.len().to_string(),
                "request {id} was cut short"
            );
            ledger.complete(seen);
        }
    }
    if answer.delay_ms > 0 {
        net.sleep_until(net.now() + Duration::from_millis(answer.delay_ms))
            .await;
    }
    if answer.behaviour == Behaviour::Interim {
        let hint = Response::builder().status(103).header("link", "</x>");
        send.send_informational(hint.body(()).expect("a head"))?;
    }
    let is_bodiless = matches!(answer.status, 204 | 304) || head.method == "HEAD";
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", "text/plain")
        .header("x-id", id);
    if !is_bodiless && answer.framing == Framing::Length {
        response = response.header("content-length", answer.len);
    }
    let mut stream = send.send_response(response.body(()).expect("a head"), is_bodiless)?;
    goes.set(goes.get() || answer.behaviour == Behaviour::Close);
    if is_bodiless {
        return Ok(());
    }
    let whole = body_of(id, true, answer.len);
    let piece = rng.size(40_000).max(1_000);
    match answer.behaviour {
        Behaviour::CloseWithin | Behaviour::ResetWithin | Behaviour::Stall => {
            let cut = rng.below(whole.len().max(1));
            send_body(&mut stream, &whole[..cut], piece, false).await;
            if answer.behaviour != Behaviour::Stall {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            poll_fn(|cx| stream.poll_reset(cx)).await.map(drop)
        }
        _ if rng.chance(200) => {
            send_body(&mut stream, &whole, piece, false).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "1".parse().expect("a value"));
            stream.send_trailers(trailers)
        }
        _ => {
            send_body(&mut stream, &whole, piece, true).await;
            Ok(())
        }
    }
}
