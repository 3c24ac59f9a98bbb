//! Heads, data and ends of ours.

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Sink, Trailers};

use super::{Connection, Role};
use crate::code::ErrorCode;
use crate::config::TINY_DATA_BYTES;
use crate::encode::{BlockWriter, Framing};
use crate::error::Error;
use crate::frame::{END_HEADERS, END_STREAM, FRAME_HEADER_BYTES, FrameHeader, FrameType};
use crate::stream::{HalfState, NO_LENGTH, Stream, StreamKey};

impl Connection {
    /// Opens a stream with the head of a request. `block` is what the spans of `head` are over; the
    /// fields of one hop need not have been removed, they are never written.
    ///
    /// # Errors
    /// [`Error::CannotOpen`] unless [`Connection::can_open`].
    pub fn open<S: Sink>(
        &mut self,
        sink: &mut S,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
    ) -> Result<StreamKey, Error> {
        if !self.can_open() {
            return Err(Error::CannotOpen);
        }
        let id = self.next_id;
        self.next_id += 2;
        let is_https = self.config.is_https;
        self.begin_block()
            .request(block, head, edits, framing, is_https);
        let method = match framing.protocol {
            Some(_) => Method::Connect,
            None => head.method,
        };
        let is_end =
            framing.is_end || (framing.body == BodyKind::None && method != Method::Connect);
        let mut stream = self.new_stream(id, method);
        begin_body(&mut stream, framing.body, is_end);
        let key = self.streams.insert(stream);
        self.floods.stream();
        self.put_section(sink, id, is_end);
        Ok(key)
    }

    /// Begins the final answer with the status and the fields of `head`. Says whether our message
    /// has ended with that, because the framing says so or because such an answer has no body.
    ///
    /// # Errors
    /// [`Error::StreamGone`]; [`Error::OutOfOrder`] when no final answer is due, or for a status
    /// under 200.
    pub fn respond<S: Sink>(
        &mut self,
        sink: &mut S,
        key: StreamKey,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
    ) -> Result<bool, Error> {
        if head.status < 200 {
            return Err(Error::OutOfOrder);
        }
        let method = self.write_answer(key, block, head, edits, framing)?;
        let is_tunnel = method == Method::Connect && matches!(head.status, 200..=299);
        let is_end = framing.is_end
            || (!is_tunnel && (framing.body == BodyKind::None || has_no_body(head.status, method)));
        if let Some(stream) = self.streams.get_mut(key) {
            begin_body(stream, framing.body, is_end);
            //= rfc9218#8
            // Whoever makes the answer may know better than the client; what it does not speak of stays.
            if head.may_have(FieldId::Other)
                && let Some(field) = head.find_name(b"priority", block)
            {
                stream.priority = stream.priority.merged(field.value.get(block));
            }
        }
        self.put_section(sink, key.id(), is_end);
        if is_end {
            self.end_sending(key);
        }
        Ok(is_end)
    }

    /// Passes an interim answer (1xx) on.
    ///
    /// # Errors
    /// [`Error::StreamGone`]; [`Error::OutOfOrder`] when no final answer is due, for 101 and what is
    /// no 1xx.
    pub fn send_interim<S: Sink>(
        &mut self,
        sink: &mut S,
        key: StreamKey,
        block: &[u8],
        head: &Head,
        edits: &Edits,
    ) -> Result<(), Error> {
        if !matches!(head.status, 100 | 102..=199) {
            return Err(Error::OutOfOrder);
        }
        self.write_answer(key, block, head, edits, &Framing::default())?;
        self.put_section(sink, key.id(), false);
        Ok(())
    }

    /// Writes the block of an answer; says what was asked.
    fn write_answer(
        &mut self,
        key: StreamKey,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
    ) -> Result<Method, Error> {
        let stream = self.streams.get(key).ok_or(Error::StreamGone)?;
        if self.role != Role::Server || stream.sending != HalfState::Head {
            return Err(Error::OutOfOrder);
        }
        let method = stream.method;
        self.begin_block()
            .response(block, head, edits, framing, method);
        Ok(method)
    }

    /// Says whether windows let any data of a stream through now. Unlike [`Connection::data_room`] it may be asked
    /// without having something to send.
    #[must_use]
    pub fn is_send_blocked(&self, key: StreamKey) -> bool {
        let room = |stream: &Stream| stream.send_window.room().min(self.send_window.room());
        self.streams.get(key).map_or(0, room) == 0
    }

    /// Says whether the window of a stream by itself would let data through, whatever that of the connection does.
    #[must_use]
    pub fn has_stream_window(&self, key: StreamKey) -> bool {
        self.streams
            .get(key)
            .is_some_and(|stream| stream.send_window.room() > 0)
    }

    /// How many bytes of data may be sent on a stream now, in one frame. When that is 0 the stream
    /// waits: [`Event::WindowOpened`](crate::Event::WindowOpened) or
    /// [`Event::SettingsChanged`](crate::Event::SettingsChanged) will tell when there may be room.
    /// To be asked only when there is something to send.
    #[inline]
    pub fn data_room(&mut self, key: StreamKey) -> usize {
        let frame = self.peer.frame_bytes_max as usize;
        let connection = self.send_window.room();
        let Some(stream) = self.streams.get_mut(key) else {
            return 0;
        };
        let room = stream.send_window.room().min(connection).min(frame);
        if room == 0 && !stream.is_stalled {
            stream.is_stalled = true;
            self.stalled += 1;
        }
        room
    }

