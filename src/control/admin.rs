//! The admin listener: `/metrics` for Prometheus, `/healthz` and `/readyz` for load balancers and orchestrators, `/plan`
//! for people, and the [`api`]. Connections, heads and lifetimes are bounded, and a client that idles or does not read loses its
//! slot to the next ([`AdminSlots`]).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::admin_slots::{AdminSlot, AdminSlotLease, AdminSlots, AdminStream};
use super::api::{self, AdminPeer};
use super::handover::SocketPurpose;
use super::inherited_sockets::InheritedSockets;
use super::listen::{self, OwnedFile};
use super::shared_pages::PageBody;
use super::{Control, admin_pages, limits};
use crate::io::{Address, SocketOrigin};

/// A bound admin listener. Dropping it closes the listener and its connections.
pub(super) struct Admin {
    address: String,
    /// `None` once another process has taken it over.
    listener: Option<Rc<Listener>>,
    is_inherited: bool,
    task: Option<AbortHandle>,
    /// Dropped or changed when the listener accepts no more.
    leaving: watch::Sender<bool>,
    /// Removes the socket's file when dropped.
    file: Option<OwnedFile>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Admin {
    /// Binds, unless the process inherited the socket. Only owner and group may use a Unix socket. This process already
    /// listens on the TCP addresses in `taken`.
    ///
    /// # Errors
    /// The address cannot be bound. The message says what helps.
    pub(super) fn bind(
        address: &weir_config::Address,
        taken: &[SocketAddr],
        inherited: &mut InheritedSockets,
    ) -> Result<Self, String> {
        let address = match address {
            weir_config::Address::Tcp(ip) => Address::Ip(*ip),
            weir_config::Address::Unix(path) => Address::Unix(Arc::new(path.clone())),
        };
        let given = inherited.take(&address, SocketPurpose::Admin).pop();
        Self::open(&address, taken, given)
            .map_err(|error| format!("admin: {}", listen::explain(&address, &error)))
    }

    fn open(
        address: &Address,
        taken: &[SocketAddr],
        given: Option<(Socket, SocketOrigin)>,
    ) -> io::Result<Self> {
        let is_inherited = matches!(given, Some((_, SocketOrigin::Inherited)));
        let (listener, shown, file) = match (address, given) {
            (Address::Ip(_), Some((socket, _))) => {
                socket.set_nonblocking(true)?;
                let actual = socket.local_addr()?.as_socket();
                let shown = actual.map_or_else(|| address.to_string(), |ip| ip.to_string());
                let listener = Listener::Tcp(TcpListener::from_std(socket.into())?);
                (listener, shown, None)
            }
            (Address::Unix(path), Some((socket, origin))) => {
                socket.set_nonblocking(true)?;
                let listener = Listener::Unix(UnixListener::from_std(socket.into())?);
                let file = match origin {
                    SocketOrigin::Bound => Some(OwnedFile::shared(path)?),
                    SocketOrigin::Inherited => None,
                };
                (listener, address.to_string(), file)
            }
            (Address::Ip(ip), None) => {
                listen::probe(*ip, taken)?;
                let socket = listen::tcp(*ip, limits::ADMIN_BACKLOG)?;
                socket.set_nonblocking(true)?;
                let shown = socket.local_addr()?.to_string();
                (Listener::Tcp(TcpListener::from_std(socket)?), shown, None)
            }
            (Address::Unix(path), None) => {
                let (socket, file) = listen::unix(path, limits::ADMIN_BACKLOG, Some(0o660))?;
                socket.set_nonblocking(true)?;
                (
                    Listener::Unix(UnixListener::from_std(socket)?),
                    address.to_string(),
                    Some(file),
                )
            }
        };
        Ok(Self {
            address: shown,
            listener: Some(Rc::new(listener)),
            is_inherited,
            task: None,
            leaving: watch::channel(false).0,
            file,
        })
    }

    /// Another descriptor of the socket, for a process that takes over.
    pub(super) fn share(&self) -> Option<io::Result<OwnedFd>> {
        let listener = self.listener.as_ref()?;
        Some(match &**listener {
            Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Listener::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        })
    }

    /// Whether a service manager has made the socket.
    pub(super) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Accepts no more, because another process does. Requests under way are answered.
    pub(super) fn leave(&mut self) {
        self.listener = None;
        if let Some(file) = &self.file {
            file.leave();
        }
        self.leaving.send_replace(true);
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The socket's file, if it has one.
    pub(super) fn file(&self) -> Option<&OwnedFile> {
        self.file.as_ref()
    }

    /// Starts answering.
    pub(super) fn serve(&mut self, control: Rc<Control>) {
        if let Some(listener) = self.listener.clone() {
            let accepting = accept(listener, control, self.leaving.subscribe());
            self.task = Some(spawn_local(accepting).abort_handle());
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn accept(listener: Rc<Listener>, control: Rc<Control>, mut leaving: watch::Receiver<bool>) {
    let slots = Rc::<AdminSlots>::default();
    // Connections end when this task does.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let control = control.clone();
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leaving.changed() => break,
        };
        match accepted {
            Ok(stream) => {
                let lease = slots.take(limits::ADMIN_CONNECTIONS_MAX);
                let leaving = leaving.clone();
                drop(connections.spawn_local(async move {
                    match stream {
                        Stream::Tcp(stream, peer) => {
                            serve_connection(
                                (stream, AdminPeer::Tcp(peer)),
                                lease,
                                control,
                                leaving,
                            )
                            .await
                        }
                        Stream::Unix(stream) => {
                            serve_connection((stream, AdminPeer::Unix), lease, control, leaving)
                                .await
                        }
                    }
                }));
            }
            // Most likely out of descriptors. The connection stays in the kernel's queue until one is free.
            Err(_) => sleep(limits::WATCH).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Stream::Tcp(stream, peer))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn serve_connection(
    (stream, peer): (impl AsyncRead + AsyncWrite + Unpin + 'static, AdminPeer),
    lease: AdminSlotLease,
    control: Rc<Control>,
    mut leaving: watch::Receiver<bool>,
) {
    let slot = lease.slot.clone();
    let stream = AdminStream {
        stream,
        slot: slot.clone(),
    };
    let reader = slot.clone();
    let service = hyper::service::service_fn(move |request| {
        let (control, reader) = (control.clone(), reader.clone());
        async move {
            if api::has(request.uri().path()) {
                // In a box: most clients ask for metrics and health alone.
                let answered = Box::pin(api::answer(request, &control, &reader, peer));
                return Ok::<_, Infallible>(answered.await);
            }
            Ok(answer(&request, &control, &reader))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD)
        .max_buf_size(limits::ADMIN_HEAD_BYTES_MAX)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = async {
        tokio::select! {
            // An error is the client's: it left, or sent an invalid request and got 400.
            _ = connection.as_mut() => return,
            _ = leaving.wait_for(|leaves| *leaves) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    };
    tokio::select! {
        _ = timeout(limits::ADMIN_CONNECTION, served) => {}
        () = slot.evicted() => {}
    }
}

fn answer(
    request: &Request<Incoming>,
    control: &Control,
    reader: &Rc<AdminSlot>,
) -> Response<PageBody> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET and HEAD only\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            control
                .metrics_pages
                .get(reader, |length| admin_pages::metrics(control, length)),
        ),
        "/healthz" => {
            let verbose = request
                .uri()
                .query()
                .is_some_and(|query| query.split('&').any(|word| word == "verbose"));
            let status = if control.draining.get() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            plain(status, admin_pages::health(control, verbose))
        }
        "/readyz" => match is_ready(control) {
            true => plain(StatusCode::OK, "ready\n".to_owned()),
            false => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        },
        "/plan" => page(
            StatusCode::OK,
            "application/json",
            control
                .plan_pages
                .get(reader, |length| admin_pages::plan(control, length)),
        ),
        "/" => plain(StatusCode::OK, INDEX.to_owned()),
        _ => plain(StatusCode::NOT_FOUND, INDEX.to_owned()),
    }
}

/// Whether every core runs the current plan, and no drain has begun.
fn is_ready(control: &Control) -> bool {
    !control.draining.get() && control.obs.all_run(control.state.borrow().plan.epoch)
}

const INDEX: &str = "\
/metrics          counters and times, for Prometheus
/healthz          200 while serving, 503 while draining
/healthz?verbose  the same with details, such as the last failed reload
/readyz           200 while every core runs the current plan and no drain has begun, else 503
/plan             the running plan, as JSON
/api              what the API can do, which changes endpoints and reloads (OpenAPI)
";

fn plain(status: StatusCode, text: String) -> Response<PageBody> {
    page(status, "text/plain; charset=utf-8", text.into())
}

fn page(status: StatusCode, content_type: &'static str, text: Bytes) -> Response<PageBody> {
    let mut response = Response::new(PageBody(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
