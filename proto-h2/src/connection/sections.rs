//! Turns field blocks into events: heads and trailers.

use alloc::vec::Vec;

use weir_proto_h1::{BodyKind, Head, Method, Request};

use super::receive::Progress;
use super::{Connection, Role, Shutdown};
use crate::config::INTERIM_MAX;
use crate::error::Error;
use crate::event::Event;
use crate::flow::{ReceiveWindow, SendWindow};
use crate::hpack::BlockOutcome;
use crate::message::{FieldSection, SectionKind};
use crate::priority::Priority;
use crate::stream::{HalfState, Stream, StreamKey, UNKNOWN_LENGTH};

/// The caller's buffers for heads and trailers.
pub(super) struct MessageBuffer<'b> {
    pub(super) head: &'b mut Head,
    /// The bytes that the spans of `head` point into.
    pub(super) text: &'b mut Vec<u8>,
}

/// A field section that was decoded to its end.
struct DecodedSection {
    fields: FieldSection,
    is_end: bool,
    /// Why the message is malformed or refused, if it is.
    problem: Option<Error>,
}

impl Connection {
    /// Handles a whole field block. Decodes the block to its end in any case.
    //= rfc9113#4.3
    // Blocks keep the tables of both sides in step, so even unwanted blocks are decoded.
    pub(super) fn section(
        &mut self,
        id: u32,
        is_end: bool,
        fragment: &[u8],
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        buffer.head.clear();
        buffer.text.clear();
        let found = self.streams.find(id);
        let receiving = found.and_then(|key| self.streams.get(key));
        let receiving = receiving.map(|stream| stream.receiving);
        let kind = match (receiving, self.role) {
            (None, Role::Server) => SectionKind::Request,
            (Some(HalfState::Head), _) => SectionKind::Response,
            _ => SectionKind::Trailers,
        };
        if found.is_none() && self.role == Role::Client && self.is_idle(id) {
            return Err(Error::IdleStream);
        }
        let mut section = DecodedSection {
            fields: FieldSection::new(kind, &self.config),
            is_end,
            problem: None,
        };
        section.problem = self.decode(fragment, &mut section.fields, buffer)?;
        match (found, receiving) {
            (Some(key), Some(HalfState::Head)) => self.response(key, &section, buffer),
            (Some(key), Some(HalfState::Body)) => self.trailers(key, &section, buffer),
            (Some(key), _) => self
                .fail_stream(key, Error::ClosedStream)
                .map(Progress::Event),
            (None, _) if self.role == Role::Server && id > self.last_id => {
                self.request(id, &section, buffer)
            }
            //= rfc9113#5.1
            // Heads for streams that this side has reset are ignored. For other ended or skipped
            // streams, a client sends no head, so it is an error. A client ignores late responses
            // in any case, because it may have reset more streams than it remembers.
            (None, _) if self.role == Role::Server && !self.resets.has(id) => {
                Err(Error::ClosedStream)
            }
            (None, _) => self.ignore_late_frame(id),
        }
    }

