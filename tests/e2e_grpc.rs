//! gRPC, with tonic on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{
    ClientStreamingService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

use e2e::Weir;
use peers::*;

/// Messages are plain bytes, because a proxy does not look into them.
#[derive(Clone, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type Called<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The service. The path of a call says what to do. A channel reports calls that end early.
#[derive(Clone)]
struct Service {
    lost: UnboundedSender<&'static str>,
}

/// Reports if it is dropped before its call is over.
struct Guard(&'static str, UnboundedSender<&'static str>, bool);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.2 {
            let _ = self.1.send(self.0);
        }
    }
}

impl UnaryService<Bytes> for Service {
    type Response = Bytes;
    type Future = Called<Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let guard = Guard("unary", self.lost.clone(), false);
        Box::pin(async move {
            let mut guard = guard;
            let metadata = request.metadata().clone();
            let message = request.into_inner();
            if &message[..] == b"hang" {
                std::future::pending::<()>().await;
            }
            guard.2 = true;
            if &message[..] == b"fail" {
                return Err(Status::failed_precondition("not now: 100% \u{fc}ber"));
            }
            let mut response = Response::new(message);
            if let Some(large) = metadata.get("x-large") {
                response.metadata_mut().insert("x-large", large.clone());
            }
            if let Some(binary) = metadata.get_bin("x-raw-bin") {
                response
                    .metadata_mut()
                    .insert_bin("x-raw-bin", binary.clone());
            }
            Ok(response)
        })
    }
}

impl ClientStreamingService<Bytes> for Service {
    type Response = Bytes;
    type Future = Called<Bytes>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let (mut messages, mut len, mut sums) = (request.into_inner(), 0, 0);
            while let Some(message) = messages.next().await {
                let message = message?;
                len += message.len();
                sums ^= sum(&message);
            }
            Ok(Response::new(format!("{len} {sums:x}").into()))
        })
    }
}

impl ServerStreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Called<Messages>;

    /// Sends `count` messages of `size` bytes; 0 of them means without end.
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let text = String::from_utf8(request.into_inner().to_vec()).unwrap();
        let (count, len) = text.split_once(' ').unwrap();
        let (count, len): (usize, usize) = (count.parse().unwrap(), len.parse().unwrap());
        let guard = Guard("messages", self.lost.clone(), count > 0);
        let endless = tokio_stream::iter(0..).map(move |n| {
            let _ = &guard;
            Ok(pattern(len, n))
        });
        let messages: Messages = match count {
            0 => Box::pin(endless),
            count => Box::pin(endless.take(count)),
        };
        Box::pin(async { Ok(Response::new(messages)) })
    }
}

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Called<Messages>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner().map(|message| {
            let message = message?;
            if &message[..] == b"fail" {
                return Err(Status::aborted("as asked"));
            }
            Ok(Bytes::from(message.to_ascii_uppercase()))
        });
        Box::pin(async { Ok(Response::new(Box::pin(messages) as Messages)) })
    }
}

