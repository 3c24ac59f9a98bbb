//! The PROXY protocol on both sides, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::process::{Command, Stdio};

use e2e::*;

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n";

/// An endpoint that answers with the client's address in X-Forwarded-For.
fn client_address_echo() -> Endpoint {
    Endpoint::answering(|request| ok(request.field("X-Forwarded-For").unwrap_or("nobody")))
}

fn listening(keys: &str, endpoint: &Endpoint) -> Weir {
    let listener = format!("[listen.\"127.0.0.1:0\"]\n{keys}\n");
    Weir::start(&(listener + &route_to(&[endpoint])))
}

fn refused() -> &'static str {
    "weir_reasons_total{listener=\"127.0.0.1:0\",reason=\"not_introduced\"}"
}

#[test]
fn the_header_names_the_client() {
    let endpoint = client_address_echo();
    let weir = listening("proxy_protocol = [\"127.0.0.0/8\"]", &endpoint);
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28".to_vec();
    v2.extend(
        "2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    v2.extend([0; 16]);
    v2.extend([0, 1, 0, 2]);
    // A TLV after the addresses, which Weir ignores.
    v2.extend([4, 0, 1, 9]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (number, (header, client)) in [
        (V1.as_bytes().to_vec(), "192.0.2.7"),
        (v2, "2001:db8::7"),
        (local, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        let whole = [&header[..], get(&path).as_bytes()].concat();
        for size in [whole.len(), 1, 7] {
            let mut conn = weir.connect();
            conn.send_split(&whole, size);
            assert_eq!(conn.response().text(), client, "in pieces of {size}");
            conn.send(get("/again"));
            assert_eq!(conn.response().text(), client);
        }
        assert_eq!(weir.entry(&path).text("client"), client);
    }
}

#[test]
fn a_missing_or_untrusted_header_is_refused() {
    let endpoint = client_address_echo();
    let weir = listening(
        "proxy_protocol = [\"127.0.0.0/8\"]\ntimeouts = { head = \"1s\" }",
        &endpoint,
    );
    for bad in [
        get("/"),
        "PROXY TCP4 192.0.2.7\r\n".to_owned(),
        "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0".to_owned(),
    ] {
        let mut conn = weir.connect();
        conn.send(bad);
        assert_eq!(conn.rest().0, b"");
    }
    eventually("refusals", || (weir.metric(refused()) == 3.0).then_some(()));
    // Weir does not wait for ever for the rest of a header.
    let mut slow = weir.connect();
    slow.send("PROXY TCP4 ");
    assert_eq!(slow.rest().0, b"");
    let weir = listening("proxy_protocol = [\"192.0.2.0/24\"]", &endpoint);
    let mut conn = weir.connect();
    let _ = conn.try_send(format!("{V1}{}", get("/")));
    assert_eq!(conn.rest().0, b"");
    eventually("refusals", || (weir.metric(refused()) == 1.0).then_some(()));
    assert!(endpoint.requests().is_empty());
}

#[test]
fn limits_count_the_client_in_the_header() {
    let endpoint = client_address_echo();
    let keys = "proxy_protocol = [\"127.0.0.1\"]\nconnections_per_client = 1";
    let weir = listening(keys, &endpoint);
    let ask = |client: &str| {
        let conn = weir.connect();
        conn.send(V1.replace("192.0.2.7", client) + &get("/"));
        conn
    };
    let (mut first, mut other) = (ask("192.0.2.1"), ask("192.0.2.2"));
    assert_eq!(first.response().text(), "192.0.2.1");
    assert_eq!(other.response().text(), "192.0.2.2");
    let mut second = ask("192.0.2.1");
    assert_eq!(second.rest().0, b"");
    drop(first);
    eventually("the place to be free", || {
        let mut conn = ask("192.0.2.1");
        conn.finish();
        let (bytes, _) = conn.rest();
        bytes.starts_with(b"HTTP/1.1 200").then_some(())
    });
}

#[test]
fn tls_follows_the_header() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let endpoint = client_address_echo();
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\nproxy_protocol = [\"127.0.0.1\"]\ntls = {{ {cert} }}\n{}",
            route_to(&[&endpoint])
        ),
    );
    // curl sends a version 1 header with its own address.
    let output = Command::new("curl")
        .args(["-sS", "--haproxy-protocol", "--cacert"])
        .arg(&ca_file)
        .arg("--connect-to")
        .arg(format!("a.test:443:{}", weir.address))
        .arg("https://a.test/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.stdout, b"127.0.0.1", "{error}");
    assert_eq!(weir.entry("/").text("tls"), "1.3");
}

#[test]
fn endpoints_get_a_header_and_its_connection_is_not_shared() {
    for (version, begins) in [
        ("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
    ] {
        let endpoint = Endpoint::script(move |conn| {
            conn.expect(begins);
            let port = if version == "v1" {
                conn.line().split(' ').next().unwrap().to_owned()
            } else {
                let rest = conn.take(12);
                assert_eq!(rest[..8], [127, 0, 0, 1, 127, 0, 0, 1]);
                u16::from_be_bytes([rest[8], rest[9]]).to_string()
            };
            while conn.next_request().is_some() {
                let _ = conn.try_send(ok(&port));
            }
        });
        let weir = Weir::start(&format!(
            "[upstream.up]\nservers = [\"{}\"]\nproxy_protocol = \"{version}\"\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
            endpoint.name
        ));
        let (mut first, mut second) = (weir.connect(), weir.connect());
        for _ in 0..3 {
            for conn in [&mut first, &mut second] {
                conn.send(get("/"));
                assert_eq!(conn.response().text(), conn.local().port().to_string());
            }
        }
        assert_eq!(
            endpoint.connections(),
            2,
            "each client has one, and keeps it"
        );
    }
}

#[test]
fn the_header_to_a_tls_endpoint_precedes_the_handshake() {
    // nginx and HAProxy also read the header before the TLS handshake.
    let endpoint = Endpoint::script(|conn| {
        conn.expect("PROXY TCP4 127.0.0.1 127.0.0.1 ");
        conn.line();
        assert_eq!(conn.take(3), [0x16, 3, 1], "a handshake begins");
        drop(conn.rest());
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [\"https://{}\"]\nproxy_protocol = \"v1\"\ntls = {{ verify = \"off\" }}\n\
         retries = 0\n[[route]]\nmatch = \"/*\"\nto = \"up\"\ntimeouts = {{ connect = \"1s\" }}\n",
        endpoint.name
    ));
    assert_eq!(weir.ask(get("/")).status(), 504);
}
