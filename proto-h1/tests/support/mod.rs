//! Case files, and the drivers that run machines over them. The expected output is in the files.

#![allow(dead_code)] // Each test uses a part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic fails the test.

pub(crate) mod cases;
pub(crate) mod replay;

pub(crate) use cases::{show, unescape};
use weir_proto_h1::*;

/// What a case of this crate runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) role: String,
    pub(crate) method: String,
    pub(crate) ask: String,
    pub(crate) limits: Limits,
    pub(crate) eof: bool,
    pub(crate) fields: bool,
    pub(crate) input: Vec<u8>,
}

pub(crate) type Case = cases::Case<Body>;

/// Reads every case under `tests/cases`.
pub(crate) fn load() -> Vec<Case> {
    cases::load("tests/cases", |body: &mut Body, key, value| {
        match key {
            "role" => body.role = value.into(),
            "method" => body.method = value.into(),
            "ask" => body.ask = value.into(),
            "eof" => body.eof = value == "yes",
            "fields" => body.fields = value == "yes",
            "limits" => read_limits(value, &mut body.limits),
            "in" => body.input.extend(unescape(value)),
            _ => match key.strip_prefix("in*").and_then(|times| times.parse().ok()) {
                Some(times) => body.input.extend(unescape(value).repeat(times)),
                None => return false,
            },
        }
        true
    })
}

fn read_limits(text: &str, limits: &mut Limits) {
    for pair in text.split_whitespace() {
        let (name, value) = pair.split_once('=').unwrap();
        let value = value.parse().unwrap();
        match name {
            "head_bytes_max" => limits.head_bytes_max = value,
            "target_bytes_max" => limits.target_bytes_max = value,
            "fields_max" => limits.fields_max = value,
            "chunk_line_bytes_max" => limits.chunk_line_bytes_max = value,
            "trailer_bytes_max" => limits.trailer_bytes_max = value,
            _ => panic!("unknown limit {name}"),
        }
    }
}

/// The output of a case. Adjacent data is joined, because its cuts follow those of the input.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) lines: Vec<String>,
    data: Vec<u8>,
}

impl Log {
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    pub(crate) fn line(&mut self, line: String) {
        if !self.data.is_empty() {
            self.lines.push(format!("data {}", show(&self.data)));
            self.data.clear();
        }
        self.lines.push(line);
    }

    fn error(&mut self, error: Error) {
        self.line(format!("error {error} {}", error.status()));
    }

    fn trailers(&mut self, trailers: &Trailers) {
        for (name, value) in trailers.iter() {
            self.line(format!("trailer {}: {}", show(name), show(value)));
        }
    }

    fn fields(&mut self, head: &Head, block: &[u8]) {
        for field in head.iter() {
            self.line(format!(
                "field {}: {}",
                show(field.name.get(block)),
                show(field.value.get(block))
            ));
        }
    }
}

/// Input as a network delivers it, cut into segments.
pub(crate) struct Segments<'a> {
    wire: &'a [u8],
    cuts: &'a [usize],
    start: usize,
    end: usize,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(wire: &'a [u8], cuts: &'a [usize]) -> Self {
        let mut segments = Self {
            wire,
            cuts,
            start: 0,
            end: 0,
        };
        segments.more();
        segments
    }

    pub(crate) fn have(&self) -> &'a [u8] {
        &self.wire[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        assert!(
            bytes <= self.end - self.start,
            "more bytes were consumed than there were"
        );
        self.start += bytes;
    }

    /// Makes the next segment available; returns whether there was one.
    pub(crate) fn more(&mut self) -> bool {
        if self.end == self.wire.len() {
            return false;
        }
        let next = self.cuts.iter().copied().find(|&cut| cut > self.end);
        self.end = next.unwrap_or(self.wire.len());
        true
    }
}

fn body(kind: BodyKind) -> String {
    match kind {
        BodyKind::None => "none".into(),
        BodyKind::Length(length) => format!("length:{length}"),
        BodyKind::Chunked => "chunked".into(),
        BodyKind::UntilClose => "until-close".into(),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => panic!("this crate does not parse it"),
    }
}

