//! The bodies of the fuzz targets, which also run in the test that replays the corpus. A body
//! panics if a property does not hold.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic reports a violated property.

use weir_proto_h1::*;

const LIMITS: Limits = Limits {
    head_bytes_max: 2048,
    target_bytes_max: 512,
    fields_max: 24,
    chunk_line_bytes_max: 64,
    trailer_bytes_max: 256,
};

/// The body of a fuzz target. The target, its corpus and its body have the same name.
pub(crate) type Body = fn(&[u8]);

pub(crate) const BODIES: &[(&str, Body)] = &[
    ("request", request),
    ("response", response),
    ("chunked", chunked),
    ("path", path),
    ("server", server),
    ("client", client),
];

/// Parses a request whole and in two parts, compares with another parser, and encodes the request.
pub(crate) fn request(bytes: &[u8]) {
    let Some((cut, wire)) = cut_and_wire(bytes) else {
        return;
    };
    let mut head = Head::new();
    let whole = parse_request(wire, &LIMITS, &mut head);
    let mut again = Head::new();
    let mut parts = parse_request(&wire[..cut], &LIMITS, &mut again);
    if parts == Ok(Parsed::Partial) {
        parts = parse_request(wire, &LIMITS, &mut again);
    }
    assert_eq!(whole, parts, "a cut changes nothing");
    agree_on_request(wire, whole, &head);
    let Ok(Parsed::Complete(len)) = whole else {
        return;
    };
    assert_eq!(head.fields, again.fields);
    assert!(
        len <= LIMITS.head_bytes_max as usize && head.fields.len() <= LIMITS.fields_max as usize
    );
    let Ok(body) = request_body(&mut head, wire) else {
        return;
    };
    let Ok(hop) = strip_hop_by_hop(&mut head, wire, MessageKind::Request) else {
        return;
    };
    let mut out = Vec::new();
    let framing = Framing {
        body,
        accepts_trailers: hop.accepts_trailers,
        ..Framing::default()
    };
    encode_request(&mut out, wire, &head, &Edits::new(), &framing);
    if head.authority.is_empty() {
        return; // An HTTP/1.0 request may have no host.
    }
    let mut limits = LIMITS;
    limits.head_bytes_max += 64; // The encoder may spell the framing longer.
    let mut copy = Head::new();
    assert_eq!(
        parse_request(&out, &limits, &mut copy),
        Ok(Parsed::Complete(out.len()))
    );
    assert_eq!(copy.authority.get(&out), head.authority.get(wire));
    assert_eq!(request_body(&mut copy, &out), Ok(body));
    assert_eq!(copy.query.get(&out), head.query.get(wire));
    if head.form == TargetForm::Origin {
        assert_eq!(copy.path.get(&out), head.path.get(wire));
    }
    same_fields(&head, wire, &copy, &out);
}

/// Checks a response like [`request`] checks a request.
pub(crate) fn response(bytes: &[u8]) {
    let Some((cut, wire)) = cut_and_wire(bytes) else {
        return;
    };
    let mut head = Head::new();
    let whole = parse_response(wire, &LIMITS, &mut head);
    let mut again = Head::new();
    let mut parts = parse_response(&wire[..cut], &LIMITS, &mut again);
    if parts == Ok(Parsed::Partial) {
        parts = parse_response(wire, &LIMITS, &mut again);
    }
    assert_eq!(whole, parts, "a cut changes nothing");
    agree_on_response(wire, whole, &head);
    let Ok(Parsed::Complete(_)) = whole else {
        return;
    };
    let Ok(body) = response_body(&mut head, wire, Method::Get) else {
        return;
    };
    if strip_hop_by_hop(&mut head, wire, MessageKind::Response).is_err() {
        return;
    }
    let mut out = Vec::new();
    let framing = Framing {
        body,
        ..Framing::default()
    };
    encode_response(&mut out, wire, &head, &Edits::new(), &framing);
    let mut limits = LIMITS;
    limits.head_bytes_max += 64;
    let mut copy = Head::new();
    assert_eq!(
        parse_response(&out, &limits, &mut copy),
        Ok(Parsed::Complete(out.len()))
    );
    assert_eq!(copy.status, head.status);
    assert_eq!(response_body(&mut copy, &out, Method::Get), Ok(body));
    same_fields(&head, wire, &copy, &out);
}

