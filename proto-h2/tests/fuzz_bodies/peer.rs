//! A peer that checks what a connection sends: whole frames in order, nothing beyond a window,
//! nothing on a stream that has ended.

use std::collections::BTreeMap;

use weir_proto_h2::hpack::{Decoder, PseudoField};

/// What the peer knows about a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    /// Bytes that the connection may send on it.
    pub(super) window: i64,
    /// Bytes that the peer may send on it.
    pub(super) granted: i64,
    has_head: bool,
    has_ended: bool,
    pub(super) is_reset: bool,
}

pub(super) struct Peer {
    bytes: Vec<u8>,
    decoder: Decoder,
    block: Vec<u8>,
    continuing: Option<(u32, bool)>,
    is_of_client: bool,
    skips_preface: bool,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// Bytes that the connection may send in total.
    pub(super) window: i64,
    /// Bytes that the peer may send in total.
    pub(super) granted: i64,
    /// The acknowledged initial window of new streams.
    pub(super) initial: i64,
    pub(super) unacked: Vec<i64>,
    /// Whether bytes outside a frame were sent, so that the peer cannot know the state of the
    /// connection.
    pub(super) is_vague: bool,
}

impl Peer {
    pub(super) fn new(is_of_client: bool) -> Self {
        Self {
            bytes: Vec::new(),
            decoder: Decoder::new(4096),
            block: Vec::new(),
            continuing: None,
            is_of_client,
            skips_preface: is_of_client,
            streams: BTreeMap::new(),
            window: 65_535,
            granted: 65_535,
            initial: 65_535,
            unacked: Vec::new(),
            is_vague: false,
        }
    }

    /// Opens a stream of the peer.
    pub(super) fn open(&mut self, id: u32) {
        let stream = Stream {
            window: self.initial,
            granted: 65_535,
            ..Stream::default()
        };
        self.streams.entry(id).or_insert(stream);
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.skips_preface && self.bytes.len() >= 24 {
            assert_eq!(self.bytes[..24], *super::PREFACE);
            self.bytes.drain(..24);
            self.skips_preface = false;
        }
        while self.bytes.len() >= 9 && !self.skips_preface {
            let len = u32::from_be_bytes([0, self.bytes[0], self.bytes[1], self.bytes[2]]) as usize;
            assert!(len <= 16_384, "no frame is larger than allowed");
            if self.bytes.len() < 9 + len {
                break;
            }
            let frame: Vec<u8> = self.bytes.drain(..9 + len).collect();
            self.frame(&frame);
        }
    }

    /// Returns whether no frame or field block is incomplete.
    pub(super) fn is_between_frames(&self) -> bool {
        self.bytes.is_empty() && self.continuing.is_none()
    }

    fn frame(&mut self, bytes: &[u8]) {
        let (kind, flags, payload) = (bytes[3], bytes[4], &bytes[9..]);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let id = number(5);
        assert!(
            self.continuing
                .is_none_or(|(stream, _)| kind == 9 && stream == id),
            "nothing comes within a block"
        );
        if self.is_vague {
            return;
        }
        match kind {
            0 => {
                let len = payload.len() as i64;
                self.window -= len;
                let stream = self.sends(id);
                assert!(stream.has_head, "a head comes before data");
                stream.window -= len;
                stream.has_ended |= flags & 1 != 0;
                let is_within = stream.window >= 0 || len == 0;
                assert!(
                    is_within && (self.window >= 0 || len == 0),
                    "within the windows"
                );
                assert!(len > 0 || flags & 1 != 0, "an empty frame ends the message");
            }
            1 | 9 => {
                if kind == 1 {
                    self.continuing = Some((id, flags & 1 != 0));
                    self.block.clear();
                }
                self.block.extend_from_slice(payload);
                if flags & 4 != 0 {
                    self.section(id);
                }
            }
            3 => {
                // A stream number that was skipped is closed too.
                self.streams.entry(id).or_default().is_reset = true;
            }
            4 if flags & 1 != 0 => {
                let window = self.unacked.remove(0);
                for stream in self.streams.values_mut() {
                    stream.window += window - self.initial;
                }
                self.initial = window;
            }
            4 | 6 | 7 => {}
            8 => {
                let by = i64::from(number(9));
                assert!(by > 0, "no increment of 0");
                let granted = match id {
                    0 => &mut self.granted,
                    id => &mut self.streams.get_mut(&id).unwrap().granted,
                };
                *granted += by;
                assert!(*granted < 1 << 31, "no window grows beyond its bounds");
            }
            kind => panic!("frame {kind} was sent"),
        }
    }

    /// The stream, which must have a message under way.
    fn sends(&mut self, id: u32) -> &mut Stream {
        let stream = self.streams.get_mut(&id).expect("the stream is open");
        assert!(
            !stream.has_ended && !stream.is_reset,
            "nothing follows the end"
        );
        stream
    }

    fn section(&mut self, id: u32) {
        let (_, is_end) = self.continuing.take().unwrap();
        if self.is_of_client {
            self.open(id);
        }
        let (mut text, mut status) = (Vec::new(), None);
        let mut has_pseudo = false;
        self.decoder
            .decode(&self.block, &mut text, 1 << 20, |text, field| {
                assert!(field.is_valid);
                has_pseudo |= field.pseudo.is_some();
                if field.pseudo == Some(PseudoField::Status) {
                    status = Some(field.value.get(text)[0]);
                }
                Ok::<(), ()>(())
            })
            .expect("sent blocks can be decoded");
        let stream = self.sends(id);
        assert_eq!(has_pseudo, !stream.has_head, "a head, then trailers");
        assert!(!stream.has_head || is_end, "trailers end the message");
        stream.has_head |= status != Some(b'1');
        stream.has_ended |= is_end;
    }
}
