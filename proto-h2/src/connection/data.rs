//! DATA, and what the peer may send of it.

use super::receive::Progress;
use super::{Connection, ReadState, Role};
use crate::config::TINY_DATA_BYTES;
use crate::error::Error;
use crate::event::Event;
use crate::frame::{END_STREAM, FrameHeader, FrameType, PADDED};
use crate::stream::{HalfState, NO_LENGTH, StreamKey};

/// A DATA frame under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrame {
    key: StreamKey,
    /// Bytes of data that are still to come.
    left: u32,
    /// Bytes of padding behind them.
    padding: u32,
    is_end: bool,
}

impl Connection {
    /// Notes that the caller is done with data of a stream: `bytes` of it were passed on, or
    /// dropped. The peer may send more when that is worth a frame; a window of which all is used
    /// within [100 ms](crate::config::Config::stream_window_bytes_max) doubles. Of a stream that is
    /// gone nothing is held any more, and the call does nothing.
    pub fn consume(&mut self, stream: StreamKey, bytes: usize, now_ms: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.now_ms = self.now_ms.max(now_ms);
        self.consume_stream(stream, bytes);
    }

    fn consume_stream(&mut self, key: StreamKey, bytes: u32) {
        let (now_ms, growth_max) = (self.now_ms, self.growth_max());
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let bytes = bytes.min(stream.receive_window.unread());
        let size = stream.receive_window.size();
        let mut increment = stream.receive_window.consume(bytes, now_ms, growth_max);
        self.grown += stream.receive_window.size() - size;
        if stream.receive_window.unread() == 0 {
            self.tiny -= stream.tiny.min(self.tiny);
            stream.tiny = 0;
        }
        // Who sends no more needs no window.
        if stream.receiving == HalfState::Done {
            increment = 0;
        }
        if increment > 0 {
            self.queue_number(FrameType::WindowUpdate, key.id(), increment);
        }
        self.let_go(bytes);
    }

    /// By how much the window of a stream may grow. Of a server, whose connection is held back by
    /// what is unread, all of them grow to half of the connection's at most: streams that stand
    /// still leave room for others.
    fn growth_max(&self) -> u32 {
        let left = self.config.connection_window_bytes_max - self.grown;
        if self.role == Role::Client {
            return left;
        }
        let begun = self.config.stream_window_bytes;
        let used = self.streams.len().saturating_mul(begun);
        let half = self.receive_window.size() / 2;
        left.min(half.saturating_sub(used.saturating_add(self.grown)))
    }

    /// Notes that bytes no longer hold the connection back.
    pub(super) fn let_go(&mut self, bytes: u32) {
        if self.role == Role::Server {
            self.give_back(bytes);
        }
    }

    /// Lets the peer send so many bytes more on the connection.
    fn give_back(&mut self, bytes: u32) {
        let increment = self.receive_window.consume_shared(bytes, self.now_ms);
        if increment > 0 {
            self.queue_number(FrameType::WindowUpdate, 0, increment);
        }
    }

    /// Takes the head of a DATA frame: its whole payload counts from here on.
    //= rfc9113#6.9.1
    // Padding counts as data does, and data of streams that are gone counts for the connection.
    pub(super) fn begin_data(&mut self, frame: &FrameHeader) -> Result<Progress, Error> {
        self.state = ReadState::Skip(frame.len);
        if !self.receive_window.receive(frame.len) {
            return Err(Error::WindowExceeded);
        }
        // A connection to an endpoint carries the requests of many clients: those that do not read their answers hold
        // back their streams, and not the connection.
        if self.role == Role::Client {
            self.give_back(frame.len);
        }
        let found = match self.known(frame.stream) {
            Ok(found) => found,
            // What comes after the last stream was never opened for us.
            Err(_) if self.is_after_last(frame.stream) => None,
            Err(error) => return Err(error),
        };
        let Some(key) = found else {
            self.let_go(frame.len);
            return self.late_data(frame.stream);
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(Progress::Continue);
        };
        let problem = match stream.receiving {
            HalfState::Head => Some(Error::UnexpectedData),
            HalfState::Done => Some(Error::ClosedStream),
            HalfState::Body if !stream.receive_window.receive(frame.len) => {
                Some(Error::WindowExceeded)
            }
            HalfState::Body => None,
        };
        if let Some(error) = problem {
            self.let_go(frame.len);
            return self.fail_stream(key, error).map(Progress::Event);
        }
        if frame.has(PADDED) {
            if frame.len == 0 {
                return Err(Error::BadFrameLength);
            }
            self.state = ReadState::Padding(*frame, key);
            return Ok(Progress::Continue);
        }
        self.ready(key, frame.len, 0, frame.has(END_STREAM))
    }

