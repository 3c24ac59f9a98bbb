//! One connection with its streams, in either role.
//!
//! | module | owns |
//! |---|---|
//! | `mod` | what a connection is, how it begins and ends, what is read from it |
//! | `receive` | the order of frames; the frames of the connection |
//! | `sections` | field blocks to events: heads and trailers |
//! | `data` | DATA, and the windows of the peer |
//! | `send` | heads, data and ends of ours |

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

/// What the PING carries between the two GOAWAY of a connection that shuts down.
const SHUTDOWN_PING: [u8; 8] = *b"weirdown";

/// Which side of the connection we are.
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
    /// A frame that has come in part.
    partial: Vec<u8>,
    /// A field block whose end has not come.
    block: Vec<u8>,
    continuing: Option<UnfinishedBlock>,
    decoder: Decoder,
    encoder: Encoder,
    /// Where blocks are written before their length is known.
    encoded: Vec<u8>,
    /// Where targets are put together.
    target: Vec<u8>,
    peer: PeerSettings,
    /// The peer has sent its first SETTINGS, and has acknowledged ours.
    has_peer_settings: bool,
    is_acknowledged: bool,
    streams: Streams,
    resets: RecentResets,
    floods: FloodCounters,
    receive_window: ReceiveWindow,
    /// How much the windows of streams have grown, all together.
    grown: u32,
    send_window: SendWindow,
    /// Frames of ours that wait for [`Connection::take_output`].
    output: Vec<u8>,
    /// The last stream that the peer has opened.
    last_id: u32,
    /// The next stream that we open.
    next_id: u32,
    shutdown: Shutdown,
    /// The last stream that the peer takes, once it goes away.
    peer_last: Option<u32>,
    /// Streams above [`Connection::peer_last`] may be there that were not reported.
    is_swept: bool,
    /// The priority of requests that say nothing of it.
    unsaid: Priority,
    /// Streams that wait for room.
    stalled: u32,
    /// Tiny pieces of data that were not consumed.
    tiny: u32,
    now_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum ReadState {
    /// So many bytes of the preface have come.
    Preface(u8),
    /// Before or within the nine bytes of a frame.
    Frame,
    /// Before or within a payload that is taken whole.
    Payload(FrameHeader),
    /// Before the length of the padding of DATA.
    Padding(FrameHeader, StreamKey),
    Data(data::DataFrame),
    /// Within a payload that is passed over.
    Skip(u32),
    /// Nothing that comes means anything.
    Failed(Error),
}

/// A field block of which more is to come.
#[derive(Clone, Copy, Debug)]
struct UnfinishedBlock {
    stream: u32,
    is_end: bool,
    frames: u32,
}

/// How far we are with going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    Running,
    /// The peer knows that there will be an end.
    Announced,
    /// The peer knows which stream is the last.
    Final,
}

impl Connection {
    /// Makes the side of a connection that takes requests. What it sends first waits already.
    #[must_use]
    pub fn server(config: Config) -> Self {
        Self::new(config, Role::Server)
    }

