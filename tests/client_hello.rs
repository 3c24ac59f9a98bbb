//! The reader of TLS ClientHellos against those that rustls makes: whole, cut, split into records, with extensions of
//! GREASE, and mangled.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
};
use weir::io::sim::Rng;
use weir::l4::{ClientHello, HelloError, read_client_hello};

/// The first flight of a rustls client.
fn hello(
    name: &str,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn all() -> Vec<(Vec<u8>, ClientHello)> {
    let long = format!("{}.example.com", ["a"; 60].join("."));
    let mut made = Vec::new();
    for versions in [&[&TLS13][..], &[&TLS12], &[&TLS13, &TLS12]] {
        for (name, protocols) in [
            ("db.example.com", &[][..]),
            ("DB.Example.com", &["h2", "http/1.1"]),
            (&long, &["acme-tls/1"]),
            // RFC 6066: an address is no server name.
            ("192.0.2.1", &["h2"]),
        ] {
            let server_name = (name != "192.0.2.1").then(|| name.to_ascii_lowercase().into());
            let expected = ClientHello {
                server_name,
                protocols: protocols
                    .iter()
                    .map(|name| name.as_bytes().into())
                    .collect(),
            };
            made.push((hello(name, protocols, versions), expected));
        }
    }
    made
}

fn lower(hello: ClientHello) -> ClientHello {
    let server_name = hello
        .server_name
        .map(|name| name.to_ascii_lowercase().into());
    ClientHello {
        server_name,
        ..hello
    }
}

/// The same message in records of at most `size` bytes.
fn in_records(hello: &[u8], mut size: impl FnMut() -> usize) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), &hello[5..]);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(size().clamp(1, rest.len()));
        out.extend([22, 3, 1]);
        out.extend((piece.len() as u16).to_be_bytes());
        out.extend(piece);
        rest = more;
    }
    out
}

/// Adds an extension at the end of a hello in one record.
fn with_extension(hello: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = hello[5..].to_vec();
    let added = [
        &kind.to_be_bytes()[..],
        &(body.len() as u16).to_be_bytes(),
        body,
    ]
    .concat();
    // Behind version, random, session id, cipher suites and compression methods.
    let mut at = 4 + 34;
    at += 1 + usize::from(message[at]);
    at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    at += 1 + usize::from(message[at]);
    let extensions = u16::from_be_bytes([message[at], message[at + 1]]) + added.len() as u16;
    message[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
    message.extend(added);
    let length = (message.len() as u32 - 4).to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    let mut out = vec![22, 3, 1];
    out.extend((message.len() as u16).to_be_bytes());
    out.extend(message);
    out
}

#[test]
fn names_and_protocols_are_read_however_the_bytes_arrive() {
    let mut rng = Rng::new(1);
    for (bytes, expected) in all() {
        let read = |bytes: &[u8]| read_client_hello(bytes).map(|found| found.map(lower));
        let whole = Ok(Some(expected.clone()));
        assert_eq!(read(&bytes), whole);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let sizes = [1, 2, 3, 4, 5, 100];
        let drawn = (0..40).map(|_| in_records(&bytes, || rng.size(600)));
        let drawn: Vec<_> = drawn.collect();
        for split in sizes
            .map(|size| in_records(&bytes, || size))
            .into_iter()
            .chain(drawn)
        {
            assert_eq!(read(&split), whole);
            for cut in 0..split.len() {
                assert_eq!(read(&split[..cut]), Ok(None), "cut at {cut}");
            }
        }
        // Bytes behind the hello are the client's next flight.
        let more = [&bytes[..], &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(read(&more), whole);
        // GREASE, RFC 8701.
        let greased = with_extension(&with_extension(&bytes, 0x1a1a, &[]), 0xdada, &[0]);
        assert_eq!(read(&greased), whole);
    }
}

#[test]
fn what_is_no_client_hello_is_refused_at_once() {
    let (good, _) = all().remove(0);
    let long = with_extension(&good, 0x1a1a, &[0; 17_000]);
    let nul = with_extension(&good[..], 16, &[0, 0]);
    for bad in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x80\x2e\x01\x03\x01",
        b"\x16\x02",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\0\x04\x02",
        b"\x15\x03\x01\0\x02",
        // A message longer than Weir reads, and one in so many bytes.
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        &long,
        // A second server name, a second list of protocols, an empty list.
        &with_extension(&good, 0, b"\0\x04\0\0\x01a"),
        &with_extension(
            &with_extension(&good, 16, b"\0\x03\x02h2"),
            16,
            b"\0\x03\x02h2",
        ),
        &nul,
    ] {
        assert_eq!(
            read_client_hello(bad),
            Err(HelloError),
            "{:?}",
            &bad[..bad.len().min(12)]
        );
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut rng = Rng::new(2);
    for (bytes, _) in all() {
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = read_client_hello(&changed);
            }
        }
        for _ in 0..2_000 {
            let mut changed = bytes.clone();
            for _ in 0..rng.between(1, 8) {
                let at = rng.below(changed.len());
                match rng.below(3) {
                    0 => changed[at] = rng.below(256) as u8,
                    1 => drop(changed.remove(at)),
                    _ => changed.insert(at, rng.below(256) as u8),
                }
            }
            changed.truncate(rng.size(changed.len()));
            let _ = read_client_hello(&changed);
        }
    }
}
