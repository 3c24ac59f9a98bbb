//! One connection with its streams, as server or client.
//!
//! | module | owns |
//! |---|---|
//! | `mod` | the state of a connection, how it begins and ends, queries |
//! | `receive` | the order of frames; connection frames |
//! | `sections` | field blocks to events: heads and trailers |
//! | `data` | received DATA, and the windows for it |
//! | `send` | outgoing heads, data and ends |

mod data;
mod receive;
mod sections;
mod send;

use alloc::vec::Vec;

use weir_proto_h1::{HTTP2_PREFACE, Head, Sink};

use crate::code::ErrorCode;
use crate::config::{Config, MAX_31_BITS, WINDOW_BYTES};
use crate::error::Error;
use crate::event::{Event, Received};
use crate::flood::FloodCounters;
use crate::flow::{ReceiveWindow, SendWindow};
use crate::frame::{FrameHeader, FrameType};
use crate::hpack::{Decoder, Encoder, TABLE_BYTES};
use crate::priority::Priority;
use crate::settings::{self, PeerSettings};
use crate::stream::{HalfState, RecentResets, Stream, StreamKey, Streams};

/// The payload of the PING between the two GOAWAY of a graceful shutdown.
const SHUTDOWN_PING: [u8; 8] = *b"weirdown";

/// This side's role in the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// One connection. See the [crate] for the order of calls.
#[derive(Clone, Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    state: ReadState,
    /// An incomplete frame.
    partial_frame: Vec<u8>,
    /// An incomplete field block.
    partial_block: Vec<u8>,
    unfinished_block: Option<UnfinishedBlock>,
    decoder: Decoder,
    encoder: Encoder,
    /// An encoded field block, before its length is known.
    encoded: Vec<u8>,
    /// A buffer for joining path and query.
    target: Vec<u8>,
    peer: PeerSettings,
    /// Whether the peer's first SETTINGS have arrived, and whether it has acknowledged ours.
    has_peer_settings: bool,
    is_acknowledged: bool,
    streams: Streams,
    resets: RecentResets,
    floods: FloodCounters,
    receive_window: ReceiveWindow,
    /// The total growth of the windows of streams.
    window_growth: u32,
    send_window: SendWindow,
    /// Frames that wait for [`Connection::take_output`].
    output: Vec<u8>,
    /// The last stream that the peer has opened.
    last_id: u32,
    /// The next stream that this side opens.
    next_id: u32,
    shutdown: Shutdown,
    /// The last stream that the peer processes, as its GOAWAY says.
    peer_last_id: Option<u32>,
    /// False while streams after `peer_last_id` remain to be reported.
    has_reported_unprocessed: bool,
    /// The priority of requests that state none.
    default_priority: Priority,
    /// The number of streams that wait for room.
    stalled: u32,
    /// The number of tiny DATA frames that are not consumed.
    tiny: u32,
    now_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum ReadState {
    /// This many bytes of the preface have arrived.
    Preface(u8),
    /// Before or within a frame header.
    Frame,
    /// Before or within a payload that is handled as a whole.
    Payload(FrameHeader),
    /// Before the padding length of a DATA frame.
    Padding(FrameHeader, StreamKey),
    Data(data::DataFrame),
    /// Within a payload that is skipped.
    Skip(u32),
    /// The connection has failed and ignores all input.
    Failed(Error),
}

/// A field block that continues in more frames.
#[derive(Clone, Copy, Debug)]
struct UnfinishedBlock {
    stream: u32,
    is_end: bool,
    frames: u32,
}

/// The progress of this side's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    Running,
    /// The peer knows that the connection will end.
    Announced,
    /// The peer knows the last stream that this side accepts.
    Final,
}

impl Connection {
    /// Makes a server connection. Its first output is already queued.
    #[must_use]
    pub fn server(config: Config) -> Self {
        Self::new(config, Role::Server)
    }

    /// Makes a client connection. Its first output is already queued.
    #[must_use]
    pub fn client(config: Config) -> Self {
        Self::new(config, Role::Client)
    }

