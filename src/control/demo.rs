//! The two endpoints that `weir demo` proxies to. They run on the control thread and listen on loopback.
//!
//! Both answer with their name and the request as it reached them. `/slow?ms=500` waits first, `/big?bytes=1000000`
//! sends that many bytes, `/status?code=503` answers with that status, `/echo` sends the request's body back.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::limits;
use super::listen;
use crate::obs::text;

/// Bound demo endpoints.
pub struct DemoEndpoints {
    endpoints: Vec<(&'static str, std::net::TcpListener)>,
    addresses: Vec<SocketAddr>,
}

impl DemoEndpoints {
    /// Binds two free ports of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub fn bind() -> io::Result<Self> {
        let (mut endpoints, mut addresses) = (Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let listener = listen::tcp((Ipv4Addr::LOCALHOST, 0).into(), limits::ADMIN_BACKLOG)?;
            addresses.push(listener.local_addr()?);
            endpoints.push((name, listener));
        }
        Ok(Self {
            endpoints,
            addresses,
        })
    }

    /// Their addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts answering, on the control thread's runtime.
    pub(super) fn serve(self) -> io::Result<()> {
        for (name, listener) in self.endpoints {
            listener.set_nonblocking(true)?;
            spawn_local(accept(name, TcpListener::from_std(listener)?));
        }
        Ok(())
    }
}

async fn accept(name: &'static str, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(limits::DEMO_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(limits::WATCH).await;
            continue;
        };
        spawn_local(async move {
            let service = hyper::service::service_fn(move |request| async move {
                Ok::<_, Infallible>(answer(name, request).await)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // The connection ends when Weir closes it.
            let _ = connection.await;
            drop(permit);
        });
    }
}

async fn answer(name: &str, request: Request<Incoming>) -> Response<DemoBody> {
    let mut response = match request.uri().path() {
        "/slow" => {
            let wait = Duration::from_millis(parameter(&request, "ms").unwrap_or(1_000));
            sleep(wait.min(limits::DEMO_WAIT_MAX)).await;
            Response::new(DemoBody::text(echo(name, &request)))
        }
        "/big" => {
            let bytes = parameter(&request, "bytes")
                .unwrap_or(1024 * 1024)
                .min(limits::DEMO_BODY_BYTES_MAX);
            Response::new(DemoBody::Dots(bytes))
        }
        "/status" => {
            let code: Option<u16> = parameter(&request, "code");
            let status = code
                .filter(|code| (200..600).contains(code))
                .and_then(|code| StatusCode::from_u16(code).ok());
            let mut response = Response::new(DemoBody::text(echo(name, &request)));
            *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        "/echo" => Response::new(echo_body(request.into_body()).await),
        _ => Response::new(DemoBody::text(echo(name, &request))),
    };
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Ok(name) = HeaderValue::from_str(name) {
        response.headers_mut().insert("x-demo-endpoint", name);
    }
    response
}

/// Answers with the request's body. Waits for its first bytes, because a client that expects 100-continue sends no body
/// once it has a final answer (RFC 9110 section 10.1.1).
async fn echo_body(mut body: Incoming) -> DemoBody {
    let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    let first = first.and_then(Result::ok);
    DemoBody::Back(first.and_then(|frame| frame.into_data().ok()), body)
}

/// The request as it arrived, to show what Weir has changed.
fn echo(name: &str, request: &Request<Incoming>) -> String {
    let mut out = format!("Hello from endpoint {name}. This is what reached it:\n\n");
    let _ = writeln!(
        out,
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.version()
    );
    for (field, value) in request.headers() {
        let _ = write!(out, "{field}: ");
        text::plain(&mut out, value.as_bytes());
        out.push('\n');
    }
    out
}

fn parameter<T: FromStr>(request: &Request<Incoming>, name: &str) -> Option<T> {
    let pairs = request
        .uri()
        .query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| *key == name)
        .find_map(|(_, value)| value.parse().ok())
}

/// The body of an answer.
enum DemoBody {
    /// This text.
    Text(Option<Bytes>),
    /// This many dots.
    Dots(u64),
    /// The request's own body: its first bytes, and the rest.
    Back(Option<Bytes>, Incoming),
}

impl DemoBody {
    fn text(text: String) -> Self {
        Self::Text(Some(Bytes::from(text)))
    }
}

static DOTS: [u8; 64 * 1024] = [b'.'; 64 * 1024];

impl Body for DemoBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Dots(0) => Poll::Ready(None),
            Self::Dots(left) => {
                let n = DOTS.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&DOTS).slice(..n)))))
            }
            Self::Back(first, body) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(body).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Dots(left) => *left == 0,
            Self::Back(first, body) => first.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Dots(left) => SizeHint::with_exact(*left),
            Self::Back(first, body) => {
                let rest = body.size_hint();
                let first = first.as_ref().map_or(0, |first| first.len() as u64);
                match rest.exact() {
                    Some(rest) => SizeHint::with_exact(first + rest),
                    None => rest,
                }
            }
        }
    }
}
