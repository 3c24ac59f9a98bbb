//! `tcp` and `passthrough` with real sockets: a double of Redis, psql against a double of PostgreSQL, TLS by rustls and
//! OpenSSL, the PROXY protocol on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, DEFAULT_VERSIONS, StreamOwned};

use e2e::*;

/// A server whose `serve` runs on a thread for each connection.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (serve, accepted) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
        let count = accepted.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, accepted }
    }

    /// Answers inline commands of Redis. The first line of a connection may be a PROXY header.
    fn redis() -> Self {
        Self::start(|stream| {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let (mut stream, mut client) = (stream, String::new());
            while let Some(Ok(line)) = lines.next() {
                let answer = match line.split(' ').collect::<Vec<_>>()[..] {
                    ["PING"] => "+PONG\r\n".to_owned(),
                    ["ECHO", text] => format!("${}\r\n{text}\r\n", text.len()),
                    ["PROXY", _, source, _, port, _] => {
                        client = format!("{source}:{port}");
                        continue;
                    }
                    ["WHO"] => format!("+{client}\r\n"),
                    _ => "-ERR unknown command\r\n".to_owned(),
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }
}

/// A Weir with `tcp` on a free port to this server.
fn relaying(keys: &str, upstream: &str) -> Weir {
    Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\ntcp = \"db\"\n{keys}\n[upstream.db]\n{upstream}\n"
    ))
}

fn servers(of: &[&Server]) -> String {
    let names: Vec<_> = of.iter().map(|one| one.address.to_string()).collect();
    format!("servers = {names:?}")
}

#[test]
fn bytes_pass_in_both_directions_and_are_counted() {
    let redis = Server::redis();
    let weir = relaying("", &servers(&[&redis]));
    let mut conn = weir.connect();
    for _ in 0..3 {
        conn.send("PING\r\n");
        conn.expect("+PONG\r\n");
    }
    conn.send_split("ECHO hello\r\n", 1);
    conn.expect("$5\r\nhello\r\n");
    assert_eq!(
        weir.metric("weir_connections_open{listener=\"127.0.0.1:0\"}"),
        1.0
    );
    conn.finish();
    assert_eq!(conn.rest(), (Vec::new(), End::Closed));
    let entry = weir.entry_with("version", "TCP");
    assert_eq!(entry.text("upstream"), "db");
    assert_eq!(entry.text("endpoint"), redis.address.to_string());
    assert_eq!(entry.number("bytes_in"), 30.0);
    assert_eq!(entry.number("bytes_out"), 32.0);
    assert_eq!(entry.number("status"), 0.0);
    assert!(entry.text("reason").is_empty());
    let metric = |name: &str| weir.metric(&format!("{name}{{listener=\"127.0.0.1:0\"}}"));
    assert_eq!(metric("weir_request_body_bytes_total"), 30.0);
    assert_eq!(metric("weir_response_body_bytes_total"), 32.0);
    assert_eq!(metric("weir_relay_duration_seconds_count"), 1.0);
    assert_eq!(metric("weir_connections_open"), 0.0);
}

#[test]
fn half_close_and_long_streams_in_both_directions() {
    // Sums up what it gets, and answers after the end with as many bytes.
    let server = Server::start(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let weir = relaying("", &servers(&[&server]));
    let long: Vec<u8> = (0..8_000_000_u32)
        .map(|n| (n * 7 + n / 251) as u8)
        .collect();
    let mut conn = weir.connect();
    conn.send(&long);
    conn.finish();
    let (answer, end) = conn.rest();
    assert_eq!(end, End::Closed);
    assert!(answer == long, "{} bytes", answer.len());
    let entry = weir.entry_with("version", "TCP");
    assert_eq!(entry.number("bytes_in"), 8_000_000.0);
    assert_eq!(entry.number("bytes_out"), 8_000_000.0);
}

#[test]
fn resets_pass_on_and_silence_ends() {
    let server = Server::start(|stream| {
        let mut first = [0];
        let _ = (&stream).read_exact(&mut first);
        if first == *b"r" {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            let _ = (&stream).read(&mut first);
        }
    });
    let weir = relaying("timeouts = { idle = \"300ms\" }", &servers(&[&server]));
    let mut conn = weir.connect();
    conn.send("r");
    assert_eq!(conn.rest().1, End::Reset);
    assert_eq!(
        weir.entry_with("reason", "upstream_closed")
            .number("bytes_in"),
        1.0
    );
    let mut conn = weir.connect();
    conn.send("s");
    assert_eq!(conn.rest().1, End::Reset);
    assert!(weir.entry_with("reason", "idle_timeout").number("total_ms") >= 300.0);
}

#[test]
fn a_dead_endpoint_is_passed_over_and_a_dead_upstream_resets() {
    let redis = Server::redis();
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let weir = relaying(
        "",
        &format!("servers = [\"{dead}\", \"{}\"]", redis.address),
    );
    for _ in 0..4 {
        let mut conn = weir.connect();
        conn.send("PING\r\n");
        conn.expect("+PONG\r\n");
    }
    assert_eq!(redis.accepted.load(Ordering::Relaxed), 4);
    let weir = relaying("", &format!("servers = [\"{dead}\"]"));
    assert_eq!(weir.connect().rest().1, End::Reset);
    let entry = weir.entry_with("reason", "connect_failed");
    assert_eq!(
        (entry.number("attempts"), entry.text("errno")),
        (1.0, "ECONNREFUSED".to_owned())
    );
}

/// Resets each connection once it has received a byte.
fn resetting() -> Server {
    Server::start(|stream| {
        let _ = (&stream).read_exact(&mut [0]);
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    })
}

#[test]
fn an_endpoint_that_resets_connections_or_refuses_them_is_ejected() {
    let (redis, broken) = (Server::redis(), resetting());
    for (bad, cause) in [
        (broken.address, "reset"),
        (free_address("127.0.0.1"), "connect"),
    ] {
        let upstream = format!(
            "servers = [\"{bad}\", \"{}\"]\nbalance = \"round_robin\"\neject = {{ failures = 3, duration = \"30s\" }}",
            redis.address
        );
        let weir = relaying("", &upstream);
        for _ in 0..20 {
            let mut conn = weir.connect();
            conn.send("PING\r\n");
            conn.finish();
            conn.rest();
        }
        weir.wait_for(&format!("is ejected for 30 s: requests fail ({cause})"));
        for _ in 0..6 {
            let mut conn = weir.connect();
            conn.send("PING\r\n");
            conn.expect("+PONG\r\n");
        }
    }
    // At most a few connections more than the three that ejected it.
    assert!(broken.accepted.load(Ordering::Relaxed) <= 5);
}

#[test]
fn a_breaker_refuses_connections() {
    let broken = resetting();
    let upstream = format!(
        "{}\neject = \"off\"\nbreaker = {{ min_requests = 4, open_for = \"60s\" }}",
        servers(&[&broken])
    );
    let weir = relaying("", &upstream);
    for _ in 0..4 {
        let mut conn = weir.connect();
        conn.send("x");
        assert_eq!(conn.rest().1, End::Reset);
        weir.entry_with("reason", "upstream_closed");
    }
    assert_eq!(weir.connect().rest().1, End::Reset);
    weir.entry_with("reason", "circuit_open");
    assert_eq!(broken.accepted.load(Ordering::Relaxed), 4);

    // Connections that go on count as running, though the first byte has told how they fare.
    let redis = Server::redis();
    let upstream = format!("{}\nbreaker = {{ requests = 2 }}", servers(&[&redis]));
    let weir = relaying("", &upstream);
    let open = || {
        let mut conn = weir.connect();
        conn.send("PING\r\n");
        conn.expect("+PONG\r\n");
        conn
    };
    let (one, _two) = (open(), open());
    assert_eq!(weir.connect().rest().1, End::Reset);
    weir.entry_with("reason", "circuit_open");
    drop(one);
    weir.entry_where("the first has ended", |entry| {
        entry.number("bytes_out") == 7.0
    });
    open();
}

#[test]
fn connections_count_as_load_and_have_a_limit() {
    let (one, two) = (Server::redis(), Server::redis());
    let open = |weir: &Weir| {
        let mut conn = weir.connect();
        conn.send("PING\r\n");
        conn.expect("+PONG\r\n");
        conn
    };
    let upstream = format!("{}\nbalance = \"least_conn\"", servers(&[&one, &two]));
    let weir = relaying("", &upstream);
    let _open: Vec<_> = (0..8).map(|_| open(&weir)).collect();
    let accepted = |server: &Server| server.accepted.load(Ordering::Relaxed);
    assert_eq!((accepted(&one), accepted(&two)), (4, 4));

    let (one, two) = (Server::redis(), Server::redis());
    let upstream = format!(
        "servers = [{{ address = \"{}\", connections = 1 }}, {{ address = \"{}\", connections = 2 }}]\ntimeouts = {{ queue = \"200ms\" }}",
        one.address, two.address
    );
    let weir = relaying("", &upstream);
    let mut open_ones: Vec<_> = (0..3).map(|_| open(&weir)).collect();
    assert_eq!((accepted(&one), accepted(&two)), (1, 2));
    assert_eq!(weir.connect().rest().1, End::Reset);
    weir.entry_with("reason", "queue_timeout");
    open_ones.pop();
    open(&weir);
}

#[test]
fn policies_and_limits_apply_to_connections() {
    let redis = Server::redis();
    let keys = "ip = { deny = [\"127.0.0.9\"] }\nconcurrency = \"2 per ip\"\nlimit = \"3/h per ip\"\nconnections = 10";
    let weir = relaying(keys, &servers(&[&redis]));
    let from = |ip: &str| Conn::from_to(format!("{ip}:0").parse().unwrap(), weir.address);
    assert_eq!(from("127.0.0.9").rest().1, End::Reset);
    assert_eq!(weir.entry_with("reason", "ip_denied").text("policy"), "ip");
    let pong = |conn: &mut Conn| {
        conn.send("PING\r\n");
        conn.expect("+PONG\r\n");
    };
    let (mut one, mut two) = (from("127.0.0.8"), from("127.0.0.8"));
    pong(&mut one);
    pong(&mut two);
    assert_eq!(from("127.0.0.8").rest().1, End::Reset);
    assert_eq!(
        weir.entry_with("reason", "concurrency_limit")
            .text("policy"),
        "concurrency"
    );
    drop(one);
    weir.entry_with("client", "127.0.0.8");
    for _ in 0..3 {
        pong(&mut from("127.0.0.6"));
        weir.entry_with("client", "127.0.0.6");
    }
    assert_eq!(from("127.0.0.6").rest().1, End::Reset);
    assert_eq!(
        weir.entry_with("reason", "rate_limit").text("policy"),
        "limit"
    );
    pong(&mut from("127.0.0.7"));
}

#[test]
fn the_proxy_protocol_names_the_client_on_both_sides() {
    let redis = Server::redis();
    let upstream = format!("{}\nproxy_protocol = \"v1\"", servers(&[&redis]));
    let weir = relaying("proxy_protocol = [\"127.0.0.0/8\"]", &upstream);
    let mut conn = weir.connect();
    conn.send("PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\nWHO\r\n");
    conn.expect("+192.0.2.7:4711\r\n");
    conn.finish();
    conn.rest();
    assert_eq!(
        weir.entry_with("version", "TCP").text("client"),
        "192.0.2.7"
    );
    let mut conn = weir.connect();
    conn.send("WHO\r\n");
    assert_eq!(conn.rest().1, End::Reset);
    assert_eq!(
        weir.entry_with("reason", "not_introduced").text("version"),
        "TCP"
    );
}

#[test]
fn tls_ends_here_and_begins_anew() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let files = ca.sign(&["a.test"]).write(&dir, "site");
    let ca_file = ca.write(&dir.join("ca.pem"));
    let redis = Server::redis();
    let secure = OpensslServer::start(&dir, "a.test", &ca);
    let inner = free_address("127.0.0.1");
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntcp = \"secure\"\n[listen.\"{inner}\"]\ntcp = \"db\"\ntls = {{ {files} }}\n\
             [upstream.secure]\nservers = [\"https://{}\"]\ntls = {{ ca = {ca_file:?}, server_name = \"a.test\" }}\n\
             [upstream.db]\n{}\n",
            secure.1,
            servers(&[&redis])
        ),
    );
    let mut conn = weir.connect();
    conn.send("abc\n");
    conn.expect("cba\n");
    // A client with a protocol of its own; without ALPN on Weir's side the handshake succeeds.
    let mut config = tls_config(&ca.pem, DEFAULT_VERSIONS);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut secure = tls_connect(inner, Arc::new(config));
    secure.write_all(b"ECHO inside\r\n").unwrap();
    let mut answer = [0; 12];
    secure.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"$6\r\ninside\r\n");
    secure.conn.send_close_notify();
    secure.flush().unwrap();
    let entry = weir.entry_with("sni", "a.test");
    assert_eq!(entry.text("tls"), "1.3");
    // HTTP in the clear gets no answer from a listener that knows no HTTP.
    let mut plain = Conn::to(inner);
    plain.send(get("/"));
    assert_eq!(plain.rest().0, b"");
}