/// An endpoint, and the calls that ended early there.
async fn endpoint(tls: Option<&Tls>) -> (Server, UnboundedReceiver<&'static str>) {
    let (lost, losses) = unbounded_channel();
    let service = Service { lost };
    let handler = move |request: http::Request<Incoming>| {
        let service = service.clone();
        async move {
            let mut grpc =
                tonic::server::Grpc::new(Plain).max_decoding_message_size(MESSAGE_BYTES_MAX);
            match request.uri().path() {
                "/test.Echo/Unary" => grpc.unary(service, request).await,
                "/test.Echo/Upload" => grpc.client_streaming(service, request).await,
                "/test.Echo/Download" => grpc.server_streaming(service, request).await,
                "/test.Echo/Chat" => grpc.streaming(service, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            }
        }
    };
    let server = match tls {
        None => Server::start(Protocol::Http2, handler).await,
        Some(tls) => Server::start_tls(Protocol::Http2, tls, handler).await,
    };
    (server, losses)
}

/// A client, a Weir and an endpoint.
struct Rig {
    grpc: Grpc<Channel>,
    weir: Weir,
    server: Server,
    losses: UnboundedReceiver<&'static str>,
}

impl Rig {
    async fn new(is_secure: bool, keys: &str) -> Self {
        let (dir, tls) = (Weir::dir(), Tls::new());
        let (listen, upstream) = tls.files(&dir);
        let (server, losses) = endpoint(is_secure.then_some(&tls)).await;
        let name = std::slice::from_ref(&server.name);
        let config = if is_secure {
            let keys = format!("{keys}\n[listen.\"127.0.0.1:0\"]\n{listen}");
            routed(&keys, name, &upstream)
        } else {
            routed(keys, name, "")
        };
        let weir = Weir::start_in(&dir, &config);
        let scheme = if is_secure { "https" } else { "http" };
        let url = format!("{scheme}://{}", weir.address);
        let mut at = tonic::transport::Endpoint::from_shared(url).unwrap();
        if is_secure {
            let certificate = Certificate::from_pem(tls.pem());
            let secure = ClientTlsConfig::new()
                .ca_certificate(certificate)
                .domain_name("weir.test");
            at = at.tls_config(secure).unwrap();
        }
        let grpc = Grpc::new(within(at.connect()).await.unwrap())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self {
            grpc,
            weir,
            server,
            losses,
        }
    }

    async fn unary(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        within(self.grpc.ready()).await.unwrap();
        within(self.grpc.unary(request, path("Unary"), Plain)).await
    }

    async fn download(&mut self, what: &'static str) -> Streaming<Bytes> {
        within(self.grpc.ready()).await.unwrap();
        let asked = Request::new(what.into());
        let answered = self.grpc.server_streaming(asked, path("Download"), Plain);
        within(answered).await.unwrap().into_inner()
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

#[test]
fn calls_of_all_four_kinds_pass_in_the_clear_and_over_tls() {
    for is_secure in [false, true] {
        run(async {
            let mut rig = Rig::new(is_secure, "").await;
            // Unary.
            let response = rig.unary(Request::new("hello".into())).await.unwrap();
            assert_eq!(response.into_inner(), "hello");
            let entry = rig.weir.entry("/test.Echo/Unary");
            assert_eq!(
                (entry.text("version").as_str(), entry.number("status")),
                ("HTTP/2", 200.0)
            );
            // Client streaming.
            within(rig.grpc.ready()).await.unwrap();
            let messages: Vec<_> = (0..100).map(|n| pattern(n * 100, n)).collect();
            let sums = messages.iter().fold(0, |all, one| all ^ sum(one));
            let upload = tokio_stream::iter(messages);
            let response = rig
                .grpc
                .client_streaming(Request::new(upload), path("Upload"), Plain);
            let response = within(response).await.unwrap().into_inner();
            assert_eq!(response, format!("495000 {sums:x}"));
            // Server streaming.
            let mut download = rig.download("100 5000").await;
            for n in 0..100 {
                let message = within(download.message()).await.unwrap().unwrap();
                assert_eq!(message, pattern(5_000, n));
            }
            assert!(within(download.message()).await.unwrap().is_none());
            // Bidirectional streaming: each message is answered before the next is sent.
            within(rig.grpc.ready()).await.unwrap();
            let (say, said) = unbounded_channel::<Bytes>();
            let said = tokio_stream::wrappers::UnboundedReceiverStream::new(said);
            let chat = rig.grpc.streaming(Request::new(said), path("Chat"), Plain);
            let mut chat = within(chat).await.unwrap().into_inner();
            for word in ["one", "two", "three"] {
                say.send(word.into()).unwrap();
                let heard = within(chat.message()).await.unwrap().unwrap();
                assert_eq!(heard, word.to_ascii_uppercase());
            }
            drop(say);
            assert!(within(chat.message()).await.unwrap().is_none());
            assert_eq!(rig.server.connections(), 1);
        });
    }
}

#[test]
fn large_messages_and_metadata_arrive_unchanged() {
    for is_secure in [false, true] {
        run(async {
            let mut rig = Rig::new(is_secure, "").await;
            let message = pattern(16 << 20, 5);
            let mut asked = Request::new(message.clone());
            let large = "m".repeat(8_000);
            asked
                .metadata_mut()
                .insert("x-large", large.parse().unwrap());
            let raw = tonic::metadata::MetadataValue::from_bytes(&[0, 255, 10, 13]);
            asked.metadata_mut().insert_bin("x-raw-bin", raw.clone());
            let response = rig.unary(asked).await.unwrap();
            assert_eq!(response.metadata().get("x-large").unwrap(), &*large);
            assert_eq!(response.metadata().get_bin("x-raw-bin"), Some(&raw));
            assert!(response.into_inner() == message);
            let mut download = rig.download("3 16777216").await;
            for n in 0..3 {
                let message = within(download.message()).await.unwrap().unwrap();
                assert_eq!(sum(&message), sum(&pattern(16 << 20, n)));
            }
        });
    }
}

#[test]
fn calls_are_copied_and_their_answers_carry_the_cookie_of_a_session() {
    run(async {
        let (shadow, _losses) = endpoint(None).await;
        let keys = format!(
            "mirror = \"shadow\"\nupstream.shadow = [\"{}\"]",
            shadow.name
        );
        let mut rig = Rig::new(false, &keys).await;
        for message in ["one", "fail"] {
            let answer = rig.unary(Request::new(message.into())).await;
            assert_eq!(answer.is_ok(), message == "one");
        }
        let name = "weir_upstream_grpc_calls_total{upstream=\"shadow\",grpc_status=";
        for status in ["\"0\"", "\"9\""] {
            let name = format!("{name}{status}}}");
            within(async {
                while rig.weir.metric(&name) < 1.0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }

        let (server, _losses) = endpoint(None).await;
        let servers = std::slice::from_ref(&server.name);
        let weir = Weir::start(&routed("", servers, "sticky = { cookie = \"home\" }"));
        let at = tonic::transport::Endpoint::from_shared(format!("http://{}", weir.address));
        let channel = within(at.unwrap().connect()).await.unwrap();
        let mut grpc = Grpc::new(channel);
        let mut cookie = None;
        for _ in 0..2 {
            within(grpc.ready()).await.unwrap();
            let mut request = Request::new(Bytes::from("one"));
            if let Some(cookie) = &cookie {
                let value = tonic::metadata::AsciiMetadataValue::try_from(cookie).unwrap();
                request.metadata_mut().insert("cookie", value);
            }
            let answer = within(grpc.unary(request, path("Unary"), Plain))
                .await
                .unwrap();
            let set = answer.metadata().get("set-cookie");
            assert_eq!(set.is_some(), cookie.is_none());
            let set = set.map(|set| set.to_str().unwrap().split(';').next().unwrap().to_owned());
            cookie = cookie.or(set);
        }
    });
}

#[test]
fn an_error_keeps_its_code_and_its_words() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        // In a head without a body (Trailers-Only).
        let status = rig.unary(Request::new("fail".into())).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "not now: 100% \u{fc}ber");
        within(rig.grpc.ready()).await.unwrap();
        let none = rig
            .grpc
            .unary(Request::new(Bytes::new()), path("None"), Plain);
        let none: Status = within(none).await.unwrap_err();
        assert_eq!(
            (none.code(), none.message()),
            (Code::Unimplemented, "no such method")
        );
        // In the trailers after a message.
        within(rig.grpc.ready()).await.unwrap();
        let words = tokio_stream::iter(["well".into(), "fail".into()]);
        let chat = rig.grpc.streaming(Request::new(words), path("Chat"), Plain);
        let mut chat = within(chat).await.unwrap().into_inner();
        assert_eq!(within(chat.message()).await.unwrap().unwrap(), "WELL");
        let status = within(chat.message()).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Aborted, "as asked")
        );
    });
}

