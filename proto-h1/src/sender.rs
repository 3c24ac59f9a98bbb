//! The sending half of a machine: how the body of the message under way is framed, and where it is.

use crate::body::{BodyEncoder, ChunkPrefix};
use crate::encode::Sink;
use crate::error::Error;
use crate::framing::BodyKind;
use crate::trailers::Trailers;

/// Frames the body of a message that is sent: [`Server::sender`](crate::Server::sender),
/// [`Client::sender`](crate::Client::sender).
///
/// [`Sender::prefix`] and [`Sender::suffix`] go around each piece of data, then [`Sender::end`],
/// which messages without a body need too.
#[derive(Clone, Debug)]
pub struct Sender {
    state: SendState,
    encoder: BodyEncoder,
}

/// Where the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// There is none.
    Idle,
    /// An answer is owed, and its final head is still to come.
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

    /// Notes that an answer is owed.
    pub(crate) const fn owe(&mut self) {
        self.state = SendState::Owed;
    }

    /// Begins a body.
    pub(crate) const fn begin(&mut self, body: BodyKind) {
        self.encoder = BodyEncoder::new(body);
        self.state = SendState::Body;
    }

    /// Nothing more is to be framed: what follows is not HTTP.
    pub(crate) const fn give_up(&mut self) {
        self.encoder = BodyEncoder::None;
        self.state = SendState::Done;
    }

    /// Makes ready for the next message.
    pub(crate) const fn reset(&mut self) {
        self.state = SendState::Idle;
    }

    /// What holds after every state.
    pub(crate) fn check_invariants(&self) {
        debug_assert!(
            self.state == SendState::Body || self.encoder == BodyEncoder::None,
            "only a message under way has something to encode"
        );
    }

    /// Announces a piece of data and returns what goes before it.
    ///
    /// # Errors
    /// As [`BodyEncoder::prefix`]; also [`Error::OutOfOrder`] outside a body.
    #[inline]
    pub fn prefix(&mut self, len: usize) -> Result<ChunkPrefix, Error> {
        self.check()?;
        self.encoder.prefix(len)
    }

    /// What goes after each piece of data.
    #[inline]
    #[must_use]
    pub const fn suffix(&self) -> &'static [u8] {
        self.encoder.suffix()
    }

    /// Whether data is sent as it is, with nothing around it.
    #[inline]
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        self.suffix().is_empty()
    }

    /// Whether the peer has all of the message, by what its head has said: it has no body, or one of
    /// a length, and that was sent. Only [`Sender::end`] is still to come, and gives no bytes.
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
    /// As [`BodyEncoder::finish`]: the peer must then see the connection break off.
    #[inline]
    pub fn end(&mut self) -> Result<&'static [u8], Error> {
        self.check()?;
        let last = self.encoder.finish()?;
        self.state = SendState::Done;
        Ok(last)
    }

    /// Ends the message with trailers, for which its framing may have no place.
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