/// Decodes chunks whole and in parts, and passes the data through the encoder and back.
pub(crate) fn chunked(bytes: &[u8]) {
    let Some((cut, wire)) = cut_and_wire(bytes) else {
        return;
    };
    let whole = decode_all(&[wire], &LIMITS);
    assert_eq!(
        whole,
        decode_all(&[&wire[..cut], &wire[cut..]], &LIMITS),
        "a cut changes nothing"
    );
    let Ok((data, Some(left), trailers)) = whole else {
        return;
    };
    assert!(left <= wire.len());
    let mut encoder = BodyEncoder::new(BodyKind::Chunked);
    let mut out = Vec::new();
    for piece in data.chunks(cut + 1) {
        out.extend_from_slice(encoder.prefix(piece.len()).unwrap().as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(encoder.suffix());
    }
    let mut decoder = BodyDecoder::new(BodyKind::Chunked, &LIMITS);
    read_out(&mut decoder, &[wire]).unwrap();
    encoder
        .finish_with_trailers(decoder.trailers(), &mut out)
        .unwrap();
    // The encoder writes a space after each colon, even if there was none.
    let mut limits = LIMITS;
    limits.trailer_bytes_max += limits.fields_max;
    assert_eq!(
        decode_all(&[&out], &limits),
        Ok((data, Some(0), trailers)),
        "the decoder restores what the encoder got"
    );
}

/// The normal form of a path is normal and stays below its root.
pub(crate) fn path(bytes: &[u8]) {
    let mut wire = vec![b'/'];
    wire.extend_from_slice(bytes);
    let mut out = Vec::new();
    let normal = match path::normalize_path(&wire, &mut out) {
        Ok(normal) if normal.is_unchanged => wire.clone(),
        Ok(_) => out.clone(),
        Err(_) => return,
    };
    assert!(normal.starts_with(b"/") && normal.len() <= wire.len());
    let has = |part: &[u8]| normal.windows(part.len()).any(|window| window == part);
    assert!(!has(b"//") && !has(b"/./") && !has(b"/../"));
    assert!(!normal.ends_with(b"/.") && !normal.ends_with(b"/.."));
    let again = path::normalize_path(&normal, &mut out);
    assert!(again.is_ok_and(|again| again.is_unchanged));
    if path::is_plain(&wire) {
        assert_eq!(normal, wire);
    }
}

/// Drives a server with random steps.
pub(crate) fn server(bytes: &[u8]) {
    let Some((steps, wire)) = steps_and_wire(bytes) else {
        return;
    };
    let (mut server, mut head) = (Server::new(LIMITS), Head::new());
    let mut input = Input {
        wire,
        start: 0,
        end: 0,
    };
    let (mut failed, mut is_over, mut out) = (None, false, Vec::new());
    for &step in steps {
        let choice = usize::from(step >> 4);
        match step & 15 {
            0..=3 => input.feed(choice * choice + 1),
            4..=8 => match server.receive(input.have(), &mut head) {
                Ok(received) => {
                    assert_eq!(failed, None, "an error is final");
                    input.take(&received);
                }
                Err(Error::OutOfOrder) => assert!(server.is_tunnel()),
                Err(error) => assert_eq!(*failed.get_or_insert(error), error, "an error is final"),
            },
            9 => {
                let status = [200, 204, 304, 404, 500, 100, 101, 413][choice & 7];
                let kinds = [
                    BodyKind::None,
                    BodyKind::Length(4),
                    BodyKind::Chunked,
                    BodyKind::UntilClose,
                ];
                let could = !server.is_answered();
                if let Ok(framing) = server.begin_response(status, kinds[choice >> 2]) {
                    assert!(could && status >= 200, "one final answer");
                    let is_old = server.request().version == Version::Http10;
                    assert!(!is_old || framing.body != BodyKind::Chunked);
                    assert!(is_old || framing.body != BodyKind::UntilClose);
                    out.clear();
                    encode_response(
                        &mut out,
                        b"",
                        &Head::with_status(status),
                        &Edits::new(),
                        &framing,
                    );
                }
            }
            10 => {
                let _ = server.sender().prefix(choice);
            }
            11 => {
                let _ = server.sender().end();
            }
            12 => {
                let was_received = server.is_received();
                if server.finish() == Next::Reuse {
                    assert!(was_received && failed.is_none() && !is_over && server.is_idle());
                } else {
                    is_over = true;
                }
            }
            13 => {
                if server.begin_interim([100, 103, 101, 200][choice & 3]) == Ok(true) {
                    assert!(!server.is_answered() && server.request().version == Version::Http11);
                }
            }
            14 => {
                let asked = server.request().upgrade.is_some();
                if server.switch_protocols(Span::EMPTY).is_ok() {
                    assert!(asked && server.is_tunnel());
                    is_over = true;
                }
            }
            _ if choice & 1 == 0 => {
                server.close_after_response();
                is_over = true;
            }
            _ => {
                is_over = true;
                if server.receive_close(input.have().len()).is_err() {
                    failed.get_or_insert(Error::Truncated);
                }
            }
        }
    }
}

/// Drives a client with random steps.
pub(crate) fn client(bytes: &[u8]) {
    let Some((steps, wire)) = steps_and_wire(bytes) else {
        return;
    };
    let (mut client, mut head) = (Client::new(LIMITS), Head::new());
    let mut input = Input {
        wire,
        start: 0,
        end: 0,
    };
    let (mut failed, mut asked) = (None, false);
    for &step in steps {
        let choice = usize::from(step >> 4);
        match step & 15 {
            0..=3 => input.feed(choice * choice + 1),
            4..=8 => match client.receive(input.have(), &mut head) {
                Ok(received) => {
                    assert_eq!(failed, None, "an error is final");
                    assert!(
                        received.event != Event::Switch || asked,
                        "no switch without asking"
                    );
                    input.take(&received);
                }
                Err(Error::OutOfOrder) => assert!(client.is_tunnel() || failed.is_some()),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            },
            9 => {
                let methods = [Method::Get, Method::Head, Method::Post, Method::Connect];
                let kinds = [
                    BodyKind::None,
                    BodyKind::Length(4),
                    BodyKind::Chunked,
                    BodyKind::UntilClose,
                ];
                let upgrade = (choice == 4).then_some(Span::EMPTY);
                if client
                    .begin_request(methods[choice & 3], kinds[choice >> 2], upgrade, false)
                    .is_ok()
                {
                    assert!(failed.is_none(), "a broken connection takes no request");
                    asked = upgrade.is_some();
                }
            }
            10 => {
                let _ = client.sender().prefix(choice);
            }
            11 => {
                let _ = client.sender().end();
            }
            12 | 13 => {
                let may = client.may_reuse(input.have().len());
                assert!(!may || (client.is_sent() && client.is_received() && failed.is_none()));
                if client.finish(input.have().len()) == Next::Reuse {
                    assert!(may && input.have().is_empty());
                } else {
                    failed.get_or_insert(Error::OutOfOrder);
                }
            }
            _ => {
                if client.receive_close(input.have().len()).is_err() {
                    failed.get_or_insert(Error::Truncated);
                }
                assert!(!client.may_reuse(0), "a closed connection takes no request");
            }
        }
    }
}

struct Input<'w> {
    wire: &'w [u8],
    start: usize,
    end: usize,
}

