//! The order of frames, and the frames of the connection itself.

use alloc::vec::Vec;
use core::mem;

use weir_proto_h1::{HTTP2_PREFACE, Head};

use super::{Connection, Continuing, Leaving, Role, SHUTDOWN_PING, State};
use crate::code::Code;
use crate::config::{FRAME_BYTES_MAX, OUTPUT_BYTES_MAX};
use crate::error::Error;
use crate::event::{Event, Received};
use crate::frame::{
    self, ACK, END_HEADERS, END_STREAM, FrameHead, HEAD_BYTES, Kind, PRIORITY_BYTES,
};
use crate::priority::Priority;
use crate::stream::{Half, StreamKey};

/// What a step came to.
pub(super) enum Step {
    /// More input is needed.
    Wait,
    /// Nothing that the caller has to know of.
    On,
    Event(Event),
}

impl Connection {
    /// Takes steps until a frame is over, there is an event, or the input is used up.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut rest = input;
        loop {
            if !self.is_swept
                && let Some(event) = self.sweep()
            {
                return Ok(Received {
                    consumed: input.len() - rest.len(),
                    event,
                });
            }
            let step = match self.state {
                State::Frame => self.frame_head(&mut rest)?,
                State::Payload(frame) => self.payload(&frame, &mut rest, head, text)?,
                State::Data(data) => self.data(data, &mut rest, input.len()),
                State::Padding(frame, key) => self.padding(&frame, key, &mut rest)?,
                State::Skip(left) => self.skip(left, &mut rest),
                State::Preface(taken) => self.preface(taken, &mut rest)?,
                State::Failed(error) => return Err(error),
            };
            let event = match step {
                Step::On if matches!(self.state, State::Frame) => Event::Handled,
                Step::On => continue,
                Step::Wait => Event::NeedMore,
                Step::Event(event) => event,
            };
            return Ok(Received {
                consumed: input.len() - rest.len(),
                event,
            });
        }
    }

    fn preface(&mut self, taken: u8, rest: &mut &[u8]) -> Result<Step, Error> {
        let wanted = HTTP2_PREFACE.get(usize::from(taken)..).unwrap_or_default();
        let len = wanted.len().min(rest.len());
        if rest.get(..len) != wanted.get(..len) {
            return Err(Error::BadPreface);
        }
        *rest = rest.get(len..).unwrap_or_default();
        if len < wanted.len() {
            self.state = State::Preface(taken + len as u8);
            return Ok(Step::Wait);
        }
        self.state = State::Frame;
        Ok(Step::On)
    }

    fn frame_head(&mut self, rest: &mut &[u8]) -> Result<Step, Error> {
        let head = match rest.split_first_chunk::<HEAD_BYTES>() {
            Some((bytes, tail)) if self.partial.is_empty() => {
                *rest = tail;
                FrameHead::read(bytes)
            }
            _ => {
                gather(&mut self.partial, HEAD_BYTES, rest);
                let Some(bytes) = self.partial.first_chunk::<HEAD_BYTES>() else {
                    return Ok(Step::Wait);
                };
                let head = FrameHead::read(bytes);
                self.partial.clear();
                head
            }
        };
        self.check(&head)?;
        match head.kind {
            Kind::Data => return self.begin_data(&head),
            Kind::Unknown => {
                self.floods.unknown()?;
                self.state = State::Skip(head.len);
            }
            _ => self.state = State::Payload(head),
        }
        Ok(Step::On)
    }

    /// Checks what can be known of a frame before its payload.
    fn check(&self, head: &FrameHead) -> Result<(), Error> {
        //= rfc9113#4.2
        // No frame is larger than announced.
        if head.len > FRAME_BYTES_MAX {
            return Err(Error::FrameTooLarge);
        }
        //= rfc9113#3.4
        // SETTINGS come first.
        if !self.is_met && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(Error::MissingSettings);
        }
        //= rfc9113#6.10
        // Nothing comes between the frames of a field block.
        match (self.continuing, head.kind) {
            (Some(block), Kind::Continuation) if block.stream == head.stream => {}
            (None, kind) if kind != Kind::Continuation => {}
            _ => return Err(Error::BrokenBlock),
        }
        let is_connections = match head.kind {
            Kind::Settings | Kind::Ping | Kind::GoAway | Kind::PriorityUpdate => true,
            Kind::WindowUpdate | Kind::Unknown => head.stream == 0,
            _ => false,
        };
        if is_connections != (head.stream == 0) {
            return Err(Error::BadStreamId);
        }
        //= rfc9113#6
        // Lengths that a type cannot have. For PRIORITY, a stream error would be enough.
        let is_right = match head.kind {
            Kind::RstStream | Kind::WindowUpdate => head.len == 4,
            Kind::Priority => head.len as usize == PRIORITY_BYTES,
            Kind::Ping => head.len == 8,
            Kind::GoAway => head.len >= 8,
            Kind::PriorityUpdate => head.len >= 4,
            Kind::Settings if head.has(ACK) => head.len == 0,
            Kind::Settings => head.len.is_multiple_of(6),
            _ => true,
        };
        if !is_right {
            return Err(Error::BadFrameLength);
        }
        //= rfc9113#8.4
        // We never allow pushes, and clients cannot make any.
        if head.kind == Kind::PushPromise {
            return Err(Error::UnexpectedFrame);
        }
        Ok(())
    }

    fn payload(
        &mut self,
        frame: &FrameHead,
        rest: &mut &[u8],
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Step, Error> {
        let len = frame.len as usize;
        let step = match rest.split_at_checked(len) {
            Some((payload, tail)) if self.partial.is_empty() => {
                *rest = tail;
                self.state = State::Frame;
                self.frame(frame, payload, head, text)?
            }
            _ => {
                gather(&mut self.partial, len, rest);
                if self.partial.len() < len {
                    return Ok(Step::Wait);
                }
                self.state = State::Frame;
                let payload = mem::take(&mut self.partial);
                let step = self.frame(frame, &payload, head, text);
                self.partial = payload;
                self.partial.clear();
                step?
            }
        };
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(Error::OutputFull);
        }
        Ok(step)
    }

    /// Takes a whole frame.
    fn frame(
        &mut self,
        frame: &FrameHead,
        payload: &[u8],
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Step, Error> {
        match frame.kind {
            Kind::Headers => self.headers(frame, payload, head, text),
            Kind::Continuation => self.continuation(frame, payload, head, text),
            Kind::WindowUpdate => self.window_update(frame.stream, payload),
            Kind::RstStream => self.rst_stream(frame.stream, payload),
            Kind::Settings => self.settings(frame, payload),
            Kind::Ping => self.pinged(frame, payload),
            Kind::GoAway => self.go_away(payload),
            Kind::PriorityUpdate => self.priority_update(payload),
            //= rfc9113#5.3.2
            // The priorities of RFC 7540 are read and not used.
            Kind::Priority => {
                frame::check_priority(frame, payload)?;
                self.floods.priority().map(|()| Step::On)
            }
            Kind::Data | Kind::PushPromise | Kind::Unknown => Ok(Step::On),
        }
    }

    fn headers(
        &mut self,
        frame: &FrameHead,
        payload: &[u8],
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Step, Error> {
        //= rfc9113#5.1.1
        // Clients open streams of odd numbers, and servers none at all.
        if frame.stream.is_multiple_of(2) {
            return Err(Error::BadStreamId);
        }
        let fragment = frame::fragment(frame, payload)?;
        if fragment.len() > self.floods.limits().block_bytes_max as usize {
            return Err(Error::BlockTooLarge);
        }
        let is_end = frame.has(END_STREAM);
        if frame.has(END_HEADERS) {
            return self.section(frame.stream, is_end, fragment, head, text);
        }
        self.block.clear();
        self.block.extend_from_slice(fragment);
        self.continuing = Some(Continuing {
            stream: frame.stream,
            is_end,
            frames: 0,
        });
        Ok(Step::On)
    }

    fn continuation(
        &mut self,
        frame: &FrameHead,
        payload: &[u8],
        head: &mut Head,
        text: &mut Vec<u8>,
    ) -> Result<Step, Error> {
        let Some(mut block) = self.continuing.take() else {
            return Err(Error::BrokenBlock);
        };
        let limits = self.floods.limits();
        block.frames += 1;
        if block.frames > limits.continuations_max {
            return Err(Error::TooManyContinuations);
        }
        if self.block.len() + payload.len() > limits.block_bytes_max as usize {
            return Err(Error::BlockTooLarge);
        }
        self.block.extend_from_slice(payload);
        if !frame.has(END_HEADERS) {
            self.continuing = Some(block);
            return Ok(Step::On);
        }
        let fragment = mem::take(&mut self.block);
        let step = self.section(block.stream, block.is_end, &fragment, head, text);
        self.block = fragment;
        self.block.clear();
        step
    }

    fn window_update(&mut self, id: u32, payload: &[u8]) -> Result<Step, Error> {
        self.floods.window_update()?;
        let by = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        if id == 0 {
            //= rfc9113#6.9
            // Nothing as an increment of the connection's window is an error of the connection.
            if by == 0 {
                return Err(Error::ZeroIncrement);
            }
            if !self.outflow.change(i64::from(by)) {
                return Err(Error::WindowOverflow);
            }
            let is_waited_for = self.stalled > 0 && self.outflow.room() > 0;
            return Ok(opened(None, is_waited_for));
        }
        let Some(key) = self.known(id)? else {
            return Ok(Step::On);
        };
        if by == 0 {
            return self.fail_stream(key, Error::ZeroIncrement).map(Step::Event);
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(Step::On);
        };
        let is_stalled = stream.is_stalled;
        if !stream.outflow.change(i64::from(by)) {
            return self
                .fail_stream(key, Error::WindowOverflow)
                .map(Step::Event);
        }
        let is_open = stream.outflow.room() > 0;
        Ok(opened(Some(key), is_stalled && is_open))
    }

    /// The stream of a frame that may come at any time once a stream was opened; none when it is
    /// gone.
    //= rfc9113#5.1
    // An idle stream can only be opened.
    pub(super) fn known(&self, id: u32) -> Result<Option<StreamKey>, Error> {
        let found = self.streams.find(id);
        if found.is_none() && self.is_idle(id) {
            return Err(Error::IdleStream);
        }
        Ok(found)
    }

    pub(super) fn is_idle(&self, id: u32) -> bool {
        match self.role {
            _ if id.is_multiple_of(2) => true,
            Role::Server => id > self.last_id,
            Role::Client => id >= self.next_id,
        }
    }

    fn rst_stream(&mut self, id: u32, payload: &[u8]) -> Result<Step, Error> {
        let Some(key) = self.known(id)? else {
            // Both sides may end a stream at once.
            if self.role == Role::Server {
                self.floods.idle()?;
            }
            return Ok(Step::On);
        };
        let code = Code(frame::number(payload).unwrap_or_default());
        let is_sent = self.is_sent(key);
        self.remove(key);
        if !is_sent {
            self.count_reset()?;
        }
        //= rfc9113#8.7
        // A refused stream was not processed: its request may be sent again.
        Ok(Step::Event(Event::Reset {
            stream: key,
            code,
            is_unprocessed: code == Code::REFUSED_STREAM,
        }))
    }

    fn settings(&mut self, frame: &FrameHead, payload: &[u8]) -> Result<Step, Error> {
        if frame.has(ACK) {
            if mem::replace(&mut self.is_acked, true) {
                return Err(Error::UnexpectedAck);
            }
            return Ok(Step::Event(Event::SettingsAcked));
        }
        self.floods.settings()?;
        let (before, mut peer) = (self.peer, self.peer);
        if !self.is_met {
            //= rfc9113#6.5.2
            // Without a limit in the first SETTINGS there is none.
            peer.streams_max = u32::MAX;
        }
        let mut rest = payload;
        while let Some((&[i0, i1, v0, v1, v2, v3], tail)) = rest.split_first_chunk::<6>() {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            peer.take(u16::from_be_bytes([i0, i1]), value, self.role)?;
            rest = tail;
        }
        self.peer = peer;
        self.is_met = true;
        if peer.table_bytes != before.table_bytes {
            self.encoder.set_table_bytes_max(peer.table_bytes);
        }
        //= rfc9113#6.9.2
        // A new initial window changes those of all streams by the difference.
        let by = i64::from(peer.window) - i64::from(before.window);
        for stream in self.streams.iter_mut().filter(|_| by != 0) {
            if !stream.outflow.change(by) {
                return Err(Error::WindowOverflow);
            }
        }
        self.queue(Kind::Settings, ACK, 0, &[]);
        Ok(Step::Event(Event::SettingsChanged))
    }

    fn pinged(&mut self, frame: &FrameHead, payload: &[u8]) -> Result<Step, Error> {
        let payload = payload.first_chunk::<8>().copied().unwrap_or_default();
        if !frame.has(ACK) {
            self.floods.ping()?;
            self.queue_ping(ACK, payload);
            return Ok(Step::On);
        }
        if payload == SHUTDOWN_PING && self.leaving == Leaving::Announced {
            self.stop();
            return Ok(Step::On);
        }
        self.floods.idle()?;
        Ok(Step::Event(Event::PingAck { payload }))
    }

    fn go_away(&mut self, payload: &[u8]) -> Result<Step, Error> {
        self.floods.idle()?;
        let last = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        let code = payload.get(4..).and_then(frame::number).unwrap_or_default();
        //= rfc9113#6.8
        // The last stream may come down with a later GOAWAY, never up.
        let last = self.peer_last.map_or(last, |before| before.min(last));
        self.peer_last = Some(last);
        self.is_swept = self.role == Role::Server;
        Ok(Step::Event(Event::GoAway {
            last_stream: last,
            code: Code(code),
        }))
    }

    /// Reports a stream that the server will not answer, until there is none left.
    //= rfc9113#6.8
    // Streams above the last were not processed: their requests may be sent again.
    fn sweep(&mut self) -> Option<Event> {
        let last = self.peer_last.unwrap_or(u32::MAX);
        let first = self
            .streams
            .iter()
            .map(|(key, _)| key)
            .find(|key| key.id() > last);
        let Some(stream) = first else {
            self.is_swept = true;
            return None;
        };
        self.remove(stream);
        Some(Event::Reset {
            stream,
            code: Code::REFUSED_STREAM,
            is_unprocessed: true,
        })
    }

    //= rfc9218#7.1
    // For a stream that is open; of others nothing is kept.
    fn priority_update(&mut self, payload: &[u8]) -> Result<Step, Error> {
        if self.role == Role::Client {
            return Err(Error::UnexpectedFrame);
        }
        self.floods.priority()?;
        let id = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        if id.is_multiple_of(2) {
            return Err(Error::BadStreamId);
        }
        self.unsaid = Priority::default();
        if let Some(key) = self.streams.find(id)
            && let Some(stream) = self.streams.get_mut(key)
            && stream.sending != Half::Done
        {
            stream.priority = Priority::parse(payload.get(4..).unwrap_or_default());
            return Ok(Step::Event(Event::Prioritized { stream: key }));
        }
        Ok(Step::On)
    }
}

/// Says that a window has opened, if data waits for that.
fn opened(stream: Option<StreamKey>, is_waited_for: bool) -> Step {
    match is_waited_for {
        true => Step::Event(Event::WindowOpened { stream }),
        false => Step::On,
    }
}

/// Moves input until `to` is `len` bytes long.
fn gather(to: &mut Vec<u8>, len: usize, rest: &mut &[u8]) {
    let missing = len.saturating_sub(to.len()).min(rest.len());
    let (piece, tail) = rest.split_at_checked(missing).unwrap_or_default();
    to.extend_from_slice(piece);
    *rest = tail;
}
