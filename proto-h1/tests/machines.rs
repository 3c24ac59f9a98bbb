//! What the machines allow and refuse, step by step, in addition to the cases.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_10: &[u8] = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A server that has received `wire` up to the event `until`.
fn server_after(wire: &[u8], until: &Event) -> (Server, Head) {
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let mut rest = wire;
    loop {
        let received = server.receive(rest, &mut head).unwrap();
        rest = &rest[received.consumed..];
        if received.event == *until {
            return (server, head);
        }
    }
}

fn client_after(method: Method) -> (Client, Head) {
    let mut client = Client::new(Limits::default());
    client
        .begin_request(method, BodyKind::None, None, false)
        .unwrap();
    client.sender().end().unwrap();
    (client, Head::new())
}

#[test]
fn steps_out_of_order_are_refused_and_change_nothing() {
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    assert_eq!(
        server.begin_response(200, BodyKind::None),
        Err(Error::OutOfOrder)
    );
    assert_eq!(server.sender().prefix(1).unwrap_err(), Error::OutOfOrder);
    assert_eq!(server.sender().end(), Err(Error::OutOfOrder));
    assert_eq!(server.begin_interim(103), Err(Error::OutOfOrder));
    assert_eq!(
        server.switch_protocols(Span::EMPTY),
        Err(Error::UnexpectedSwitch)
    );
    assert_eq!(server.receive(GET, &mut head).unwrap().event, Event::Head);
    assert_eq!(
        server.begin_response(103, BodyKind::None),
        Err(Error::OutOfOrder)
    );
    assert_eq!(server.begin_interim(200), Err(Error::OutOfOrder));
    assert_eq!(server.begin_interim(101), Err(Error::OutOfOrder));
    server.begin_response(200, BodyKind::None).unwrap();
    assert_eq!(
        server.begin_response(200, BodyKind::None),
        Err(Error::OutOfOrder)
    );
    assert_eq!(server.begin_interim(103), Err(Error::OutOfOrder));
    server.sender().end().unwrap();
    assert_eq!(server.sender().end(), Err(Error::OutOfOrder));
    assert_eq!(server.finish(), Next::Reuse);

    let mut client = Client::new(Limits::default());
    assert_eq!(client.sender().prefix(1).unwrap_err(), Error::OutOfOrder);
    assert_eq!(client.sender().end(), Err(Error::OutOfOrder));
    client
        .begin_request(Method::Get, BodyKind::None, None, false)
        .unwrap();
    assert_eq!(
        client.begin_request(Method::Get, BodyKind::None, None, false),
        Err(Error::OutOfOrder)
    );
}

#[test]
fn the_next_head_waits_for_the_response() {
    let (mut server, mut head) = server_after(GET, &Event::End);
    let before = head.fields.clone();
    let blocked = Received {
        consumed: 0,
        event: Event::Blocked,
    };
    assert_eq!(server.receive(GET, &mut head), Ok(blocked.clone()));
    server.begin_response(200, BodyKind::Length(2)).unwrap();
    assert_eq!(server.receive(GET, &mut head), Ok(blocked.clone()));
    server.sender().prefix(2).unwrap();
    server.sender().end().unwrap();
    assert_eq!(server.receive(GET, &mut head), Ok(blocked));
    assert_eq!(head.fields, before, "the head under way stays as it is");
    assert_eq!(server.finish(), Next::Reuse);
    assert_eq!(server.receive(GET, &mut head).unwrap().event, Event::Head);
}

#[test]
fn a_client_gets_the_framing_it_understands() {
    let framing = |wire: &[u8], status, kind| {
        server_after(wire, &Event::Head)
            .0
            .begin_response(status, kind)
            .unwrap()
    };
    let says = |body, connection| Framing {
        body,
        connection,
        accepts_trailers: false,
    };
    let none = BodyKind::None;
    let length = BodyKind::Length(3);
    assert_eq!(
        framing(GET, 200, length),
        says(length, ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET, 200, none),
        says(BodyKind::Length(0), ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET, 200, BodyKind::Chunked),
        says(BodyKind::Chunked, ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET, 200, BodyKind::UntilClose),
        says(BodyKind::Chunked, ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET, 204, length),
        says(none, ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET, 304, BodyKind::Chunked),
        says(none, ConnectionOption::Implied)
    );
    let head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(
        framing(head, 200, length),
        says(none, ConnectionOption::Implied)
    );
    assert_eq!(
        framing(GET_10, 200, length),
        says(length, ConnectionOption::KeepAlive)
    );
    assert_eq!(
        framing(GET_10, 200, BodyKind::Chunked),
        says(BodyKind::UntilClose, ConnectionOption::Close)
    );
    let close = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(
        framing(close, 200, length),
        says(length, ConnectionOption::Close)
    );
}

