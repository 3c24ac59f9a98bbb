//! Outgoing heads, data and ends.

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Sink, Trailers};

use super::{Connection, Role};
use crate::code::ErrorCode;
use crate::config::TINY_DATA_BYTES;
use crate::encode::{BlockWriter, Framing};
use crate::error::Error;
use crate::frame::{END_HEADERS, END_STREAM, FRAME_HEADER_BYTES, FrameHeader, FrameType};
use crate::stream::{HalfState, Stream, StreamKey, UNKNOWN_LENGTH};

impl Connection {
    /// Opens a stream with the head of a request. `block` holds the bytes that the spans of `head`
    /// point into. Connection-specific fields are never written, so the caller need not remove
    /// them.
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
        self.floods.count_stream();
        self.put_section(sink, id, is_end);
        Ok(key)
    }

    /// Begins the final response with the status and fields of `head`. Returns whether this ends
    /// the message, because the framing says so or because the response cannot have a body.
    ///
    /// # Errors
    /// [`Error::StreamGone`]; [`Error::OutOfOrder`] if no final response is due, or for a status
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
            // The origin may know the priority better than the client. Members that it does not
            // state stay.
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

    /// Sends an interim response (1xx).
    ///
    /// # Errors
    /// [`Error::StreamGone`]; [`Error::OutOfOrder`] if no final response is due, for 101, and for a
    /// status outside 1xx.
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

    /// Encodes the field block of a response. Returns the method of the request.
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

    /// Returns whether a window blocks the data of a stream. Unlike [`Connection::data_room`], it
    /// may be called without data to send.
    #[must_use]
    pub fn is_send_blocked(&self, key: StreamKey) -> bool {
        let room = |stream: &Stream| stream.send_window.room().min(self.send_window.room());
        self.streams.get(key).map_or(0, room) == 0
    }

    /// Returns whether the stream's own window has room, whatever the connection's window says.
    #[must_use]
    pub fn has_stream_window(&self, key: StreamKey) -> bool {
        self.streams
            .get(key)
            .is_some_and(|stream| stream.send_window.room() > 0)
    }

    /// How many bytes of data may be sent on a stream now, in one frame. If it is 0, the stream
    /// waits for [`Event::WindowOpened`](crate::Event::WindowOpened) or
    /// [`Event::SettingsChanged`](crate::Event::SettingsChanged). Call it only with data to send.
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

    /// Announces `len` bytes of data, which may end the message, and returns the frame header to
    /// send before them. An empty piece must end the message.
    ///
    /// Output that waits in [`Connection::take_output`] need not be sent first.
    ///
    /// # Errors
    /// Nothing is counted then. [`Error::StreamGone`]; [`Error::OutOfOrder`] outside a body;
    /// [`Error::NoRoom`] for more than [`Connection::data_room`]. [`Error::BodyOverrun`] beyond the
    /// announced length and [`Error::BodyUnderrun`] for an end before it: the caller must reset the
    /// stream.
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
        // The message can only end at its announced length.
        if stream.bytes_to_send != UNKNOWN_LENGTH {
            let bytes_to_send = stream.bytes_to_send.checked_sub(len as u64);
            stream.bytes_to_send = match bytes_to_send.ok_or(Error::BodyOverrun)? {
                1.. if is_end => return Err(Error::BodyUnderrun),
                left => left,
            };
        }
        stream.send_window.send(len);
        self.send_window.send(len);
        let is_cut_small = len == window && !is_end && len < TINY_DATA_BYTES as usize;
        self.floods.count_data_sent(is_cut_small);
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

    /// Ends the message with an empty DATA frame, which needs no window.
    ///
    /// # Errors
    /// As [`Connection::data_frame`].
    pub fn end<S: Sink>(&mut self, sink: &mut S, key: StreamKey) -> Result<(), Error> {
        let frame = self.data_frame(key, 0, true)?;
        self.take_output(sink);
        sink.put(&frame);
        Ok(())
    }

    /// Ends the message with trailers, or as [`Connection::end`] if there are none.
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
        match (stream.sending, stream.bytes_to_send) {
            (HalfState::Body, 0 | UNKNOWN_LENGTH) => {}
            (HalfState::Body, _) => return Err(Error::BodyUnderrun),
            _ => return Err(Error::OutOfOrder),
        }
        self.begin_block().trailers(trailers);
        self.put_section(sink, key.id(), true);
        self.end_sending(key);
        Ok(())
    }

    /// Resets a stream. Does nothing if the stream is gone.
    pub fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.is_open(key) {
            self.queue_reset(key.id(), code);
            self.remove(key);
        }
    }

    /// Ends the caller's use of a stream, in any state. Resets a stream that has not ended in both
    /// directions: with NO_ERROR if a server has sent its whole response and does not want
    /// the rest of the request, otherwise with CANCEL.
    //= rfc9113#8.1
    // After a whole response, a server may stop the request with NO_ERROR.
    pub fn release(&mut self, key: StreamKey) {
        let code = if self.role == Role::Server && self.is_sent(key) {
            ErrorCode::NO_ERROR
        } else {
            ErrorCode::CANCEL
        };
        self.reset(key, code);
    }

    /// Ends this side's message.
    fn end_sending(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sending = HalfState::Done;
        }
        self.floods.count_response();
        self.remove_if_done(key);
    }

    /// Begins a field block, which replaces the last one.
    fn begin_block(&mut self) -> BlockWriter<'_> {
        self.encoded.clear();
        BlockWriter {
            encoder: &mut self.encoder,
            out: &mut self.encoded,
            target: &mut self.target,
        }
    }

    /// Sends the encoded block in as many frames as necessary.
    //= rfc9113#6.10
    // HEADERS and then CONTINUATION, without other frames between them.
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

/// Records the length of this side's message.
fn begin_body(stream: &mut Stream, body: BodyKind, is_end: bool) {
    stream.sending = if is_end {
        HalfState::Done
    } else {
        HalfState::Body
    };
    stream.bytes_to_send = match body {
        BodyKind::Length(length) => length,
        _ => UNKNOWN_LENGTH,
    };
}