/// Every call has a status in log and metrics, wherever the endpoint put it. Failed calls count as errors in every
/// rate.
#[test]
fn calls_are_logged_and_counted_by_their_status() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let listener = rig.weir.address;
        let count =
            |weir: &Weir, name: &str, label: &str| weir.metric(&format!("{name},{label}}}"));
        rig.unary(Request::new("hello".into())).await.unwrap();
        // In a Trailers-Only head, including Weir's own, and in trailers.
        rig.unary(Request::new("fail".into())).await.unwrap_err();
        within(rig.grpc.ready()).await.unwrap();
        let words = tokio_stream::iter(["fail".into()]);
        let chat = rig.grpc.streaming(Request::new(words), path("Chat"), Plain);
        let mut chat = within(chat).await.unwrap().into_inner();
        within(chat.message()).await.unwrap_err();
        let mut download = rig.download("0 1000").await;
        within(download.message()).await.unwrap().unwrap();
        drop(download);
        assert_eq!(within(rig.losses.recv()).await, Some("messages"));
        for (at, path, status) in [
            (0, "/test.Echo/Unary", Code::Ok),
            (1, "/test.Echo/Unary", Code::FailedPrecondition),
            (2, "/test.Echo/Chat", Code::Aborted),
            (3, "/test.Echo/Download", Code::Cancelled),
        ] {
            let expected = f64::from(status as i32);
            let entry = rig.weir.entry_where(path, |entry| {
                entry.text("path") == path && entry.number("grpc_status") == expected
            });
            assert_eq!(entry.number("status"), 200.0, "{at}");
            let number = format!("grpc_status=\"{}\"", status as i32);
            let (all, up) = (
                "weir_grpc_calls_total{listener=\"127.0.0.1:0\"",
                "weir_upstream_grpc_calls_total{upstream=\"up\"",
            );
            assert_eq!(count(&rig.weir, all, &number), 1.0, "{listener} {number}");
            assert_eq!(count(&rig.weir, up, &number), 1.0, "{number}");
        }
        for (class, calls) in [("2xx", 1.0), ("4xx", 3.0), ("5xx", 0.0)] {
            for name in [
                "weir_exchanges_total{listener=\"127.0.0.1:0\"",
                "weir_route_exchanges_total{route=\"/*\"",
                "weir_upstream_exchanges_total{upstream=\"up\"",
            ] {
                let label = format!("class=\"{class}\"");
                assert_eq!(count(&rig.weir, name, &label), calls, "{name} {class}");
            }
        }
        let dead = frames::ClosedPort::bind();
        rig.weir
            .reload(&routed("", std::slice::from_ref(&dead.name), ""));
        rig.weir.wait_for("reloaded in");
        rig.unary(Request::new("hello".into())).await.unwrap_err();
        let entry = rig.weir.entry_with("reason", "connect_failed");
        assert_eq!(
            (entry.number("status"), entry.number("grpc_status")),
            (200.0, 14.0)
        );
        let failed = "weir_exchanges_total{listener=\"127.0.0.1:0\"";
        assert_eq!(count(&rig.weir, failed, "class=\"5xx\""), 1.0);
    });
}

