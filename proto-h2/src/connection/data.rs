//! Received DATA, and the windows for it.

use super::receive::Progress;
use super::{Connection, ReadState, Role};
use crate::config::TINY_DATA_BYTES;
use crate::error::Error;
use crate::event::Event;
use crate::frame::{END_STREAM, FrameHeader, FrameType, PADDED};
use crate::stream::{HalfState, StreamKey, UNKNOWN_LENGTH};

/// A DATA frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrame {
    key: StreamKey,
    /// Bytes of data still to come.
    left: u32,
    /// Bytes of padding after the data.
    padding: u32,
    is_end: bool,
}

impl Connection {
    /// Counts `bytes` of a stream's data that the caller has passed on or dropped. Sends the peer a
    /// WINDOW_UPDATE when enough has accumulated. A window that the peer uses up within 100 ms
    /// doubles, up to [`Config::stream_window_bytes_max`](crate::config::Config). Does nothing for
    /// a stream that is gone.
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
        self.window_growth += stream.receive_window.size() - size;
        if stream.receive_window.unread() == 0 {
            self.tiny -= stream.tiny.min(self.tiny);
            stream.tiny = 0;
        }
        // A peer that sends no more needs no window.
        if stream.receiving == HalfState::Done {
            increment = 0;
        }
        if increment > 0 {
            self.queue_number(FrameType::WindowUpdate, key.id(), increment);
        }
        self.return_unread(bytes);
    }

    /// How much the window of a stream may grow. At a server, unread data holds back the
    /// connection, so all windows together grow to at most half of the connection's: stalled
    /// streams leave room for others.
    fn growth_max(&self) -> u32 {
        let left = self.config.connection_window_bytes_max - self.window_growth;
        if self.role == Role::Client {
            return left;
        }
        let begun = self.config.stream_window_bytes;
        let used = self.streams.len().saturating_mul(begun);
        let half = self.receive_window.size() / 2;
        left.min(half.saturating_sub(used.saturating_add(self.window_growth)))
    }

    /// Returns bytes to the connection's window that no longer count as unread.
    pub(super) fn return_unread(&mut self, bytes: u32) {
        if self.role == Role::Server {
            self.return_window(bytes);
        }
    }

    /// Lets the peer send more bytes on the connection.
    fn return_window(&mut self, bytes: u32) {
        let increment = self.receive_window.consume_shared(bytes, self.now_ms);
        if increment > 0 {
            self.queue_number(FrameType::WindowUpdate, 0, increment);
        }
    }

    /// Begins a DATA frame. Its whole payload counts from here on.
    //= rfc9113#6.9.1
    // Padding counts like data. Data of streams that are gone counts for the connection.
    pub(super) fn begin_data(&mut self, frame: &FrameHeader) -> Result<Progress, Error> {
        self.state = ReadState::Skip(frame.len);
        if !self.receive_window.receive(frame.len) {
            return Err(Error::WindowExceeded);
        }
        // The connection to an endpoint carries requests of many clients. A client that does not
        // read its response must hold back only its own stream.
        if self.role == Role::Client {
            self.return_window(frame.len);
        }
        let found = match self.find_opened(frame.stream) {
            Ok(found) => found,
            // A stream after the last accepted one was never opened on this side.
            Err(_) if self.is_after_last(frame.stream) => None,
            Err(error) => return Err(error),
        };
        let Some(key) = found else {
            self.return_unread(frame.len);
            return self.ignore_late_data(frame.stream);
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
            self.return_unread(frame.len);
            return self.fail_stream(key, error).map(Progress::Event);
        }
        if frame.has(PADDED) {
            if frame.len == 0 {
                return Err(Error::BadFrameLength);
            }
            self.state = ReadState::Padding(*frame, key);
            return Ok(Progress::Continue);
        }
        self.begin_payload(key, frame.len, 0, frame.has(END_STREAM))
    }

    /// Returns whether a stream comes after the last one that this side's GOAWAY accepts. This side
    /// ignores its frames.
    pub(super) fn is_after_last(&self, id: u32) -> bool {
        self.shutdown == super::Shutdown::Final && id > self.last_id && !id.is_multiple_of(2)
    }

    /// Ignores data of a stream that has ended. The peer gets one RST_STREAM for it.
    fn ignore_late_data(&mut self, id: u32) -> Result<Progress, Error> {
        if self.resets.has(id) || self.is_after_last(id) {
            return Ok(Progress::Continue);
        }
        self.ignore_late_frame(id)
    }

    /// Parses the length of the padding.
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
        // Padding as long as the payload is a connection error.
        let Some(data) = left.checked_sub(padding) else {
            return Err(Error::BadPadding);
        };
        self.state = ReadState::Skip(left);
        self.consume_stream(key, padding + 1);
        self.begin_payload(key, data, padding, frame.has(END_STREAM))
    }

    /// Checks a DATA frame once its lengths are known.
    fn begin_payload(
        &mut self,
        key: StreamKey,
        left: u32,
        padding: u32,
        is_end: bool,
    ) -> Result<Progress, Error> {
        if left == 0 && !is_end {
            self.floods.count_empty_data()?;
        }
        let Some(stream) = self.streams.get_mut(key) else {
            // The stream has gone since its frame header arrived.
            return Ok(Progress::Continue);
        };
        //= rfc9113#8.1.1
        // The data must add up to Content-Length.
        if stream.bytes_to_receive != UNKNOWN_LENGTH {
            let bytes_to_receive = stream.bytes_to_receive.checked_sub(u64::from(left));
            let problem = match bytes_to_receive {
                None => Some(Error::BodyTooLong),
                Some(1..) if is_end => Some(Error::BodyTooShort),
                _ => None,
            };
            if let Some(error) = problem {
                return self.fail_stream(key, error).map(Progress::Event);
            }
            stream.bytes_to_receive = bytes_to_receive.unwrap_or_default();
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
        Ok(match self.continue_payload(data) {
            Some(true) => Progress::Event(Event::End { stream: key }),
            _ => Progress::Continue,
        })
    }

    /// Continues a frame or ends it. If it ends, returns whether the message ends too.
    fn continue_payload(&mut self, data: DataFrame) -> Option<bool> {
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

    /// Reports a piece of data.
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
        // The stream may be gone if it ends here, but its last piece still belongs to the caller.
        let is_open = self.is_open(data.key);
        let is_end = self.continue_payload(data) == Some(true);
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

    /// Skips a payload.
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

    /// Ends the peer's message.
    pub(super) fn end_receiving(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.receiving = HalfState::Done;
        }
        self.remove_if_done(key);
    }
}
