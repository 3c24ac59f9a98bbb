//! Independent HTTP/1.1 peers: hyper on both sides, and curl.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::task::{Context, Poll};

use e2e::*;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// A hyper server on its own thread that echoes bodies and trailers.
struct Hyper {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Hyper {
    fn start() -> Self {
        let (tell, told) = channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            run(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                spawn_local(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let service = hyper::service::service_fn(echo);
                        let connection = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service);
                        spawn_local(connection);
                    }
                });
                let _ = stopped.await;
            });
        });
        Self {
            address: told.recv_timeout(DEADLINE).unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn weir(&self) -> Weir {
        Weir::start(&format!(
            "[upstream.up]\nservers = [\"{}\"]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
            self.address
        ))
    }
}

impl Drop for Hyper {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Frames>, Infallible> {
    let path = HeaderValue::from_str(request.uri().path()).unwrap();
    let collected = request.into_body().collect().await.unwrap();
    let mut response = Response::builder().header("X-Path", path);
    let trailers = collected.trailers().cloned();
    let mut frames = VecDeque::from([Frame::data(collected.to_bytes())]);
    if let Some(trailers) = trailers {
        response = response.header(TRAILER, "x-sum");
        frames.push_back(Frame::trailers(trailers));
    }
    Ok(response.body(Frames(frames)).unwrap())
}

/// A body without a length, which hyper sends in chunks.
struct Frames(VecDeque<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(4 * DEADLINE, task)
            .await
            .expect("in time")
    })
}

/// A hyper client on a new connection.
async fn client<B>(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    spawn_local(connection);
    sender
}

fn pattern(len: usize, seed: usize) -> Bytes {
    (0..len).map(|n| ((n * 7 + seed) % 251) as u8).collect()
}

