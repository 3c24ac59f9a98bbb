//! The requests and responses of `http2` from the other side: Weir's client machine, and the `h2`
//! crate's with the same frames.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Connection as Peer, SendRequest};
use http::Request;
use weir_proto_h1::{Edits, Head};
use weir_proto_h2::{Config, Connection, Event, Framing};

use crate::Case;
use crate::http2::{BODY, BROWSER, DATA, END_STREAM, Fields, FrameSource, Pipe, SMALL, frame};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "h2-client-small",
        run: |times| run_weir(SMALL, times),
        base: None,
    },
    Case {
        name: "h2-client-small-h2-crate",
        run: |times| run_h2_crate(SMALL, times),
        base: None,
    },
    Case {
        name: "h2-client-browser",
        run: |times| run_weir(BROWSER, times),
        base: None,
    },
    Case {
        name: "h2-client-browser-h2-crate",
        run: |times| run_h2_crate(BROWSER, times),
        base: None,
    },
];

/// Writes the next response: a head and one DATA frame.
fn respond(responses: &mut FrameSource, out: &mut Vec<u8>) {
    let stream = responses.stream;
    responses.head(out);
    frame(out, DATA, END_STREAM, stream, BODY);
}

/// A request in the form that a server receives.
fn request(fields: Fields) -> (Head, Vec<u8>) {
    let mut frames = FrameSource::requests(fields);
    let mut input = Vec::new();
    frames.first(&mut input);
    frames.head(&mut input);
    let mut server = Connection::server(Config::default());
    let (mut head, mut text, mut at) = (Head::new(), Vec::new(), 0);
    loop {
        let received = server
            .receive(&input[at..], 0, &mut head, &mut text)
            .expect("frames are in order");
        at += received.consumed;
        if let Event::Request { .. } = received.event {
            return (head, text);
        }
    }
}

fn run_weir(fields: Fields, times: u64) {
    let (sent, block) = request(fields);
    let edits = Edits::new();
    let framing = Framing {
        is_end: true,
        ..Framing::default()
    };
    let mut client = Connection::client(Config {
        is_https: true,
        ..Config::default()
    });
    let (mut head, mut text) = (Head::new(), Vec::new());
    let (mut input, mut out) = (Vec::new(), Vec::new());
    let mut responses = FrameSource::responses();
    responses.first(&mut input);
    for _ in 0..times {
        client
            .open(&mut out, &block, black_box(&sent), &edits, &framing)
            .expect("there is room for a stream");
        respond(&mut responses, &mut input);
        let mut rest = input.as_slice();
        loop {
            let received = client
                .receive(rest, 0, &mut head, &mut text)
                .expect("frames are in order");
            rest = &rest[received.consumed..];
            match received.event {
                Event::Response { .. } => {
                    black_box((&head, &text));
                }
                Event::Data { stream, range, .. } => client.consume(stream, range.len(), 0),
                Event::NeedMore => break,
                _ => {}
            }
        }
        client.take_output(&mut out);
        black_box(&out);
        out.clear();
        input.clear();
    }
    assert_eq!(client.streams(), 0, "every request got a response");
}

fn run_h2_crate(fields: Fields, times: u64) {
    let pipe = Pipe::default();
    let mut responses = FrameSource::responses();
    responses.first(&mut pipe.0.borrow_mut().input);
    let mut asked =
        Request::get("https://shop.example.com/api/v1/users/42/orders?page=3&sort=date");
    for (name, value) in fields {
        asked = asked.header(*name, *value);
    }
    let asked = asked.body(()).expect("a request");
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(h2::client::handshake(pipe.clone()));
    let Poll::Ready(Ok((mut sender, mut client))) = handshake.as_mut().poll(&mut cx) else {
        panic!("the handshake needs no input");
    };
    for _ in 0..times {
        exchange(&mut sender, &mut client, &asked, &mut cx, || {
            respond(&mut responses, &mut pipe.0.borrow_mut().input);
        });
        let mut ends = pipe.0.borrow_mut();
        black_box(&ends.out);
        ends.out.clear();
        ends.input.clear();
        ends.taken = 0;
    }
}

/// Sends a request and receives its response.
fn exchange(
    sender: &mut SendRequest<Bytes>,
    client: &mut Peer<Pipe, Bytes>,
    asked: &Request<()>,
    cx: &mut Context<'_>,
    respond_now: impl FnOnce(),
) {
    assert!(sender.poll_ready(cx).is_ready(), "there is room");
    let sent = sender.send_request(asked.clone(), true);
    let (mut response, _) = sent.expect("there is room for a stream");
    assert!(Pin::new(&mut *client).poll(cx).is_pending());
    respond_now();
    assert!(Pin::new(client).poll(cx).is_pending());
    let Poll::Ready(Ok(response)) = Pin::new(&mut response).poll(cx) else {
        panic!("the response has arrived");
    };
    let mut body = response.into_body();
    while let Poll::Ready(Some(data)) = body.poll_data(cx) {
        let data = black_box(data.expect("frames are in order"));
        let released = body.flow_control().release_capacity(data.len());
        released.expect("the data was received");
    }
    assert!(body.is_end_stream(), "the response is complete");
}
