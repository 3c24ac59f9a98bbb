//! Bodies: [`BodyDecoder`] removes the framing, [`BodyEncoder`] adds it.
//!
//! Neither stores data. The decoder locates the data in the caller's input. The encoder produces
//! the bytes to send before and after data that stays in the caller's buffer.

use crate::encode::Sink;
use crate::error::Error;
use crate::framing::BodyKind;
use crate::limits::{CHUNK_SIZE_DIGITS_MAX, EXTENSION_BYTES_MAX, LENGTH_MAX, Limits};
use crate::scan;
use crate::trailers::Trailers;

/// Removes the framing of a body, piece by piece.
///
/// Call [`BodyDecoder::decode`] with the unconsumed input until it returns [`DecodedBody::End`].
/// After an error the connection must be closed.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: DecoderState,
    /// Bytes of the current size line.
    line_bytes: u32,
    /// Bytes of extensions in this body.
    extension_bytes: u32,
    line_bytes_max: u32,
    /// Whether whitespace may follow a chunk size.
    takes_blanks: bool,
    trailers: Trailers,
}

/// What a decoder found in its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedBody {
    /// All usable input is consumed; the decoder needs more.
    NeedMore {
        /// Consumed bytes of the input.
        consumed: usize,
    },
    /// `input[skip..skip + len]` is data, and `skip + len` bytes are consumed.
    Data {
        /// Bytes of framing before the data.
        skip: usize,
        /// Bytes of data, at least one.
        len: usize,
    },
    /// The body is complete; see [`BodyDecoder::trailers`].
    End {
        /// Consumed bytes of the input. The rest belongs to the next message.
        consumed: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecoderState {
    Done,
    Length(u64),
    UntilClose,
    Size { value: u64, digits: u8 },
    Blanks(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
}

impl BodyDecoder {
    /// Makes a decoder for a body.
    #[must_use]
    pub fn new(kind: BodyKind, limits: &Limits) -> Self {
        let mut decoder = Self {
            state: DecoderState::Done,
            line_bytes: 0,
            extension_bytes: 0,
            line_bytes_max: limits.chunk_line_bytes_max,
            takes_blanks: false,
            trailers: Trailers::new(limits),
        };
        decoder.reset(kind);
        decoder
    }

    /// Makes a decoder for bodies of responses, in which spaces and tabs may follow a chunk size:
    /// old servers pad sizes. In requests they are refused, because a more lenient parser could
    /// find another chunk boundary.
    #[must_use]
    pub fn for_responses(limits: &Limits) -> Self {
        Self {
            takes_blanks: true,
            ..Self::new(BodyKind::None, limits)
        }
    }

    /// Prepares the decoder for the next body and keeps its capacity.
    #[inline]
    pub fn reset(&mut self, kind: BodyKind) {
        self.state = match kind {
            BodyKind::None | BodyKind::Length(0) => DecoderState::Done,
            BodyKind::Length(length) => DecoderState::Length(length),
            BodyKind::Chunked => DecoderState::Size {
                value: 0,
                digits: 0,
            },
            BodyKind::UntilClose => DecoderState::UntilClose,
        };
        self.line_bytes = 0;
        self.extension_bytes = 0;
        self.trailers.clear();
    }

    /// Finds the next run of data.
    ///
    /// # Errors
    /// Chunked framing that RFC 9112, section 7.1, does not allow, or that exceeds its limits.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Result<DecodedBody, Error> {
        match self.state {
            DecoderState::Done => Ok(DecodedBody::End { consumed: 0 }),
            _ if input.is_empty() => Ok(DecodedBody::NeedMore { consumed: 0 }),
            DecoderState::Length(remaining) => {
                let len = up_to(remaining, input.len());
                let left = remaining - len as u64;
                self.state = if left == 0 {
                    DecoderState::Done
                } else {
                    DecoderState::Length(left)
                };
                Ok(DecodedBody::Data { skip: 0, len })
            }
            DecoderState::UntilClose => Ok(DecodedBody::Data {
                skip: 0,
                len: input.len(),
            }),
            _ => self.decode_chunked(input),
        }
    }

    /// Takes note that the peer has closed its side. This completes a body that lasts until the
    /// close.
    ///
    /// # Errors
    /// [`Error::Truncated`] if any other body is incomplete.
    //= rfc9112#8
    // A body is incomplete if it ends before its length or without its last chunk.
    pub fn close(&mut self) -> Result<(), Error> {
        if !self.may_end_on_close() {
            return Err(Error::Truncated);
        }
        self.state = DecoderState::Done;
        Ok(())
    }

    /// How many bytes of data follow before the next framing byte: the rest of a length,
    /// [`u64::MAX`] for a body until close, 0 for chunks.
    #[inline]
    #[must_use]
    pub const fn raw_left(&self) -> u64 {
        match self.state {
            DecoderState::Length(remaining) => remaining,
            DecoderState::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Counts `len` bytes of data that bypassed [`BodyDecoder::decode`].
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for more than [`BodyDecoder::raw_left`]; nothing is counted then.
    pub fn skip_raw(&mut self, len: u64) -> Result<(), Error> {
        match self.state {
            DecoderState::Length(remaining) if len < remaining => {
                self.state = DecoderState::Length(remaining - len);
            }
            DecoderState::Length(remaining) if len == remaining => self.state = DecoderState::Done,
            DecoderState::UntilClose => {}
            _ if len == 0 => {}
            _ => return Err(Error::OutOfOrder),
        }
        Ok(())
    }

    /// Returns whether the body is complete.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == DecoderState::Done
    }

    /// Returns whether the body is complete if the connection closes now.
    #[must_use]
    pub fn may_end_on_close(&self) -> bool {
        matches!(self.state, DecoderState::Done | DecoderState::UntilClose)
    }

    /// The trailers of a body that has ended.
    #[must_use]
    pub const fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    pub(crate) const fn trailers_mut(&mut self) -> &mut Trailers {
        &mut self.trailers
    }

    //= rfc9112#7.1
    // chunk = size [extension] CRLF data CRLF; last-chunk, trailers, CRLF. A bare LF never replaces
    // CRLF.
    fn decode_chunked(&mut self, input: &[u8]) -> Result<DecodedBody, Error> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                DecoderState::Size { value, digits } => {
                    self.state = self.size_byte(byte, value, digits)?;
                    at += 1;
                }
                DecoderState::Blanks(value) => {
                    self.state = self.blank_byte(byte, value)?;
                    at += 1;
                }
                DecoderState::Extension(value) => {
                    let end = scan::value_end(input, at);
                    self.count_extension(end - at)?;
                    at = end;
                    match input.get(at) {
                        Some(b'\r') => self.state = DecoderState::SizeLf(value),
                        Some(b'\n') => return Err(Error::BareLf),
                        Some(_) => return Err(Error::BadChunk),
                        None => break,
                    }
                    at += 1;
                }
                DecoderState::SizeLf(value) => {
                    if byte != b'\n' {
                        return Err(Error::BareCr);
                    }
                    self.state = if value == 0 {
                        DecoderState::Trailers
                    } else {
                        DecoderState::Data(value)
                    };
                    at += 1;
                }
                DecoderState::Data(remaining) => {
                    let len = up_to(remaining, input.len() - at);
                    let left = remaining - len as u64;
                    self.state = if left == 0 {
                        DecoderState::DataCr
                    } else {
                        DecoderState::Data(left)
                    };
                    return Ok(DecodedBody::Data { skip: at, len });
                }
                DecoderState::DataCr => {
                    match byte {
                        b'\r' => self.state = DecoderState::DataLf,
                        b'\n' => return Err(Error::BareLf),
                        _ => return Err(Error::BadChunk),
                    }
                    at += 1;
                }
                DecoderState::DataLf => {
                    if byte != b'\n' {
                        return Err(Error::BareCr);
                    }
                    self.line_bytes = 0;
                    self.state = DecoderState::Size {
                        value: 0,
                        digits: 0,
                    };
                    at += 1;
                }
                DecoderState::Trailers => {
                    let (taken, is_end) =
                        self.trailers.take(input.get(at..).unwrap_or_default())?;
                    at += taken;
                    if is_end {
                        self.state = DecoderState::Done;
                        return Ok(DecodedBody::End { consumed: at });
                    }
                }
                DecoderState::Done | DecoderState::Length(_) | DecoderState::UntilClose => {
                    return Err(Error::OutOfOrder);
                }
            }
        }
        Ok(DecodedBody::NeedMore { consumed: at })
    }

    /// Parses a byte of a size: up to 16 hexadecimal digits, then CR or an extension.
    #[inline]
    fn size_byte(&mut self, byte: u8, value: u64, digits: u8) -> Result<DecoderState, Error> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(DecoderState::SizeLf(value)),
            b';' if digits > 0 => {
                self.count_extension(1)?;
                return Ok(DecoderState::Extension(value));
            }
            b' ' | b'\t' if digits > 0 && self.takes_blanks => {
                return self.blank_byte(byte, value);
            }
            b'\n' => return Err(Error::BareLf),
            _ => return Err(Error::BadChunkSize),
        };
        //= rfc9112#7.1
        // A size must not overflow.
        if digits == CHUNK_SIZE_DIGITS_MAX || value > LENGTH_MAX >> 4 {
            return Err(Error::BadChunkSize);
        }
        self.line_bytes += 1;
        if self.line_bytes > self.line_bytes_max {
            return Err(Error::ChunkLineTooLong);
        }
        Ok(DecoderState::Size {
            value: value << 4 | u64::from(digit),
            digits: digits + 1,
        })
    }

    /// Parses a byte after a size and its whitespace.
    #[cold]
    fn blank_byte(&mut self, byte: u8, value: u64) -> Result<DecoderState, Error> {
        match byte {
            b' ' | b'\t' => self
                .count_extension(1)
                .map(|()| DecoderState::Blanks(value)),
            b';' => self
                .count_extension(1)
                .map(|()| DecoderState::Extension(value)),
            b'\r' => Ok(DecoderState::SizeLf(value)),
            b'\n' => Err(Error::BareLf),
            _ => Err(Error::BadChunkSize),
        }
    }

    //= rfc9112#7.1.1
    // Extensions are ignored, and their length is limited.
    fn count_extension(&mut self, bytes: usize) -> Result<(), Error> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.line_bytes = self.line_bytes.saturating_add(bytes);
        self.extension_bytes = self.extension_bytes.saturating_add(bytes);
        if self.line_bytes > self.line_bytes_max || self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Error::ChunkLineTooLong);
        }
        Ok(())
    }
}

