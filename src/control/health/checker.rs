//! Checks one endpoint, over a connection that it keeps.

use std::io;
use std::rc::Rc;

use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_config::{CheckKind, HttpCheck, show_duration};

use super::check_target::CheckTarget;
use super::{grpc_health, http1_connection};
use crate::io::Address;
use crate::tls::{AlpnProtocol, CheckTls};

/// Bytes of an answer's body that a check reads. Envoy compares 1 KiB, NGINX Plus 256 KiB.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the fields of an answer over HTTP/2.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Checks one endpoint.
pub(super) struct Checker {
    target: Rc<CheckTarget>,
    kept: Option<Connection>,
}

/// A connection that takes requests.
enum Connection {
    Http1(Box<dyn Stream>),
    Http2(Http2Connection),
}

/// A connection over HTTP/2, and the task that runs it.
struct Http2Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A stream of bytes to an endpoint.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Why a check has failed.
pub(super) enum Failure {
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
        if let Some(mut kept) = self.kept.take()
            && kept.is_quiet().await
        {
            match self.ask(kept).await {
                Ok(()) => return Ok(()),
                Err(Failure::Unfit(why)) => return Err(why),
                Err(Failure::Lost(_)) => {}
            }
        }
        let (stream, protocol) = self.open(tls).await?;
        let new = Connection::begin(stream, protocol).await?;
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
    async fn ask(&mut self, mut connection: Connection) -> Result<(), Failure> {
        let target = &*self.target;
        let (outcome, may_reuse) = match (&mut connection, &target.plan.check.kind) {
            (Connection::Http1(stream), CheckKind::Http(http)) => {
                let request = (target.method(), &*target.http1_request);
                let answer = http1_connection::exchange(&mut **stream, request, target.limits);
                let answer = answer.await?;
                (judge(http, answer.status, &answer.body), answer.may_reuse)
            }
            (Connection::Http2(http2), CheckKind::Http(http)) => {
                let (head, body) = http2.send(target).await?.into_parts();
                let (body, _, is_whole) = read(body).await?;
                (judge(http, head.status.as_u16(), &body), is_whole)
            }
            (Connection::Http2(http2), CheckKind::Grpc(_)) => {
                let (head, body) = http2.send(target).await?.into_parts();
                judge_grpc(head.status.as_u16(), &head.headers, body).await?
            }
            (Connection::Http1(_), CheckKind::Grpc(_)) => {
                let why = "it does not speak HTTP/2, which gRPC needs";
                (Err(why.to_owned()), false)
            }
            (_, CheckKind::Tcp) => (Ok(()), false),
        };
        if may_reuse {
            self.kept = Some(connection);
        }
        outcome.map_err(Failure::Unfit)
    }
}

impl Connection {
    async fn begin(stream: Box<dyn Stream>, protocol: AlpnProtocol) -> Result<Self, String> {
        match protocol {
            AlpnProtocol::Http1 => Ok(Self::Http1(stream)),
            AlpnProtocol::Http2 => {
                let mut builder = http2::Builder::new(LocalExecutor);
                builder.max_header_list_size(HEAD_BYTES_MAX);
                let shaken = builder.handshake(TokioIo::new(stream)).await;
                let (sender, driver) = shaken.map_err(|error| text(&error))?;
                let driver = tokio::task::spawn_local(async move {
                    // What breaks it shows in the request.
                    let _ = driver.await;
                });
                Ok(Self::Http2(Http2Connection { sender, driver }))
            }
        }
    }

    /// Whether the endpoint has neither closed the connection nor sent anything unasked.
    async fn is_quiet(&mut self) -> bool {
        match self {
            Self::Http1(stream) => http1_connection::is_quiet(&mut **stream).await,
            Self::Http2(http2) => !http2.sender.is_closed(),
        }
    }
}

impl Http2Connection {
    async fn send(&mut self, target: &CheckTarget) -> Result<Response<Incoming>, Failure> {
        let lost = |error: hyper::Error| Failure::Lost(text(&error));
        self.sender.ready().await.map_err(lost)?;
        let request = target.http2_request().map_err(Failure::Unfit)?;
        self.sender.send_request(request).await.map_err(lost)
    }
}

/// What an answer shows, and whether the check has read all of it.
type Judged = (Result<(), String>, bool);

fn judge(check: &HttpCheck, status: u16, body: &[u8]) -> Result<(), String> {
    if !check.status.has(status) {
        return Err(format!("status {status}"));
    }
    match &check.body {
        Some(wanted) if memchr::memmem::find(body, wanted.as_bytes()).is_none() => {
            Err("its answer lacks the text in `body`".to_owned())
        }
        _ => Ok(()),
    }
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
