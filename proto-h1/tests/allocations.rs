//! Once warm, parsing, framing, decoding and encoding a message allocate nothing.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::*;

const REQUEST: &[u8] =
    b"POST /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\r\nAccept: */*\r\n\
    Connection: keep-alive, x-a\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
    5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: y\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n0\r\nX-Sum: 2\r\n\r\n";

/// What a connection on each side reuses.
struct Connections {
    server: Server,
    client: Client,
    request: Head,
    response: Head,
    edits: Edits,
    out: Vec<u8>,
    path: Vec<u8>,
}

impl Connections {
    /// Runs one exchange, request and response.
    fn exchange(&mut self) {
        self.out.clear();
        self.edits.clear();
        self.edits.append("Via", "1.1 weir");
        self.edits
            .append_pieces("X-Forwarded-For", &[b"10.0.0.1, ", b"10.0.0.2"]);
        let mut rest = REQUEST;
        loop {
            let received = self.server.receive(rest, &mut self.request).unwrap();
            match received.event {
                Event::Head => {
                    let received_path = self.request.path.get(rest);
                    path::normalize_path(received_path, &mut self.path).unwrap();
                    path::normalize_path(b"/a/../%62", &mut self.path).unwrap();
                    let asked = *self.server.request();
                    let framing = self
                        .client
                        .begin_request(
                            asked.method,
                            asked.body,
                            asked.upgrade,
                            asked.accepts_trailers,
                        )
                        .unwrap();
                    encode_request(&mut self.out, rest, &self.request, &self.edits, &framing);
                }
                Event::Data(range) => {
                    let prefix = self.client.sender().prefix(range.len()).unwrap();
                    self.out.extend_from_slice(prefix.as_bytes());
                }
                Event::End => break,
                other => panic!("{other:?} in a whole request"),
            }
            rest = &rest[received.consumed..];
        }
        self.client
            .sender()
            .end_with_trailers(self.server.trailers(), &mut self.out)
            .unwrap();
        let mut rest = RESPONSE;
        loop {
            let received = self.client.receive(rest, &mut self.response).unwrap();
            match received.event {
                Event::Head => {
                    let answer = *self.client.response();
                    let framing = self
                        .server
                        .begin_response(answer.status, answer.body)
                        .unwrap();
                    encode_response(&mut self.out, rest, &self.response, &self.edits, &framing);
                }
                Event::Data(range) => {
                    let prefix = self.server.sender().prefix(range.len()).unwrap();
                    self.out.extend_from_slice(prefix.as_bytes());
                }
                Event::End => break,
                other => panic!("{other:?} in a whole response"),
            }
            rest = &rest[received.consumed..];
        }
        self.server
            .sender()
            .end_with_trailers(self.client.trailers(), &mut self.out)
            .unwrap();
        assert_eq!(self.client.finish(0), Next::Reuse);
        assert_eq!(self.server.finish(), Next::Reuse);
    }
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let mut connections = Connections {
        server: Server::new(Limits::default()),
        client: Client::new(Limits::default()),
        request: Head::new(),
        response: Head::new(),
        edits: Edits::new(),
        out: Vec::new(),
        path: Vec::new(),
    };
    connections.exchange();
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            connections.exchange();
        }
    });
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

#[test]
fn idle_connections_are_small() {
    // 10,000 of them take less than 4 MiB, heap included, because none holds a buffer.
    let counted = allocation_counter::measure(|| {
        let _server = Server::new(Limits::default());
        let _client = Client::new(Limits::default());
    });
    assert_eq!(counted.count_total, 0);
    assert!(size_of::<Server>() <= 192 && size_of::<Client>() <= 192);
}

/// The memory of a message with large trailers is freed when its exchange ends.
#[test]
fn the_memory_of_large_trailers_is_freed() {
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let mut wire =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_vec();
    for _ in 0..90 {
        wire.extend_from_slice(b"X-Trailer: some text that takes its room in the block\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    let counted = allocation_counter::measure(|| {
        let len = server.receive(&wire, &mut head).unwrap().consumed;
        let end = server.receive(&wire[len..], &mut head).unwrap();
        assert_eq!(end.event, Event::End);
        assert_eq!(server.trailers().iter().count(), 90);
        server.begin_response(200, BodyKind::None).unwrap();
        server.sender().end().unwrap();
        assert_eq!(server.finish(), Next::Reuse);
        head = Head::new();
    });
    assert!(counted.bytes_max > 4096);
    assert_eq!(counted.bytes_current, 0);
}