/// Runs a server over a case. Every request gets an empty 200.
pub(crate) fn run_server(case: &Case, cuts: &[usize]) -> Vec<String> {
    let mut log = Log::default();
    let mut server = Server::new(case.limits);
    let mut head = Head::new();
    let mut segments = Segments::new(&case.input, cuts);
    loop {
        let have = segments.have();
        let received = match server.receive(have, &mut head) {
            Ok(received) => received,
            Err(error) => {
                log.error(error);
                assert_eq!(
                    server.receive(have, &mut head),
                    Err(error),
                    "an error is final"
                );
                return log.lines;
            }
        };
        segments.consume(received.consumed);
        match received.event {
            Event::Head => {
                log.line(request_line(&head, server.request(), have));
                if case.fields {
                    log.fields(&head, have);
                }
            }
            Event::Data(range) => log.data(&have[range]),
            Event::End => {
                log.trailers(server.trailers());
                log.line("end".into());
            }
            Event::NeedMore if segments.more() => {}
            Event::NeedMore => break,
            Event::Blocked => {
                server.begin_response(200, BodyKind::None).unwrap();
                assert_eq!(server.sender().end(), Ok(&b""[..]));
                let next = server.finish();
                log.line(format!("{next:?}").to_lowercase());
                if next == Next::Close {
                    return log.lines;
                }
                if segments.have().is_empty() && !segments.more() {
                    return log.lines;
                }
            }
            other => panic!("{other:?} from a server"),
        }
    }
    finish_log(log, case, || server.receive_close(segments.have().len()))
}

fn finish_log(mut log: Log, case: &Case, close: impl FnOnce() -> Result<(), Error>) -> Vec<String> {
    if case.eof {
        match close() {
            Ok(()) => log.line("closed".into()),
            Err(error) => log.error(error),
        }
    } else {
        log.line("more".into());
    }
    log.lines
}

fn request_line(head: &Head, request: &Request, block: &[u8]) -> String {
    let method = show(head.method_span.get(block));
    assert!(head.method == Method::Other || head.method.as_str() == method);
    let mut line = format!(
        "head {method} {} {} host={} body={} {}",
        show(head.target.get(block)),
        version(head.version),
        show(head.authority.get(block)),
        body(request.body),
        if request.keeps_alive { "keep" } else { "close" },
    );
    if request.expects_continue {
        line.push_str(" expect");
    }
    if let Some(upgrade) = request.upgrade {
        line.push_str(&format!(" upgrade={}", show(upgrade.get(block))));
    }
    if request.accepts_trailers {
        line.push_str(" trailers");
    }
    line
}

/// Runs a client over a case: one request without a body, its responses, and what happens to the
/// connection.
pub(crate) fn run_client(case: &Case, cuts: &[usize]) -> Vec<String> {
    let mut log = Log::default();
    let mut client = Client::new(case.limits);
    let mut head = Head::new();
    let mut segments = Segments::new(&case.input, cuts);
    let upgrade = (case.ask == "upgrade").then_some(Span::new(0, 9));
    client
        .begin_request(
            Method::from_token(case.method.as_bytes()),
            BodyKind::None,
            upgrade,
            false,
        )
        .unwrap();
    client.sender().end().unwrap();
    loop {
        let have = segments.have();
        let received = match client.receive(have, &mut head) {
            Ok(received) => received,
            Err(error) => {
                log.error(error);
                assert_eq!(
                    client.receive(have, &mut head),
                    Err(error),
                    "an error is final"
                );
                assert_eq!(client.finish(0), Next::Close);
                return log.lines;
            }
        };
        segments.consume(received.consumed);
        match received.event {
            Event::Head | Event::Interim | Event::Switch => {
                let kind = format!("{:?}", received.event).to_lowercase();
                log.line(response_line(&kind, &head, client.response()));
                if case.fields {
                    log.fields(&head, have);
                }
                if client.is_tunnel() {
                    while segments.more() {}
                    log.line(format!("tunnel {}", show(segments.have())));
                    return log.lines;
                }
            }
            Event::Data(range) => log.data(&have[range]),
            Event::End => {
                log.trailers(client.trailers());
                log.line("end".into());
                // All of the input must have arrived before the connection is reused.
                while segments.more() {}
                let next = client.finish(segments.have().len());
                log.line(format!("{next:?}").to_lowercase());
                return log.lines;
            }
            Event::NeedMore if segments.more() => {}
            Event::NeedMore
                if case.eof && client.receive_close(segments.have().len()) == Ok(()) => {}
            Event::NeedMore => break,
            Event::Blocked => panic!("blocked before the end of an answer"),
        }
    }
    finish_log(log, case, || client.receive_close(segments.have().len()))
}

fn response_line(kind: &str, head: &Head, response: &Response) -> String {
    format!(
        "{kind} {} {} body={} {}{}",
        head.status,
        version(head.version),
        body(response.body),
        if response.keeps_alive {
            "keep"
        } else {
            "close"
        },
        if response.challenges_connection {
            " bound"
        } else {
            ""
        },
    )
}

