//! Endpoints that follow a script.

use std::any::Any;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use socket2::Socket;

use super::conn::Conn;
use super::message::Message;

/// A listening endpoint. Dropping it waits for its scripts to return, and fails the test if one of them panicked.
pub struct Endpoint {
    /// Its address as `servers` lists it.
    pub name: String,
    listener: Socket,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    seen: Mutex<Vec<Message>>,
    failures: Mutex<Vec<String>>,
}

impl Endpoint {
    /// Runs `script` on every connection.
    pub fn script(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::numbered(move |conn, _| script(conn))
    }

    /// Runs `script` on every connection and passes the connection's number, from 0.
    pub fn numbered(script: impl Fn(&mut Conn, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        Self::start(name, listener.into(), Arc::default(), script)
    }

    /// Answers every request with the result of `answer` and keeps connections open.
    pub fn answering<T: AsRef<[u8]>>(
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::answering_at("127.0.0.1:0", answer)
    }

    /// Like `answering`, on an address of the test's choice.
    pub fn answering_at<T: AsRef<[u8]>>(
        address: &str,
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let state = Arc::<State>::default();
        Self::start(name, listener.into(), state.clone(), serve(state, answer))
    }

    /// Like `answering`, on a Unix socket.
    pub fn answering_unix<T: AsRef<[u8]>>(
        path: &Path,
        answer: impl Fn(&Message) -> T + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let name = format!("unix:{}", path.display());
        let state = Arc::<State>::default();
        Self::start(name, listener.into(), state.clone(), serve(state, answer))
    }

    fn start(
        name: String,
        listener: Socket,
        state: Arc<State>,
        script: impl Fn(&mut Conn, usize) + Send + Sync + 'static,
    ) -> Self {
        let (accepting, shared) = (listener.try_clone().unwrap(), state.clone());
        let acceptor = spawn(move || accept(&accepting, &shared, &Arc::new(script)));
        Self {
            name,
            listener,
            state,
            acceptor: Some(acceptor),
        }
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// All requests read so far, including one that is just being answered.
    pub fn requests(&self) -> Vec<Message> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The only request so far. Asserts that there is exactly one.
    #[track_caller]
    pub fn only_request(&self) -> Message {
        let mut seen = self.requests();
        assert_eq!(seen.len(), 1, "number of requests");
        seen.remove(0)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Ends the pending accept, and with it the accept loop.
        let _ = self.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let failures = self.state.failures.lock().unwrap().join("\n");
        if !failures.is_empty() && !std::thread::panicking() {
            panic!("endpoint {}: {failures}", self.name);
        }
    }
}

/// Runs `script` on a thread for each connection until the listener is shut down, then waits for all threads.
fn accept<F>(listener: &Socket, state: &Arc<State>, script: &Arc<F>)
where
    F: Fn(&mut Conn, usize) + Send + Sync + 'static,
{
    let mut running = Vec::new();
    while let Ok((socket, _)) = listener.accept() {
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        let (state, script) = (state.clone(), script.clone());
        running.push(spawn(move || {
            let mut conn = Conn::new(socket);
            let ran = catch_unwind(AssertUnwindSafe(|| script(&mut conn, number)));
            if let Err(panic) = ran {
                let text = format!("connection {number}: {}", panic_text(&*panic));
                state.failures.lock().unwrap().push(text);
            }
        }));
    }
    running.into_iter().for_each(|thread| drop(thread.join()));
}

/// A 200 response with this body.
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

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