/// An `openssl s_server` that echoes lines in reverse, dropped with the test.
struct OpensslServer(Child, SocketAddr);

impl OpensslServer {
    fn start(dir: &std::path::Path, name: &str, ca: &Authority) -> Self {
        let address = free_address("127.0.0.1");
        ca.sign(&[name]).write(dir, name);
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-rev",
                "-accept",
                &address.to_string(),
            ])
            .arg("-cert")
            .arg(dir.join(format!("{name}.pem")))
            .arg("-key")
            .arg(dir.join(format!("{name}.key")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("openssl listens", || TcpStream::connect(address).ok());
        Self(child, address)
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn passthrough_routes_by_server_name() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let db = OpensslServer::start(&dir, "db.test", &ca);
    let web = OpensslServer::start(&dir, "www.web.test", &ca);
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\npassthrough = {{ \"db.test\" = \"db\", \"*.web.test\" = \"web\" }}\n\
             [upstream]\ndb = [\"{}\"]\nweb = [\"{}\"]\n",
            db.1, web.1
        ),
    );
    let config = Arc::new(tls_config(&ca.pem, DEFAULT_VERSIONS));
    let open = |name: &'static str| {
        let client = ClientConnection::new(config.clone(), ServerName::try_from(name).unwrap());
        let socket = TcpStream::connect(weir.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        StreamOwned::new(client.unwrap(), socket)
    };
    for name in ["db.test", "www.web.test"] {
        // The certificate is verified, so it is the right endpoint's.
        let mut stream = open(name);
        stream.write_all(b"abc\n").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"cba\n", "{name}");
        drop(stream);
        let entry = weir.entry_with("sni", name);
        assert!(entry.text("tls").is_empty(), "Weir does not end TLS");
    }
    let mut unknown = open("nowhere.test");
    let error = unknown
        .write_all(b"abc\n")
        .and_then(|()| unknown.read(&mut [0]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
    assert_eq!(
        weir.entry_with("reason", "unknown_server_name").text("sni"),
        "nowhere.test"
    );
    // OpenSSL without a name, to a listener without `*`.
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-noservername",
            "-connect",
            &weir.address.to_string(),
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("unrecognized name"), "{text}");
    // No TLS at all.
    let mut conn = weir.connect();
    conn.send(get("/"));
    assert_eq!(conn.rest().0, [21, 3, 1, 0, 2, 2, 50]);
    weir.entry_with("reason", "bad_client_hello");
}

#[test]
fn passthrough_routes_by_protocol() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let server = OpensslServer::start(&dir, "a.test", &ca);
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\".passthrough]\n\"a.test\" = {{ to = \"web\", alpn = {{ h2 = \"grpc\", \"acme-tls/1\" = \"acme\" }} }}\n\
             [upstream]\nweb = [\"{0}\"]\ngrpc = [\"{0}\"]\nacme = [\"{0}\"]\n",
            server.1
        ),
    );
    let cases: [(&[&str], &str); 5] = [
        (&[], "web"),
        (&["http/1.1"], "web"),
        (&["h2", "http/1.1"], "grpc"),
        (&["acme-tls/1"], "acme"),
        (&["x", "acme-tls/1", "h2"], "acme"),
    ];
    for (number, (protocols, upstream)) in cases.into_iter().enumerate() {
        let mut config = tls_config(&ca.pem, DEFAULT_VERSIONS);
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from("a.test").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(weir.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut stream = StreamOwned::new(client, socket);
        let line = format!("{number}\n");
        stream.write_all(line.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        drop(stream);
        let entry = weir.entry_with("upstream", upstream);
        assert_eq!(entry.text("upstream"), upstream, "{protocols:?}");
    }
}

/// Speaks as much of PostgreSQL's protocol (version 3) as `psql -c` needs: no TLS, no password, one row.
fn postgres(mut stream: TcpStream) -> std::io::Result<()> {
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }
    fn read_body(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut body)?;
        Ok(body)
    }
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    const GSS_REQUEST: [u8; 4] = 80_877_104_u32.to_be_bytes();
    loop {
        let startup = read_body(&mut stream)?;
        if startup[..4] != SSL_REQUEST && startup[..4] != GSS_REQUEST {
            break;
        }
        stream.write_all(b"N")?;
    }
    let ready = message(b'Z', b"I");
    let version = message(b'S', b"server_version\x0016.0\0");
    stream.write_all(&[message(b'R', &[0; 4]), version, ready.clone()].concat())?;
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let query = read_body(&mut stream)?;
        if kind[0] != b'Q' {
            return Ok(());
        }
        // One column of text with the query itself.
        let column = b"\0\x01asked\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        let text = &query[..query.len() - 1];
        let row = [&[0, 1][..], &(text.len() as u32).to_be_bytes(), text].concat();
        let answer = [
            message(b'T', column),
            message(b'D', &row),
            message(b'C', b"SELECT 1\0"),
            ready.clone(),
        ];
        stream.write_all(&answer.concat())?;
    }
}

#[test]
fn psql_talks_to_its_server() {
    let server = Server::start(|stream| drop(postgres(stream)));
    let weir = relaying("", &servers(&[&server]));
    let output = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &weir.address.port().to_string()])
        .args(["-U", "test", "-d", "test", "-At", "-c", "SELECT 42"])
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "SELECT 42\n",
        "{error}"
    );
    weir.entry_with("version", "TCP");
}
