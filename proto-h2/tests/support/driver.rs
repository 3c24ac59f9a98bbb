//! Drives a connection through the steps of a case.

use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Request, Span, TargetForm, Trailers};
use weir_proto_h2::{Connection, Error, ErrorCode, Event, Framing, StreamKey};

use super::frames::{FrameReader, write_frame};
use super::{Case, Step, show, unescape};

/// Runs a case with its input cut at `cuts`. Returns the output.
pub(crate) fn run(case: &Case, cuts: &[usize]) -> Vec<String> {
    let mut driver = Driver::new(case);
    if !case.is_raw {
        driver.start();
    }
    let mut at = 0;
    for step in &case.steps {
        match step {
            Step::In(bytes) => {
                let mut start = 0;
                let inner = cuts
                    .iter()
                    .filter(|&&cut| cut > at && cut < at + bytes.len());
                for end in inner.map(|cut| cut - at).chain([bytes.len()]) {
                    driver.feed(&bytes[start..end]);
                    start = end;
                }
                at += bytes.len();
            }
            Step::Do(what) => driver.act(what),
        }
    }
    driver.finish()
}

struct Driver {
    connection: Connection,
    reader: FrameReader,
    is_client: bool,
    head: Head,
    text: Vec<u8>,
    keys: Vec<StreamKey>,
    now_ms: u64,
    lines: Vec<String>,
    data: Option<(u32, Vec<u8>)>,
    failed: Option<Error>,
    shows_fields: bool,
}

impl Driver {
    fn new(case: &Case) -> Self {
        let is_client = match case.role.as_str() {
            "client" => true,
            "server" => false,
            role => panic!("{}: unknown role {role}", case.file),
        };
        let connection = if is_client {
            Connection::client(case.config)
        } else {
            Connection::server(case.config)
        };
        Self {
            connection,
            reader: FrameReader::new(is_client),
            is_client,
            head: Head::new(),
            text: Vec::new(),
            keys: Vec::new(),
            now_ms: 0,
            lines: Vec::new(),
            data: None,
            failed: None,
            shows_fields: case.shows_fields,
        }
    }

    /// Exchanges SETTINGS without recording output.
    fn start(&mut self) {
        if !self.is_client {
            self.feed(&write_frame("PREFACE"));
        }
        self.feed(&write_frame("SETTINGS"));
        self.feed(&write_frame("SETTINGS ack"));
        self.take_output();
        self.lines.clear();
    }

    fn line(&mut self, line: String) {
        if let Some((stream, data)) = self.data.take() {
            self.lines.push(format!("data {stream} {}", show(&data)));
        }
        self.lines.push(line);
    }

    fn take_output(&mut self) {
        let mut out = Vec::new();
        self.connection.take_output(&mut out);
        self.sent(&out);
    }