    fn new(mut config: Config, role: Role) -> Self {
        let window = config.stream_window_bytes;
        config.stream_window_bytes = window.clamp(WINDOW_BYTES, MAX_31_BITS);
        let (size, max) = (
            config.connection_window_bytes.max(WINDOW_BYTES),
            config.connection_window_bytes_max,
        );
        let mut connection = Self {
            role,
            state: match role {
                Role::Server => ReadState::Preface(0),
                Role::Client => ReadState::Frame,
            },
            partial_frame: Vec::new(),
            partial_block: Vec::new(),
            unfinished_block: None,
            decoder: Decoder::new(TABLE_BYTES),
            encoder: Encoder::new(),
            encoded: Vec::new(),
            target: Vec::new(),
            peer: PeerSettings::new(),
            has_peer_settings: false,
            is_acknowledged: false,
            streams: Streams::new(),
            resets: RecentResets::default(),
            floods: FloodCounters::new(config.floods),
            receive_window: ReceiveWindow::new(size, max, 0),
            window_growth: 0,
            send_window: SendWindow::new(WINDOW_BYTES),
            output: Vec::new(),
            last_id: 0,
            next_id: 1,
            shutdown: Shutdown::Running,
            peer_last_id: None,
            has_reported_unprocessed: true,
            default_priority: Priority::SHARED,
            stalled: 0,
            tiny: 0,
            now_ms: 0,
            config,
        };
        connection.begin(size.min(MAX_31_BITS));
        connection
    }

    //= rfc9113#3.4
    // Each side starts with SETTINGS. The client sends the preface first.
    fn begin(&mut self, window: u32) {
        if self.role == Role::Client {
            self.output.extend_from_slice(HTTP2_PREFACE);
        }
        settings::write(&mut self.output, &self.config, self.role);
        if window > WINDOW_BYTES {
            self.queue_number(FrameType::WindowUpdate, 0, window - WINDOW_BYTES);
        }
    }

    /// Takes the next event from `input`, which starts after the bytes consumed so far. `now_ms` is
    /// a monotonic clock in milliseconds.
    ///
    /// Call it until it returns [`Event::NeedMore`], when all input is consumed. `head` and `text`
    /// are cleared and filled when a head or trailers are complete and are not touched otherwise,
    /// so the caller takes their contents before the next call.
    ///
    /// # Errors
    /// The connection and all its streams have failed. The caller sends what
    /// [`Connection::take_output`] returns and closes the connection. Every later call returns the
    /// same error.
    pub fn receive(
        &mut self,
        input: &[u8],
        now_ms: u64,
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        self.now_ms = now_ms;
        self.floods.advance_to(now_ms);
        match self.advance(input, &mut sections::MessageBuffer { head, text }) {
            Ok(received) => Ok(received),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Moves queued output into `sink`: responses to control frames, window updates, resets,
    /// GOAWAY.
    ///
    /// Call it after every [`Connection::receive`] and before the connection waits. Steps that
    /// write a head or an end call it too, so that frames keep the order of the calls.
    pub fn take_output<S: Sink>(&mut self, sink: &mut S) {
        if !self.output.is_empty() {
            sink.put(&self.output);
            self.output.clear();
        }
    }

    /// Returns whether [`Connection::take_output`] has output.
    #[inline]
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The number of open streams.
    #[inline]
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams.len()
    }

    /// Returns whether a stream is open or half closed.
    #[inline]
    #[must_use]
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Returns whether the peer has ended its message. True for a stream that is gone.
    #[must_use]
    pub fn is_received(&self, stream: StreamKey) -> bool {
        let stream = self.streams.get(stream);
        stream.is_none_or(|stream| stream.receiving == HalfState::Done)
    }

    /// Returns whether this side has ended its message. True for a stream that is gone.
    #[must_use]
    pub fn is_sent(&self, stream: StreamKey) -> bool {
        let stream = self.streams.get(stream);
        stream.is_none_or(|stream| stream.sending == HalfState::Done)
    }

    /// The priority of the response on a stream; the default for a stream that is gone.
    ///
    /// The client states it, or the head of the response does. Until a client has stated any
    /// priority, its responses share the connection, because it may not know priorities and may be
    /// a proxy for many others.
    #[must_use]
    pub fn priority(&self, stream: StreamKey) -> Priority {
        let stream = self.streams.get(stream);
        stream.map_or_else(Priority::default, |stream| stream.priority)
    }

    /// Returns whether [`Connection::open`] can succeed: the peer accepts another stream, and
    /// neither side is shutting down. Clients only.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && !matches!(self.state, ReadState::Failed(_))
            && self.shutdown == Shutdown::Running
            && self.peer_last_id.is_none()
            && self.next_id <= MAX_31_BITS
            && self.streams.len() < self.streams_max()
    }

