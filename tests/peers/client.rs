//! HTTP/1.1 and HTTP/2 clients.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::HOST;
use http::request::Builder;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{Body, Protocol, Tls, within};

/// A client's connection.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A response with its whole body.
#[derive(Debug)]
pub struct FullResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl FullResponse {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of a field. Asserts that it occurs at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} occurs more than once");
        first
    }
}

/// Starts a request for `http://weir.test` and the path.
pub fn request(method: &str, path: &str) -> Builder {
    let uri = format!("http://weir.test{path}");
    Request::builder().method(method).uri(uri)
}

impl Client {
    /// Connects without TLS.
    pub async fn connect(protocol: Protocol, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(protocol, TokioIo::new(stream)).await
    }

    /// Connects over TLS, with ALPN.
    pub async fn connect_tls(protocol: Protocol, address: SocketAddr, tls: &Tls) -> Self {
        Self::over(protocol, TokioIo::new(tls.connect(protocol, address).await)).await
    }

    async fn over<T: Read + Write + Unpin + Send + 'static>(protocol: Protocol, io: T) -> Self {
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = within(http1::handshake(io)).await.unwrap();
                spawn_local(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = within(http2::handshake(Local, io)).await.unwrap();
                spawn_local(connection);
                Self::Http2(sender)
            }
        }
    }

    /// Sends a request and waits for the head of its response.
    pub fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let sent: std::pin::Pin<Box<dyn Future<Output = _>>> = match self {
            Self::Http1(sender) => {
                let uri = request.uri().clone();
                if let Some(authority) = uri.authority() {
                    let host = HeaderValue::from_str(authority.as_str()).unwrap();
                    request.headers_mut().insert(HOST, host);
                }
                let path = uri.path_and_query().unwrap().as_str();
                *request.uri_mut() = path.parse::<Uri>().unwrap();
                Box::pin(sender.send_request(request))
            }
            Self::Http2(sender) => Box::pin(sender.send_request(request)),
        };
        sent
    }

    /// Sends a request and reads its response.
    #[track_caller]
    pub fn ask(&mut self, request: Request<Body>) -> impl Future<Output = FullResponse> + use<> {
        let sent = self.send(request);
        within(async move { whole(sent.await.unwrap()).await.unwrap() })
    }

    /// Waits until the connection accepts another request; an error if it never does.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// Reads the whole body of a response.
pub async fn whole(response: Response<Incoming>) -> hyper::Result<FullResponse> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(FullResponse {
        status: head.status.as_u16(),
        headers: head.headers,
        body: collected.to_bytes(),
        trailers,
    })
}

/// Runs hyper's tasks on the test's thread.
#[derive(Clone)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
    }
}