/// An exchange that is not a gRPC call has no status. A call whose endpoint sends none has UNKNOWN.
#[test]
fn a_missing_grpc_status_follows_from_the_http_status() {
    run(async {
        let listener = frames::Listener::bind().await;
        let weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
        let mut client = frames::connect(weir.address).await;
        let mut endpoint = None;
        for (at, kind, http, expected) in [
            (0, "application/grpc", 200, Some(2.0)),
            (1, "application/grpc", 404, Some(12.0)),
            (2, "application/grpc", 503, Some(14.0)),
            (3, "application/json", 200, None),
        ] {
            let request = http::Request::post(format!("http://weir.test/{at}"));
            let request = request.header("content-type", kind).body(()).unwrap();
            let answered = client.ask(request);
            let answers = async {
                if endpoint.is_none() {
                    endpoint = Some(listener.accept().await);
                }
                let (_, mut send) = endpoint.as_mut().unwrap().next().await;
                frames::respond(&mut send, http, "");
            };
            let ((status, _), ()) = within(async { tokio::join!(answered, answers) }).await;
            assert_eq!(status, http);
            let entry = weir.entry(&format!("/{at}"));
            assert_eq!(entry.maybe_number("grpc_status"), expected, "{at}");
        }
        let class = |class: &str| {
            weir.metric(&format!(
                "weir_exchanges_total{{listener=\"127.0.0.1:0\",class=\"{class}\"}}"
            ))
        };
        assert_eq!((class("2xx"), class("4xx"), class("5xx")), (1.0, 1.0, 2.0));
    });
}

#[test]
fn a_call_without_a_reachable_endpoint_is_unavailable() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let dead = frames::ClosedPort::bind();
        rig.weir
            .reload(&routed("", std::slice::from_ref(&dead.name), ""));
        rig.weir.wait_for("reloaded in");
        let status = rig.unary(Request::new("hello".into())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(status.message(), "No endpoint accepted a connection.");
    });
}

#[test]
fn a_call_without_a_route_is_unimplemented() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let other = "[[route]]\nmatch = \"/other\"\nrespond = 200\n";
        rig.weir.reload(other);
        rig.weir.wait_for("reloaded in");
        let status = rig.unary(Request::new("hello".into())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
    });
}

