//! How TLS connections end, and the alerts before the end.

use std::io::{Read, Write};

use tokio_rustls::rustls::{self, AlertDescription, Error};

use crate::e2e::*;
use crate::edge::*;

#[test]
fn what_is_not_tls_is_told_so() {
    let edge = Edge::start("", "[listen.\"127.0.0.1:0\".timeouts]\nhead = \"1s\"\n");
    let mut plain = edge.weir.connect();
    plain.send(get("/"));
    let answer = plain.response();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("use https"), "{}", answer.text());
    plain.expect_closed();
    let mut noise = edge.weir.connect();
    noise.send([0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06]);
    drop(noise.rest());
    let silent = edge.weir.connect();
    edge.wait_for_metric(&failures("plain_http"), 1.0);
    edge.wait_for_metric(&failures("not_tls"), 1.0);
    edge.wait_for_metric(&failures("timeout"), 1.0);
    drop(silent);
    drop(edge.weir.connect());
    edge.wait_for_metric(&failures("closed_in_handshake"), 1.0);
}

#[test]
fn the_end_is_said_and_an_end_that_was_not_said_is_an_abort() {
    let edge = Edge::start("", "");
    let mut stream = edge.connect();
    stream
        .write_all(b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // rustls makes an error of an end without close_notify.
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn an_upload_that_is_cut_off_is_never_taken_for_whole() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let (begun, has_begun) = std::sync::mpsc::channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.message_head();
        begun.send(()).unwrap();
        let (body, _) = conn.rest();
        assert!(b"half".starts_with(&body), "{body:?}");
    });
    let listener = format!("[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n");
    let weir = Weir::start_in(&dir, &(listener + &route_to(&[&endpoint])));
    let mut stream = connect(weir.address, &ca.pem);
    stream
        .write_all(b"POST /cut HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    stream.flush().unwrap();
    has_begun.recv_timeout(DEADLINE).unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(weir.entry("/cut").text("reason"), "client_closed");
}

/// More bytes than a closing socket would leave unread.
static JUNK: [u8; 200_000] = [b'x'; 200_000];

/// An unencrypted record of application data.
const BROKEN: &[u8] = b"\x17\x03\x03\x00\x20xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

#[test]
fn the_alert_comes_before_the_close_whatever_else_was_sent() {
    let edge = Edge::start("", "[[route]]\nmatch = \"/here\"\nrespond = \"here\"\n");
    // Their first bytes, and the alerts: decode_error, record_overflow and unexpected_message.
    let unread = [&b"\x16\x03\x01\x01\x00xxxx"[..], &[b'x'; 252]].concat();
    let amid = b"\x16\x03\x01\x00\x06\x01\x00\x01\x00\x03\x03\x17\x03\x01\x00\x01x";
    for (hello, alert) in [
        (&b"no TLS at all, but much of it"[..], 50),
        (&unread, 50),
        (amid, 10),
    ] {
        let mut client = edge.weir.connect();
        client.send(hello);
        let _ = client.try_send(JUNK);
        let (bytes, end) = client.rest();
        assert_eq!(bytes, [21, 3, 3, 0, 2, 2, alert], "to {hello:?}");
        assert_eq!(end, End::Closed, "to {hello:?}");
    }
    // Weir does not answer an alert with another.
    let mut client = edge.weir.connect();
    client.send(b"\x15\x03\x01\x00\x02\x02\x28");
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // Before a request, after one, in its body, after one that an endpoint answers, and over HTTP/2.
        for said in [
            "",
            "GET /here HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "POST /here HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nfour",
            "GET /up HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let is_http2 = said.starts_with("PRI");
            let alpn = if is_http2 { &b"h2"[..] } else { b"http/1.1" };
            let mut stream = edge.connect_offering(version, alpn);
            stream.conn.complete_io(&mut stream.sock).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
            stream.sock.write_all(BROKEN).unwrap();
            let _ = stream.sock.write_all(&JUNK);
            // A reset would be another error.
            let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
            let error = error.into_inner().expect("an error of TLS");
            assert_eq!(
                *error.downcast::<Error>().unwrap(),
                Error::AlertReceived(AlertDescription::BadRecordMac),
                "{version:?} {said:?}"
            );
            let end = stream.sock.read(&mut [0; 64]);
            assert_eq!(end.expect("no reset"), 0, "{version:?} {said:?}");
        }
    }
}

#[test]
fn a_client_that_has_said_its_end_is_answered_and_told_ours() {
    let edge = Edge::start("", "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for said in ["", "GET /last HTTP/1.1\r\nHost: a.test\r\n\r\n"] {
            let mut stream = edge.connect_with(version);
            stream.conn.complete_io(&mut stream.sock).unwrap();
            // All in one segment, with bytes after the end that Weir ignores.
            stream.conn.writer().write_all(said.as_bytes()).unwrap();
            stream.conn.send_close_notify();
            let mut bytes = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut bytes).unwrap();
            }
            bytes.extend(BROKEN);
            stream.sock.write_all(&bytes).unwrap();
            let mut answer = Vec::new();
            // rustls makes an error of an end without close_notify.
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !said.is_empty());
        }
    }
}

#[test]
fn a_handshake_in_pieces_is_one() {
    let edge = Edge::start("", "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = edge.connect_with(version);
        let mut hello = Vec::new();
        stream.conn.write_tls(&mut hello).unwrap();
        // One record for each byte, in segments that cut records.
        let records: Vec<u8> = hello[5..]
            .iter()
            .flat_map(|byte| [22, 3, 1, 0, 1, *byte])
            .collect();
        for piece in records.chunks(7) {
            stream.sock.write_all(piece).unwrap();
        }
        assert!(ask(&mut stream, "/pieces").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_client_that_cannot_verify_our_key_is_told() {
    let edge = Edge::start("", "");
    // The certificate has a P-256 key.
    let said = edge.openssl(&["-tls1_2", "-sigalgs", "ECDSA+SHA384"], "");
    assert!(said.contains("alert handshake failure"), "{said}");
    let said = edge.openssl(&["-tls1_3", "-sigalgs", "ECDSA+SHA384"], "");
    assert!(said.contains("alert handshake failure"), "{said}");
    edge.wait_for_metric(&failures("cipher"), 2.0);
}
