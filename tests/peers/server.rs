//! HTTP/1.1 and HTTP/2 endpoints.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, spawn_local};

use super::client::Local;
use super::{Body, Protocol, Tls};

/// A listening endpoint. Dropping it closes its listener.
pub struct Server {
    /// Its address as `servers` lists it.
    pub name: String,
    pub address: SocketAddr,
    connections: Rc<Cell<usize>>,
    acceptor: AbortHandle,
}

/// A body that a handler may answer with.
pub trait ResponseBody:
    hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static
{
}

impl<B> ResponseBody for B where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + 'static
{
}

/// A 200 response with this body.
pub fn answer(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Body::of(body))
}

impl Server {
    /// Answers every request with the result of `handler`.
    pub async fn start<F, R, B>(protocol: Protocol, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: ResponseBody,
    {
        Self::listen(protocol, None, handler).await
    }

    /// Like `start`, over TLS. ALPN offers only `protocol`.
    pub async fn start_tls<F, R, B>(protocol: Protocol, tls: &Tls, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: ResponseBody,
    {
        Self::listen(protocol, Some(tls.acceptor(protocol)), handler).await
    }

    async fn listen<F, R, B>(
        protocol: Protocol,
        tls: Option<tokio_rustls::TlsAcceptor>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: ResponseBody,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = match (&tls, protocol) {
            (Some(_), _) => format!("https://localhost:{}", address.port()),
            (None, Protocol::Http1) => address.to_string(),
            (None, Protocol::Http2) => format!("h2c://{address}"),
        };
        let connections = Rc::new(Cell::new(0));
        let (count, handler) = (connections.clone(), Rc::new(handler));
        let acceptor = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                stream.set_nodelay(true).unwrap();
                let (tls, handler) = (tls.clone(), handler.clone());
                spawn_local(async move {
                    match tls {
                        None => serve(protocol, TokioIo::new(stream), handler).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(protocol, TokioIo::new(stream), handler).await,
                            Err(error) => eprintln!("TLS handshake at the endpoint: {error}"),
                        },
                    }
                });
            }
        });
        Self {
            name,
            address,
            connections,
            acceptor: acceptor.abort_handle(),
        }
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Serves one connection to its end.
pub async fn serve<T, F, R, B>(protocol: Protocol, io: T, handler: Rc<F>)
where
    T: Read + Write + Unpin + 'static,
    F: Fn(Request<Incoming>) -> R + 'static,
    R: Future<Output = Response<B>> + 'static,
    B: ResponseBody,
{
    let service = service_fn(move |request| {
        let answered = handler(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // Tests look at the end of a connection from Weir's side, so errors are dropped here.
    match protocol {
        Protocol::Http1 => drop(
            http1::Builder::new()
                .half_close(true)
                .serve_connection(io, service)
                .await,
        ),
        Protocol::Http2 => drop(
            http2::Builder::new(Local)
                .serve_connection(io, service)
                .await,
        ),
    }
}
