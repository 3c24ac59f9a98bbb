//! Requests over one HTTP/2 connection and their answers, as `http2` has them, from the other side:
//! our client machine, and the `h2` crate's on the same frames.

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
use crate::http2::{BODY, BROWSER, DATA, END_STREAM, Fields, Frames, Pipe, SMALL, frame};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "h2-client-small",
        run: |times| ours(SMALL, times),
        base: None,
    },
    Case {
        name: "h2-client-small-h2-crate",
        run: |times| theirs(SMALL, times),
        base: None,
    },
    Case {
        name: "h2-client-browser",
        run: |times| ours(BROWSER, times),
        base: None,
    },
    Case {
        name: "h2-client-browser-h2-crate",
        run: |times| theirs(BROWSER, times),
        base: None,
    },
];

/// The next answer: a head and one DATA frame.
fn answer(answers: &mut Frames, out: &mut Vec<u8>) {
    let stream = answers.stream;
    answers.head(out);
    frame(out, DATA, END_STREAM, stream, BODY);
}

/// A request as a server has received it.
fn request(fields: Fields) -> (Head, Vec<u8>) {
    let mut frames = Frames::requests(fields);
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

fn ours(fields: Fields, times: u64) {
    let (asked, block) = request(fields);
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
    let mut answers = Frames::answers();
    answers.first(&mut input);
    for _ in 0..times {
        client
            .open(&mut out, &block, black_box(&asked), &edits, &framing)
            .expect("there is room for a stream");
        answer(&mut answers, &mut input);
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
    assert_eq!(client.streams(), 0, "every request was answered");
}

fn theirs(fields: Fields, times: u64) {
    let pipe = Pipe::default();
    let mut answers = Frames::answers();
    answers.first(&mut pipe.0.borrow_mut().input);
    let mut asked =
        Request::get("https://shop.example.com/api/v1/users/42/orders?page=3&sort=date");
    for (name, value) in fields {
        asked = asked.header(*name, *value);
    }
    let asked = asked.body(()).expect("a request");
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(h2::client::handshake(pipe.clone()));
    let Poll::Ready(Ok((mut sender, mut client))) = handshake.as_mut().poll(&mut cx) else {
        panic!("nothing is waited for");
    };
    for _ in 0..times {
        exchange(&mut sender, &mut client, &asked, &mut cx, || {
            answer(&mut answers, &mut pipe.0.borrow_mut().input);
        });
        let mut ends = pipe.0.borrow_mut();
        black_box(&ends.out);
        ends.out.clear();
        ends.input.clear();
        ends.taken = 0;
    }
}

/// Sends one request and takes its answer.
fn exchange(
    sender: &mut SendRequest<Bytes>,
    client: &mut Peer<Pipe, Bytes>,
    asked: &Request<()>,
    cx: &mut Context<'_>,
    answered: impl FnOnce(),
) {
    assert!(sender.poll_ready(cx).is_ready(), "there is room");
    let sent = sender.send_request(asked.clone(), true);
    let (mut response, _) = sent.expect("there is room for a stream");
    assert!(Pin::new(&mut *client).poll(cx).is_pending());
    answered();
    assert!(Pin::new(client).poll(cx).is_pending());
    let Poll::Ready(Ok(response)) = Pin::new(&mut response).poll(cx) else {
        panic!("the answer is there");
    };
    let mut body = response.into_body();
    while let Poll::Ready(Some(data)) = body.poll_data(cx) {
        let data = black_box(data.expect("frames are in order"));
        let released = body.flow_control().release_capacity(data.len());
        released.expect("it was taken");
    }
    assert!(body.is_end_stream(), "the answer is whole");
}
