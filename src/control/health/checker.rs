//! Checks one endpoint, over a connection that it keeps.

use std::io;
use std::rc::Rc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderMap;
use hyper::{Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_config::{CheckKind, HttpCheck, show_duration};

use super::check_target::CheckTarget;
use super::grpc_health;
use crate::io::Address;
use crate::tls::{AlpnProtocol, CheckTls};

/// Bytes of an answer's body that a check reads. Envoy compares 1 KiB, NGINX Plus 256 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an answer's head, and the fields of it.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Checks one endpoint.
pub(super) struct Checker {
    target: Rc<CheckTarget>,
    kept: Option<KeptConnection>,
}

/// A connection for further checks.
struct KeptConnection {
    sender: Sender,
    driver: JoinHandle<()>,
}

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A stream of bytes to an endpoint.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Why a check has failed.
enum Failure {
    /// The connection ended before the answer. If it was a kept one, the endpoint may have closed it in good order.
    Lost(String),
    /// Anything else.
    Unfit(String),
}

impl Checker {
    pub(super) fn new(target: Rc<CheckTarget>) -> Self {
        Self { target, kept: None }
    }

    /// Checks the endpoint once. `tls` is what connections that speak TLS begin with.
    ///
    /// # Errors
    /// Why it fails, in a few words.
    pub(super) async fn check(&mut self, tls: Option<&CheckTls>) -> Result<(), String> {
        let limit = self.target.timeout();
        let checked = timeout(limit, self.check_patiently(tls)).await;
        checked.unwrap_or_else(|_| {
            let limit = show_duration(limit);
            Err(format!("timed out after {limit}"))
        })
    }

    async fn check_patiently(&mut self, tls: Option<&CheckTls>) -> Result<(), String> {
        if self.target.plan.check.kind == CheckKind::Tcp {
            return self.open(tls).await.map(drop);
        }
        if let Some(kept) = self.kept.take() {
            match self.ask(kept).await {
                Ok(()) => return Ok(()),
                Err(Failure::Unfit(why)) => return Err(why),
                Err(Failure::Lost(_)) => {}
            }
        }
        let (stream, protocol) = self.open(tls).await?;
        let new = KeptConnection::begin(stream, protocol).await?;
        self.ask(new).await.map_err(|failure| match failure {
            Failure::Lost(why) | Failure::Unfit(why) => why,
        })
    }

    /// Connects, and shakes hands if the check speaks TLS.
    async fn open(
        &self,
        tls: Option<&CheckTls>,
    ) -> Result<(Box<dyn Stream>, AlpnProtocol), String> {
        let target = &*self.target;
        let cannot = |error: io::Error| format!("cannot connect: {error}");
        let stream: Box<dyn Stream> = match &target.address {
            Address::Ip(address) => {
                let stream = TcpStream::connect(address).await.map_err(cannot)?;
                stream.set_nodelay(true).map_err(cannot)?;
                begin(&target.preamble, |bytes| stream.try_write(bytes)).map_err(cannot)?;
                Box::new(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(&**path).await.map_err(cannot)?;
                begin(&target.preamble, |bytes| stream.try_write(bytes)).map_err(cannot)?;
                Box::new(stream)
            }
        };
        if target.is_tls {
            let (Some(tls), Some(name)) = (tls, &target.tls_name) else {
                return Err("no name is known that its certificate could have".to_owned());
            };
            let shaken = tls.connect(name, stream).await;
            let (stream, protocol) = shaken.map_err(|why| format!("TLS fails: {why}"))?;
            return Ok((Box::new(stream), protocol));
        }
        let protocol = match target.is_h2c {
            true => AlpnProtocol::Http2,
            false => AlpnProtocol::Http1,
        };
        Ok((stream, protocol))
    }

    /// Sends the request, and keeps the connection if the answer was whole.
    async fn ask(&mut self, mut connection: KeptConnection) -> Result<(), Failure> {
        let answer = connection.send(&self.target).await?;
        let (head, body) = answer.into_parts();
        let (outcome, is_whole) = match &self.target.plan.check.kind {
            CheckKind::Grpc(_) => judge_grpc(head.status.as_u16(), &head.headers, body).await?,
            CheckKind::Http(http) => judge_http(http, head.status.as_u16(), body).await?,
            CheckKind::Tcp => (Ok(()), false),
        };
        if is_whole {
            self.kept = Some(connection);
        }
        outcome.map_err(Failure::Unfit)
    }
}

impl KeptConnection {
    async fn begin(stream: Box<dyn Stream>, protocol: AlpnProtocol) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let (sender, driver) = match protocol {
            AlpnProtocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(HEAD_BYTES_MAX);
                let shaken = builder.handshake(io).await.map_err(|error| text(&error))?;
                let (sender, driver) = shaken;
                let driver = tokio::task::spawn_local(async move {
                    // What breaks it shows in the request.
                    let _ = driver.await;
                });
                (Sender::Http1(sender), driver)
            }
            AlpnProtocol::Http2 => {
                let mut builder = http2::Builder::new(LocalExecutor);
                builder.max_header_list_size(HEAD_BYTES_MAX as u32);
                let shaken = builder.handshake(io).await.map_err(|error| text(&error))?;
                let (sender, driver) = shaken;
                let driver = tokio::task::spawn_local(async move {
                    let _ = driver.await;
                });
                (Sender::Http2(sender), driver)
            }
        };
        Ok(Self { sender, driver })
    }

    async fn send(&mut self, target: &CheckTarget) -> Result<Response<Incoming>, Failure> {
        let lost = |error: hyper::Error| match error.is_parse() {
            true => Failure::Unfit(format!("its answer is invalid: {}", text(&error))),
            false => Failure::Lost(text(&error)),
        };
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(lost)?;
                let request = target.request(Version::HTTP_11).map_err(Failure::Unfit)?;
                sender.send_request(request).await.map_err(lost)
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(lost)?;
                let request = target.request(Version::HTTP_2).map_err(Failure::Unfit)?;
                sender.send_request(request).await.map_err(lost)
            }
        }
    }
}

