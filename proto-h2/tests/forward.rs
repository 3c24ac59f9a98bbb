//! Forwards heads from one HTTP version and connection to another.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::{
    BodyKind, Edits, Event as Http1Event, Framing as Http1Framing, Head, Limits, Server, Trailers,
    encode_request, encode_response,
};
use weir_proto_h2::hpack::Decoder;
use weir_proto_h2::{Config, Connection, Event, Framing, StreamKey};

/// A field, and whether it is sensitive.
type Field = (String, String, bool);

/// The fields of the HEADERS frames in `wire`.
fn sections(mut wire: &[u8]) -> Vec<Vec<Field>> {
    let (mut decoder, mut sections) = (Decoder::new(4096), Vec::new());
    wire = wire
        .strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap_or(wire);
    while let Some((head, rest)) = wire.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == 1 {
            let (mut text, mut fields) = (Vec::new(), Vec::new());
            let each = |text: &[u8], field: weir_proto_h2::hpack::DecodedField| {
                let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (name, value) = (field.name.get(text), field.value.get(text));
                fields.push((show(name), show(value), field.is_sensitive));
                Ok::<(), ()>(())
            };
            decoder
                .decode(&rest[..len], &mut text, 1 << 20, each)
                .unwrap();
            sections.push(fields);
        }
        wire = &rest[len..];
    }
    sections
}

fn plain(fields: &[(&str, &str)]) -> Vec<Field> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned(), false);
    fields.iter().map(own).collect()
}

/// A server that has received one request, with the head, text and trailers of the request.
fn received(block: &[u8], trailers: &[u8]) -> (Connection, StreamKey, Head, Vec<u8>, Trailers) {
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (flags, block) in [(4, block), (5, trailers)] {
        wire.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
        wire.extend_from_slice(&[1, flags, 0, 0, 0, 1]);
        wire.extend_from_slice(block);
    }
    let mut server = Connection::server(Config::default());
    let (mut head, mut text) = (Head::new(), Vec::new());
    let (mut rest, mut request) = (&wire[..], None);
    let mut ended = Trailers::default();
    loop {
        let received = server.receive(rest, 0, &mut head, &mut text).unwrap();
        rest = &rest[received.consumed..];
        match received.event {
            Event::Request { stream, .. } => request = Some((stream, head.clone(), text.clone())),
            Event::Trailers { .. } => ended.fill(&head, &text),
            Event::NeedMore => break,
            _ => {}
        }
    }
    let (stream, head, text) = request.unwrap();
    (server, stream, head, text, ended)
}

#[test]
fn sensitive_fields_stay_sensitive() {
    let block = b"\x83\x86\x84\x41\x01a\x10\x01x\x01y\x1f\x11\x03a=b\x60\x03c=d\x00\x01z\x011";
    let (_, _, head, text, trailers) = received(block, b"\x10\x05x-sum\x011\x00\x03x-a\x012");
    let mut client = Connection::client(Config::default());
    let (mut out, edits) = (Vec::new(), Edits::new());
    let framing = Framing {
        body: BodyKind::Chunked,
        ..Framing::default()
    };
    let key = client
        .open(&mut out, &text, &head, &edits, &framing)
        .unwrap();
    client.send_trailers(&mut out, key, &trailers).unwrap();
    let sections = sections(&out);
    let sensitive = |section: &[Field]| -> Vec<String> {
        let fields = section.iter().filter(|(_, _, sensitive)| *sensitive);
        fields
            .map(|(name, value, _)| format!("{name}: {value}"))
            .collect()
    };
    // A short cookie is never indexed anyway.
    assert_eq!(sensitive(&sections[0]), ["x: y", "cookie: a=b; c=d"]);
    assert_eq!(sensitive(&sections[1]), ["x-sum: 1"]);
    assert_eq!(sections[0].len(), 7);
}

#[test]
fn an_http1_request_becomes_an_http2_request() {
    let block =
        b"POST http://b.test/x?y HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
        X-Kept: 2\r\nTE: trailers\r\nContent-Length: 5\r\n\r\n";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let received = server.receive(block, &mut head).unwrap();
    assert_eq!(received.event, Http1Event::Head);
    let request = *server.request();
    let mut client = Connection::client(Config::default());
    let (mut out, edits) = (Vec::new(), Edits::new());
    let framing = Framing {
        body: request.body,
        ..Framing::default()
    };
    client
        .open(&mut out, block, &head, &edits, &framing)
        .unwrap();
    let want = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "b.test"),
        (":path", "/x?y"),
        ("x-kept", "2"),
        ("content-length", "5"),
    ];
    assert_eq!(sections(&out), [plain(&want)]);
}