    /// The limit of concurrent streams. At a client, the lower of the server's and the configured
    /// limit.
    #[must_use]
    pub fn streams_max(&self) -> u32 {
        match self.role {
            Role::Server => self.config.streams_max,
            Role::Client => self.config.streams_max.min(self.peer.streams_max),
        }
    }

    /// Returns whether the peer accepts extended CONNECT (RFC 8441), as servers say in SETTINGS.
    #[must_use]
    pub const fn takes_extended_connect(&self) -> bool {
        self.peer.extended_connect
    }

    /// Returns whether the peer's SETTINGS have arrived, so that its limits are known.
    #[must_use]
    pub const fn has_peer_settings(&self) -> bool {
        self.has_peer_settings
    }

    /// Returns whether the peer has acknowledged this side's SETTINGS. The caller decides how long
    /// that may take, and then calls [`Connection::abort`] with [`Error::SettingsTimeout`].
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// Returns whether a field block has begun and not ended. The caller decides how long that may
    /// take.
    #[must_use]
    pub fn is_within_block(&self) -> bool {
        let is_headers = |kind| matches!(kind, FrameType::Headers | FrameType::Continuation);
        let is_partial = matches!(self.state, ReadState::Payload(frame) if is_headers(frame.kind));
        self.unfinished_block.is_some() || is_partial
    }

    /// Shuts down gracefully: open streams go on, and no others follow. A server first announces
    /// the end. It names the last stream when the peer has answered a PING, so that no request in
    /// flight is lost; [`Connection::stop`] does not wait for that.
    //= rfc9113#6.8
    // The first GOAWAY says 2^31 - 1. The real one follows a round trip later.
    pub fn shut_down(&mut self) {
        match (self.role, self.shutdown) {
            (Role::Server, Shutdown::Running) => {
                self.shutdown = Shutdown::Announced;
                self.queue_go_away(MAX_31_BITS, ErrorCode::NO_ERROR);
                self.queue_ping(0, SHUTDOWN_PING);
            }
            (Role::Client, Shutdown::Running) => self.stop(),
            _ => {}
        }
    }

    /// Accepts and opens no more streams. Open streams go on.
    pub fn stop(&mut self) {
        if self.shutdown != Shutdown::Final && !matches!(self.state, ReadState::Failed(_)) {
            self.shutdown = Shutdown::Final;
            self.queue_go_away(self.last_id, ErrorCode::NO_ERROR);
        }
    }

