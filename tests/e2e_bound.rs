//! Endpoints that authenticate connections, as with NTLM and Negotiate: no client gets another's identity.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use e2e::*;
use peers::{Body, Client, Protocol, Tls, run};

/// Challenges of an endpoint; `$` stands for the scheme's parameter.
const SPELLINGS: [&str; 4] = [
    "WWW-Authenticate: Negotiate$\r\n",
    "WWW-Authenticate: nTlM$\r\n",
    "WWW-Authenticate: Basic realm=\"a, b\", NTLM$, Digest qop=\"auth\"\r\n",
    "WWW-Authenticate: Basic realm=\"a\"\r\nX: y\r\nwww-authenticate: Negotiate$\r\n",
];

/// A server's state of one connection.
struct Session {
    number: usize,
    spelling: &'static str,
    identity: Option<String>,
}

impl Session {
    fn new(number: usize, spelling: &'static str) -> Self {
        Self {
            number,
            spelling,
            identity: None,
        }
    }

    /// The handshake has two legs: a client that sends `1 NAME` gets a number, and one that then sends `3 NAME` with
    /// that number owns the connection. Other requests change nothing.
    fn answer(&mut self, request: &Message) -> String {
        let credentials = request.field("Authorization").unwrap_or_default();
        let words: Vec<_> = credentials.split(' ').collect();
        match words[..] {
            [_, "1", _] => self.challenge(&format!(" challenge {}", self.number)),
            [_, "3", name, number] => {
                if number != self.number.to_string() {
                    return self.challenge(" wrong");
                }
                self.identity = Some(name.to_owned());
                ok(name)
            }
            _ => match &self.identity {
                Some(name) => ok(name),
                None if request.target().starts_with("/public") => ok("nobody"),
                None => self.challenge(""),
            },
        }
    }

    fn challenge(&self, more: &str) -> String {
        let fields = self.spelling.replace('$', more);
        format!("HTTP/1.1 401 Unauthorized\r\n{fields}Content-Length: 2\r\n\r\nno")
    }
}

/// An endpoint that authenticates connections, and the number of open ones.
fn authenticating_endpoint(spelling: &'static str) -> (Endpoint, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let endpoint = Endpoint::numbered(move |conn, number| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut session = Session::new(number, spelling);
        while let Some(request) = conn.next_request() {
            if conn.try_send(session.answer(&request)).is_err() {
                break;
            }
        }
        count.fetch_sub(1, Ordering::SeqCst);
    });
    (endpoint, open)
}

fn request_with(credentials: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: weir.test\r\nAuthorization: {credentials}\r\n\r\n")
}