impl<'w> Input<'w> {
    fn have(&self) -> &'w [u8] {
        &self.wire[self.start..self.end]
    }

    fn feed(&mut self, bytes: usize) {
        self.end = self.wire.len().min(self.end + bytes);
    }

    fn take(&mut self, received: &Received) {
        let have = self.have();
        assert!(
            received.consumed <= have.len(),
            "more bytes were consumed than there were"
        );
        if let Event::Data(range) = &received.event {
            assert!(!range.is_empty() && range.end == received.consumed);
        }
        self.start += received.consumed;
    }
}

fn cut_and_wire(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&cut, wire) = bytes.split_first()?;
    Some((usize::from(cut).min(wire.len()), wire))
}

fn steps_and_wire(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&steps, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(steps))
}

/// The encoder copies the remaining fields in order.
fn same_fields(head: &Head, wire: &[u8], copy: &Head, out: &[u8]) {
    let framing = [
        FieldId::Host,
        FieldId::ContentLength,
        FieldId::TransferEncoding,
    ];
    let added = [FieldId::Connection, FieldId::Te];
    let list = |head: &Head, block: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        head.iter()
            .filter(|field| !framing.contains(&field.id) && !added.contains(&field.id))
            .map(|field| {
                (
                    field.name.get(block).to_vec(),
                    field.value.get(block).to_vec(),
                )
            })
            .collect()
    };
    assert_eq!(list(head, wire), list(copy, out));
}

