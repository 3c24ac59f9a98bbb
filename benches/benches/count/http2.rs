//! Requests over one HTTP/2 connection and their answers: our server machine, and the `h2` crate on
//! the same frames.
//!
//! Each request is one HEADERS frame in one read, or one of ten in a read; each answer a head with
//! four fields and one DATA frame, in one write a read. Neither side makes the frames that it reads:
//! they are made before, but for their numbers.

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
        run: |times| ours(SMALL, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-small-h2-crate",
        run: |times| theirs(SMALL, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-browser",
        run: |times| ours(BROWSER, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-browser-h2-crate",
        run: |times| theirs(BROWSER, 1, times),
        base: None,
    },
    Case {
        name: "h2-server-small-by-ten",
        run: |times| ours(SMALL, 10, times),
        base: None,
    },
    Case {
        name: "h2-server-small-by-ten-h2-crate",
        run: |times| theirs(SMALL, 10, times),
        base: None,
    },
];

/// Names and values.
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

pub(crate) const ANSWER: Fields = &[
    ("server", "origin"),
    ("date", "Sun, 22 Nov 2026 00:00:00 GMT"),
    ("content-type", "application/json"),
];

/// Data of an answer, bytes.
pub(crate) const BODY: &[u8] = &[b'x'; 1024];

const ASKED: &[(PseudoField, &str)] = &[
    (PseudoField::Method, "GET"),
    (PseudoField::Scheme, "https"),
    (PseudoField::Authority, "shop.example.com"),
    (
        PseudoField::Path,
        "/api/v1/users/42/orders?page=3&sort=date",
    ),
];

/// One side's frames: what comes first, and heads.
pub(crate) struct Frames {
    encoder: Encoder,
    pseudo: &'static [(PseudoField, &'static str)],
    fields: Fields,
    flags: u8,
    pub(crate) stream: u32,
    /// The block that repeats once all names are in the table.
    block: Vec<u8>,
}

impl Frames {
    /// Those of a client whose requests are of heads alone.
    pub(crate) fn requests(fields: Fields) -> Self {
        Self::new(ASKED, fields, END_STREAM | END_HEADERS)
    }

    /// Those of a server whose answers have data.
    pub(crate) fn answers() -> Self {
        Self::new(&[(PseudoField::Status, "200")], ANSWER, END_HEADERS)
    }

    fn new(pseudo: &'static [(PseudoField, &'static str)], fields: Fields, flags: u8) -> Self {
        Self {
            encoder: Encoder::new(),
            pseudo,
            fields,
            flags,
            stream: 1,
            block: Vec::new(),
        }
    }

    /// SETTINGS with the largest window, the same for the connection, an acknowledgement; the
    /// preface before them is a client's.
    pub(crate) fn first(&self, out: &mut Vec<u8>) {
        if self.flags & END_STREAM != 0 {
            out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        out.extend_from_slice(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff");
        out.extend_from_slice(b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0");
        out.extend_from_slice(b"\0\0\0\x04\x01\0\0\0\0");
    }

    /// The next head.
    pub(crate) fn head(&mut self, out: &mut Vec<u8>) {
        // Two rounds fill the table; the block stays the same from then on.
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
        frame(out, HEADERS, self.flags, self.stream, &self.block);
        self.stream += 2;
    }

    fn put(&mut self, name: FieldName<'_>, value: &str) {
        let value = value.as_bytes();
        let indexing = Indexing::of(name, value);
        self.encoder.encode(&mut self.block, name, value, indexing);
    }
}

pub(crate) const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn ours(fields: Fields, batch: u64, times: u64) {
    let mut frames = Frames::requests(fields);
    let mut server = Connection::server(Config::default());
    let (mut head, mut text, edits) = (Head::new(), Vec::new(), Edits::new());
    let (mut block, mut answer) = (Vec::new(), Head::with_status(200));
    for (name, value) in ANSWER {
        let start = block.len();
        block.extend_from_slice(name.as_bytes());
        let middle = block.len();
        block.extend_from_slice(value.as_bytes());
        let id = FieldId::from_name(name.as_bytes());
        answer.push(id, Span::new(start, middle), Span::new(middle, block.len()));
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
                        .respond(&mut out, stream, &block, &answer, &edits, &framing)
                        .expect("an answer is due");
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

/// What the h2 crate reads from and writes to.
#[derive(Clone, Default)]
pub(crate) struct Pipe(pub(crate) Rc<RefCell<Ends>>);

#[derive(Default)]
pub(crate) struct Ends {
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

fn theirs(fields: Fields, batch: u64, times: u64) {
    let mut frames = Frames::requests(fields);
    let pipe = Pipe::default();
    frames.first(&mut pipe.0.borrow_mut().input);
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(h2::server::handshake(pipe.clone()));
    let Poll::Ready(Ok(mut server)) = handshake.as_mut().poll(&mut cx) else {
        panic!("the preface is there");
    };
    for _ in 0..times / batch {
        (0..batch).for_each(|_| frames.head(&mut pipe.0.borrow_mut().input));
        while let Poll::Ready(answered) = answer(&mut server, &mut cx) {
            assert!(answered, "frames are in order");
        }
        let mut ends = pipe.0.borrow_mut();
        black_box(&ends.out);
        ends.out.clear();
        ends.input.clear();
        ends.taken = 0;
    }
}

/// Takes one request and answers it.
fn answer(server: &mut Peer<Pipe, Bytes>, cx: &mut Context<'_>) -> Poll<bool> {
    let Some(Ok((request, mut respond))) = ready!(server.poll_accept(cx)) else {
        return Poll::Ready(false);
    };
    black_box(&request);
    let mut response = Response::new(());
    for (name, value) in ANSWER {
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
