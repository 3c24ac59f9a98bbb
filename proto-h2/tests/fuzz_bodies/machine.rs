//! Runs steps of a peer and of a caller, which are read from bytes.

use std::collections::BTreeMap;

use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Span, TargetForm, Trailers};
use weir_proto_h2::{Connection, Error, ErrorCode, Event, Framing, StreamKey};

use super::peer::Peer;
use super::{CONFIG, PREFACE, check_head};

/// Field blocks that the peer sends: valid, unusual and malformed ones.
const BLOCKS: &[&[u8]] = &[
    b"\x82\x86\x84\x41\x01a",
    b"\x83\x86\x84\x41\x01a\x0f\x0d\x015",
    b"\x83\x86\x84\x41\x01a\x60\x03a=b\x60\x03c=d\x40\x02te\x08trailers",
    b"\x82\x87\x04\x04/x?y\x41\x01b\xbe\xbf",
    b"\x88",
    b"\x88\x0f\x0d\x0250\x76\x01x",
    b"\x08\x03103",
    b"\x89",
    b"\x40\x03x-a\x01b",
    b"",
    b"\xc0",
    b"\x82\x86\x84",
    b"\x00\x01X\x01a",
    b"\x02\x07CONNECT\x01\x04a:80",
    b"\x20\x3f\xe1\x1f\x82\x86\x84\x41\x01a",
    b"\x82\x86\x84\x41\x01a\x00\x01x\x7f\x91\x0f",
];

/// The progress of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    Head,
    Body,
    Done,
}

pub(super) struct Machine {
    connection: Connection,
    is_client: bool,
    peer: Peer,
    head: Head,
    text: Vec<u8>,
    out: Vec<u8>,
    incoming: BTreeMap<StreamKey, Incoming>,
    keys: Vec<StreamKey>,
    unread: BTreeMap<StreamKey, usize>,
    next_id: u32,
    now_ms: u64,
    failed: Option<Error>,
}

impl Machine {
    pub(super) fn new(is_client: bool) -> Self {
        let connection = if is_client {
            Connection::client(CONFIG)
        } else {
            Connection::server(CONFIG)
        };
        Self {
            connection,
            is_client,
            peer: Peer::new(is_client),
            head: Head::new(),
            text: Vec::new(),
            out: Vec::new(),
            incoming: BTreeMap::new(),
            keys: Vec::new(),
            unread: BTreeMap::new(),
            next_id: 1,
            now_ms: 0,
            failed: None,
        }
    }

    pub(super) fn run(mut self, bytes: &[u8]) {
        self.flush();
        if !self.is_client {
            self.feed(PREFACE, 0);
        }
        self.peer.unacked.push(65_535);
        self.send(4, 0, 0, b"", 0);
        for step in bytes.chunks_exact(4) {
            let [what, a, b, c] = *step else {
                unreachable!()
            };
            if what & 1 == 0 {
                self.peer_step(what >> 1 & 15, a, b, c);
            } else {
                self.caller_step(what >> 1 & 15, a, b, c);
            }
            self.flush();
            self.check();
        }
        self.end();
    }