type DecodedChunks = (Vec<u8>, Option<usize>, Vec<(Vec<u8>, Vec<u8>)>);

/// The data, the number of unused bytes if the body ended, and the trailers.
fn decode_all(parts: &[&[u8]], limits: &Limits) -> Result<DecodedChunks, Error> {
    let mut decoder = BodyDecoder::new(BodyKind::Chunked, limits);
    let (data, left) = read_out(&mut decoder, parts)?;
    let trailers = decoder
        .trailers()
        .iter()
        .map(|(n, v)| (n.to_vec(), v.to_vec()))
        .collect();
    Ok((data, left, trailers))
}

fn read_out(decoder: &mut BodyDecoder, parts: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), Error> {
    let mut data = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut rest = *part;
        loop {
            match decoder.decode(rest)? {
                DecodedBody::Data { skip, len } => {
                    assert!(len > 0);
                    data.extend_from_slice(&rest[skip..skip + len]);
                    rest = &rest[skip + len..];
                }
                DecodedBody::NeedMore { consumed } => {
                    assert_eq!(consumed, rest.len(), "chunked framing keeps nothing back");
                    break;
                }
                DecodedBody::End { consumed } => {
                    let later: usize = parts[index + 1..].iter().map(|part| part.len()).sum();
                    return Ok((data, Some(rest.len() - consumed + later)));
                }
            }
        }
    }
    Ok((data, None))
}

/// The other parser agrees with every head that this parser accepts. Where the other one finds a
/// complete head, this one finds a complete head or an error.
fn agree_on_request(wire: &[u8], ours: Result<Parsed, Error>, head: &Head) {
    let skipped = wire.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
    let rest = &wire[skipped.min(wire.len())..];
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let theirs = request.parse(rest);
    match ours {
        Ok(Parsed::Complete(len)) => {
            let is_later_version = theirs == Err(httparse::Error::Version);
            if is_later_version && head.version == Version::Http11 {
                return; // The other parser does not know HTTP/1.2 and later.
            }
            assert_eq!(theirs, Ok(httparse::Status::Complete(len - skipped)));
            assert_eq!(
                request.method.unwrap().as_bytes(),
                head.method_span.get(wire)
            );
            assert_eq!(request.path.unwrap().as_bytes(), head.target.get(wire));
            assert_eq!(
                request.version,
                Some(u8::from(head.version == Version::Http11))
            );
            agree_on_fields(request.headers, head, wire);
        }
        Ok(Parsed::Partial) => assert!(!matches!(theirs, Ok(httparse::Status::Complete(_)))),
        Err(_) => {}
    }
}

fn agree_on_response(wire: &[u8], ours: Result<Parsed, Error>, head: &Head) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let theirs = response.parse(wire);
    match ours {
        Ok(Parsed::Complete(len)) => {
            let is_later_version = theirs == Err(httparse::Error::Version);
            if is_later_version && head.version == Version::Http11 {
                return;
            }
            assert_eq!(theirs, Ok(httparse::Status::Complete(len)));
            assert_eq!(response.code, Some(head.status));
            assert_eq!(
                response.version,
                Some(u8::from(head.version == Version::Http11))
            );
            agree_on_fields(response.headers, head, wire);
        }
        Ok(Parsed::Partial) => assert!(!matches!(theirs, Ok(httparse::Status::Complete(_)))),
        Err(_) => {}
    }
}

fn agree_on_fields(theirs: &[httparse::Header<'_>], head: &Head, wire: &[u8]) {
    assert_eq!(theirs.len(), head.fields.len());
    for (their, our) in theirs.iter().zip(&head.fields) {
        assert_eq!(their.name.as_bytes(), our.name.get(wire));
        assert_eq!(their.value, our.value.get(wire));
        assert_eq!(FieldId::from_name(their.name.as_bytes()), our.id);
    }
}