    /// Whether a stream of the peer's is behind the last that it was told of: nothing becomes of what comes for it.
    pub(super) fn is_after_last(&self, id: u32) -> bool {
        self.shutdown == super::Shutdown::Final && id > self.last_id && !id.is_multiple_of(2)
    }

    /// Passes over data of a stream that has ended. Whoever ended it is told once.
    fn late_data(&mut self, id: u32) -> Result<Progress, Error> {
        if self.resets.has(id) || self.is_after_last(id) {
            return Ok(Progress::Continue);
        }
        self.late(id)
    }

    /// Takes the length of the padding.
    pub(super) fn padding(
        &mut self,
        frame: &FrameHeader,
        key: StreamKey,
        rest: &mut &[u8],
    ) -> Result<Progress, Error> {
        let Some((&padding, tail)) = rest.split_first() else {
            return Ok(Progress::NeedMore);
        };
        *rest = tail;
        let padding = u32::from(padding);
        let left = frame.len - 1;
        //= rfc9113#6.1
        // Padding as long as the payload is an error of the connection.
        let Some(data) = left.checked_sub(padding) else {
            return Err(Error::BadPadding);
        };
        self.state = ReadState::Skip(left);
        self.consume_stream(key, padding + 1);
        self.ready(key, data, padding, frame.has(END_STREAM))
    }

    /// Judges a DATA frame whose parts are known.
    fn ready(
        &mut self,
        key: StreamKey,
        left: u32,
        padding: u32,
        is_end: bool,
    ) -> Result<Progress, Error> {
        if left == 0 && !is_end {
            self.floods.empty_data()?;
        }
        let Some(stream) = self.streams.get_mut(key) else {
            // Gone since its head came.
            return Ok(Progress::Continue);
        };
        //= rfc9113#8.1.1
        // Data has to add up to the length.
        if stream.to_come != NO_LENGTH {
            let to_come = stream.to_come.checked_sub(u64::from(left));
            let problem = match to_come {
                None => Some(Error::BodyTooLong),
                Some(1..) if is_end => Some(Error::BodyTooShort),
                _ => None,
            };
            if let Some(error) = problem {
                return self.fail_stream(key, error).map(Progress::Event);
            }
            stream.to_come = to_come.unwrap_or_default();
        }
        if left > 0 && left < TINY_DATA_BYTES && !is_end {
            stream.tiny += 1;
            self.tiny += 1;
            if self.tiny > self.floods.limits().tiny_data_max {
                return Err(Error::TooMuchTinyData);
            }
        }
        let data = DataFrame {
            key,
            left,
            padding,
            is_end,
        };
        Ok(match self.end_of_data(data) {
            Some(true) => Progress::Event(Event::End { stream: key }),
            _ => Progress::Continue,
        })
    }

    /// Goes on with a frame, or ends it: says whether the message has ended then.
    fn end_of_data(&mut self, data: DataFrame) -> Option<bool> {
        if data.left + data.padding > 0 {
            self.state = ReadState::Data(data);
            return None;
        }
        self.state = ReadState::Frame;
        let is_end = data.is_end && self.is_open(data.key);
        if is_end {
            self.end_receiving(data.key);
        }
        Some(is_end)
    }

    /// Passes a piece of data on.
    pub(super) fn data(
        &mut self,
        mut data: DataFrame,
        rest: &mut &[u8],
        input_len: usize,
    ) -> Progress {
        if rest.is_empty() {
            return Progress::NeedMore;
        }
        let is_data = data.left > 0;
        let part = if is_data {
            &mut data.left
        } else {
            &mut data.padding
        };
        let len = rest.len().min(*part as usize);
        *part -= len as u32;
        let start = input_len - rest.len();
        *rest = rest.get(len..).unwrap_or_default();
        // A stream that ends here may be gone, but its last piece is still the caller's.
        let is_open = self.is_open(data.key);
        let is_end = self.end_of_data(data) == Some(true);
        let stream = data.key;
        match (is_data && is_open, is_end) {
            (true, is_end) => Progress::Event(Event::Data {
                stream,
                range: start..start + len,
                is_end,
            }),
            (false, true) => Progress::Event(Event::End { stream }),
            (false, false) => Progress::Continue,
        }
    }

    /// Passes over a payload.
    pub(super) fn skip(&mut self, left: u32, rest: &mut &[u8]) -> Progress {
        let len = rest.len().min(left as usize);
        *rest = rest.get(len..).unwrap_or_default();
        let left = left - len as u32;
        if left > 0 {
            self.state = ReadState::Skip(left);
            return Progress::NeedMore;
        }
        self.state = ReadState::Frame;
        Progress::Continue
    }

    /// The peer has ended its message.
    pub(super) fn end_receiving(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.receiving = HalfState::Done;
        }
        self.settle(key);
    }
}