#[test]
fn a_response_that_falls_short_never_completes() {
    let (mut server, _) = server_after(GET, &Event::End);
    server.begin_response(200, BodyKind::Length(5)).unwrap();
    server.sender().prefix(3).unwrap();
    assert_eq!(server.sender().prefix(3).unwrap_err(), Error::BodyOverrun);
    assert_eq!(server.sender().end(), Err(Error::BodyUnderrun));
    assert_eq!(server.finish(), Next::Close);

    let (mut server, _) = server_after(GET, &Event::End);
    server.begin_response(200, BodyKind::Chunked).unwrap();
    server.sender().prefix(3).unwrap();
    assert_eq!(
        server.finish(),
        Next::Close,
        "without a last chunk, no reuse"
    );
}

#[test]
fn a_malformed_request_gets_one_response_and_a_close() {
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let wire = b"GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(
        server.receive(wire, &mut head),
        Err(Error::SpaceBeforeColon)
    );
    let framing = server.begin_response(400, BodyKind::Length(0)).unwrap();
    assert_eq!(framing.connection, ConnectionOption::Close);
    server.sender().end().unwrap();
    assert_eq!(server.finish(), Next::Close);
    assert_eq!(server.receive(GET, &mut head), Err(Error::SpaceBeforeColon));
}

#[test]
fn an_error_in_a_body_ends_the_connection_after_the_response() {
    let wire =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let len = server.receive(wire, &mut head).unwrap().consumed;
    assert_eq!(server.receive(&wire[len..], &mut head), Err(Error::BareLf));
    assert!(!server.is_answered());
    assert_eq!(
        server
            .begin_response(400, BodyKind::None)
            .unwrap()
            .connection,
        ConnectionOption::Close
    );
    server.sender().end().unwrap();
    assert_eq!(server.finish(), Next::Close);
}

#[test]
fn an_early_refusal_closes_and_an_early_response_may_go_on() {
    let refuse = |status| {
        let (mut server, _) = server_after(POST, &Event::Head);
        server
            .begin_response(status, BodyKind::None)
            .unwrap()
            .connection
    };
    assert_eq!(refuse(413), ConnectionOption::Close);
    assert_eq!(refuse(200), ConnectionOption::Implied);

    // The connection stays usable only if the upload ends after the response.
    for (read_on, next) in [(true, Next::Reuse), (false, Next::Close)] {
        let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
        let len = server.receive(POST, &mut head).unwrap().consumed;
        server.begin_response(200, BodyKind::None).unwrap();
        server.sender().end().unwrap();
        if read_on {
            assert_eq!(
                server.receive(&POST[len..], &mut head).unwrap().event,
                Event::Data(0..5)
            );
        }
        assert_eq!(server.finish(), next);
    }
}

#[test]
fn expectations_end_with_the_first_byte_or_a_100() {
    let wire = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let len = server.receive(wire, &mut head).unwrap().consumed;
    assert!(server.request().expects_continue);
    assert_eq!(server.begin_interim(103), Ok(true));
    assert!(server.request().expects_continue);
    let mut other = server.clone();
    assert_eq!(server.begin_interim(100), Ok(true));
    assert!(!server.request().expects_continue);
    other.receive(&wire[len..], &mut head).unwrap();
    assert!(!other.request().expects_continue);
}

#[test]
fn http10_gets_no_interim_responses() {
    let (mut server, _) = server_after(GET_10, &Event::Head);
    assert_eq!(server.begin_interim(103), Ok(false));
    assert_eq!(server.begin_interim(100), Ok(false));
}

#[test]
fn a_drain_closes_after_the_response() {
    let (mut server, _) = server_after(GET, &Event::End);
    server.close_after_response();
    let framing = server.begin_response(200, BodyKind::None).unwrap();
    assert_eq!(framing.connection, ConnectionOption::Close);
    server.sender().end().unwrap();
    assert_eq!(server.finish(), Next::Close);

    let (mut server, _) = server_after(GET, &Event::End);
    server.begin_response(200, BodyKind::None).unwrap();
    server.close_after_response();
    server.sender().end().unwrap();
    assert_eq!(
        server.finish(),
        Next::Close,
        "it closes although the response did not say so"
    );
}

