//! Endpoints that speak either protocol.

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
use super::{Body, Speaks, Tls};

/// A listening endpoint. It is gone when it is dropped.
pub struct Server {
    /// What goes into `servers`.
    pub name: String,
    pub address: SocketAddr,
    connections: Rc<Cell<usize>>,
    acceptor: AbortHandle,
}

/// What a handler may answer with.
pub trait Answers:
    hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static
{
}

impl<B> Answers for B where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + 'static
{
}

/// A plain answer.
pub fn answer(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Body::of(body))
}

impl Server {
    /// Answers with what `handler` makes of a request.
    pub async fn start<F, R, B>(speaks: Speaks, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: Answers,
    {
        Self::listen(speaks, None, handler).await
    }

    /// The same over TLS; it offers what it speaks by ALPN.
    pub async fn start_tls<F, R, B>(speaks: Speaks, tls: &Tls, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: Answers,
    {
        Self::listen(speaks, Some(tls.acceptor(speaks)), handler).await
    }

    async fn listen<F, R, B>(
        speaks: Speaks,
        tls: Option<tokio_rustls::TlsAcceptor>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + 'static,
        R: Future<Output = Response<B>> + 'static,
        B: Answers,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = match (&tls, speaks) {
            (Some(_), _) => format!("https://localhost:{}", address.port()),
            (None, Speaks::Http1) => address.to_string(),
            (None, Speaks::Http2) => format!("h2c://{address}"),
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
                        None => serve(speaks, TokioIo::new(stream), handler).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(speaks, TokioIo::new(stream), handler).await,
                            Err(error) => eprintln!("the endpoint's handshake: {error}"),
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

    /// How many connections have been made to it so far.
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
pub async fn serve<T, F, R, B>(speaks: Speaks, io: T, handler: Rc<F>)
where
    T: Read + Write + Unpin + 'static,
    F: Fn(Request<Incoming>) -> R + 'static,
    R: Future<Output = Response<B>> + 'static,
    B: Answers,
{
    let service = service_fn(move |request| {
        let answered = handler(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // How a connection ends is what tests look at from the other side.
    match speaks {
        Speaks::Http1 => drop(
            http1::Builder::new()
                .half_close(true)
                .serve_connection(io, service)
                .await,
        ),
        Speaks::Http2 => drop(
            http2::Builder::new(Local)
                .serve_connection(io, service)
                .await,
        ),
    }
}
