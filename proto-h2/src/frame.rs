//! Frame headers, and the padding and priority around payloads.

use crate::config::MAX_31_BITS;
use crate::error::Error;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameType {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// RFC 9218.
    PriorityUpdate,
    /// Any other type. Such frames are ignored (RFC 9113, section 4.1).
    Unknown,
}

impl FrameType {
    #[inline]
    const fn of(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::RstStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            0x10 => Self::PriorityUpdate,
            _ => Self::Unknown,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::RstStream => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::GoAway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::PriorityUpdate => 0x10,
            Self::Unknown => 0xff,
        }
    }
}

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 9;

/// Bytes of an RFC 7540 priority in PRIORITY and in HEADERS.
pub(crate) const PRIORITY_BYTES: usize = 5;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the payload.
    pub(crate) len: u32,
    pub(crate) kind: FrameType,
    pub(crate) flags: u8,
    /// The stream, or 0 for the connection.
    pub(crate) stream: u32,
}

impl FrameHeader {
    #[inline]
    pub(crate) fn read(bytes: &[u8; FRAME_HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind: FrameType::of(kind),
            flags,
            //= rfc9113#4.1
            // The reserved bit is ignored.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> [u8; FRAME_HEADER_BYTES] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind.byte(), self.flags, s0, s1, s2, s3]
    }

    #[inline]
    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The first four bytes as a number.
#[inline]
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// The field block fragment in the payload of HEADERS, without padding and priority.
//= rfc9113#6.2
// Padding that leaves no room for the fragment is a connection error.
#[inline]
pub(crate) fn fragment<'p>(head: &FrameHeader, mut payload: &'p [u8]) -> Result<&'p [u8], Error> {
    let mut padding = 0;
    if head.has(PADDED) {
        let (&length, rest) = payload.split_first().ok_or(Error::BadFrameLength)?;
        (padding, payload) = (usize::from(length), rest);
    }
    if head.has(PRIORITY) {
        let parts = payload.split_at_checked(PRIORITY_BYTES);
        let (priority, rest) = parts.ok_or(Error::BadFrameLength)?;
        check_priority(head, priority)?;
        payload = rest;
    }
    let len = payload.len().checked_sub(padding);
    let fragment = len.and_then(|len| payload.get(..len));
    fragment.ok_or(Error::BadPadding)
}

/// Validates an RFC 7540 priority. It is not used otherwise.
//= rfc7540#5.3.1
// A stream cannot depend on itself. This ends the connection, although the RFC only requires a
// stream error.
pub(crate) fn check_priority(head: &FrameHeader, priority: &[u8]) -> Result<(), Error> {
    let depends_on = number(priority).unwrap_or_default() & MAX_31_BITS;
    if depends_on == head.stream {
        return Err(Error::SelfDependency);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_headers_survive_a_round_trip() {
        for byte in 0..=255u8 {
            let bytes = [1, 2, 3, byte, 0x25, 0x80, 5, 6, 7];
            let head = FrameHeader::read(&bytes);
            assert_eq!((head.len, head.stream), (0x01_02_03, 0x05_06_07));
            let again = FrameHeader::read(&head.bytes());
            assert_eq!(again, head);
            if head.kind != FrameType::Unknown {
                assert_eq!(head.bytes()[3], byte);
            }
        }
    }

    #[test]
    fn fragments_exclude_padding_and_priority() {
        let head = |flags| FrameHeader {
            len: 0,
            kind: FrameType::Headers,
            flags,
            stream: 1,
        };
        assert_eq!(fragment(&head(0), b"abc"), Ok(&b"abc"[..]));
        assert_eq!(fragment(&head(PADDED), b"\x02abc"), Ok(&b"a"[..]));
        assert_eq!(fragment(&head(PADDED), b"\x03abc"), Ok(&b""[..]));
        assert_eq!(fragment(&head(PADDED), b"\x04abc"), Err(Error::BadPadding));
        assert_eq!(fragment(&head(PADDED), b""), Err(Error::BadFrameLength));
        assert_eq!(fragment(&head(PRIORITY), b"12345a"), Ok(&b"a"[..]));
        assert_eq!(
            fragment(&head(PRIORITY), b"1234"),
            Err(Error::BadFrameLength)
        );
        let both = head(PADDED | PRIORITY);
        assert_eq!(fragment(&both, b"\x0112345ab"), Ok(&b"a"[..]));
        assert_eq!(fragment(&both, b"\x0112345"), Err(Error::BadPadding));
    }
}
