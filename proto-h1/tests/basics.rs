//! The shortest way through each part: parse, frame, strip, encode.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::*;

fn request(wire: &[u8]) -> (Head, BodyKind, HopOptions) {
    let mut head = Head::new();
    let parsed = parse_request(wire, &Limits::default(), &mut head).unwrap();
    assert_eq!(parsed, Parsed::Complete(head.len as usize));
    let body = request_body(&mut head, wire).unwrap();
    let hop = strip_hop_by_hop(&mut head, wire, MessageKind::Request).unwrap();
    (head, body, hop)
}

fn forward(wire: &[u8], edits: &Edits) -> String {
    let (head, body, hop) = request(wire);
    let mut out = Vec::new();
    let framing = Framing {
        body,
        connection: hop
            .upgrade
            .map_or(ConnectionOption::Implied, ConnectionOption::Upgrade),
        accepts_trailers: hop.accepts_trailers,
    };
    encode_request(&mut out, wire, &head, edits, &framing);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_without_edits_is_copied() {
    let wire = b"GET /a?b=c HTTP/1.1\r\nHost: x.test:8080\r\nA:  b \r\n\r\n";
    assert_eq!(forward(wire, &Edits::new()).as_bytes(), wire);
    let (head, body, _) = request(wire);
    assert_eq!(body, BodyKind::None);
    assert_eq!(head.path.get(wire), b"/a");
    assert_eq!(head.query.get(wire), b"b=c");
    assert_eq!(head.authority.get(wire), b"x.test:8080");
    assert_eq!(head.find_name(b"a", wire).unwrap().value.get(wire), b"b");
}

#[test]
fn hop_by_hop_fields_stay_behind_and_edits_come_last() {
    let wire = b"GET / HTTP/1.1\r\nConnection: keep-alive, x-a\r\nHost: x.test\r\nX-A: 1\r\n\
                 Keep-Alive: timeout=5\r\nX-B: 2\r\nTE: trailers\r\n\r\n";
    let mut edits = Edits::new();
    edits.append("Via", "1.1 weir");
    edits.append_pieces("X-N", &[b"n=", Decimal::new(4096).as_bytes()]);
    assert_eq!(
        forward(wire, &edits),
        "GET / HTTP/1.1\r\nHost: x.test\r\nX-B: 2\r\nVia: 1.1 weir\r\nX-N: n=4096\r\n\r\n"
    );
}

#[test]
fn absolute_form_becomes_origin_form_and_replaces_host() {
    let wire = b"GET http://a.test?q HTTP/1.1\r\nX: y\r\nHost: b.test\r\n\r\n";
    assert_eq!(
        forward(wire, &Edits::new()),
        "GET /?q HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n"
    );
}

#[test]
fn edits_replace_path_and_host() {
    let wire = b"GET /old?q=1 HTTP/1.1\r\nA: b\r\nHost: b.test\r\nC: d\r\n\r\n";
    let mut edits = Edits::new();
    edits.set_path(b"/new path");
    edits.set_authority(b"c.test");
    assert_eq!(
        forward(wire, &edits),
        "GET /new%20path?q=1 HTTP/1.1\r\nHost: c.test\r\nA: b\r\nC: d\r\n\r\n"
    );
}

#[test]
fn an_edit_cannot_end_a_line() {
    let wire = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut edits = Edits::new();
    edits.append("A", "b\r\nC: d\0");
    assert_eq!(
        forward(wire, &edits),
        "GET / HTTP/1.1\r\nHost: b\r\nA: b  C: d\r\n\r\n"
    );
}

#[test]
fn the_framing_on_the_wire_is_kept_or_replaced() {
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n";
    let encode = |body, status: Option<u16>| {
        let mut head = Head::new();
        parse_response(wire, &Limits::default(), &mut head).unwrap();
        response_body(&mut head, wire, Method::Get).unwrap();
        head.status = status.unwrap_or(head.status);
        let mut out = Vec::new();
        let framing = Framing {
            body,
            connection: ConnectionOption::Close,
            accepts_trailers: false,
        };
        encode_response(&mut out, wire, &head, &Edits::new(), &framing);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        encode(BodyKind::Length(5), None),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        encode(BodyKind::Chunked, Some(404)),
        "HTTP/1.1 404 Not Found\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn a_response_of_our_own_needs_no_block() {
    let head = Head::with_status(503);
    let mut edits = Edits::new();
    edits.append("Retry-After", "1");
    let mut out = Vec::new();
    let framing = Framing {
        body: BodyKind::Length(2),
        ..Framing::default()
    };
    encode_response(&mut out, b"", &head, &edits, &framing);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n"
    );
}

#[test]
fn chunks_are_decoded_and_encoded() {
    let wire = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\nContent-Length: 7\r\n\r\nnext";
    let mut decoder = BodyDecoder::new(BodyKind::Chunked, &Limits::default());
    let mut encoder = BodyEncoder::new(BodyKind::Chunked);
    let (mut rest, mut data, mut out) = (&wire[..], Vec::new(), Vec::new());
    loop {
        match decoder.decode(rest).unwrap() {
            DecodedBody::Data { skip, len } => {
                data.extend_from_slice(&rest[skip..skip + len]);
                out.extend_from_slice(encoder.prefix(len).unwrap().as_bytes());
                out.extend_from_slice(&rest[skip..skip + len]);
                out.extend_from_slice(encoder.suffix());
                rest = &rest[skip + len..];
            }
            DecodedBody::End { consumed } => {
                assert_eq!(&rest[consumed..], b"next");
                break;
            }
            DecodedBody::NeedMore { .. } => panic!("the body is complete"),
        }
    }
    encoder
        .finish_with_trailers(decoder.trailers(), &mut out)
        .unwrap();
    assert_eq!(data, b"hello!");
    assert_eq!(out, b"5\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n");
    assert_eq!(
        BodyEncoder::new(BodyKind::Length(2)).finish(),
        Err(Error::BodyUnderrun)
    );
    assert_eq!(
        BodyEncoder::new(BodyKind::Length(2)).prefix(3).unwrap_err(),
        Error::BodyOverrun
    );
}

#[test]
fn prefaces_are_recognized() {
    assert_eq!(looks_like_h2_preface(b"PRI * HT"), None);
    assert_eq!(
        looks_like_h2_preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx"),
        Some(true)
    );
    assert_eq!(looks_like_h2_preface(b"POST"), Some(false));
    assert_eq!(looks_like_tls(&[0x16, 3, 1, 0]), Some(true));
    assert_eq!(looks_like_tls(b"GET"), Some(false));
}

/// A value of fixed length follows the rules of other values, for every byte at every position.
#[test]
fn values_of_fixed_length_follow_the_same_rules() {
    fn check<const N: usize>() {
        for place in 0..N {
            for byte in 0..=255 {
                let mut value = [b'a'; N];
                value[place] = byte;
                let (mut fixed, mut usual) = (Edits::new(), Edits::new());
                fixed.append_fixed("X-Id", &value);
                usual.append("X-Id", value);
                assert!(fixed.iter().eq(usual.iter()), "{byte} at {place} of {N}");
                let head = Head::with_status(200);
                let written = |edits: &Edits| {
                    let mut out = Vec::new();
                    encode_response(&mut out, b"", &head, edits, &Framing::default());
                    out
                };
                assert_eq!(written(&fixed), written(&usual), "{byte} at {place} of {N}");
            }
        }
    }
    check::<5>();
    check::<16>();
    check::<29>();
    check::<32>();
    check::<40>();
}

/// Names are searched word by word, so every byte is tried at every position, with dots before,
/// after and beside it.
#[test]
fn host_names_follow_the_same_rules_at_every_position() {
    let is_name = |name: &[u8]| {
        let is_host_byte =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let has_empty_label = name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..");
        name.iter().all(is_host_byte) && !has_empty_label
    };
    for len in 1..26 {
        for place in 0..len {
            for byte in (0..=255).filter(|byte| *byte != b':' && *byte != b'[') {
                for dot in 0..len {
                    let mut name = vec![b'a'; len];
                    name[dot] = b'.';
                    name[place] = byte;
                    let host = target::host_port(&name).map(|host| host.host);
                    assert_eq!(host.ok(), is_name(&name).then_some(&name[..]), "{name:?}");
                }
            }
        }
    }
}
