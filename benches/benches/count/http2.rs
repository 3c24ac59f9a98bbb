//! Requests and responses over one HTTP/2 connection: Weir's server machine, and the `h2` crate
//! with the same frames.
//!
//! A request is one HEADERS frame, and each read delivers one or ten of them. A response is a head
//! with four fields and one DATA frame, and each read causes one write. The input frames are made
//! in advance, except for their stream numbers.

use std::cell::RefCell;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::Connection as Peer;
use http::{HeaderValue, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Span};
use weir_proto_h2::hpack::{Encoder, FieldName, Indexing, PseudoField};
use weir_proto_h2::{Config, Connection, Event, Framing};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "h2-server-small",
        run: |times| run_weir(SMALL, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-small-h2-crate",
        run: |times| run_h2_crate(SMALL, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-browser",
        run: |times| run_weir(BROWSER, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-browser-h2-crate",
        run: |times| run_h2_crate(BROWSER, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-small-by-ten",
        run: |times| run_weir(SMALL, 10, times),
        base: None,
    },
    Case {
        name: "h2-server-small-by-ten-h2-crate",
        run: |times| run_h2_crate(SMALL, 10, times),
        base: None,
    },
];

/// Names and values of fields.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

pub(crate) const SMALL: Fields = &[("user-agent", "pace"), ("accept", "*/*")];

pub(crate) const BROWSER: Fields = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://shop.example.com/orders"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("cookie", "theme=dark; consent=yes"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];

pub(crate) const RESPONSE: Fields = &[
    ("server", "origin"),
    ("date", "Sun, 22 Nov 2026 00:00:00 GMT"),
    ("content-type", "application/json"),
];

/// The data of a response.
pub(crate) const BODY: &[u8] = &[b'x'; 1024];

const REQUEST_PSEUDO_FIELDS: &[(PseudoField, &str)] = &[
    (PseudoField::Method, "GET"),
    (PseudoField::Scheme, "https"),
    (PseudoField::Authority, "shop.example.com"),
    (
        PseudoField::Path,
        "/api/v1/users/42/orders?page=3&sort=date",
    ),
];

/// The frames of one side: the first ones, then heads.
pub(crate) struct FrameSource {
    encoder: Encoder,
    pseudo: &'static [(PseudoField, &'static str)],
    fields: Fields,
    flags: u8,
    pub(crate) stream: u32,
    /// The field block, which stays the same once the table contains all names.
    block: Vec<u8>,
}

impl FrameSource {
    /// The frames of a client whose requests have no bodies.
    pub(crate) fn requests(fields: Fields) -> Self {
        Self::new(REQUEST_PSEUDO_FIELDS, fields, END_STREAM | END_HEADERS)
    }

    /// The frames of a server whose responses have data.
    pub(crate) fn responses() -> Self {
        Self::new(&[(PseudoField::Status, "200")], RESPONSE, END_HEADERS)
    }