#[inline]
fn up_to(remaining: u64, have: usize) -> usize {
    usize::try_from(remaining).unwrap_or(usize::MAX).min(have)
}

/// Adds the framing of a body.
///
/// For each piece of data, send [`BodyEncoder::prefix`], the data, and [`BodyEncoder::suffix`];
/// then [`BodyEncoder::finish`] or [`BodyEncoder::finish_with_trailers`]. After an error, the
/// receiver must see an aborted connection and not a complete message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEncoder {
    /// No body, or a body that is finished.
    #[default]
    None,
    /// A body of known length.
    Length {
        /// Bytes not sent yet.
        remaining: u64,
    },
    /// A chunked body.
    Chunked,
    /// A body that lasts until the connection closes.
    UntilClose,
}

impl BodyEncoder {
    /// Makes an encoder for a body.
    #[must_use]
    pub const fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::None => Self::None,
            BodyKind::Length(remaining) => Self::Length { remaining },
            BodyKind::Chunked => Self::Chunked,
            BodyKind::UntilClose => Self::UntilClose,
        }
    }

    /// Announces `len` bytes of data and returns the bytes to send before them.
    ///
    /// # Errors
    /// [`Error::BodyOverrun`] beyond the announced length or without a body; [`Error::OutOfOrder`]
    /// for a chunk of 0 bytes, which would end the body.
    #[inline]
    pub fn prefix(&mut self, len: usize) -> Result<ChunkPrefix, Error> {
        match self {
            Self::None if len == 0 => Ok(ChunkPrefix::EMPTY),
            Self::None => Err(Error::BodyOverrun),
            Self::Length { remaining } => {
                *remaining = remaining
                    .checked_sub(len as u64)
                    .ok_or(Error::BodyOverrun)?;
                Ok(ChunkPrefix::EMPTY)
            }
            Self::Chunked if len == 0 => Err(Error::OutOfOrder),
            Self::Chunked => Ok(ChunkPrefix::size(len as u64)),
            Self::UntilClose => Ok(ChunkPrefix::EMPTY),
        }
    }

    /// The bytes to send after each piece of data.
    #[inline]
    #[must_use]
    pub const fn suffix(&self) -> &'static [u8] {
        match self {
            Self::Chunked => b"\r\n",
            _ => b"",
        }
    }

    /// Ends the body and returns the last bytes to send.
    ///
    /// # Errors
    /// [`Error::BodyUnderrun`] if the body is shorter than announced.
    #[inline]
    pub fn finish(&mut self) -> Result<&'static [u8], Error> {
        match core::mem::take(self) {
            Self::Length { remaining } if remaining > 0 => Err(Error::BodyUnderrun),
            Self::Chunked => Ok(b"0\r\n\r\n"),
            _ => Ok(b""),
        }
    }

    /// Ends the body and writes its last bytes with the trailers. Framing other than chunked drops
    /// the trailers.
    ///
    /// # Errors
    /// As [`BodyEncoder::finish`].
    pub fn finish_with_trailers<S: Sink>(
        &mut self,
        trailers: &Trailers,
        sink: &mut S,
    ) -> Result<(), Error> {
        if *self != Self::Chunked || trailers.is_empty() {
            sink.put(self.finish()?);
            return Ok(());
        }
        *self = Self::None;
        sink.put(b"0\r\n");
        for (name, value) in trailers.iter() {
            sink.put(name);
            sink.put(b": ");
            sink.put(value);
            sink.put(b"\r\n");
        }
        sink.put(b"\r\n");
        Ok(())
    }
}

/// The bytes before a piece of data: the size line of a chunk, or nothing. At most 18, so that they
/// fit in front of the data in its block.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkPrefix {
    const EMPTY: Self = Self {
        bytes: *b"0000000000000000\r\n",
        start: 18,
    };

    #[inline]
    fn size(mut size: u64) -> Self {
        let mut prefix = Self {
            start: 16,
            ..Self::EMPTY
        };
        for slot in prefix.bytes.iter_mut().take(16).rev() {
            let digit = (size & 15) as u8;
            *slot = if digit < 10 {
                b'0' + digit
            } else {
                b'a' - 10 + digit
            };
            prefix.start -= 1;
            size >>= 4;
            if size == 0 {
                break;
            }
        }
        prefix
    }

    /// The bytes to send.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(usize::from(self.start)..)
            .unwrap_or_default()
    }
}