    /// Announces `len` bytes of data, which may end the message, and returns what goes before them.
    /// An empty piece that does not end anything is no frame that is worth sending.
    ///
    /// What waits in [`Connection::take_output`] need not be sent before it.
    ///
    /// # Errors
    /// Nothing is counted then. [`Error::StreamGone`]; [`Error::OutOfOrder`] outside a body;
    /// [`Error::NoRoom`] beyond [`Connection::data_room`]; [`Error::BodyOverrun`] beyond the length
    /// announced and [`Error::BodyUnderrun`] for an end before it: the stream has to be reset.
    pub fn data_frame(
        &mut self,
        key: StreamKey,
        len: usize,
        is_end: bool,
    ) -> Result<[u8; FRAME_HEADER_BYTES], Error> {
        let stream = self.streams.get_mut(key).ok_or(Error::StreamGone)?;
        if stream.sending != HalfState::Body || (len == 0 && !is_end) {
            return Err(Error::OutOfOrder);
        }
        let window = stream.send_window.room().min(self.send_window.room());
        if len > window.min(self.peer.frame_bytes_max as usize) {
            return Err(Error::NoRoom);
        }
        //= rfc9113#8.1.1
        // What was announced is what is sent, or the message does not end.
        if stream.to_send != NO_LENGTH {
            let to_send = stream.to_send.checked_sub(len as u64);
            stream.to_send = match to_send.ok_or(Error::BodyOverrun)? {
                1.. if is_end => return Err(Error::BodyUnderrun),
                left => left,
            };
        }
        stream.send_window.send(len);
        self.send_window.send(len);
        let is_cut_small = len == window && !is_end && len < TINY_DATA_BYTES as usize;
        self.floods.data_sent(is_cut_small);
        if stream.is_stalled {
            stream.is_stalled = false;
            self.stalled -= self.stalled.min(1);
        }
        if is_end {
            self.end_sending(key);
        }
        let head = FrameHeader {
            len: len as u32,
            kind: FrameType::Data,
            flags: if is_end { END_STREAM } else { 0 },
            stream: key.id(),
        };
        Ok(head.bytes())
    }

    /// Ends our message with an empty DATA frame, for which no window is needed.
    ///
    /// # Errors
    /// As [`Connection::data_frame`].
    pub fn end<S: Sink>(&mut self, sink: &mut S, key: StreamKey) -> Result<(), Error> {
        let frame = self.data_frame(key, 0, true)?;
        self.take_output(sink);
        sink.put(&frame);
        Ok(())
    }

    /// Ends our message with trailers. Without any, as [`Connection::end`].
    ///
    /// # Errors
    /// As [`Connection::data_frame`].
    pub fn send_trailers<S: Sink>(
        &mut self,
        sink: &mut S,
        key: StreamKey,
        trailers: &Trailers,
    ) -> Result<(), Error> {
        if trailers.is_empty() {
            return self.end(sink, key);
        }
        let stream = self.streams.get(key).ok_or(Error::StreamGone)?;
        match (stream.sending, stream.to_send) {
            (HalfState::Body, 0 | NO_LENGTH) => {}
            (HalfState::Body, _) => return Err(Error::BodyUnderrun),
            _ => return Err(Error::OutOfOrder),
        }
        self.begin_block().trailers(trailers);
        self.put_section(sink, key.id(), true);
        self.end_sending(key);
        Ok(())
    }

    /// Ends a stream in both directions at once. One that is gone already stays so.
    pub fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.is_open(key) {
            self.queue_reset(key.id(), code);
            self.remove(key);
        }
    }

    /// Lets go of a stream that the caller has nothing more to do with, however far it is: one that
    /// has not ended in both directions is reset. A request of which a server does not want the rest
    /// after a whole answer is told NO_ERROR, anything else CANCEL.
    //= rfc9113#8.1
    // After a whole answer a server may stop the request with NO_ERROR.
    pub fn release(&mut self, key: StreamKey) {
        let code = if self.role == Role::Server && self.is_sent(key) {
            ErrorCode::NO_ERROR
        } else {
            ErrorCode::CANCEL
        };
        self.reset(key, code);
    }

    /// Our message has ended.
    fn end_sending(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sending = HalfState::Done;
        }
        self.floods.answered();
        self.settle(key);
    }

    /// Begins a field block in place of the last one.
    fn begin_block(&mut self) -> BlockWriter<'_> {
        self.encoded.clear();
        BlockWriter {
            encoder: &mut self.encoder,
            out: &mut self.encoded,
            target: &mut self.target,
        }
    }

    /// Sends the block that was written, in as many frames as it takes.
    //= rfc9113#6.10
    // HEADERS, then CONTINUATION, with nothing between them.
    fn put_section<S: Sink>(&mut self, sink: &mut S, id: u32, is_end: bool) {
        self.take_output(sink);
        let mut rest = self.encoded.as_slice();
        let (mut kind, mut flags) = (FrameType::Headers, if is_end { END_STREAM } else { 0 });
        loop {
            let len = rest.len().min(self.peer.frame_bytes_max as usize);
            let (fragment, tail) = rest.split_at_checked(len).unwrap_or_default();
            if tail.is_empty() {
                flags |= END_HEADERS;
            }
            let head = FrameHeader {
                len: len as u32,
                kind,
                flags,
                stream: id,
            };
            sink.put(&head.bytes());
            sink.put(fragment);
            if tail.is_empty() {
                return;
            }
            (rest, kind, flags) = (tail, FrameType::Continuation, 0);
        }
    }
}

/// Notes how long our message will be.
fn begin_body(stream: &mut Stream, body: BodyKind, is_end: bool) {
    stream.sending = if is_end {
        HalfState::Done
    } else {
        HalfState::Body
    };
    stream.to_send = match body {
        BodyKind::Length(length) => length,
        _ => NO_LENGTH,
    };
}