/// The client sends its timeout, and Weir enforces it on both sides.
#[test]
fn a_deadline_ends_the_call_at_the_client_and_at_the_endpoint() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        // tonic would enforce the deadline itself; this client leaves it to Weir.
        let mut client = frames::connect(rig.weir.address).await;
        let asked = request("POST", "/test.Echo/Unary")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "300m");
        let (response, mut stream) = client.send(asked.body(()).unwrap(), false);
        stream
            .send_data(Bytes::from_static(b"\0\0\0\0\x04hang"), true)
            .unwrap();
        let response = within(response).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.body().is_end_stream(), "all is in the head");
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(within(rig.losses.recv()).await, Some("unary"));
        let entry = rig.weir.entry("/test.Echo/Unary");
        assert_eq!(entry.text("reason"), "total_timeout");
        // An answer that has begun ends with trailers that carry the status.
        let asked = request("POST", "/test.Echo/Download")
            .header("te", "trailers")
            .header("content-type", "application/grpc+proto")
            .header("grpc-timeout", "500m");
        let (response, mut stream) = client.send(asked.body(()).unwrap(), false);
        stream
            .send_data(Bytes::from_static(b"\0\0\0\0\x040 10"), true)
            .unwrap();
        let mut body = within(response).await.unwrap().into_body();
        let (_, trailers) = within(frames::read_to_trailers(&mut body)).await.unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert_eq!(
            trailers["grpc-message"],
            "The exchange exceeded its total time limit."
        );
        let entry = rig.weir.entry("/test.Echo/Download");
        assert_eq!(entry.text("reason"), "total_timeout");
        assert_eq!(within(rig.losses.recv()).await, Some("messages"));
    });
}

#[test]
fn a_deadline_that_is_met_changes_nothing() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let mut asked = Request::new(Bytes::from_static(b"quick"));
        asked.set_timeout(Duration::from_secs(100));
        assert_eq!(rig.unary(asked).await.unwrap().into_inner(), "quick");
    });
}

#[test]
fn a_call_cancelled_by_its_client_is_cancelled_at_the_endpoint() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let mut other = rig.grpc.clone();
        within(other.ready()).await.unwrap();
        let hanging = other.unary(
            Request::new(Bytes::from_static(b"hang")),
            path("Unary"),
            Plain,
        );
        let gave_up = tokio::time::timeout(Duration::from_millis(300), hanging).await;
        assert!(gave_up.is_err());
        assert_eq!(within(rig.losses.recv()).await, Some("unary"));
        let mut download = rig.download("0 1000").await;
        within(download.message()).await.unwrap().unwrap();
        drop(download);
        assert_eq!(within(rig.losses.recv()).await, Some("messages"));
        // Both connections are still usable.
        let response = rig.unary(Request::new("hello".into())).await.unwrap();
        assert_eq!(response.into_inner(), "hello");
        assert_eq!(rig.server.connections(), 1);
    });
}

#[test]
fn a_call_that_its_endpoint_resets_is_an_error_for_the_client() {
    run(async {
        let listener = frames::Listener::bind().await;
        let weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
        let url = format!("http://{}", weir.address);
        let at = tonic::transport::Endpoint::from_shared(url).unwrap();
        let mut grpc = Grpc::new(within(at.connect()).await.unwrap());
        let called = tokio::task::spawn_local(async move {
            let asked = Request::new(Bytes::from_static(b"hello"));
            grpc.ready().await.unwrap();
            let answered: Result<Response<Bytes>, Status> =
                grpc.unary(asked, path("Unary"), Plain).await;
            answered.unwrap_err()
        });
        let mut endpoint = listener.accept().await;
        endpoint
            .next()
            .await
            .1
            .send_reset(h2::Reason::INTERNAL_ERROR);
        let status = within(called).await.unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(
            weir.entry("/test.Echo/Unary").text("reason"),
            "upstream_closed"
        );
    });
}

/// What the endpoint sends on a stream before it fails there.
fn begin(send: &mut h2::server::SendResponse<Bytes>, kind: &str) -> h2::SendStream<Bytes> {
    let response = http::Response::builder().header("content-type", kind);
    let mut answer = send
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    answer.send_data(message, false).unwrap();
    answer
}