    fn sent(&mut self, out: &[u8]) {
        for frame in self.reader.take(out) {
            self.line(format!("send {frame}"));
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let mut rest = bytes;
        loop {
            let result = self
                .connection
                .receive(rest, self.now_ms, &mut self.head, &mut self.text);
            self.take_output();
            let received = match result {
                Ok(received) => received,
                Err(error) => {
                    self.line(format!("error {error}"));
                    let again =
                        self.connection
                            .receive(b"", self.now_ms, &mut self.head, &mut self.text);
                    assert_eq!(again, Err(error), "an error is final");
                    assert!(self.connection.is_finished() && !self.connection.can_open());
                    self.failed = Some(error);
                    return;
                }
            };
            assert!(
                received.consumed <= rest.len(),
                "more bytes were consumed than there were"
            );
            if let Event::Data { range, .. } = &received.event {
                assert!(!range.is_empty() && range.end <= received.consumed);
            }
            let event = received.event.clone();
            self.event(event, rest);
            rest = &rest[received.consumed..];
            if received.event == Event::NeedMore {
                assert!(rest.is_empty(), "all input is taken");
                return;
            }
        }
    }

    fn event(&mut self, event: Event, input: &[u8]) {
        match event {
            Event::NeedMore | Event::Handled => {}
            Event::Request {
                stream,
                request,
                is_end,
            } => {
                self.keys.push(stream);
                let line = self.request_line(stream, &request, is_end);
                self.line(line);
                self.fields(false);
            }
            Event::Refused {
                stream,
                error,
                is_end,
            } => {
                self.keys.push(stream);
                let method = show(self.head.method_span.get(&self.text));
                let target = show(self.head.target.get(&self.text));
                let line = format!(
                    "refused {} {error} {} {method} {target}{}",
                    stream.id(),
                    error.status(),
                    end(is_end)
                );
                self.line(line);
            }
            Event::Interim { stream } => {
                self.line(format!("interim {} {}", stream.id(), self.head.status));
                self.fields(false);
            }
            Event::Response {
                stream,
                body,
                is_end,
            } => {
                self.line(format!(
                    "response {} {} body={}{}",
                    stream.id(),
                    self.head.status,
                    body_text(body),
                    end(is_end)
                ));
                self.fields(false);
            }
            Event::Data {
                stream,
                range,
                is_end,
            } => {
                match &mut self.data {
                    Some((id, data)) if *id == stream.id() => data.extend(&input[range]),
                    _ => {
                        if let Some((id, data)) = self.data.take() {
                            self.lines.push(format!("data {id} {}", show(&data)));
                        }
                        self.data = Some((stream.id(), input[range].to_vec()));
                    }
                }
                if is_end {
                    self.line(format!("end {}", stream.id()));
                }
            }
            Event::Trailers { stream } => {
                self.line(format!("trailers {}", stream.id()));
                self.fields(true);
            }
            Event::End { stream } => self.line(format!("end {}", stream.id())),
            Event::Reset {
                stream,
                code,
                is_unprocessed,
            } => {
                let unprocessed = if is_unprocessed { " unprocessed" } else { "" };
                self.line(format!("reset {} {code}{unprocessed}", stream.id()));
                self.gone(stream);
            }
            Event::Failed { stream, error } => {
                self.line(format!("failed {} {error}", stream.id()));
                self.gone(stream);
            }
            Event::WindowOpened { stream } => {
                let which = stream.map_or_else(|| "all".into(), |stream| stream.id().to_string());
                self.line(format!("opened {which}"));
            }
            Event::Prioritized { stream } => self.line(format!("prioritized {}", stream.id())),
            Event::GoAway { last_stream, code } => {
                self.line(format!("goaway {last_stream} {code}"))
            }
            Event::PingAck { payload } => self.line(format!("pong {}", show(&payload))),
            Event::SettingsChanged => self.line("settings".into()),
            Event::SettingsAcked => self.line("acked".into()),
        }
    }

    /// Checks that a stream that is gone allows no steps.
    fn gone(&mut self, stream: StreamKey) {
        assert!(!self.connection.is_open(stream));
        assert_eq!(
            self.connection.data_frame(stream, 1, false),
            Err(Error::StreamGone)
        );
        assert_eq!(self.connection.data_room(stream), 0);
    }

    fn request_line(&self, stream: StreamKey, request: &Request, is_end: bool) -> String {
        let (head, text) = (&self.head, &self.text);
        let method = show(head.method_span.get(text));
        assert!(head.method == Method::Other || head.method.as_str() == method);
        assert!(head.is_complete() && request.method == head.method);
        let mut line = format!(
            "request {} {method} {} {} {} body={}",
            stream.id(),
            show(head.scheme.get(text)),
            show(head.authority.get(text)),
            show(head.target.get(text)),
            body_text(request.body)
        );
        if request.expects_continue {
            line.push_str(" expect");
        }
        if request.accepts_trailers {
            line.push_str(" trailers");
        }
        if let Some(protocol) = request.upgrade {
            line.push_str(&format!(" protocol={}", show(protocol.get(text))));
        }
        line + end(is_end)
    }

    fn fields(&mut self, always: bool) {
        if !self.shows_fields && !always {
            return;
        }
        let fields: Vec<String> = self
            .head
            .iter()
            .map(|field| {
                let name = field.name.get(&self.text);
                assert_eq!(FieldId::from_name(name), field.id);
                format!(
                    "field {}: {}",
                    show(name),
                    show(field.value.get(&self.text))
                )
            })
            .collect();
        fields.into_iter().for_each(|field| self.line(field));
    }

    /// The key of a stream that the case has used.
    fn key(&self, id: &str) -> StreamKey {
        let id: u32 = id.parse().unwrap();
        let found = self.keys.iter().rev().find(|key| key.id() == id);
        *found.unwrap_or_else(|| panic!("no stream {id}"))
    }

    /// Makes a step of the caller; see `cases/README.md`.
    fn act(&mut self, what: &str) {
        let (front, rest) = match what.split_once(" | ") {
            Some((front, rest)) => (front, Some(rest)),
            None => (what, None),
        };
        let words: Vec<&str> = front.split_whitespace().collect();
        let number = |at: usize| -> u64 { words[at].parse().unwrap() };
        let mut out = Vec::new();
        let result = match words[0] {
            "at" => {
                self.now_ms = number(1);
                Ok(())
            }
            "open" => self.open(&words, rest, &mut out),
            "respond" => self.respond(&words, rest, &mut out),
            "interim" => {
                let (block, head, _) = message(&words[1..], rest);
                let key = self.key(words[1]);
                let edits = Edits::new();
                self.connection
                    .send_interim(&mut out, key, &block, &head, &edits)
            }
            "data" => self.data(&words, rest, &mut out),
            "end" => self.connection.end(&mut out, self.key(words[1])),
            "trailers" => {
                let (block, head, _) = message(&["", "200"], rest);
                let mut trailers = Trailers::default();
                trailers.fill(&head, &block);
                let key = self.key(words[1]);
                self.connection.send_trailers(&mut out, key, &trailers)
            }
            "reset" => {
                let codes = (0..14).map(ErrorCode);
                let code = codes.into_iter().find(|code| code.name() == words[2]);
                self.connection.reset(self.key(words[1]), code.unwrap());
                Ok(())
            }
            "release" => {
                self.connection.release(self.key(words[1]));
                Ok(())
            }
            "consume" => {
                let (key, bytes) = (self.key(words[1]), number(2) as usize);
                self.connection.consume(key, bytes, self.now_ms);
                Ok(())
            }
            "shut_down" => {
                self.connection.shut_down();
                Ok(())
            }
            "stop" => {
                self.connection.stop();
                Ok(())
            }
            "abort" => {
                self.connection.abort(Error::SettingsTimeout);
                Ok(())
            }
            "ping" => {
                self.connection
                    .ping(words[1].as_bytes().try_into().unwrap());
                Ok(())
            }
            "rest" => {
                self.connection.release_memory();
                Ok(())
            }
            _ => {
                let line = self.ask(&words);
                self.line(line);
                Ok(())
            }
        };
        self.take_output_behind(&out);
        if let Err(error) = result {
            assert!(out.is_empty(), "a step that is refused sends nothing");
            self.line(format!("step {error}"));
        }
    }

    /// Records the output of a step, then the output that was queued.
    fn take_output_behind(&mut self, out: &[u8]) {
        self.sent(out);
        self.take_output();
    }

    fn ask(&mut self, words: &[&str]) -> String {
        match words[0] {
            "room" => {
                let key = self.key(words[1]);
                format!("room {}", self.connection.data_room(key))
            }
            "streams" => format!("streams {}", self.connection.streams()),
            "over" => format!("over {}", self.connection.is_finished()),
            "can_open" => format!("can_open {}", self.connection.can_open()),
            "priority" => {
                let priority = self.connection.priority(self.key(words[1]));
                format!("priority {} {}", priority.urgency, priority.is_incremental)
            }
            "extended" => format!("extended {}", self.connection.takes_extended_connect()),
            _ => panic!("unknown step {words:?}"),
        }
    }

    fn open(&mut self, words: &[&str], rest: Option<&str>, out: &mut Vec<u8>) -> Result<(), Error> {
        let (mut block, mut head, framing) = message(&["", "0"], rest);
        let mut edits = Edits::new();
        head.status = 0;
        let mut put = |bytes: &[u8]| {
            let start = block.len();
            block.extend_from_slice(bytes);
            Span::new(start, block.len())
        };
        head.method_span = put(words[1].as_bytes());
        head.authority = put(b"a");
        let target = put(words[2].as_bytes());
        head.method = Method::from_token(words[1].as_bytes());
        if head.method == Method::Connect && !words[2].starts_with('/') {
            head.form = TargetForm::Authority;
            head.authority = target;
        } else {
            head.set_target(target, &block).unwrap();
        }
        let framing = read_framing(words, framing);
        for word in words {
            match word.split_once('=') {
                Some(("path", path)) => edits.set_path(path.as_bytes()),
                Some(("host", host)) => edits.set_authority(host.as_bytes()),
                Some(("add", value)) => edits.append("X-Added", value),
                _ => {}
            }
        }
        let key = self.connection.open(out, &block, &head, &edits, &framing)?;
        self.keys.push(key);
        Ok(())
    }

    fn respond(
        &mut self,
        words: &[&str],
        rest: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (block, head, framing) = message(&words[1..], rest);
        let framing = read_framing(words, framing);
        let key = self.key(words[1]);
        let edits = Edits::new();
        let is_end = self
            .connection
            .respond(out, key, &block, &head, &edits, &framing)?;
        assert!(!is_end || self.connection.is_sent(key));
        Ok(())
    }

    fn data(&mut self, words: &[&str], rest: Option<&str>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut bytes = unescape(rest.unwrap_or_default());
        let long = words.iter().find_map(|word| word.strip_prefix("len="));
        if let Some(count) = long {
            bytes = vec![b'x'; count.parse().unwrap()];
        }
        let key = self.key(words[1]);
        let is_end = words.contains(&"end");
        out.extend(self.connection.data_frame(key, bytes.len(), is_end)?);
        out.extend(bytes);
        Ok(())
    }

    fn finish(mut self) -> Vec<String> {
        self.take_output();
        if let Some((stream, data)) = self.data.take() {
            self.lines.push(format!("data {stream} {}", show(&data)));
        }
        assert!(self.reader.is_between_frames());
        self.lines
    }
}

fn end(is_end: bool) -> &'static str {
    if is_end { " end" } else { "" }
}