#[test]
fn an_upgrade_makes_a_tunnel() {
    let (mut server, mut head) = server_after(UPGRADE, &Event::End);
    let framing = server.switch_protocols(Span::new(3, 12)).unwrap();
    assert_eq!(
        framing.connection,
        ConnectionOption::Upgrade(Span::new(3, 12))
    );
    assert!(server.is_tunnel());
    assert_eq!(server.receive(b"\x81", &mut head), Err(Error::OutOfOrder));
    assert_eq!(server.finish(), Next::Close);

    let (mut server, _) = server_after(GET, &Event::End);
    assert_eq!(
        server.switch_protocols(Span::EMPTY),
        Err(Error::UnexpectedSwitch)
    );
}

#[test]
fn connect_makes_a_tunnel_when_it_succeeds() {
    let wire = b"CONNECT b:80 HTTP/1.1\r\nHost: b\r\n\r\n";
    let (mut server, _) = server_after(wire, &Event::End);
    assert_eq!(
        server.begin_response(200, BodyKind::None),
        Ok(Framing::default())
    );
    assert!(server.is_tunnel());
    let (mut server, _) = server_after(wire, &Event::End);
    server.begin_response(405, BodyKind::None).unwrap();
    assert!(!server.is_tunnel());
}

#[test]
fn unasked_bytes_end_an_idle_client() {
    let (mut client, mut head) = (Client::new(Limits::default()), Head::new());
    assert_eq!(
        client.receive(b"", &mut head).unwrap().event,
        Event::Blocked
    );
    let error = client.receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n", &mut head);
    assert_eq!(error, Err(Error::UnexpectedBytes));
    assert_eq!(
        client.begin_request(Method::Get, BodyKind::None, None, false),
        Err(Error::OutOfOrder)
    );
}

#[test]
fn an_early_response_is_relayed_and_its_connection_not_reused() {
    let mut client = Client::new(Limits::default());
    let mut head = Head::new();
    client
        .begin_request(Method::Post, BodyKind::Length(10), None, false)
        .unwrap();
    client.sender().prefix(4).unwrap();
    let wire = b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n";
    assert!(client.is_silent());
    assert_eq!(client.receive(wire, &mut head).unwrap().event, Event::Head);
    assert!(!client.is_silent());
    assert_eq!(client.receive(b"", &mut head).unwrap().event, Event::End);
    assert!(client.is_received() && !client.is_sent() && !client.may_reuse(0));
    client.sender().prefix(6).unwrap();
    client.sender().end().unwrap();
    assert!(
        client.may_reuse(0),
        "unless the rest of the request was sent"
    );
    assert!(!client.may_reuse(1));
    assert_eq!(client.finish(0), Next::Reuse);
}

#[test]
fn a_request_until_close_goes_in_chunks() {
    let mut client = Client::new(Limits::default());
    let framing = client
        .begin_request(Method::Post, BodyKind::UntilClose, None, false)
        .unwrap();
    assert_eq!(framing.body, BodyKind::Chunked);
}

#[test]
fn too_many_interim_responses_are_an_error() {
    let (mut client, mut head) = client_after(Method::Get);
    let wire = b"HTTP/1.1 103 x\r\n\r\n";
    for _ in 0..limits::INTERIM_MAX {
        assert_eq!(
            client.receive(wire, &mut head).unwrap().event,
            Event::Interim
        );
    }
    assert_eq!(client.receive(wire, &mut head), Err(Error::TooManyInterim));
}

#[test]
fn a_close_completes_only_a_body_until_close() {
    let (mut client, mut head) = client_after(Method::Get);
    client
        .receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut head)
        .unwrap();
    client.receive(b"abc", &mut head).unwrap();
    assert_eq!(client.receive_close(0), Ok(()));
    assert_eq!(client.receive(b"", &mut head).unwrap().event, Event::End);
    assert_eq!(client.finish(0), Next::Close);

    let (mut client, mut head) = client_after(Method::Get);
    client
        .receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &mut head)
        .unwrap();
    client.receive(b"abc", &mut head).unwrap();
    assert_eq!(
        client.receive_close(0),
        Ok(()),
        "the body was complete before"
    );
    assert_eq!(client.finish(0), Next::Close, "the connection is closed");

    let (mut client, _) = client_after(Method::Get);
    assert_eq!(client.receive_close(0), Err(Error::Truncated));
}