/// For every failure within an answer, the call ends with the status that gRPC derives from the code, after the
/// messages before it.
#[test]
fn an_endpoint_that_fails_within_an_answer_ends_the_call_with_a_status() {
    use h2::Reason;
    let unavailable = Code::Unavailable;
    let cases = [
        (Some(Reason::INTERNAL_ERROR), Code::Internal),
        (Some(Reason::NO_ERROR), Code::Internal),
        (Some(Reason::CANCEL), Code::Cancelled),
        (Some(Reason::REFUSED_STREAM), unavailable),
        (Some(Reason::ENHANCE_YOUR_CALM), Code::ResourceExhausted),
        (Some(Reason::INADEQUATE_SECURITY), Code::PermissionDenied),
        (None, unavailable),
    ];
    for (reason, expected) in cases {
        run(async {
            let listener = frames::Listener::bind().await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
            let url = format!("http://{}", weir.address);
            let at = tonic::transport::Endpoint::from_shared(url).unwrap();
            let mut grpc = Grpc::new(within(at.connect()).await.unwrap());
            within(grpc.ready()).await.unwrap();
            let asked = Request::new(Bytes::from_static(b"0 0"));
            let called = tokio::task::spawn_local(async move {
                grpc.server_streaming(asked, path("Download"), Plain).await
            });
            let mut endpoint = listener.accept().await;
            let (_, mut send) = endpoint.next().await;
            let mut answer = begin(&mut send, "application/grpc");
            let response = within(called).await.unwrap().unwrap();
            let mut messages: Streaming<Bytes> = response.into_inner();
            let message = within(messages.message()).await.unwrap();
            assert_eq!(message.unwrap(), "hello");
            match reason {
                Some(reason) => answer.send_reset(reason),
                None => endpoint.vanish().await,
            }
            let status = within(messages.message()).await.unwrap_err();
            assert_eq!(status.code(), expected, "{status}");
            // Weir's own message, which shows that the status is not the library's reading of a reset.
            assert_eq!(
                status.message(),
                "The endpoint's answer ended before it was complete."
            );
            let entry = weir.entry("/test.Echo/Download");
            assert_eq!(entry.text("reason"), "response_truncated");
            assert_eq!(entry.number("grpc_status"), f64::from(expected as i32));
        });
    }
}

/// The deadline passes while the client does not read: the status waits behind the data, but not for ever.
#[test]
fn a_deadline_that_passes_while_the_client_does_not_read_ends_the_stream() {
    run(async {
        let mut rig = Rig::new(false, "").await;
        let mut windows = h2::client::Builder::new();
        windows.initial_window_size(1_000);
        let mut client = frames::connect_with(rig.weir.address, &windows).await;
        let asked = request("POST", "/test.Echo/Download")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "200m");
        let (response, mut stream) = client.send(asked.body(()).unwrap(), false);
        stream
            .send_data(Bytes::from_static(b"\0\0\0\0\x060 1000"), true)
            .unwrap();
        let _body = within(response).await.unwrap().into_body();
        // The endpoint's stream is reset at once.
        assert_eq!(within(rig.losses.recv()).await, Some("messages"));
        assert_eq!(
            within(frames::reset_of(&mut stream)).await.unwrap(),
            h2::Reason::INTERNAL_ERROR
        );
        let entry = rig.weir.entry("/test.Echo/Download");
        assert_eq!(entry.text("reason"), "total_timeout");
    });
}

/// An answer that is not gRPC, or has a Content-Length, is reset.
#[test]
fn only_answers_of_grpc_end_with_a_status() {
    for (kind, length) in [("text/plain", None), ("application/grpc", Some("100"))] {
        run(async {
            let listener = frames::Listener::bind().await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
            let mut client = frames::connect(weir.address).await;
            let asked = request("POST", "/").header("content-type", "application/grpc");
            let (response, _) = client.send(asked.body(()).unwrap(), true);
            let mut endpoint = listener.accept().await;
            let (_, mut send) = endpoint.next().await;
            let mut head = http::Response::builder().header("content-type", kind);
            if let Some(length) = length {
                head = head.header("content-length", length);
            }
            let mut answer = send.send_response(head.body(()).unwrap(), false).unwrap();
            answer.send_data("part".into(), false).unwrap();
            let body = within(response).await.unwrap().into_body();
            answer.send_reset(h2::Reason::INTERNAL_ERROR);
            let broken = within(frames::read(body)).await.unwrap_err();
            assert!(broken.is_reset() && broken.is_remote(), "{broken}");
        });
    }
}

#[test]
fn over_http1_a_call_that_fails_within_its_answer_is_broken_off() {
    run(async {
        let listener = frames::Listener::bind().await;
        let weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
        let mut client = Client::connect(Protocol::Http1, weir.address).await;
        let asked = request("POST", "/").header("content-type", "application/grpc");
        let sent = client.send(asked.body(Body::empty()).unwrap());
        let sent = tokio::task::spawn_local(sent);
        let mut endpoint = listener.accept().await;
        let (_, mut send) = endpoint.next().await;
        let mut answer = begin(&mut send, "application/grpc");
        let response = within(sent).await.unwrap().unwrap();
        answer.send_reset(h2::Reason::INTERNAL_ERROR);
        let whole = http_body_util::BodyExt::collect(response.into_body());
        assert!(within(whole).await.is_err(), "it looks whole");
    });
}