    pub(crate) fn new(
        pseudo: &'static [(PseudoField, &'static str)],
        fields: Fields,
        flags: u8,
    ) -> Self {
        Self {
            encoder: Encoder::new(),
            pseudo,
            fields,
            flags,
            stream: 1,
            block: Vec::new(),
        }
    }

    /// Writes the first frames: the preface if this is a client, SETTINGS with the largest window,
    /// the same window for the connection, and an acknowledgement.
    pub(crate) fn first(&self, out: &mut Vec<u8>) {
        if self.is_client() {
            out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        out.extend_from_slice(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff");
        out.extend_from_slice(b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0");
        out.extend_from_slice(b"\0\0\0\x04\x01\0\0\0\0");
    }

    fn is_client(&self) -> bool {
        let is_method = |(field, _): &(PseudoField, _)| matches!(field, PseudoField::Method);
        self.pseudo.iter().any(is_method)
    }

    /// Writes the next head.
    pub(crate) fn head(&mut self, out: &mut Vec<u8>) {
        self.head_of(self.stream, out);
    }

    /// Writes the head of a stream.
    pub(crate) fn head_of(&mut self, stream: u32, out: &mut Vec<u8>) {
        // Two rounds fill the table. From then on, the block stays the same.
        if self.stream < 6 {
            self.block.clear();
            for (pseudo, value) in self.pseudo {
                self.put(FieldName::PseudoField(*pseudo), value);
            }
            for (name, value) in self.fields {
                let id = FieldId::from_name(name.as_bytes());
                self.put(FieldName::of(id, name.as_bytes()), value);
            }
        }
        frame(out, HEADERS, self.flags, stream, &self.block);
        self.stream += 2;
    }

    fn put(&mut self, name: FieldName<'_>, value: &str) {
        let value = value.as_bytes();
        let indexing = Indexing::of(name, value);
        self.encoder.encode(&mut self.block, name, value, indexing);
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn run_weir(fields: Fields, batch: u64, times: u64) {
    let mut frames = FrameSource::requests(fields);
    let mut server = Connection::server(Config::default());
    let (mut head, mut text, edits) = (Head::new(), Vec::new(), Edits::new());
    let (mut block, mut response) = (Vec::new(), Head::with_status(200));
    for (name, value) in RESPONSE {
        let start = block.len();
        block.extend_from_slice(name.as_bytes());
        let middle = block.len();
        block.extend_from_slice(value.as_bytes());
        let id = FieldId::from_name(name.as_bytes());
        response.push(id, Span::new(start, middle), Span::new(middle, block.len()));
    }
    let framing = Framing {
        body: BodyKind::Length(BODY.len() as u64),
        ..Framing::default()
    };
    let (mut input, mut out) = (Vec::new(), Vec::new());
    frames.first(&mut input);
    for _ in 0..times / batch {
        (0..batch).for_each(|_| frames.head(&mut input));
        let mut rest = input.as_slice();
        loop {
            let received = server
                .receive(rest, 0, &mut head, &mut text)
                .expect("frames are in order");
            rest = &rest[received.consumed..];
            match received.event {
                Event::Request { stream, .. } => {
                    black_box((&head, &text));
                    server
                        .respond(&mut out, stream, &block, &response, &edits, &framing)
                        .expect("a response is due");
                    let room = server.data_room(stream).min(BODY.len());
                    let frame = server
                        .data_frame(stream, room, true)
                        .expect("the window is large");
                    out.extend_from_slice(&frame);
                    out.extend_from_slice(BODY);
                }
                Event::NeedMore => break,
                _ => {}
            }
        }
        server.take_output(&mut out);
        black_box(&out);
        out.clear();
        input.clear();
    }
}

/// The transport of the h2 crate.
#[derive(Clone, Default)]
pub(crate) struct Pipe(pub(crate) Rc<RefCell<PipeBuffers>>);

#[derive(Default)]
pub(crate) struct PipeBuffers {
    pub(crate) input: Vec<u8>,
    pub(crate) taken: usize,
    pub(crate) out: Vec<u8>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut ends = self.0.borrow_mut();
        let rest = &ends.input[ends.taken..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let len = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..len]);
        ends.taken += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.borrow_mut().out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn run_h2_crate(fields: Fields, batch: u64, times: u64) {
    let mut frames = FrameSource::requests(fields);
    let pipe = Pipe::default();
    frames.first(&mut pipe.0.borrow_mut().input);
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(h2::server::handshake(pipe.clone()));
    let Poll::Ready(Ok(mut server)) = handshake.as_mut().poll(&mut cx) else {
        panic!("the preface has arrived");
    };
    for _ in 0..times / batch {
        (0..batch).for_each(|_| frames.head(&mut pipe.0.borrow_mut().input));
        while let Poll::Ready(responded) = respond(&mut server, &mut cx) {
            assert!(responded, "frames are in order");
        }
        let mut ends = pipe.0.borrow_mut();
        black_box(&ends.out);
        ends.out.clear();
        ends.input.clear();
        ends.taken = 0;
    }
}

/// Accepts one request and responds to it.
fn respond(server: &mut Peer<Pipe, Bytes>, cx: &mut Context<'_>) -> Poll<bool> {
    let Some(Ok((request, mut respond))) = ready!(server.poll_accept(cx)) else {
        return Poll::Ready(false);
    };
    black_box(&request);
    let mut response = Response::new(());
    for (name, value) in RESPONSE {
        response
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    let length = HeaderValue::from(BODY.len());
    response.headers_mut().insert("content-length", length);
    let sent = respond.send_response(response, false);
    let sent = sent.and_then(|mut stream| stream.send_data(Bytes::from_static(BODY), true));
    Poll::Ready(sent.is_ok())
}