/// The number in the second challenge.
fn number_in(challenges: &[&str]) -> usize {
    let all = challenges.join(" ");
    let number = all.split("challenge ").nth(1).expect("a challenge");
    let digits = number.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

/// Performs the handshake as `name`.
#[track_caller]
fn log_in(conn: &mut Conn, name: &str) {
    conn.send(get("/"));
    assert_eq!(conn.response().status(), 401);
    conn.send(request_with(&format!("NTLM 1 {name}")));
    let challenge = conn.response();
    let number = number_in(&challenge.all("WWW-Authenticate"));
    conn.send(request_with(&format!("NTLM 3 {name} {number}")));
    let response = conn.response();
    assert_eq!((response.status(), response.text().as_str()), (200, name));
}

#[track_caller]
fn identity_of(conn: &mut Conn) -> String {
    conn.send(get("/public"));
    conn.response().text()
}

#[test]
fn no_client_gets_anothers_identity() {
    for spelling in SPELLINGS {
        let (endpoint, open) = authenticating_endpoint(spelling);
        let weir = Weir::to(&[&endpoint]);
        let (mut a, mut b, mut c) = (weir.connect(), weir.connect(), weir.connect());
        log_in(&mut a, "alice");
        assert_eq!(identity_of(&mut c), "nobody");
        log_in(&mut b, "bob");
        for _ in 0..10 {
            assert_eq!(identity_of(&mut a), "alice");
            assert_eq!(identity_of(&mut c), "nobody");
            assert_eq!(identity_of(&mut b), "bob");
        }
        // The same with concurrent requests.
        for conn in [&a, &b, &c] {
            conn.send(get("/public"));
        }
        let all = [&mut a, &mut b, &mut c].map(|conn| conn.response().text());
        assert_eq!(all, ["alice", "bob", "nobody"]);
        // Later clients have no identity, and the bound connections close with their clients.
        drop(a);
        drop(b);
        let mut d = weir.connect();
        assert_eq!(identity_of(&mut d), "nobody");
        eventually("only the pooled connection is left", || {
            (open.load(Ordering::SeqCst) == 1).then_some(())
        });
    }
}

#[test]
fn a_reload_changes_no_identity() {
    let (endpoint, _) = authenticating_endpoint(SPELLINGS[0]);
    let other = Endpoint::answering(|_| ok("other"));
    let config = route_to(&[&endpoint]);
    let weir = Weir::start(&config);
    let (mut a, mut b) = (weir.connect(), weir.connect());
    log_in(&mut a, "alice");
    log_in(&mut b, "bob");
    let connections = endpoint.connections();
    weir.reload(&format!(
        "{config}\n[[route]]\nmatch = \"/new\"\nrespond = \"new\"\n"
    ));
    weir.wait_for("plan 2");
    eventually("the new plan", || {
        (weir.ask(get("/new")).text() == "new").then_some(())
    });
    assert_eq!(identity_of(&mut a), "alice");
    assert_eq!(identity_of(&mut b), "bob");
    assert_eq!(weir.ask(get("/public")).text(), "nobody");
    assert!(endpoint.connections() <= connections + 1);
    // A plan without the endpoint closes its connections.
    weir.reload(&route_to(&[&other]));
    eventually("the other endpoint", || {
        (identity_of(&mut a) == "other").then_some(())
    });
    assert_eq!(identity_of(&mut b), "other");
}

#[test]
fn nothing_that_a_client_sends_binds_a_connection() {
    let endpoint = Endpoint::answering(|_| ok("welcome"));
    let weir = Weir::to(&[&endpoint]);
    let mut clients: Vec<_> = (0..20).map(|_| weir.connect()).collect();
    for scheme in ["NTLM", "Negotiate"] {
        for client in &mut clients {
            client.send(request_with(&format!("{scheme} TlRMTVNTUAABAAAA")));
            assert_eq!(client.response().text(), "welcome");
        }
    }
    assert_eq!(endpoint.connections(), 1, "all use the pool");
}

/// Clients that were challenged once send credentials unasked on any connection.
#[test]
fn unsolicited_credentials_serve_no_other_client() {
    let endpoint = Endpoint::numbered(|conn, _| {
        let mut name = None;
        while let Some(request) = conn.next_request() {
            if let Some(credentials) = request.field("Authorization") {
                name = Some(credentials.replace("Negotiate ", ""));
            }
            let answer = match &name {
                Some(name) => ok(name),
                None => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n\
                         Content-Length: 6\r\n\r\nnobody"
                    .to_owned(),
            };
            if conn.try_send(answer).is_err() {
                break;
            }
        }
    });
    let weir = Weir::to(&[&endpoint]);
    assert_eq!(identity_of(&mut weir.connect()), "nobody", "is challenged");
    for name in ["alice", "bob", "carol"] {
        let mut client = weir.connect();
        client.send(request_with(&format!("Negotiate {name}")));
        assert_eq!(client.response().text(), name);
        assert_eq!(identity_of(&mut weir.connect()), "nobody", "after {name}");
    }
}

#[test]
fn an_answer_that_goes_on_or_says_that_it_lasts_binds() {
    for field in [
        "WWW-Authenticate: Negotiate oYG2MIGzoAMKAQA=",
        "Persistent-Auth: true",
        "Proxy-Authenticate: NTLM",
    ] {
        let endpoint = Endpoint::numbered(move |conn, number| {
            while let Some(request) = conn.next_request() {
                let with = match request.field("Authorization") {
                    Some(_) => format!("{field}\r\n"),
                    None => String::new(),
                };
                let answer = ok(&number.to_string());
                let answer = answer.replace("Content-Length", &format!("{with}Content-Length"));
                if conn.try_send(answer).is_err() {
                    break;
                }
            }
        });
        let weir = Weir::to(&[&endpoint]);
        let (mut a, mut b) = (weir.connect(), weir.connect());
        a.send(request_with("Negotiate YII"));
        assert_eq!(a.response().text(), "0");
        assert_eq!(identity_of(&mut b), "1", "{field}");
        assert_eq!(identity_of(&mut a), "0", "{field}");
    }
}

#[test]
fn a_connection_that_the_endpoint_has_closed_is_replaced() {
    let endpoint = Endpoint::numbered(|conn, number| {
        let mut session = Session::new(number, SPELLINGS[0]);
        while let Some(request) = conn.next_request() {
            let mut answer = session.answer(&request);
            let is_last = request.target() == "/public/last";
            if is_last {
                answer = answer.replace("Content-Length", "Connection: close\r\nContent-Length");
            }
            if conn.try_send(answer).is_err() || is_last {
                return;
            }
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut a = weir.connect();
    log_in(&mut a, "alice");
    a.send(get("/public/last"));
    assert_eq!(a.response().text(), "alice");
    assert_eq!(identity_of(&mut a), "nobody");
    // The client can authenticate again.
    log_in(&mut a, "alice");
    assert_eq!(identity_of(&mut a), "alice");
}

/// Credentials are valid on one connection only, so every leg of a handshake goes to the same endpoint.
#[test]
fn a_leg_of_a_handshake_is_not_repeated_elsewhere() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let endpoints: Vec<_> = (0..3)
        .map(|endpoint| {
            let seen = seen.clone();
            Endpoint::numbered(move |conn, number| {
                let mut session = Session::new(number, SPELLINGS[1]);
                while let Some(request) = conn.next_request() {
                    let credentials = request.field("Authorization").unwrap_or_default();
                    seen.lock()
                        .unwrap()
                        .push((endpoint, number, credentials.to_owned()));
                    // The endpoint closes without an answer.
                    let is_last = credentials.contains(" 3 ");
                    if is_last || conn.try_send(session.answer(&request)).is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    let weir = Weir::to(&endpoints.iter().collect::<Vec<_>>());
    let mut a = weir.connect();
    a.send(get("/"));
    assert_eq!(a.response().status(), 401);
    a.send(request_with("NTLM 1 alice"));
    let number = number_in(&a.response().all("WWW-Authenticate"));
    a.send(request_with(&format!("NTLM 3 alice {number}")));
    assert_eq!(a.response().status(), 502);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(
        seen.iter()
            .all(|one| (one.0, one.1) == (seen[0].0, seen[0].1)),
        "{seen:?}"
    );
}

#[test]
fn each_client_stays_at_its_endpoint() {
    let endpoints: Vec<_> = (0..3)
        .map(|_| authenticating_endpoint(SPELLINGS[0]).0)
        .collect();
    let weir = Weir::to(&endpoints.iter().collect::<Vec<_>>());
    let mut clients: Vec<_> = (0..6)
        .map(|n| (format!("client{n}"), weir.connect()))
        .collect();
    for (name, conn) in &mut clients {
        log_in(conn, name);
    }
    for _ in 0..5 {
        for (name, conn) in &mut clients {
            assert_eq!(identity_of(conn), *name);
        }
    }
    let connections: usize = endpoints.iter().map(Endpoint::connections).sum();
    assert_eq!(connections, 6, "each has one, and keeps it");
}

/// Bound connections count towards the limit and close to make room.
#[test]
fn bound_connections_count_towards_the_limit_and_make_room() {
    let (endpoint, open) = authenticating_endpoint(SPELLINGS[0]);
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\npool = {{ connections = 3 }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let mut clients: Vec<_> = (0..12).map(|_| weir.connect()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.send(get("/"));
            assert_eq!(client.response().status(), 401);
            assert!(open.load(Ordering::SeqCst) <= 4, "one may be about to end");
        }
    }
    // The last clients keep their connections. The first ones lost theirs and authenticate again.
    log_in(&mut clients[0], "alice");
    assert_eq!(identity_of(&mut clients[0]), "alice");
    assert_eq!(identity_of(&mut clients[11]), "nobody");
}

/// A handshake completes although more clients wait than the limit allows connections.
#[test]
fn a_handshake_completes_while_others_wait() {
    let endpoint = Endpoint::numbered(|conn, number| {
        let mut session = Session::new(number, SPELLINGS[0]);
        while let Some(request) = conn.next_request() {
            if request.target() == "/public/slow" {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            if conn.try_send(session.answer(&request)).is_err() {
                return;
            }
        }
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\npool = {{ connections = 2 }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let (mut conn, is_over) = (weir.connect(), is_over.clone());
            std::thread::spawn(move || {
                let mut served = 0;
                while !is_over.load(Ordering::SeqCst) {
                    conn.send(get("/public/slow"));
                    assert_eq!(conn.response().text(), "nobody");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for name in ["alice", "bob", "carol"] {
        let mut conn = weir.connect();
        log_in(&mut conn, name);
        assert_eq!(identity_of(&mut conn), name);
    }
    is_over.store(true, Ordering::SeqCst);
    for thread in crowd {
        assert!(thread.join().unwrap() > 0);
    }
}

#[test]
fn an_idle_bound_connection_ends() {
    let (endpoint, open) = authenticating_endpoint(SPELLINGS[0]);
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\ntimeouts = {{ upstream_idle = \"300ms\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let mut a = weir.connect();
    log_in(&mut a, "alice");
    eventually("it is closed", || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    });
    assert_eq!(identity_of(&mut a), "nobody");
}

/// Sends a request over either protocol.
async fn ask(client: &mut Client, path: &str, credentials: Option<&str>) -> (u16, String, String) {
    let mut request = peers::request("GET", path);
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, credentials);
    }
    let answer = client.ask(request.body(Body::empty()).unwrap()).await;
    let challenges: Vec<_> = answer
        .headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    (
        answer.status,
        answer.text().to_owned(),
        challenges.join(" "),
    )
}

async fn log_in_by(client: &mut Client, name: &str) {
    assert_eq!(ask(client, "/", None).await.0, 401);
    let first = ask(client, "/", Some(&format!("Negotiate 1 {name}"))).await;
    let number = number_in(&[&first.2]);
    let second = format!("Negotiate 3 {name} {number}");
    let (status, text, _) = ask(client, "/", Some(&second)).await;
    assert_eq!((status, &*text), (200, name));
}

/// A TLS endpoint that authenticates connections.
async fn authenticating_tls(tls: &Tls) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.acceptor(Protocol::Http1);
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let (mut session, mut head) = (Session::new(number, SPELLINGS[0]), Vec::new());
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        let answer = session.answer(&Message::parse(&text));
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    format!("https://localhost:{port}")
}

#[test]
fn no_client_gets_anothers_identity_over_tls_and_http2() {
    for (protocol, is_tls) in [
        (Protocol::Http1, true),
        (Protocol::Http2, true),
        (Protocol::Http2, false),
    ] {
        run(async {
            let (dir, tls) = (Weir::dir(), Tls::new());
            let (listener, upstream) = tls.files(&dir);
            let server = authenticating_tls(&tls).await;
            let listener = if is_tls { listener } else { String::new() };
            let keys = format!("[listen.\"127.0.0.1:0\"]\n{listener}");
            let weir = Weir::start_in(&dir, &peers::routed(&keys, &[server], &upstream));
            let connect = async || match is_tls {
                true => Client::connect_tls(protocol, weir.address, &tls).await,
                false => Client::connect(protocol, weir.address).await,
            };
            let (mut a, mut b) = (connect().await, connect().await);
            log_in_by(&mut a, "alice").await;
            assert_eq!(ask(&mut b, "/public", None).await.1, "nobody");
            log_in_by(&mut b, "bob").await;
            for _ in 0..5 {
                assert_eq!(ask(&mut a, "/public", None).await.1, "alice");
                assert_eq!(ask(&mut b, "/public", None).await.1, "bob");
            }
            if protocol == Protocol::Http2 {
                // The connection serves one client at a time. Other requests are anonymous and never get its identity.
                for _ in 0..5 {
                    let all = [&mut a, &mut b].map(|client| {
                        let ask = |_| {
                            client.ask(
                                peers::request("GET", "/public")
                                    .body(Body::empty())
                                    .unwrap(),
                            )
                        };
                        (0..4).map(ask).collect::<Vec<_>>()
                    });
                    for (asked, name) in all.into_iter().zip(["alice", "bob"]) {
                        for answer in asked {
                            let text = answer.await.text().to_owned();
                            assert!(text == name || text == "nobody", "{text} to {name}");
                        }
                    }
                }
                assert_eq!(ask(&mut a, "/public", None).await.1, "alice");
            }
            drop((a, b));
            let mut c = connect().await;
            assert_eq!(ask(&mut c, "/public", None).await.1, "nobody");
        });
    }
}

/// With the PROXY protocol, a connection is bound to a client and not only to its address.
#[test]
fn bound_connections_work_with_the_proxy_protocol() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let endpoint = Endpoint::numbered(move |conn, number| {
        count.fetch_add(1, Ordering::SeqCst);
        conn.expect("PROXY TCP4 ");
        conn.line();
        let mut session = Session::new(number, SPELLINGS[0]);
        while let Some(request) = conn.next_request() {
            if conn.try_send(session.answer(&request)).is_err() {
                break;
            }
        }
        count.fetch_sub(1, Ordering::SeqCst);
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\nproxy_protocol = \"v1\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let (mut a, mut b) = (weir.connect(), weir.connect());
    log_in(&mut a, "alice");
    log_in(&mut b, "bob");
    for _ in 0..3 {
        assert_eq!(identity_of(&mut a), "alice");
        assert_eq!(identity_of(&mut b), "bob");
    }
    drop((a, b));
    eventually("both are closed", || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    });
}