/// What an answer shows, and whether the check has read all of it.
type Judged = (Result<(), String>, bool);

async fn judge_http(check: &HttpCheck, status: u16, body: Incoming) -> Result<Judged, Failure> {
    let (body, _, is_whole) = read(body).await?;
    if !check.status.has(status) {
        return Ok((Err(format!("status {status}")), is_whole));
    }
    let outcome = match &check.body {
        Some(wanted) if memchr::memmem::find(&body, wanted.as_bytes()).is_none() => {
            Err("its answer lacks the text in `body`".to_owned())
        }
        _ => Ok(()),
    };
    Ok((outcome, is_whole))
}

async fn judge_grpc(status: u16, fields: &HeaderMap, body: Incoming) -> Result<Judged, Failure> {
    if status != 200 {
        return Ok((Err(format!("status {status}")), false));
    }
    let (body, trailers, is_whole) = read(body).await?;
    // An answer without a message has the code in its head.
    let code = trailers
        .get("grpc-status")
        .or_else(|| fields.get("grpc-status"));
    let outcome = match code.and_then(|code| code.to_str().ok()) {
        Some("0") => grpc_health::verdict(&body),
        Some(code) => Err(grpc_health::failure(code)),
        None => Err("its answer has no grpc-status".to_owned()),
    };
    Ok((outcome, is_whole))
}

/// Reads a body up to [`BODY_BYTES_MAX`], and its trailers. Also returns whether that was all.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, HeaderMap, bool), Failure> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Unfit(text(&error)))?;
        match frame.into_data() {
            Ok(data) => {
                let room = BODY_BYTES_MAX - bytes.len();
                bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
                if data.len() > room {
                    return Ok((bytes, trailers, false));
                }
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((bytes, trailers, true))
}

/// Begins a connection with these few bytes, for which a new socket has room.
fn begin(bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    if bytes.is_empty() || write(bytes)? == bytes.len() {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}

/// An error of the HTTP library with its cause.
fn text(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "it closed the connection without an answer".to_owned();
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Runs the tasks of HTTP/2 connections on the control thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        drop(tokio::task::spawn_local(task));
    }
}
