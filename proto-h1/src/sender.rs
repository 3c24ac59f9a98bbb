//! The sending half of a machine: the state of the current message and the encoder of its body.

use crate::body::{BodyEncoder, ChunkPrefix};
use crate::encode::Sink;
use crate::error::Error;
use crate::framing::BodyKind;
use crate::trailers::Trailers;

/// Frames the body of an outgoing message: see [`Server::sender`](crate::Server::sender) and
/// [`Client::sender`](crate::Client::sender).
///
/// [`Sender::prefix`] and [`Sender::suffix`] go around each piece of data. [`Sender::end`] ends
/// every message, even one without a body.
#[derive(Clone, Debug)]
pub struct Sender {
    state: SendState,
    encoder: BodyEncoder,
}

/// The progress of the current message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// There is no message.
    Idle,
    /// A server owes a response and has not begun the final one.
    Owed,
    Body,
    Done,
}

impl Sender {
    pub(crate) const fn new() -> Self {
        Self {
            state: SendState::Idle,
            encoder: BodyEncoder::None,
        }
    }

    #[inline]
    pub(crate) const fn state(&self) -> SendState {
        self.state
    }

    /// Records that a response is owed.
    pub(crate) const fn owe_response(&mut self) {
        self.state = SendState::Owed;
    }

    /// Begins a body.
    pub(crate) const fn begin(&mut self, body: BodyKind) {
        self.encoder = BodyEncoder::new(body);
        self.state = SendState::Body;
    }

    /// Ends framing, because the bytes that follow are not HTTP.
    pub(crate) const fn abandon(&mut self) {
        self.encoder = BodyEncoder::None;
        self.state = SendState::Done;
    }

    /// Gets ready for the next message.
    pub(crate) const fn reset(&mut self) {
        self.state = SendState::Idle;
    }

    /// Checks what holds after every step.
    pub(crate) fn check_invariants(&self) {
        debug_assert!(
            self.state == SendState::Body || self.encoder == BodyEncoder::None,
            "only a body under way has an encoder"
        );
    }

    /// Announces a piece of data and returns the bytes to send before it.
    ///
    /// # Errors
    /// As [`BodyEncoder::prefix`]; also [`Error::OutOfOrder`] outside a body.
    #[inline]
    pub fn prefix(&mut self, len: usize) -> Result<ChunkPrefix, Error> {
        self.check()?;
        self.encoder.prefix(len)
    }

    /// The bytes to send after each piece of data.
    #[inline]
    #[must_use]
    pub const fn suffix(&self) -> &'static [u8] {
        self.encoder.suffix()
    }

    /// Returns whether data is sent as it is, with no bytes around it.
    #[inline]
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        self.suffix().is_empty()
    }

    /// Returns whether the peer has the whole message: there is no body, or all bytes of its length
    /// were sent. [`Sender::end`] is still to be called and returns no bytes.
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let whole = matches!(
            self.encoder,
            BodyEncoder::None | BodyEncoder::Length { remaining: 0 }
        );
        self.state == SendState::Body && whole
    }

    /// Ends the message and returns its last bytes.
    ///
    /// # Errors
    /// As [`BodyEncoder::finish`]. The caller must then break off the connection.
    #[inline]
    pub fn end(&mut self) -> Result<&'static [u8], Error> {
        self.check()?;
        let last = self.encoder.finish()?;
        self.state = SendState::Done;
        Ok(last)
    }

    /// Ends the message with trailers. Framing other than chunked drops them.
    ///
    /// # Errors
    /// As [`Sender::end`].
    pub fn end_with_trailers<S: Sink>(
        &mut self,
        trailers: &Trailers,
        sink: &mut S,
    ) -> Result<(), Error> {
        self.check()?;
        self.encoder.finish_with_trailers(trailers, sink)?;
        self.state = SendState::Done;
        Ok(())
    }

    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.state == SendState::Body {
            Ok(())
        } else {
            Err(Error::OutOfOrder)
        }
    }
}