    /// Returns whether closing the connection loses nothing: one side is shutting down, and no
    /// stream is open.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let is_shutting_down = self.shutdown == Shutdown::Final || self.peer_last_id.is_some();
        matches!(self.state, ReadState::Failed(_)) || (is_shutting_down && self.streams.len() == 0)
    }

    /// The error that ended the connection at once, from the peer or from [`Connection::abort`].
    /// Its streams have ended, and it ignores all input.
    #[must_use]
    pub const fn failure(&self) -> Option<Error> {
        match self.state {
            ReadState::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Returns whether this side has announced the end of the connection.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        match self.state {
            ReadState::Failed(error) => error != Error::BadPreface,
            _ => self.shutdown != Shutdown::Running,
        }
    }

    /// Returns whether the connection's window has room for data.
    #[inline]
    #[must_use]
    pub fn has_connection_window(&self) -> bool {
        self.send_window.room() > 0
    }

    /// Ends the connection at once with an error of the caller's. Queues a GOAWAY and ignores
    /// further input.
    pub fn abort(&mut self, error: Error) {
        self.fail(error);
    }

    /// Sends a PING. [`Event::PingAck`] reports the answer.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if !matches!(self.state, ReadState::Failed(_)) {
            self.queue_ping(0, payload);
        }
    }

    /// Frees the memory that only a busy connection needs. For an idle connection without streams.
    pub fn release_memory(&mut self) {
        self.streams.release_memory();
        self.decoder.release_memory();
        self.encoder.release_memory();
        for buffer in [
            &mut self.encoded,
            &mut self.target,
            &mut self.output,
            &mut self.partial_frame,
            &mut self.partial_block,
        ] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }

    /// Keeps the error for good and queues a GOAWAY.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        if !matches!(self.state, ReadState::Failed(_)) {
            if error != Error::BadPreface {
                self.queue_go_away(self.last_id, error.code());
            }
            self.finish(error);
        }
        error
    }

    /// Ends all streams and ignores further input.
    fn finish(&mut self, error: Error) {
        self.state = ReadState::Failed(error);
        self.streams = Streams::new();
        (self.stalled, self.tiny, self.window_growth) = (0, 0, 0);
    }

    /// Resets a stream for an error of the peer.
    fn fail_stream(&mut self, key: StreamKey, error: Error) -> Result<Event, Error> {
        self.queue_reset(key.id(), error.code());
        self.remove(key);
        self.count_reset()?;
        Ok(Event::Failed { stream: key, error })
    }

    /// Counts a stream that ended early because of the peer. Endpoints are not counted: they do not
    /// attack, they send late frames when clients cancel, and their connection carries requests of
    /// others.
    fn count_reset(&mut self) -> Result<(), Error> {
        match self.role {
            Role::Server => self.floods.count_reset(),
            Role::Client => Ok(()),
        }
    }

    /// Removes a stream. Its unread bytes return to the window of the connection.
    fn remove(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let (unread, tiny, was_stalled) = (
            stream.receive_window.unread(),
            stream.tiny,
            stream.is_stalled,
        );
        let window_growth = stream.receive_window.size() - self.config.stream_window_bytes;
        self.window_growth -= window_growth.min(self.window_growth);
        self.tiny -= tiny.min(self.tiny);
        self.stalled -= u32::from(was_stalled).min(self.stalled);
        self.streams.remove(key);
        self.return_unread(unread);
    }

    /// Removes a stream if both sides have ended it.
    fn remove_if_done(&mut self, key: StreamKey) {
        let is_done = |stream: &Stream| {
            stream.receiving == HalfState::Done && stream.sending == HalfState::Done
        };
        if self.streams.get(key).is_some_and(is_done) {
            self.remove(key);
        }
    }

    fn queue(&mut self, kind: FrameType, flags: u8, stream: u32, payload: &[u8]) {
        let head = FrameHeader {
            len: payload.len() as u32,
            kind,
            flags,
            stream,
        };
        self.output.extend_from_slice(&head.bytes());
        self.output.extend_from_slice(payload);
    }

    fn queue_number(&mut self, kind: FrameType, stream: u32, number: u32) {
        self.queue(kind, 0, stream, &number.to_be_bytes());
    }

    fn queue_ping(&mut self, flags: u8, payload: [u8; 8]) {
        self.queue(FrameType::Ping, flags, 0, &payload);
    }

    /// Queues an RST_STREAM. Later frames for the stream are ignored.
    fn queue_reset(&mut self, id: u32, code: ErrorCode) {
        self.resets.remember(id, self.config.streams_max);
        self.queue_number(FrameType::RstStream, id, code.0);
    }

    fn queue_go_away(&mut self, last: u32, code: ErrorCode) {
        let mut payload = [0; 8];
        let (stream, reason) = payload.split_at_mut(4);
        stream.copy_from_slice(&last.to_be_bytes());
        reason.copy_from_slice(&code.0.to_be_bytes());
        self.queue(FrameType::GoAway, 0, 0, &payload);
    }
}
