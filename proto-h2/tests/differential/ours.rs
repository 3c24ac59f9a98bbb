//! Our side of a connection over an in-memory pipe, with the little I/O that it needs.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weir_proto_h1::{Edits, FieldId, Head, Span, Trailers};
use weir_proto_h2::{Connection, Error, ErrorCode, Event, Framing, StreamKey};

/// A message in the form that both sides compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_complete: bool,
    pub(crate) code: Option<u32>,
}

/// The part of a message that remains to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) body: Vec<u8>,
    pub(crate) sent: usize,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_over: bool,
}

/// A connection with its messages.
pub(crate) struct OurSide {
    pub(crate) connection: Connection,
    io: DuplexStream,
    pub(crate) out: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) text: Vec<u8>,
    pub(crate) received: BTreeMap<StreamKey, Message>,
    pub(crate) sending: BTreeMap<StreamKey, Outgoing>,
    /// Bytes of a read at most.
    pub(crate) read_max: usize,
    /// Whether data of several reads accumulates before it is consumed.
    pub(crate) is_lazy: bool,
    unread: Vec<(StreamKey, usize)>,
    now_ms: u64,
}

impl OurSide {
    pub(crate) fn new(connection: Connection, io: DuplexStream) -> Self {
        Self {
            connection,
            io,
            out: Vec::new(),
            head: Head::new(),
            text: Vec::new(),
            received: BTreeMap::new(),
            sending: BTreeMap::new(),
            read_max: 1 << 16,
            is_lazy: false,
            unread: Vec::new(),
            now_ms: 0,
        }
    }

    /// Sends what it can, waits for input, and returns the events. Empty if the peer has closed.
    pub(crate) async fn turn(&mut self) -> Result<Vec<Event>, Error> {
        self.pump();
        self.flush().await;
        let mut input = vec![0; self.read_max];
        let len = self.io.read(&mut input).await.unwrap_or(0);
        if len == 0 {
            return Ok(Vec::new());
        }
        self.now_ms += 1;
        let (mut events, mut rest) = (Vec::new(), &input[..len]);
        if !self.is_lazy || self.unread.len() > 20 {
            self.consume();
        }
        loop {
            let received =
                self.connection
                    .receive(rest, self.now_ms, &mut self.head, &mut self.text);
            let received = match received {
                Ok(received) => received,
                Err(error) => {
                    self.flush().await;
                    return Err(error);
                }
            };
            let event = received.event;
            self.note(&event, rest);
            rest = &rest[received.consumed..];
            let is_last = event == Event::NeedMore;
            events.push(event);
            if is_last {
                // Otherwise a peer that waits for a window would wait forever.
                if self.is_lazy && !self.unread.is_empty() {
                    self.consume();
                }
                return Ok(events);
            }
        }
    }

    fn consume(&mut self) {
        for (key, len) in self.unread.drain(..) {
            self.connection.consume(key, len, self.now_ms);
        }
    }

    fn note(&mut self, event: &Event, input: &[u8]) {
        match event {
            Event::Request { stream, is_end, .. } | Event::Response { stream, is_end, .. } => {
                let text = |span: Span| String::from_utf8_lossy(span.get(&self.text)).into_owned();
                let message = Message {
                    method: text(self.head.method_span),
                    target: text(self.head.target),
                    fields: self.fields(),
                    is_complete: *is_end,
                    ..Message::default()
                };
                self.received.insert(*stream, message);
            }
            Event::Data {
                stream,
                range,
                is_end,
            } => {
                let message = self.received.get_mut(stream).expect("a head came first");
                message.body.extend_from_slice(&input[range.clone()]);
                message.is_complete |= is_end;
                self.unread.push((*stream, range.len()));
            }
            Event::Trailers { stream } => {
                let mut trailers = Trailers::default();
                trailers.fill(&self.head, &self.text);
                let message = self.received.get_mut(stream).expect("a head came first");
                message.trailers = pairs(trailers.iter());
                message.is_complete = true;
            }
            Event::End { stream } => {
                let message = self.received.get_mut(stream).expect("a head came first");
                message.is_complete = true;
            }
            Event::Reset { stream, code, .. } => {
                self.received.entry(*stream).or_default().code = Some(code.0);
                self.sending.remove(stream);
            }
            Event::Failed { error, .. } => panic!("a well-behaved peer: {error}"),
            _ => {}
        }
    }

    fn fields(&self) -> Vec<(String, String)> {
        let text = &self.text;
        pairs(
            self.head
                .iter()
                .map(|field| (field.name.get(text), field.value.get(text))),
        )
    }

    /// Sends what the windows allow, with one frame of each stream at a time.
    pub(crate) fn pump(&mut self) {
        let mut any = true;
        while any {
            any = false;
            let keys: Vec<StreamKey> = self.sending.keys().copied().collect();
            for key in keys {
                any |= self.pump_stream(key);
            }
        }
        self.sending.retain(|_, outgoing| !outgoing.is_over);
    }

    fn pump_stream(&mut self, key: StreamKey) -> bool {
        let outgoing = self.sending.get_mut(&key).expect("the key is in the map");
        if outgoing.is_over {
            return false;
        }
        let left = outgoing.body.len() - outgoing.sent;
        if left > 0 {
            let len = self.connection.data_room(key).min(left);
            if len == 0 {
                return false;
            }
            let is_end = len == left && outgoing.trailers.is_empty();
            let frame = self.connection.data_frame(key, len, is_end);
            let frame = frame.expect("there is room");
            self.connection.take_output(&mut self.out);
            self.out.extend_from_slice(&frame);
            let from = outgoing.sent;
            self.out.extend_from_slice(&outgoing.body[from..from + len]);
            outgoing.sent += len;
            outgoing.is_over = is_end;
            return true;
        }
        outgoing.is_over = true;
        let (block, head) = head_of(&outgoing.trailers);
        let mut trailers = Trailers::default();
        trailers.fill(&head, &block);
        let ended = self.connection.send_trailers(&mut self.out, key, &trailers);
        ended.expect("the message may end");
        false
    }

    pub(crate) async fn flush(&mut self) {
        self.connection.take_output(&mut self.out);
        // The peer may have closed; the next read reports that.
        let _ = self.io.write_all(&self.out).await;
        self.out.clear();
    }

    /// Responds to a request.
    pub(crate) fn respond(
        &mut self,
        key: StreamKey,
        status: u16,
        fields: &[(String, String)],
        framing: &Framing<'_>,
        outgoing: Outgoing,
    ) {
        let (block, mut head) = head_of(fields);
        head.status = status;
        let edits = Edits::new();
        let ended = self
            .connection
            .respond(&mut self.out, key, &block, &head, &edits, framing);
        if !ended.expect("an answer is due") {
            self.sending.insert(key, outgoing);
        }
    }

    pub(crate) fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        self.connection.reset(key, code);
        self.sending.remove(&key);
    }
}

pub(crate) fn pairs<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("tests send text");
    fields
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Makes a head with these fields, and its block.
pub(crate) fn head_of(fields: &[(String, String)]) -> (Vec<u8>, Head) {
    let (mut block, mut head) = (Vec::new(), Head::new());
    for (name, value) in fields {
        let start = block.len();
        block.extend_from_slice(name.as_bytes());
        let middle = block.len();
        block.extend_from_slice(value.as_bytes());
        let id = FieldId::from_name(name.as_bytes());
        head.push(id, Span::new(start, middle), Span::new(middle, block.len()));
    }
    (block, head)
}