    /// Sends a frame of the peer, cut at a position.
    fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8], cut: u8) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.feed(&frame, usize::from(cut));
    }

    fn id(&self, choice: u8) -> u32 {
        match choice {
            0..=199 if !self.keys.is_empty() => {
                let recent = self.keys.len().min(8);
                self.keys[self.keys.len() - 1 - usize::from(choice) % recent].id()
            }
            choice => u32::from(choice) % 32,
        }
    }

    fn peer_step(&mut self, what: u8, a: u8, b: u8, c: u8) {
        match what {
            0..=2 if !self.is_client => {
                let id = self.next_id;
                self.next_id += 2;
                self.peer.open(id);
                let block = BLOCKS[usize::from(a) % 4];
                self.send(1, 4 | (b & 1), id, block, c);
            }
            0..=3 => {
                let id = self.id(a);
                if id % 2 == 1 && !self.is_client {
                    self.peer.open(id);
                    self.next_id = self.next_id.max(id + 2);
                }
                let block = BLOCKS[usize::from(b >> 1) % BLOCKS.len()];
                self.send(1, 4 | (b & 1), id, block, c);
            }
            4..=6 => self.peer_data(self.id(a), b, c),
            7 => {
                let id = if b & 1 == 0 { 0 } else { self.id(a) };
                let by = u32::from(c) << (b >> 1 & 7);
                let stream = self.peer.streams.get_mut(&id);
                if id == 0 {
                    self.peer.window += i64::from(by);
                } else if let Some(stream) = stream {
                    stream.window += i64::from(by);
                }
                self.send(8, 0, id, &by.to_be_bytes(), 0);
            }
            8 => self.send(3, 0, self.id(a), &u32::from(b % 16).to_be_bytes(), c),
            9 => {
                let window = u32::from(b) << (c & 15);
                self.peer.unacked.push(i64::from(window));
                let mut payload = vec![0, 4];
                payload.extend(window.to_be_bytes());
                self.send(4, 0, 0, &payload, a);
            }
            10 => self.send(6, a & 1, 0, b"weirdown", b),
            11 => self.send(7, 0, 0, &[0, 0, 0, a, 0, 0, 0, b], c),
            12 => self.send(16, 0, 0, &[0, 0, 0, a, b'u', b'=', b'0' + b % 9], c),
            13 => {
                // A field block in several frames.
                let id = if self.is_client {
                    self.id(a)
                } else {
                    self.next_id
                };
                if !self.is_client {
                    self.next_id += 2;
                    self.peer.open(id);
                }
                let block = BLOCKS[usize::from(b) % BLOCKS.len()];
                let (first, rest) = block.split_at(usize::from(c) % (block.len() + 1));
                self.send(1, a & 1, id, first, c);
                self.send(9, 0, id, rest, 0);
                self.send(9, 4, id, b"", 0);
            }
            14 => self.send(4, 1, 0, b"", 0),
            _ => {
                self.peer.is_vague = true;
                self.feed(&[a, b, c], 1);
            }
        }
    }

    fn peer_data(&mut self, id: u32, b: u8, c: u8) {
        let len = match b >> 6 {
            0 => usize::from(c),
            1 => usize::from(c) * 16,
            _ => (usize::from(c) * 64).min(16_384),
        };
        let mut payload = vec![b'x'; len];
        let mut flags = b & 1;
        if b & 2 != 0 {
            flags |= 8;
            payload.insert(0, b & 0x3f);
        }
        payload.truncate(16_384);
        // A peer that sometimes exceeds its windows.
        let left = self
            .peer
            .streams
            .get(&id)
            .map_or(0, |stream| stream.granted);
        let len = payload.len() as i64;
        if len > left.min(self.peer.granted) && b & 0x3c != 0x3c {
            return;
        }
        self.peer.granted -= len;
        if let Some(stream) = self.peer.streams.get_mut(&id) {
            stream.granted -= len;
        }
        self.send(0, flags, id, &payload, c);
    }

    fn feed(&mut self, bytes: &[u8], cut: usize) {
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        self.feed_part(first);
        self.feed_part(rest);
    }

    fn feed_part(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let result = self
                .connection
                .receive(rest, self.now_ms, &mut self.head, &mut self.text);
            self.flush();
            let received = match result {
                Ok(received) => received,
                Err(error) => {
                    assert!(
                        self.failed.is_none_or(|before| before == error),
                        "errors are final"
                    );
                    self.failed = Some(error);
                    return;
                }
            };
            assert!(self.failed.is_none(), "errors are final");
            rest = &rest[received.consumed..];
            self.event(&received.event);
            if received.event == Event::NeedMore {
                assert!(rest.is_empty());
                return;
            }
        }
    }

    /// Checks that the events of a stream come in order.
    fn event(&mut self, event: &Event) {
        match event {
            Event::Request { stream, is_end, .. } | Event::Refused { stream, is_end, .. } => {
                assert!(!self.is_client);
                if let Event::Request { .. } = event {
                    check_head(&self.head, &self.text);
                }
                self.keys.push(*stream);
                let before = self.incoming.insert(*stream, Incoming::Body);
                assert_eq!(before, None, "a stream has one first event");
                self.step(*stream, Incoming::Body, *is_end);
            }
            Event::Interim { stream } => self.step(*stream, Incoming::Head, false),
            Event::Response { stream, is_end, .. } => {
                self.step(*stream, Incoming::Head, false);
                self.incoming.insert(*stream, Incoming::Body);
                self.step(*stream, Incoming::Body, *is_end);
            }
            Event::Data {
                stream,
                range,
                is_end,
            } => {
                assert!(!range.is_empty());
                self.step(*stream, Incoming::Body, *is_end);
                *self.unread.entry(*stream).or_default() += range.len();
            }
            Event::Trailers { stream } => {
                check_head(&self.head, &self.text);
                self.step(*stream, Incoming::Body, true);
            }
            Event::End { stream } => self.step(*stream, Incoming::Body, true),
            Event::Reset { stream, .. } | Event::Failed { stream, .. } => {
                assert!(!self.connection.is_open(*stream));
                self.incoming.insert(*stream, Incoming::Done);
            }
            Event::WindowOpened { stream } => {
                assert!(stream.is_none_or(|stream| self.connection.is_open(stream)));
            }
            Event::Prioritized { stream } => assert!(self.connection.is_open(*stream)),
            Event::NeedMore
            | Event::Handled
            | Event::GoAway { .. }
            | Event::PingAck { .. }
            | Event::SettingsChanged
            | Event::SettingsAcked => {}
        }
    }

    fn step(&mut self, stream: StreamKey, at: Incoming, is_end: bool) {
        let state = self.incoming.get_mut(&stream);
        let state = state.expect("no event for a stream before its first one");
        assert_eq!(*state, at);
        if is_end {
            *state = Incoming::Done;
        }
    }

    fn caller_step(&mut self, what: u8, a: u8, b: u8, c: u8) {
        let key = self.key(a);
        match what {
            0..=2 if self.is_client => self.open(b, c),
            0..=2 => {
                if let Some(key) = key {
                    self.respond(key, b, c);
                }
            }
            3..=5 => {
                if let Some(key) = key {
                    self.data(key, b, c);
                }
            }
            6 => self.with(key, |machine, key| {
                let _ = machine.connection.end(&mut machine.out, key);
            }),
            7 => self.with(key, |machine, key| {
                let mut trailers = Trailers::default();
                let mut head = Head::new();
                head.push(FieldId::Other, Span::new(0, 3), Span::new(3, 4));
                trailers.fill(&head, b"x-a1");
                let sent = machine
                    .connection
                    .send_trailers(&mut machine.out, key, &trailers);
                assert!(sent.is_ok() || machine.out.is_empty());
            }),
            8 => self.with(key, |machine, key| {
                machine.connection.reset(key, ErrorCode(u32::from(b)));
                machine.forget(key);
            }),
            9 => self.with(key, |machine, key| {
                machine.connection.release(key);
                machine.forget(key);
            }),
            10 | 11 => {
                for (key, len) in std::mem::take(&mut self.unread) {
                    self.connection.consume(key, len, self.now_ms);
                }
            }
            12 => self.now_ms += u64::from(b) << (c & 7),
            13 if a == 0 => self.connection.shut_down(),
            13 if a == 1 => self.connection.stop(),
            13 => self.connection.release_memory(),
            _ => self.connection.ping([b; 8]),
        }
    }

    fn with(&mut self, key: Option<StreamKey>, what: impl FnOnce(&mut Self, StreamKey)) {
        if let Some(key) = key {
            what(self, key);
        }
    }

    fn key(&self, choice: u8) -> Option<StreamKey> {
        let recent = self.keys.len().min(8);
        let back = usize::from(choice).checked_rem(recent)?;
        self.keys.get(self.keys.len() - 1 - back).copied()
    }

    fn forget(&mut self, key: StreamKey) {
        assert!(!self.connection.is_open(key));
        self.incoming.insert(key, Incoming::Done);
    }

    fn framing(b: u8, c: u8) -> Framing<'static> {
        Framing {
            body: match b & 3 {
                0 => BodyKind::None,
                1 => BodyKind::Length(u64::from(c)),
                _ => BodyKind::Chunked,
            },
            is_end: b & 4 != 0,
            ..Framing::default()
        }
    }

    fn open(&mut self, b: u8, c: u8) {
        let mut head = Head::new();
        head.method =
            [Method::Get, Method::Head, Method::Post, Method::Connect][usize::from(c & 3)];
        head.authority = Span::new(0, 4);
        head.path = Span::new(4, 5);
        if head.method == Method::Connect {
            head.form = TargetForm::Authority;
        }
        let framing = Self::framing(b, c);
        let could = self.connection.can_open();
        let edits = Edits::new();
        let opened = self
            .connection
            .open(&mut self.out, b"a:80/", &head, &edits, &framing);
        assert_eq!(opened.is_ok(), could);
        if let Ok(key) = opened {
            self.keys.push(key);
            self.incoming.insert(key, Incoming::Head);
        }
    }

    fn respond(&mut self, key: StreamKey, b: u8, c: u8) {
        let status = [200, 204, 304, 103, 500][usize::from(c) % 5];
        let head = Head::with_status(status);
        let edits = Edits::new();
        if status == 103 {
            let sent = self
                .connection
                .send_interim(&mut self.out, key, b"", &head, &edits);
            assert!(sent.is_ok() || self.out.is_empty());
            return;
        }
        let framing = Self::framing(b, c);
        let sent = self
            .connection
            .respond(&mut self.out, key, b"", &head, &edits, &framing);
        match sent {
            Ok(is_end) => assert!(!is_end || self.connection.is_sent(key)),
            Err(_) => assert!(self.out.is_empty(), "a step that is refused sends nothing"),
        }
    }

    fn data(&mut self, key: StreamKey, b: u8, c: u8) {
        let room = self.connection.data_room(key);
        assert!(room <= 16_384);
        let wanted = usize::from(b) * usize::from(c);
        let is_end = b & 1 != 0;
        // Sometimes more than there is room for.
        let len = if b & 0x70 == 0x70 {
            wanted
        } else {
            wanted.min(room)
        };
        match self.connection.data_frame(key, len, is_end) {
            Ok(frame) => {
                assert!(len <= room);
                self.out.extend_from_slice(&frame);
                self.out.resize(self.out.len() + len, b'y');
            }
            Err(Error::NoRoom) => assert!(len > room),
            Err(_) => {}
        }
    }

    /// Passes the output to the peer, in the promised order.
    fn flush(&mut self) {
        let written = std::mem::take(&mut self.out);
        self.peer.take(&written);
        let mut out = written;
        out.clear();
        self.connection.take_output(&mut out);
        self.peer.take(&out);
    }

    fn check(&self) {
        assert!(self.peer.is_between_frames());
        assert!(self.connection.streams() <= CONFIG.streams_max);
        assert!(self.failed.is_none() || self.connection.is_finished());
        let open = self
            .keys
            .iter()
            .filter(|&&key| self.connection.is_open(key));
        assert_eq!(
            open.count(),
            self.connection.streams() as usize,
            "every stream is known"
        );
    }

    /// When every stream is released, the windows are whole again.
    fn end(mut self) {
        for key in std::mem::take(&mut self.keys) {
            self.connection.release(key);
        }
        self.flush();
        assert_eq!(self.connection.streams(), 0);
        if self.failed.is_none() && !self.peer.is_vague {
            let least = i64::from(CONFIG.connection_window_bytes) / 2;
            assert!(self.peer.granted > least, "{} left", self.peer.granted);
        }
    }
}
