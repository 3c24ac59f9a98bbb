//! The order of frames, and the frames that concern the connection.

use alloc::vec::Vec;
use core::mem;

use weir_proto_h1::HTTP2_PREFACE;

use super::sections::MessageBuffer;
use super::{Connection, ReadState, Role, SHUTDOWN_PING, Shutdown, UnfinishedBlock};
use crate::code::ErrorCode;
use crate::config::{FRAME_BYTES_MAX, OUTPUT_BYTES_MAX};
use crate::error::Error;
use crate::event::{Event, Received};
use crate::frame::{
    self, ACK, END_HEADERS, END_STREAM, FRAME_HEADER_BYTES, FrameHeader, FrameType, PRIORITY_BYTES,
};
use crate::priority::Priority;
use crate::stream::{HalfState, StreamKey};

/// The result of a step.
pub(super) enum Progress {
    /// The step needs more input.
    NeedMore,
    /// Nothing that concerns the caller has happened.
    Continue,
    Event(Event),
}

impl Connection {
    /// Makes steps until a frame ends, an event occurs or the input is used up.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Received, Error> {
        let mut rest = input;
        loop {
            if !self.has_reported_unprocessed
                && let Some(event) = self.report_unprocessed()
            {
                return Ok(Received {
                    consumed: input.len() - rest.len(),
                    event,
                });
            }
            let step = match self.state {
                ReadState::Frame => self.frame_header(&mut rest)?,
                ReadState::Payload(frame) => self.payload(&frame, &mut rest, buffer)?,
                ReadState::Data(data) => self.data(data, &mut rest, input.len()),
                ReadState::Padding(frame, key) => self.padding(&frame, key, &mut rest)?,
                ReadState::Skip(left) => self.skip(left, &mut rest),
                ReadState::Preface(taken) => self.preface(taken, &mut rest)?,
                ReadState::Failed(error) => return Err(error),
            };
            let event = match step {
                Progress::Continue if matches!(self.state, ReadState::Frame) => Event::Handled,
                Progress::Continue => continue,
                Progress::NeedMore => Event::NeedMore,
                Progress::Event(event) => event,
            };
            return Ok(Received {
                consumed: input.len() - rest.len(),
                event,
            });
        }
    }

    fn preface(&mut self, taken: u8, rest: &mut &[u8]) -> Result<Progress, Error> {
        let wanted = HTTP2_PREFACE.get(usize::from(taken)..).unwrap_or_default();
        let len = wanted.len().min(rest.len());
        if rest.get(..len) != wanted.get(..len) {
            return Err(Error::BadPreface);
        }
        *rest = rest.get(len..).unwrap_or_default();
        if len < wanted.len() {
            self.state = ReadState::Preface(taken + len as u8);
            return Ok(Progress::NeedMore);
        }
        self.state = ReadState::Frame;
        Ok(Progress::Continue)
    }

    fn frame_header(&mut self, rest: &mut &[u8]) -> Result<Progress, Error> {
        let head = match rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            Some((bytes, tail)) if self.partial_frame.is_empty() => {
                *rest = tail;
                FrameHeader::read(bytes)
            }
            _ => {
                buffer_input(&mut self.partial_frame, FRAME_HEADER_BYTES, rest);
                let Some(bytes) = self.partial_frame.first_chunk::<FRAME_HEADER_BYTES>() else {
                    return Ok(Progress::NeedMore);
                };
                let head = FrameHeader::read(bytes);
                self.partial_frame.clear();
                head
            }
        };
        self.check(&head)?;
        match head.kind {
            FrameType::Data => return self.begin_data(&head),
            FrameType::Unknown => {
                self.floods.count_unknown()?;
                self.state = ReadState::Skip(head.len);
            }
            _ => self.state = ReadState::Payload(head),
        }
        Ok(Progress::Continue)
    }

    /// Checks a frame header before the payload arrives.
    fn check(&self, head: &FrameHeader) -> Result<(), Error> {
        //= rfc9113#4.2
        // A frame cannot be larger than announced.
        if head.len > FRAME_BYTES_MAX {
            return Err(Error::FrameTooLarge);
        }
        //= rfc9113#3.4
        // SETTINGS come first.
        if !self.has_peer_settings && (head.kind != FrameType::Settings || head.has(ACK)) {
            return Err(Error::MissingSettings);
        }
        //= rfc9113#6.10
        // No other frame may interrupt a field block.
        match (self.unfinished_block, head.kind) {
            (Some(block), FrameType::Continuation) if block.stream == head.stream => {}
            (None, kind) if kind != FrameType::Continuation => {}
            _ => return Err(Error::BrokenBlock),
        }
        let is_connections = match head.kind {
            FrameType::Settings
            | FrameType::Ping
            | FrameType::GoAway
            | FrameType::PriorityUpdate => true,
            FrameType::WindowUpdate | FrameType::Unknown => head.stream == 0,
            _ => false,
        };
        if is_connections != (head.stream == 0) {
            return Err(Error::BadStreamId);
        }
        //= rfc9113#6
        // The length must fit the type. For PRIORITY, a stream error would be enough.
        let is_right = match head.kind {
            FrameType::RstStream | FrameType::WindowUpdate => head.len == 4,
            FrameType::Priority => head.len as usize == PRIORITY_BYTES,
            FrameType::Ping => head.len == 8,
            FrameType::GoAway => head.len >= 8,
            FrameType::PriorityUpdate => head.len >= 4,
            FrameType::Settings if head.has(ACK) => head.len == 0,
            FrameType::Settings => head.len.is_multiple_of(6),
            _ => true,
        };
        if !is_right {
            return Err(Error::BadFrameLength);
        }
        //= rfc9113#8.4
        // This side never enables push, and a client cannot push.
        if head.kind == FrameType::PushPromise {
            return Err(Error::UnexpectedFrame);
        }
        Ok(())
    }

    fn payload(
        &mut self,
        frame: &FrameHeader,
        rest: &mut &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        let len = frame.len as usize;
        let step = match rest.split_at_checked(len) {
            Some((payload, tail)) if self.partial_frame.is_empty() => {
                *rest = tail;
                self.state = ReadState::Frame;
                self.frame(frame, payload, buffer)?
            }
            _ => {
                buffer_input(&mut self.partial_frame, len, rest);
                if self.partial_frame.len() < len {
                    return Ok(Progress::NeedMore);
                }
                self.state = ReadState::Frame;
                let payload = mem::take(&mut self.partial_frame);
                let step = self.frame(frame, &payload, buffer);
                self.partial_frame = payload;
                self.partial_frame.clear();
                step?
            }
        };
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(Error::OutputFull);
        }
        Ok(step)
    }

    /// Handles a whole frame.
    fn frame(
        &mut self,
        frame: &FrameHeader,
        payload: &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        match frame.kind {
            FrameType::Headers => self.headers(frame, payload, buffer),
            FrameType::Continuation => self.continuation(frame, payload, buffer),
            FrameType::WindowUpdate => self.window_update(frame.stream, payload),
            FrameType::RstStream => self.rst_stream(frame.stream, payload),
            FrameType::Settings => self.settings(frame, payload),
            FrameType::Ping => self.ping_frame(frame, payload),
            FrameType::GoAway => self.go_away(payload),
            FrameType::PriorityUpdate => self.priority_update(payload),
            //= rfc9113#5.3.2
            // Priorities of RFC 7540 are validated and not used.
            FrameType::Priority => {
                frame::check_priority(frame, payload)?;
                self.floods.count_priority().map(|()| Progress::Continue)
            }
            FrameType::Data | FrameType::PushPromise | FrameType::Unknown => Ok(Progress::Continue),
        }
    }

    fn headers(
        &mut self,
        frame: &FrameHeader,
        payload: &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        //= rfc9113#5.1.1
        // Clients open streams with odd numbers. Servers open none.
        if frame.stream.is_multiple_of(2) {
            return Err(Error::BadStreamId);
        }
        let fragment = frame::fragment(frame, payload)?;
        if fragment.len() > self.floods.limits().block_bytes_max as usize {
            return Err(Error::BlockTooLarge);
        }
        let is_end = frame.has(END_STREAM);
        if frame.has(END_HEADERS) {
            return self.section(frame.stream, is_end, fragment, buffer);
        }
        self.partial_block.clear();
        self.partial_block.extend_from_slice(fragment);
        self.unfinished_block = Some(UnfinishedBlock {
            stream: frame.stream,
            is_end,
            frames: 0,
        });
        Ok(Progress::Continue)
    }

    fn continuation(
        &mut self,
        frame: &FrameHeader,
        payload: &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        let Some(mut block) = self.unfinished_block.take() else {
            return Err(Error::BrokenBlock);
        };
        let limits = self.floods.limits();
        block.frames += 1;
        if block.frames > limits.continuations_max {
            return Err(Error::TooManyContinuations);
        }
        if self.partial_block.len() + payload.len() > limits.block_bytes_max as usize {
            return Err(Error::BlockTooLarge);
        }
        self.partial_block.extend_from_slice(payload);
        if !frame.has(END_HEADERS) {
            self.unfinished_block = Some(block);
            return Ok(Progress::Continue);
        }
        let fragment = mem::take(&mut self.partial_block);
        let step = self.section(block.stream, block.is_end, &fragment, buffer);
        self.partial_block = fragment;
        self.partial_block.clear();
        step
    }

    fn window_update(&mut self, id: u32, payload: &[u8]) -> Result<Progress, Error> {
        self.floods.count_window_update()?;
        let by = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        if id == 0 {
            //= rfc9113#6.9
            // An increment of 0 for the connection's window is a connection error.
            if by == 0 {
                return Err(Error::ZeroIncrement);
            }
            if !self.send_window.change(i64::from(by)) {
                return Err(Error::WindowOverflow);
            }
            let is_waited_for = self.stalled > 0 && self.send_window.room() > 0;
            return Ok(report_opened(None, is_waited_for));
        }
        let Some(key) = self.find_opened(id)? else {
            return Ok(Progress::Continue);
        };
        if by == 0 {
            return self
                .fail_stream(key, Error::ZeroIncrement)
                .map(Progress::Event);
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(Progress::Continue);
        };
        let is_stalled = stream.is_stalled;
        if !stream.send_window.change(i64::from(by)) {
            return self
                .fail_stream(key, Error::WindowOverflow)
                .map(Progress::Event);
        }
        let is_open = stream.send_window.room() > 0;
        Ok(report_opened(Some(key), is_stalled && is_open))
    }

    /// The stream of a frame that may arrive at any time after the stream was opened; `None` if the
    /// stream is gone.
    //= rfc9113#5.1
    // The only frame that an idle stream may get is the one that opens it.
    pub(super) fn find_opened(&self, id: u32) -> Result<Option<StreamKey>, Error> {
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

    fn rst_stream(&mut self, id: u32, payload: &[u8]) -> Result<Progress, Error> {
        let Some(key) = self.find_opened(id)? else {
            // Both sides may reset a stream at the same time.
            if self.role == Role::Server {
                self.floods.count_idle()?;
            }
            return Ok(Progress::Continue);
        };
        let code = ErrorCode(frame::number(payload).unwrap_or_default());
        let is_sent = self.is_sent(key);
        self.remove(key);
        if !is_sent {
            self.count_reset()?;
        }
        //= rfc9113#8.7
        // A refused stream was not processed, so its request may be repeated.
        Ok(Progress::Event(Event::Reset {
            stream: key,
            code,
            is_unprocessed: code == ErrorCode::REFUSED_STREAM,
        }))
    }

    fn settings(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<Progress, Error> {
        if frame.has(ACK) {
            if mem::replace(&mut self.is_acknowledged, true) {
                return Err(Error::UnexpectedAck);
            }
            return Ok(Progress::Event(Event::SettingsAcked));
        }
        self.floods.count_settings()?;
        let (before, mut peer) = (self.peer, self.peer);
        if !self.has_peer_settings {
            //= rfc9113#6.5.2
            // Without a limit in the first SETTINGS, there is none.
            peer.streams_max = u32::MAX;
        }
        let mut rest = payload;
        while let Some((&[i0, i1, v0, v1, v2, v3], tail)) = rest.split_first_chunk::<6>() {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            peer.take(u16::from_be_bytes([i0, i1]), value, self.role)?;
            rest = tail;
        }
        self.peer = peer;
        self.has_peer_settings = true;
        if peer.table_bytes != before.table_bytes {
            self.encoder.set_table_bytes_max(peer.table_bytes);
        }
        //= rfc9113#6.9.2
        // A new initial window changes all stream windows by the difference.
        let by = i64::from(peer.window) - i64::from(before.window);
        for stream in self.streams.iter_mut().filter(|_| by != 0) {
            if !stream.send_window.change(by) {
                return Err(Error::WindowOverflow);
            }
        }
        self.queue(FrameType::Settings, ACK, 0, &[]);
        Ok(Progress::Event(Event::SettingsChanged))
    }

    fn ping_frame(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<Progress, Error> {
        let payload = payload.first_chunk::<8>().copied().unwrap_or_default();
        if !frame.has(ACK) {
            self.floods.count_ping()?;
            self.queue_ping(ACK, payload);
            return Ok(Progress::Continue);
        }
        if payload == SHUTDOWN_PING && self.shutdown == Shutdown::Announced {
            self.stop();
            return Ok(Progress::Continue);
        }
        self.floods.count_idle()?;
        Ok(Progress::Event(Event::PingAck { payload }))
    }

    fn go_away(&mut self, payload: &[u8]) -> Result<Progress, Error> {
        self.floods.count_idle()?;
        let last = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        let code = payload.get(4..).and_then(frame::number).unwrap_or_default();
        //= rfc9113#6.8
        // A later GOAWAY may lower the last stream, but not raise it.
        let last = self.peer_last_id.map_or(last, |before| before.min(last));
        self.peer_last_id = Some(last);
        self.has_reported_unprocessed = self.role == Role::Server;
        Ok(Progress::Event(Event::GoAway {
            last_stream: last,
            code: ErrorCode(code),
        }))
    }

    /// Reports the next stream that the server will not respond to.
    //= rfc9113#6.8
    // Streams after the last were not processed, so their requests may be repeated.
    fn report_unprocessed(&mut self) -> Option<Event> {
        let last = self.peer_last_id.unwrap_or(u32::MAX);
        let first = self
            .streams
            .iter()
            .map(|(key, _)| key)
            .find(|key| key.id() > last);
        let Some(stream) = first else {
            self.has_reported_unprocessed = true;
            return None;
        };
        self.remove(stream);
        Some(Event::Reset {
            stream,
            code: ErrorCode::REFUSED_STREAM,
            is_unprocessed: true,
        })
    }

    //= rfc9218#7.1
    // Only priorities of open streams are kept.
    fn priority_update(&mut self, payload: &[u8]) -> Result<Progress, Error> {
        if self.role == Role::Client {
            return Err(Error::UnexpectedFrame);
        }
        self.floods.count_priority()?;
        let id = frame::number(payload).unwrap_or_default() & 0x7fff_ffff;
        if id.is_multiple_of(2) {
            return Err(Error::BadStreamId);
        }
        self.default_priority = Priority::default();
        if let Some(key) = self.streams.find(id)
            && let Some(stream) = self.streams.get_mut(key)
            && stream.sending != HalfState::Done
        {
            stream.priority = Priority::parse(payload.get(4..).unwrap_or_default());
            return Ok(Progress::Event(Event::Prioritized { stream: key }));
        }
        Ok(Progress::Continue)
    }
}

/// Reports an opened window if data waits for it.
fn report_opened(stream: Option<StreamKey>, is_waited_for: bool) -> Progress {
    match is_waited_for {
        true => Progress::Event(Event::WindowOpened { stream }),
        false => Progress::Continue,
    }
}

/// Moves bytes of the input until `to` has `len` bytes.
fn buffer_input(to: &mut Vec<u8>, len: usize, rest: &mut &[u8]) {
    let missing = len.saturating_sub(to.len()).min(rest.len());
    let (piece, tail) = rest.split_at_checked(missing).unwrap_or_default();
    to.extend_from_slice(piece);
    *rest = tail;
}
