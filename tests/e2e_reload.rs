//! Reloads under load. No request fails, and no connection of a listener that stays is closed.
//!
//! `scripts/reload-load` runs the same test at a higher rate and with another binary.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{DEADLINE, Load, Weir, eventually};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use peers::*;
use tungstenite::Message as Frame;

const RELOADS: u32 = 50;
const PERIOD: Duration = Duration::from_millis(200);

/// How many requests all clients together send in a second.
fn rate() -> u32 {
    let set = std::env::var("WEIR_RELOAD_RATE");
    set.map_or(400, |rate| rate.parse().expect("a number"))
}

/// The configuration of the reload with this number. Everything changes but the first listener and the endpoints.
fn config(n: u32, endpoints: [&str; 3]) -> String {
    let [http1, http2, socket] = endpoints;
    let balance = ["p2c", "round_robin", "least_conn", "random"][n as usize % 4];
    let spare = match n % 2 {
        0 => "",
        _ => "[listen.\"127.0.0.3:0\"]\n",
    };
    let routes: String = (0..n % 7)
        .map(|route| format!("[[route]]\nmatch = \"/more/{route}\"\nrespond = \"{n}\"\n"))
        .collect();
    format!(
        "cores = 2\naccess_log = \"off\"\nheaders = {{ response = {{ set = {{ \"x-reload\" = \"{n}\" }} }} }}\n\
         [listen.\"127.0.0.1:0\"]\n{spare}\
         [upstream.one]\nservers = [\"{http1}\"]\nbalance = \"{balance}\"\n\
         [upstream.two]\nservers = [\"{http2}\"]\npool = {{ connections = {} }}\n\
         [upstream.socket]\nservers = [\"{socket}\"]\n\
         {routes}\
         [[route]]\nmatch = \"/socket\"\nto = \"socket\"\n\
         [[route]]\nmatch = \"/grpc/*\"\nto = \"two\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"one\"\n",
        8 + n % 3,
    )
}

/// Answers a call of gRPC with its message.
async fn call(request: Request<Incoming>) -> Response<Body> {
    let message = http_body_util::BodyExt::collect(request.into_body());
    let message = message.await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Body::trailed(message, 1024, trailers));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// An endpoint that echoes the messages of WebSockets.
fn start_socket_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut socket = tungstenite::accept(stream).unwrap();
                while let Ok(frame) = socket.read() {
                    if frame.is_text() {
                        socket.send(frame).unwrap();
                    }
                }
            });
        }
    });
    address
}

/// Echoes messages over one WebSocket until the load is over.
fn start_socket_client(weir: SocketAddr, load: Load, pause: Duration) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let stream = TcpStream::connect(weir).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (mut socket, response) =
            tungstenite::client("ws://weir.test/socket", stream).expect("the handshake");
        assert_eq!(response.status(), 101);
        let mut n = 0;
        while load.goes_on() {
            let frame = Frame::text(format!("message {n}"));
            socket.send(frame.clone()).expect("the socket is open");
            assert_eq!(socket.read().expect("the socket is open"), frame);
            load.count();
            n += 1;
            std::thread::sleep(pause);
        }
    })
}

/// Sends requests over one connection until the load is over, one every `pause` if the answers are fast enough.
async fn request_on(mut client: Client, load: Load, path: &'static str, pause: Duration) {
    let begun = Instant::now();
    let mut n = 0;
    while load.goes_on() {
        client.ready().await.expect("the connection is open");
        let body = pattern(50, n as usize);
        let mut request = request("POST", path);
        if path.starts_with("/grpc") {
            request = request.header("content-type", "application/grpc");
            request = request.header("te", "trailers");
        }
        let request = request.body(Body::of(body.clone())).unwrap();
        let answer = client.ask(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, body);
        assert!(answer.headers.contains_key("x-reload"));
        assert_eq!(answer.field("connection"), None);
        if path.starts_with("/grpc") {
            assert_eq!(answer.trailers["grpc-status"], "0");
        }
        load.count();
        n += 1;
        tokio::time::sleep_until((begun + pause * n).into()).await;
    }
    assert!(!client.is_closed());
}

/// Reloads [`RELOADS`] times, one every [`PERIOD`] if reloads are fast enough.
fn reload_often(weir: &Weir, endpoints: [&str; 3]) {
    let begun = Instant::now();
    for n in 1..=RELOADS {
        weir.reload(&config(n, endpoints));
        eventually("the reload", || {
            (weir.metric("weir_reload_total") == f64::from(n)).then_some(())
        });
        std::thread::sleep((begun + PERIOD * n).saturating_duration_since(Instant::now()));
    }
    println!("{RELOADS} reloads in {:?}", begun.elapsed());
}

#[test]
fn fifty_reloads_under_load_fail_no_request_and_close_no_connection() {
    // By client: each of these sends its part of the rate.
    const PATHS: [(Protocol, &str); 10] = [
        (Protocol::Http1, "/one"),
        (Protocol::Http1, "/two"),
        (Protocol::Http1, "/three"),
        (Protocol::Http1, "/four"),
        (Protocol::Http2, "/five"),
        (Protocol::Http2, "/six"),
        (Protocol::Http2, "/seven"),
        (Protocol::Http2, "/grpc/one"),
        (Protocol::Http2, "/grpc/two"),
        (Protocol::Http2, "/grpc/three"),
    ];
    const SOCKETS: u32 = 2;
    run(async {
        let asked = Rc::new(Cell::new(0_u64));
        let counter = asked.clone();
        let plain = Server::start(Protocol::Http1, move |request: Request<Incoming>| {
            counter.set(counter.get() + 1);
            async move {
                let body = http_body_util::BodyExt::collect(request.into_body());
                answer(body.await.unwrap().to_bytes())
            }
        })
        .await;
        let grpc = Server::start(Protocol::Http2, call).await;
        let socket = start_socket_endpoint().to_string();
        let endpoints = [plain.name.as_str(), grpc.name.as_str(), socket.as_str()];
        let weir = Weir::start(&config(0, endpoints));
        let load = Load::default();
        let pause = Duration::from_secs(1) * (PATHS.len() as u32 + SOCKETS) / rate();
        let sockets: Vec<_> = (0..SOCKETS)
            .map(|_| start_socket_client(weir.address, load.clone(), pause))
            .collect();
        let mut clients = Vec::new();
        for (protocol, path) in PATHS {
            let client = Client::connect(protocol, weir.address).await;
            let client = request_on(client, load.clone(), path, pause);
            clients.push(tokio::task::spawn_local(client));
        }
        let names = endpoints.map(str::to_owned);
        let reloading = load.clone();
        let reloads = tokio::task::spawn_blocking(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                reload_often(&weir, names.each_ref().map(String::as_str));
            }));
            reloading.end();
            (weir, done)
        });
        let (weir, done) = reloads.await.unwrap();
        for client in clients {
            client.await.expect("no request failed");
        }
        for socket in sockets {
            socket.join().expect("the socket stayed open");
        }
        done.expect("all reloads took effect");
        let exchanges = load.exchanges();
        println!(
            "{exchanges} exchanges, {} at the plain endpoint",
            asked.get()
        );
        assert!(exchanges > u64::from(RELOADS), "{exchanges}");
        assert_eq!(weir.metric("weir_reload_failed_total"), 0.0);
    });
}