    /// Makes the side of a connection that sends requests. What it sends first waits already.
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
            partial: Vec::new(),
            block: Vec::new(),
            continuing: None,
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
            grown: 0,
            send_window: SendWindow::new(WINDOW_BYTES),
            output: Vec::new(),
            last_id: 0,
            next_id: 1,
            shutdown: Shutdown::Running,
            peer_last: None,
            is_swept: true,
            unsaid: Priority::SHARED,
            stalled: 0,
            tiny: 0,
            now_ms: 0,
            config,
        };
        connection.begin(size.min(MAX_31_BITS));
        connection
    }

    //= rfc9113#3.4
    // Each side begins with SETTINGS, the client with the preface before them.
    fn begin(&mut self, window: u32) {
        if self.role == Role::Client {
            self.output.extend_from_slice(HTTP2_PREFACE);
        }
        settings::write(&mut self.output, &self.config, self.role);
        if window > WINDOW_BYTES {
            self.queue_number(FrameType::WindowUpdate, 0, window - WINDOW_BYTES);
        }
    }

    /// Takes the next event from `input`, which starts behind what was consumed before. `now_ms` is
    /// any clock that does not go back, in milliseconds.
    ///
    /// `head` and `text` are cleared and filled when a head or trailers are complete, and are not
    /// touched otherwise: they are to be taken out before the next call. To be called until it says
    /// [`Event::NeedMore`]; all input is consumed then.
    ///
    /// # Errors
    /// The connection has to end: what [`Connection::take_output`] gives is to be sent, and then it
    /// is to be closed. All its streams have failed. Every later call repeats the error.
    pub fn receive(
        &mut self,
        input: &[u8],
        now_ms: u64,
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        self.now_ms = now_ms;
        self.floods.at(now_ms);
        match self.run(input, head, text) {
            Ok(received) => Ok(received),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Moves what waits to be sent: answers to control frames, window updates, resets, GOAWAY.
    ///
    /// To be called after every [`Connection::receive`] and before the connection waits.
    /// Whatever writes a head or an end calls it, so that all is sent in the order of the calls.
    pub fn take_output<S: Sink>(&mut self, sink: &mut S) {
        if !self.output.is_empty() {
            sink.put(&self.output);
            self.output.clear();
        }
    }

    /// Says whether [`Connection::take_output`] has something.
    #[inline]
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The number of streams that are open.
    #[inline]
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams.len()
    }

    /// Says whether a stream is still there, be it half closed.
    #[inline]
    #[must_use]
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Says whether the peer has ended its message. True for a stream that is gone.
    #[must_use]
    pub fn is_received(&self, stream: StreamKey) -> bool {
        let stream = self.streams.get(stream);
        stream.is_none_or(|stream| stream.receiving == HalfState::Done)
    }

    /// Says whether our message was ended. True for a stream that is gone.
    #[must_use]
    pub fn is_sent(&self, stream: StreamKey) -> bool {
        let stream = self.streams.get(stream);
        stream.is_none_or(|stream| stream.sending == HalfState::Done)
    }

    /// How urgent the answer on a stream is; the default for one that is gone.
    ///
    /// The peer says so, or the head of the answer. Until a client has spoken of priorities at all,
    /// its answers share: it may know nothing of them, and may pass on requests of many others.
    #[must_use]
    pub fn priority(&self, stream: StreamKey) -> Priority {
        let stream = self.streams.get(stream);
        stream.map_or_else(Priority::default, |stream| stream.priority)
    }

    /// Says whether [`Connection::open`] may be called: the peer takes another stream, and neither
    /// side goes away. Clients only.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && !matches!(self.state, ReadState::Failed(_))
            && self.shutdown == Shutdown::Running
            && self.peer_last.is_none()
            && self.next_id <= MAX_31_BITS
            && self.streams.len() < self.streams_max()
    }

    /// Streams that may be open at a time: of a client, what the server takes by now, and no more
    /// than configured.
    #[must_use]
    pub fn streams_max(&self) -> u32 {
        match self.role {
            Role::Server => self.config.streams_max,
            Role::Client => self.config.streams_max.min(self.peer.streams_max),
        }
    }

    /// Says whether the peer takes extended CONNECT (RFC 8441); a server says so in its SETTINGS.
    #[must_use]
    pub const fn takes_extended_connect(&self) -> bool {
        self.peer.extended_connect
    }

    /// Says whether the peer has sent its SETTINGS: what it takes is known from then on.
    #[must_use]
    pub const fn has_peer_settings(&self) -> bool {
        self.has_peer_settings
    }

    /// Says whether the peer has acknowledged our SETTINGS. How long it may take is for the caller
    /// to say, who then calls [`Connection::abort`] with [`Error::SettingsTimeout`].
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// Says whether a field block has begun whose end has not come: how long that may last is for the caller to say.
    #[must_use]
    pub fn is_within_block(&self) -> bool {
        let is_headers = |kind| matches!(kind, FrameType::Headers | FrameType::Continuation);
        let is_partial = matches!(self.state, ReadState::Payload(frame) if is_headers(frame.kind));
        self.continuing.is_some() || is_partial
    }

    /// Goes away when all is done that was begun. A server first says that there will be an end,
    /// and which stream was the last when the peer has answered a PING, so that no request that was
    /// on its way is lost; [`Connection::stop`] does not wait for that. A client opens no more
    /// streams.
    //= rfc9113#6.8
    // A GOAWAY with 2^31 - 1, and the true one a round trip later.
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

    /// Takes no more streams from now on; those that are open go on.
    pub fn stop(&mut self) {
        if self.shutdown != Shutdown::Final && !matches!(self.state, ReadState::Failed(_)) {
            self.shutdown = Shutdown::Final;
            self.queue_go_away(self.last_id, ErrorCode::NO_ERROR);
        }
    }

    /// Says whether the connection can be closed with nothing lost: one side goes away, and no
    /// stream is open.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let is_shutting_down = self.shutdown == Shutdown::Final || self.peer_last.is_some();
        matches!(self.state, ReadState::Failed(_)) || (is_shutting_down && self.streams.len() == 0)
    }

    /// Why the connection has ended at once, for what the peer did or by [`Connection::abort`]: nothing is received any
    /// more, and nothing becomes of its streams.
    #[must_use]
    pub const fn failure(&self) -> Option<Error> {
        match self.state {
            ReadState::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Says whether the peer was told that there will be an end.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        match self.state {
            ReadState::Failed(error) => error != Error::BadPreface,
            _ => self.shutdown != Shutdown::Running,
        }
    }

    /// Says whether the connection's window lets any data through.
    #[inline]
    #[must_use]
    pub fn has_connection_window(&self) -> bool {
        self.send_window.room() > 0
    }

    /// Ends the connection at once, for a reason of the caller's: GOAWAY waits to be sent, and
    /// nothing is received any more.
    pub fn abort(&mut self, error: Error) {
        self.fail(error);
    }

    /// Asks the peer for a sign of life: [`Event::PingAck`] has the payload.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if !matches!(self.state, ReadState::Failed(_)) {
            self.queue_ping(0, payload);
        }
    }

    /// Gives back memory that only a busy connection needs: for one that waits with no stream open.
    pub fn release_memory(&mut self) {
        self.streams.release_memory();
        self.decoder.release_memory();
        self.encoder.release_memory();
        for buffer in [
            &mut self.encoded,
            &mut self.target,
            &mut self.output,
            &mut self.partial,
            &mut self.block,
        ] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }

    /// Keeps the error for good and tells the peer.
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

    /// Nothing is received any more, and no stream goes on.
    fn finish(&mut self, error: Error) {
        self.state = ReadState::Failed(error);
        self.streams = Streams::new();
        (self.stalled, self.tiny, self.grown) = (0, 0, 0);
    }

    /// Ends a stream for what the peer did on it.
    fn fail_stream(&mut self, key: StreamKey, error: Error) -> Result<Event, Error> {
        self.queue_reset(key.id(), error.code());
        self.remove(key);
        self.count_reset()?;
        Ok(Event::Failed { stream: key, error })
    }

    /// Counts a stream that ended early for what the peer did. An endpoint is not counted: what it is asked wears
    /// nobody out, clients that give up make it answer streams that are gone, and its connection carries the requests
    /// of others.
    fn count_reset(&mut self) -> Result<(), Error> {
        match self.role {
            Role::Server => self.floods.reset(),
            Role::Client => Ok(()),
        }
    }

    /// Forgets a stream. What it had not consumed no longer holds the connection back.
    fn remove(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let (unread, tiny, was_stalled) = (
            stream.receive_window.unread(),
            stream.tiny,
            stream.is_stalled,
        );
        let grown = stream.receive_window.size() - self.config.stream_window_bytes;
        self.grown -= grown.min(self.grown);
        self.tiny -= tiny.min(self.tiny);
        self.stalled -= u32::from(was_stalled).min(self.stalled);
        self.streams.remove(key);
        self.let_go(unread);
    }

    /// Forgets a stream that both sides have ended.
    fn settle(&mut self, key: StreamKey) {
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

    /// RecentResets a stream towards the peer. What may still come for it is passed over.
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