fn body_text(kind: BodyKind) -> String {
    match kind {
        BodyKind::None => "none".into(),
        BodyKind::Length(length) => length.to_string(),
        BodyKind::Chunked => "open".into(),
        BodyKind::UntilClose => panic!("no body of HTTP/2 lasts until a close"),
    }
}

/// Makes a head with a status and fields, and its block.
fn message(words: &[&str], rest: Option<&str>) -> (Vec<u8>, Head, Framing<'static>) {
    let mut head = Head::with_status(words[1].parse().unwrap());
    let mut block = Vec::new();
    for field in rest.into_iter().flat_map(|fields| fields.split(" | ")) {
        let (name, value) = field.split_once(": ").unwrap();
        let start = block.len();
        block.extend(unescape(name));
        let middle = block.len();
        match value.strip_prefix('~') {
            Some(count) => block.resize(middle + count.parse::<usize>().unwrap(), b'x'),
            None => block.extend(unescape(value)),
        }
        let id = FieldId::from_name(name.as_bytes());
        head.push(id, Span::new(start, middle), Span::new(middle, block.len()));
    }
    (block, head, Framing::default())
}

/// `length=N`, `open` (a body of unknown length), `end`, `te`, `protocol=P`.
fn read_framing<'w>(words: &[&'w str], framing: Framing<'static>) -> Framing<'w> {
    let mut framing: Framing<'w> = framing;
    for word in words {
        match word.split_once('=') {
            Some(("length", length)) => framing.body = BodyKind::Length(length.parse().unwrap()),
            Some(("protocol", protocol)) => framing.protocol = Some(protocol.as_bytes()),
            None if *word == "open" && words[0] != *word => framing.body = BodyKind::Chunked,
            None if *word == "body" => framing.body = BodyKind::Chunked,
            None if *word == "end" => framing.is_end = true,
            None if *word == "te" => framing.accepts_trailers = true,
            _ => {}
        }
    }
    framing
}
