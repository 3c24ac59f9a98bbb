//! Once warm, receiving, checking, encoding and sending a request and its response allocate nothing
//! on either side.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Span, Trailers};
use weir_proto_h2::{Config, Connection, Event, Framing, StreamKey};

const FIELDS: &[(&str, &str)] = &[
    ("User-Agent", "differ/1.0"),
    ("Accept", "*/*"),
    ("Cookie", "a=b; c=d"),
    ("X-Other", "some value"),
    ("Authorization", "Basic YTpiOmM="),
];

/// One side of a connection, with the buffers that it reuses.
struct Side {
    connection: Connection,
    head: Head,
    text: Vec<u8>,
    trailers: Trailers,
    out: Vec<u8>,
}

impl Side {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            head: Head::new(),
            text: Vec::new(),
            trailers: Trailers::default(),
            out: Vec::new(),
        }
    }

    /// Receives what the other side has sent. Returns the stream of the last head.
    fn receive(&mut self, input: &[u8], cut: usize) -> Option<StreamKey> {
        let (mut rest, mut stream) = (&input[..cut], None);
        let mut next = &input[cut..];
        loop {
            let received = self
                .connection
                .receive(rest, 0, &mut self.head, &mut self.text)
                .unwrap();
            rest = &rest[received.consumed..];
            match received.event {
                Event::NeedMore if next.is_empty() => return stream,
                Event::NeedMore => rest = std::mem::take(&mut next),
                Event::Request { stream: key, .. } | Event::Response { stream: key, .. } => {
                    stream = Some(key);
                }
                Event::Data { stream, range, .. } => {
                    self.connection.consume(stream, range.len(), 0);
                }
                Event::Trailers { .. } => self.trailers.fill(&self.head, &self.text),
                _ => {}
            }
        }
    }

    fn data(&mut self, key: StreamKey, len: usize) {
        let len = len.min(self.connection.data_room(key));
        let frame = self.connection.data_frame(key, len, false).unwrap();
        self.out.extend_from_slice(&frame);
        self.out.resize(self.out.len() + len, b'x');
    }
}

struct Exchange {
    client: Side,
    server: Side,
    block: Vec<u8>,
    request: Head,
    edits: Edits,
}

impl Exchange {
    fn new() -> Self {
        let (mut block, mut request) = (b"a.test/x?y".to_vec(), Head::new());
        request.method = Method::Post;
        request.authority = Span::new(0, 6);
        request.set_target(Span::new(6, 10), &block).unwrap();
        for (name, value) in FIELDS {
            let start = block.len();
            block.extend_from_slice(name.as_bytes());
            let middle = block.len();
            block.extend_from_slice(value.as_bytes());
            let id = FieldId::from_name(name.as_bytes());
            request.push(id, Span::new(start, middle), Span::new(middle, block.len()));
        }
        Self {
            client: Side::new(Connection::client(Config::default())),
            server: Side::new(Connection::server(Config::default())),
            block,
            request,
            edits: Edits::new(),
        }
    }

    /// Runs a request and a response with data and trailers, in two reads each.
    fn run(&mut self) {
        let Self { client, server, .. } = self;
        self.edits.clear();
        self.edits.append("Via", "2.0 weir");
        self.edits.set_path(b"/z");
        let framing = Framing {
            body: BodyKind::Chunked,
            accepts_trailers: true,
            ..Framing::default()
        };
        let asked = client
            .connection
            .open(
                &mut client.out,
                &self.block,
                &self.request,
                &self.edits,
                &framing,
            )
            .unwrap();
        client.data(asked, 1_000);
        client.trailers.fill(&self.request, &self.block);
        client
            .connection
            .send_trailers(&mut client.out, asked, &client.trailers)
            .unwrap();
        client.connection.take_output(&mut client.out);

        let stream = server.receive(&client.out, client.out.len() / 30).unwrap();
        client.out.clear();
        let (head, text) = (&mut server.head, &server.text);
        head.status = 200;
        let length = Framing {
            body: BodyKind::Length(20_000),
            ..Framing::default()
        };
        server
            .connection
            .respond(&mut server.out, stream, text, head, &self.edits, &length)
            .unwrap();
        server.data(stream, 16_000);
        server.data(stream, 4_000);
        server
            .connection
            .send_trailers(&mut server.out, stream, &server.trailers)
            .unwrap();
        server.connection.take_output(&mut server.out);

        assert_eq!(client.receive(&server.out, 30), Some(asked));
        server.out.clear();
        // WINDOW_UPDATE frames for the connection are sent now and then.
        client.connection.take_output(&mut client.out);
        server.receive(&client.out, 0);
        client.out.clear();
        assert_eq!(server.connection.streams() + client.connection.streams(), 0);
    }
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let mut exchange = Exchange::new();
    for _ in 0..4 {
        exchange.run();
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            exchange.run();
        }
    });
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

/// The memory of a busy time is freed, except for the compression tables, whose contents must stay:
/// up to 4 KiB each, and their indices.
#[test]
fn an_idle_connection_is_small() {
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let mut exchange = Exchange::new();
        for _ in 0..50 {
            exchange.run();
        }
        exchange.server.connection.release_memory();
        kept = Some(exchange.server.connection);
    });
    assert!(counted.bytes_max > 20_000, "there was memory to free");
    let held = counted.bytes_current as usize + size_of::<Connection>();
    assert!(held <= 4_096, "{held}");
    drop(kept);
}