/// Extensions are limited per body as well as per line.
#[test]
fn extensions_of_a_body_are_counted_together() {
    let mut decoder = BodyDecoder::new(BodyKind::Chunked, &Limits::default());
    let chunk = [&b"1;"[..], &[b'x'; 200], b"\r\nd\r\n"].concat();
    let mut chunks = 0;
    let error = 'body: loop {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            match decoder.decode(rest) {
                Ok(DecodedBody::Data { skip, len }) => rest = &rest[skip + len..],
                Ok(DecodedBody::NeedMore { consumed }) => rest = &rest[consumed..],
                Ok(DecodedBody::End { .. }) => panic!("no end was sent"),
                Err(error) => break 'body error,
            }
        }
        chunks += 1;
    };
    assert_eq!((error, chunks), (Error::ChunkLineTooLong, 16 * 1024 / 201));
}

/// A head that comes byte by byte is read once. Each call sees line feeds in place of what an earlier call has read: a
/// parser that reads any of it again takes the line for a bad one.
#[test]
fn a_trickled_head_costs_linear_work() {
    let start_line = b"GET / HTTP/1.1\r\n";
    let mut wire = start_line.to_vec();
    wire.extend_from_slice(b"Host: a\r\n");
    for length in 0..90 {
        wire.extend_from_slice(b"X-Field-Name: ");
        wire.resize(wire.len() + 1 + length, b'v');
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    let mut head = Head::new();
    let limits = Limits::default();
    let mut line = 0;
    for end in 1..=wire.len() {
        let ends_line = wire[end - 1] == b'\n';
        // A line is judged when it is whole, so its bytes have to be there then. A start line that is cut is judged by
        // its method, whose length is bounded.
        let shown = match end == wire.len() {
            // Host is checked when the head is whole.
            true => 0,
            false if ends_line || end < start_line.len() => line,
            false => end - 1,
        };
        let mut block = vec![b'\n'; shown];
        block.extend_from_slice(&wire[shown..end]);
        let expected = match end == wire.len() {
            true => Parsed::Complete(end),
            false => Parsed::Partial,
        };
        assert_eq!(
            parse_request(&block, &limits, &mut head),
            Ok(expected),
            "{end} bytes"
        );
        if ends_line {
            line = end;
        }
    }
    assert_eq!(head.fields.len(), 91);
}

/// Bytes that bypass `receive` count like those that pass through it, and cannot exceed the body.
#[test]
fn bytes_of_a_body_that_bypass_receive_count() {
    let (mut client, mut head) = client_after(Method::Get);
    assert_eq!(client.raw_body_left(), 0, "no body yet");
    client
        .receive(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", &mut head)
        .unwrap();
    assert_eq!(client.raw_body_left(), 10);
    client.receive(b"abc", &mut head).unwrap();
    assert_eq!(client.skip_raw_body(8), Err(Error::OutOfOrder));
    assert_eq!(client.skip_raw_body(4), Ok(()));
    assert_eq!((client.raw_body_left(), client.is_received()), (3, false));
    assert_eq!(client.skip_raw_body(3), Ok(()));
    assert_eq!((client.raw_body_left(), client.is_received()), (0, true));
    let received = client.receive(b"", &mut head).unwrap();
    assert_eq!(received.event, Event::End);
    assert_eq!(client.skip_raw_body(1), Err(Error::OutOfOrder));

    let (mut client, mut head) = client_after(Method::Get);
    client
        .receive(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &mut head,
        )
        .unwrap();
    assert_eq!(
        (client.raw_body_left(), client.skip_raw_body(1)),
        (0, Err(Error::OutOfOrder))
    );

    let (mut client, mut head) = client_after(Method::Get);
    client
        .receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut head)
        .unwrap();
    assert_eq!(
        (client.raw_body_left(), client.skip_raw_body(1 << 40)),
        (u64::MAX, Ok(()))
    );
    assert_eq!(client.receive_close(0), Ok(()));

    let mut server = Server::new(Limits::default());
    let request =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    server.receive(request, &mut head).unwrap();
    assert_eq!(server.raw_body_left(), 5);
    assert_eq!(server.skip_raw_body(2), Ok(()));
    assert!(!server.request().expects_continue, "the client has gone on");
    assert_eq!(server.receive_close(0), Err(Error::Truncated));
}