/// Every set of removed names leaves out the same fields as over HTTP/1.1.
#[test]
fn removed_fields_are_left_out_as_over_http1() {
    let block =
        b"GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: c=d\r\nx-a: 2\r\nX-B: 3\r\nAccept: */*\r\n\r\n";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    server.receive(block, &mut head).unwrap();
    let names = ["X-A", "cookie", "ACCEPT", "x-b", "via", "Host"];
    for set in 0..1 << names.len() {
        let mut edits = Edits::new();
        edits.append("Via", "1.1 weir");
        edits.append("X-A", "early");
        for (at, name) in names.iter().enumerate() {
            if set & 1 << at != 0 {
                edits.remove(name);
            }
        }
        edits.append("X-A", "late");
        let (mut lines, mut out) = (Vec::new(), Vec::new());
        encode_request(&mut lines, block, &head, &edits, &Http1Framing::default());
        let lines = String::from_utf8(lines).unwrap();
        let fields = lines.lines().filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let want: Vec<_> = fields.filter(|(name, _)| name != "host").collect();
        Connection::client(Config::default())
            .open(&mut out, block, &head, &edits, &Framing::default())
            .unwrap();
        let sections = sections(&out);
        let written = sections[0].iter().map(|(name, value, _)| (name, value));
        let written = written.filter(|(name, _)| !name.starts_with(':'));
        assert!(written.eq(want.iter().map(|(name, value)| (name, value))));
        assert!(sections[0].iter().any(|(name, ..)| name == ":authority"));
    }
}

#[test]
fn an_http10_request_without_a_host_gets_no_authority() {
    let block = b"GET / HTTP/1.0\r\n\r\n";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    server.receive(block, &mut head).unwrap();
    let mut client = Connection::client(Config::default());
    let (mut out, edits) = (Vec::new(), Edits::new());
    let framing = Framing::default();
    client
        .open(&mut out, block, &head, &edits, &framing)
        .unwrap();
    let want = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    assert_eq!(sections(&out), [plain(&want)]);
}

#[test]
fn an_http2_request_becomes_an_http1_request() {
    let block =
        b"\x83\x86\x04\x04/x?y\x41\x06b.test\x0f\x0d\x015\x00\x02te\x08trailers\x00\x03x-a\x011";
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    wire.extend_from_slice(&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1]);
    wire.extend_from_slice(block);
    let mut server = Connection::server(Config::default());
    let (mut head, mut text, mut at) = (Head::new(), Vec::new(), 0);
    let request = loop {
        let received = server
            .receive(&wire[at..], 0, &mut head, &mut text)
            .unwrap();
        at += received.consumed;
        if let Event::Request { request, .. } = received.event {
            break request;
        }
    };
    let framing = Http1Framing {
        body: request.body,
        accepts_trailers: request.accepts_trailers,
        ..Http1Framing::default()
    };
    let mut out = Vec::new();
    encode_request(&mut out, &text, &head, &Edits::new(), &framing);
    let want = "POST /x?y HTTP/1.1\r\nHost: b.test\r\nx-a: 1\r\nContent-Length: 5\r\n\
        Connection: TE\r\nTE: trailers\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), want);
}

/// A response to HEAD keeps its Content-Length in both directions between the versions.
#[test]
fn the_length_in_a_response_to_head_passes_through() {
    let mut client = Connection::client(Config::default());
    let (mut out, mut head) = (Vec::new(), Head::new());
    head.method = weir_proto_h1::Method::Head;
    let framing = Framing::default();
    client
        .open(&mut out, b"", &head, &Edits::new(), &framing)
        .unwrap();
    let wire = b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01\x88\x0f\x0d\x015";
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        let received = client
            .receive(&wire[at..], 0, &mut head, &mut text)
            .unwrap();
        at += received.consumed;
        if let Event::Response { body, is_end, .. } = received.event {
            assert_eq!((body, is_end), (BodyKind::None, true));
            break;
        }
    }
    out.clear();
    encode_response(
        &mut out,
        &text,
        &head,
        &Edits::new(),
        &Http1Framing::default(),
    );
    let want = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), want);
    let (mut server, stream, ..) = received(b"\x02\x04HEAD\x86\x84\x41\x01a", b"");
    out.clear();
    let edits = Edits::new();
    let sent = server.respond(&mut out, stream, &text, &head, &edits, &framing);
    assert_eq!(sent, Ok(true));
    let want = plain(&[(":status", "200"), ("content-length", "5")]);
    assert_eq!(sections(&out), [want]);
}

#[test]
fn interim_responses_are_limited() {
    let block = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    server.receive(block, &mut head).unwrap();
    let (mut client, mut out) = (Connection::client(Config::default()), Vec::new());
    let (edits, framing) = (Edits::new(), Framing::default());
    let stream = client
        .open(&mut out, block, &head, &edits, &framing)
        .unwrap();
    let mut text = Vec::new();
    let mut receive = |wire: &[u8]| client.receive(wire, 0, &mut head, &mut text).unwrap();
    receive(b"\0\0\0\x04\0\0\0\0\0");
    let interim = b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03102";
    for _ in 0..weir_proto_h1::limits::INTERIM_MAX {
        assert_eq!(receive(interim).event, Event::Interim { stream });
    }
    let error = weir_proto_h2::Error::TooManyInterim;
    assert_eq!(receive(interim).event, Event::Failed { stream, error });
}
