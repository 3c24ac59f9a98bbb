//! Endpoints that do what a script says.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use socket2::Socket;

use super::conn::Conn;
use super::message::Message;

/// A listening endpoint. Dropping it waits for its scripts, and fails the test if one of them failed.
pub struct Endpoint {
    /// What goes into `servers`.
    pub name: String,
    wake: Where,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

enum Where {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    connections: AtomicUsize,
    seen: Mutex<Vec<Message>>,
    failures: Mutex<Vec<String>>,
}

impl Endpoint {
    /// Runs the script on every connection.
    pub fn script(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::numbered(move |conn, _| script(conn))
    }

    /// Runs the script on every connection, with its number: 0 for the first.
    pub fn numbered(script: impl Fn(&mut Conn, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::on_tcp(listener, script)
    }

    /// Answers every request with what `answer` makes of it, on connections that stay open.
    pub fn answering<T: AsRef<[u8]>>(
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::accepting(listener, answer)
    }

    /// The same behind a listener that was bound before.
    pub fn accepting<T: AsRef<[u8]>>(
        listener: TcpListener,
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        let wake = Where::Tcp(listener.local_addr().unwrap());
        let state = Arc::<State>::default();
        let script = serve(state.clone(), answer);
        Self::start(
            wake,
            state,
            move || listener.accept().map(|(stream, _)| stream.into()),
            script,
        )
    }

    /// Runs the script behind a listener that was bound before.
    pub fn on_tcp(
        listener: TcpListener,
        script: impl Fn(&mut Conn, usize) + Send + Sync + 'static,
    ) -> Self {
        let wake = Where::Tcp(listener.local_addr().unwrap());
        let accept = move || listener.accept().map(|(stream, _)| stream.into());
        Self::start(wake, Arc::default(), accept, script)
    }

    /// Answers on a Unix socket.
    pub fn answering_unix<T: AsRef<[u8]>>(
        path: &Path,
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::<State>::default();
        let script = serve(state.clone(), answer);
        let accept = move || listener.accept().map(|(stream, _)| stream.into());
        Self::start(Where::Unix(path.to_owned()), state, accept, script)
    }

    fn start(
        wake: Where,
        state: Arc<State>,
        accept: impl Fn() -> std::io::Result<Socket> + Send + 'static,
        script: impl Fn(&mut Conn, usize) + Send + Sync + 'static,
    ) -> Self {
        let name = match &wake {
            Where::Tcp(address) => address.to_string(),
            Where::Unix(path) => format!("unix:{}", path.display()),
        };
        let (shared, script) = (state.clone(), Arc::new(script));
        let acceptor = spawn(move || {
            let mut running = Vec::new();
            while let Ok(socket) = accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, script) = (shared.clone(), script.clone());
                running.push(spawn(move || {
                    let mut conn = Conn::new(socket);
                    let ran = catch_unwind(AssertUnwindSafe(|| script(&mut conn, number)));
                    if let Err(panic) = ran {
                        let text = format!("connection {number}: {}", said(&*panic));
                        shared.failures.lock().unwrap().push(text);
                    }
                }));
            }
            running.into_iter().for_each(|thread| drop(thread.join()));
        });
        Self {
            name,
            wake,
            state,
            acceptor: Some(acceptor),
        }
    }

    /// How many connections have been made to it so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The requests that it has answered, or is about to.
    pub fn seen(&self) -> Vec<Message> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The only request that it has seen.
    #[track_caller]
    pub fn only(&self) -> Message {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "requests seen");
        seen.remove(0)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        match &self.wake {
            Where::Tcp(address) => drop(std::net::TcpStream::connect(address)),
            Where::Unix(path) => drop(std::os::unix::net::UnixStream::connect(path)),
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let failures = self.state.failures.lock().unwrap().join("\n");
        if !failures.is_empty() && !std::thread::panicking() {
            panic!("endpoint {}: {failures}", self.name);
        }
    }
}

/// A plain answer with this body.
pub fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn serve<T: AsRef<[u8]>>(
    state: Arc<State>,
    answer: impl Fn(&Message) -> T + Send + Sync + 'static,
) -> impl Fn(&mut Conn, usize) + Send + Sync + 'static {
    move |conn, _| {
        while let Some(request) = conn.next_request() {
            state.seen.lock().unwrap().push(request.clone());
            if conn.try_send(answer(&request)).is_err() {
                return;
            }
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