#[test]
fn hyper_talks_to_hyper_with_bodies_of_all_sizes() {
    let server = Hyper::start();
    let weir = server.weir();
    let address = weir.address;
    run(async {
        let one = |task: usize| async move {
            let mut sized = client::<Full<Bytes>>(address).await;
            let mut chunked = client::<Frames>(address).await;
            for n in 0..30 {
                let path = format!("/{task}/{n}");
                let body = pattern([0, 1, 100, 4_096, 70_000, 300_000][(task + n) % 6], n);
                let request = || {
                    Request::builder()
                        .method(Method::POST)
                        .uri(&path)
                        .header("Host", "weir.test")
                };
                let pieces = body
                    .chunks(9_999)
                    .map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
                let responses = [
                    sized
                        .send_request(request().body(Full::new(body.clone())).unwrap())
                        .await
                        .unwrap(),
                    chunked
                        .send_request(request().body(Frames(pieces.collect())).unwrap())
                        .await
                        .unwrap(),
                ];
                for response in responses {
                    assert_eq!(response.status(), StatusCode::OK);
                    assert_eq!(response.headers()["X-Path"], *path);
                    assert!(
                        response.into_body().collect().await.unwrap().to_bytes() == body,
                        "{path}"
                    );
                }
            }
        };
        let tasks: Vec<_> = (0..8).map(|task| spawn_local(one(task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn trailers_of_hyper_reach_hyper() {
    let server = Hyper::start();
    let weir = server.weir();
    run(async {
        let mut sender = client::<Frames>(weir.address).await;
        let mut trailers = HeaderMap::new();
        trailers.insert(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("42"),
        );
        let frames = VecDeque::from([
            Frame::data(Bytes::from("summed")),
            Frame::trailers(trailers),
        ]);
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/")
            .header("Host", "weir.test")
            .header(TRAILER, "x-sum")
            .header("TE", "trailers")
            .header("Connection", "TE")
            .body(Frames(frames))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
        assert_eq!(collected.to_bytes(), "summed");
    });
}

#[test]
fn hyper_sees_a_truncated_answer_as_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let endpoint = Endpoint::script(move |conn| {
            if conn.next_request().is_some() {
                conn.send(answer);
            }
        });
        let weir = Weir::to(&[&endpoint]);
        run(async {
            let mut sender = client::<Full<Bytes>>(weir.address).await;
            let request = Request::builder()
                .uri("/")
                .header("Host", "weir.test")
                .body(Full::default())
                .unwrap();
            let whole = match sender.send_request(request).await {
                Ok(response) => response.into_body().collect().await.is_ok(),
                Err(_) => false,
            };
            assert!(!whole, "{answer:?}");
        });
    }
}

/// Runs curl with these arguments and this standard input. Panics unless it succeeds.
#[track_caller]
fn curl(arguments: &[&str], input: &[u8]) -> String {
    let seconds = DEADLINE.as_secs().to_string();
    let mut child = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--max-time", &seconds])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl is there: scripts/setup installs it");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // curl may exit before it has read all of its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_gets_posts_and_uploads() {
    let server = Hyper::start();
    let weir = server.weir();
    let url = format!("http://{}/a/path", weir.address);
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|n| b'a' + (n % 1_009 % 26) as u8)
        .collect();
    let large_text = String::from_utf8(large.clone()).unwrap();
    assert!(curl(&["-i", &url], b"").contains("x-path: /a/path\r\n"));
    assert_eq!(curl(&["-d", "a=b", &url], b""), "a=b");
    // Above a megabyte curl sends Expect: 100-continue.
    assert!(
        curl(
            &["--data-binary", "@-", "-H", "Expect: 100-continue", &url],
            &large
        ) == large_text
    );
    assert!(curl(&["-T", "-", &url], &large) == large_text, "in chunks");
    assert_eq!(curl(&["--http1.0", "-d", "old", &url], b""), "old");
    assert!(curl(&["-I", &url], b"").starts_with("HTTP/1.1 200 OK\r\n"));
    // Two requests on one connection.
    let twice = curl(&["-d", "x", "-w", "%{num_connects}", &url, &url], b"");
    assert_eq!(twice, "x1x0");
    let size = curl(
        &[
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            "--data-binary",
            "@-",
            &url,
        ],
        &large,
    );
    assert_eq!(size, "3000000");
}

#[test]
fn curl_follows_redirects_and_shows_answers_of_weir() {
    let weir = Weir::start(
        "[[route]]\nmatch = \"/old/*\"\nredirect = { location = \"/new/{rest}\", status = 308 }\n\
         [[route]]\nmatch = \"/new/*\"\nrespond = \"here\"\n",
    );
    let at = |path: &str| format!("http://{}{path}", weir.address);
    assert_eq!(curl(&["-L", "-d", "body", &at("/old/x")], b""), "here");
    assert_eq!(
        curl(
            &["-w", "%{http_code}", "-o", "/dev/null", &at("/none")],
            b""
        ),
        "404"
    );
    // curl resolves dot segments itself unless told not to.
    assert_eq!(
        curl(&["--path-as-is", &at("/none/../new/./y")], b""),
        "here"
    );
    assert_eq!(
        curl(&["-w", " %{content_type}", &at("/new/y")], b""),
        "here text/plain; charset=utf-8"
    );
    assert_eq!(
        curl(
            &["-w", "%{content_type}", "-o", "/dev/null", &at("/none")],
            b""
        ),
        "application/problem+json"
    );
}

#[test]
fn curl_speaks_to_unix_sockets_and_to_the_admin_listener() {
    let dir = Weir::dir();
    let file = dir.join("w.sock");
    let text = file.display().to_string();
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{text}\"]\nmode = \"0606\"\n[[route]]\nmatch = \"/*\"\nrespond = \"by file\"\n"
        ),
    );
    assert_eq!(
        curl(&["--unix-socket", &text, "http://any/"], b""),
        "by file"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
    assert_eq!(
        curl(&[&format!("http://{}/healthz", weir.admin)], b""),
        "serving\n"
    );
}