    /// Decodes a block. Returns the error of the message, if any; an `Err` ends the connection.
    fn decode(
        &mut self,
        fragment: &[u8],
        fields: &mut FieldSection,
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Option<Error>, Error> {
        let MessageBuffer { head, text } = buffer;
        let take = |text: &[u8], field| fields.take(head, text, &field);
        let max = self.config.list_bytes_max;
        match self.decoder.decode(fragment, text, max, take) {
            Ok(BlockOutcome::Complete { .. }) => Ok(None),
            Ok(BlockOutcome::TooLarge) => Ok(Some(Error::HeadTooLarge)),
            Ok(BlockOutcome::Refused(error)) => Ok(Some(error)),
            Err(_) => Err(Error::Compression),
        }
    }

    /// Ignores a frame for a stream that has ended. Sends the peer an RST_STREAM, unless this side
    /// has reset the stream.
    pub(super) fn ignore_late_frame(&mut self, id: u32) -> Result<Progress, Error> {
        self.count_reset()?;
        if !self.is_after_last(id) && !self.resets.has(id) {
            self.queue_reset(id, Error::ClosedStream.code());
        }
        Ok(Progress::Continue)
    }

    fn request(
        &mut self,
        id: u32,
        section: &DecodedSection,
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        //= rfc9113#6.8
        // Streams after the last accepted one are ignored.
        if self.shutdown == Shutdown::Final {
            return self.ignore_late_frame(id);
        }
        self.last_id = id;
        self.floods.count_stream();
        //= rfc9113#5.1.2
        // Streams beyond the announced limit are refused.
        if self.streams.len() >= self.config.streams_max {
            return self.refuse(id, Error::TooManyStreams);
        }
        let DecodedSection { fields, is_end, .. } = section;
        let is_end = *is_end;
        let MessageBuffer { head, text } = buffer;
        let request = match section.problem {
            None => fields.request(head, text, is_end, &self.config),
            Some(error) => Err(error),
        };
        match request {
            Ok(request) => {
                let bytes_to_receive = match request.body {
                    BodyKind::Length(length) => length,
                    _ => UNKNOWN_LENGTH,
                };
                let stream = self.insert(id, &request, is_end, bytes_to_receive, fields);
                Ok(Progress::Event(Event::Request {
                    stream,
                    request,
                    is_end,
                }))
            }
            Err(error) if error.is_answerable() => {
                fields.fill_partial_head(head, text, &self.config);
                let request = Request {
                    method: head.method,
                    ..Request::default()
                };
                let stream = self.insert(id, &request, is_end, UNKNOWN_LENGTH, fields);
                Ok(Progress::Event(Event::Refused {
                    stream,
                    error,
                    is_end,
                }))
            }
            Err(error) => self.refuse(id, error),
        }
    }

    /// Resets a stream that is not in the table.
    fn refuse(&mut self, id: u32, error: Error) -> Result<Progress, Error> {
        self.queue_reset(id, error.code());
        self.floods.count_reset()?;
        Ok(Progress::Event(Event::Failed {
            stream: StreamKey::outside(id),
            error,
        }))
    }

    fn insert(
        &mut self,
        id: u32,
        request: &Request,
        is_end: bool,
        bytes_to_receive: u64,
        fields: &FieldSection,
    ) -> StreamKey {
        let mut stream = self.new_stream(id, request.method);
        stream.receiving = if is_end {
            HalfState::Done
        } else {
            HalfState::Body
        };
        stream.bytes_to_receive = bytes_to_receive;
        //= rfc9218#4
        // A client that knows priorities and states none means the default.
        if fields.priority.is_some() {
            self.default_priority = Priority::default();
        }
        stream.priority = fields.priority.unwrap_or(self.default_priority);
        self.streams.insert(stream)
    }

    pub(super) fn new_stream(&self, id: u32, method: Method) -> Stream {
        let (size, max) = (
            self.config.stream_window_bytes,
            self.config.stream_window_bytes_max,
        );
        Stream::new(
            id,
            method,
            ReceiveWindow::new(size, max, self.now_ms),
            SendWindow::new(self.peer.window),
        )
    }

    fn response(
        &mut self,
        key: StreamKey,
        section: &DecodedSection,
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(Progress::Continue);
        };
        let (head, is_end) = (&mut *buffer.head, section.is_end);
        let body = match section.problem {
            None => section
                .fields
                .response(head, buffer.text, stream.method, is_end),
            Some(error) => Err(error),
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.fail_stream(key, error).map(Progress::Event),
        };
        if head.status < 200 {
            stream.interim += 1;
            if stream.interim > INTERIM_MAX {
                return self
                    .fail_stream(key, Error::TooManyInterim)
                    .map(Progress::Event);
            }
            return Ok(Progress::Event(Event::Interim { stream: key }));
        }
        stream.receiving = HalfState::Body;
        stream.bytes_to_receive = match body {
            BodyKind::None => 0,
            BodyKind::Length(length) => length,
            _ => UNKNOWN_LENGTH,
        };
        if is_end {
            self.end_receiving(key);
        }
        Ok(Progress::Event(Event::Response {
            stream: key,
            body,
            is_end,
        }))
    }

    //= rfc9113#8.1
    // A section after the data ends the message, which must be complete.
    fn trailers(
        &mut self,
        key: StreamKey,
        section: &DecodedSection,
        buffer: &mut MessageBuffer<'_>,
    ) -> Result<Progress, Error> {
        let bytes_to_receive = self
            .streams
            .get(key)
            .map_or(0, |stream| stream.bytes_to_receive);
        let problem = match section.problem {
            Some(error) => Some(error),
            None if !section.is_end => Some(Error::UnendedTrailers),
            None if bytes_to_receive != UNKNOWN_LENGTH && bytes_to_receive > 0 => {
                Some(Error::BodyTooShort)
            }
            None => None,
        };
        if let Some(error) = problem {
            return self.fail_stream(key, error).map(Progress::Event);
        }
        section.fields.trailers(buffer.head, buffer.text);
        self.end_receiving(key);
        Ok(Progress::Event(Event::Trailers { stream: key }))
    }
}