/// Forwards a request: server machine in, encoder out, with the body in its original framing.
/// Returns the bytes.
pub(crate) fn run_forward(case: &Case, cuts: &[usize]) -> Vec<String> {
    let mut out = Vec::new();
    let mut server = Server::new(case.limits);
    let mut client = Client::new(case.limits);
    let mut head = Head::new();
    let mut segments = Segments::new(&case.input, cuts);
    let mut edits = Edits::new();
    apply(&case.ask, &mut edits);
    loop {
        let have = segments.have();
        let received = server.receive(have, &mut head).unwrap();
        segments.consume(received.consumed);
        match received.event {
            Event::Head => {
                let request = *server.request();
                let framing = client
                    .begin_request(
                        request.method,
                        request.body,
                        request.upgrade,
                        request.accepts_trailers,
                    )
                    .unwrap();
                encode_request(&mut out, have, &head, &edits, &framing);
            }
            Event::Data(range) => {
                out.extend_from_slice(client.sender().prefix(range.len()).unwrap().as_bytes());
                out.extend_from_slice(&have[range]);
                out.extend_from_slice(client.sender().suffix());
            }
            Event::End => {
                client
                    .sender()
                    .end_with_trailers(server.trailers(), &mut out)
                    .unwrap();
                return vec![show(&out)];
            }
            Event::NeedMore => assert!(segments.more(), "the request is complete"),
            other => panic!("{other:?} from a server"),
        }
    }
}

/// Forwards a response to a client. `method` is that of the request; `ask` may set the client's
/// version.
pub(crate) fn run_answer(case: &Case, cuts: &[usize]) -> Vec<String> {
    let mut out = Vec::new();
    let mut server = Server::new(case.limits);
    let mut client = Client::new(case.limits);
    let mut head = Head::new();
    let client_version = if case.ask == "1.0" { "1.0" } else { "1.1" };
    let request = format!("{} / HTTP/{client_version}\r\nHost: a\r\n\r\n", case.method);
    server.receive(request.as_bytes(), &mut head).unwrap();
    let method = server.request().method;
    client
        .begin_request(method, BodyKind::None, None, false)
        .unwrap();
    client.sender().end().unwrap();
    let mut segments = Segments::new(&case.input, cuts);
    loop {
        let have = segments.have();
        let received = client.receive(have, &mut head).unwrap();
        segments.consume(received.consumed);
        match received.event {
            Event::Interim => {
                if server.begin_interim(head.status).unwrap() {
                    encode_response(&mut out, have, &head, &Edits::new(), &Framing::default());
                }
            }
            Event::Head => {
                let framing = server
                    .begin_response(head.status, client.response().body)
                    .unwrap();
                encode_response(&mut out, have, &head, &Edits::new(), &framing);
            }
            Event::Data(range) => {
                out.extend_from_slice(server.sender().prefix(range.len()).unwrap().as_bytes());
                out.extend_from_slice(&have[range]);
                out.extend_from_slice(server.sender().suffix());
            }
            Event::End => {
                server
                    .sender()
                    .end_with_trailers(client.trailers(), &mut out)
                    .unwrap();
                return vec![show(&out)];
            }
            Event::NeedMore if segments.more() => {}
            Event::NeedMore => client.receive_close(0).unwrap(),
            other => panic!("{other:?} from a client"),
        }
    }
}

fn apply(ask: &str, edits: &mut Edits) {
    for edit in ask.split("; ").filter(|edit| !edit.is_empty()) {
        let (what, value) = edit.split_once(' ').unwrap_or((edit, ""));
        match what {
            "path" => edits.set_path(&unescape(value)),
            "host" => edits.set_authority(&unescape(value)),
            "add" => {
                let (name, value) = value.split_once(": ").unwrap();
                edits.append(name, unescape(value));
            }
            _ => panic!("unknown edit {what}"),
        }
    }
}

/// Normalizes a path.
pub(crate) fn run_path(case: &Case) -> Vec<String> {
    let mut out = Vec::new();
    vec![match path::normalize_path(&case.input, &mut out) {
        Ok(normal) if normal.is_unchanged => "same".into(),
        Ok(_) => show(&out),
        Err(error) => format!("error {error} {}", error.status()),
    }]
}

pub(crate) fn run_host(case: &Case) -> Vec<String> {
    vec![match target::host_port(&case.input) {
        Ok(target::HostPort { host, port: None }) => show(host),
        Ok(target::HostPort {
            host,
            port: Some(port),
        }) => format!("{} {port}", show(host)),
        Err(error) => format!("error {error} {}", error.status()),
    }]
}
