//! Starts and stops: drains, and what Weir tells its supervisors.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::*;
use rustix::process::Signal;

const ANSWER: &str = "[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n";

/// Clients that connect and send requests in a loop until the listener is gone. Every accepted connection must get an
/// answer.
struct Burst {
    clients: Vec<std::thread::JoinHandle<usize>>,
    answered: Arc<AtomicUsize>,
}

impl Burst {
    fn at(connect: impl Fn() -> std::io::Result<socket2::Socket> + Clone + Send + 'static) -> Self {
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = (0..8).map(|_| {
            let (connect, answered) = (connect.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut count = 0;
                loop {
                    let mut client = match connect() {
                        Ok(client) => client,
                        Err(error) => {
                            let kind = error.kind();
                            let gone = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
                            assert!(gone.contains(&kind), "{error}");
                            return count;
                        }
                    };
                    client.set_read_timeout(Some(DEADLINE)).unwrap();
                    let mut answer = String::new();
                    client
                        .write_all(get("/").as_bytes())
                        .unwrap_or_else(|error| {
                            panic!("connection {count}: {error}");
                        });
                    let mut bytes = [0; 4096];
                    while !answer.ends_with("here") {
                        let n = client.read(&mut bytes).unwrap_or_else(|error| {
                            panic!("connection {count} after {answer:?}: {error}")
                        });
                        assert!(n > 0, "connection {count} ended after {answer:?}");
                        answer += std::str::from_utf8(&bytes[..n]).unwrap();
                    }
                    count += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            clients: clients.collect(),
            answered,
        }
    }

    fn at_tcp(address: SocketAddr) -> Self {
        Self::at(move || TcpStream::connect(address).map(Into::into))
    }

    fn at_unix(path: &Path) -> Self {
        let path = path.to_owned();
        Self::at(move || {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            socket.connect(&socket2::SockAddr::unix(&path)?)?;
            Ok(socket)
        })
    }

    #[track_caller]
    fn wait_for_some(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("answers", || {
            (self.answered.load(Ordering::Relaxed) > before + 50).then_some(())
        });
    }

    #[track_caller]
    fn end(self) {
        let all: usize = self
            .clients
            .into_iter()
            .map(|each| each.join().unwrap())
            .sum();
        assert!(all > 50);
    }
}

#[test]
fn no_connected_client_is_reset_when_weir_stops() {
    for driver in ["ring", "monoio"] {
        let dir = Weir::dir();
        let path = dir.join("front.sock");
        let mut weir = Weir::start_in(
            &dir,
            &format!(
                "cores = 2\ndriver = \"{driver}\"\naccess_log = \"off\"\n[listen.\"127.0.0.1:0\"]\n\
                 [listen.\"unix:{}\"]\n{ANSWER}",
                path.display()
            ),
        );
        let (tcp, unix) = (Burst::at_tcp(weir.address), Burst::at_unix(&path));
        tcp.wait_for_some();
        unix.wait_for_some();
        weir.signal(Signal::TERM);
        assert_eq!(weir.wait().code(), Some(0));
        tcp.end();
        unix.end();
    }
}

#[test]
fn no_connected_client_is_reset_when_a_reload_removes_a_listener() {
    let dir = Weir::dir();
    let path = dir.join("front.sock");
    let stays = format!("cores = 2\naccess_log = \"off\"\n{ANSWER}[listen.\"127.0.0.3:0\"]\n");
    let goes = format!(
        "[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{}\"]\n",
        path.display()
    );
    let weir = Weir::start_in(&dir, &format!("{stays}{goes}"));
    let listening = weir.wait_for("listening on ");
    let address = listening
        .split(", ")
        .find(|address| address.starts_with("127.0.0.1:"))
        .unwrap();
    let (tcp, unix) = (
        Burst::at_tcp(address.parse().unwrap()),
        Burst::at_unix(&path),
    );
    tcp.wait_for_some();
    unix.wait_for_some();
    weir.reload(&stays);
    weir.wait_for("reloaded in");
    // Once Weir reports the reload, other programs may bind the address.
    std::net::TcpListener::bind(address).unwrap();
    tcp.end();
    unix.end();
}

#[test]
fn a_request_on_its_way_when_weir_ends_is_answered() {
    let mut weir = Weir::start(ANSWER);
    let mut fresh = weir.connect();
    let mut used = weir.connect();
    used.send(get("/"));
    used.response();
    eventually("both connections", || {
        let open = weir.metric("weir_connections_open{listener=\"127.0.0.1:0\"}");
        (open == 2.0).then_some(())
    });
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM: draining");
    // An empty connection may still carry a request.
    used.expect_closed();
    fresh.send(get("/"));
    let response = fresh.response();
    assert_eq!(
        (response.status(), response.field("Connection")),
        (200, Some("close"))
    );
    fresh.expect_closed();
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn weir_serves_on_while_load_balancers_notice() {
    let mut weir = Weir::start(&format!("timeouts = {{ drain_delay = \"20s\" }}\n{ANSWER}"));
    let mut kept = weir.connect();
    kept.send(get("/"));
    assert_eq!(kept.response().field("Connection"), None);
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM: health says 503 now; serving on for 20");
    let health = weir.admin("/healthz");
    assert_eq!(
        (health.status(), health.text().as_str()),
        (503, "draining\n")
    );
    // Weir accepts connections, keeps idle ones, and answers with `Connection: close`.
    let mut fresh = weir.connect();
    for client in [&mut fresh, &mut kept] {
        client.send(get("/"));
        let response = client.response();
        assert_eq!(
            (response.status(), response.field("Connection")),
            (200, Some("close"))
        );
        client.expect_closed();
    }
    // Weir ignores reloads while it drains, but still reopens logs.
    weir.signal(Signal::HUP);
    weir.wait_for("nothing is reloaded");
    weir.signal(Signal::USR1);
    weir.wait_for("SIGUSR1: reopening logs");
    assert_eq!(weir.ask(get("/")).status(), 200);
    // A second signal ends the delay.
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM again: draining");
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn the_delay_of_a_drain_ends_by_itself() {
    let mut weir = Weir::start(&format!(
        "timeouts = {{ drain_delay = \"300ms\" }}\n{ANSWER}"
    ));
    let begun = Instant::now();
    weir.signal(Signal::TERM);
    weir.wait_for("serving on for 0.300 s");
    assert_eq!(weir.wait().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
